"""Metrics of rankings: closed forms, and the figures of trec_eval on graded judgments with equal scores."""

import math

import numpy as np
import pytest

from whet.evaluation.metrics.ranking import MRR10, NDCG10, Recall10, Recall100, ndcg, recall, reciprocal_rank
from whet.tasks.retrieval import Corpus, best_first

# pytrec_eval-terrier 0.5.11 on `graded`: ndcg_cut_10, recall_10, recall_100, recip_rank; means over queries
TREC_EVAL = {NDCG10: 0.06366738338651491, Recall10: 0.06706911217437533, Recall100: 0.7487636515531251}


def graded(queries=25, documents=130):
    """Judgments and rankings by document number; ids that sort otherwise than numbers, and scores with many ties."""
    random = np.random.default_rng(7)
    corpus = Corpus.of({f"d{number}": "text" for number in range(documents)})
    labels, scores = [], []
    for _ in range(queries):
        judged = random.choice(documents, size=random.integers(3, 30), replace=False)
        labels.append({int(number): float(random.integers(0, 4)) for number in judged} | {int(judged[0]): 1.0})
        scores.append(random.integers(0, 40, size=documents).astype(float))
    return corpus, labels, scores


def test_figures_are_those_of_trec_eval():
    _, labels, scores = graded()
    rankings = [best_first(own, depth=100) for own in scores]
    for metric, expected in TREC_EVAL.items():
        assert metric().score(as_objects(labels), as_objects(rankings)) == pytest.approx(expected, abs=1e-6)


def as_objects(values):
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def test_a_perfect_ranking_scores_1_and_a_rank_later_costs_its_discount():
    judged = {4: 3.0, 2: 1.0, 9: 0.0}
    assert ndcg(judged, [4, 2, 9], 10) == 1.0
    assert ndcg({4: 1.0}, [0, 4], 10) == pytest.approx(1 / math.log2(3))
    assert ndcg({4: 1.0}, [0, 4], 1) == 0.0


def test_the_ideal_counts_documents_that_were_not_found():
    assert ndcg({1: 1.0, 2: 1.0}, [1], 10) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert recall({1: 1.0, 2: 1.0}, [1, 5], 10) == 0.5


def test_only_the_first_ten_count_for_the_reciprocal_rank():
    assert reciprocal_rank({3: 1.0, 5: 2.0}, [9, 5, 3], 10) == 0.5
    assert reciprocal_rank({3: 1.0}, [*range(10, 20), 3], 10) == 0.0


def test_relevance_0_and_below_is_worth_nothing():
    judged = {1: 0.0, 2: -2.0, 3: 1.0}
    assert recall(judged, [1, 2], 10) == reciprocal_rank(judged, [1, 2], 10) == ndcg(judged, [1, 2], 10) == 0.0


@pytest.mark.parametrize("metric", [NDCG10(), Recall10(), Recall100(), MRR10()])
def test_the_score_is_the_mean_over_queries(metric):
    _, labels, scores = graded(queries=6)
    labels, rankings = as_objects(labels), as_objects([best_first(own) for own in scores])
    each = [metric.score(labels[[i]], rankings[[i]]) for i in range(6)]
    assert metric.score(labels, rankings) == pytest.approx(np.mean(each))


def test_a_query_without_relevant_documents_scores_0():
    assert ndcg({}, [1], 10) == recall({}, [1], 10) == reciprocal_rank({}, [1], 10) == 0.0


def test_a_resample_of_queries_is_scored_as_its_queries_are():
    _, labels, scores = graded(queries=8)
    labels, rankings = as_objects(labels), as_objects([best_first(own) for own in scores])
    drawn = np.array([0, 0, 3, 5, 7, 7, 7, 1])
    statistic = NDCG10().statistic(labels, rankings)
    assert statistic(drawn) == pytest.approx(NDCG10().score(labels[drawn], rankings[drawn]))

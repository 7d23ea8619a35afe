"""Queries with documents: how they become inputs, exact search, and folders in the layout of BEIR."""

import copy
import gzip
import json
from itertools import pairwise

import numpy as np
import pytest

from whet.errors import InvalidData
from whet.tasks.beir import BeirFolder
from whet.tasks.encoding import encode
from whet.tasks.retrieval import Candidates, Corpus, Retrieval, best_first, grouped, nearest

DOCUMENTS = {"a": "w10 w11", "b": "w12 w11 with a long text of many words", "c": "w14", "d": "a w12 w13"}
QUERIES = {"q1": "w10", "q2": "w12", "q3": "left out"}
JUDGED = [("q1", "a", "1"), ("q2", "b", "2"), ("q2", "d", "1"), ("q2", "c", "0")]


def write(folder, *, documents=DOCUMENTS, queries=QUERIES, judged=JUDGED, candidates=None):
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in documents.items()]
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": k, "text": v}) for k, v in queries.items()))
    lines = ["query-id\tcorpus-id\tscore", *map("\t".join, judged)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    if candidates is not None:
        (folder / "candidates").mkdir()
        rows = ["query-id\tcorpus-id", *map("\t".join, candidates)]
        (folder / "candidates" / "test.tsv").write_text("\n".join(rows) + "\n")
    return BeirFolder(folder)


def ids(data, ranking):
    return [data.corpus.ids[number] for number in ranking]


def test_a_folder_gives_the_judged_queries_and_all_documents(tmp_path):
    data = write(tmp_path)
    found = data.retrieval("test")
    assert found.texts == ["w10", "w12"]
    assert [{found.corpus.ids[n]: gain for n, gain in own.items()} for own in found.labels] == [
        {"a": 1.0},
        {"b": 2.0, "d": 1.0, "c": 0.0},
    ]
    assert found.corpus.ids == ["d", "c", "b", "a"]
    assert data.unjudged() == 1


def test_title_and_text_are_joined(tmp_path):
    write(tmp_path)
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "title": "T", "text": "x"}\n{"_id": "b", "text": "y"}\n')
    assert BeirFolder(tmp_path).corpus.texts == ["y", "T x"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"judged": [("q9", "a", "1")]}, "each query-id in .*test.tsv must be in queries.jsonl, but got q9"),
        ({"judged": [("q1", "z", "1")]}, "each corpus-id in .*test.tsv must be in corpus.jsonl, but got z"),
        ({"judged": [("q1", "a", "much")]}, "must be finite numbers, but got 'much' in row 1"),
        ({"judged": [("q1", "a", "0"), ("q2", "b", "0")]}, "a relevant document must have a score above 0, but .*tsv"),
        ({"documents": {"a": "x", "": "y"}}, "every document must have an id, but row 2 of .* has none"),
        ({"queries": {"q1": "w10", "q2": " "}}, "every query must have a text, but .* has none for q2"),
    ],
)
def test_bad_data_are_refused_in_a_sentence(tmp_path, change, sentence):
    with pytest.raises(InvalidData, match=sentence):
        write(tmp_path, **change).retrieval("test")


def test_an_id_that_is_there_twice_is_refused(tmp_path):
    data = write(tmp_path)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n')
    with pytest.raises(InvalidData, match=r"every query must have an id of its own, but .* has q1 twice"):
        data.retrieval("test")


def test_a_missing_split_is_refused(tmp_path):
    with pytest.raises(InvalidData, match=r"must hold train\.tsv"):
        write(tmp_path).retrieval("train")


def test_documents_belong_to_all_queries_and_inputs_rise_in_length(tmp_path, tokenizer):
    data = write(tmp_path)
    found = data.retrieval("test")
    rows, owners, notes = found.encode(tokenizer, max_length=16)
    assert sorted(zip(owners, notes, strict=True)) == [(-1, 0), (-1, 1), (-1, 2), (-1, 3), (0, -1), (1, -1)]
    assert all(len(one["input_ids"]) <= len(other["input_ids"]) for one, other in pairwise(rows))
    brief = found.brief().encode(tokenizer, max_length=16)
    assert sorted(zip(brief.owners, brief.notes, strict=True)) == [(0, -1), (0, 3), (1, -1), (1, 0)]


def test_queries_and_documents_have_the_prompts_of_the_model(tmp_path, tokenizer):
    prompted = copy.copy(tokenizer)
    prompted.prompts, prompted.default_prompt = {"query": "w10 ", "passage": "w12 "}, "w11 "
    rows, _, notes = write(tmp_path).retrieval("test").encode(prompted, max_length=16)
    first = {note: tokenizer.convert_ids_to_tokens(row["input_ids"])[1] for row, note in zip(rows, notes, strict=True)}
    assert {token for note, token in first.items() if note < 0} == {"w10"}
    assert {token for note, token in first.items() if note >= 0} == {"w12"}


def test_the_nearest_documents_are_found_whatever_the_order_of_inputs(tmp_path, tokenizer):
    data = write(tmp_path)
    found = data.retrieval("test")
    batches = encode(found, tokenizer, max_length=16, batch_size=2)
    vectors = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0.5, 1), "d": (0, 3, 0), "q0": (2, 0, 0), "q1": (0.1, 1, 0)}
    inputs = zip(batches.owners, batches.notes, strict=True)
    names = [f"q{owner}" if note < 0 else data.corpus.ids[note] for owner, note in inputs]
    rankings = found.compared(np.array([vectors[name] for name in names], dtype=float), batches)
    assert ids(data, rankings[0])[0] == "a"
    assert ids(data, rankings[1]) == ["d", "b", "c", "a"]  # equal cosines: the larger id first


def test_search_is_exact_whatever_the_size_of_blocks(monkeypatch):
    random = np.random.default_rng(0)
    queries, documents = random.normal(size=(9, 5)), random.normal(size=(40, 5))
    expected = np.argsort(-(queries @ documents.T), axis=1)[:, :7]
    assert np.array_equal(nearest(queries, documents, depth=7), expected)
    monkeypatch.setattr("whet.tasks.retrieval._BLOCK", 80)
    assert np.array_equal(nearest(queries, documents, depth=7), expected)


def test_of_equal_scores_the_smaller_number_is_first_at_every_depth():
    scores = np.array([1.0, 2.0, 2.0, 0.0, 2.0, 1.0])
    whole = best_first(scores).tolist()
    assert whole == [1, 2, 4, 0, 5, 3]
    assert all(best_first(scores, depth=depth).tolist() == whole[:depth] for depth in range(1, 7))


CANDIDATES = [("q1", "b"), ("q1", "a"), ("q2", "c"), ("q2", "a"), ("q2", "d"), ("q1", "c")]


def test_candidates_keep_relevant_documents_that_they_lack(tmp_path):
    found = write(tmp_path, candidates=CANDIDATES).reranking("test")
    assert found.pairs == [
        tuple(DOCUMENTS[name] for name in ("c", "b", "a")),
        tuple(DOCUMENTS[name] for name in ("d", "c", "a")),
    ]
    assert found.labels == [{2: 1.0}, {0: 1.0, 1: 0.0, 3: 2.0}]  # b, worth 2, is no candidate of q2
    assert found.most == 2.0


def test_a_reranker_learns_from_relevant_documents_and_a_few_others(tmp_path):
    found = write(tmp_path, candidates=CANDIDATES).reranking("test", others=1)
    assert found.pairs == [tuple(DOCUMENTS[name] for name in "ba"), tuple(DOCUMENTS[name] for name in "dcb")]


def test_queries_without_candidates_are_refused(tmp_path):
    with pytest.raises(InvalidData, match="every judged query must have candidates, but got none for q2"):
        write(tmp_path, candidates=CANDIDATES[:2]).reranking("test")


def test_each_candidate_is_an_input_with_its_relevance(tokenizer):
    found = Candidates(["w10", "w12"], [{1: 2.0}, {0: 1.0}], [("a", "b w11"), ("c",)], most=2.0)
    rows, owners, notes = found.encode(tokenizer, max_length=16)
    gains = {(owner, note): row["labels"] for row, owner, note in zip(rows, owners, notes, strict=True)}
    assert gains == {(0, 0): 0.0, (0, 1): 1.0, (1, 0): 0.5}
    whole = tokenizer("w10", "b w11")["input_ids"]
    assert rows[[*zip(owners, notes, strict=True)].index((0, 1))]["input_ids"] == whole


def test_candidates_are_ranked_by_their_scores(tokenizer):
    found = Candidates(["w10", "w12"], [{1: 1.0}, {0: 1.0}], [("a", "b w11", "c d e f"), ("c",)])
    batches = encode(found, tokenizer, max_length=16, batch_size=2)
    wanted = {(0, 0): 0.5, (0, 1): -3.0, (0, 2): 0.7, (1, 0): 0.0}
    scores = np.array([wanted[own, note] for own, note in zip(batches.owners, batches.notes, strict=True)])
    assert [ranking.tolist() for ranking in found.ranked(scores, batches)] == [[2, 0, 1], [0]]


def test_rows_become_queries_with_candidates_whatever_their_order():
    rows = [("q", "b", 0.0), ("r", "c", 0.0), ("q", "a", 3.0), ("q", "c", 1.0), ("q", "a", 3.0)]
    found = grouped(*zip(*rows, strict=True), source="rows")
    assert (found.texts, found.pairs) == (["q", "r"], [("c", "b", "a"), ("c",)])
    assert (found.labels, found.most) == ([{0: 1.0, 1: 0.0, 2: 3.0}, {0: 0.0}], 3.0)
    assert grouped(*zip(*rows[::-1], strict=True), source="rows").pairs[0] == ("c", "b", "a")


def test_two_relevances_of_one_text_are_refused():
    with pytest.raises(InvalidData, match="one relevance for a query, but row 2 of table says 1 where a row before it"):
        grouped(["q", "q"], ["a", "a"], [0.0, 1.0], source="table")


def test_brief_candidates_are_a_relevant_one_and_another():
    found = Candidates(["w10", "w12"], [{2: 1.0, 5: 1.0}, {}], [("a", "b", "c"), ("d",)]).brief()
    assert (found.pairs, found.labels) == ([("c", "a"), ("d",)], [{0: 1.0}, {}])


def test_queries_of_two_corpora_are_not_joined():
    one, other = (Retrieval(["a"], [{0: 1.0}], corpus=Corpus.of({name: "text"})) for name in "xy")
    with pytest.raises(InvalidData, match="all queries must be of one corpus"):
        one.joined(other)
    assert len(one.joined(one)) == 2
    assert one.digest() != other.digest()

"""Semantic textual similarity: files of SemEval's form, and the real ones."""

import gzip

import numpy as np
import pytest

from whet.errors import InvalidData
from whet.tasks.base import task_named
from whet.tasks.similarity import InSet, SentencePairs

ROWS = {
    "2012/a.train": "1.0\tone\ttwo\n",
    "2012/b.test": '4.5\t"quoted" one\ttwo\n',
    "2012/a.test": "5\tfirst\tsecond\n",
    "2013/a.test": "0\tthree\tfour\n",
    "2014/a.test": "1\tfive\tsix\n",
    "2015/a.test": "\tnot\tscored\n2.5\tseven\teight\n",
    "2016/a.test": "3\tnine\tten\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        path = tmp_path / "sts12-16" / f"{name}.tsv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(rows.encode()))
    return tmp_path


def test_a_year_has_its_scored_pairs(folder):
    train, dev = task_named("sts15", data_dir=folder).read()
    assert dev == SentencePairs(["seven"], [2.5], ["eight"])
    assert train == SentencePairs(["one"], [1.0], ["two"])
    assert task_named("sts12", data_dir=folder).read()[1].texts == ["first", '"quoted" one']


def test_all_years_keep_theirs(folder):
    task = task_named("sts12-16", data_dir=folder / "sts12-16")
    _, dev = task.read()
    assert dev.labels == [
        InSet("2012", 5.0),
        InSet("2012", 4.5),
        InSet("2013", 0.0),
        InSet("2014", 1.0),
        InSet("2015", 2.5),
        InSet("2016", 3.0),
    ]
    assert (task.metrics, task.kind.name()) == (("sts_average",), "embedding")


def test_a_missing_year_is_refused(folder):
    (folder / "sts12-16" / "2014" / "a.test.tsv.gz").unlink()
    with pytest.raises(InvalidData, match=r"must hold files 2014/\*\.test\.tsv"):
        task_named("sts12-16", data_dir=folder).read()


def test_the_real_files_have_their_known_sizes(data_dir):
    dev = task_named("sts12-16", data_dir=data_dir).read()[1]
    counts = np.unique([label.set for label in dev.labels], return_counts=True)[1]
    assert counts.tolist() == [2358, 1500, 3750, 3000, 1186]


def test_pairs_with_scores_serve_both_kinds(data_dir):
    for name, first in (("glue/stsb", "pearson"), ("sick-relatedness", "pearson")):
        task = task_named(name, data_dir=data_dir)
        assert (task.kind.name(), task.metrics[0]) == ("regression", first)
        read = task.for_kind(task_named("sts12").kind)
        assert (read.kind.name(), read.metrics[0]) == ("embedding", "spearman")
        for one, other in zip(read.splits, task.splits, strict=True):
            assert isinstance(one, SentencePairs)
            assert (one.texts, one.pairs, one.labels) == (other.texts, other.pairs, other.labels)


def test_classes_serve_no_embedder(data_dir):
    with pytest.raises(InvalidData, match="glue/mrpc"):
        task_named("glue/mrpc", data_dir=data_dir).for_kind(task_named("sts12").kind)

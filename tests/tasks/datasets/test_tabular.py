from pathlib import Path

import pytest

from whet.errors import InvalidData
from whet.tasks import files as task_files
from whet.tasks.base import task_from_files
from whet.tasks.datasets import tabular

TRAIN = "text,other,label\n" + "".join(f"t{i},o{i},{'no' if i % 3 else 'yes'}\n" for i in range(60))
DEV = "text,other,label\na,b,yes\nc,d,no\n"
SCORES = "text,other,score\n" + "".join(f"t{i},o{i},{i / 10}\n" for i in range(60))


def files(folder: Path, train: str = TRAIN, dev: str = DEV) -> tuple[Path, Path]:
    (folder / "train.csv").write_text(train)
    (folder / "dev.csv").write_text(dev)
    return folder / "train.csv", folder / "dev.csv"


def test_the_classes_are_the_sorted_labels_of_the_training_file(tmp_path):
    task = task_from_files(*files(tmp_path), text="text")
    assert task.label_names == ("no", "yes")
    assert task.metrics == ("accuracy",)
    assert task.splits.dev.labels == [1, 0]
    assert task.splits.dev.pairs is None
    assert len(task.splits.train) + len(task.splits.validation) == 60
    for part in task.splits[:2]:
        assert part.labels == [int(text[1:]) % 3 == 0 for text in part.texts]


@pytest.mark.parametrize("text_pair", [None, "other"])
def test_without_a_dev_file_the_other_splits_are_the_same(tmp_path, text_pair):
    train, dev = files(tmp_path)
    with_dev, without = (task_from_files(train, *more, text="text", text_pair=text_pair) for more in ((dev,), ()))
    assert without.splits[:2] == with_dev.splits[:2]
    assert without.label_names == with_dev.label_names
    assert len(without.splits.dev) == 0


def test_pairs_and_another_label_column(tmp_path):
    task = task_from_files(*files(tmp_path), text="other", text_pair="text", label="label", metric="macro_f1")
    assert task.metrics == ("macro_f1",)
    assert (task.splits.dev.texts, task.splits.dev.pairs) == (["b", "d"], ["a", "c"])


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_with_a_correlation_the_labels_are_scores(tmp_path, metric):
    task = task_from_files(*files(tmp_path, SCORES, SCORES), text="text", label="score", metric=metric)
    assert task.label_names is None
    assert task.splits.dev.labels == [i / 10 for i in range(60)]


def test_each_file_is_read_once(tmp_path, monkeypatch):
    read: list[Path] = []

    def counted(path, columns):
        read.append(path)
        return task_files.read_table(path, columns)

    monkeypatch.setattr(tabular, "read_table", counted)
    train, dev = files(tmp_path)
    task = task_from_files(train, dev, text="text")
    _ = task.label_names, task.splits, task.label_names, task.splits
    assert sorted(read) == sorted([train, dev])


def test_equal_files_and_columns_make_equal_tasks(tmp_path):
    paths = files(tmp_path)
    task = task_from_files(*paths, text="text")
    assert task == task_from_files(*paths, text="text")
    assert hash(task) == hash(task_from_files(*paths, text="text"))
    assert task != task_from_files(*paths, text="other")


@pytest.mark.parametrize(
    ("train", "dev", "options", "message"),
    [
        (TRAIN, "text,label\na,maybe\nb,no\n", {}, "labels in .*dev.csv must be no, yes, but got maybe; correct"),
        (
            "text,label\na,no\nb,no\n",
            "text,label\na,no\n",
            {},
            "training data of tabular must hold at least two classes",
        ),
        (TRAIN, "text,label\na,no\nb,no\n", {}, "dev data of tabular must hold at least two classes"),
        (TRAIN, DEV, {"metric": "pearson"}, "scores in .*train.csv must be finite numbers, but got 'yes' in row 1; "),
        (
            SCORES,
            "text,score\na,nan\n",
            {"metric": "spearman", "label": "score"},
            "dev.csv .*finite.* got 'nan' in row 1",
        ),
        (
            SCORES,
            "text,score\na,inf\n",
            {"metric": "pearson", "label": "score"},
            "dev.csv .*finite.* got 'inf' in row 1",
        ),
        (
            SCORES,
            SCORES,
            {"metric": "f1", "label": "score"},
            "f1 must score two classes, but got 60 in .*; give metric=macro_f1",
        ),
        (
            TRAIN,
            DEV,
            {"text": "body"},
            "columns body must be in .*train.csv, but got text, other, label; give the names",
        ),
        (TRAIN, DEV, {"text_pair": "body"}, "columns body must be in .*train.csv"),
        (TRAIN, DEV, {"label": "class"}, "columns class must be in .*train.csv"),
        (TRAIN, "", {}, "must hold rows, but .*dev.csv is empty"),
        ("", DEV, {}, "must hold rows, but .*train.csv is empty"),
    ],
)
def test_unusable_files_are_refused(tmp_path, train, dev, options, message):
    task = task_from_files(*files(tmp_path, train, dev), **{"text": "text", **options})
    with pytest.raises(InvalidData, match=message):
        _ = task.splits


def test_missing_and_foreign_files_are_refused(tmp_path):
    train, dev = files(tmp_path)
    with pytest.raises(InvalidData, match=r"must exist, but got .*none.csv; check the path"):
        _ = task_from_files(tmp_path / "none.csv", dev, text="text").label_names
    dev.write_bytes(DEV.encode("utf-16"))
    with pytest.raises(InvalidData, match=r"dev.csv must be UTF-8, but .*; convert it first"):
        _ = task_from_files(train, dev, text="text").splits

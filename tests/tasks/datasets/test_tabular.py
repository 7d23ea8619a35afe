from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

import whet
from whet.errors import InvalidData, InvalidParameter
from whet.tasks import files as task_files
from whet.tasks import own_files
from whet.tasks.own_data import task_from_files
from whet.tasks.pairing import PositiveClass

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


def test_whole_numbers_are_in_the_order_of_numbers(tmp_path):
    rows = "".join(f"t{i},o,{i % 12}\n" for i in range(120))
    task = task_from_files(*files(tmp_path, "text,other,label\n" + rows, "text,label\na,10\nb,2\n"), text="text")
    assert task.label_names == tuple(map(str, range(12)))
    assert task.splits.dev.labels == [10, 2]


def test_labels_that_differ_in_case_alone_are_classes_of_their_own_and_said_once(tmp_path, capsys):
    task = task_from_files(*files(tmp_path, TRAIN + "a,b,Yes\n"), text="text")
    assert task.label_names == ("Yes", "no", "yes")
    _ = task.splits, task.label_names
    assert capsys.readouterr().err == "note: labels that are spelled differently are different classes: Yes, yes\n"


def test_the_positive_class_is_class_1_of_two(tmp_path):
    task = whet.load_task(train_file=files(tmp_path)[0], metric="f1", positive="no")
    assert task.label_names == ("yes", "no")
    assert task.positive_class([0, 1]) == task.positive_class([1, 0]) == PositiveClass(1, "no")
    with pytest.raises(InvalidParameter, match="--positive must be a class of the task, no, yes, but got si; correct"):
        task_from_files(files(tmp_path)[0], text="text", metric="f1", positive="si").positive_class([0, 1])


def test_f1_of_a_named_class_may_be_one_of_many(tmp_path):
    train, _ = files(tmp_path, TRAIN + "a,b,maybe\n" * 3)
    task = task_from_files(train, text="text", metric="f1", positive="maybe")
    assert task.positive_class([0, 1, 2]) == PositiveClass(task.label_names.index("maybe"), "maybe")
    assert len(task.splits.train) == 60


@pytest.mark.parametrize("rows", [TRAIN.replace(",label", ",other label"), "text,label\n" + "a,no\n" * 60])
def test_texts_need_no_labels_where_none_are_read(tmp_path, rows):
    """The texts are split as they are with labels."""
    train, _ = files(tmp_path, rows)
    texts = task_from_files(train, text="text").unlabeled().splits
    (tmp_path / "other").mkdir()
    labeled = task_from_files(files(tmp_path / "other", TRAIN)[0], text="text").splits
    if "other" in rows:
        assert [part.texts for part in texts] == [part.texts if part is not labeled.dev else [] for part in labeled]
    assert np.isnan(texts.train.labels).all()
    with pytest.raises(InvalidData, match=r"columns label must be in|must hold at least two classes"):
        _ = task_from_files(train, text="text").splits


def dataset(labels) -> datasets.Dataset:
    """Rows of a data set whose classes have numbers, in an order that is not the alphabet's."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "a"])})
    return datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(len(labels))], "label": labels}, features)


def test_tables_in_memory_are_as_files(tmp_path):
    train, dev = files(tmp_path)
    frames = [pd.read_csv(path, index_col="other").reset_index() for path in (train, dev)]
    paths = whet.load_task(train_file=str(train), dev_file=str(dev)).splits
    assert whet.load_task(train_file=frames[0], dev_file=frames[1]).splits == paths
    tables = [datasets.Dataset.from_pandas(frame) for frame in frames]
    assert whet.load_task(train_file=tables[0], dev_file=tables[1]).splits == paths
    task = whet.load_task(train_file=frames[0])
    assert task == task and hash(task) and task != whet.load_task(train_file=frames[0])


def test_the_classes_of_a_data_set_have_names_and_numbers():
    task = whet.load_task(train_file=dataset([0, 1] * 30), dev_file=dataset([1, 0]))
    assert task.label_names == ("no", "a")
    assert task.splits.dev.labels == [1, 0]
    assert task.pairing({0: "LABEL_0", 1: "LABEL_1"}).order == [0, 1]
    assert task.pairing({0: "a", 1: "no"}).order == [1, 0]
    with pytest.raises(
        InvalidData, match=r"column label of train_file \(Dataset\) must hold numbers of its 2 .* got -1"
    ):
        _ = whet.load_task(train_file=dataset([0, -1])).splits


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            datasets.DatasetDict(train=dataset([0, 1])),
            r"but got DatasetDict; give one .* such as dev_file=data\['train'\]",
        ),
        (7, "but got int; "),
    ],
)
def test_other_things_than_tables_are_refused(given, message):
    with pytest.raises(InvalidParameter, match=f"^dev_file must be a path, .*{message}"):
        whet.load_task(train_file="a.csv", dev_file=given)


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

    def counted(path, columns, **options):
        read.append(path)
        return task_files.read_table(path, columns, **options)

    monkeypatch.setattr(own_files, "read_table", counted)
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
        (
            pd.DataFrame({"text": ["a", "b"], "label": [["x"], ["y"]]}),
            DEV,
            {},
            "holds a list; convert it, or give --kind multi_label if",
        ),
        (pd.DataFrame([["a", "b", 1]], columns=["text", "text", "label"]), DEV, {}, "once, but got text twice; rename"),
        (
            pd.DataFrame({"text": ["a", "b"], "label": ["x", None]}),
            DEV,
            {},
            r"train_file \(DataFrame\) has empty .* 2;",
        ),
        (TRAIN, "", {}, "must hold rows, but .*dev.csv is empty"),
        ("", DEV, {}, "must hold rows, but .*train.csv is empty"),
    ],
)
def test_unusable_files_are_refused(tmp_path, train, dev, options, message):
    if isinstance(train, str):
        train, dev = files(tmp_path, train, dev)
    task = task_from_files(train, dev, **{"text": "text", **options})
    with pytest.raises(InvalidData, match=message):
        _ = task.splits


def test_missing_and_foreign_files_are_refused(tmp_path):
    train, dev = files(tmp_path)
    with pytest.raises(InvalidData, match=r"must exist, but got .*none.csv; check the path"):
        _ = task_from_files(tmp_path / "none.csv", dev, text="text").label_names
    dev.write_bytes(DEV.encode("utf-16"))
    with pytest.raises(InvalidData, match=r"dev.csv must be UTF-8, but .*; convert it first"):
        _ = task_from_files(train, dev, text="text").splits

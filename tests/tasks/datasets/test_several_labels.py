"""Own data in which a text has any number of labels."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest

import whet
from whet.errors import InvalidData, InvalidParameter, UnknownName

SETS = [["joy", "love"], [], ["anger"], ["joy"]] * 10
TEXTS = [f"t{i}" for i in range(len(SETS))]
NAMES = ("anger", "joy", "love")


def write(folder: Path, form: str) -> dict[str, object]:
    """Write the same texts and labels in a form, and return the arguments of `load_task`."""
    path = folder / f"train.{'csv' if form in ('cells', 'columns') else form}"
    if form == "cells":
        pd.DataFrame({"text": TEXTS, "label": [", ".join(names) for names in SETS]}).to_csv(path, index=False)
    elif form == "columns":
        marks = {name: [int(name in names) for names in SETS] for name in NAMES}
        pd.DataFrame({"text": TEXTS, **marks}).to_csv(path, index=False)
        return {"train_file": path, "label": NAMES, "kind": "multi_label"}
    elif form == "jsonl":
        rows = ({"text": text, "label": names} for text, names in zip(TEXTS, SETS, strict=True))
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame({"text": TEXTS, "label": SETS}).to_parquet(path)
    return {"train_file": path, "kind": "multi_label"}


@pytest.mark.parametrize("form", ["cells", "columns", "jsonl", "parquet"])
def test_every_form_gives_the_same_labels(tmp_path, form):
    task = whet.load_task(**write(tmp_path, form))
    assert (task.kind.name(), task.label_names) == ("multi_label", NAMES)
    assert task.metrics == ("micro_f1", "macro_label_f1", "mean_average_precision")
    for part in task.splits[:2]:
        wanted = [tuple(float(name in SETS[int(text[1:])]) for name in NAMES) for text in part.texts]
        assert part.labels == wanted


def test_a_metric_of_the_kind_tells_it_and_comes_first(tmp_path):
    options = {**write(tmp_path, "cells"), "kind": None, "metric": "mean_average_precision"}
    task = whet.load_task(**options)
    assert task.kind.name() == "multi_label"
    assert task.metrics == ("mean_average_precision", "micro_f1", "macro_label_f1")


def test_another_separator(tmp_path):
    pd.DataFrame({"text": TEXTS, "label": ["a, b|c" if i % 2 else "" for i in range(40)]}).to_csv(tmp_path / "a.csv")
    options = {"train_file": tmp_path / "a.csv", "kind": "multi_label"}
    assert whet.load_task(**options, label_separator="|").label_names == ("a, b", "c")


def test_the_labels_of_a_data_set_have_names_and_numbers():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.List(datasets.ClassLabel(names=["no", "a", "never"]))}
    )
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [[0, 1], []] * 20}, features)
    task = whet.load_task(train_file=data, kind="multi_label")
    assert task.label_names == ("no", "a", "never") and task.ordered
    assert set(task.splits.train.labels) == {(1.0, 1.0, 0.0), (0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["joy", "love"], "every text has exactly one label; if labels exclude each other, give --kind classification"),
        (["joy", "joy,love"], ""),
    ],
)
def test_texts_with_one_label_each_may_be_of_another_kind(tmp_path, capsys, labels, said):
    pd.DataFrame({"text": TEXTS, "label": labels * 20}).to_csv(tmp_path / "a.csv")
    task = whet.load_task(train_file=tmp_path / "a.csv", kind="multi_label")
    _ = task.splits, task.splits
    assert capsys.readouterr().err == (f"note: {said}\n" if said else "")


def test_a_label_that_no_text_has_is_said(tmp_path, capsys):
    marks = {"joy": [0, 1] * 20, "never": [0] * 40}
    pd.DataFrame({"text": TEXTS, **marks}).to_csv(tmp_path / "a.csv")
    task = whet.load_task(train_file=tmp_path / "a.csv", kind="multi_label", label=["joy", "never"])
    assert set(task.splits.train.labels) == {(0.0, 0.0), (1.0, 0.0)}
    assert capsys.readouterr().err == f"note: no text of {tmp_path / 'a.csv'} has the label never\n"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"label": ["a", "b"]},
            InvalidParameter,
            "one column for classification, but got a, b; give --kind multi_label",
        ),
        ({"label_separator": ";"}, InvalidParameter, "must go with --kind multi_label, but got it with classification"),
        (
            {"kind": "multi_label", "label_separator": ""},
            InvalidParameter,
            "must be a sign between names in one column",
        ),
        (
            {"kind": "multi_label", "label": ["a", "b"], "label_separator": "|"},
            InvalidParameter,
            "with 2 columns; leave",
        ),
        ({"kind": "multi_label", "label": ["a", "a"]}, InvalidParameter, "must name columns, each once, but got a, a"),
        ({"kind": "multi_label", "metric": "accuracy"}, InvalidParameter, "must score multi_label, but got accuracy"),
        ({"kind": "multi_label", "metric": "macro_f1"}, InvalidParameter, "must score multi_label, but got macro_f1"),
        (
            {"kind": "classification", "metric": "micro_f1"},
            InvalidParameter,
            "must score classification, but got micro",
        ),
        ({"kind": "multi_lable"}, UnknownName, "did you mean multi_label"),
        ({"kind": "multi_label", "positive": "joy"}, InvalidParameter, "must go with a metric of one class"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        whet.load_task(train_file=tmp_path / "a.csv", **options)


def test_label_columns_go_with_own_data():
    with pytest.raises(InvalidParameter, match="--label and --label-separator must go with --train-file, but got one"):
        whet.load_task("goemotions", label=["a", "b"])


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("joy,love", "joy,envy", r"labels in .*dev.csv must be joy, love, but got envy; correct or remove"),
        ("joy,love", "joy,joy", r"each label once, but got joy twice in row 1 of .*dev.csv"),
        ("joy|love", "joy", r"must have ',' between, but got 'joy\|love'; give --label-separator '\|'"),
        ("", "joy", r"some text must have a label, but column label of .*train.csv has none; name the column"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path, train, dev, message):
    for name, label in (("train", train), ("dev", dev)):
        pd.DataFrame({"text": ["a", "b"], "label": [label, ""]}).to_csv(tmp_path / f"{name}.csv")
    task = whet.load_task(train_file=tmp_path / "train.csv", dev_file=tmp_path / "dev.csv", kind="multi_label")
    with pytest.raises(InvalidData, match=message):
        _ = task.splits


def test_texts_need_no_labels_where_none_are_read(tmp_path):
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "a.csv")
    task = whet.load_task(train_file=tmp_path / "a.csv", kind="multi_label")
    assert len(task.unlabeled().splits.train) == 38

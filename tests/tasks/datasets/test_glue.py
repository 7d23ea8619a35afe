import datasets
import pytest

from whet.errors import InvalidData
from whet.tasks.base import task_named
from whet.tasks.datasets.glue import GLUE_LAYOUTS


def write(folder, name, *, labels=("0", "1")):
    """Write the files of one task as GLUE publishes them, one row for each label."""
    layout = GLUE_LAYOUTS[name]
    place = folder / layout.folder
    place.mkdir(parents=True)
    columns = layout.header or ("index", *layout.file_columns, layout.file_label)
    for file in ("train", layout.dev):
        lines = [] if layout.header else [columns]
        lines += [
            [label if column == layout.file_label else f'{column} "{i}' for column in columns]
            for i, label in enumerate(labels)
        ]
        (place / f"{file}.tsv").write_text("\n".join("\t".join(line) for line in lines) + "\n")
    return place


@pytest.mark.parametrize("name", GLUE_LAYOUTS)
def test_official_files_are_read_wherever_the_folder_is_given(tmp_path, name):
    layout = GLUE_LAYOUTS[name]
    labels = ("0.5", "5.000") if layout.label_names is None else layout.file_labels
    place = write(tmp_path / "glue", name, labels=labels)
    for given in (tmp_path, tmp_path / "glue", place):
        dev = task_named(name, data_dir=given).splits.dev
        assert dev.labels == ([0.5, 5.0] if layout.label_names is None else list(range(len(labels))))
        assert dev.texts == [f'{layout.file_columns[0]} "{i}' for i in range(len(labels))]
        assert (dev.pairs is None) == (len(layout.file_columns) == 1)


@pytest.mark.parametrize("name", GLUE_LAYOUTS)
def test_the_hub_gives_the_same_shape(monkeypatch, name):
    layout = GLUE_LAYOUTS[name]
    labels = [0.5, 5.0] if layout.label_names is None else list(range(len(layout.label_names)))

    def load_dataset(path, config, *, split):
        assert (path, config) == ("nyu-mll/glue", name.removeprefix("glue/"))
        assert split in ("train", layout.hub_dev)
        texts = {column: [f"{column} {split} {i}" for i in labels] for column in layout.hub_columns}
        return datasets.Dataset.from_dict({**texts, "label": labels})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    dev = task_named(name).splits.dev
    assert dev.labels == labels
    assert dev.texts[0] == f"{layout.hub_columns[0]} {layout.hub_dev} {labels[0]}"
    assert (dev.pairs is None) == (len(layout.hub_columns) == 1)


def test_every_file_label_has_a_class():
    for layout in GLUE_LAYOUTS.values():
        if layout.label_names is not None:
            assert len(layout.file_labels) == len(layout.label_names)


def test_foreign_labels_and_scores_are_refused(tmp_path):
    write(tmp_path, "glue/rte", labels=("entailment", "neutral"))
    with pytest.raises(InvalidData, match=r"train.tsv must be entailment, not_entailment, but got neutral; correct"):
        _ = task_named("glue/rte", data_dir=tmp_path).splits
    write(tmp_path, "glue/stsb", labels=("4.5", "high"))
    with pytest.raises(InvalidData, match=r"train.tsv must be finite numbers, but got 'high' in row 2; "):
        _ = task_named("glue/stsb", data_dir=tmp_path).splits


def test_a_missing_folder_or_file_is_refused(tmp_path):
    with pytest.raises(
        InvalidData, match=r"--data-dir must hold a folder CoLA, but .* does not; give the folder above"
    ):
        _ = task_named("glue/cola", data_dir=tmp_path).splits
    (tmp_path / "CoLA").mkdir()
    with pytest.raises(InvalidData, match=r"must exist, but got .*CoLA/train.tsv; check the path"):
        _ = task_named("glue/cola", data_dir=tmp_path).splits


def test_the_folder_of_another_task_is_not_taken(tmp_path):
    place = write(tmp_path, "glue/rte", labels=("entailment", "not_entailment"))
    with pytest.raises(InvalidData, match="must hold a folder QNLI"):
        _ = task_named("glue/qnli", data_dir=place).splits

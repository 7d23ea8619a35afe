"""CoNLL-2003 and WNUT-17 have the entities of their files, and own data have the classes of theirs."""

from collections import Counter
from pathlib import Path

import pytest

from whet.errors import InvalidData
from whet.tasks.base import task_named
from whet.tasks.datasets.tagged import Tagged
from whet.tasks.tagged_files import read_columns
from whet.tasks.tags import spans

FILES = {
    "conll2003": ("conll2003", "eng.train", "eng.testb"),
    "wnut17": ("wnut17", "wnut17train.conll", "emerging.test.annotated"),
}


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "entities"),
    [("conll2003", 3453, {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617}), ("wnut17", 1287, None)],
)
def test_entities_are_those_of_the_official_files(data_dir, name, count, entities):
    task = task_named(name, data_dir=data_dir)
    dev = task.splits.dev
    folder, _, test = FILES[name]
    official = read_columns(data_dir / folder / f"{test}.gz")
    read = [[task.label_names[tag] for tag in tags] for tags in dev.labels]
    assert len(dev) == count and dev.texts == official.words
    assert list(map(spans, read)) == list(map(spans, official.tags))
    if entities is not None:
        assert Counter(span.type for tags in read for span in spans(tags)) == entities


@pytest.mark.parametrize("place", [".", "wnut17"])
def test_files_lie_in_the_folder_or_below_it(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    for name in FILES["wnut17"][1:]:
        (folder / name).write_text("a\tO\nb\tB-person\n\t\n" * 40)
    splits = task_named("wnut17", data_dir=tmp_path).splits
    assert [len(split) for split in splits] == [38, 2, 40]


def test_without_files_there_is_nothing_to_read():
    with pytest.raises(InvalidData, match=r"--data-dir must be given for conll2003, .* give the folder with eng.train"):
        _ = task_named("conll2003").splits


def written(path: Path, *sentences: str) -> Path:
    path.write_text("\n\n".join("\n".join(sentence.split(", ")) for sentence in sentences))
    return path


def test_classes_of_own_data_are_those_of_the_training_data(tmp_path):
    train = written(tmp_path / "train.conll", "Ann I-PER, Bob B-PER", "Rome I-LOC, is O", "it O")
    dev = written(tmp_path / "dev.conll", "Rome I-LOC, Ann I-PER")
    task = Tagged(train_file=train, dev_file=dev)
    assert task.label_names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert task.splits.dev.labels == [(1, 3)] and task.metrics[0] == "entity_f1"
    other = written(tmp_path / "other.conll", "Acme B-ORG, is O")
    with pytest.raises(InvalidData, match="must be O, B-LOC, I-LOC, B-PER, I-PER, but got B-ORG"):
        _ = Tagged(train_file=train, dev_file=other).splits


def test_a_file_without_b_may_be_iob1(tmp_path):
    dev = written(tmp_path / "dev.conll", "Ann I-PER, Lee I-PER, is O", "it O")
    task = Tagged(dev_file=dev)
    assert task.label_names == ("O", "B-PER", "I-PER") and task.splits.dev.labels == [(1, 2, 0), (0,)]


def test_parts_of_speech_are_scored_by_words(tmp_path):
    train = written(tmp_path / "train.conll", "Ann NNP, runs VB", "it PRP")
    task = Tagged(train_file=train)
    assert task.label_names == ("NNP", "PRP", "VB") and task.metrics == ("word_accuracy",)


def test_texts_without_tags_can_be_read(tmp_path):
    train = written(tmp_path / "train.conll", *["it", "Ann, runs"] * 20)
    unlabeled = Tagged(train_file=train).unlabeled().splits
    assert [len(split) for split in unlabeled] == [38, 2, 0] and set(unlabeled.train.labels) == {None}

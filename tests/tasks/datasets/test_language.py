"""Known texts and own ones: the Penn Treebank with its usual token counts, stories, files and tables."""

import json
from pathlib import Path

import pytest

import whet
from helpers import word_tokenizer
from tasks.test_corpus import words
from whet.errors import InvalidData, InvalidParameter
from whet.tasks.base import task_named
from whet.tasks.datasets._language import READINGS

DATA = Path(__file__).parents[4] / "shared" / "data"
real = pytest.mark.skipif(not (DATA / "ptb").is_dir(), reason="needs the public data beside the checkout")


@real
def test_the_penn_treebank_has_its_known_numbers_of_words():
    train, valid, test = task_named("ptb", data_dir=DATA).splits
    counts = [sum(len(text.split()) for (text,) in split.plain()) for split in (train, valid, test)]
    assert counts == [929_589, 73_760, 82_430]
    assert test.plain()[0][0].startswith(" no it was n't black monday <eos>\n but while")
    assert {split.windows for split in (train, valid)} == {"adjacent"} and test.windows == "overlapping"


@real
def test_each_story_is_a_document():
    task = task_named("stories", data_dir=DATA / "stories")
    train, validation, dev = task.splits
    assert (len(train) + len(validation), len(dev)) == (9, 10)
    assert dev.plain()[0][0].startswith("Sara and Tom were going on a big trip")
    assert task.metrics == ("perplexity", "bits_per_byte") and task.label_names is None


@pytest.mark.parametrize("kind", sorted(READINGS))
def test_own_text_is_a_running_text_or_documents(kind, tmp_path):
    (tmp_path / "train.txt").write_text(words(900), encoding="utf-8")
    rows = [{"body": f"w5 w6 w{i + 7}"} for i in range(30)]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = whet.load_task(train_file=tmp_path / "train.txt", dev_file=tmp_path / "dev.jsonl", kind=kind, text="body")
    assert task.kind.name() == kind and task.metrics == task.kind.metrics
    assert len(task.splits.train) == 3 and len(task.splits.dev) == 30
    assert {split.reading for split in task.splits} == {READINGS[kind]}
    assert task.files == (tmp_path / "train.txt", tmp_path / "dev.jsonl")
    memory = whet.load_task(train_file=rows, dev_file=rows, kind=kind, text="body")
    assert len(memory.splits.train) + len(memory.splits.validation) == len(memory.splits.dev) == 30
    assert memory.unlabeled().splits.train.plain() == memory.splits.train.plain()


def test_texts_that_cannot_be_used_are_refused_in_one_sentence(tmp_path):
    def splits(name: str, content: bytes):
        (tmp_path / name).write_bytes(content)
        return whet.load_task(train_file=tmp_path / name, kind="language_modeling").splits

    with pytest.raises(InvalidData, match=r"the text file must hold words, but .*a\.txt is empty; write it again"):
        splits("a.txt", b"")
    with pytest.raises(InvalidData, match=r"must hold words, but .*b\.txt is empty"):
        splits("b.txt", b" \n\n")
    with pytest.raises(InvalidData, match=r"must be UTF-8, but .*c\.txt cannot be read"):
        splits("c.txt", b"\xff\xfe\xfa")
    with pytest.raises(InvalidData, match=r"must hold two passages of 300 words, but got 3 words in .*d\.txt"):
        splits("d.txt", b"one two three")
    with pytest.raises(InvalidData, match=r"--data-dir must be given with ptb"):
        _ = task_named("ptb").splits


def test_the_stride_is_the_users(tmp_path):
    (tmp_path / "a.txt").write_text(words(900), encoding="utf-8")
    own = {"dev_file": tmp_path / "a.txt", "kind": "language_modeling"}
    rows = [
        len(whet.load_task(**own, stride=n).splits.dev.encode(word_tokenizer(), max_length=40).rows) for n in (5, 15)
    ]
    assert rows[0] > 2 * rows[1]
    with pytest.raises(InvalidParameter, match=r"1 <= stride <= 39 must hold.* but got stride=40; give a smaller one"):
        whet.load_task(**own, stride=40).splits.dev.encode(word_tokenizer(), max_length=40)
    with pytest.raises(InvalidParameter, match="--stride must go with --train-file, but got 4 with --task"):
        whet.load_task("ptb", stride=4)
    with pytest.raises(InvalidParameter, match="--stride must go with data of language_modeling, masked"):
        whet.load_task(train_file=tmp_path / "a.csv", stride=4)

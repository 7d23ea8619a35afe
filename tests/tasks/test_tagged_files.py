"""Sentences with tags from columns, tables and folders; what does not fit is refused in one sentence."""

import gzip
import json
import re

import datasets
import pandas as pd
import pytest

from whet.errors import InvalidData
from whet.tasks.frames import Frame
from whet.tasks.tagged_files import indexed, read_columns, read_tagged, said_of

WORDS = [("Ann", "Lee", "left"), ("Rome", ".")]
TAGS = [("B-PER", "I-PER", "O"), ("B-LOC", "O")]
COLUMNS = {
    "tab": "Ann\tB-PER\nLee\tI-PER\nleft\tO\n\t\nRome\tB-LOC\n.\tO\n",
    "four": "-DOCSTART- -X- O O\n\nAnn N B B-PER\nLee N I I-PER\nleft V O O\n\n\nRome N B B-LOC\n. . O O",
    "comments": "# a = 1\r\nAnn B-PER\r\nLee I-PER\r\nleft O\r\n\r\n# a = 2\r\nRome  B-LOC \r\n.  O\r\n\r\n",
}


def rows() -> list[dict]:
    return [{"words": list(words), "tags": list(tags)} for words, tags in zip(WORDS, TAGS, strict=True)]


def saved(path):
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=names))}
    )
    numbers = [[names.index(tag) for tag in tags] for tags in TAGS]
    table = datasets.Dataset.from_dict({"tokens": [list(words) for words in WORDS], "ner_tags": numbers}, features)
    table.save_to_disk(str(path))
    return table


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize("ending", [".conll", ".txt.gz"])
def test_columns(tmp_path, form, ending):
    path = tmp_path / f"data{ending}"
    content = COLUMNS[form].encode()
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    assert read_tagged(path, text="text", label="label") == (WORDS, TAGS)


def test_tables_and_folders(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows())))
    texts = pd.DataFrame({"text": ["Ann Lee left", "Rome ."], "label": ["B-PER I-PER O", "B-LOC O"]})
    dataset = saved(tmp_path / "folder")
    for source in (path, Frame(texts, "train_file"), Frame(dataset, "train_file"), tmp_path / "folder"):
        assert read_tagged(source, text="text", label="label") == (WORDS, TAGS)


def test_words_alone(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("Ann\nLee\nleft\n\nRome\n.\n")
    assert read_tagged(path, text="text", label="label", labeled=False) == (WORDS, [(), ()])
    with pytest.raises(InvalidData, match=r"must hold 2 columns, the word first and its tag last, but line 1 holds 1;"):
        read_columns(path)


@pytest.mark.parametrize(
    ("row", "refusal"),
    [
        (
            {"tags": ["O", "O"]},
            "each word must have one tag, but row 2 of train_file (DataFrame) holds 1 words and 2 tags",
        ),
        (
            {"words": []},
            "column words must hold a list of words in every row, but row 2 of train_file (DataFrame) holds []",
        ),
        ({"words": [7]}, "column words must hold a list of words in every row, but row 2"),
        ({"words": ["\ud83d"]}, "column words must hold a list of words in every row, but row 2"),
        ({"tags": [3]}, "tags must be names, such as B-PER, but column tags holds 3 in row 2 of"),
        ({"tags": None}, "each word must have one tag, but row 2 of train_file (DataFrame) holds 1 words and 0 tags"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row, refusal):
    table = pd.DataFrame([{"words": ["a", "b"], "tags": ["O", "O"]}, {"words": ["a"], "tags": ["O"], **row}])
    with pytest.raises(InvalidData, match=re.escape(refusal)):
        read_tagged(Frame(table, "train_file"), text="text", label="label")


@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"Ann B-PER\nLee\n", "must hold 2 columns, the word first and its tag last, but line 2 holds 1; correct it"),
        (b"Ann\tN\tB-PER\nLee\tI-PER\n", "must hold 3 columns, the word first and its tag last, but line 2 holds 2"),
        (b"\n-DOCSTART- O\n\n", "must hold sentences, but .* has none"),
        (b"Ann\xff B-PER\n", "must be UTF-8, but byte 0xff"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, content, refusal):
    path = tmp_path / "data.conll"
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=refusal):
        read_columns(path)


def test_folders_of_splits_and_of_other_things_are_refused(tmp_path):
    datasets.DatasetDict({"train": saved(tmp_path / "one")}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(
        InvalidData, match=r"must hold one split, but .* holds train; give one of them, such as .*all/train"
    ):
        read_tagged(tmp_path / "all", text="text", label="label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidData, match=r"must be one that Dataset.save_to_disk wrote, but .*empty is not"):
        read_tagged(tmp_path / "empty", text="text", label="label")


def test_tags_become_iob2_where_the_names_are(tmp_path):
    path = tmp_path / "data.conll"
    path.write_text("Ann I-PER\nLee I-PER\nBob B-PER\n\nRome I-LOC\n")
    sentences = read_columns(path)
    names = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert indexed(sentences, names, source=path).labels == [(3, 4, 3), (1,)] and said_of(sentences, path) == ""
    others = sentences._replace(tags=[("S-PER", "I-LOC")])
    assert indexed(others, ("O", "S-PER", "I-LOC"), source=path).labels == [(1, 2)]
    with pytest.raises(InvalidData, match="must be O, B-LOC, but got B-PER, I-PER"):
        indexed(sentences, ("O", "B-LOC"), source=path)


def test_tags_that_open_nothing_are_said(tmp_path):
    path = tmp_path / "data.conll"
    path.write_text("Ann B-PER\nLee I-PER\nin O\nRome I-LOC\n\nBob B-PER\n")
    assert re.fullmatch(r"tags that open no entity, such as .*conll: 1; they are .*", said_of(read_columns(path), path))

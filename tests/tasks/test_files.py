import gzip
import json
import os
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest

from whet.errors import InvalidData
from whet.tasks.files import FORMATS, class_indices, finite_scores, read_table

ROWS = {
    "text": ["plain", 'a "quoted" word', "naïve café ☕", "NA", "1e3", "2020-01-01"],
    "label": ["0", "1", "01", "nan", "True", "x"],
}


def write(path, rows=ROWS, *, encoding="utf-8"):
    """Write the rows in the format that the ending names."""
    frame = pd.DataFrame(rows)
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        content = frame.to_parquet()
    elif ending == "jsonl":
        content = "\n".join(json.dumps(row) for row in frame.to_dict("records")).encode(encoding)
    elif ending == "csv":
        content = frame.to_csv(index=False).encode(encoding)
    else:
        lines = [frame.columns, *frame.itertuples(index=False)]
        content = "\n".join("\t".join(line) for line in lines).encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_same_strings(tmp_path, ending, packed):
    table = read_table(write(tmp_path / f"my.data{ending}{packed}"), ("text", "label"))
    assert dict(table) == ROWS


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", encoding="utf-8-sig" if ending != ".jsonl" else "utf-8")
    if ending == ".jsonl":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_table(path, ("text",))["text"] == ROWS["text"]


def test_only_the_named_columns_are_read_and_in_their_order(tmp_path):
    path = write(tmp_path / "a.csv", {"x": ["", ""], "text": ["a", "b"], "label": ["0", "1"]})
    assert list(read_table(path, ("label", "text"))) == ["label", "text"]


def test_numbers_stay_the_written_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"label": 0, "score": 2.5}\n{"label": 1, "score": -1.0}\n')
    assert read_table(tmp_path / "a.jsonl", ("label", "score")) == {"label": ["0", "1"], "score": ["2.5", "-1.0"]}
    write(tmp_path / "a.parquet", {"label": [0, 1]})
    assert read_table(tmp_path / "a.parquet", ("label",))["label"] == ["0", "1"]


def test_a_file_without_header_takes_the_given_names(tmp_path):
    (tmp_path / "a.tsv").write_text('s\t1\t*\tA "word".\n')
    table = read_table(tmp_path / "a.tsv", ("sentence", "label"), header=("source", "label", "mark", "sentence"))
    assert table == {"sentence": ['A "word".'], "label": ["1"]}


def test_missing_as_stands_for_empty_cells_of_every_kind(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"text": " "}\n{"label": 1}\n')
    assert read_table(tmp_path / "a.jsonl", ("text",), missing_as="")["text"] == ["a", "", "", ""]


BROKEN = {
    "a.csv": (b"", "must hold rows, but .* is empty; "),
    "b.csv": (b"text,label\n", "must hold rows, but .* has none; "),
    "c.csv": (b"text,mark\na,0\n", "columns label must be in .*c.csv, but got text, mark; "),
    "d.csv": (b"text,label\ncaf\xe9,0\n", "must be UTF-8, but byte 0xe9 in it is not; "),
    "e.jsonl": (b'{"text": "caf\xe9", "label": 0}\n', "must be UTF-8, but byte 0xe9 in it is not; "),
    "f.csv": (b"text,label\na,0\n ,1\nb,\n", "column text must be filled in every row, but .* in rows 2; "),
    "g.csv": (b"text,label\nyes, well,0\nno,1\n", "must be readable as csv, but got|as many cells"),
    "h.csv": (b"text,label\nyes, well,0\nno, well,1\n", "as many cells as its header names, but got more; "),
    "i.csv": (b"text,label\nyes,0\nno, well,1\n", "must be readable as csv, but got .*; "),
    "j.jsonl": (
        b'{"text": "a"}\n\n{"text": "a"',
        r"readable as jsonl, but .* in line 3, column 13; repair or convert it",
    ),
    "p.jsonl": (b'{"text": "a"}\n["a"]\n', r"readable as jsonl, but got no object in line 2; "),
    "q.jsonl": (b"\n\n", r"must hold rows, but .* has none; "),
    "k.parquet": (b"PAR1 and no more", "must be readable as parquet, but got .*; "),
    "l.csv.gz": (gzip.compress(b"text,label\na,0\n" * 99)[:-20], "must be readable as csv, but got .*; "),
    "m.csv.gz": (b"text,label\na,0\n", "must be readable as csv, but got .*; "),
    "half.jsonl": (
        b'{"text": "a", "label": 0}\n{"text": "so \\ud83d happy", "label": 0}\n',
        r"column text must hold whole characters, but row 2 of .*half.jsonl holds half of one, '\\ud83d'; repair or",
    ),
    "deep.jsonl": (b'{"text": "a"}\n' + b"[" * 10**5, "too many brackets inside of each other in line 2; repair or"),
    "digits.jsonl": (b'{"text": ' + b"9" * 5000 + b"}", "a number of too many digits in line 1; repair"),
    "list.jsonl": (
        b'{"text": "a", "label": 0}\n{"text": ["a"], "label": 0}\n',
        "must hold text or numbers, but row 2 of .* holds a list; ",
    ),
    "wide.csv": ("text,label\na,0\n".encode("utf-16-le"), "columns text, label must be in .*, but got t\ufffde\ufffdx"),
    "marked.csv": ("text,label\na,0\n".encode("utf-16"), "must be UTF-8, but byte 0xff in it is not; "),
    "n.xlsx": (b"PK", r"must end in \.csv, .*, but got n.xlsx; "),
    "o": (b"text,label\na,0\n", r"must end in \.csv, .*, but got o; "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_plain_words(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=message):
        read_table(tmp_path / name, ("text", "label"))


@pytest.mark.parametrize("changed", range(8))
def test_damaged_parquet_is_refused_or_read(tmp_path, changed):
    content = bytearray(pd.DataFrame(ROWS).to_parquet())
    rng = np.random.default_rng(changed)
    for at in rng.integers(len(content), size=3):
        content[at] = rng.integers(256)
    (tmp_path / "a.parquet").write_bytes(content)
    with suppress(InvalidData):
        read_table(tmp_path / "a.parquet", ("text", "label"))


def test_parquet_holds_text_and_not_bytes(tmp_path):
    write(tmp_path / "a.parquet", {"text": [b"a", b"\xff"], "label": [0, 1]})
    with pytest.raises(InvalidData, match=r"column text must hold text or numbers, but row 1 of .* holds bytes; "):
        read_table(tmp_path / "a.parquet", ("text",))


def test_a_column_that_pandas_took_for_row_names_is_read(tmp_path):
    pd.DataFrame(ROWS).set_index("text").to_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", ("text", "label")) == ROWS


def test_a_column_without_a_name_is_refused(tmp_path):
    with pytest.raises(InvalidData, match=r"the name of a column must not be empty, but got '' for .*a.csv; "):
        read_table(write(tmp_path / "a.csv"), ("", "label"))


NO_FILES = {
    "nothing.csv": "must exist, but got .*nothing.csv; check the path",
    "nul\0.csv": "must exist, but got .*nul\ufffd.csv; check the path",
    f"{'a' * 300}.csv": "must be readable, but got .*: File name too long; check the path",
    "loop.csv": "must be readable, but got .*loop.csv: Too many levels of symbolic links; check the path",
    "folder.csv": "must be a file, but got .*folder.csv, which is a folder; save the content",
    "pipe.csv": "must be a file, but got .*pipe.csv, which is a pipe; save the content to a file and give that",
    "device.csv": "must be a file, but got .*device.csv, which is a device; save the content",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InvalidData, match=f"the data file {NO_FILES[name]}"):
        read_table(tmp_path / name, ("text",))


def test_class_indices_invert_the_names():
    names = ("c", "a", "b")
    labels = ["a", "b", "c", "a"]
    assert [names[i] for i in class_indices(labels, names, source="here")] == labels


def test_unknown_labels_are_listed_but_not_all():
    with pytest.raises(InvalidData, match="labels in here must be a, b, but got c, d; correct or remove"):
        class_indices(["a", "d", "c", "d"], ("a", "b"), source="here")
    with pytest.raises(InvalidData, match=r"but got 10, .* and 40 more; "):
        class_indices([str(i) for i in range(10, 60)], ("a", "b"), source="here")


def test_finite_scores_are_the_numbers():
    assert finite_scores(["0", "2.5", "-1e3", " 4 "], source="here") == [0.0, 2.5, -1000.0, 4.0]


@pytest.mark.parametrize("bad", ["nan", "NaN", "inf", "-Infinity", "many", "1,5"])
def test_other_scores_are_refused(bad):
    with pytest.raises(InvalidData, match=f"scores in here must be finite numbers, but got '{bad}' in row 2; "):
        finite_scores(["1", bad], source="here")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_cells_of_a_column_of_lists_are_texts_or_tuples_of_them(tmp_path, ending):
    rows = {"text": ["a", "b", "c"], "tags": [["x", "y"], [], ["z"]]}
    path = tmp_path / f"a{ending}"
    if ending == ".jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(rows, row, strict=True))) + "\n" for row in zip(*rows.values(), strict=True))
        )
    else:
        pd.DataFrame(rows).to_parquet(path)
    table = read_table(path, ("text", "tags"), lists=("tags",))
    assert table == {"text": ["a", "b", "c"], "tags": [("x", "y"), (), ("z",)]}


def test_cells_of_a_column_of_lists_may_be_empty_or_single(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"t": "x,y"}\n{"t": null}\n{"t": 4}\n{"t": [4, "a"]}\n')
    assert read_table(tmp_path / "a.jsonl", ("t",), lists=("t",))["t"] == ["x,y", "", "4", ("4", "a")]
    write(tmp_path / "a.csv", {"t": ["x", ""]})
    assert read_table(tmp_path / "a.csv", ("t",), lists=("t",))["t"] == ["x", ""]


@pytest.mark.parametrize("cell", ['["a", null]', '["a", ["b"]]', '{"a": 1}'])
def test_other_things_in_a_column_of_lists_are_refused(tmp_path, cell):
    (tmp_path / "a.jsonl").write_text(f'{{"t": ["a"]}}\n{{"t": {cell}}}\n')
    with pytest.raises(InvalidData, match=r"column t must hold texts or lists of them, but row 2 of .*; convert it"):
        read_table(tmp_path / "a.jsonl", ("t",), lists=("t",))

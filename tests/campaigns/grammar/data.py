"""Data files that have something wrong."""

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaigns.grammar.base import DEEP, BadInput, Edit, filled
from campaigns.situation import DATA

__all__ = ["data_inputs"]

DATA_VERBS = (
    ("compress", "ft", "--method", "drone", "--keep", ".5", "--train-file", "{data}", "--out", "o"),
    ("finetune", "base", "--train-file", "{data}", "--epochs", ".1", "--max-length", "16", "--out", "o"),
    ("measure", "ft", "--train-file", "{data}", "--dev-file", "{data}", "--rounds", "6"),
    ("measure", "ft", "--train-file", "train.csv", "--dev-file", "{data}", "--rounds", "6"),
    (
        "distill",
        "ft",
        "--student",
        "layer_subset:top:1",
        *DATA,
        "--unlabeled",
        "{data}",
        "--epochs",
        ".1",
        "--out",
        "o",
    ),
    ("search", "ft", "--train-file", "{data}", "--dev-file", "{data}", "--time", "1s", "--out", "o"),
)


def data_inputs(chance: random.Random) -> BadInput:
    """Return a call with a data file that has something wrong."""
    name, write = chance.choice(DATA_FILES)
    return BadInput(
        kind="data",
        argv=filled(chance.choice(DATA_VERBS), data=name),
        about=write.__name__,
        edit=lambda folder: write(folder / name),
    )


def _data(name: str) -> Callable[[Edit], Edit]:
    def known(write: Edit) -> Edit:
        DATA_FILES.append((name, write))
        return write

    return known


DATA_FILES: list[tuple[str, Edit]] = []
ROWS = [("w5 w6", "no"), ("w7 w8 w9", "yes")] * 20


def _lines(rows: Sequence[Sequence[str]], mark: str = ",") -> str:
    return "\n".join(mark.join(row) for row in [("text", "label"), *rows]) + "\n"


def _texts(name: str, **contents: "str | bytes") -> None:
    """Add files with these contents, each named for what is wrong."""
    for what, content in contents.items():

        def write(path: Path, content: "str | bytes" = content) -> None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

        write.__name__ = what
        DATA_FILES.append((name, write))


_texts(
    "d.csv",
    empty="",
    header_alone="text,label\n",
    one_row="text,label\nw5,no\n",
    one_class=_lines([("w5 w6", "no")] * 40),
    no_label="text\nw5\nw6\n" * 20,
    no_text="label\nno\nyes\n" * 20,
    other_labels=_lines([("w5", "a"), ("w6", "b")] * 20),
    many_labels=_lines([(f"w{i}", f"c{i}") for i in range(5, 45)]),
    nul=_lines([*ROWS, ("w5\0w6", "no")]),
    open_quote='text,label\n"w5 w6,no\n' + "w5,no\n" * 30,
    ragged=_lines([*ROWS, ("w5", "no", "x", "y")]),
    twice="text,text,label\nw5,w6,no\nw5,w7,yes\n" * 20,
    no_name=",label\nw5,no\n" * 20,
    bom="\ufeff" + _lines(ROWS),
    utf_16=_lines(ROWS).encode("utf-16"),
    latin_1=_lines([*ROWS, ("caf\u00e9", "no")]).encode("latin-1"),
    noise=bytes(range(256)) * 40,
    no_labels=_lines([("w5", ""), ("w6", "")] * 20),
    no_texts=_lines([("", "no"), ("", "yes")] * 20),
    numbers=_lines([("1", "0"), ("2", "1")] * 20),
    a_long_line=_lines([*ROWS, ("w5 " * 300_000, "no")]),
    wide="text,label," + ",".join(f"c{i}" for i in range(3000)) + "\n" + "w5,no\n" * 30,
    carriage="text,label\rw5,no\rw6,yes\r" * 9,
    spaces=_lines([(" " * 50, "no"), ("\t", "yes")] * 20),
    semicolons=_lines(ROWS, ";"),
    html="<html><body>no</body></html>\n" * 30,
)
_texts("d.tsv", commas_in_tsv=_lines(ROWS), a_tab_more=_lines([*ROWS, ("w5", "", "no")], "\t"))
_texts(
    "d.jsonl",
    half_an_emoji='{"text": "w5 \\ud83d", "label": "no"}\n{"text": "w6", "label": "yes"}\n' * 20,
    brackets="[" * DEEP,
    deep_value='{"text": ' + "[" * DEEP + "]" * DEEP + ', "label": "no"}\n',
    no_objects="1\n2\n3\n" * 20,
    lists="[1, 2]\n" * 40,
    null_labels='{"text": "w5", "label": null}\n' * 40,
    null_texts='{"text": null, "label": "no"}\n{"text": "w5", "label": "yes"}\n' * 20,
    lists_as_labels='{"text": "w5", "label": [0, 1]}\n{"text": "w6", "label": [1, 0]}\n' * 20,
    torn='{"text": "w5", "label": "no"}\n' * 30 + '{"text": "w',
    numbers_as_texts='{"text": 5, "label": 1}\n{"text": 6, "label": 0}\n' * 20,
    objects='{"text": {"a": 1}, "label": "no"}\n' * 40,
    other_keys='{"sentence": "w5", "y": "no"}\n' * 40,
    nan='{"text": "w5", "label": NaN}\n{"text": "w5", "label": Infinity}\n' * 20,
    blank_lines="\n\n\n",
    booleans='{"text": "w5", "label": true}\n{"text": "w6", "label": false}\n' * 20,
    mixed='{"text": "w5", "label": "no"}\n{"text": "w6", "label": 1}\n' * 20,
    keys_twice='{"text": "w5", "text": "w6", "label": "no"}\n{"text": "w6", "label": "yes"}\n' * 20,
    utf_32=('{"text": "w5", "label": "no"}\n' * 30).encode("utf-32"),
)
_texts("d.parquet", no_parquet=b"PAR1" + b"\0" * 100, empty_parquet=b"", text_as_parquet="text,label\n")
_texts("d.json", json_of_a_list='[{"text": "w5", "label": "no"}]', empty_json="")
_texts("d.txt", plain="w5 w6\n" * 40)
_texts("d", no_suffix=_lines(ROWS))


@_data("d.parquet")
def parquet_of_bytes(path: Path) -> None:
    """A column of bytes that are no text."""
    _parquet(path, text=[b"\xff\xfe", b"\x80"] * 20, label=["no", "yes"] * 20)


@_data("d.parquet")
def parquet_of_lists(path: Path) -> None:
    """Labels that are lists."""
    _parquet(path, text=["w5", "w6"] * 20, label=[[0, 1], [1, 0]] * 20)


@_data("d.parquet")
def truncated_parquet(path: Path) -> None:
    """A copy that was cut off."""
    _parquet(path, text=["w5", "w6"] * 20, label=["no", "yes"] * 20)
    path.write_bytes(path.read_bytes()[:-20])


def _parquet(path: Path, **columns: Any) -> None:
    import pandas

    pandas.DataFrame(columns).to_parquet(path)


@_data("d.csv")
def folder(path: Path) -> None:
    """No file at all."""
    path.mkdir()


@_data("d.csv")
def missing(path: Path) -> None:
    """Nothing."""


@_data("d.csv")
def fifo(path: Path) -> None:
    """A pipe that nobody writes into."""
    os.mkfifo(path)


@_data("d.csv")
def zeros(path: Path) -> None:
    """A file without an end."""
    path.symlink_to("/dev/zero")


@_data("d.csv")
def null_device(path: Path) -> None:
    """A device that is always empty."""
    path.symlink_to("/dev/null")


@_data("d.csv")
def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)

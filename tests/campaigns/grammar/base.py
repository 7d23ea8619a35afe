"""What every part of the grammar is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["DEEP", "NUMBERS", "TEXTS", "VALUES", "BadInput", "Edit", "filled"]

Edit = Callable[[Path], None]
"""Changes the working folder of a case."""


@dataclass(frozen=True, kw_only=True)
class BadInput:
    """A command line, and what is done to its files before."""

    kind: str
    argv: Sequence[str]
    about: str = ""
    """What is done to the files."""
    edit: Edit = lambda folder: None
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        environment = " ".join(f"{name}={value}" for name, value in self.environment.items())
        text = f"{self.kind}: {environment} whet {' '.join(self.argv)}  [{self.about}]"
        return ascii(text if len(text) < 500 else f"{text[:400]} ... {text[-80:]}")[1:-1]


NUMBERS = (
    "-1",
    "0",
    "1",
    "0.5",
    "1.5",
    "1e400",
    "-inf",
    "nan",
    "9" * 20,
    "1e20",
    "",
    " ",
    "two",
    "0x10",
    "1_0",
    "٣",
    "1e-320",
    "[]",
    "true",
    "null",
    "1,5",
    "--",
    "1000000007",
    "4.0",
)
TEXTS = (
    "",
    " ",
    "\n",
    "\x00",
    "é",
    "\ud83d",
    "$x$",
    "a" * 300,
    "[0-9]*",
    "{}",
    "%s",
    "..",
    "/",
    "-",
    "--",
    "=",
    "::",
    "😀",
    "a\nb",
)
"""(a command line cannot hold a NUL: it is left out where it would be a word of one)"""
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**70,
    1.5,
    -0.5,
    1e308,
    float("nan"),
    "",
    "two",
    "32",
    "\u0000",
    [],
    [1],
    ["a"],
    {},
    {"a": 1},
    [[[]]],
    "a" * 300,
    {"0": "a"},
    "../x",
    "/etc/passwd",
)
"""Values for fields of JSON files."""
DEEP = 100_000
"""Brackets in deeply nested texts."""


def filled(words: Sequence[str], **names: str) -> list[str]:
    """Return words with names in the place of their braces."""
    return [names.get(word[1:-1], word) if word.startswith("{") else word for word in words]

"""Sets of labels: cells with the names of several, lists of them, or a column of 0 and 1 for each label.

A text may have no label at all. What cannot be meant is refused: a label twice in a cell, a list that was written as
text, another sign between the names than the separator.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from whet.errors import InvalidData
from whet.utils.inputs import one_line

__all__ = ["label_sets", "marked_sets", "multi_hot"]

USUAL_SEPARATORS = ",;|"
"""Signs between names in one cell that are looked for, where the one that is said occurs nowhere."""
YES, NO = frozenset({"1", "1.0", "true"}), frozenset({"0", "0.0", "false"})
"""How a column of one label says that a text has it, or has it not, whatever the case."""

Names = tuple[str, ...]


def label_sets(cells: Sequence[Any], *, separator: str, source: Path | str) -> list[Names]:
    """Return the names of the labels of each text.

    Args:
        cells: one per text: names with the separator between, or a list of names; empty for a text without labels.
        separator: stands between two names; spaces around names are no part of them.
        source: the source of the labels, for error messages.

    Raises:
        InvalidData: a cell has a label twice, or holds a list that was written as text; or names stand between other
            signs.
    """
    sets = []
    for row, cell in enumerate(cells, start=1):
        parts = cell.split(separator) if isinstance(cell, str) else [str(name) for name in cell]
        names = tuple(name for part in parts if (name := part.strip()))
        where = f"row {row} of {one_line(source)}"
        if isinstance(cell, str) and cell.strip()[:1] == "[" and cell.strip()[-1:] == "]":
            raise InvalidData(
                f"labels must be names with {separator!r} between, but {where} holds {one_line(cell)!r:.60}; write "
                f"the names alone, or a list in JSONL"
            )
        if len(set(names)) < len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise InvalidData(f"a text must have each label once, but got {twice} twice in {where}; remove one")
        sets.append(names)
    _refuse_other_separators(sets, separator, source)
    return sets


def _refuse_other_separators(sets: Sequence[Names], separator: str, source: Path | str) -> None:
    """Refuse names that hold a usual separator, where no text has two labels: then it separates them."""
    if any(len(names) > 1 for names in sets):
        return
    for names in sets:
        for sign in USUAL_SEPARATORS:
            if names and sign in names[0]:
                raise InvalidData(
                    f"labels in {one_line(source)} must have {separator!r} between, but got "
                    f"{one_line(names[0])!r:.60}; give --label-separator {sign!r}"
                )


def marked_sets(columns: Mapping[str, Sequence[str]], *, source: Path | str) -> list[Names]:
    """Return the names of the labels of each text, from a column for each label.

    Args:
        columns: cells that say whether a text has the label of the column's name: 1 or 0, true or false.
        source: the source of the labels, for error messages.

    Raises:
        InvalidData: a cell holds something else.
    """
    for name, cells in columns.items():
        for row, cell in enumerate(cells, start=1):
            if cell.strip().lower() not in YES | NO:
                raise InvalidData(
                    f"column {name} of a label must hold 0 or 1, but got {one_line(cell)!r:.60} in row {row} of "
                    f"{one_line(source)}; name one --label column of names, or columns of 0 and 1"
                )
    marks = zip(*([cell.strip().lower() in YES for cell in cells] for cells in columns.values()), strict=True)
    return [tuple(name for name, has in zip(columns, row, strict=True) if has) for row in marks]


def multi_hot(indices: Collection[int], count: int) -> tuple[float, ...]:
    """Return 1 for each of some labels, and 0 for the others, (count,); floats, as losses read them."""
    return tuple(float(index in indices) for index in range(count))

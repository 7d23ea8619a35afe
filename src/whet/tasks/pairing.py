"""Which output of a model's head is which class of the data: the one place that decides it.

Equal names decide first, then names that are equal but for case and spaces, then numbers that are positions of the
head. The order of a published task's classes decides for a head without names of its own, which transformers calls
LABEL_0, LABEL_1, ... The order of the labels in a user's file means nothing, so that it decides nothing: where names
and numbers tell too little, the pairing is asked for.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.files import listed

__all__ = ["Pairing", "PositiveClass", "folded", "in_order", "look_alikes", "pair_classes", "whole_number"]

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})(\.0+)?\s*")
_NUMBERS = "labels are taken as the numbers of the model's classes"
_CASE = "labels are paired with the model's classes without regard to case"
_ORDER = "the model's classes have no names, so that the labels are taken in their usual order"


class Pairing(NamedTuple):
    """The outputs of a head for the classes of a task."""

    order: list[int]
    """The output for each of the task's classes; outputs for classes that the task lacks follow, by their names."""
    note: str = ""
    """How the classes were paired, for the user; empty if their names are equal."""


@dataclass(frozen=True)
class PositiveClass:
    """The class that metrics of one class score."""

    index: int
    name: str


def pair_classes(
    head: Mapping[int, str], classes: Sequence[str], *, ordered: bool, label_map: Mapping[str, str]
) -> Pairing:
    """Return the output of a head for each class.

    Args:
        head: the names of the outputs, `id2label` in the model's configuration.
        classes: names of the task's classes.
        ordered: whether the classes are in an order that models of the task are trained in, as those of published data.
        label_map: for each class the name or the position of its output, from the user; empty if none is given.

    Raises:
        InvalidData: the head has too few outputs, or neither names nor numbers tell which is which.
        InvalidParameter: the user's pairing lacks a class, or names no output or one output twice.
    """
    names = [str(head[index]) for index in sorted(head)]
    if len(names) < len(classes):
        raise _other_count(names, classes)
    if label_map:
        return Pairing(_with_rest(_mapped(names, classes, label_map), names))
    if _is_nameless(names):
        return _by_position(names, classes, ordered=ordered)
    paired = [_matching(names, name) for name in classes]
    found = [index for index in paired if index is not None]
    if len(found) == len(set(found)) == len(classes):
        return _noted(found, names, classes, how=_CASE)
    positions = _positions(classes, len(names))
    if positions is not None:
        return _noted(positions, names, classes, how=_NUMBERS)
    raise _unknown(names, classes) if len(names) == len(classes) else _other_count(names, classes)


def in_order(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels in the order of their numbers if all are numbers or LABEL_number, else as text."""
    different = set(labels)
    numbers = {label: whole_number(_without_prefix(label)) for label in different}
    if any(number is None for number in numbers.values()):
        return tuple(sorted(different))
    return tuple(sorted(different, key=lambda label: (numbers[label], label)))


def whole_number(label: str) -> int | None:
    """Return the whole number that a label such as 7, 07 or 7.0 writes, or None."""
    match = _WHOLE.fullmatch(label)
    return None if match is None else int(match[1])


def folded(label: str) -> str:
    """Return a label without its case and outer spaces."""
    return label.strip().casefold()


def look_alikes(classes: Sequence[str]) -> list[str]:
    """Return the classes that differ from another in case, spaces or the spelling of a number alone."""
    keys = [folded(label) if (number := whole_number(label)) is None else str(number) for label in classes]
    counts = Counter(keys)
    return [label for label, key in zip(classes, keys, strict=True) if counts[key] > 1]


def _is_nameless(names: Sequence[str]) -> bool:
    """Whether the names say no more than the positions, as transformers' default LABEL_0, LABEL_1, ..."""
    return all(folded(name) in (f"label_{i}", str(i)) for i, name in enumerate(names))


def _by_position(names: Sequence[str], classes: Sequence[str], *, ordered: bool) -> Pairing:
    """Pair the classes with the outputs of a head without names of its own."""
    if len(names) == len(classes) and set(names) == set(classes):
        return Pairing([names.index(name) for name in classes])
    positions = _positions(classes, len(names))
    if positions is not None:
        return _noted(positions, names, classes, how=_NUMBERS)
    if len(names) != len(classes):
        raise _other_count(names, classes)
    if not ordered:
        raise _unknown(names, classes)
    return _noted(list(range(len(names))), names, classes, how=_ORDER)


def _without_prefix(name: str) -> str:
    return re.sub("(?i)^label_", "", name.strip())


def _positions(classes: Sequence[str], outputs: int) -> list[int] | None:
    """The classes as positions of the head, or None if they are not.

    They are if they begin at 0 and end at the last output. Numbers of a narrower span may count other classes: 0 and 1
    for negative and positive, where the head has negative, neutral and positive.
    """
    numbers = [number for name in classes if (number := whole_number(_without_prefix(name))) is not None]
    whole = 0 < len(numbers) == len(set(numbers)) == len(classes)
    return numbers if whole and min(numbers) == 0 and max(numbers) == outputs - 1 else None


def _matching(names: Sequence[str], wanted: str) -> int | None:
    """The position of the one name that is equal, or the one that is but for case and spaces."""
    for same in (lambda name: name == wanted, lambda name: folded(name) == folded(wanted)):
        found = [index for index, name in enumerate(names) if same(name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _mapped(names: Sequence[str], classes: Sequence[str], label_map: Mapping[str, str]) -> list[int]:
    lacking = [name for name in classes if name not in label_map]
    if lacking:
        raise InvalidParameter(
            f"--label-map must name every label of the data, {listed(classes)}, but got none for {listed(lacking)}; "
            "add them"
        )
    order = []
    for name in classes:
        given = label_map[name]
        index = _matching(names, given)
        if index is None:
            number = whole_number(_without_prefix(given))
            index = number if number is not None and 0 <= number < len(names) else None
        if index is None:
            raise InvalidParameter(
                f"--label-map must give classes of the model, {listed(names)}, or their numbers from 0, "
                f"but got {name}={given}; correct it"
            )
        order.append(index)
    if len(set(order)) < len(order):
        raise InvalidParameter(
            f"--label-map must give each label a class of its own, but got {_pairs(order, names, classes)}; correct it"
        )
    return order


def _with_rest(order: Sequence[int], names: Sequence[str]) -> list[int]:
    rest = sorted(set(range(len(names))) - set(order), key=lambda index: (folded(names[index]), index))
    return [*order, *rest]


def _noted(order: Sequence[int], names: Sequence[str], classes: Sequence[str], *, how: str) -> Pairing:
    """The pairing, with a note on how, unless the names are equal, and on what the data lack."""
    whole = _with_rest(order, names)
    notes = []
    if any(names[index] != name for index, name in zip(order, classes, strict=True)):
        notes.append(f"{how}: {_pairs(order, names, classes)}; give --label-map if that is wrong")
    if len(whole) > len(order):
        notes.append(f"the data lack classes of the model: {listed([names[index] for index in whole[len(order) :]])}")
    return Pairing(whole, "; ".join(notes))


def _pairs(order: Sequence[int], names: Sequence[str], classes: Sequence[str]) -> str:
    return listed([f"{name}={names[index]}" for name, index in zip(classes, order, strict=True)])


def _other_count(names: Sequence[str], classes: Sequence[str]) -> InvalidData:
    more = "" if len(names) < len(classes) else ", or pair them with --label-map"
    return InvalidData(
        f"the model's head must have the task's classes {listed(classes)}, but got num_labels={len(names)}; "
        f"fine-tune it on this task, or name the right task or column{more}"
    )


def _unknown(names: Sequence[str], classes: Sequence[str]) -> InvalidData:
    example = ",".join(f"{name}={_known(names, name)}" for name in classes[:4])
    more = ",..." if len(classes) > 4 else ""
    return InvalidData(
        f"the model's head must know the labels {listed(classes)}, but it knows {listed(names)}; say which class "
        f"of the model each label is: --label-map {example}{more}, with a name or a number from 0 for each CLASS"
    )


def _known(names: Sequence[str], wanted: str) -> str:
    """The class that a label is known to be, or a placeholder: a guess would be copied."""
    index = _matching(names, wanted)
    return "CLASS" if index is None else names[index]

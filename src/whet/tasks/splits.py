"""Splits of a task's data by whole texts: no text of one split stands in a text of another."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Splits, Task
from whet.tasks.data import Examples

__all__ = ["Resplit", "Words", "overlaps", "resplit"]


@dataclass(frozen=True, kw_only=True)
class Resplit(Task):
    """Another task with splits of its own."""

    whole: Task
    """Says how its examples are scored."""
    own: Splits
    """What it is split into."""

    names: ClassVar[tuple[str, ...]] = ()

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return self.whole.label_names

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return self.whole.metrics

    def read(self) -> tuple[Examples, Examples]:
        """See `Task.read`."""
        return self.own.train.joined(self.own.validation), self.own.dev

    @cached_property
    def splits(self) -> Splits:
        """See `Task.splits`."""
        return self.own


Words = tuple[str, ...]
"""A text, word by word."""
KEYS = (8, 4, 2, 1)
"""A text is looked up by so many of its first words, the most that it has."""


def overlaps(texts: Collection[Words]) -> dict[Words, set[Words]]:
    """Return for each text that holds shorter ones, as runs of its words, which it holds.

    A text without words is held by none. The work grows with the number of words, and with how many lengths the texts
    have that begin alike.
    """
    known = {text for text in texts if text}
    lengths: dict[Words, set[int]] = defaultdict(set)
    for text in known:
        lengths[text[: next(size for size in KEYS if size <= len(text))]].add(len(text))
    sizes = {len(key) for key in lengths}
    found: dict[Words, set[Words]] = defaultdict(set)
    for text in known:
        for size in sizes:
            for start in range(len(text) - size + 1):
                for length in lengths.get(text[start : start + size], ()):
                    run = text[start : start + length]
                    if len(run) < len(text) and run in known:
                        found[text].add(run)
    return dict(found)


PLENTY, MOST, LEAST = 900, 2000, 20
"""Examples that are held out anyway are a selection slice by themselves; what fewer are filled up to; and below which
nothing can be chosen. The first leaves room for some parts among the 1,000 that are held out at most."""


def resplit(task: Task) -> Resplit:
    """Return the task with the selection slice as its validation split, and the training data that do not tell of it.

    Examples whose words are a part of another's are not chosen by, and those which are a part of the slice's are not
    trained on: SST-2's phrases would tell how their sentences are judged.

    Raises:
        InvalidData: there is too little training data, or no dev data to confirm the winner on.
    """
    train, held_out, dev = task.splits
    examples = held_out.joined(train)
    words = _words(examples)
    holds = overlaps(words)
    parts = set().union(*holds.values())
    size = task.group_size
    groups = [range(i, i + size) for i in range(0, len(words), size) if parts.isdisjoint(words[i : i + size])]
    count = sum(group[0] < len(held_out) for group in groups)
    if count * size < PLENTY:
        count = min(MOST // size, (count + len(groups)) // 2)
    chosen = [i for group in groups[:count] for i in group]
    told = {words[i] for i in chosen}.union(*(holds.get(words[i], ()) for i in chosen))
    rest = [i for i, one in enumerate(words) if one not in told]
    own = Splits(examples.take(rest), examples.take(chosen), dev)
    if min(len(own.train), len(own.validation)) < LEAST:
        raise InvalidData(
            f"a search must have training data to choose by, but got {len(examples)} examples of {task.name}, of which "
            f"{len(chosen)} can be chosen by and {len(rest)} trained on; give {2 * LEAST} that are no parts of others"
        )
    if not len(dev):
        raise InvalidData("--dev-file must be given with --train-file, to confirm the winner on, but got none; add it")
    return Resplit(name=task.name, data_dir=task.data_dir, whole=task, own=own)


def _words(examples: Examples) -> list[Words]:
    """The words of each example; of pairs, those of both with a mark between them."""
    pairs = examples.pairs
    texts = examples.texts if pairs is None else [f"{a} \0 {b}" for a, b in zip(examples.texts, pairs, strict=True)]
    return [tuple(text.lower().split()) for text in texts]

"""Splits of a task for a search: no training text contains, or is contained in, a text of the selection split."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from whet.errors import InvalidData
from whet.tasks.base import Splits, Task
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind
from whet.tasks.pairing import Pairing, PositiveClass

__all__ = ["ResplitTask", "Words", "overlaps", "with_selection_split"]


@dataclass(frozen=True, kw_only=True)
class ResplitTask(Task):
    """A task with other splits."""

    whole: Task
    """The original task, with its labels and metrics."""
    own: Splits
    """The splits of this task."""

    names: ClassVar[tuple[str, ...]] = ()

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """See `Task.label_names`."""
        return self.whole.label_names

    @property
    def kind(self) -> TaskKind:
        """See `Task.kind`."""
        return self.whole.kind

    @property
    def metrics(self) -> tuple[str, ...]:
        """See `Task.metrics`."""
        return self.whole.metrics

    def pairing(self, head: Mapping[int, str]) -> Pairing:
        """See `Task.pairing`."""
        return self.whole.pairing(head)

    def positive_class(self, order: Sequence[int]) -> PositiveClass | None:
        """See `Task.positive_class`."""
        return self.whole.positive_class(order)

    def say_once(self, about: str, sentence: str) -> None:
        """See `Task.say_once`."""
        self.whole.say_once(about, sentence)

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
"""Numbers of first words by which texts are indexed; a text is indexed by the largest number that it has."""


def overlaps(texts: Collection[Words]) -> dict[Words, set[Words]]:
    """Return, for each text that contains shorter texts as runs of its words, the texts that it contains.

    Texts without words are ignored. The work grows with the number of words, and with the number of different lengths
    among texts that begin alike.
    """
    unique = {text for text in texts if text}
    lengths: dict[Words, set[int]] = defaultdict(set)
    for text in unique:
        lengths[text[: next(size for size in KEYS if size <= len(text))]].add(len(text))
    key_sizes = {len(key) for key in lengths}
    contained: dict[Words, set[Words]] = defaultdict(set)
    for text in unique:
        for size in key_sizes:
            for start in range(len(text) - size + 1):
                for length in lengths.get(text[start : start + size], ()):
                    run = text[start : start + length]
                    if len(run) < len(text) and run in unique:
                        contained[text].add(run)
    return dict(contained)


ENOUGH_HELD_OUT = 900
"""Number of held-out examples that suffices for a selection split; some of the 1,000 held out may be unusable."""
FILL_UP_TO = 2000
"""Largest size of a selection split that training examples fill up."""
FEWEST = 20
"""Smallest number of examples from which a search can choose."""


def with_selection_split(task: Task) -> ResplitTask:
    """Return the task with a selection split as its validation split, and training data without overlap with it.

    The selection split takes no example whose words are part of another example. Training data lose the examples whose
    words are part of an example of the selection split: the phrases of SST-2 would reveal the labels of their
    sentences.

    Raises:
        InvalidData: there is too little training data, or no dev data on which to confirm the winner.
    """
    train, held_out, dev = task.splits
    examples = held_out.joined(train)
    words = _words(examples)
    contained = overlaps(words)
    parts = set().union(*contained.values())
    size = task.group_size
    groups = [range(i, i + size) for i in range(0, len(words), size) if parts.isdisjoint(words[i : i + size])]
    count = sum(group[0] < len(held_out) for group in groups)
    if count * size < ENOUGH_HELD_OUT:
        count = min(FILL_UP_TO // size, (count + len(groups)) // 2)
    chosen = [i for group in groups[:count] for i in group]
    excluded = {words[i] for i in chosen}.union(*(contained.get(words[i], ()) for i in chosen))
    rest = [i for i, text in enumerate(words) if text not in excluded]
    splits = Splits(examples.take(rest), examples.take(chosen), dev)
    if min(len(splits.train), len(splits.validation)) < FEWEST:
        raise InvalidData(
            f"a search must have {FEWEST} examples each to choose by and to train on, but got {len(examples)} examples "
            f"of {task.name}, {len(chosen)} to choose by and {len(rest)} to train on; give {2 * FEWEST} examples or "
            "more that are not part of others"
        )
    if not len(dev):
        raise InvalidData("--dev-file must be given with --train-file, to confirm the winner, but got none; add it")
    return ResplitTask(name=task.name, data_dir=task.data_dir, whole=task, own=splits)


def _words(examples: Examples) -> list[Words]:
    """Return the words of each example; those of a pair have a separator between them."""
    pairs = examples.pairs
    texts = examples.texts if pairs is None else [f"{a} \0 {b}" for a, b in zip(examples.texts, pairs, strict=True)]
    return [tuple(text.lower().split()) for text in texts]

"""Splits of a task for a search: no training text contains, or is contained in, a text of the selection split."""

import sys
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

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

    def more_text(self, path: Path, *, text: str, text_pair: str | None = None) -> Examples:
        """See `Task.more_text`."""
        return self.whole.more_text(path, text=text, text_pair=text_pair)

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


def overlaps(texts: Collection[Words]) -> dict[Words, set[Words]]:
    """Return, for each text that contains shorter texts as runs of its words, the texts that it contains.

    Texts without words are ignored. The work is linear in the number of words and of results, however much the texts
    repeat themselves or each other; see `_PrefixTree`.
    """
    unique = sorted(_involved({text for text in texts if text}), key=len, reverse=True)
    tree = _PrefixTree(unique)
    found = {text: tree.inside(i) for i, text in enumerate(unique)}
    return {text: {unique[i] for i in inside} for text, inside in found.items() if inside}


KEYS = (8, 4, 2, 1)
"""Numbers of first words by which texts are told apart; a text by the largest number that it has."""


def _involved(texts: Collection[Words]) -> list[Words]:
    """Return the texts that may contain others or be contained: of most data so few that their tree is a small one."""
    # (a text is never looked up itself: its hash takes as long as it has words)
    begin = [text[: next(size for size in KEYS if size <= len(text))] for text in texts]
    beginnings = Counter(begin)
    sizes = {len(words) for words in beginnings}
    contained: set[Words] = set()
    containing = []
    for text, own in zip(texts, begin, strict=True):
        others = False
        for size in sizes:
            for start in range(len(text) - size + 1):
                run = text[start : start + size]
                if run in beginnings and (start or run != own or beginnings[run] > 1):
                    contained.add(run)
                    others = True
        containing.append(others)
    involved = zip(texts, begin, containing, strict=True)
    return [text for text, own, others in involved if others or own in contained]


class _PrefixTree:
    """All beginnings of some texts as nodes of a tree, each with the longest beginning that it ends with.

    The texts inside of a text are those that its beginnings end with. From each such text the next shorter one is one
    step away, so that those of a text are found without looking at any twice.

    Source: Aho, Corasick, "Efficient string matching: an aid to bibliographic search", Communications of the ACM 18,
    1975.
    """

    def __init__(self, texts: Sequence[Words]) -> None:
        """Build the tree level by level, in which all that a node needs to know is there before it.

        Args:
            texts: different from each other, the longest first.
        """
        numbers: dict[str, int] = {}
        parents, suffixes, shorter = array("q", [0]), array("q", [0]), array("q", [0])
        children: dict[int, int] = {}
        ended: dict[int, int] = {}
        nodes = [0] * len(texts)
        width = 1 + sum(map(len, texts))
        longer = len(texts)
        for depth in range(len(texts[0]) if texts else 0):
            while len(texts[longer - 1]) <= depth:
                longer -= 1
            for i in range(longer):
                text, node = texts[i], nodes[i]
                word = numbers.setdefault(text[depth], len(numbers))
                key = node * width + word
                child = children.get(key)
                if child is None:
                    suffix = 0
                    while node and not suffix:
                        node = suffixes[node]
                        suffix = children.get(node * width + word, 0)
                    children[key] = child = len(parents)
                    parents.append(nodes[i])
                    suffixes.append(suffix)
                    shorter.append(suffix if suffix in ended else shorter[suffix])
                nodes[i] = child
                if len(text) == depth + 1:
                    ended[child] = i
        self._parents, self._shorter, self._texts, self._ends = parents, shorter, ended, nodes

    def inside(self, text: int) -> list[int]:
        """Return the indices of the texts that a text contains, itself left out."""
        node, nodes = self._ends[text], set()
        end = self._shorter[node]
        while node:
            while end and end not in nodes:
                nodes.add(end)
                end = self._shorter[end]
            node = self._parents[node]
            end = node if node in self._texts else self._shorter[node]
        return [self._texts[node] for node in nodes]


ENOUGH_HELD_OUT = 900
"""Number of held-out examples that suffices for a selection split; some of the 1,000 held out may be unusable."""
FILL_UP_TO = 2000
"""Largest size of a selection split that training examples fill up."""
FEWEST = 20
"""Smallest number of examples from which a search can choose."""


def with_selection_split(task: Task) -> ResplitTask:
    """Return the task with a selection split as its validation split, and training data without overlap with it.

    The selection split takes no example whose words are part of another example, and shares no group of examples with
    training data. These lose the examples whose words are part of an example of the selection split: the phrases of
    SST-2 would reveal the labels of their sentences.

    Raises:
        InvalidData: there is too little training data, or no dev data on which to confirm the winner.
    """
    train, held_out, dev = task.splits
    examples = held_out.joined(train)
    if not examples.judged:
        raise InvalidData(
            f"a search must choose by training queries with judgments, but {task.name} has none; add qrels/train.tsv, "
            "or compress by a recipe, which needs texts alone"
        )
    words = _words(examples)
    contained = overlaps(words)
    parts = set().union(*contained.values())
    groups = [group for group in examples.groups(task.group_size) if parts.isdisjoint(words[i] for i in group)]
    ends = np.cumsum([0, *map(len, groups)])
    count = sum(group[0] < len(held_out) for group in groups)
    if ends[count] < ENOUGH_HELD_OUT:
        most = int(np.searchsorted(ends, FILL_UP_TO, side="right")) - 1
        count = min(most, (count + len(groups)) // 2)
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
    """Return the words of each example; several texts have a separator between them."""
    # every word once in memory, however often it occurs
    return [tuple(map(sys.intern, " \0 ".join(texts).lower().split())) for texts in examples.plain()]

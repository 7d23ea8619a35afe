"""Token classification: each word of a sentence has a tag, as in the recognition of names; the first token answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from whet.errors import InvalidData
from whet.tasks.data import ANSWERED, Batch, Batches
from whet.tasks.files import class_indices, listed
from whet.tasks.kinds._classes import Classes
from whet.tasks.kinds._distributions import Categorical
from whet.tasks.kinds.base import Answers, Head, LogitRows
from whet.tasks.pairing import Pairing, pair_classes
from whet.tasks.words import NOT_ANSWERED

__all__ = ["TokenClassification"]

Array = np.ndarray[Any, Any]


class TokenClassification(Classes, Categorical):
    """One tag per word; a row of logits is that of the first token of a word."""

    pipeline_tag: ClassVar[str] = "token-classification"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    heads: ClassVar[tuple[str, ...]] = ("ForTokenClassification",)
    holds: ClassVar[str] = "a tagger of words"
    one_row: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = (
        "entity_f1",
        "entity_precision",
        "entity_recall",
        "entity_f1_by_type",
        "strict_entity_f1",
        "word_accuracy",
    )

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`."""
        return True

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`; a head without B for a type, as one of IOB1, answers B by its I."""
        names, known = self.output_names(label_names), set(head.values())
        lacking = [name for name in names if name not in known and name[:2] == "B-" and f"I-{name[2:]}" in known]
        kept = [name for name in names if label_map or name not in lacking]
        paired = pair_classes(head, kept, ordered=ordered, label_map=label_map)
        if len(kept) == len(names):
            return paired
        index = dict(zip(kept, paired.order, strict=False))
        order = [index[f"I-{name[2:]}" if name in lacking else name] for name in names]
        note = f"the model has no {listed(lacking)}: entities of one type that touch are one to it"
        return Pairing([*order, *paired.order[len(kept) :]], "; ".join(filter(None, (paired.note, note))))

    def decisions(self, logits: Array) -> Array:
        """See `TaskKind.decisions`; the last of equal logits, which is I where a head has no B of its own."""
        decided: Array = logits.shape[-1] - 1 - logits[..., ::-1].argmax(-1)
        return decided

    def read_labels(
        self, raw: Sequence[Any], label_names: Sequence[str] | None, *, source: Path | str
    ) -> list[tuple[int, ...]]:
        """See `TaskKind.read_labels`; each entry of `raw` holds the tags of a sentence, a list or with spaces."""
        sentences = [tags.split() if isinstance(tags, str) else list(tags) for tags in raw]
        indices = iter(class_indices([tag for tags in sentences for tag in tags], label_names or (), source=source))
        return [tuple(next(indices) for _ in tags) for tags in sentences]

    def check_labels(self, labels: Sequence[Any], *, source: str) -> None:
        """See `TaskKind.check_labels`."""
        if len({tag for tags in labels for tag in tags}) < 2:
            raise InvalidData(
                f"the {source} must hold at least two tags, but got one only; give data in which words differ"
            )

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[tuple[int, ...]]:
        """See `TaskKind.renumbered`."""
        return [tuple(order[tag] for tag in tags) for tags in labels]

    def rows(self, outputs: Any, batch: Batch) -> LogitRows:
        """See `TaskKind.rows`; one row for each word, or for each token if the batch does not say where words start."""
        mask = batch.get(ANSWERED, batch["attention_mask"]).bool()
        return LogitRows(outputs.logits[mask], mask.nonzero()[:, 0])

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; a tuple of tags for each sentence, NOT_ANSWERED where a word has no answer."""
        assert batches.source is not None
        decided = self.decisions(answers.logits)
        ends = np.searchsorted(answers.inputs, np.arange(len(batches.source)), side="right")
        predicted = np.empty(len(batches.source), dtype=object)
        for i, words in enumerate(batches.source.texts):
            tags = np.full(len(words), NOT_ANSWERED)
            tags[batches.notes[i]] = decided[ends[i] - len(batches.notes[i]) : ends[i]]
            predicted[i] = tuple(tags.tolist())
        return predicted

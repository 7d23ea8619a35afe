"""Extractive question answering: an answer is a piece of the context that is given with the question.

A head has two outputs for each token: logits to be the start of the answer, and the end. A row of logits is one of the
two in one window, a distribution over tokens: those of the context, and the first, which means that there is no answer.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from whet.errors import InvalidData
from whet.tasks.data import ANSWERED, Batch, Batches
from whet.tasks.kinds._distributions import Categorical
from whet.tasks.kinds.base import Answers, Head, LogitRows
from whet.tasks.questions import Questions
from whet.tasks.spans import LONGEST_ANSWER, WindowLogits, best_span

__all__ = ["QuestionAnswering"]

Array = np.ndarray[Any, Any]

ROWS = 2
"""LogitRows of logits a window: the start, then the end."""


class QuestionAnswering(Categorical):
    """A start and an end in the context, each one of its tokens."""

    pipeline_tag: ClassVar[str] = "question-answering"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    heads: ClassVar[tuple[str, ...]] = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")
    holds: ClassVar[str] = "a question answerer"
    gives: ClassVar[str] = "a start and an end"
    one_row: ClassVar[bool] = False
    outputs: ClassVar[tuple[str, ...]] = ("start_logits", "end_logits")
    metrics: ClassVar[tuple[str, ...]] = ("answer_f1", "exact_match")

    def fits_head(self, head: Head) -> bool:
        """See `TaskKind.fits_head`."""
        return head.outputs in (None, ROWS)

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return ("start", "end")

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[Any]:
        """See `TaskKind.read_labels`; a column of text cannot say where answers start."""
        raise InvalidData(
            f"questions in {source} must come with answers and where they start, but got them with a column of text; "
            "give SQuAD's JSON, or one question a line"
        )

    def rows(self, outputs: Any, batch: Batch) -> LogitRows:
        """See `TaskKind.rows`: two for each window, with the first token of a window in the first column.

        Tokens that are not ANSWERED get the least number, so that a softmax ignores them.
        """
        start, end = outputs.start_logits, outputs.end_logits
        mask = batch["attention_mask"].bool()
        answered = batch[ANSWERED].bool() & mask if ANSWERED in batch else mask
        logits = torch.stack([start, end], dim=1)
        logits = logits.masked_fill(~answered[:, None], torch.finfo(logits.dtype).min)
        padding = (~mask).long().cumprod(1).sum(1)
        if padding.any():  # on the left, which no answer may depend on
            columns = torch.arange(logits.shape[2], device=logits.device)
            columns = (columns + padding[:, None]) % logits.shape[2]
            logits = logits.gather(2, columns[:, None].expand_as(logits))
        inputs = torch.arange(len(logits), device=logits.device).repeat_interleave(ROWS)
        return LogitRows(logits.flatten(0, 1), inputs)

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`: the text of the best span, empty where the answer is that there is none.

        None is an answer only where the data have questions without one.
        """
        owners = range(len(batches.labels)) if batches.owners is None else batches.owners
        windows: dict[int, list[WindowLogits]] = defaultdict(list)
        for i, (owner, window) in enumerate(zip(owners, batches.notes, strict=True)):
            start, end = answers.logits[ROWS * i : ROWS * (i + 1)]
            windows[int(owner)].append(WindowLogits(window, start, end))
        source = batches.source
        longest = source.longest_answer if isinstance(source, Questions) else LONGEST_ANSWER
        may_lack_answer = any(not len(accepted) for accepted in batches.labels)
        predicted = np.empty(len(batches.labels), dtype=object)
        for i, context in enumerate((source.pairs if source is not None else None) or ()):
            span = best_span(windows[i], longest=longest, may_lack_answer=may_lack_answer)
            predicted[i] = span.text(context)
        return predicted

    def random_signs(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """See `TaskKind.random_signs`; drawn token by token, so that those of more padding come last."""
        signs = torch.randint(0, 2, (logits.shape[-1], *logits.shape[:-1]), generator=generator)
        return signs.movedim(0, -1).to(logits) * 2 - 1

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`; tokens that do not count stay at the least number."""
        return super().softened(logits, temperature).clamp_min(torch.finfo(logits.dtype).min)

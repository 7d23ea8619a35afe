"""Kinds of language models: the head gives a distribution over the vocabulary, and a row predicts one token.

Which rows count, and which tokens they should predict, the batch says. The logits of a whole split would fill hundreds
of gigabytes, so that its rows are summed up batch by batch; see `TaskKind.scores`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from whet.errors import InvalidData
from whet.tasks.data import ANSWERED, TARGETS, Batch, Batches
from whet.tasks.kinds._distributions import Categorical
from whet.tasks.kinds.base import Answers, LogitRows

__all__ = ["TokenPrediction"]

Array = np.ndarray[Any, Any]


class TokenPrediction(Categorical):
    """A row for each predicted token; predictions are the loss of each example and its number of tokens."""

    gives: ClassVar[str] = "tokens"
    pretrained: ClassVar[bool] = True
    one_row: ClassVar[bool] = False

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[Any]:
        """See `TaskKind.read_labels`; a text has none.

        Raises:
            InvalidData: always.
        """
        raise InvalidData(f"a language model must have text without labels, but got labels in {source}; leave them out")

    def rows(self, outputs: Any, batch: Batch) -> LogitRows:
        """See `TaskKind.rows`; one for each token that is answered."""
        logits: Tensor = outputs.logits
        inputs, tokens = _answered(batch)
        return LogitRows(logits[inputs, tokens], inputs)

    def scores(self, rows: LogitRows, batch: Batch) -> Tensor | None:
        """See `TaskKind.scores`; (inputs, 2), the loss of each in nats, summed, and how many tokens it predicts.

        None if the batch does not say which tokens are right, as random inputs do not.
        """
        if TARGETS not in batch:
            return None
        wanted = batch[TARGETS].to(rows.inputs.device)[_answered(batch)]
        likely = rows.logits.gather(1, wanted[:, None])[:, 0].double()
        losses = rows.logits.float().logsumexp(-1).double() - likely
        scores = torch.zeros(len(batch["input_ids"]), 2, dtype=torch.float64, device=losses.device)
        return scores.index_add_(0, rows.inputs, torch.stack([losses, torch.ones_like(losses)], 1))

    def predictions(self, answers: Answers, batches: Batches) -> Array:
        """See `TaskKind.predictions`; (examples, 2), the loss of each example in nats, summed, and its tokens."""
        assert answers.scores is not None, "language models are summed up"
        totals = np.zeros((len(batches.labels), 2))
        owners = np.arange(len(totals)) if batches.owners is None else batches.owners
        np.add.at(totals, owners, answers.scores)
        return totals


def _answered(batch: Batch) -> tuple[Tensor, Tensor]:
    """The input and the place of each token that is answered; without a mark, of all real ones."""
    inputs, tokens = batch.get(ANSWERED, batch["attention_mask"]).bool().nonzero(as_tuple=True)
    return inputs, tokens

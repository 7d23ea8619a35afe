"""The last block answers for the first token alone, where the head reads nothing else.

A classifier of BERT's kind reads h_0 = norm(x_0 + attention(x)_0) and what its feed-forward part makes of it: of the
last block, keys and values are needed for all tokens, and queries, the attention's output, the feed-forward part and
layer norms for the first. That nothing else is read is shown, not assumed: all other outputs of the last block are made
NaN, and the answers must stay the same to the bit. The weights stay what they are.

Source: Goyal, Choudhury, Raje, Chakaravarthy, Sabharwal, Verma, "PoWER-BERT: Accelerating BERT Inference via
Progressive Word-vector Elimination", ICML 2020, arXiv 2001.08950, for tokens that later blocks need not compute.
Differs: only in the last block and only what is never read, so that answers stay the same and nothing is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.errors import InvalidModel, NothingToCompress
from whet.methods.base import Method, Stage
from whet.models.architecture import Architecture
from whet.models.attention import narrow_to_first
from whet.models.inference import example_batch, predict_logits, removing_hooks
from whet.tasks.data import Batch

__all__ = ["FirstToken"]

SHAPES = ((1, 3), (4, 8), (3, 13))
"""Examples and tokens at which answers are compared; some of the last tokens are padding."""
TOLERANCE = 1e-5
"""Largest difference of logits; of logits above 1, as a share of the largest."""
INPUTS = ("input_ids", "attention_mask")


@dataclass(frozen=True, kw_only=True)
class FirstToken(Method):
    """Leave out what the last block computes for tokens that nothing reads."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {}
    lossless: ClassVar[bool] = True

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; a model that is already so stays as it is.

        Raises:
            NothingToCompress: the head reads other tokens too, or the last block is of another kind than BERT's.
            InvalidModel: the answers would be others.
        """
        block = Architecture.of(model).blocks[-1]
        batches = [example_batch(model, INPUTS, *shape) for shape in SHAPES]
        before = _logits(model, batches)
        with removing_hooks([model.get_submodule(block).register_forward_hook(_spoil_others)]):
            spoilt = _logits(model, batches)
        if not all(torch.equal(one, other) for one, other in zip(before, spoilt, strict=True)):
            raise NothingToCompress(
                "the head must read the first token of the last block alone, but the answers of "
                f"{type(model).__name__} change with the others; leave {self.name()} out"
            )
        narrow_to_first(model, block)
        for one, other in zip(before, _logits(model, batches), strict=True):
            difference = float((one - other).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(one.abs().max())):
                raise InvalidModel(
                    f"answers must stay the same to {TOLERANCE:g}, but those of {type(model).__name__} differ by "
                    f"{difference:.2g}; leave {self.name()} out"
                )
        return model


def _logits(model: nn.Module, batches: Sequence[Batch]) -> list[Tensor]:
    return [torch.from_numpy(predict_logits(model, [batch])) for batch in batches]


def _spoil_others(_module: nn.Module, _inputs: Any, out: Any) -> Any:
    """Whatever is computed from NaN is NaN."""
    hidden = (out if isinstance(out, Tensor) else out[0]).clone()
    hidden[:, 1:] = torch.nan
    return hidden if isinstance(out, Tensor) else (hidden, *out[1:])

"""The last block computes only the first token, if the head reads no other.

The head of a BERT-like classifier reads only the first token. In the last block, h_0 = norm(x_0 + attention(x)_0) needs
the keys and values of all tokens, but the queries, the attention's output, the feed-forward part and the layer norms of
the first token alone. In attention of another kind than BERT's the queries stay, and the rest goes.

The method tests that the head reads nothing else: it sets all other outputs of the last block to NaN and requires
bit-identical logits. The weights stay the same.

Source: Goyal, Choudhury, Raje, Chakaravarthy, Sabharwal, Verma, "PoWER-BERT: Accelerating BERT Inference via
Progressive Word-vector Elimination", ICML 2020, arXiv 2001.08950, for tokens that later blocks need not compute.
Differs: only outputs of the last block that nothing reads are left out, so that predictions stay the same and nothing
is trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from whet.calibration.resources import Resources
from whet.errors import NothingToCompress
from whet.methods.base import Method, Stage
from whet.models.architecture import Architecture, is_dense
from whet.models.attention import INPUTS
from whet.models.first_token import computes_first_alone, cuts, first_token_layers
from whet.models.inference import example_batch, predict_logits, removing_hooks
from whet.models.layers.base import CompressedLayer
from whet.models.surgery import copy_sharing_parameters
from whet.tasks.data import Batch

__all__ = ["FirstToken"]

COMPARED_SHAPES = ((1, 5), (4, 8), (3, 13))
"""(examples, tokens) of the batches on which logits are compared; some of the last tokens are padding. Funnel
reads no fewer."""
LOGIT_TOLERANCE = 1e-5
"""Largest difference of logits; relative to the largest logit if that is above 1."""


@dataclass(frozen=True, kw_only=True)
class FirstToken(Method):
    """Skip the computations of the last block for tokens that the head does not read."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {}
    mildest: ClassVar[dict[str, Any]] = {}
    lossless: ClassVar[bool] = True

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; a model to which it was applied before stays unchanged.

        Raises:
            NothingToCompress: the head reads other tokens too, or no layer norm of the last block can be cut.
        """
        if computes_first_alone(model):
            return model
        block = Architecture.of(model).blocks[-1]
        batches = [example_batch(model, INPUTS, *shape) for shape in COMPARED_SHAPES]
        expected = _logits(model, batches)
        with removing_hooks([model.get_submodule(block).register_forward_hook(_set_others_to_nan)]):
            without_others = _logits(model, batches)
        if not all(torch.equal(*pair) for pair in zip(expected, without_others, strict=True)):
            raise NothingToCompress(
                "the head must read the first token of the last block alone, but the logits of "
                f"{type(model).__name__} change with the other tokens; leave {self.name()} out"
            )
        cut = next((cut for cut in cuts(model, block) if _pays(model, block, cut, batches, expected)), None)
        if cut is None:
            raise NothingToCompress(
                "a layer norm between the attention and the feed-forward part of the last block must be able to pass "
                f"the first token on alone, but {type(model).__name__} has none; leave {self.name()} out"
            )
        cut(model)
        return model


def _pays(
    model: nn.Module, block: str, cut: Callable[[nn.Module], None], batches: Sequence[Batch], expected: Sequence[Tensor]
) -> bool:
    """Whether a cut leaves work of a block out, and the logits as they are."""
    copied = copy_sharing_parameters(model)
    cut(copied)
    try:
        found = _logits(copied, batches)
        alone = [copied.get_submodule(name) for name in first_token_layers(copied) if name.startswith(f"{block}.")]
        if not any(isinstance(layer, CompressedLayer) or is_dense(layer) for layer in alone):
            return False
    except (LookupError, RuntimeError, TypeError, ValueError):  # the family's own code cannot run with one token
        return False
    return all(
        float((before - after).abs().max()) <= LOGIT_TOLERANCE * max(1.0, float(before.abs().max()))
        for before, after in zip(expected, found, strict=True)
    )


def _logits(model: nn.Module, batches: Sequence[Batch]) -> list[Tensor]:
    return [torch.from_numpy(predict_logits(model, [batch])) for batch in batches]


def _set_others_to_nan(_module: nn.Module, _inputs: Any, out: Any) -> Any:
    """Return the output with NaN in all tokens but the first; every number computed from them is NaN too."""
    hidden = (out if isinstance(out, Tensor) else out[0]).clone()
    hidden[:, 1:] = torch.nan
    return hidden if isinstance(out, Tensor) else (hidden, *out[1:])

"""LoRA through peft: low-rank corrections beside frozen linear layers are all that is trained, and merged in the end.

y = W x + (alpha / rank) B A x + b with B = 0 at the start, so that training starts from the function that was given.
The head, and what lies between it and the blocks, is trained as it is, and so are layer norms, if that is asked for.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv 2106.09685.
"""

import math
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, NamedTuple

from annotated_types import Interval
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from whet.errors import InvalidParameter, NothingToCompress
from whet.models.architecture import Architecture, is_dense
from whet.utils.parameters import check

__all__ = ["LoraSettings", "Trainable", "attach", "merged", "trainable"]


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """How large the corrections are, and where."""

    rank: Annotated[int, Interval(ge=1)] = 8
    """Of every correction."""
    alpha: Annotated[float, Interval(gt=0, lt=math.inf)] = 16
    """Corrections count alpha / rank times."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of the corrections' inputs, in training."""
    targets: str = "*"
    """Wildcard over the names of the linear layers in the blocks; factors of compressed layers are among them."""
    norms: bool = False
    """Whether layer norms are trained too."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


class Trainable(NamedTuple):
    """How much of a model is trained."""

    trained: int
    """Parameters."""
    whole: int
    """All of the model's, corrections included."""

    def __str__(self) -> str:
        share = self.trained / self.whole
        return f"{self.trained:,} of {self.whole:,} parameters are trained ({share:.2%})"


def attach(model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
    """Return the model with corrections beside its linear layers, which are frozen.

    Args:
        model: its modules go on to be used.
        settings: how large, and where.

    Raises:
        InvalidParameter: peft is not installed.
        NothingToCompress: the wildcard matches no linear layer.
    """
    try:
        import peft
    except ImportError as error:
        raise InvalidParameter("LoRA needs peft, but it is not installed; pip install 'whet[lora]'") from error
    targets = _targets(model, settings.targets)
    transposed = {isinstance(model.get_submodule(name), Conv1D) for name in targets}
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=transposed == {True},
        modules_to_save=_trained_whole(model, norms=settings.norms),
    )
    with warnings.catch_warnings():
        # peft asks transformers under a name that is going away
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        # and where layers of both ways round are left, sets for each what is right
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        adapted: Any = peft.get_peft_model(model, config)
    return adapted


def merged(adapted: PreTrainedModel) -> PreTrainedModel:
    """Return the model of `attach` with its corrections added to the weights: as many parameters as at first."""
    whole: Any = adapted
    model: PreTrainedModel = whole.merge_and_unload()
    return model.requires_grad_(True).eval()


def trainable(model: nn.Module) -> Trainable:
    """Return how much of a model is trained; of two copies of a layer, the frozen one is not counted."""
    frozen = {id(one) for name, one in model.named_parameters() if ".original_module." in name}
    parameters = [one for one in model.parameters() if id(one) not in frozen]
    return Trainable(
        sum(one.numel() for one in parameters if one.requires_grad), sum(one.numel() for one in parameters)
    )


def _targets(model: nn.Module, pattern: str) -> list[str]:
    blocks = tuple(f"{name}." for name in Architecture.of(model).blocks)
    linears = [name for name, module in model.named_modules() if is_dense(module) and name.startswith(blocks)]
    found = [name for name in linears if fnmatchcase(name, pattern)]
    if not found:
        raise NothingToCompress(
            f"the targets of LoRA must match a linear layer, but got {pattern!r}; the linear layers here are "
            f"{', '.join(linears[:6])}, ..."
        )
    return found


def _trained_whole(model: nn.Module, *, norms: bool) -> list[str]:
    """The head and what lies between the blocks and it; embeddings come before them."""
    blocks = Architecture.of(model).blocks
    names = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    last = max(i for i, name in enumerate(names) if name.startswith(f"{blocks[-1]}."))
    after = [name for name in names[last + 1 :] if norms or not _is_norm(model.get_submodule(name))]
    inside = [name for name in names[: last + 1] if norms and _is_norm(model.get_submodule(name))]
    return inside + after


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()

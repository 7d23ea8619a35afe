"""LoRA through peft: training updates low-rank adapters beside frozen linear layers, and merges them at the end.

y = W x + (alpha / rank) B A x + b, with B = 0 at the start, so that training starts from the given model. The head, and
all layers between the last block and the head, are trained without adapters; so are layer norms, if wanted.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv 2106.09685.
"""

import warnings
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from whet.errors import InvalidParameter, NothingToCompress
from whet.models.architecture import Architecture, dense_weight, is_dense
from whet.training.settings import LoraSettings

__all__ = ["TrainableCount", "attach_lora", "merge_lora", "trainable_count"]


class TrainableCount(NamedTuple):
    """How many parameters of a model are trained."""

    trained: int
    """Number of trained parameters."""
    whole: int
    """Number of all parameters, including those of adapters."""

    def __str__(self) -> str:
        return f"{self.trained:,} of {self.whole:,} parameters are trained ({self.trained / self.whole:.2%})"


def attach_lora(model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
    """Return the model with adapters beside its linear layers, which are frozen.

    Args:
        model: the model, whose modules are reused.
        settings: the size of the adapters, and the layers that get one.

    Raises:
        InvalidParameter: peft is not installed, or the rank is larger than any layer.
        NothingToCompress: the wildcard matches no linear layer.
    """
    try:
        import peft
    except ImportError as error:
        raise InvalidParameter("LoRA needs peft, but it is not installed; pip install 'whet[lora]'") from error
    targets = _targets(model, settings.targets)
    widest = max(min(dense_weight(model.get_submodule(name)).shape) for name in targets)
    if settings.rank > widest:
        raise InvalidParameter(
            f"the rank of LoRA must be at most {widest}, the narrower side of the largest layer, but got "
            f"rank={settings.rank}; give one such as {min(8, widest)}"
        )
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
        # peft calls a deprecated name of transformers
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        # peft corrects this flag for each layer of a model with both Linear and Conv1D
        warnings.filterwarnings("ignore", "fan_in_fan_out is set", UserWarning)
        adapted: Any = peft.get_peft_model(model, config)
    return adapted


def merge_lora(adapted: PreTrainedModel) -> PreTrainedModel:
    """Return the model from `attach_lora` with its adapters merged into the weights; it has no more parameters."""
    peft_model: Any = adapted
    model: PreTrainedModel = peft_model.merge_and_unload()
    return model.requires_grad_(True).eval()


def trainable_count(model: nn.Module) -> TrainableCount:
    """Return how many parameters of a model are trained.

    peft keeps a frozen copy of each layer that it trains without an adapter; the copies are not counted.
    """
    copies = {id(parameter) for name, parameter in model.named_parameters() if ".original_module." in name}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in copies]
    return TrainableCount(
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        sum(parameter.numel() for parameter in parameters),
    )


def _targets(model: nn.Module, pattern: str) -> list[str]:
    blocks = tuple(f"{name}." for name in Architecture.of(model).blocks)
    linears = [name for name, module in model.named_modules() if is_dense(module) and name.startswith(blocks)]
    targets = [name for name in linears if fnmatchcase(name, pattern)]
    if not targets:
        raise NothingToCompress(
            f"the targets of LoRA must match a linear layer, but got targets={pattern!r}; the linear layers here are "
            f"{', '.join(linears[:6])}, ..."
        )
    return targets


def _trained_whole(model: nn.Module, *, norms: bool) -> list[str]:
    """Return the names of the layers to train without adapters: those after the last block, and `norms`."""
    blocks = Architecture.of(model).blocks
    names = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    last = max(i for i, name in enumerate(names) if name.startswith(f"{blocks[-1]}."))
    after = [name for name in names[last + 1 :] if norms or not _is_norm(model.get_submodule(name))]
    inside = [name for name in names[: last + 1] if norms and _is_norm(model.get_submodule(name))]
    return inside + after


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()

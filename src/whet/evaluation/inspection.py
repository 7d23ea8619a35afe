"""Where a model's parameters and time are, and which methods can help on this machine."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from whet.errors import InvalidParameter
from whet.evaluation.timing import layer_latencies, time_modules
from whet.models.architecture import Architecture, dense_weight
from whet.models.inference import example_batch, kind_of_model, predict_logits, removing_hooks
from whet.models.load import common_max_length
from whet.numerics.low_rank import break_even
from whet.tasks.data import Batch
from whet.tasks.kinds.base import NO_HEAD
from whet.utils.hardware import INSTRUCTION_SETS, Machine, current_machine

__all__ = ["BreakEven", "Inspection", "ModuleRow", "Unreached", "inspected", "require_batch"]

LARGEST_BATCH = 2**20
"""Tokens of the largest batch that is timed; one layer's outputs take gigabytes for it."""
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Ranks that are timed, as shares of the rank where parameters break even."""


class ModuleRow(NamedTuple):
    """One module of the model."""

    name: str
    kind: str
    shape: str
    parameters: int
    share: float
    """Of the model's parameters."""
    milliseconds: float | None = None
    """Median time that it takes in one forward pass of the model; None if no times were taken."""
    time_share: float | None = None
    """Of the model's time, likewise."""


class BreakEven(NamedTuple):
    """Where two thin products stop paying for one shape of layer."""

    shape: str
    layers: int
    """Layers of this shape."""
    by_parameters: int
    """Rank from which two factors hold as much as the dense weight."""
    by_time: int | None = None
    """Largest rank timed that is faster than the dense product here; 0 where none is, None if no times were taken."""
    best_speedup: float | None = None
    """Of the smallest rank timed, likewise."""


class Unreached(NamedTuple):
    """What is neither a linear layer of a block nor an embedding, so that no method changes it."""

    share: float
    """Of the model's parameters."""
    time_share: float | None
    """Of the time of all modules; None if no times were taken."""
    kinds: tuple[str, ...]
    """The classes of such modules in the blocks that hold matrices, most weights first."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found."""

    machine: Machine
    """This machine."""
    batch: tuple[int, int]
    """Sentences and tokens a sentence that were timed."""
    modules: list[ModuleRow]
    """Leaf modules with parameters, in the order of the model."""
    break_evens: list[BreakEven]
    """One per shape of dense layer."""
    advice: list[str]
    """What can help on this machine, and what cannot."""
    kind: str
    """What the model answers, such as token_classification."""
    reads: str
    """What its head reads of the last block: the first token, the last token, each token by itself, or all tokens."""
    methods: dict[str, str]
    """Why each method refuses the model, by its name; empty for those that can work on it."""
    family: str
    """Which family the model is of, by its configuration, such as modernbert."""
    blocks: str
    """What was found of its blocks, in words."""
    unreached: Unreached
    """What no method can change."""

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection as JSON values."""
        rows = {
            "modules": [row._asdict() for row in self.modules],
            "break_evens": [row._asdict() for row in self.break_evens],
            "unreached": self.unreached._asdict(),
        }
        return asdict(self) | rows


def require_batch(batch: tuple[int, int]) -> None:
    """Check the size of the batch that is timed.

    Args:
        batch: sentences and tokens a sentence.

    Raises:
        InvalidParameter: a sentence or a token is the least, and LARGEST_BATCH tokens are the most.
    """
    if min(batch) < 1 or batch[0] * batch[1] > LARGEST_BATCH:
        raise InvalidParameter(
            f"a batch must have from 1 to {LARGEST_BATCH} tokens, but got {batch[0]} sentences of {batch[1]}; give a "
            "batch such as 32 of 64"
        )


def inspected(loaded: PreTrainedModel, *, batch: tuple[int, int], rounds: int, methods: dict[str, str]) -> Inspection:
    """Return where the parameters and the time of a model are, and what can help.

    Args:
        loaded: the model, in eval mode.
        batch: sentences and tokens a sentence to time it with; fewer tokens if the model cannot read as many.
        rounds: forward passes that are timed; with 0, no times are taken.
        methods: why each method refuses the model, by its name; empty for those that can work on it.
    """
    size, length = batch[0], common_max_length(batch[1], loaded)
    vocabulary = int(getattr(loaded.config, "vocab_size", None) or 2)
    ids = torch.randint(vocabulary // 2, vocabulary, (size, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    rows = _modules(loaded, inputs, rounds)
    evens = _break_evens(loaded, inputs if rounds else None)
    here = current_machine()
    return Inspection(
        machine=here,
        batch=(size, length),
        modules=rows,
        break_evens=evens,
        advice=_advice(here, evens),
        kind=kind_of_model(loaded).name(),
        reads=_tokens_read(loaded),
        methods=methods,
        family=str(loaded.config.model_type),
        blocks=_blocks(loaded),
        unreached=_unreached(loaded, rows),
    )


def _blocks(model: PreTrainedModel) -> str:
    found = Architecture.of(model)
    compressed = f", {len(found.compressed)} compressed layers" if found.compressed else ""
    place = found.blocks[0].rpartition(".")[0]
    return f"{len(found.blocks)} blocks at {place} with {len(found.linears)} linear layers{compressed}"


def _unreached(model: PreTrainedModel, rows: list[ModuleRow]) -> Unreached:
    """What methods cannot change, of the rows of an inspection and of parameters that no row has."""
    architecture = Architecture.of(model)
    inside = tuple(f"{name}." for name, _ in architecture.compressed)
    linears = {*architecture.linears, *architecture.shared}

    def reached(row: ModuleRow) -> bool:
        module = model.get_submodule(row.name)
        return row.name in linears or f"{row.name}.".startswith(inside) or isinstance(module, nn.Embedding)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    share = sum(row.parameters for row in rows if reached(row)) / parameters
    times = sum(row.milliseconds or 0.0 for row in rows)
    out_of_reach = sum(row.milliseconds or 0.0 for row in rows if not reached(row))
    return Unreached(max(0.0, 1 - share), out_of_reach / times if times else None, architecture.others)


def _tokens_read(model: PreTrainedModel) -> str:
    """What the head reads of the last block's output, found by setting some tokens to NaN."""
    kind = kind_of_model(model)
    if not kind.one_row and NO_HEAD not in kind.heads:  # an embedder pools tokens
        return "each token by itself"
    block = model.get_submodule(Architecture.of(model).blocks[-1])
    batch = example_batch(model, ["input_ids", "attention_mask"], 1, 8)
    for words, kept in (("the first token", 0), ("the last token", -1)):
        with removing_hooks([block.register_forward_hook(_only(kept))]):
            if np.isfinite(predict_logits(model, [batch])).all():
                return words
    return "all tokens"


def _only(kept: int) -> Callable[..., Any]:
    """Return a hook that sets all tokens of an output to NaN but one."""

    def others_to_nan(_module: nn.Module, _inputs: Any, out: Any) -> Any:
        hidden: Tensor = out if isinstance(out, Tensor) else out[0]
        found = torch.full_like(hidden, torch.nan)
        found[:, kept] = hidden[:, kept]
        return found if isinstance(out, Tensor) else (found, *out[1:])

    return others_to_nan


def _modules(model: nn.Module, inputs: dict[str, Tensor], rounds: int) -> list[ModuleRow]:
    leaves = {
        name: module
        for name, module in model.named_modules()
        if not any(module.children()) and any(True for _ in module.parameters())
    }
    times = time_modules(model, leaves, inputs, rounds=rounds, label="timing modules") if rounds else None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for name, module in leaves.items():
        own = sum(parameter.numel() for parameter in module.parameters())
        shape = "x".join(str(size) for size in max(module.parameters(), key=torch.numel).shape)
        taken = () if times is None else (times.modules[name] * 1e3, times.modules[name] / times.whole)
        rows.append(ModuleRow(name, type(module).__name__, shape, own, own / parameters, *taken))
    return rows


def _break_evens(model: nn.Module, batch: Batch | None) -> list[BreakEven]:
    weights = [dense_weight(model.get_submodule(name)) for name in Architecture.of(model).linears]
    shapes = {tuple(weight.shape): weight for weight in weights}
    return [
        _break_even(weight, sum(tuple(other.shape) == shape for other in weights), batch)
        for shape, weight in shapes.items()
    ]


def _break_even(weight: Tensor, layers: int, batch: Batch | None) -> BreakEven:
    """Where a shape of layer breaks even, by time too if there is a batch to time it with."""
    limit, shape = break_even(weight), "x".join(map(str, weight.shape))
    if batch is None:
        return BreakEven(shape, layers, limit)
    ranks = sorted({max(1, round(limit * share)) for share in SHARES})
    table = layer_latencies(weight, ranks, [batch])
    faster = [rank for rank, seconds in table.factored.items() if seconds < table.dense]
    return BreakEven(shape, layers, limit, max(faster, default=0), table.dense / table.factored[ranks[0]])


def _advice(here: Machine, evens: list[BreakEven]) -> list[str]:
    lines = []
    for row in evens:
        if row.by_time is None:
            lines.append(f"low rank saves bytes of {row.layers} layers of {row.shape} below rank {row.by_parameters}")
        elif row.by_time:
            lines.append(f"low rank can help the {row.layers} layers of {row.shape}: faster up to rank {row.by_time}")
        else:
            lines.append(f"low rank cannot help the {row.layers} layers of {row.shape}: no rank is faster here")
    for kind in ("int8", "bf16"):
        sets = [name for name in here.instruction_sets if INSTRUCTION_SETS[name].startswith(kind)]
        if sets:
            lines.append(f"{kind} can help: this processor has {', '.join(sets)}")
        else:
            lines.append(f"{kind} saves bytes but hardly time: this processor has no {kind} instructions")
    lines.append(f"{here.threads} of {here.cores} cores are used; --threads changes it")
    return lines

"""One budget over everything that the parts of blocks can become: the least summed loss for a wanted speed or size.

A feed-forward part may keep some of its neurons, a self-attention some of its heads and of their features, any layer
may become two factors, and a part may go altogether, which leaves its mean. What each costs in KL comes from one pass
over calibration data, in one unit: ½ tr(G ΔW C ΔWᵀ). What each saves in time is measured here, on whole models in which
all parts of a kind have the same shape, in the runtime and precision that count, at the lengths of the task's own text.
Both go into one multiple-choice knapsack; the model that comes out is timed, and the budget moved until it is as fast
as was asked. Nothing is trained.

Source: Kurtic, Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv
2302.04089, for a budget of measured time over whole structures.
Differs: a loss that all structures share takes the place of a search with trial models; parts also become narrower or
factored; times are those of whole models, so that what a runtime fuses is in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from torch import nn

from whet.calibration.resources import Resources, calibrated
from whet.errors import InvalidParameter
from whet.evaluation.clock import PYTORCH, Run, RuntimeTimer
from whet.methods._budget import Budgeted, at_budget
from whet.methods.pruning._dissection import PartLocation, dissect, part_locations
from whet.methods.pruning._parts import DENSE, BlockPart, PartConfig
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.allocation import Options, minimise
from whet.runtimes.base import all_runtimes
from whet.utils.lookup import choose
from whet.utils.progress import track

__all__ = ["STRUCTURES", "Structure"]

STRUCTURES = ("neurons", "heads", "widths", "ranks", "nothing")
"""What parts can become."""

Chosen = dict[str, PartConfig]


@dataclass(frozen=True, kw_only=True)
class Structure(Budgeted):
    """Give every part of every block the shape that loses least for the speed or size of the whole."""

    structures: tuple[str, ...] = ("neurons", "heads", "nothing")
    """What parts may become: neurons, heads, widths (of heads), ranks (two factors), nothing. Ranks, offered
    beside neurons and heads, cost more than they promise (studies/frontier)."""
    calibration: Literal["one_shot", "sequential"] = "one_shot"
    """Whether parts are fitted to what the model gave as it was, or, one after the other in forward order, to what the
    parts before them give by then; sizes are the same."""
    include: str = "*"
    """Wildcard over module names: of attentions, of what reads neurons, and of other layers."""
    runtime: str = PYTORCH
    """Where time counts: pytorch, or a runtime that models are exported for."""
    precision: str = "fp32"
    """In which the runtime computes."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter, or UnknownName, as `Budgeted` does, and for structures or a runtime of no name."""
        super().__post_init__()
        given: Any = self.structures
        object.__setattr__(self, "structures", (given,) if isinstance(given, str) else tuple(given))  # files hold lists
        unknown = [str(name) for name in self.structures if name not in STRUCTURES]
        if unknown or not self.structures:
            raise InvalidParameter(
                f"structures must be some of {', '.join(STRUCTURES)}, but got {', '.join(unknown) or 'none'}"
            )
        choose(self.runtime, [PYTORCH, *all_runtimes()], what="the runtime")

    @property
    def key(self) -> Self:
        """See `Budgeted.key`; without a wanted speed nothing is timed."""
        return replace(self, keep=self.keep and 1.0, speedup=self.speedup and 2.0, calibration="one_shot")

    def learn(self, model: nn.Module, resources: Resources) -> "_Known":
        """See `Budgeted.learn`."""
        device = next(model.parameters()).device.type
        clock = RuntimeTimer(
            batches=calibrated(resources), runtime=self.runtime, precision=self.precision, device=device
        )
        if self.speedup is not None:
            clock.require()
        parts = self._dissected(model, self.places(model, resources), resources)
        losses = {name: part.choices(self.structures) for name, part in parts.items()}
        return _Known(parts, losses, None if self.speedup is None else _times(model, parts, clock, self.structures))

    def spend(self, model: nn.Module, known: "_Known", resources: Resources) -> nn.Module:
        """See `Budgeted.spend`."""
        if self.keep is not None:
            chosen = _within_size(known, self.keep)
        else:
            assert self.speedup is not None and known.times is not None
            chosen = _within_time(model, known, known.times, self.speedup)
        if self.calibration == "one_shot":
            return _shaped(model, known.parts, chosen)
        where = self.places(model, resources)
        for name, shape in track(chosen.items(), "fitting anew"):
            self._dissected(model, {name: where[name]}, resources)[name].put(model, shape)
        return model

    @property
    def _factored(self) -> bool:
        return "ranks" in self.structures

    def places(self, model: nn.Module, resources: Resources) -> dict[str, PartLocation]:
        """See `Budgeted.places`."""
        return part_locations(model, calibrated(resources), include=self.include, factored=self._factored)

    def _dissected(
        self, model: nn.Module, where: Mapping[str, PartLocation], resources: Resources
    ) -> dict[str, BlockPart]:
        return dissect(
            model,
            calibrated(resources),
            where,
            factored=self._factored,
            damping=self.damping,
            temperature=self.temperature,
            seed=resources.seed,
        )


class _Known(NamedTuple):
    """What a model can become, and what each choice costs."""

    parts: Mapping[str, BlockPart]
    losses: Mapping[str, Mapping[PartConfig, float]]
    times: "_Times | None"
    """None where no speed is asked for."""


def _shaped(model: nn.Module, parts: Mapping[str, BlockPart], chosen: Chosen) -> nn.Module:
    for name, shape in chosen.items():
        parts[name].put(model, shape)
    return model


def _within_size(known: _Known, keep: float) -> Chosen:
    costs = {name: {shape: known.parts[name].parameters(shape) for shape in own} for name, own in known.losses.items()}
    least, whole = (sum(pick(own.values()) for own in costs.values()) for pick in (min, max))
    if least > keep * whole:
        raise InvalidParameter(
            f"keep >= {least / whole:.3g} must hold, which is the least that these structures can keep, but got "
            f"keep={keep}; give more, or more structures"
        )
    menu = _menu(costs, known.losses)
    return menu.shapes(minimise(menu.options, keep * whole))


def _within_time(model: nn.Module, known: _Known, times: "_Times", speedup: float) -> Chosen:
    saved = {name: {shape: -times.saved(name, shape) for shape in own} for name, own in known.losses.items()}
    menu = _menu(saved, known.losses)

    def timed(chosen: Mapping[str, int]) -> float:
        shaped = times.clock.opened(_shaped(copy_sharing_parameters(model), known.parts, menu.shapes(chosen)))
        dense, small = times.clock.seconds([times.run, shaped])
        return dense / small

    return menu.shapes(at_budget(menu.options, speedup=speedup, whole=times.whole, fixed=times.whole, timed=timed))


@dataclass(frozen=True)
class _Times:
    """How long the whole model takes, and what shapes of its parts save, in seconds."""

    clock: RuntimeTimer
    run: Run
    """The whole model, ready to run."""
    whole: float
    """Of it."""
    parts: Mapping[str, BlockPart]
    shares: Mapping[str, float]
    """How much of the time of a part that sees all tokens each takes."""
    probes: Mapping[tuple[object, ...], Mapping[PartConfig, float]]
    """By kind: what its probes save in a part that sees all tokens."""

    def saved(self, name: str, shape: PartConfig) -> float:
        """Return what a shape of a part saves."""
        part = self.parts[name]
        return self.shares[name] * part.saved(shape, self.probes[part.kind])


def _times(model: nn.Module, parts: Mapping[str, BlockPart], clock: RuntimeTimer, structures: Sequence[str]) -> _Times:
    """Time models in which all parts of one kind have the same shape."""
    length = float(np.mean([batch["input_ids"].shape[1] for batch in clock.batches.batches]))
    shares = {name: part.share(model, length) for name, part in parts.items()}
    kinds: dict[tuple[object, ...], list[str]] = {}
    for name, part in parts.items():
        kinds.setdefault(part.kind, []).append(name)
    probes = [(kind, shape) for kind, names in kinds.items() for shape in parts[names[0]].probes(structures)]
    whole = clock.opened(copy_sharing_parameters(model))  # (which stays whole, whatever becomes of the model)
    shaped = [
        clock.opened(_shaped(copy_sharing_parameters(model), parts, dict.fromkeys(kinds[kind], shape)))
        for kind, shape in track(probes, "preparing to time")
    ]
    dense, *seconds = clock.seconds([whole, *shaped])
    timed: dict[tuple[object, ...], dict[PartConfig, float]] = {kind: {} for kind in kinds}
    for (kind, shape), taken in zip(probes, seconds, strict=True):
        # (what is slower than dense saves nothing, however little that is)
        timed[kind][shape] = max(0.0, dense - taken) / sum(shares[name] for name in kinds[kind])
    return _Times(clock, whole, dense, parts, shares, timed)


@dataclass(frozen=True)
class _Menu:
    """The choices of every part, from cheapest to dearest."""

    order: Mapping[str, Sequence[PartConfig]]
    options: Mapping[str, Options]

    def shapes(self, chosen: Mapping[str, int]) -> Chosen:
        return {name: shape for name, i in chosen.items() if (shape := self.order[name][i]) != DENSE}


def _menu(costs: Mapping[str, Mapping[PartConfig, float]], losses: Mapping[str, Mapping[PartConfig, float]]) -> _Menu:
    order, options = {}, {}
    for name, own in costs.items():
        # of what costs the same the least loss counts, and of that the dense layer
        shapes = sorted(own, key=lambda shape: (own[shape], losses[name][shape]))
        order[name] = shapes
        options[name] = Options(
            np.array([own[shape] for shape in shapes]), np.array([losses[name][shape] for shape in shapes])
        )
    return _Menu(order, options)

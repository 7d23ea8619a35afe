"""One budget over all structures of a model's blocks: the least summed loss at a wanted speed or size.

A feed-forward part may keep some of its neurons, a self-attention some of its heads and of their features, any layer
may become two factors, and a whole part may be replaced by its mean output. The loss of each choice in KL, ½ tr(G ΔW C
ΔWᵀ), comes from one pass over the calibration data. The time that each choice saves is measured on this machine, in the
wanted runtime and precision, at the lengths of the task's own text, on whole models in which all parts of one kind have
the same configuration. Both enter a multiple-choice knapsack. The resulting model is timed, and the budget is moved
until the model is as fast as wanted. Nothing is trained.

Source: Kurtic, Frantar, Alistarh, "ZipLM: Inference-Aware Structured Pruning of Language Models", NeurIPS 2023, arXiv
2302.04089, for a budget of measured time over whole structures.
Differs: one loss for all structures replaces a search with trial models; heads can also become narrower, and layers
factored; whole models are timed, so that the times include what a runtime fuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from torch import nn

from whet.calibration.resources import Resources, require_calibration
from whet.errors import InvalidParameter
from whet.evaluation.significance import speedup as speedup_of
from whet.evaluation.timing import Run, RuntimeTimer
from whet.methods._budget import Budgeted, at_budget
from whet.methods.pruning._dissection import PartLocation, dissect, part_locations
from whet.methods.pruning._parts import DENSE, BlockPart, PartConfig
from whet.models.first_token import first_token_layers
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.allocation import LayerOptions, minimise_loss
from whet.runtimes.base import search_runtimes
from whet.utils.lookup import choose
from whet.utils.precision import FP32, PYTORCH
from whet.utils.progress import track

__all__ = ["STRUCTURES", "BlockStructure"]

STRUCTURES = ("neurons", "heads", "widths", "ranks", "drop")
"""The structures that a part can take."""

ChosenConfigs = dict[str, PartConfig]
"""The configuration of every part that changes, by the part's name."""


@dataclass(frozen=True, kw_only=True)
class BlockStructure(Budgeted):
    """Choose the configuration of every part of every block, with the least loss for a wanted speed or size."""

    structures: tuple[str, ...] = ("neurons", "heads", "drop")
    """The structures that parts may take: neurons (fewer neurons), heads (fewer heads), widths (narrower heads), ranks
    (two factors), drop (the part is replaced by its mean output). Ranks beside neurons and heads lose more quality
    than their loss predicts (studies/frontier)."""
    calibration: Literal["one_shot", "sequential"] = "one_shot"
    """How to fit the remaining features: one_shot fits them to the inputs of the baseline, sequential fits one part
    after the other, to the inputs from the compressed parts before it; the sizes are the same."""
    include: str = "*"
    """Wildcard over the names of attentions, of layers that read neurons, and (for ranks) of other linear layers;
    parts that do not match stay unchanged."""
    runtime: str = PYTORCH
    """The runtime in which the speedup is measured: pytorch, or a runtime for which models are exported."""
    precision: str = FP32
    """The precision in which that runtime computes, e.g. fp32."""

    renamed_choices: ClassVar[Mapping[str, Mapping[str, str]]] = {"structures": {"nothing": "drop"}}

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: as `Budgeted` does, or a structure is unknown.
            UnknownName: the runtime is unknown.
        """
        given: Any = self.structures
        if isinstance(given, str | list):  # files hold lists
            object.__setattr__(self, "structures", (given,) if isinstance(given, str) else tuple(given))
        super().__post_init__()
        unknown = [str(name) for name in self.structures if name not in STRUCTURES]
        if unknown or not self.structures:
            raise InvalidParameter(
                f"structures must be some of {', '.join(STRUCTURES)}, but got {', '.join(unknown) or 'none'}"
            )
        choose(self.runtime, search_runtimes(), what="the runtime")

    @property
    def key(self) -> Self:
        """See `Budgeted.key`; without a wanted speedup nothing is timed."""
        return replace(self, keep=self.keep and 1.0, speedup=self.speedup and 2.0, calibration="one_shot")

    def learn(self, model: nn.Module, resources: Resources) -> "_Choices":
        """See `Budgeted.learn`."""
        device = next(model.parameters()).device.type
        timer = RuntimeTimer(
            batches=require_calibration(resources), runtime=self.runtime, precision=self.precision, device=device
        )
        if self.speedup is not None:
            timer.require()
        parts = self._dissected(model, self.locations(model, resources), resources)
        losses = {name: part.choices(self.structures) for name, part in parts.items()}
        return _Choices(parts, losses, None if self.speedup is None else _times(model, parts, timer, self.structures))

    def spend(self, model: nn.Module, choices: "_Choices", resources: Resources) -> nn.Module:
        """See `Budgeted.spend`."""
        if self.keep is not None:
            chosen = _within_size(choices, self.keep)
        else:
            assert self.speedup is not None and choices.times is not None
            chosen = _within_time(model, choices, choices.times, self.speedup)
        if self.calibration == "one_shot":
            return _with_configs(model, choices.parts, chosen)
        locations = self.locations(model, resources)
        for name, config in track(chosen.items(), "fitting parts again"):
            self._dissected(model, {name: locations[name]}, resources)[name].put(model, config)
        return model

    @property
    def _factored(self) -> bool:
        return "ranks" in self.structures

    def locations(self, model: nn.Module, resources: Resources) -> dict[str, PartLocation]:
        """See `KeepsShare.locations`."""
        return part_locations(model, require_calibration(resources), include=self.include, factored=self._factored)

    def _dissected(
        self, model: nn.Module, locations: Mapping[str, PartLocation], resources: Resources
    ) -> dict[str, BlockPart]:
        return dissect(
            model,
            require_calibration(resources),
            locations,
            factored=self._factored,
            damping=self.damping,
            temperature=self.temperature,
            seed=resources.seed,
        )


class _Choices(NamedTuple):
    """The parts of a model, and the loss and time of each of their configurations."""

    parts: Mapping[str, BlockPart]
    losses: Mapping[str, Mapping[PartConfig, float]]
    """The loss of every configuration, by part."""
    times: "_Times | None"
    """None if no speedup is wanted."""


def _with_configs(model: nn.Module, parts: Mapping[str, BlockPart], chosen: ChosenConfigs) -> nn.Module:
    for name, config in chosen.items():
        parts[name].put(model, config)
    return model


def _within_size(choices: _Choices, keep: float) -> ChosenConfigs:
    costs = {
        name: {config: choices.parts[name].parameters(config) for config in losses}
        for name, losses in choices.losses.items()
    }
    least, whole = (sum(pick(part.values()) for part in costs.values()) for pick in (min, max))
    if least > keep * whole:
        raise InvalidParameter(
            f"keep >= {least / whole:.3g} must hold, which is the least that these structures can keep, but got "
            f"keep={keep}; give more, or allow more structures"
        )
    menu = _menu(costs, choices.losses)
    return menu.configs(minimise_loss(menu.options, keep * whole))


def _within_time(model: nn.Module, choices: _Choices, times: "_Times", speedup: float) -> ChosenConfigs:
    costs = {name: {config: -times.saved(name, config) for config in losses} for name, losses in choices.losses.items()}
    menu = _menu(costs, choices.losses)

    def timed(chosen: Mapping[str, int]) -> float:
        compressed = _with_configs(copy_sharing_parameters(model), choices.parts, menu.configs(chosen))
        before, after = times.timer.time([times.run, times.timer.opened(compressed)]).T
        return speedup_of(before, after)

    return menu.configs(at_budget(menu.options, speedup=speedup, whole=times.whole, fixed=times.whole, timed=timed))


@dataclass(frozen=True)
class _Times:
    """The time of the whole model, and the time that configurations of its parts save, in seconds."""

    timer: RuntimeTimer
    run: Run
    """The whole model, ready to run."""
    whole: float
    """Seconds of the whole model."""
    parts: Mapping[str, BlockPart]
    shares: Mapping[str, float]
    """The time of each part as a fraction of the time of a part that sees all tokens."""
    probes: Mapping[tuple[object, ...], Mapping[PartConfig, float]]
    """By kind of part: the seconds that its probes save in a part that sees all tokens."""

    def saved(self, name: str, config: PartConfig) -> float:
        """Return the seconds that a configuration of a part saves."""
        part = self.parts[name]
        return self.shares[name] * part.saved(config, self.probes[part.kind])


def _times(model: nn.Module, parts: Mapping[str, BlockPart], timer: RuntimeTimer, structures: Sequence[str]) -> _Times:
    """Return the times, measured on models in which all parts of one kind have the same configuration."""
    length = float(np.mean([batch["input_ids"].shape[1] for batch in timer.batches.batches]))
    first_alone = first_token_layers(model)
    shares = {name: part.share(first_alone, length) for name, part in parts.items()}
    kinds: dict[tuple[object, ...], list[str]] = {}
    for name, part in parts.items():
        kinds.setdefault(part.kind, []).append(name)
    probes = [(kind, config) for kind, names in kinds.items() for config in parts[names[0]].probes(structures)]
    whole = timer.opened(copy_sharing_parameters(model))  # the copy stays whole when the caller changes the model
    compressed = [
        timer.opened(_with_configs(copy_sharing_parameters(model), parts, dict.fromkeys(kinds[kind], config)))
        for kind, config in track(probes, "preparing to time")
    ]
    dense, *seconds = map(float, np.median(timer.time([whole, *compressed]), axis=0))
    saved: dict[tuple[object, ...], dict[PartConfig, float]] = {kind: {} for kind in kinds}
    for (kind, config), seconds_taken in zip(probes, seconds, strict=True):
        # a probe that noise makes slower than the dense model saves nothing
        saved[kind][config] = max(0.0, dense - seconds_taken) / sum(shares[name] for name in kinds[kind])
    return _Times(timer, whole, dense, parts, shares, saved)


@dataclass(frozen=True)
class _Menu:
    """The configurations of every part in order of rising cost, with their costs and losses."""

    order: Mapping[str, Sequence[PartConfig]]
    options: Mapping[str, LayerOptions]

    def configs(self, chosen: Mapping[str, int]) -> ChosenConfigs:
        return {name: config for name, i in chosen.items() if (config := self.order[name][i]) != DENSE}


def _menu(costs: Mapping[str, Mapping[PartConfig, float]], losses: Mapping[str, Mapping[PartConfig, float]]) -> _Menu:
    order, options = {}, {}
    for name, part_costs in costs.items():
        # at equal cost the least loss comes first; the sort is stable, so that at equal loss DENSE comes first
        configs = sorted(part_costs, key=lambda config: (part_costs[config], losses[name][config]))
        order[name] = configs
        options[name] = LayerOptions(
            np.array([part_costs[config] for config in configs]),
            np.array([losses[name][config] for config in configs]),
        )
    return _Menu(order, options)

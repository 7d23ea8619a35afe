"""The base of structured pruning methods, which remove whole features: neurons, or all features of a head.

Calibration gives, for each layer that reads features, the order in which to remove them and the loss at each number of
remaining features, after those compensate for the removed ones (see `numerics.optimal_brain_surgeon`). One budget of
parameters is shared by these losses, or uniformly. The layers that compute the removed features lose their rows; the
layer that reads the features is fitted again, and its bias corrects their mean.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.errors import InvalidParameter
from whet.evaluation.timing import representative_batches
from whet.methods._budget import Budgeted, Ranks, at_speed
from whet.methods.pruning._parts import ReadFeatures
from whet.models.architecture import dense_weight
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.allocation import LayerOptions, allocate
from whet.numerics.moments import Moments, Side
from whet.utils.progress import track

__all__ = ["FeatureGroup", "FeatureLocation", "StructuredPruning"]


class FeatureLocation(Protocol):
    """The layers around some features, by module name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the layers whose rows compute the features."""

    @property
    def output(self) -> str:
        """Name of the layer whose columns read the features."""

    @property
    def width(self) -> int:
        """Number of features that are removed together."""


class FeatureGroup(NamedTuple):
    """The features between some layers, with their calibration statistics."""

    location: FeatureLocation
    """The layers around the features."""
    reader: ReadFeatures
    """The layer that reads the features, with their statistics."""

    @property
    def groups(self) -> int:
        """Number of groups of features, each removed as a whole."""
        return len(self.reader.removal.order)

    def options(self, model: nn.Module, grid: Sequence[int]) -> LayerOptions:
        """Return the parameters and losses at the numbers of groups in `grid`, which ends with all groups."""
        out = len(self.reader.weight)
        inputs = sum(dense_weight(model.get_submodule(name)).numel() for name in self.location.inputs)
        per_group = out * self.location.width + inputs / self.groups
        # correcting the mean adds a bias to a layer that has none
        added_bias = 0 if self.reader.bias is not None else out
        costs = [count * per_group + (added_bias if count < self.groups else 0) for count in grid]
        return LayerOptions(np.asarray(costs, dtype=float), self.reader.removal.losses[list(grid)].cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class StructuredPruning(Budgeted):
    """A method that removes features; a subclass finds them and removes them from the layers."""

    allocation: Literal["uniform", "by_loss"] = "by_loss"
    """How to share the budget: uniform keeps the same fraction in every block, by_loss minimises the summed loss."""
    include: str = "*"
    """Wildcard over the names of the layers that read the features; features of other layers all stay."""

    @abstractmethod
    def locations(self, model: nn.Module, resources: Resources) -> Sequence[FeatureLocation]:
        """See `KeepsShare.locations`."""

    @abstractmethod
    def grid(self, groups: int) -> list[int]:
        """Return the numbers of groups, of `groups` in all, that may remain, rising; the last is `groups` itself."""

    @abstractmethod
    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """Remove all groups but those at the indices `kept`, in place."""

    @property
    def key(self) -> Self:
        """See `Budgeted.key`."""
        return replace(self, keep=1.0, speedup=None)

    def learn(self, model: nn.Module, resources: Resources) -> dict[str, FeatureGroup]:
        """See `Budgeted.learn`."""
        locations = self.locations(model, resources)
        return self.parts(model, locations, self.moments(model, locations, resources))

    def moments(
        self, model: nn.Module, locations: Sequence[FeatureLocation], resources: Resources
    ) -> dict[str, Moments]:
        """Return the moments on both sides of the layers that read the features, by layer name."""
        sides = {location.output: Side.BOTH for location in locations}
        batches = require_calibration(resources)
        return collect_moments(
            model, batches, list(sides), seed=resources.seed, temperature=self.temperature, sides=sides
        )

    def parts(
        self, model: nn.Module, locations: Sequence[FeatureLocation], moments: dict[str, Moments]
    ) -> dict[str, FeatureGroup]:
        """Return the feature groups, by the name of the layer that reads the features.

        It removes each entry of `moments` once used, to free its memory.
        """
        return {
            location.output: FeatureGroup(
                location,
                ReadFeatures.of(
                    model.get_submodule(location.output),
                    moments.pop(location.output),
                    width=location.width,
                    damping=self.damping,
                ),
            )
            for location in track(locations, "removing features")
        }

    def spend(self, model: nn.Module, known: Mapping[str, FeatureGroup], resources: Resources) -> nn.Module:
        """See `Budgeted.spend`; it removes features until the model meets the budget."""
        grids = {name: self.grid(part.groups) for name, part in known.items()}
        options = {name: part.options(model, grids[name]) for name, part in known.items()}

        def choose(keep: float) -> Ranks:
            chosen = allocate(options, keep, spread=self.allocation == "by_loss")
            return {
                name: None if grids[name][i] == known[name].groups else grids[name][i] for name, i in chosen.items()
            }

        def build(counts: Ranks) -> nn.Module:
            return self._shrunk(copy_sharing_parameters(model), known, counts)

        if self.keep is not None:
            _require_reachable(self.keep, options)
            return self._shrunk(model, known, choose(self.keep))
        assert self.speedup is not None
        batches = representative_batches(require_calibration(resources))
        return self._shrunk(model, known, at_speed(model, choose, batches, speedup=self.speedup, build=build))

    def _shrunk(self, model: nn.Module, parts: Mapping[str, FeatureGroup], counts: Ranks) -> nn.Module:
        for name, count in counts.items():
            if count is not None:
                self.shrink(model, parts[name], parts[name].reader.removal.kept(count))
        return model


def _require_reachable(keep: float, options: Mapping[str, LayerOptions]) -> None:
    least, whole = (sum(float(part.costs[i]) for part in options.values()) for i in (0, -1))
    if least > keep * whole:
        raise InvalidParameter(
            f"keep >= {least / whole:.3g} must hold, the fraction of the smallest blocks, but got keep={keep}; "
            "give more"
        )

"""What methods share that take whole features out of a model: neurons, or the features of a head.

Of a layer that reads them, calibration says in which order they go and what each number of them costs once those that
stay make up for the others (see `removal`). One budget of parameters is shared out by these losses, or evenly; what
reads the features is fitted anew, and its bias makes up for their mean. What gave them loses its rows.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from torch import Tensor, nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.errors import InvalidParameter
from whet.evaluation.timing import representative_batches
from whet.methods._budget import Budgeted, Ranks, at_speed
from whet.methods.pruning._parts import ReadFeatures
from whet.models.architecture import dense_weight
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.allocation import Options, shared_out
from whet.numerics.moments import Moments, Side
from whet.utils.progress import track

__all__ = ["FeatureGroup", "FeatureLocation", "StructuredPruning"]


class FeatureLocation(Protocol):
    """The layers around some features, by module names."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Those whose rows give them."""

    @property
    def output(self) -> str:
        """The one whose columns read them."""

    @property
    def width(self) -> int:
        """How many features go together."""


class FeatureGroup(NamedTuple):
    """One place and what calibration says of its features."""

    place: FeatureLocation
    reader: ReadFeatures

    @property
    def groups(self) -> int:
        """How many groups of features there are."""
        return len(self.reader.removal.order)

    def options(self, model: nn.Module, grid: Sequence[int]) -> Options:
        """Return the parameters and losses of some numbers of groups, of which the last is all."""
        out = len(self.reader.weight)
        each = out + sum(dense_weight(model.get_submodule(name)).shape[1] for name in self.place.inputs)
        # a layer without bias gains one, where the mean is made up for
        gained = 0 if self.reader.bias is not None else out
        costs = [count * self.place.width * each + (gained if count < self.groups else 0) for count in grid]
        return Options(np.asarray(costs, dtype=float), self.reader.removal.losses[list(grid)].cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class StructuredPruning(Budgeted):
    """A method that takes features out; a subclass says where they are and how layers lose them."""

    allocation: Literal["uniform", "by_loss"] = "by_loss"
    """Whether every block keeps the same share, or what gives the least summed loss."""
    include: str = "*"
    """Wildcard over module names, of what reads the features; other parts stay as they are."""

    @abstractmethod
    def places(self, model: nn.Module, resources: Resources) -> Sequence[FeatureLocation]:
        """Return where features can go."""

    @abstractmethod
    def grid(self, groups: int) -> list[int]:
        """Return how many of so many groups may stay, rising; the last is all of them."""

    @abstractmethod
    def shrink(self, model: nn.Module, part: FeatureGroup, kept: Tensor) -> None:
        """Leave only these groups of a part, in place."""

    @property
    def key(self) -> Self:
        """See `Budgeted.key`."""
        return replace(self, keep=1.0, speedup=None)

    def learn(self, model: nn.Module, resources: Resources) -> dict[str, FeatureGroup]:
        """See `Budgeted.learn`."""
        places = self.places(model, resources)
        return self.parts(model, places, self.moments(model, places, resources))

    def moments(self, model: nn.Module, places: Sequence[FeatureLocation], resources: Resources) -> dict[str, Moments]:
        """Return what calibration says, by the name of what reads the features."""
        sides = {place.output: Side.BOTH for place in places}
        batches = calibrated(resources)
        return collect(model, batches, list(sides), seed=resources.seed, temperature=self.temperature, sides=sides)

    def parts(
        self, model: nn.Module, places: Sequence[FeatureLocation], moments: dict[str, Moments]
    ) -> dict[str, FeatureGroup]:
        """Return in which order features go and what that costs; empties `moments`, which are large, as it goes."""
        return {
            place.output: FeatureGroup(
                place,
                ReadFeatures.of(
                    model.get_submodule(place.output),
                    moments.pop(place.output),
                    width=place.width,
                    damping=self.damping,
                ),
            )
            for place in track(places, "removing features")
        }

    def spend(self, model: nn.Module, known: Mapping[str, FeatureGroup], resources: Resources) -> nn.Module:
        """See `Budgeted.spend`: as many features go as the budget says."""
        grids = {name: self.grid(part.groups) for name, part in known.items()}
        options = {name: part.options(model, grids[name]) for name, part in known.items()}

        def choose(keep: float) -> Ranks:
            chosen = shared_out(options, keep, spread=self.allocation == "by_loss")
            return {
                name: None if grids[name][i] == known[name].groups else grids[name][i] for name, i in chosen.items()
            }

        def build(counts: Ranks) -> nn.Module:
            return self._shrunk(copy_sharing_parameters(model), known, counts)

        if self.keep is not None:
            _require(self.keep, options)
            return self._shrunk(model, known, choose(self.keep))
        assert self.speedup is not None
        batches = representative_batches(calibrated(resources))
        return self._shrunk(model, known, at_speed(model, choose, batches, speedup=self.speedup, build=build))

    def _shrunk(self, model: nn.Module, parts: Mapping[str, FeatureGroup], counts: Ranks) -> nn.Module:
        for name, count in counts.items():
            if count is not None:
                self.shrink(model, parts[name], parts[name].reader.removal.kept(count))
        return model


def _require(keep: float, options: Mapping[str, Options]) -> None:
    least, whole = (sum(float(one.costs[i]) for one in options.values()) for i in (0, -1))
    if least > keep * whole:
        raise InvalidParameter(
            f"keep >= {least / whole:.3g} must hold, of which the least that every block can keep takes all, but got "
            f"keep={keep}; give more"
        )

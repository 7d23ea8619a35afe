"""Methods that keep a fraction of the weights of the layers that they work on."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.methods.base import Method, Stage

__all__ = ["KeepsShare"]


@dataclass(frozen=True, kw_only=True)
class KeepsShare(Method):
    """A method that finds what it can compress and keeps a fraction of its weights; 1 leaves the model unchanged."""

    keep: float | None
    """Fraction of the weights to keep; each method says of which."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        locations = self.locations(model, resources)
        return model if self.keep == 1 else self.compress(model, locations, resources)

    @abstractmethod
    def locations(self, model: nn.Module, resources: Resources) -> Any:
        """Return what the method can compress in the model, such as the names of layers.

        Raises:
            NothingToCompress: there is nothing, or nothing matches `include`.
        """

    @abstractmethod
    def compress(self, model: nn.Module, locations: Any, resources: Resources) -> nn.Module:
        """Return the compressed model; `model` must not be used again.

        Args:
            model: as in `apply`.
            locations: what `locations` returned.
            resources: as in `apply`.
        """

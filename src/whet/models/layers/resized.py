"""A linear layer whose shape differs from the one in the model's configuration."""

from torch import Tensor

from whet.models.layers.base import WrapsLinear

__all__ = ["Resized"]


class Resized(WrapsLinear):
    """Replaces a linear layer by one with fewer inputs or outputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        out: Tensor = self.linear(inputs)
        return out

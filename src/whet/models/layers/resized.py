"""A linear layer of another shape than the model's configuration says."""

from torch import Tensor

from whet.models.layers.base import WrapsLinear

__all__ = ["Resized"]


class Resized(WrapsLinear):
    """Has fewer inputs or outputs than the layer whose place it takes."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) from (..., in)."""
        out: Tensor = self.linear(inputs)
        return out

"""What methods that change encoders' attention share: their parameters, and one pass over calibration data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from torch import nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.methods.base import Method, Stage
from whet.numerics.moments import Moments, Side

__all__ = ["AttentionMethod"]


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Method):
    """A method that gives every attention of an encoder another structure."""

    keep: Annotated[float, Interval(gt=0, le=1)]
    """Share of the linear parameters that is kept of those that the method changes."""
    allocation: Literal["uniform", "by_loss"] = "by_loss"
    """Whether every attention keeps the same share, or what gives the least summed loss."""
    metric: Literal["kl", "outputs"] = "kl"
    """What is minimised: what the error costs in KL, or the error of the outputs itself."""
    include: str = "*"
    """Wildcard over module names; attentions that it does not match stay as they are."""
    temperature: Annotated[float, Interval(gt=0, lt=math.inf)] = 3.0
    """Softens the predictions that gradients start from; see kfac."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}

    def moments(self, model: nn.Module, resources: Resources, sides: Mapping[str, Side]) -> dict[str, Moments]:
        """Return the moments of these layers; one pass over the data, with `metric` kl a backward one too."""
        seed = resources.seed if self.metric == "kl" else None
        return collect(model, calibrated(resources), list(sides), seed=seed, temperature=self.temperature, sides=sides)

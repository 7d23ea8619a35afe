"""The distributions that rows of logits stand for: each gives the divergence of two rows and all that follows from it.

The noise of a distribution has the covariance that is the curvature of its KL in the logits, so that gradients of noise
measure how far a change moves predictions.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, logsigmoid, mse_loss

from whet.numerics.divergence import bernoulli_kl, categorical_kl, gaussian_kl
from whet.tasks.kinds.base import TaskKind

__all__ = ["Bernoulli", "Categorical", "Gaussian"]

Array = np.ndarray[Any, Any]


class Categorical(TaskKind):
    """A row holds the logits of one class among several."""

    def divergence(self, baseline: Array, model: Array) -> Array:
        """See `TaskKind.divergence`."""
        return categorical_kl(baseline, model)

    def decisions(self, logits: Array) -> Array:
        """See `TaskKind.decisions`; the class of the largest logit."""
        decided: Array = logits.argmax(-1)
        return decided

    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """See `TaskKind.noise`; its covariance is diag(p) − p pᵀ."""
        p = logits.detach().softmax(-1)
        noise = p.sqrt() * signs
        return noise - p * noise.sum(-1, keepdim=True)

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`."""
        return logits / temperature

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the cross-entropy."""
        return cross_entropy(logits, labels)

    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """See `TaskKind.distillation_loss`."""
        p, q = (self.softened(logits, temperature).log_softmax(-1) for logits in (teacher, student))
        return kl_div(q, p, log_target=True, reduction="batchmean") * temperature**2


class Bernoulli(TaskKind):
    """Each logit of a row says how likely one label is, whatever the others say; the KL of a row is their sum."""

    def divergence(self, baseline: Array, model: Array) -> Array:
        """See `TaskKind.divergence`."""
        return bernoulli_kl(baseline, model)

    def decisions(self, logits: Array) -> Array:
        """See `TaskKind.decisions`; the labels whose probability is above .5."""
        decided: Array = logits > 0
        return decided

    def guesses(self, logits: Array) -> list[tuple[float, ...]]:
        """See `TaskKind.guesses`."""
        return [tuple(map(float, row)) for row in self.decisions(logits)]

    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """See `TaskKind.noise`; its covariance is diag(p (1 − p))."""
        p = logits.detach().sigmoid()
        return (p * (1 - p)).sqrt() * signs

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`."""
        return logits / temperature

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the binary cross-entropy, a mean over labels."""
        return binary_cross_entropy_with_logits(logits, labels.to(logits))

    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """See `TaskKind.distillation_loss`; summed over labels."""
        own, wanted = student / temperature, teacher / temperature
        p = wanted.sigmoid()
        gains = p * (logsigmoid(wanted) - logsigmoid(own)) + (1 - p) * (logsigmoid(-wanted) - logsigmoid(-own))
        return gains.sum(-1).mean() * temperature**2


class Gaussian(TaskKind):
    """A row is the mean of a normal distribution of unit variance; KL is half the squared distance of two rows."""

    def divergence(self, baseline: Array, model: Array) -> Array:
        """See `TaskKind.divergence`."""
        return gaussian_kl(baseline, model)

    def decisions(self, logits: Array) -> None:
        """See `TaskKind.decisions`; numbers decide nothing."""
        return

    def noise(self, logits: Tensor, signs: Tensor) -> Tensor:
        """See `TaskKind.noise`; the curvature is 1 everywhere."""
        return signs

    def softened(self, logits: Tensor, temperature: float) -> Tensor:
        """See `TaskKind.softened`; a number has no temperature."""
        return logits

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """See `TaskKind.loss`; the mean squared error."""
        return mse_loss(logits.squeeze(-1), labels.to(logits))

    def distillation_loss(self, student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
        """See `TaskKind.distillation_loss`; half the squared distance, without temperature."""
        return (student - teacher).square().sum(-1).mean() / 2

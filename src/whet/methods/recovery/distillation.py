"""Recovery by distillation: the compressed model is trained to answer as the original does, and to think as it does.

Minimises KL(original ‖ compressed) of the predictions, plus the error of the hidden states after every block, on the
task's training text; labels are not read, so that nothing new is learnt and nothing but the compression is mended.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, for
retraining after low rank; Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv
1909.10351, for the two losses.
Differs: DRONE retrains at a learning rate of 1e-7, for one epoch of a tenth of the data, which changes next to nothing;
the recipe `drone_retrain` has those numbers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.methods._recovery import Recovery

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation(Recovery):
    """Train all weights to give the original's predictions and hidden states."""

    example: ClassVar[dict[str, Any]] = {"epochs": 1}
    mildest: ClassVar[dict[str, Any]] = {"epochs": 1, "learning_rate": 1e-9}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; every step runs both models forward and one of them back."""
        self.train(model, resources)
        return model

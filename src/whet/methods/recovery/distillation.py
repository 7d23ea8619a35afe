"""Recovery by distillation: the compressed model is trained on the baseline's predictions and hidden states.

It minimises KL(baseline ‖ compressed) of the predictions, plus the error of the hidden states after every block, on the
task's training text. Labels are not read, so that training only repairs the compression and learns nothing new.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, for
retraining after low rank; Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv
1909.10351, for the two losses.
Differs: DRONE retrains for one epoch of a tenth of the data at a learning rate of 1e-7, which changes almost nothing;
the recipe `drone_retrain` has these values.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.methods._recovery import Recovery

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation(Recovery):
    """Distil the baseline into the compressed model, training all weights."""

    example: ClassVar[dict[str, Any]] = {"epochs": 1}
    mildest: ClassVar[dict[str, Any]] = {"epochs": 1, "learning_rate": 1e-9}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; each step runs both models forward and the compressed one backward."""
        self.train(model, resources)
        return model

"""Recovery by distillation: the compressed model is trained to answer as the original does, and to think as it does.

Minimises KL(original ‖ compressed) of the predictions, plus the error of the hidden states after every block, on the
task's training text; labels are not read, so that nothing new is learnt and nothing but the compression is mended.

Source: Chen, Yu, Dhillon, Hsieh, "DRONE: Data-aware Low-rank Compression for Large NLP Models", NeurIPS 2021, for
retraining after low rank; Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding", 2020, arXiv
1909.10351, for the two losses.
Differs: DRONE retrains at a learning rate of 1e-7, for one epoch of a tenth of the data, which changes next to nothing;
the recipe `drone_retrain` has those numbers.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from whet.errors import MissingResource
from whet.method import Method, Stage
from whet.parameter import Range
from whet.resources import Resources
from whet.training import distil

__all__ = ["Distillation"]


@dataclass(frozen=True, kw_only=True)
class Distillation(Method):
    """Train all weights to give the original's predictions and hidden states."""

    epochs: Annotated[float, Range(above=0, below=math.inf)] = 3
    """Passes over the text."""
    learning_rate: Annotated[float, Range(above=0, below=math.inf)] = 5e-5
    """Peak of AdamW's learning rate; it falls linearly to zero."""
    share: Annotated[float, Range(above=0, most=1)] = 1.0
    """Share of the training data that is used."""
    temperature: Annotated[float, Range(above=0, below=math.inf)] = 1.0
    """Divides both models' logits."""
    hidden_states: Annotated[float, Range(least=0, below=math.inf)] = 1.0
    """Weight of the hidden states' error, against 1 for that of the predictions; 0 leaves them out."""

    stage: ClassVar[Stage] = Stage.TRAINING
    needs: ClassVar[frozenset[str]] = frozenset({"train", "teacher"})
    example: ClassVar[dict[str, Any]] = {"epochs": 1}
    mildest: ClassVar[dict[str, Any]] = {"epochs": 1, "learning_rate": 1e-9}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`; every step runs both models forward and one of them back."""
        if resources.train is None or resources.teacher is None:
            raise MissingResource("training data and a teacher must be given, but got none; give --task")
        distil(
            model,
            resources.teacher,
            resources.train.share(self.share, seed=resources.seed),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            hidden_states=self.hidden_states,
            seed=resources.seed,
        )
        return model

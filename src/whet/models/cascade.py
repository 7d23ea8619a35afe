"""A cascade as one model: rows of which a fast model is not sure go through the next one.

transformers loads and saves it like any other. An export holds the other models in branches that run only where a row
needs them, so that a batch of easy texts costs what the fast model costs.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from whet.errors import InvalidParameter
from whet.models.config_checks import MULTI_LABEL
from whet.models.configs import CascadeConfig, CascadeScore
from whet.tasks.kinds.base import Answers

__all__ = ["SCORES", "CascadeForSequenceClassification", "confidence", "confidences"]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def confidence(logits: Tensor, problem_type: str | None, score: CascadeScore = "probability") -> Tensor:
    """Return how sure a classifier is of its answers, (examples,), from 0 to 1.

    Args:
        logits: (examples, outputs).
        problem_type: as in the model's configuration. Of several labels, the least sure one counts.
        score: what says it; see `SCORES`.
    """
    if problem_type == MULTI_LABEL:
        given = logits.sigmoid()
        return SCORES[score](torch.stack([given, 1 - given], -1)).amin(-1)
    return SCORES[score](logits.softmax(-1))


def _highest(probabilities: Tensor) -> Tensor:
    return probabilities.amax(-1)


def _margin(probabilities: Tensor) -> Tensor:
    highest = probabilities.topk(2, -1).values
    return highest[..., 0] - highest[..., 1]


def _order(probabilities: Tensor) -> Tensor:
    entropy = -(probabilities * probabilities.clamp_min(1e-12).log()).sum(-1)
    return 1 - entropy / math.log(probabilities.shape[-1])


SCORES: Mapping[CascadeScore, Callable[[Tensor], Tensor]] = {
    "probability": _highest,
    "margin": _margin,
    "entropy": _order,
}
"""What says how sure a model is, from the probabilities of the answers, (..., answers): the highest one, the highest
less the next, or 1 less the entropy as a share of the most that it can be."""


def confidences(answers: Answers, score: CascadeScore = "probability") -> np.ndarray[Any, Any]:
    """Return how sure a classifier was of its answers, (examples,); see `confidence`."""
    logits, problem_type = torch.from_numpy(answers.logits), answers.kind.problem_type
    sure: np.ndarray[Any, Any] = confidence(logits, problem_type, score).numpy()
    return sure


class CascadeForSequenceClassification(PreTrainedModel):
    """Classifiers with equal outputs and tokens, the fastest first."""

    config_class = CascadeConfig
    main_input_name = "input_ids"
    is_cascade = True
    """Methods refuse it; see `whet.models.architecture`."""

    def __init__(self, config: CascadeConfig) -> None:
        stages, thresholds = config.stages or [], config.thresholds or []
        if len(stages) < 2 or len(thresholds) != len(stages) - 1:
            raise InvalidParameter(
                "a cascade must have two or more models and a threshold for each but the last, but got "
                f"{len(stages)} and {len(thresholds)}; correct its config.json"
            )
        if config.score not in SCORES:
            raise InvalidParameter(
                f"a cascade's score must be {', '.join(SCORES)}, but got {config.score!r:.40}; correct its config.json"
            )
        super().__init__(config)
        self.stages = nn.ModuleList(
            AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**entry)) for entry in stages
        )
        self.post_init()

    @classmethod
    def of(
        cls,
        models: Sequence[PreTrainedModel],
        thresholds: Sequence[float],
        *,
        score: CascadeScore = "probability",
        longest: int | None,
        shown: Mapping[str, float],
    ) -> "CascadeForSequenceClassification":
        """Return a cascade of models, whose weights it shares.

        Args:
            models: in eval mode, the fastest first.
            thresholds: of all but the last.
            score: what they are thresholds of.
            longest: most tokens that all of them read; None if nothing limits them.
            shown: what held-out data showed of the thresholds.
        """
        last: Any = models[-1].config
        limit = {} if longest is None else {"max_position_embeddings": longest}
        config = CascadeConfig(
            stages=[_entry(model.config) for model in models],
            thresholds=list(thresholds),
            score=score,
            shown=dict(shown),
            id2label=last.id2label,
            label2id=last.label2id,
            problem_type=last.problem_type,
            pad_token_id=last.pad_token_id,
            vocab_size=last.vocab_size,
            **limit,
        )
        with torch.device("meta"):
            cascade = cls(config)
        cascade.stages = nn.ModuleList(models)
        cascade.name_or_path = models[-1].name_or_path
        cascade.eval()
        return cascade

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of the first model."""
        first: Any = self.stages[0]
        table: nn.Module = first.get_input_embeddings()
        return table

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: object,
    ) -> SequenceClassifierOutput:
        """Return the logits of the first model that is sure of a row, (batch, outputs).

        Args:
            input_ids: (batch, length) int64.
            attention_mask: (batch, length), 0 at padding; None without padding.
            token_type_ids: (batch, length), for the models that read it.
        """
        given = dict(zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        inputs = {name: value for name, value in given.items() if value is not None}
        logits = _logits(self.stages[0], inputs)
        unsure = torch.ones_like(logits[:, 0], dtype=torch.bool)
        for stage, threshold in zip(list(self.stages)[1:], self.config.thresholds, strict=True):
            unsure = unsure & (confidence(logits, self.config.problem_type, self.config.score) < threshold)
            logits = _passed_on(stage, logits, unsure, inputs)
        return SequenceClassifierOutput(logits=logits)


def _passed_on(stage: nn.Module, logits: Tensor, unsure: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the logits with those of another model in the rows that are not sure."""

    def run(logits: Tensor, unsure: Tensor, *values: Tensor) -> Tensor:
        rows = unsure.nonzero()[:, 0]
        found = _logits(stage, {name: value[rows] for name, value in zip(inputs, values, strict=True)})
        return torch.index_put(logits, (rows,), found.to(logits.dtype))

    def leave(logits: Tensor, unsure: Tensor, *values: Tensor) -> Tensor:
        return logits.clone()

    operands = (logits, unsure, *inputs.values())
    if torch.compiler.is_exporting():
        chosen: Tensor = torch.cond(unsure.any(), run, leave, operands)
        return chosen
    return run(*operands) if bool(unsure.any()) else logits


def _logits(stage: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    names = inspect.signature(stage.forward).parameters
    logits: Tensor = stage(**{name: value for name, value in inputs.items() if name in names}).logits
    return logits


def _entry(config: Any) -> dict[str, Any]:
    """The configuration of a model as the cascade keeps it; the structure of compressed layers is the cascade's."""
    entry: dict[str, Any] = config.to_dict()
    return {name: value for name, value in entry.items() if name not in ("quantization_config", "transformers_version")}


AutoModelForSequenceClassification.register(CascadeConfig, CascadeForSequenceClassification)

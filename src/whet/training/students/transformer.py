"""A Transformer of the teacher's own kind with other sizes and random weights, or a pretrained smaller one.

Turc et al. found that small models which were pretrained first are distilled best; where there is none, or for
comparison, sizes alone make one. Either must read the teacher's tokens, since the tokenizer comes from the teacher.

Source: Turc, Chang, Lee, Toutanova, "Well-Read Students Learn Better: On the Importance of Pre-training Compact
Models", 2019, arXiv 1908.08962.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from annotated_types import Interval
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.models.architecture import word_vectors
from whet.models.load import load_tokenizer, new_head
from whet.training.students._narrowing import resized
from whet.training.students.base import BuiltStudent, Student

__all__ = ["Transformer"]

SIZES = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
"""Sizes that texts may give, and what configurations call them."""


@dataclass(frozen=True, kw_only=True)
class Transformer(Student):
    """Read with a smaller Transformer."""

    base: str | None = None
    """Folder or hub name of a pretrained one."""
    config: str | None = None
    """File of a configuration, of any kind, for random weights; classes and tokens are the teacher's."""
    layers: Annotated[int | None, Interval(ge=1)] = None
    """Blocks; as many as the teacher's, if nothing is said."""
    width: Annotated[int | None, Interval(ge=1)] = None
    """Hidden size, of which the feed-forward parts have as many times as the teacher's."""
    heads: Annotated[int | None, Interval(ge=1)] = None
    """Of every attention; as wide as the teacher's, if nothing is said."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a size outside its range, or if more than one thing says what it is."""
        super().__post_init__()
        sizes = any(size is not None for size in (self.layers, self.width, self.heads))
        if (self.base is not None) + (self.config is not None) + sizes > 1:
            raise InvalidParameter(
                f"one of base, config and sizes must be given, but got base={self.base}, config={self.config}, "
                f"layers={self.layers}, width={self.width} and heads={self.heads}; leave some out"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the student of `layers=2,width=128`, of a file such as `config.json`, or of a folder or hub name."""
        if text.endswith(".json"):
            return cls(config=text)
        if "=" not in text:
            return cls(base=text)
        given = dict(part.partition("=")[::2] for part in text.split(","))
        if not given.keys() <= SIZES.keys() or not all(value.isdigit() for value in given.values()):
            raise InvalidParameter(
                f"transformer must be sizes out of {', '.join(SIZES)}, or a folder or hub name, but got {text!r}; "
                "such as layers=2,width=128"
            )
        return cls(**{key: int(value) for key, value in given.items()})  # type: ignore[arg-type]

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`; weights are drawn from the seed of the resources."""
        assert isinstance(teacher, PreTrainedModel)
        with torch.random.fork_rng():
            torch.manual_seed(resources.seed)
            student = self._sized(teacher) if self.base is None else _pretrained(self.base, teacher)
        student.name_or_path = teacher.name_or_path
        sizes = ", ".join(f"{key} {getattr(student.config, name, None)}" for key, name in SIZES.items())
        start = "random weights" if self.base is None else f"pretrained as {self.base}"
        return BuiltStudent(student.to(teacher.device).eval(), f"{type(student).__name__} with {sizes}, {start}")

    def _sized(self, teacher: PreTrainedModel) -> PreTrainedModel:
        if self.config is not None:
            own: PreTrainedModel = AutoModelForSequenceClassification.from_config(_configured(self.config, teacher))
            return own
        known: Any = teacher.config
        if not getattr(known, "num_attention_heads", None):
            raise InvalidModel(
                f"sizes must be those of a Transformer, but the teacher is a {type(teacher).__name__}; give a "
                "configuration, such as transformer:config.json"
            )
        width = self.width or known.hidden_size
        heads = self.heads or max(1, width * known.num_attention_heads // known.hidden_size)
        sizes = resized(known, layers=self.layers or known.num_hidden_layers, width=width, heads=heads)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(sizes)
        return model


def _configured(path: str, teacher: PreTrainedModel) -> PreTrainedConfig:
    """The configuration of a file, with the teacher's classes and tokens."""
    known: Any = teacher.config
    try:
        held = json.loads(Path(path).read_text(encoding="utf-8"))
        config: PreTrainedConfig = AutoConfig.for_model(**held)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidParameter(
            f"the student's configuration must be a file as transformers writes config.json, but got {path}: {error}; "
            "correct it"
        ) from error
    words = len(word_vectors(teacher))
    shared = ("id2label", "label2id", "problem_type", "pad_token_id")
    config.update({"vocab_size": words, **{name: getattr(known, name) for name in shared}})
    return config


def _pretrained(base: str, teacher: PreTrainedModel) -> PreTrainedModel:
    tokenizers = [load_tokenizer(source) for source in (base, teacher.name_or_path)]
    if tokenizers[0].get_vocab() != tokenizers[1].get_vocab():
        raise InvalidModel(
            f"the student must read the teacher's tokens, but {base} has a vocabulary of its own; give sizes instead, "
            "such as transformer:layers=2,width=128, or a base with the teacher's tokenizer"
        )
    names = None if teacher.config.num_labels == 1 else list(teacher.config.id2label.values())
    return new_head(base, names, tokenizers[1])

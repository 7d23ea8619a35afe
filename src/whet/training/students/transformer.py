"""A smaller Transformer student: a pretrained one, or one of the teacher's kind with other sizes and random weights.

Turc et al. found that small models which were pretrained first distil best. Sizes alone make a student with random
weights, for comparison or if there is no pretrained model. The student uses the teacher's tokenizer, so that a
pretrained model must have the teacher's vocabulary.

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
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.models.checkpoint import KIND
from whet.models.embeddings import word_vectors
from whet.models.inference import kind_of_model, new_model
from whet.models.lineage import public_name
from whet.models.load import load_tokenizer, load_with_new_head
from whet.models.resizing import resized_config
from whet.tasks.sentences import SENTENCES
from whet.training.students.base import BuiltStudent, Student, require_runs, require_size
from whet.utils.inputs import one_line, read_text
from whet.utils.parameters import require, shown, whole_number_in

__all__ = ["Transformer"]

SIZES = {"layers": "num_hidden_layers", "width": "hidden_size", "heads": "num_attention_heads"}
"""For each size of the command line, its name in configurations."""


@dataclass(frozen=True, kw_only=True)
class Transformer(Student):
    """Classify with a smaller Transformer."""

    base: str | None = None
    """Folder or hub name of a pretrained model."""
    config: str | None = None
    """File with the configuration of a model of any kind, which gets random weights; its classes and vocabulary are
    those of the teacher."""
    layers: Annotated[int | None, Interval(ge=1, le=1000)] = None
    """Number of blocks, e.g. 2; the teacher's number if not given."""
    width: Annotated[int | None, Interval(ge=1, le=65_536)] = None
    """Hidden size, e.g. 128; the feed-forward width scales with it. The teacher's size if not given."""
    heads: Annotated[int | None, Interval(ge=1, le=65_536)] = None
    """Number of attention heads, e.g. 2; if not given, heads are as wide as the teacher's."""

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a size is outside its range, or more than one of base, config and sizes is given.
        """
        super().__post_init__()
        sizes = any(size is not None for size in (self.layers, self.width, self.heads))
        if (self.base is not None) + (self.config is not None) + sizes > 1:
            raise InvalidParameter(
                f"one of base, config and sizes must be given, but got base={self.base}, config={self.config}, "
                f"layers={self.layers}, width={self.width} and heads={self.heads}; leave some out"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """See `Student.from_text`: `layers=2,width=128`, a file such as `config.json`, or a folder or hub name."""
        if text.endswith(".json"):
            return cls(config=text)
        if "=" not in text:
            return cls(base=text)
        pairs = [part.partition("=")[::2] for part in text.split(",")]
        sizes = {key: number for key, value in pairs if (number := whole_number_in(value)) is not None}
        if not sizes.keys() <= SIZES.keys() or len(sizes) < len(pairs):
            raise InvalidParameter(
                f"transformer must be sizes out of {', '.join(SIZES)}, each once, or a folder or hub name, "
                f"but got {shown(text)}; give sizes such as layers=2,width=128"
            )
        return cls(**sizes)  # type: ignore[arg-type]

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`; weights are drawn with the seed of the resources."""
        assert isinstance(teacher, PreTrainedModel)
        with torch.random.fork_rng():
            torch.manual_seed(resources.seed)
            student = self._sized(teacher) if self.base is None else _pretrained(self.base, teacher)
        student.name_or_path = teacher.name_or_path
        sizes = ", ".join(f"{key} {getattr(student.config, name, None)}" for key, name in SIZES.items())
        start = "random weights" if self.base is None else f"pretrained as {self.base}"
        plan = f"{type(student).__name__} with {sizes}, {start}"
        known = [f"{key} {size}" for key, name in SIZES.items() if (size := getattr(student.config, name, None))]
        start = start if self.base is None else f"pretrained as {public_name(self.base)}"
        title = f"{student.config.model_type} student ({', '.join([*known, start])})"
        return BuiltStudent(student.to(teacher.device).eval(), plan, title)

    def _sized(self, teacher: PreTrainedModel) -> PreTrainedModel:
        config = self._config(teacher)

        def make() -> PreTrainedModel:
            model: PreTrainedModel = new_model(teacher, config)
            return model

        require_size(make, teacher)
        student = make().eval()
        require_runs(student)
        return student

    def _config(self, teacher: PreTrainedModel) -> PreTrainedConfig:
        if self.config is not None:
            return _config_from_file(self.config, teacher)
        teacher_config: Any = teacher.config
        if not getattr(teacher_config, "num_attention_heads", None):
            raise InvalidModel(
                f"sizes must be those of a Transformer, but the teacher is a {type(teacher).__name__}; give a "
                "configuration, such as transformer:config.json"
            )
        width = self.width or teacher_config.hidden_size
        heads = self.heads or max(1, width * teacher_config.num_attention_heads // teacher_config.hidden_size)
        return resized_config(
            teacher_config, layers=self.layers or teacher_config.num_hidden_layers, width=width, heads=heads
        )


def _config_from_file(path: str, teacher: PreTrainedModel) -> PreTrainedConfig:
    """Return the configuration in a file, with the teacher's classes and vocabulary."""
    teacher_config: Any = teacher.config
    try:
        entries = json.loads(read_text(Path(path), what="the student's configuration", error=InvalidParameter))
        config: PreTrainedConfig = AutoConfig.for_model(**entries)
        for name, size in {name: getattr(config, name, None) for name in SIZES.values()}.items():
            require(size, Annotated[int, Interval(ge=1, le=65_536)] | None, name=name)
    except InvalidParameter:
        raise
    except Exception as error:  # whatever transformers raises for values that it does not expect
        raise InvalidParameter(
            f"the student's configuration must be a file as transformers writes config.json, but got {path}: "
            f"{one_line(error)}; correct it"
        ) from error
    words = len(word_vectors(teacher))
    shared = ("id2label", "label2id", "problem_type", "pad_token_id")
    config.update({"vocab_size": words, **{name: getattr(teacher_config, name) for name in shared}})
    config.update({name: value for name in (KIND, SENTENCES) if (value := getattr(teacher_config, name, None))})
    return config


def _pretrained(base: str, teacher: PreTrainedModel) -> PreTrainedModel:
    tokenizers = [load_tokenizer(source) for source in (base, teacher.name_or_path)]
    if tokenizers[0].get_vocab() != tokenizers[1].get_vocab():
        raise InvalidModel(
            f"the student must read the teacher's tokens, but {base} has a vocabulary of its own; give a base with the "
            "teacher's tokenizer, or sizes such as transformer:layers=2,width=128"
        )
    kind = kind_of_model(teacher)
    return load_with_new_head(base, kind, kind.label_names(teacher.config.id2label), tokenizers[1])

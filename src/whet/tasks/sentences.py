"""What makes vectors of a model's hidden states: the modules of sentence-transformers around a Transformer.

A model in memory carries this in its configuration under one key, which is not saved: a folder says it in the files of
sentence-transformers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

__all__ = ["MODULES", "SENTENCES", "SETTINGS", "TRANSFORMER", "SentenceModules"]

MODULES = "modules.json"
"""The file that lists the modules of a model."""
SETTINGS = "config_sentence_transformers.json"
"""The file with its prompts."""
TRANSFORMER = "sentence_bert_config.json"
"""The file with its longest input."""

SENTENCES = "whet_sentences"
"""The key in the configuration of a model in memory."""


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """The modules after the Transformer, and what SentenceTransformer.encode does before it."""

    pooling: tuple[str, ...]
    """Names of poolings, whose vectors are joined; see `whet.numerics.pooling.POOLINGS`."""
    normalize: bool
    """Whether vectors have unit length."""
    max_length: int | None = None
    """Longest input in tokens, if the folder says one."""
    dimensions: int | None = None
    """How many leading dimensions of a vector are kept, of a model that was trained so; all if None."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What config_sentence_transformers.json says, such as prompts."""

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """Return what a model's configuration carries, or None if it is no model of sentence embeddings."""
        known = getattr(config, SENTENCES, None)
        if not isinstance(known, Mapping) or "pooling" not in known:  # cross-encoders have other values there
            return None
        return cls(**{**known, "pooling": tuple(known["pooling"])})

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a model's configuration."""
        return {**asdict(self), "pooling": list(self.pooling)}

    @property
    def prompts(self) -> dict[str, str]:
        """What may stand before a text, by what the text is for; empty ones are left out."""
        return {name: text for name, text in (self.settings.get("prompts") or {}).items() if text}

    @property
    def default_prompt(self) -> str:
        """What stands before every text that nothing else is said of."""
        return self.prompts.get(self.settings.get("default_prompt_name") or "", "")

"""What a folder or hub name holds, read from its JSON files before any weights: the one place that decides it.

The names in the configuration's `architectures` say which class the weights were saved from. The names of weights do
not: Qwen3's token classifier and its text classifier both call their head `score`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from whet.errors import InvalidModel
from whet.models.config_checks import MULTI_LABEL
from whet.models.folder import find_file, read_object
from whet.models.model_files import ModelFiles
from whet.models.sentence import read_modules
from whet.tasks.kinds.base import NO_HEAD, TEXT_HEAD, Head, TaskKind, all_kinds, kind_named, kinds_of_head
from whet.tasks.sentences import SETTINGS, SentenceModules

__all__ = ["KIND", "Checkpoint", "said_kind"]

_ENCODER_DECODERS = ("ForConditionalGeneration", "EncoderDecoderModel")
_CROSS_ENCODER = "CrossEncoder"
_OLD_CROSS_ENCODER = "sbert_ce_default_activation_function"
KIND = "whet_kind"
"""The key under which a configuration names its kind, where the class of the model does not tell."""


@dataclass(frozen=True)
class Checkpoint(ModelFiles):
    """What a folder or hub name holds, and what a model of it answers."""

    around: str | None = None
    """Where files of sentence-transformers lie, if elsewhere, such as in the folder of an adapter."""

    @cached_property
    def modules(self) -> SentenceModules | None:
        """What sentence-transformers wrote around the model; None if it is none of sentence embeddings.

        Raises:
            InvalidModel: whet cannot compute what it says; see `read_modules`.
        """
        if not self.is_pretrained:
            return None
        return read_modules(self.around or self.source)

    def modules_for(self, kind: TaskKind) -> SentenceModules | None:
        """Return what makes vectors of hidden states in a model of a kind; None if the kind has a head.

        Where the folder says nothing, and the user says the kind, it is the mean over tokens, as in
        sentence-transformers.

        Raises:
            InvalidModel: see `modules`.
        """
        if NO_HEAD not in kind.heads:
            return None
        return self.modules or SentenceModules(pooling=("mean",), normalize=False)

    def holds(self) -> str:
        """Return what the source holds, in words, such as "a Qwen3ForTokenClassification"."""
        if self.adapter is not None:
            return "an adapter"
        if self.modules is not None:
            return "a model of sentence embeddings"
        if self.config.get("problem_type") == MULTI_LABEL:
            return f"{_with_article(self.architectures[0] if self.architectures else 'classifier')} of several labels"
        return _with_article(self.architectures[0]) if self.architectures else "a model of an unknown class"

    def head(self, kind: str | None = None) -> Head:
        """Return what the source says of its head.

        Args:
            kind: name of the kind that the user says, where the configuration says none.
        """
        labels = self.config.get("id2label")
        outputs = len(labels) if labels else self.config.get("num_labels", 2)
        name = self.architectures[0] if self.architectures else TEXT_HEAD
        said = said_kind(self.config) or kind
        if self.modules is not None or (said is not None and NO_HEAD in kind_named(said).heads and self._is_bare):
            name = NO_HEAD
        return Head(name, outputs, self.config.get("problem_type"), said)

    def kind(self, said: str | None = None) -> TaskKind:
        """Return what the model answers.

        Args:
            said: name of the kind that the user says; None takes what the source says.

        Raises:
            InvalidModel: whet compresses no model of that kind, the source is of another kind than said, or nothing
                tells which of several it is.
            UnknownName: there is no kind of that name.
        """
        self.require_weights()
        found = self.kinds(said)
        if len(found) > 1:
            ways = " or ".join(f"--kind {kind.name()}" for kind in found)
            raise InvalidModel(
                f"the kind of a model must be known, but {self.source} holds {self.holds()}, which may be "
                f"{_one_of(found)}; say which: {ways} (in Python kind={found[0].name()!r}, ...)"
            )
        return found[0]

    def kinds(self, said: str | None = None) -> tuple[TaskKind, ...]:
        """Return every kind that the model may be of, at least one; weights are not looked at.

        Args:
            said: name of the kind that the user says; None takes what the source says.

        Raises:
            InvalidModel: whet compresses no model of that kind, or the source is of another kind than said.
            UnknownName: there is no kind of that name.
        """
        self.refuse_encoder_decoder()
        wanted = None if said is None else kind_named(said)
        fitting = self._fitting(None if wanted is None else wanted.name())
        if wanted is not None and not fitting and (others := self._fitting()):
            raise InvalidModel(
                f"the kind must be that of the model, but got {wanted.name()} for {self.source}, which holds "
                f"{self.holds()}; give {' or '.join(kind.name() for kind in others)}, or leave it out"
            )
        if not fitting:
            remedy = "fine-tune it first: whet finetune" if self.is_pretrained else "give one that was fine-tuned so"
            if self._is_bare and (
                ways := [f"--kind {name}" for name, kind in all_kinds().items() if NO_HEAD in kind.heads]
            ):
                remedy += f"; or say what its hidden states are for: {' or '.join(ways)}"
            raise InvalidModel(
                f"the model must be {_one_of(all_kinds().values())}, but {self.source} holds {self.holds()}; {remedy}"
            )
        return fitting

    def _fitting(self, said: str | None = None) -> tuple[TaskKind, ...]:
        """All kinds that fit what the user, the configuration or the files beside it say, in this order."""
        own = said_kind(self.config)
        if own is not None and said not in (None, own):
            return ()
        head = self.head(said)
        if self.architectures and head.name != NO_HEAD and not head.name.endswith(self._known_heads):
            return ()
        hinted = kinds_of_head(self.head(self._hint)) if said is None else ()
        return hinted or kinds_of_head(head)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What config_sentence_transformers.json says; empty if there is none."""
        return _sentence_settings(self.around or self.source)

    @property
    def _hint(self) -> str | None:
        """The name of the kind that sentence-transformers wrote the model as, where its class does not tell."""
        called = _sentence_model(self.around or self.source, self.config)
        return next((name for name, kind in all_kinds().items() if called and kind.sentence_model == called), None)

    @property
    def _known_heads(self) -> tuple[str, ...]:
        return tuple(end for kind in all_kinds().values() for end in kind.heads)

    @property
    def _is_bare(self) -> bool:
        """Whether its class gives hidden states alone."""
        return bool(self.architectures) and all(
            name.endswith("Model") and not name.endswith(self._known_heads) for name in self.architectures
        )

    def refuse_encoder_decoder(self) -> None:
        """Raises InvalidModel for a model with an encoder and a decoder, and for one half of it."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES  # slow

        of_such = self.config.get("model_type") in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        by_name = any(name.endswith(_ENCODER_DECODERS) for name in self.architectures)
        if of_such or by_name or self.config.get("is_encoder_decoder"):
            raise InvalidModel(
                f"the model must be an encoder or a decoder, but {self.source} holds {self.holds()}, of a family with "
                "both; whet does not compress these yet"
            )

    def require_base(self, kind: TaskKind, outputs: int) -> None:
        """Check that it can get a new head for a task: it is a pretrained model, or has such a head already.

        The head of another task is refused, and not dropped in silence.

        Args:
            kind: what the new head answers.
            outputs: number of outputs that the task needs.

        Raises:
            InvalidModel: it is an adapter, or has a head for something else.
        """
        if self.adapter is not None:
            raise InvalidModel(
                f"the base must be a whole model, but {self.source} holds {self.holds()}; name the base that it was "
                f"trained from, base_model_name_or_path={self.adapter.get('base_model_name_or_path')!r:.80}"
            )
        self.require_weights()
        self.refuse_encoder_decoder()
        if not self.has_head_of(kind) and not self.is_pretrained:
            raise InvalidModel(
                f"the base must have no head, or one for the task's {outputs} classes, but {self.source} holds "
                f"{self.holds()}; name the base that it was trained from"
            )

    def has_head_of(self, kind: TaskKind) -> bool:
        """Return whether the model has a head of this kind already, as far as its configuration tells."""
        if not self.architectures:
            return kind.auto_class == TaskKind.auto_class
        named = any(name.endswith(kind.heads) for name in self.architectures)
        return named and self.config.get("problem_type") in (None, kind.problem_type)


def said_kind(config: Mapping[str, Any]) -> str | None:
    """Return the name of the kind that a configuration says, if it says one."""
    said = config.get(KIND)
    return said if isinstance(said, str) else None


def _sentence_model(source: str | Path, config: Mapping[str, Any]) -> str | None:
    """What sentence-transformers calls the model of a source, which versions before 6 say in the configuration."""
    own = config.get("sentence_transformers")
    if _OLD_CROSS_ENCODER in config or (isinstance(own, dict) and "activation_fn" in own):
        return _CROSS_ENCODER
    named = _sentence_settings(source).get("model_type")
    return named if isinstance(named, str) else None


def _sentence_settings(source: str | Path) -> Mapping[str, Any]:
    path = find_file(source, SETTINGS)
    return {} if path is None else read_object(path)


def _one_of(kinds: Iterable[TaskKind]) -> str:
    *others, last = [kind.holds for kind in kinds]
    return f"{', '.join(others)} or {last}"


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in tuple('AEIOUaeiou') else 'a'} {name}"

"""The JSON files of a folder or hub name, read before any weights and without any slow import."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from whet.errors import InvalidModel
from whet.models.config_checks import check_config
from whet.models.folder import check_folder, conversion, find_file, is_folder, read_object, reading, weight_names
from whet.utils.manifests import CONFIG

__all__ = ["ADAPTER_WEIGHTS", "ModelFiles"]

ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLES = "pytorch_model*.bin"
_PRETRAINED = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "LMHeadModel",
    "ForPreTraining",
    "ForConditionalGeneration",
    "ForNextSentencePrediction",
)
"""How classes end whose head pretraining made, or that have none; fine-tuning gives them a new one."""


@dataclass(frozen=True)
class ModelFiles:
    """What the configuration in a folder or hub name says; `Checkpoint` knows what it means."""

    source: str
    """The folder or hub name."""
    config: Mapping[str, Any]
    """What config.json holds; empty if an adapter or a tokenizer has none."""
    adapter: Mapping[str, Any] | None = None
    """What adapter_config.json holds, or None for a whole model."""

    @classmethod
    def of(cls, source: str | Path) -> Self:
        """Return what a source holds.

        Raises:
            InvalidModel: there is no such source, a file in it cannot be read safely, or a value in its configuration
                cannot be that of a model.
            InvalidArtifact: whet wrote it, and the structure of its layers is missing.
        """
        check_folder(source)
        found = (find_file(source, name) for name in (CONFIG, ADAPTER))
        config, adapter = (None if path is None else read_object(path) for path in found)
        checkpoint = cls(str(source), config or {}, adapter)
        checkpoint._check()
        return checkpoint

    @property
    def architectures(self) -> tuple[str, ...]:
        """The names of the classes that the weights were saved from; empty if the configuration does not say."""
        return tuple(self.config.get("architectures") or ())

    @property
    def structure(self) -> Mapping[str, Any] | None:
        """The structure of a compressed model's layers as whet wrote it, unchecked; None for other models."""
        quantization = self.config.get("quantization_config")
        return None if quantization is None else quantization.get("structure")

    @property
    def is_pretrained(self) -> bool:
        """Whether it has no head, or one that pretraining made; true if nothing tells."""
        return all(name.endswith(_PRETRAINED) for name in self.architectures)

    def _check(self) -> None:
        if self.adapter is not None and _has_weights(self.source):
            raise InvalidModel(
                f"a folder must hold a model or an adapter, but {self.source} holds both, and whether the adapter "
                f"belongs to these weights is not known; remove {ADAPTER}, or give the adapter a folder of its own"
            )
        if self.config:
            check_config(self.source, self.config)

    def require_weights(self) -> None:
        """Weights that only pickles hold are refused: reading a pickle can run code."""
        if not self.config and self.adapter is None:
            _refuse_without_config(self.source)
        if not is_folder(self.source) or _has_weights(self.source):
            return
        pickles = sorted(path.name for path in Path(self.source).glob(_PICKLES))
        if pickles:
            raise InvalidModel(
                f"the weights must be in safetensors, but {self.source} holds only {pickles[0]}, a pickle that can run "
                f"code; if you trust it, convert it: {conversion(self.source, _PICKLES, 'model.safetensors')}"
            )
        raise InvalidModel(
            f"the model's folder must hold model.safetensors, but {self.source} holds no weights; copy it again"
        )


def _has_weights(source: str) -> bool:
    return bool(weight_names(source))


def _refuse_without_config(source: str | Path) -> None:
    if is_folder(source):
        found = "none; check the name" if find_file(source, CONFIG) is None else "an empty one; copy it again"
        raise InvalidModel(f"the model's folder must hold {CONFIG}, but {source} has {found}")
    from transformers.utils import cached_file

    with reading(source):  # says why the hub does not give it
        cached_file(str(source), CONFIG)

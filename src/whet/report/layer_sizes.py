"""Sizes of the layers of a saved model relative to the dense model, from its configuration and the weights' header.

One unit serves every method, whether it lowers ranks, removes neurons or stores weights in fewer bits: the bytes of a
layer on disk as a fraction of the bytes of the same layer dense in fp32.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import nn

from whet.errors import InvalidArtifact, InvalidModel
from whet.models.architecture import Architecture
from whet.models.load import empty_model, weight_files

__all__ = ["LayerSize", "ModelSizes", "model_sizes", "short_names", "vocabulary_size"]

FP32_BYTES = 4
_DESCRIPTIVE = ("rank", "heads", "query_key_width", "value_width", "bits", "group_size", "values")
"""Entries of a saved layer that describe it better than the sizes of its weights."""
_SIZES = ("in_features", "out_features")


class LayerSize(NamedTuple):
    """The size and form of one layer."""

    share: float
    """Bytes on disk as a fraction of those of the same layer dense in fp32."""
    form: str
    """Description of the layer, such as `low rank: rank 96`; empty for an ordinary layer."""


class ModelSizes(NamedTuple):
    """The sizes of a model's layers."""

    embeddings: LayerSize | None
    """Size of all embeddings together; None if the model has none of its own."""
    parts: tuple[str, ...]
    """The linear layers of a block, by their shortest unique names."""
    blocks: tuple[tuple[LayerSize | None, ...], ...]
    """For each block, the size of each part; None if the block lacks the part."""

    @property
    def whole(self) -> bool:
        """Whether every layer has the size of an ordinary layer, within 1 %."""
        sizes = [self.embeddings, *(size for block in self.blocks for size in block)]
        return all(size is None or size.share >= 0.99 for size in sizes)


class _Saved(NamedTuple):
    """A saved model and its dense counterpart."""

    dense: nn.Module
    """The dense model, without values."""
    linears: tuple[str, ...]
    """Names of the dense linear layers of its blocks."""
    sizes: Mapping[str, int]
    """Bytes of every tensor on disk, by name."""
    structure: Mapping[str, Mapping[str, Any]]
    """Descriptions of the compressed layers, by module name."""

    def share(self, names: Sequence[str]) -> LayerSize:
        """Return the size of some layers together."""
        measured = [self._measured(name) for name in names]
        stored, dense = (sum(bytes_of(name) for name in measured) for bytes_of in (self._stored, self._dense))
        compressed = [part for part in map(self._compressed, names) if part is not None]
        forms = dict.fromkeys(_form(self.structure[part]) for part in compressed)
        return LayerSize(stored / dense, "; ".join(forms))

    def _measured(self, name: str) -> str:
        """Return the module to measure: the layer itself, or the compressed module that replaces it and others."""
        nearest = self._compressed(name) or name
        inside = [linear for linear in self.linears if linear.startswith(f"{nearest}.")]
        by_name = inside and sum(map(self._stored, inside)) == self._stored(nearest)
        return name if by_name else nearest

    def _compressed(self, name: str) -> str | None:
        """Return the innermost compressed module that is the layer or contains it, or None."""
        enclosing = [part for part in self.structure if name == part or name.startswith(f"{part}.")]
        return max(enclosing, key=len, default=None)

    def _stored(self, name: str) -> int:
        """Return the bytes of a module on disk."""
        return sum(size for tensor, size in self.sizes.items() if tensor.startswith(f"{name}."))

    def _dense(self, name: str) -> int:
        """Return the bytes of a module that is dense in fp32."""
        return FP32_BYTES * sum(weight.numel() for weight in self.dense.get_submodule(name).parameters())


def vocabulary_size(folder: Path) -> int:
    """Return the number of tokens in a model's vocabulary.

    Raises:
        InvalidModel: the model's configuration cannot be read.
    """
    config: Any = empty_model(folder).config
    return int(config.vocab_size)


def model_sizes(folder: Path, *, words: int = 0) -> ModelSizes | None:
    """Return the sizes of the layers of a saved model, or None if it has no blocks of linear layers.

    Args:
        folder: folder of the model.
        words: size of the vocabulary before it was pruned; a smaller number than the model's own is ignored.

    Raises:
        InvalidModel: the model's configuration cannot be read.
        InvalidArtifact: the header of its weights cannot be read.
    """
    dense = empty_model(folder, least_words=words)
    try:
        layout = Architecture.of(dense)
    except InvalidModel:
        return None
    quantization: Any = getattr(dense.config, "quantization_config", None) or {}
    saved = _Saved(dense, layout.linears, _stored_bytes(folder), quantization.get("structure", {}))
    inside = [(block, name) for block in layout.blocks for name in layout.linears if name.startswith(f"{block}.")]
    parts = list(dict.fromkeys(name.removeprefix(f"{block}.") for block, name in inside))
    if not parts:
        return None
    sizes = {name: saved.share([name]) for _, name in inside}
    return ModelSizes(
        saved.share(layout.embeddings) if layout.embeddings else None,
        tuple(short_names(parts)),
        tuple(tuple(sizes.get(f"{block}.{part}") for part in parts) for block in layout.blocks),
    )


def short_names(parts: Sequence[str]) -> list[str]:
    """Return, for each module name, its shortest ending that no other name has."""
    plain = [part.removesuffix(".dense") for part in parts]

    def shortest(name: str) -> str:
        pieces = name.split(".")
        ends = (".".join(pieces[i:]) for i in range(len(pieces) - 1, -1, -1))
        return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in plain) == 1), name)

    return [shortest(name) for name in plain]


def _stored_bytes(folder: Path) -> dict[str, int]:
    """Return the bytes of every tensor; the weights are mapped into memory, and none is read."""
    sizes: dict[str, int] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                sizes |= {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError) as error:
            raise InvalidArtifact(f"{path} must be a safetensors file, but {error}; copy it again") from error
    return sizes


def _form(entry: Mapping[str, Any]) -> str:
    """Return the description of a saved layer: its kind, with its descriptive entries or else its sizes."""
    keys = [key for key in _DESCRIPTIVE if entry.get(key) is not None] or [key for key in _SIZES if key in entry]
    kind = str(entry.get("kind", "")).replace("_", " ")
    return f"{kind}: {', '.join(f'{key} {entry[key]}'.replace('_', ' ') for key in keys)}" if keys else kind

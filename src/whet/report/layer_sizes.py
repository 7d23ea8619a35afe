"""What is left of each layer of a saved model, read from its configuration and the header of its weights alone.

One unit serves every method, whether it lowers ranks, takes neurons out or stores weights in fewer bits: the bytes that
a layer takes on disk, as a share of those that it would take dense in fp32.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import nn

from whet.errors import InvalidArtifact, InvalidModel
from whet.models.architecture import Architecture
from whet.models.load import empty_model, weight_files

__all__ = ["KeptSizes", "PartSize", "kept_sizes", "short_names", "words_of"]

FP32_BYTES = 4
_TOLD = ("rank", "heads", "query_key_width", "value_width", "bits", "group_size", "values")
"""What a saved layer says of itself that tells more than its sizes."""
_SIZES = ("in_features", "out_features")


class PartSize(NamedTuple):
    """What is left of one layer."""

    share: float
    """Its bytes on disk over those of the same layer dense in fp32."""
    form: str
    """What it is now, such as `low rank: rank 96`; empty where it is an ordinary layer."""


class KeptSizes(NamedTuple):
    """What is left of a model."""

    embeddings: PartSize | None
    """Of all its embeddings; None if it has none of its own."""
    parts: tuple[str, ...]
    """The linear layers of a block, by the shortest names that tell them apart."""
    blocks: tuple[tuple[PartSize | None, ...], ...]
    """For each block, of each part; None where the block has no such layer."""

    @property
    def whole(self) -> bool:
        """Whether every layer is as large as an ordinary one, within a hundredth."""
        shares = [self.embeddings, *(share for block in self.blocks for share in block)]
        return all(share is None or share.share >= 0.99 for share in shares)


class _Saved(NamedTuple):
    """A saved model: as it would be dense, and as it is."""

    dense: nn.Module
    """Without values."""
    linears: tuple[str, ...]
    """Names of the dense layers of its blocks."""
    sizes: Mapping[str, int]
    """Bytes of every tensor on disk."""
    structure: Mapping[str, Mapping[str, Any]]
    """The layers that whet made, by module name."""

    def share(self, names: Sequence[str]) -> PartSize:
        """Return what is left of these layers together."""
        measured = [self._measured(name) for name in names]
        now, before = (sum(of(name) for name in measured) for of in (self._stored, self._dense))
        made = [part for part in map(self._made, names) if part is not None]
        forms = dict.fromkeys(_form(self.structure[part]) for part in made)
        return PartSize(now / before, "; ".join(forms))

    def _measured(self, name: str) -> str:
        """The layer itself, or the compressed part of the model that stands for it and others."""
        nearest = self._made(name) or name
        inside = [one for one in self.linears if one.startswith(f"{nearest}.")]
        by_name = inside and sum(map(self._stored, inside)) == self._stored(nearest)
        return name if by_name else nearest

    def _made(self, name: str) -> str | None:
        """The innermost part that whet made which is the layer or holds it."""
        above = [part for part in self.structure if name == part or name.startswith(f"{part}.")]
        return max(above, key=len, default=None)

    def _stored(self, name: str) -> int:
        return sum(size for tensor, size in self.sizes.items() if tensor.startswith(f"{name}."))

    def _dense(self, name: str) -> int:
        return FP32_BYTES * sum(weight.numel() for weight in self.dense.get_submodule(name).parameters())


def words_of(folder: Path) -> int:
    """Return the size of a model's vocabulary.

    Raises:
        InvalidModel: its configuration cannot be read.
    """
    config: Any = empty_model(folder).config
    return int(config.vocab_size)


def kept_sizes(folder: Path, *, words: int = 0) -> KeptSizes | None:
    """Return what is left of the model in a folder, or None where it has no blocks of linear layers.

    Args:
        folder: of the model.
        words: size of the vocabulary that it had before some of it went; its own, if that is larger.

    Raises:
        InvalidModel, InvalidArtifact: its configuration or the header of its weights cannot be read.
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
    shares = {name: saved.share([name]) for _, name in inside}
    return KeptSizes(
        saved.share(layout.embeddings) if layout.embeddings else None,
        tuple(short_names(parts)),
        tuple(tuple(shares.get(f"{block}.{part}") for part in parts) for block in layout.blocks),
    )


def short_names(parts: Sequence[str]) -> list[str]:
    """Return for each module name the fewest of its last pieces that no other one ends in."""
    plain = [part.removesuffix(".dense") for part in parts]

    def shortest(name: str) -> str:
        pieces = name.split(".")
        ends = (".".join(pieces[i:]) for i in range(len(pieces) - 1, -1, -1))
        return next((end for end in ends if sum(f".{one}".endswith(f".{end}") for one in plain) == 1), name)

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
    """What a saved layer is, in its own numbers; in its sizes where it has no other."""
    told = [key for key in _TOLD if entry.get(key) is not None] or [key for key in _SIZES if key in entry]
    kind = str(entry.get("kind", "")).replace("_", " ")
    return f"{kind}: {', '.join(f'{key} {entry[key]}'.replace('_', ' ') for key in told)}" if told else kind

"""What transformers loads by itself is compared with the manifest beside it, as whet's own verbs do for a whole folder.

transformers asks a folder's quantizer to prepare the model, and tells it which files it is about to read. Only
compressed models have a quantizer: a dense folder is loaded without a word from whet.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fnmatch import fnmatchcase
from pathlib import Path

from whet.errors import InvalidArtifact
from whet.models.manifest import read_manifest, unlisted
from whet.utils.manifests import CONFIG, COPY_OR_RENEW, MANIFEST, SHARDS, fault_of

__all__ = ["compare_with_manifest", "compared_already"]

_compared: ContextVar[bool] = ContextVar("compared", default=False)


@contextmanager
def compared_already() -> Iterator[None]:
    """Leave the comparison out while the block runs, since whet's verbs make it before they load anything."""
    token = _compared.set(True)
    try:
        yield
    finally:
        _compared.reset(token)


def compare_with_manifest(weights: Sequence[str] | None) -> None:
    """Compare the files from which a model is loaded with the manifest in their folder, if it has one.

    Args:
        weights: paths of the files of weights, all in one folder; None if the weights do not come from files.

    Raises:
        InvalidArtifact: the configuration or a file of weights is not as it was saved, or was added.
    """
    if not weights or _compared.get():
        return
    folder = Path(weights[0]).parent
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_manifest(folder)
    names = [CONFIG, *([SHARDS] if len(weights) > 1 else []), *(Path(path).name for path in weights)]
    added = [name for name in unlisted(folder, manifest) if name in names or fnmatchcase(name, "adapter_*")]
    if added:
        raise InvalidArtifact(
            f"a load must read only files that whet wrote, but {folder / MANIFEST} does not list {added[0]}; "
            f"{COPY_OR_RENEW}"
        )
    for name in names:
        if fault := fault_of(folder, name, manifest.files.get(name)):
            raise InvalidArtifact(f"files must match the manifest, but {folder / name} {fault}; {COPY_OR_RENEW}")

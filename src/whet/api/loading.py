"""Loading a model from Python."""

from pathlib import Path

from transformers import PreTrainedModel

from whet.models.artifact import load_any
from whet.utils.calls import checked

__all__ = ["load_model"]


@checked
def load_model(model: str | Path, *, kind: str | None = None) -> PreTrainedModel:
    """Return a model in fp32 and eval mode, as transformers has it, with its compressed layers in place.

    Args:
        model: folder or hub name; of a folder that whet wrote, every file is first compared with its digest.
        kind: of the model's answers, such as embedding, where the folder does not tell.

    Raises:
        InvalidArtifact: a file of the folder is missing, truncated or altered.
        InvalidModel: the model cannot be loaded, or its kind is not known.
        UnknownName: there is no such kind.
    """
    return load_any(model, kind=kind)

"""Loading a model from Python."""

from pathlib import Path

from transformers import PreTrainedModel

from whet.models.artifact import load_any
from whet.utils.calls import checked

__all__ = ["load_model"]


@checked
def load_model(model: str | Path) -> PreTrainedModel:
    """Return a model in fp32 and eval mode, as transformers has it, with its compressed layers in place.

    Args:
        model: folder or hub name; of a folder that whet wrote, every file is first compared with its digest.

    Raises:
        InvalidArtifact: a file of the folder is missing, truncated or altered.
        InvalidModel: the model cannot be loaded.
    """
    return load_any(model)

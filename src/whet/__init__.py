"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model, and its LSTM language model to
`AutoModelForCausalLM`. Everything else is imported when its name is first used.
"""

import importlib
import os
import warnings
from typing import Any

import lazy_loader

from whet import errors as errors
from whet.models.registration import register

# ONNX Runtime 1.31 sends usage data from its import on, and writes an id to the home; a choice of the user's stays
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_FORMER = {"task_named": "load_task(name)", "task_from_files": "load_task(train_file=...)"}
"""Functions that were public in 0.1, and what to write in their place."""
_WHERE = {"task_named": "whet.tasks.base", "task_from_files": "whet.tasks.own_data"}


def __getattr__(name: str) -> Any:
    """Return a public name, imported from where the stub says, or a former one with a warning."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("whet")
    if name not in _FORMER:
        try:
            return _public(name)
        except ModuleNotFoundError as error:
            if (error.name or "whet").split(".")[0] == "whet":
                raise
            raise errors.MissingPackage(
                f"whet.{name} needs the package {error.name}, but it is not installed; pip install 'whet[compress]'"
            ) from error
    warnings.warn(f"whet.{name} is now whet.{_FORMER[name]}; 0.3 drops the old name", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(_WHERE[name]), name)


register()

"""Every error that whet raises on purpose.

Each also derives from the built-in it refines, so that callers may catch either::

    WhetError
    ├── InvalidParameter   (ValueError)        a method's parameter breaks its stated range
    ├── InvalidRecipe      (ValueError)        steps out of order, or a file that is no recipe
    ├── InvalidData        (ValueError)        a data file or its contents cannot be used
    ├── InvalidModel       (ValueError)        a model that cannot be loaded, or with weights that are not finite
    ├── InvalidArtifact    (ValueError)        a saved model that is truncated, altered or incomplete
    ├── InvalidPlugin      (ImportError)       an entry point of an installed package that cannot be used
    ├── MissingPackage     (ImportError)       a package that is not installed, and what installs it
    ├── UnknownName        (LookupError)       no task, method, metric or layer of that name
    ├── MissingResource    (LookupError)       a method needs data or a teacher that nobody gave
    ├── NothingToCompress  (ValueError)        no layer is left for the method to work on
    ├── OutputExists       (FileExistsError)   the output folder holds something else
    └── OutputNotWritten   (OSError)           the output could not be written, a full disk for one
        └── FiguresNotKept                     what was measured could not be written; `trials` has it

Messages read `<what must hold>, but got <name=value>; <what to do>`.
"""

from collections.abc import Sequence
from typing import Any

__all__ = [
    "FiguresNotKept",
    "InvalidArtifact",
    "InvalidData",
    "InvalidModel",
    "InvalidParameter",
    "InvalidPlugin",
    "InvalidRecipe",
    "MissingPackage",
    "MissingResource",
    "NothingToCompress",
    "OutputExists",
    "OutputNotWritten",
    "UnknownName",
    "WhetError",
]


class WhetError(Exception):
    """The base of every error raised on purpose."""


class InvalidParameter(WhetError, ValueError):
    """A parameter breaks its stated range."""


class InvalidPlugin(WhetError, ImportError):
    """An entry point of an installed package cannot be used."""


class InvalidRecipe(WhetError, ValueError):
    """A recipe is out of order or cannot be read."""


class InvalidData(WhetError, ValueError):
    """A data file, or what it holds, cannot be used."""


class InvalidModel(WhetError, ValueError):
    """A model cannot be loaded, or its weights are not finite."""


class InvalidArtifact(WhetError, ValueError):
    """A saved model is truncated, altered or incomplete."""


class MissingPackage(WhetError, ImportError):
    """A package that is needed is not installed."""


class UnknownName(WhetError, LookupError):
    """Nothing is known under this name."""


class MissingResource(WhetError, LookupError):
    """A method needs a resource that is absent."""


class NothingToCompress(WhetError, ValueError):
    """No layer is left for the method to work on."""


class OutputExists(WhetError, FileExistsError):
    """The output folder holds something else."""


class OutputNotWritten(WhetError, OSError):
    """The output could not be written."""


class FiguresNotKept(OutputNotWritten):
    """What was measured could not be written everywhere."""

    trials: Sequence[Any] = ()
    """All that was measured."""

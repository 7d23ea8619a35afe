"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model, and its LSTM language model to
`AutoModelForCausalLM`. Everything else is imported when its name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from whet import errors as errors
from whet.models.registration import register

if TYPE_CHECKING:
    from whet.api import Compressed as Compressed
    from whet.api import compress as compress
    from whet.api import distill as distill
    from whet.api import finetune as finetune
    from whet.api import measure as measure
    from whet.calibration.resources import Calibration as Calibration
    from whet.calibration.resources import Resources as Resources
    from whet.errors import InvalidArtifact as InvalidArtifact
    from whet.errors import InvalidData as InvalidData
    from whet.errors import InvalidModel as InvalidModel
    from whet.errors import InvalidParameter as InvalidParameter
    from whet.errors import InvalidRecipe as InvalidRecipe
    from whet.errors import MissingResource as MissingResource
    from whet.errors import NothingToCompress as NothingToCompress
    from whet.errors import OutputExists as OutputExists
    from whet.errors import OutputNotWritten as OutputNotWritten
    from whet.errors import UnknownName as UnknownName
    from whet.errors import WhetError as WhetError
    from whet.evaluation.benchmark import Benchmark as Benchmark
    from whet.evaluation.frontier import Frontier as Frontier
    from whet.evaluation.inspection import Inspection as Inspection
    from whet.evaluation.inspection import inspect as inspect
    from whet.evaluation.measurement import Comparison as Comparison
    from whet.evaluation.measurement import Measurement as Measurement
    from whet.evaluation.trial import Trial as Trial
    from whet.methods.base import Method as Method
    from whet.methods.base import Stage as Stage
    from whet.methods.base import all_methods as all_methods
    from whet.methods.base import method_named as method_named
    from whet.methods.recipe import Recipe as Recipe
    from whet.methods.recipe import Step as Step
    from whet.models.configs import LstmConfig as LstmConfig
    from whet.models.configs import RecurrentConfig as RecurrentConfig
    from whet.models.lstm import LstmForCausalLM as LstmForCausalLM
    from whet.models.recurrent import RecurrentForSequenceClassification as RecurrentForSequenceClassification
    from whet.report.write import write_report as write_report
    from whet.runtimes.base import Agreement as Agreement
    from whet.runtimes.export import export as export
    from whet.searching.goal import Goal as Goal
    from whet.searching.search import SearchResult as SearchResult
    from whet.searching.search import search as search
    from whet.tasks.base import Splits as Splits
    from whet.tasks.base import Task as Task
    from whet.tasks.base import task_from_files as task_from_files
    from whet.tasks.base import task_named as task_named
    from whet.tasks.data import Batches as Batches
    from whet.tasks.data import Examples as Examples
    from whet.training.lora import LoraSettings as LoraSettings
    from whet.training.objective import Objective as Objective
    from whet.training.students.base import Student as Student
    from whet.training.students.base import student_from as student_from
    from whet.training.trainer import Epoch as Epoch
    from whet.training.trainer import TrainingSettings as TrainingSettings

_NAMES = {
    "whet.api": ("Compressed", "compress", "distill", "finetune", "measure"),
    "whet.calibration.resources": ("Calibration", "Resources"),
    "whet.errors": (
        "InvalidArtifact",
        "InvalidData",
        "InvalidModel",
        "InvalidParameter",
        "InvalidRecipe",
        "MissingResource",
        "NothingToCompress",
        "OutputExists",
        "OutputNotWritten",
        "UnknownName",
        "WhetError",
    ),
    "whet.evaluation.benchmark": ("Benchmark",),
    "whet.evaluation.frontier": ("Frontier",),
    "whet.evaluation.inspection": ("Inspection", "inspect"),
    "whet.evaluation.measurement": ("Comparison", "Measurement"),
    "whet.evaluation.trial": ("Trial",),
    "whet.methods.base": ("Method", "Stage", "all_methods", "method_named"),
    "whet.methods.recipe": ("Recipe", "Step"),
    "whet.models.configs": ("LstmConfig", "RecurrentConfig"),
    "whet.models.lstm": ("LstmForCausalLM",),
    "whet.models.recurrent": ("RecurrentForSequenceClassification",),
    "whet.report.write": ("write_report",),
    "whet.runtimes.base": ("Agreement",),
    "whet.runtimes.export": ("export",),
    "whet.searching.goal": ("Goal",),
    "whet.searching.search": ("SearchResult", "search"),
    "whet.tasks.base": ("Splits", "Task", "task_from_files", "task_named"),
    "whet.tasks.data": ("Batches", "Examples"),
    "whet.training.lora": ("LoraSettings",),
    "whet.training.objective": ("Objective",),
    "whet.training.students.base": ("Student", "student_from"),
    "whet.training.trainer": ("Epoch", "TrainingSettings"),
}
"""The public names by the module that each is imported from; type checkers read the same names above."""
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'whet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, also those that are not imported yet."""
    return sorted({*globals(), *__all__})


register()

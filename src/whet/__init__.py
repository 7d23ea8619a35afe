"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model, and its LSTM language model to
`AutoModelForCausalLM`.
"""

from whet.api import compress, distill, finetune, measure
from whet.calibration.resources import Calibration, Resources
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.frontier import Frontier
from whet.evaluation.inspection import inspect
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.methods.base import Method, Stage, all_methods, method_named
from whet.methods.recipe import Recipe
from whet.models.lstm import LstmConfig, LstmForCausalLM
from whet.models.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from whet.report.write import write_report
from whet.runtimes.export import export
from whet.searching.goal import Goal
from whet.searching.search import search
from whet.tasks.base import Task, task_from_files, task_named
from whet.training.lora import LoraSettings
from whet.training.objective import Objective
from whet.training.students.base import Student, student_from
from whet.training.trainer import TrainingSettings

__all__ = [
    "Benchmark",
    "Calibration",
    "Comparison",
    "Frontier",
    "Goal",
    "LoraSettings",
    "LstmConfig",
    "LstmForCausalLM",
    "Measurement",
    "Method",
    "Objective",
    "Recipe",
    "RecurrentConfig",
    "RecurrentForSequenceClassification",
    "Resources",
    "Stage",
    "Student",
    "Task",
    "TrainingSettings",
    "Trial",
    "all_methods",
    "compress",
    "distill",
    "export",
    "finetune",
    "inspect",
    "measure",
    "method_named",
    "search",
    "student_from",
    "task_from_files",
    "task_named",
    "write_report",
]

"""Make fine-tuned NLP Transformers smaller and faster, and prove what that cost.

Importing it makes the saved structure of compressed models known to transformers, so that
`AutoModelForSequenceClassification.from_pretrained(folder)` gives the exact model, and its LSTM language model to
`AutoModelForCausalLM`.
"""

from whet.benchmark import Benchmark
from whet.deployment import export
from whet.distillation import Objective
from whet.exploration import search
from whet.frontier import Frontier
from whet.goal import Goal
from whet.inspection import inspect
from whet.lora import LoraSettings
from whet.lstm import LstmConfig, LstmForCausalLM
from whet.measurement import Comparison, Measurement
from whet.method import Method, Stage, all_methods, method_named
from whet.preparation import Calibration
from whet.recipe import Recipe
from whet.recurrent import RecurrentConfig, RecurrentForSequenceClassification
from whet.reporting import write_report
from whet.resources import Resources
from whet.student import Student, student_from
from whet.task import Task, task_from_files, task_named
from whet.training import TrainingSettings
from whet.trial import Trial
from whet.verbs import compress, distill, finetune, measure

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

"""What one process or several run to be compared: the verbs that train or calibrate, on the files of a folder."""

import sys
from pathlib import Path

import torch

from whet import api
from whet.cli.console import show
from whet.methods.recipe import Recipe
from whet.tasks.own_data import task_from_files
from whet.training.objective import Objective
from whet.training.settings import TrainingSettings
from whet.training.students.base import student_from
from whet.utils.distributed import join_processes, leave_processes, process_count

MADE = ("tuned", "student", "recovered")
RECIPE = [{"method": "kfac", "keep": 0.5}, {"method": "recovery.distillation", "epochs": 1, "hidden_states": 0}]


def run(folder: Path, name: str) -> None:
    """Make every model of MADE in `folder/name`."""
    base, out = folder / "base", folder / name
    task = task_from_files(folder / "train.csv", text="text")
    settings = TrainingSettings(epochs=1, batch_size=5, learning_rate=1e-3, max_length=16)
    api.finetune(base, task, out / "tuned", settings=settings)
    student = student_from("layer_subset:top:1")
    api.distill(base, student, task, out / "student", settings=settings, objective=Objective(alpha=0.7))
    api.compress(base, Recipe.from_list(RECIPE), out / "recovered", task=task)


if __name__ == "__main__":
    torch.set_num_threads(1)
    join_processes("cpu")
    show(f"{process_count()} processes")
    run(Path(sys.argv[1]), sys.argv[2])
    leave_processes()

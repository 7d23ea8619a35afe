"""A tiny package with one entry point of each group, installed into a folder as pip would."""

from collections.abc import Mapping
from pathlib import Path

__all__ = ["CODE", "ENTRY_POINTS", "TOY_METHOD", "install"]

TOY_METHOD = '''
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import nn

from whet.calibration.resources import Resources
from whet.methods.base import Method, Stage


@dataclass(frozen=True, kw_only=True)
class ToyMethod(Method):
    """Make the weights of linear layers smaller.

    Source: a test.
    """

    factor: float = 0.5
    """What weights are multiplied by."""

    stage: ClassVar[Stage] = Stage.TRAINING
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"factor": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"factor": 1.0}

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    module.weight *= self.factor
        return model
'''
CODE = (
    TOY_METHOD
    + '''
import shutil
from pathlib import Path

from whet.run.sessions import Session
from whet.runtimes.base import ExportRuntime
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind
from whet.training.students.base import BuiltStudent, Student


@dataclass(frozen=True, kw_only=True)
class ToyStudent(Student):
    """The teacher itself."""

    @classmethod
    def from_text(cls, text):
        return cls()

    def build(self, teacher, resources):
        return BuiltStudent(teacher, "the teacher")


class ToyRuntime(ExportRuntime):
    """Runs ONNX files as they are."""

    extra = "toy"
    package = "onnxruntime"
    precisions = {"fp32": ("model.toy",)}

    def convert(self, conversion, folder):
        shutil.copy(conversion.onnx, folder / "model.toy")

    def open(self, folder, *, precision="fp32", threads):
        return ToySession(folder / "model.toy")


class ToySession(Session):
    precision = "fp32"

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path)

    def run(self, inputs):
        names = [one.name for one in self.session.get_inputs()]
        return {"logits": self.session.run(None, {name: inputs[name] for name in names})[0]}


class ToyKind(TaskKind):
    """Fits nothing."""

    problem_type, has_classes = "toy", False
    output_names = label_names = read_labels = renumbered = predictions = divergence = pairing = None
    noise = softened = loss = distillation_loss = decisions = None

    def fits_labels(self, label_names):
        return False

    def fits_head(self, outputs):
        return False


class ToyData(Task):
    """Two sentences."""

    names = ("toy/even", "toy/odd")
    label_names = ("no", "yes")
    metrics = ("accuracy",)

    def read(self):
        return Examples(["a", "b"], [0, 1]), Examples(["a", "b"], [0, 1])
'''
)
ENTRY_POINTS = {
    "whet.methods": {"toy_method": "whet_toy:ToyMethod"},
    "whet.students": {"toy_student": "whet_toy:ToyStudent"},
    "whet.runtimes": {"toy_runtime": "whet_toy:ToyRuntime"},
    "whet.datasets": {"toy": "whet_toy:ToyData"},
    "whet.task_kinds": {"toy_kind": "whet_toy:ToyKind"},
}


def install(folder: Path, code: str, points: Mapping[str, Mapping[str, str]]) -> Path:
    """Write the package `whet-toy` of one module into a folder, which then belongs on the path."""
    info = folder / "whet_toy-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "whet_toy.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: whet-toy\nVersion: 1.0\n")
    sections = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(sections))
    return folder

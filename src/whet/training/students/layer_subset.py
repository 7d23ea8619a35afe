"""Some of the teacher's blocks, in their order, with all else that it has: the student starts as a cut teacher.

Fixed patterns count blocks from 1, as publications do: odd are the first, third, ..., even the second, fourth, ...;
lists of numbers count from 0, as module names do. By influence, those blocks stay that change their input most, 1 −
cos(input, output) averaged over tokens; by KL, blocks leave one at a time, each the one without which the predictions
change least.

Source: Sanh et al., "DistilBERT, a distilled version of BERT", 2019, arXiv 1910.01108, for every other block; Men et
al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024, arXiv 2403.03853, for
influence.
Differs: influence leaves padding out; KL is measured again after each block that leaves.
"""

import copy
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from transformers import PreTrainedModel

from whet.calibration.resources import Resources, calibrated
from whet.errors import InvalidParameter, MissingResource
from whet.models.architecture import Architecture
from whet.models.inference import predict_logits, removing_hooks, to_device
from whet.models.surgery import copy_sharing_parameters, keep_blocks, require_all_tokens
from whet.numerics.divergence import divergences
from whet.tasks.data import Batches
from whet.training.students._narrowing import narrowed_student
from whet.training.students.base import BuiltStudent, Student
from whet.utils.progress import track

__all__ = ["LayerSubset", "influences"]

Pattern = Literal["top", "bottom", "odd", "even", "evenly_spaced", "influence", "kl"]
MEASURED = ("influence", "kl")


@dataclass(frozen=True, kw_only=True)
class LayerSubset(Student):
    """Keep some of the teacher's blocks."""

    pattern: Pattern | None = None
    """Which: the first (top, as publications call them), the last (bottom), every other, spread from first to last, or
    those that a measurement says."""
    count: Annotated[int | None, Interval(ge=1)] = None
    """How many; odd and even say so themselves."""
    layers: tuple[int, ...] | None = None
    """Their numbers instead, from 0."""
    width: Annotated[int | None, Interval(ge=1)] = None
    """Hidden size, where it shall be smaller than the teacher's: whole heads, and what counts most on training text."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range, or if not one thing says which blocks stay."""
        super().__post_init__()
        if (self.pattern is None) == (self.layers is None) or (self.layers is not None and self.count is not None):
            raise InvalidParameter(
                f"either pattern, with count, or layers must be given, but got pattern={self.pattern}, "
                f"count={self.count} and layers={self.layers}; give one"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the student of `odd`, `top:3`, `influence:3` or `0,2,4`, and of a width after it: `odd:width=192`."""
        which, _, width = text.partition(":width=")
        first, _, rest = which.partition(":")
        try:
            own = int(width) if width else None
            if first.replace(",", "").isdigit():
                return cls(layers=tuple(int(one) for one in which.split(",")), width=own)
            return cls(pattern=first, count=int(rest) if rest else None, width=own)  # type: ignore[arg-type]
        except ValueError as error:
            if isinstance(error, InvalidParameter):
                raise
            raise InvalidParameter(
                f"layer_subset must be PATTERN, PATTERN:COUNT or numbers, but got {text!r}; such as odd, top:3 or 0,2,4"
            ) from error

    @property
    def reads(self) -> frozenset[str]:
        """See `Student.reads`; measured patterns and widths look at training text."""
        measured = self.pattern in MEASURED or self.width is not None
        return frozenset({"calibration"} if measured else ())

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`."""
        require_all_tokens(teacher)
        blocks = len(Architecture.of(teacher).blocks)
        chosen = self._chosen(teacher, blocks, resources)
        if len(set(chosen)) < len(chosen) or not all(0 <= i < blocks for i in chosen):
            raise InvalidParameter(
                f"layers must be different numbers from 0 to {blocks - 1}, but got {', '.join(map(str, chosen))}; "
                "correct them"
            )
        student = copy.deepcopy(teacher).eval()
        keep_blocks(student, chosen)
        numbers = ", ".join(map(str, chosen))
        plan = f"blocks {numbers} of 0 to {blocks - 1} ({self.pattern or 'as listed'})"
        if self.width is None:
            return BuiltStudent(student, plan)
        assert isinstance(student, PreTrainedModel)
        narrow = narrowed_student(student, self.width, calibrated(resources))
        narrow.name_or_path = student.name_or_path
        return BuiltStudent(narrow, f"{plan} of width {self.width}")

    def _chosen(self, teacher: nn.Module, blocks: int, resources: Resources) -> list[int]:
        if self.layers is not None:
            return list(self.layers)
        halves = {"odd": range(0, blocks, 2), "even": range(1, blocks, 2)}
        if self.pattern in halves:
            found = list(halves[self.pattern])
            if self.count not in (None, len(found)):
                raise InvalidParameter(
                    f"the {self.pattern} ones of {blocks} blocks are {len(found)}, but got count={self.count}; "
                    f"give {len(found)}, or another pattern"
                )
            return found
        if self.count is None or self.count > blocks:
            raise InvalidParameter(
                f"1 <= count <= {blocks} must hold for this teacher, but got count={self.count}; such as "
                f"{self.pattern}:{max(1, blocks // 2)}"
            )
        if self.pattern in MEASURED:
            if resources.calibration is None:
                raise MissingResource(f"{self.pattern} needs training text, but got none; give --task")
            measured = _by_influence if self.pattern == "influence" else _by_kl
            return measured(teacher, self.count, resources.calibration)
        last = {"top": range(self.count), "bottom": range(blocks - self.count, blocks)}
        if self.pattern in last:
            return list(last[self.pattern])
        return [round(place) for place in np.linspace(0, blocks - 1, self.count)]


def influences(model: nn.Module, batches: Batches) -> np.ndarray[Any, Any]:
    """Return (blocks,) mean 1 − cos(input, output) over real tokens of every block."""
    blocks = [model.get_submodule(name) for name in Architecture.of(model).blocks]
    sums, seen = np.zeros(len(blocks)), 0
    mask = torch.empty(0)

    def note(i: int, before: Tensor, after: Tensor) -> None:
        cosine = nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)
        sums[i] += float((1 - cosine)[mask].sum())

    handles = [
        block.register_forward_hook(
            lambda _module, inputs, out, i=i: note(i, inputs[0], out if isinstance(out, Tensor) else out[0])
        )
        for i, block in enumerate(blocks)
    ]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            inputs = to_device(batch, model)
            mask = inputs["attention_mask"].bool()
            model(**inputs)
            seen += int(mask.sum())
    return sums / seen


def _by_influence(teacher: nn.Module, count: int, batches: Batches) -> list[int]:
    most = np.argsort(-influences(teacher, batches), kind="stable")[:count]
    return sorted(most.tolist())


def _by_kl(teacher: nn.Module, count: int, batches: Batches) -> list[int]:
    wanted = predict_logits(teacher, batches)
    left = list(range(len(Architecture.of(teacher).blocks)))
    for _ in track(range(len(left) - count), "dropping blocks"):
        costs = {}
        for i in left:
            student = copy_sharing_parameters(teacher)
            keep_blocks(student, [one for one in left if one != i])
            costs[i] = float(divergences(wanted, predict_logits(student, batches)).mean())
        left.remove(min(costs, key=lambda i: costs[i]))
    return left

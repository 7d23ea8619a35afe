"""A student with a subset of the teacher's blocks, in their order; everything else is copied from the teacher.

The patterns odd and even count blocks from 1, as publications do: odd keeps the first, third, ...; even the second,
fourth, .... Lists of numbers count from 0, as module names do. The pattern influence keeps the blocks that change their
input most, by 1 − cos(input, output) averaged over tokens. The pattern kl removes one block at a time, each time the
block whose removal changes the predictions least.

Source: Sanh et al., "DistilBERT, a distilled version of BERT", 2019, arXiv 1910.01108, for every other block; Men et
al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024, arXiv 2403.03853, for
influence.
Differs: the influence leaves padding out; the KL is measured again after each removed block.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from transformers import PreTrainedModel

from whet.calibration.resources import Resources, require_calibration
from whet.errors import InvalidParameter, MissingResource
from whet.models.architecture import Architecture
from whet.models.inference import model_inputs, predict, removing_hooks
from whet.models.surgery import block_count, copy_sharing_parameters, keep_blocks, require_all_tokens
from whet.tasks.data import Batches
from whet.training.students._narrowing import narrowed_student
from whet.training.students.base import BuiltStudent, Student
from whet.utils.parameters import shown, whole_number_in
from whet.utils.progress import track

__all__ = ["LayerSubset", "block_influences"]

Pattern = Literal["top", "bottom", "odd", "even", "evenly_spaced", "influence", "kl"]
MEASURED_PATTERNS = ("influence", "kl")
"""Patterns that need training text."""


@dataclass(frozen=True, kw_only=True)
class LayerSubset(Student):
    """Keep some of the teacher's blocks."""

    pattern: Pattern | None = None
    """Which blocks to keep: the first (top, as publications call them), the last (bottom), every other (odd, even),
    evenly_spaced from first to last, or the most important by a measurement (influence, kl)."""
    count: Annotated[int | None, Interval(ge=1, le=65_536)] = None
    """Number of blocks to keep, e.g. 3; odd and even need no number."""
    layers: tuple[int, ...] | None = None
    """Numbers of the blocks to keep, counted from 0, e.g. 0,2,4, instead of a pattern."""
    width: Annotated[int | None, Interval(ge=1, le=65_536)] = None
    """Hidden size of the student, e.g. 192, if it is to be smaller than the teacher's: a multiple of the width of a
    head. The most important features on training text are kept."""

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a value is outside its range, or not exactly one of pattern and layers is given.
        """
        super().__post_init__()
        if (self.pattern is None) == (self.layers is None) or (self.layers is not None and self.count is not None):
            raise InvalidParameter(
                f"either pattern, with count, or layers must be given, but got pattern={self.pattern}, "
                f"count={self.count} and layers={self.layers}; give one"
            )

    @classmethod
    def from_text(cls, text: str) -> Self:
        """See `Student.from_text`: `odd`, `top:3` or `0,2,4`, and a width after any of them, as in `odd:width=192`."""
        blocks, _, width_text = text.partition(":width=")
        pattern, _, count = blocks.partition(":")
        listed = [whole_number_in(number) for number in blocks.split(",")]
        sizes = [whole_number_in(size) for size in (count, width_text)]
        is_list = pattern[:1].isdecimal()
        if (is_list and None in listed) or sizes.count(None) > (count, width_text).count(""):
            raise InvalidParameter(
                f"layer_subset must be PATTERN, PATTERN:COUNT or numbers, but got {shown(text)}; "
                "give one such as odd, top:3 or 0,2,4"
            )
        if is_list:
            return cls(layers=tuple(number for number in listed if number is not None), width=sizes[1])
        return cls(pattern=pattern, count=sizes[0], width=sizes[1])  # type: ignore[arg-type]

    @property
    def reads(self) -> frozenset[str]:
        """See `Student.reads`; measured patterns and widths need training text."""
        measured = self.pattern in MEASURED_PATTERNS or self.width is not None
        return frozenset({"calibration"} if measured else ())

    def build(self, teacher: nn.Module, resources: Resources) -> BuiltStudent:
        """See `Student.build`."""
        require_all_tokens(teacher)
        blocks = block_count(teacher)
        chosen = self._chosen(teacher, blocks, resources)
        if len(set(chosen)) < len(chosen) or not all(0 <= i < blocks for i in chosen):
            raise InvalidParameter(
                f"layers must be different numbers from 0 to {blocks - 1}, but got {', '.join(map(str, chosen))}; "
                "correct the list"
            )
        student = copy.deepcopy(teacher).eval()
        keep_blocks(student, chosen)
        numbers = ", ".join(map(str, chosen))
        plan = f"blocks {numbers} of 0 to {blocks - 1} ({self.pattern or 'as listed'})"
        title = _title(chosen, blocks, self.width)
        if self.width is None:
            return BuiltStudent(student, plan, title)
        assert isinstance(student, PreTrainedModel)
        narrowed = narrowed_student(student, self.width, require_calibration(resources))
        narrowed.name_or_path = student.name_or_path
        return BuiltStudent(narrowed, f"{plan} of width {self.width}", title)

    def _chosen(self, teacher: nn.Module, blocks: int, resources: Resources) -> list[int]:
        if self.layers is not None:
            return list(self.layers)
        halves = _every_other(blocks)
        if self.pattern in halves:
            kept = halves[self.pattern]
            if self.count not in (None, len(kept)):
                raise InvalidParameter(
                    f"count must be {len(kept)} for the {self.pattern} ones of {blocks} blocks, but got "
                    f"count={self.count}; leave it out, or give another pattern"
                )
            return kept
        if self.count is None or self.count > blocks:
            raise InvalidParameter(
                f"1 <= count <= {blocks} must hold for this teacher, but got count={self.count}; give one such as "
                f"{self.pattern}:{max(1, blocks // 2)}"
            )
        if self.pattern in MEASURED_PATTERNS:
            if resources.calibration is None:
                raise MissingResource(f"{self.pattern} needs training text, but got none; give --task")
            choose_blocks = _by_influence if self.pattern == "influence" else _by_kl
            return choose_blocks(teacher, self.count, resources.calibration)
        ends = {"top": range(self.count), "bottom": range(blocks - self.count, blocks)}
        if self.pattern in ends:
            return list(ends[self.pattern])
        return [round(position) for position in np.linspace(0, blocks - 1, self.count)]


def _every_other(blocks: int) -> dict[str | None, list[int]]:
    """Return the blocks of the patterns that keep every other one."""
    return {"odd": list(range(0, blocks, 2)), "even": list(range(1, blocks, 2))}


def _title(chosen: Sequence[int], blocks: int, width: int | None) -> str:
    """Return the short name of a student, which counts layers from 1 as publications do; DistilBERT has every other."""
    kind = "DistilBERT-like student" if list(chosen) in _every_other(blocks).values() else "student"
    narrow = "" if width is None else f" with hidden size {width}"
    return f"{kind}{narrow}: {'layer' if len(chosen) == 1 else 'layers'} {', '.join(str(i + 1) for i in chosen)}"


def block_influences(model: nn.Module, batches: Batches) -> np.ndarray[Any, Any]:
    """Return the influence of every block, (blocks,): 1 − cos(input, output), averaged over tokens without padding."""
    blocks = [model.get_submodule(name) for name in Architecture.of(model).blocks]
    sums, tokens = np.zeros(block_count(model)), 0
    turns = itertools.cycle(range(len(sums)))
    mask = torch.empty(0)

    def add_to_sum(_block: nn.Module, inputs: tuple[Tensor, ...], out: Any) -> None:
        after = out if isinstance(out, Tensor) else out[0]
        cosine = nn.functional.cosine_similarity(inputs[0].float(), after.float(), dim=-1)
        sums[next(turns)] += float((1 - cosine)[mask].sum())

    handles = [block.register_forward_hook(add_to_sum) for block in blocks]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            inputs = model_inputs(batch, model)
            mask = batch["attention_mask"].bool().to(inputs["input_ids"].device)
            model(**inputs)
            tokens += int(mask.sum())
    return sums / tokens


def _by_influence(teacher: nn.Module, count: int, batches: Batches) -> list[int]:
    largest = np.argsort(-block_influences(teacher, batches), kind="stable")[:count]
    return sorted(largest.tolist())


def _by_kl(teacher: nn.Module, count: int, batches: Batches) -> list[int]:
    reference = predict(teacher, batches)
    remaining = list(range(block_count(teacher)))
    for _ in track(range(len(remaining) - count), "dropping blocks"):
        losses = {}
        for i in remaining:
            student = copy_sharing_parameters(teacher)
            keep_blocks(student, [other for other in remaining if other != i])
            losses[i] = float(reference.divergences(predict(student, batches)).mean())
        remaining.remove(min(losses, key=lambda i: losses[i]))
    return remaining

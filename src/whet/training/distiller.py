"""Distillation from a teacher: the loss of a student on a batch, and the hooks that make the two models comparable.

If their widths differ, a learned linear layer, which is not saved with the student, maps the student's hidden states to
the teacher's width. For the relations loss, both models also return the queries, keys and values of their last
attention.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import ModelOutput

from whet.errors import InvalidModel
from whet.models.first_token import computes_first_alone
from whet.models.inference import kind_of_model, model_inputs, outputs_with_loss, removing_hooks
from whet.models.last_attention import last_attention_projections
from whet.models.surgery import temporary_submodule
from whet.tasks.data import UNREAD
from whet.tasks.encoding import LABELS
from whet.training.objective import AttentionProjections, Objective

__all__ = ["TEACHER_LOGITS", "Teacher"]

TEACHER_LOGITS = "teacher_logits"
"""The key under which batches hold cached logits of the teacher."""
PROJECTION = "hidden_projection"
"""The name, during training, of the layer that maps the student's hidden states to the teacher's width."""


class Teacher(NamedTuple):
    """A teacher and the objective with which a student learns from it."""

    teacher: nn.Module | None
    """In eval mode, with the same classes as the student; None if its logits are given."""
    objective: Objective
    """The weight of each loss."""
    student: str = ""
    """Description of the student; a run resumes only with the same student."""
    logits: Tensor | None = None
    """(examples, classes) logits of the teacher on the training data, in the order of the examples."""

    def loss(self, student: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of the student on one batch, a scalar; labels are read only if they have a weight."""
        left_out = {TEACHER_LOGITS, *UNREAD, *(LABELS if self.objective.alpha == 1 else ())}
        inputs: dict[str, Any] = {key: value for key, value in batch.items() if key not in left_out}
        if self.objective.reads_hidden_states:
            inputs["output_hidden_states"] = True
        targets = self._outputs(batch, inputs)
        found = _without_unfinished(student, outputs_with_loss(student, inputs))
        return self.objective.loss(found, targets, batch, kind=kind_of_model(student))

    def _outputs(self, batch: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> ModelOutput:
        if self.teacher is None:
            return SequenceClassifierOutput(logits=batch[TEACHER_LOGITS])
        with torch.no_grad():
            outputs: ModelOutput = self.teacher(**{key: value for key, value in inputs.items() if key not in LABELS})
        return _without_unfinished(self.teacher, outputs)

    @contextmanager
    def attached(self, student: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[None]:
        """Make the outputs of teacher and student comparable within the block.

        Args:
            student: in any mode; it is left in eval mode.
            batch: one example or more on which the loss is tried, with labels if they have a weight.

        Raises:
            InvalidModel: the outputs of the two models cannot be compared.
        """
        device = next(student.parameters()).device
        trial_batch = {key: value.to(device) for key, value in batch.items()}
        student.eval()
        with ExitStack() as stack:
            with torch.no_grad():
                if self.teacher is not None:
                    self.teacher.to(device)
                    if self.objective.relations > 0:
                        handles = [*_returning_attention(self.teacher), *_returning_attention(student)]
                        stack.enter_context(removing_hooks(handles))
                    if self.objective.reads_hidden_states:
                        stack.enter_context(_projecting(student, self.teacher, trial_batch))
                self.loss(student, trial_batch)
            yield


def _without_unfinished(model: nn.Module, outputs: Any) -> Any:
    """Leave out what a last block that computes only the first token gives for the others."""
    if getattr(outputs, "hidden_states", None) is not None and computes_first_alone(model):
        *states, last = outputs.hidden_states
        outputs["hidden_states"] = (*states, last[:, :1])
    return outputs


@contextmanager
def _projecting(student: nn.Module, teacher: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[None]:
    """Map the student's hidden states to the teacher's width within the block, by a layer that is trained too."""
    student_width, teacher_width = (_hidden_width(model, batch) for model in (student, teacher))
    if student_width == teacher_width:
        yield
        return
    layer = nn.Linear(student_width, teacher_width).to(next(student.parameters()))

    def project(_module: nn.Module, _inputs: Any, out: Any) -> None:
        if out.hidden_states is not None:
            out.hidden_states = tuple(layer(states) for states in out.hidden_states)

    # the layer runs inside the model's forward, where distributed training tracks which weights are used
    with temporary_submodule(student, PROJECTION, layer), removing_hooks([student.register_forward_hook(project)]):
        yield


def _hidden_width(model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    inputs = {key: value for key, value in model_inputs(batch, model).items() if key not in LABELS}
    states = getattr(model(**inputs, output_hidden_states=True), "hidden_states", None)
    if states is None:
        raise InvalidModel(
            f"teacher and student must both give hidden states, but {type(model).__name__} gives none; "
            "give hidden_states=0 and cosine=0"
        )
    return int(states[-1].shape[-1])


def _returning_attention(model: nn.Module) -> list[RemovableHandle]:
    """Return the handles of hooks that put queries, keys and values of the last attention into the model's output.

    They go into the field `attentions`, because distributed training drops attributes that are no field of an output.
    """
    names, heads = last_attention_projections(model)
    projections: dict[str, Tensor] = {}

    def return_projections(_module: nn.Module, _inputs: Any, out: Any) -> None:
        query, key, value = (projections.pop(name) for name in names)
        out.attentions = AttentionProjections(query, key, value, heads)

    def store(name: str) -> Any:
        return lambda _module, _inputs, out: projections.update({name: out})

    handles = [model.get_submodule(name).register_forward_hook(store(name)) for name in names]
    return [*handles, model.register_forward_hook(return_projections)]

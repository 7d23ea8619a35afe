"""A lesson: what a student learns from a teacher, and what both need so that they can be compared.

Where the two differ in width, a learned linear layer, which is not a part of the student, turns the student's hidden
states into the teacher's. For relations, both give the queries, keys and values of their last attention beside their
answer.
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
from whet.models.attention import last_projections
from whet.models.inference import removing_hooks
from whet.models.surgery import temporary_submodule
from whet.training.objective import Attended, Objective

__all__ = ["KNOWN", "Teacher"]

KNOWN = "teacher_logits"
"""Where batches hold what the teacher answers, if it is known."""
PROJECTION = "hidden_projection"
"""The layer from the student's hidden states to the teacher's, while the lesson lasts."""


class Teacher(NamedTuple):
    """What a student learns from beside labels."""

    teacher: nn.Module | None
    """In eval mode, of the same classes; None where its predictions are known."""
    objective: Objective
    """How much each thing counts."""
    student: str = ""
    """What the student is made of; a run goes on only with the same."""
    logits: Tensor | None = None
    """(examples, classes) the teacher's predictions on the training data, in its order."""

    def loss(self, student: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of one batch; labels are read where they count."""
        asked: dict[str, Any] = {key: value for key, value in batch.items() if key != KNOWN}
        if self.objective.reads_hidden_states:
            asked["output_hidden_states"] = True
        return self.objective.loss(student(**asked), self._wanted(batch, asked), batch["attention_mask"].bool())

    def _wanted(self, batch: Mapping[str, Tensor], asked: Mapping[str, Any]) -> ModelOutput:
        if self.teacher is None:
            return SequenceClassifierOutput(logits=batch[KNOWN])
        with torch.no_grad():
            answer: ModelOutput = self.teacher(**{key: value for key, value in asked.items() if key != "labels"})
        return answer

    @contextmanager
    def begun(self, student: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[None]:
        """Make the two comparable while the block runs, and refuse a student that cannot learn from this teacher.

        Args:
            student: in any mode; in eval mode afterwards.
            batch: of one example or more, with labels where they count.

        Raises:
            InvalidModel: the two answer in forms that cannot be compared.
        """
        device = next(student.parameters()).device
        tried = {key: value.to(device) for key, value in batch.items()}
        student.eval()
        with ExitStack() as stack:
            with torch.no_grad():
                if self.teacher is not None:
                    self.teacher.to(device)
                    if self.objective.relations > 0:
                        handles = [*_showing_attention(self.teacher), *_showing_attention(student)]
                        stack.enter_context(removing_hooks(handles))
                    if self.objective.reads_hidden_states:
                        stack.enter_context(_as_wide(student, self.teacher, tried))
                self.loss(student, tried)
            yield


@contextmanager
def _as_wide(student: nn.Module, teacher: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[None]:
    """Turn the student's hidden states into as many features as the teacher's have, by a layer that learns."""
    own, wanted = (_hidden_width(model, batch) for model in (student, teacher))
    if own == wanted:
        yield
        return
    layer = nn.Linear(own, wanted).to(next(student.parameters()))

    def widen(_module: nn.Module, _inputs: Any, out: Any) -> None:
        if out.hidden_states is not None:
            out.hidden_states = tuple(layer(states) for states in out.hidden_states)

    # (inside the model's own forward, where several processes watch which weights are used)
    with temporary_submodule(student, PROJECTION, layer), removing_hooks([student.register_forward_hook(widen)]):
        yield


def _hidden_width(model: nn.Module, batch: Mapping[str, Tensor]) -> int:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    states = getattr(model(**inputs, output_hidden_states=True), "hidden_states", None)
    if states is None:
        raise InvalidModel(
            f"teacher and student must both give hidden states, but {type(model).__name__} gives none; "
            "give hidden_states=0 and cosine=0"
        )
    return int(states[-1].shape[-1])


def _showing_attention(model: nn.Module) -> list[RemovableHandle]:
    """Let the model give queries, keys and values of its last attention where its answer has a place for its weights.

    (Several processes hand on no more of an answer than its own fields.)
    """
    names, heads = last_projections(model)
    seen: dict[str, Tensor] = {}

    def show(_module: nn.Module, _inputs: Any, out: Any) -> None:
        query, key, value = (seen.pop(name) for name in names)
        out.attentions = Attended(query, key, value, heads)

    def note(name: str) -> Any:
        return lambda _module, _inputs, out: seen.update({name: out})

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    return [*handles, model.register_forward_hook(show)]

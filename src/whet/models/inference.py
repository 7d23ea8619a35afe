"""The forward pass over batches, and the inputs that models need."""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.errors import InvalidModel, NothingToCompress
from whet.models.checkpoint import said_kind
from whet.models.embeddings import input_embeddings
from whet.models.surgery import without_pooler
from whet.numerics.stacking import stacked
from whet.tasks.data import ANSWERED, UNREAD, Batch
from whet.tasks.kinds.base import NO_HEAD, Answers, Head, LogitRows, TaskKind, kind_of_head, kinds_of_head
from whet.tasks.sentences import SentenceModules
from whet.utils.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "answers",
    "example_batch",
    "exported_outputs",
    "input_names",
    "kind_of_model",
    "kinds_of_model",
    "model_inputs",
    "new_model",
    "outputs_with_loss",
    "predict",
    "predict_logits",
    "removing_hooks",
]


def new_model(like: nn.Module, config: Any) -> "PreTrainedModel":
    """Return a model of a configuration with random weights, which answers as another one does."""
    import transformers  # slow to import

    kind = kind_of_model(like)
    model: PreTrainedModel = getattr(transformers, kind.auto_class).from_config(config)
    if NO_HEAD in kind.heads:
        without_pooler(model, [name for name, _ in model.named_parameters()])
    return model


MOST_LOGITS = 2**26
"""Largest number of logits that are kept of a split, 256 MiB, of kinds whose rows are summed up batch by batch."""


def model_inputs(batch: Batch, model: nn.Module) -> dict[str, Tensor]:
    """Return what a model reads of a batch, on the model's device."""
    device = next(model.parameters()).device
    return {key: value.to(device) for key, value in batch.items() if key not in UNREAD}


def kind_of_model(model: nn.Module) -> TaskKind:
    """Return what the outputs of a model mean, by its class and its configuration.

    Raises:
        InvalidModel: whet knows no such kind.
    """
    known: TaskKind | None = getattr(model, "kind", None)  # an export knows that of its model
    if known is not None:
        return known
    return kind_of_head(_head(model)).configured(getattr(model, "config", None))


def kinds_of_model(model: nn.Module) -> tuple[TaskKind, ...]:
    """Return every kind that the class and the configuration of a model leave, the one that it is taken for first."""
    return kinds_of_head(_head(model))


def _head(model: nn.Module) -> Head:
    config: Any = getattr(model, "config", None)
    return Head(
        type(_unwrapped(model)).__name__ if SentenceModules.of(config) is None else NO_HEAD,
        getattr(config, "num_labels", None),
        getattr(config, "problem_type", None),
        said_kind(vars(config) if hasattr(config, "__dict__") else {}),
    )


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of what compiles or distributes it."""
    for name in ("_orig_mod", "module"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            return _unwrapped(inner)
    return model


def answers(model: nn.Module, batch: Batch, kind: TaskKind) -> LogitRows:
    """Return the answers of a model to one batch, with gradients if they are on.

    Args:
        model: on any device.
        batch: on any device; with ANSWERED, if only some tokens count.
        kind: that of the model; see `kind_of_model`.
    """
    device = next(model.parameters()).device
    outputs = model(**model_inputs(batch, model))
    return kind.rows(outputs, {key: value.to(device) for key, value in batch.items()})


def exported_outputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return what an export of the model gives for one batch, by the names of `TaskKind.outputs`."""
    kind, inputs = kind_of_model(model), model_inputs(batch, model)
    return dict(zip(kind.outputs, kind.exported(model(**inputs), inputs), strict=True))


def outputs_with_loss(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Return what a model gives for its inputs, with its loss if there are labels among them.

    The loss is that of the model's own class, unless its kind has another.

    Args:
        model: on the device of the inputs.
        inputs: keyword arguments of the model.
    """
    kind = kind_of_model(model)
    if kind.own_loss or "labels" not in inputs:
        return model(**inputs)
    outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
    outputs["loss"] = kind.loss(kind.rows(outputs, inputs).logits, inputs["labels"])
    return outputs


def predict(model: nn.Module, batches: Iterable[Batch], *, name: str | None = None) -> Answers:
    """Return the answers to all batches, in their order; half precision becomes float32.

    Of kinds whose rows are summed up, every so many rows are kept, the same ones of every model with equal outputs.

    Args:
        model: in eval mode, on any device.
        batches: inputs, on any device.
        name: of the model, for a progress bar and for errors; without it there is no bar, and NaN is no error.

    Raises:
        InvalidModel: the model has a name, and its logits are not finite.
    """
    whole = list(batches)
    shown = whole if name is None else track(whole, f"logits of {name}")
    kind = kind_of_model(model)
    logits, inputs, scores, before, seen, step = [], [], [], 0, 0, 0
    with torch.inference_mode():
        for batch in shown:
            rows = answers(model, batch, kind)
            sums = kind.scores(rows, batch)
            if sums is not None:
                scores.append(sums.cpu().numpy())
                step = step or _step(whole, rows.logits.shape[-1])
                taken = slice(-seen % step, None, step)
                seen += len(rows.logits)
                rows = LogitRows(rows.logits[taken], rows.inputs[taken])
            logits.append(_at_least_float32(rows.logits).cpu().numpy())
            inputs.append(rows.inputs.cpu().numpy() + before)
            before += len(batch["input_ids"])
    found = Answers(kind, stacked(logits), np.concatenate(inputs), np.concatenate(scores) if scores else None)
    if name is not None and not (
        np.isfinite(found.logits).all() and np.isfinite(0 if found.scores is None else found.scores).all()
    ):
        raise InvalidModel(f"logits must be finite, but {name} gives NaN or infinity; check its weights")
    return found


def _step(batches: Sequence[Batch], outputs: int) -> int:
    """One in how many rows is kept of a split, so that there are at most MOST_LOGITS logits."""
    rows = sum(int(batch.get(ANSWERED, batch["attention_mask"]).sum()) for batch in batches)
    return max(1, -(-rows * outputs // MOST_LOGITS))


def predict_logits(model: nn.Module, batches: Iterable[Batch], *, name: str | None = None) -> np.ndarray[Any, Any]:
    """Return the (rows, outputs) logits of `predict`, one row for each input if the model classifies texts."""
    return predict(model, batches, name=name).logits


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextlib.contextmanager
def removing_hooks(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks when the block ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def input_names(model: nn.Module, tokenizer_names: Sequence[str]) -> list[str]:
    """Return the model's inputs among those of its tokenizer, in the order of the model's arguments."""
    arguments = inspect.signature(model.forward).parameters
    return [name for name in arguments if name in tokenizer_names]


def example_batch(model: nn.Module, names: Sequence[str], size: int, length: int) -> dict[str, Tensor]:
    """Return random tokens as inputs of these names; every second example ends in padding.

    Args:
        model: gives the vocabulary and the padding token.
        names: of the inputs.
        size: number of examples.
        length: in tokens.
    """
    random = torch.Generator().manual_seed(size * length)
    words = _words(model)
    pad = int(getattr(model.config, "pad_token_id", None) or 0)
    ids = torch.randint(1, words, (size, length), generator=random)
    ids[ids == pad] = (pad + 1) % words
    mask = torch.ones_like(ids)
    mask[1::2, length - length // 3 :] = 0
    ids = ids.masked_fill(mask == 0, pad)
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: known[name] for name in names}


def _words(model: nn.Module) -> int:
    """How many tokens a model knows, also one without a table of them."""
    try:
        tables = [child for child in input_embeddings(model).modules() if isinstance(child, nn.Embedding)]
    except NothingToCompress:
        tables = []
    return len(tables[0].weight) if tables else int(getattr(model.config, "vocab_size", None) or 2)

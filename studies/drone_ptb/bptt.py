"""Train a recurrent language model by truncated back-propagation through time.

The text lies in contiguous columns. Every step takes the next few tokens of all columns, begins with the state in which
the last one ended, and sends gradients back to its own beginning only. SGD with clipped gradients; the learning rate
falls linearly to zero, so that a short training ends as well as it can.

`transformers.Trainer` is left out here: it draws examples independently, and has no place for a state that one batch
hands to the next, nor for saving it.

Source: Williams, Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories",
Neural Computation 2, 1990; Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013,
arXiv 1211.5063, for clipping; Li, Yumer, Ramanan, "Budgeted training", 2020, arXiv 1905.04753, for the learning rate.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Interval
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from drone_ptb.stream import columns, token_losses, windows
from whet import Epoch, InvalidModel, InvalidParameter, OutputNotWritten
from whet.utils import check

__all__ = ["BpttSettings", "train_recurrent"]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
VALIDATION_COLUMNS = 10
"""Of the validation text during training: much faster than one, and hardly different."""


@dataclass(frozen=True, kw_only=True)
class BpttSettings:
    """How long and how fast to train."""

    epochs: Annotated[int, Interval(ge=1)] = 15
    """Passes over the training text."""
    learning_rate: Annotated[float, Interval(gt=0, lt=math.inf)] = 20.0
    """Of SGD at the first step; it falls linearly to zero."""
    columns: Annotated[int, Interval(ge=1)] = 20
    """Contiguous parts of the text that are read side by side."""
    steps: Annotated[int, Interval(ge=1)] = 35
    """Tokens through which gradients are sent back."""
    clip: Annotated[float, Interval(gt=0, lt=math.inf)] = 0.25
    """Longer gradients are cut to this norm."""
    checkpoint_every: Annotated[int, Interval(ge=1)] = 200
    """Steps after which a killed training can go on."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """Of dropout."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


@dataclass(kw_only=True)
class _Progress:
    """Where a training stands; beside the weights and the random state that is all it needs to go on."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    tokens: int = 0
    curve: list[Epoch] = field(default_factory=list)
    state: Tensor | None = None


def train_recurrent(
    model: nn.Module,
    train: Tensor,
    validation: Tensor,
    *,
    settings: BpttSettings,
    scratch: Path,
    on_step: Callable[[int, int], None] = lambda epoch, step: None,
    on_epoch: Callable[[list[Epoch]], None] = lambda curve: None,
) -> list[Epoch]:
    """Train `model` in place, leave it with the weights of its best epoch, and return its learning curve.

    Checkpoints go to `scratch`; a run that finds one there goes on from it, to the same weights as without the break.

    Args:
        model: on the CPU; takes and returns a state, as `LstmForCausalLM` does.
        train: (tokens,) int64.
        validation: (tokens,) int64; decides which epoch is best.
        settings: how long and how fast.
        scratch: folder of the checkpoints.
        on_step: called with the epoch, from 0, and its number of steps so far after each step.
        on_epoch: called with the learning curve after each epoch.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings, of another model or with other data.
        InvalidModel: the loss is no longer finite.
        OutputNotWritten: a checkpoint could not be written, on a full disk for one.
    """
    about = _about(model, train, validation, settings)
    text, held_out = columns(train, settings.columns), columns(validation, VALIDATION_COLUMNS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        progress = _resume(model, scratch, about) or _Progress()
        while progress.epoch < settings.epochs:
            _epoch(model, text, progress, settings, lambda: _save(model, progress, scratch, about), on_step)
            _finish(model, held_out, progress, scratch)
            _save(model, progress, scratch, about)
            on_epoch(progress.curve)
    model.load_state_dict(load_file(scratch / BEST))
    model.eval()
    return progress.curve


def _epoch(
    model: nn.Module,
    text: Tensor,
    progress: _Progress,
    settings: BpttSettings,
    save: Callable[[], None],
    on_step: Callable[[int, int], None],
) -> None:
    """Train to the end of the epoch that has begun."""
    model.train()
    pieces = list(windows(text, settings.steps))
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, lr=settings.learning_rate)
    for window in pieces[progress.step :]:
        done = (progress.epoch + progress.step / len(pieces)) / settings.epochs
        optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - done)
        out = model(window.inputs, state=progress.state)
        loss = nn.functional.cross_entropy(out.logits.flatten(0, 1), window.targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(weights, settings.clip)
        optimizer.step()
        optimizer.zero_grad()
        progress.state = out.state.detach()
        progress.loss += float(loss.detach()) * window.targets.numel()
        progress.tokens += window.targets.numel()
        progress.step += 1
        if progress.step % settings.checkpoint_every == 0:
            save()
        on_step(progress.epoch, progress.step)


def _finish(model: nn.Module, held_out: Tensor, progress: _Progress, scratch: Path) -> None:
    """Score an epoch, keep its weights if they are the best, and turn to the next."""
    model.eval()
    mean = token_losses(model, held_out).mean()
    row = Epoch(progress.epoch + 1, progress.loss / progress.tokens, float(mean), float(mean.exp()))
    if not math.isfinite(row.validation_loss):
        raise InvalidModel(
            f"the loss must stay finite, but got {row.validation_loss} after epoch {row.epoch}; give a smaller "
            f"learning rate, and delete {scratch}"
        )
    if all(row.validation_loss < earlier.validation_loss for earlier in progress.curve):
        _write(model.state_dict(), scratch / BEST)
    progress.curve.append(row)
    progress.epoch += 1
    progress.step, progress.loss, progress.tokens, progress.state = 0, 0.0, 0, None


def _about(model: nn.Module, train: Tensor, validation: Tensor, settings: BpttSettings) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    digest = hashlib.sha256(train.numpy().tobytes() + validation.numpy().tobytes()).hexdigest()
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    # where it is saved changes nothing
    chosen = {key: value for key, value in asdict(settings).items() if key != "checkpoint_every"}
    return {"data_sha256": digest, "shapes": shapes, **chosen}


def _save(model: nn.Module, progress: _Progress, scratch: Path, about: dict[str, Any]) -> None:
    """Write everything as one file, so that a kill leaves the old one or the new one."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if progress.state is not None:
        tensors["state"] = progress.state
    numbers = {name: getattr(progress, name) for name in ("epoch", "step", "loss", "tokens", "curve")}
    _write(tensors, scratch / CHECKPOINT, {"progress": json.dumps(numbers), "about": json.dumps(about)})


def _resume(model: nn.Module, scratch: Path, about: dict[str, Any]) -> _Progress | None:
    """Put the weights and the random state of a checkpoint in place, and return where it stood."""
    path = scratch / CHECKPOINT
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        held, numbers = (json.loads(file.metadata()[name]) for name in ("about", "progress"))
    if others := [name for name, value in about.items() if held.get(name) != value]:
        raise InvalidParameter(
            f"an interrupted run must go on with its own model, data and settings, but got another "
            f"{', '.join(others)} than {path} holds; give those, or delete {scratch}"
        )
    tensors = load_file(path)
    torch.set_rng_state(tensors.pop("random"))
    state = tensors.pop("state", None)
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in tensors.items()})
    curve = [Epoch(*row) for row in numbers.pop("curve")]
    return _Progress(**numbers, curve=curve, state=state)


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    draft = path.with_suffix(".partial")
    # weights that are tied would be refused
    own = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(own, draft, metadata=metadata)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputNotWritten(f"{path} must be writable, but {error}; free some space or name another") from error

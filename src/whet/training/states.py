"""The state of a training run in files: optimizer, learning rate schedule, random numbers and the running loss.

A file holds named tensors, and JSON for everything else. Nothing is pickled, so reading one runs no code.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from whet.errors import InvalidArtifact
from whet.utils.files import digest

__all__ = [
    "State",
    "load_weights",
    "optimizer_state",
    "random_state",
    "restore_optimizer",
    "restore_random",
    "rows_digest",
    "weights",
    "weights_digest",
]


class State(NamedTuple):
    """Named tensors, and values that JSON can hold."""

    tensors: Mapping[str, Tensor]
    """Tensors on any device."""
    values: Mapping[str, Any]
    """Numbers, texts, lists and dictionaries."""

    def write(self, path: Path) -> None:
        """Write the state as a safetensors file; the values are JSON in its header."""
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(on_cpu, path, metadata={"values": json.dumps(self.values)})

    @classmethod
    def read(cls, path: Path) -> "State":
        """Return the state in a file that `write` made.

        Raises:
            InvalidArtifact: the file holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                return cls({name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["values"]))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
            raise InvalidArtifact(
                f"{path} must be a state that whet wrote, but {error}; delete {path.parent} and run it again"
            ) from error


def weights(model: nn.Module) -> State:
    """Return what training changes in a model: its trained parameters, and its buffers."""
    kept = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return State(trained | {name: buffer for name, buffer in model.named_buffers() if name in kept}, {})


@torch.no_grad()
def load_weights(model: nn.Module, state: State) -> None:
    """Copy the tensors that `weights` gave back into the same model."""
    for name, tensor in weights(model).tensors.items():
        tensor.copy_(state.tensors[name])


def optimizer_state(optimizer: Optimizer, schedule: LRScheduler) -> State:
    """Return the state of an optimizer and its learning rate schedule."""
    whole = optimizer.state_dict()
    tensors, numbers = {}, []
    for index, entries in whole["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                numbers.append([index, key, value])
    return State(
        tensors, {"groups": whole["param_groups"], "numbers": numbers, "schedule": dict(schedule.state_dict())}
    )


def restore_optimizer(optimizer: Optimizer, schedule: LRScheduler, state: State) -> None:
    """Set an optimizer and its schedule to what `optimizer_state` gave."""
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in state.tensors.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = tensor
    for index, key, value in state.values["numbers"]:
        entries.setdefault(index, {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": state.values["groups"]})
    schedule.load_state_dict(state.values["schedule"])


def random_state() -> State:
    """Return the state of all generators of random numbers that a training uses."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    name, keys, *others = cast(tuple[Any, ...], np.random.get_state())
    return State(tensors, {"python": random.getstate(), "numpy": [name, keys.tolist(), *others]})


def restore_random(state: State) -> None:
    """Set all generators of random numbers to what `random_state` gave."""
    torch.set_rng_state(state.tensors["torch"])
    if "cuda" in state.tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(state.tensors["cuda"])
    version, words, gauss = state.values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *others = state.values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *others))


def weights_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's weights and their names."""

    def pieces() -> Iterator[bytes]:
        for name, weight in model.state_dict().items():
            yield name.encode()
            yield weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()

    return digest(pieces())


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of encoded examples, with their labels."""
    return digest(json.dumps(row).encode() for row in rows)

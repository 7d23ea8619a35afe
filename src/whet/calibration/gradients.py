"""Fisher gradients of activations: a backward pass of random noise from the logits, without labels.

The noise h at the logits has the covariance of the model's own predictions, E[h hᵀ] = diag(p) − p pᵀ, which is the
curvature of KL(p ‖ ·) in the logits. The second moment of the gradient at an activation is therefore the curvature of
KL in this activation, after one backward pass for any number of classes.

Source: Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", 2015, arXiv
1503.05671.
Differs: random signs with the exact covariance replace sampled labels, which a confident model almost never gets wrong.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.embeddings import input_embeddings
from whet.tasks.data import Batch, Batches
from whet.tasks.kinds.base import LogitRows, TaskKind
from whet.utils.distributed import items_of_process, process_count
from whet.utils.progress import track

__all__ = ["activation_gradients", "backward_fisher_noise", "batches_of_process", "fisher_noise", "noise_generator"]


@contextlib.contextmanager
def activation_gradients(model: nn.Module) -> Iterator[None]:
    """Compute gradients of activations but not of weights while the block runs, at half the cost.

    Args:
        model: its input embeddings start the graph; every parameter gets back its `requires_grad` afterwards.
    """
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    # a clone, since CTRL scales its embeddings in place, which no start of a graph allows
    handles = [
        table.register_forward_hook(lambda _module, _inputs, out: out.requires_grad_().clone())
        for table in _input_embeddings(model)
    ]
    try:
        for parameter in required:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, value in required.items():
            parameter.requires_grad_(value)


def _input_embeddings(model: nn.Module) -> list[nn.Module]:
    """The embeddings of tokens; all embeddings of a model with several, such as CANINE, which hashes characters."""
    try:
        return [input_embeddings(model)]
    except NothingToCompress:
        return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def noise_generator(seed: int, index: int) -> torch.Generator:
    """Return the CPU generator of one example's noise; it does not depend on batching or processes.

    Args:
        seed: seed of all noise.
        index: index of the example in the data.
    """
    state = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


def batches_of_process(batches: Batches) -> Iterator[tuple[range, Batch]]:
    """Yield this process's batches, each with the indices of its examples in the data.

    Raises:
        InvalidData: there are fewer batches than processes.
    """
    ends = np.cumsum([len(batch["input_ids"]) for batch in batches])
    for i, batch in track(items_of_process(batches.batches), "calibrating", total=len(batches) // process_count()):
        yield range(int(ends[i]) - len(batch["input_ids"]), int(ends[i])), batch


def fisher_noise(kind: TaskKind, logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise whose covariance is the curvature of KL in the logits, in their shape and dtype.

    Args:
        kind: what the logits mean.
        logits: (rows, outputs) of one input; see `TaskKind.noise`.
        generator: CPU generator of the random signs.
    """
    return kind.noise(logits, kind.random_signs(logits, generator))


def backward_fisher_noise(
    kind: TaskKind, rows: LogitRows, *, seed: int, indices: Iterable[int], temperature: float = 1.0
) -> None:
    """Run the backward pass of `fisher_noise` from the logits; batching does not change an input's noise.

    Args:
        kind: what the logits mean.
        rows: the answers to one batch.
        seed: seed of all noise.
        indices: index of each input of the batch in the data; every input draws its own noise.
        temperature: positive; higher values soften the predictions, so that confident inputs count more.
    """
    softened = kind.softened(rows.logits, temperature)
    noise = torch.zeros_like(softened)
    for i, index in enumerate(indices):
        own = rows.inputs == i
        noise[own] = fisher_noise(kind, softened[own].detach(), noise_generator(seed, index))
    rows.logits.backward(noise)

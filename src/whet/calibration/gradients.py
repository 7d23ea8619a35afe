"""One pass of a model over calibration data: hooks, gradients of activations, and noise sent back from the logits.

Gradients are those of random noise h at the logits, with E[h hᵀ] the covariance diag(p) − p pᵀ of the model's own
predictions. That is the curvature of KL(p ‖ ·), so that what comes back measures what a change costs in KL, in one
backward pass for any number of classes and without labels.

Source: Martens, Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", 2015, arXiv
1503.05671.
Differs: random signs shaped to the exact covariance, instead of sampled labels, which a confident model would almost
never draw wrong.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from whet.tasks.data import Batch, Batches
from whet.utils.distributed import items_of_process

__all__ = ["activation_gradients", "backward_fisher_noise", "batches_of_process", "fisher_noise", "noise_generator"]


@contextlib.contextmanager
def activation_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients of activations from the embeddings up, and none of weights, while the block runs: half the cost."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    handle = embeddings.register_forward_hook(lambda _module, _inputs, out: out.requires_grad_())
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        handle.remove()
        for parameter, value in wanted.items():
            parameter.requires_grad_(value)


def noise_generator(seed: int, place: int) -> torch.Generator:
    """Return the generator of one example's noise, whatever batch it is in and whichever process draws it."""
    own = np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(own[0] >> np.uint64(1)))


def batches_of_process(batches: Batches) -> Iterator[tuple[range, Batch]]:
    """Yield this process's share of the batches, each with the places of its examples among all.

    Raises:
        InvalidData: there are fewer batches than processes.
    """
    ends = np.cumsum([len(batch["input_ids"]) for batch in batches])
    for i, batch in items_of_process(batches.batches):
        yield range(int(ends[i]) - len(batch["input_ids"]), int(ends[i])), batch


def fisher_noise(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise shaped like `logits` with the covariance that is the curvature of KL in them.

    Args:
        logits: (..., classes); with one class they are scores with unit variance.
        generator: a CPU generator of random signs.
    """
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1
    if logits.shape[-1] == 1:
        return signs
    p = logits.detach().softmax(-1)
    noise = p.sqrt() * signs
    return noise - p * noise.sum(-1, keepdim=True)


def backward_fisher_noise(
    logits: Tensor, mask: Tensor, *, seed: int, places: Iterable[int], temperature: float = 1.0
) -> None:
    """Run the backward pass of `fisher_noise` at the logits; how examples are batched changes nothing.

    Args:
        logits: (examples, classes), or (examples, tokens, classes) for a model that answers at every token.
        mask: (examples, tokens) the attention mask; padding sends nothing back.
        seed: of all noise.
        places: of the examples among all, each of which draws its own.
        temperature: more than 0; predictions are softened by it, so that examples of which a model is sure count too.
    """
    softened = logits if logits.shape[-1] == 1 else logits / temperature
    own = zip(softened, places, strict=True)
    noise = torch.stack([fisher_noise(one, noise_generator(seed, place)) for one, place in own])
    logits.backward(noise * mask[..., None] if logits.dim() == 3 else noise)

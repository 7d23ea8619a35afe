"""Data-aware low rank as it is usually written down, to compare with: whitening by Cholesky and a full SVD.

For every layer alone: the second moment of its whole input, S from its Cholesky decomposition, the SVD of W S, and
W ≈ (U Σ)(Vᵀ S⁻¹). Layers that read the same input each gather it for themselves, and a wide input is whitened in full.

Source: Wang, Zheng, Wan, Zhang, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
Compression", ICLR 2025, arXiv 2403.07378, Algorithm 1.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from whet import Batches
from whet.models import dense_weight, removing_hooks

JITTER = 1e-6
"""First share of the mean eigenvalue that is added where Cholesky fails; then ten times as much."""


def moments(model: nn.Module, batches: Batches, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return (in, in) the sum of x xᵀ over real tokens of every layer's input, in float64."""
    found: dict[str, Tensor] = {}
    mask = torch.empty(0)

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs[mask.bool()]
        product = (rows.T @ rows).double()
        found[name] = found[name] + product if name in found else product

    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _module, inputs, name=name: add(name, inputs[0]))
        for name in layers
    ]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            mask = batch["attention_mask"]
            model(**batch)
    return found


def whitening(moment: Tensor) -> Tensor:
    """Return the lower triangular S with S Sᵀ = moment, with as much jitter as Cholesky asks for."""
    jitter = 0.0
    while True:
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(moment + jitter * torch.eye(len(moment)).to(moment))
        if not failed:
            return lower
        jitter = max(10 * jitter, JITTER * float(moment.diagonal().mean()))


def decompose(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the factors (out, r) and (r, in) of full rank of every layer, of which the first k are those of rank k."""
    found = {}
    for name, moment in inputs.items():
        lower = whitening(moment)
        u, sigma, vt = torch.linalg.svd(dense_weight(model.get_submodule(name)).double() @ lower, full_matrices=False)
        found[name] = (u * sigma, torch.linalg.solve_triangular(lower, vt, upper=False, left=False))
    return found

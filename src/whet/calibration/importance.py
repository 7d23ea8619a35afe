"""The importance of each input feature of a dense layer, from one pass over calibration data.

`activation_magnitudes` measures how large the features are: E|x_i| over real tokens. `fisher_importance` measures how
much the loss depends on the weights that read them: Σ_j E[(∂L/∂W_ji)²], an expectation over examples. It draws
`fisher_noise` at the logits instead of sampled labels, so it needs no labels and also works for confident models.

Source: Hsu, Hua, Chang, Lou, Shen, Jin, "Language model compression with weighted low-rank factorization", ICLR 2022,
arXiv 2207.00112, for `fisher_importance`.
Differs: gradients of single examples are squared, never the gradient of a batch's mean, which is smaller.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from whet.calibration.gradients import activation_gradients, backward_fisher_noise, batches_of_process
from whet.errors import InvalidModel
from whet.models.architecture import changes_length, dense_weight, rows_read
from whet.models.first_token import first_token_layers
from whet.models.inference import answers, kind_of_model, model_inputs, removing_hooks
from whet.tasks.data import Batch, Batches
from whet.utils.distributed import sum_over_processes

__all__ = ["activation_magnitudes", "clamp_importance", "fisher_importance", "token_counts"]


def activation_magnitudes(model: nn.Module, batches: Batches, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return E|x| of each layer's input over real tokens, (in,) float64 by layer name.

    Args:
        model: a model in eval mode.
        batches: calibration data; padding is left out.
        layers: names of dense layers.

    Raises:
        InvalidModel: a layer does not see one row per token.
    """
    sums, counts = _zeros(model, layers), dict.fromkeys(layers, 0.0)
    first_alone, changes = first_token_layers(model), changes_length(model)
    mask = torch.empty(0)

    def add(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            layer_mask = rows_read(name, mask, first_alone, rows=_rows(inputs[0], mask) if changes else 0)
            counts[name] += float(layer_mask.sum())
            _add(sums[name], (_by_example(inputs[0], layer_mask, name).abs() * layer_mask).sum((0, 1)))

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(add(name)) for name in layers]
    with removing_hooks(handles), torch.inference_mode():
        for _, batch in batches_of_process(batches):
            inputs = model_inputs(batch, model)
            mask = _mask(batch, model)
            model(**inputs)
    return {
        name: sum_over_processes(total) / float(sum_over_processes(torch.tensor(counts[name])))
        for name, total in sums.items()
    }


def fisher_importance(model: nn.Module, batches: Batches, layers: Sequence[str], *, seed: int) -> dict[str, Tensor]:
    """Return the expected squared gradient of each input feature's weights, summed over outputs.

    Args:
        model: a model in eval mode; its weights and their `requires_grad` stay unchanged.
        batches: calibration data; padding is left out.
        layers: names of dense layers.
        seed: seed of the noise at the logits.

    Returns:
        (in,) float64 by layer name.

    Raises:
        InvalidModel: a layer does not see one row per token.
    """
    sums = _zeros(model, layers)
    first_alone, changes = first_token_layers(model), changes_length(model)
    mask = torch.empty(0)

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
            layer_mask = rows_read(name, mask, first_alone, rows=_rows(inputs[0], mask) if changes else 0)
            rows = _by_example(inputs[0].detach(), layer_mask, name) * layer_mask

            def square(gradient: Tensor) -> None:
                weight_gradient = _by_example(gradient, layer_mask, name).transpose(1, 2) @ rows
                _add(sums[name], weight_gradient.square().sum((0, 1)))

            if out.requires_grad:  # no answer depends on LiLT's last layout layers
                out.register_hook(square)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    kind = kind_of_model(model)
    with removing_hooks(handles), activation_gradients(model):
        for indices, batch in batches_of_process(batches):
            mask = _mask(batch, model)
            backward_fisher_noise(kind, answers(model, batch, kind), seed=seed, indices=indices)
    return {name: sum_over_processes(total) / batches.inputs for name, total in sums.items()}


def _zeros(model: nn.Module, layers: Sequence[str]) -> dict[str, Tensor]:
    weights = {name: dense_weight(model.get_submodule(name)) for name in layers}
    return {name: torch.zeros(w.shape[1], dtype=torch.float64, device=w.device) for name, w in weights.items()}


def _add(total: Tensor, part: Tensor) -> None:
    total += part


def _mask(batch: Batch, model: nn.Module) -> Tensor:
    """The mask of real tokens, (examples, tokens, 1), also for a model that reads none, such as FNet."""
    return batch["attention_mask"][..., None].float().to(next(model.parameters()).device)


def _rows(tensor: Tensor, mask: Tensor) -> int:
    """The rows of each example that a layer reads."""
    return tensor[..., 0].numel() // len(mask)


def _by_example(tensor: Tensor, mask: Tensor, name: str) -> Tensor:
    """Return the tensor as (examples, tokens, features) in float32, also where the model flattens tokens into rows."""
    if tensor.numel() != mask.numel() * tensor.shape[-1]:
        raise InvalidModel(
            f"{name} must see one row per token, but got {tuple(tensor.shape)}; leave it out with include"
        )
    return tensor.reshape(*mask.shape[:2], -1).float()


def clamp_importance(importance: Tensor, *, share: float = 1e-6) -> Tensor:
    """Return the importance, (in,), raised to at least `share` times its mean, so that it can be divided by.

    Args:
        importance: (in,) non-negative.
        share: the floor, as a fraction of the mean.
    """
    floor = share * importance.mean()
    return importance.clamp_min(floor) if floor > 0 else torch.ones_like(importance)


def token_counts(batches: Batches, tokens: int) -> Tensor:
    """Return how often each token id occurs in the batches, (tokens,) float32; padding is left out.

    Args:
        batches: calibration data.
        tokens: size of the vocabulary.
    """
    counts = torch.zeros(tokens)
    for _, batch in batches_of_process(batches):
        counts += torch.bincount(batch["input_ids"][batch["attention_mask"].bool()].cpu(), minlength=tokens)
    return sum_over_processes(counts)

"""Second moments of the activations and gradients of linear layers, from one pass over calibration data.

For a layer y = Wx + b most methods need only the narrower side. At the input z = x and h = Wᵀg; at the output z = Wx
and h = g, where g is the gradient that reaches y. Both moments, E[z zᵀ] and E[h hᵀ], are then min(in, out) wide, and
layers that read the same tensor (query, key, value) share the first. Methods that remove inputs take z = x and h = g,
`Side.BOTH`.

Gradients are those of `fisher_noise`, so that E[h hᵀ] is the curvature of KL in z.

A layer may see (batch, length, in) in one call, or, like the recurrent layers of an LSTM, some time steps of every
example in each of several calls; together, the calls must cover all tokens of the batch. A layer that runs several
times, as ALBERT's one block does, sums over its uses; so does one that also reads what all examples share, as
DeBERTa's keys read relative positions.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.calibration.gradients import activation_gradients, backward_fisher_noise, batches_of_process
from whet.errors import InvalidModel
from whet.models.architecture import changes_length, dense_bias, dense_weight, rows_read
from whet.models.first_token import first_token_layers
from whet.models.inference import answers, kind_of_model, removing_hooks
from whet.numerics.moments import Moments, Side, narrower_side
from whet.tasks.data import Batch, Batches
from whet.utils.distributed import sum_over_processes

__all__ = ["collect_moments"]

TINY = 1e-12
"""Gradient moment, summed over the data, of each output that no answer depends on."""


def collect_moments(
    model: nn.Module,
    batches: Batches,
    layers: Sequence[str],
    *,
    seed: int | None = None,
    temperature: float = 1.0,
    sides: Mapping[str, Side] | None = None,
) -> dict[str, Moments]:
    """Return the moments of each layer by name, from one pass over the batches, which several processes share.

    Args:
        model: a model in eval mode; its weights and their `requires_grad` stay unchanged.
        batches: calibration data; padding is left out.
        layers: names of dense layers, or of embeddings, for which `sides` must say `Side.OUTPUT`.
        seed: seed of the noise for gradient moments; None collects no gradients.
        temperature: softens the predictions; see `backward_fisher_noise`.
        sides: the side of each layer at which moments are taken; the narrower side if a layer is absent.

    Raises:
        InvalidData: there are fewer batches than processes.
        InvalidModel: a layer does not see one row per token, or does not run at all.
    """
    collector = _Collector(model, layers, sides or {}, seed=seed, temperature=temperature)
    gradients = torch.no_grad() if seed is None else activation_gradients(model)
    with removing_hooks(collector.handles()), gradients:
        for indices, batch in batches_of_process(batches):
            collector.run(batch, indices)
    return collector.moments()


class _Sum:
    """Running sums of rows and of their outer products: products in fp32 or better, sums in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        self._add(len(rows), rows.sum(0), rows.T @ rows)

    def merge(self, other: "_Sum") -> None:
        if other.first is not None and other.second is not None:
            self._add(other.count, other.first, other.second)

    def _add(self, count: int, first: Tensor, second: Tensor) -> None:
        if self.first is None or self.second is None:
            self.first, self.second = (total.to(torch.float64, copy=True) for total in (first, second))
        else:
            self.first += first
            self.second += second
        self.count += count

    def means(self, name: str) -> tuple[Tensor, Tensor]:
        if self.first is None or self.second is None:
            raise InvalidModel(
                f"every layer must run on the calibration data, but {name} did not; leave it out with include"
            )
        count = int(sum_over_processes(torch.tensor(self.count)))
        # in place, since a second set of all moments would double the memory
        return sum_over_processes(self.first).div_(count), sum_over_processes(self.second).div_(count)


class _Activations:
    """Sums of what layers see; layers that read the same tensors, such as query, key and value, share theirs."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, ...], _Sum] = {}
        self.tensor: Tensor | None = None
        self.readers: list[str] = []
        self.seen = _Sum()

    def add(self, name: str, tensor: Tensor, real: Tensor) -> None:
        """Add the real rows of what a layer reads; which others read it too shows in the calls that follow."""
        if self.tensor is tensor and name not in self.readers:
            self.readers.append(name)
            return
        self.flush()
        self.tensor, self.readers, self.seen = tensor, [name], _Sum()
        self.seen.add(_rows(tensor.detach(), real))

    def flush(self) -> None:
        """Put away the sums of the tensor that was read last."""
        if self.readers:
            self.sums.setdefault(tuple(self.readers), _Sum()).merge(self.seen)
        self.tensor, self.readers = None, []

    def parts_of(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Return the keys of `sums` that make up what a layer saw."""
        return tuple(sorted(readers for readers in self.sums if name in readers))

    def whole(self, parts: tuple[tuple[str, ...], ...]) -> _Sum:
        """Return the sum of some of `sums`."""
        if len(parts) == 1:
            return self.sums[parts[0]]
        total = _Sum()
        for part in parts:
            total.merge(self.sums[part])
        return total


class _Collector:
    """The hooks of one pass and the sums that they update."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        sides: Mapping[str, Side],
        *,
        seed: int | None,
        temperature: float,
    ) -> None:
        self.model, self.kind = model, kind_of_model(model)
        self.device = next(model.parameters()).device
        self.layers = {name: model.get_submodule(name) for name in layers}
        others = {name: layer for name, layer in self.layers.items() if name not in sides}
        self.sides = {**{name: narrower_side(dense_weight(layer)) for name, layer in others.items()}, **sides}
        self.seed = seed
        self.temperature = temperature
        self.activations = _Activations()
        self.backward = {name: _Sum() for name in layers}
        self.examples = 0
        self.mask = torch.empty(0, 0, dtype=torch.bool)
        self.first_alone, self.changes_length = first_token_layers(model), changes_length(model)
        self.steps = dict.fromkeys(layers, 0)
        self.real: dict[str, Tensor] = {}

    def run(self, batch: Batch, indices: range) -> None:
        """Run one batch forward and, for gradient moments, noise backward from the logits."""
        mask = batch["attention_mask"].to(self.device)
        self.mask, self.steps = mask.bool(), dict.fromkeys(self.layers, 0)
        self.examples += len(mask)
        rows = answers(self.model, batch, self.kind)
        for name, steps in self.steps.items():
            # a layer that does not run in this batch may run in others; one that never runs is refused at the end
            if 0 < steps < rows_read(name, mask, self.first_alone).shape[1]:
                raise InvalidModel(
                    f"{name} must see one row per token, but got {steps} of the {mask.shape[1]} of each example; "
                    "leave it out with include"
                )
        if self.seed is not None:
            backward_fisher_noise(self.kind, rows, seed=self.seed, indices=indices, temperature=self.temperature)
        self.activations.flush()

    def handles(self) -> list[RemovableHandle]:
        """Register the hooks of every layer and return their handles."""
        handles: list[RemovableHandle] = []
        for name, layer in self.layers.items():
            if self.sides[name] is Side.OUTPUT:
                handles.append(layer.register_forward_hook(self._output_hook(name, dense_bias(layer))))
            else:
                handles.append(layer.register_forward_pre_hook(self._input_hook(name)))
            if self.sides[name] is Side.BOTH and self.seed is not None:
                handles.append(layer.register_forward_hook(self._output_gradient_hook(name)))
        return handles

    def moments(self) -> dict[str, Moments]:
        """Return the moments by layer name."""
        parts = {name: self.activations.parts_of(name) for name in self.layers}
        # sums of several parts first, since a part becomes its own mean in place
        means: dict[tuple[tuple[str, ...], ...], tuple[Tensor, Tensor]] = {}
        for name, own in sorted(parts.items(), key=lambda pair: -len(pair[1])):
            if own not in means:
                means[own] = self.activations.whole(own).means(name)
        examples = int(sum_over_processes(torch.tensor(self.examples)))
        moments = {}
        for name in self.layers:
            mean, second = means[parts[name]]
            gradient = self.backward[name].second
            if gradient is None and self.seed is not None:
                gradient = self._no_curvature(name, second)
            moments[name] = Moments(
                mean, second, None if gradient is None else sum_over_processes(gradient).div_(examples)
            )
        return moments

    def _no_curvature(self, name: str, activations: Tensor) -> Tensor:
        """The gradient moment of a layer on which no answer depends, such as the last of a stream that ends.

        It is not zero, so that it has an inverse, but any loss in the layer costs next to nothing.
        """
        both = self.sides[name] is Side.BOTH
        width = len(dense_weight(self.layers[name])) if both else len(activations)
        return TINY * torch.eye(width, dtype=activations.dtype, device=activations.device)

    def _input_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            tensor = inputs[0]
            real = self._real(tensor, name)
            self.activations.add(name, tensor, real)
            self.real[name] = real
            if self.seed is None or self.sides[name] is Side.BOTH:
                return None
            # a separate view gets only the gradient that comes through this layer
            # (the initial state of a recurrent layer is a constant without a gradient)
            view = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            view.register_hook(self._gradient_hook(name, real))
            return (view, *inputs[1:])

        return hook

    def _output_hook(self, name: str, bias: Tensor | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            real = self._real(out, name)
            self.activations.add(name, out.detach() if bias is None else out.detach() - bias, real)
            if self.seed is not None:
                self._add_gradient_hook(out, name, real)

        return hook

    def _output_gradient_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, _inputs, out: self._add_gradient_hook(out, name, self.real[name])

    def _add_gradient_hook(self, out: Tensor, name: str, real: Tensor) -> None:
        # in place, since the model continues with this very tensor
        output = out if out.requires_grad else out.requires_grad_()
        output.register_hook(self._gradient_hook(name, real))

    def _gradient_hook(self, name: str, real: Tensor) -> Callable[[Tensor], None]:
        return lambda gradient: self.backward[name].add(_rows(gradient, real))

    def _real(self, tensor: Tensor, name: str) -> Tensor:
        """Return the indices of real tokens among the rows of a layer's call, which holds the next time steps."""
        mask = rows_read(name, self.mask, self.first_alone)
        examples, length = mask.shape
        rows = tensor[..., 0].numel()
        steps, rest = divmod(rows, examples)
        if self.changes_length and not rest:
            self.steps[name] = length
            return rows_read(name, self.mask, self.first_alone, rows=steps).reshape(-1).nonzero().squeeze(-1)
        if self._is_common(tensor, examples) or (examples == 1 and rows > length):
            return torch.arange(rows, device=mask.device)
        start = self.steps[name] % length  # a layer that has seen all tokens runs once more
        self.steps[name] = end = start + steps
        if rest or end > length:
            raise InvalidModel(
                f"{name} must see one row per token, but got {tuple(tensor.shape)}; leave it out with include"
            )
        return mask[:, start:end].reshape(-1).nonzero().squeeze(-1)

    @staticmethod
    def _is_common(tensor: Tensor, examples: int) -> bool:
        """Return whether all examples share what a layer reads, (1, rows, in), such as relative positions."""
        return tensor.dim() == 3 and tensor.shape[0] == 1 < examples


def _rows(tensor: Tensor, real: Tensor) -> Tensor:
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows[real] if len(real) < len(rows) else rows

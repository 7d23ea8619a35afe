"""One pass over calibration data: second moments of what enters and leaves each linear layer, and of its gradients.

For a layer y = Wx + b most methods need only the narrower side. On the input side z = x and h = Wᵀg; on the output side
z = Wx and h = g, where g is the gradient that reaches y. Both moments, E[z zᵀ] and E[h hᵀ], are then min(in, out) wide,
and layers that read the same tensor (query, key, value) share the first. Where single inputs are to go, z = x and
h = g.

Gradients are those of `passes.fisher_noise`, so that E[h hᵀ] measures what a change of z costs in KL.

A layer sees (batch, length, in) in one call, or, as the recurrent layers of an LSTM, one or more time steps of every
example in each of several calls; together they must be all the tokens of the batch.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from whet.calibration.gradients import activation_gradients, backward_fisher_noise, batches_of_process
from whet.errors import InvalidModel
from whet.models.architecture import dense_bias, dense_weight, first_token_layers, rows_read
from whet.models.inference import removing_hooks, to_device
from whet.numerics.moments import Moments, Side, narrower_side
from whet.tasks.data import Batch, Batches
from whet.utils.distributed import sum_over_processes

__all__ = ["collect_moments"]


def collect_moments(
    model: nn.Module,
    batches: Batches,
    layers: Sequence[str],
    *,
    seed: int | None = None,
    temperature: float = 1.0,
    sides: Mapping[str, Side] | None = None,
) -> dict[str, Moments]:
    """Return the moments of the named dense layers, from one pass over the batches, which several processes share.

    Args:
        model: in eval mode; its weights and their `requires_grad` are left as they were.
        batches: the calibration data; padding is left out.
        layers: names of dense layers, and of embeddings, whose side is the output.
        seed: asks for gradient moments too, with noise from this seed.
        temperature: softens the predictions whose noise it is; see `passes.send_back_noise`.
        sides: the side on which each layer is looked at, if it is not the narrower.

    Raises:
        InvalidModel: a layer does not see one row per token.
    """
    collector = _Collector(model, layers, sides or {}, seed=seed, temperature=temperature)
    gradients = torch.no_grad() if seed is None else activation_gradients(model)
    with removing_hooks(collector.handles()), gradients:
        for places, batch in batches_of_process(batches):
            collector.run(batch, places)
    return collector.moments()


class _Sum:
    """A running sum of rows and of their outer products: fp32 products, float64 sums."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        rows = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        product, total = rows.T @ rows, rows.sum(0)
        if self.first is None or self.second is None:
            self.first, self.second = total.double(), product.double()
        else:
            self.first += total
            self.second += product
        self.count += len(rows)

    def means(self) -> tuple[Tensor, Tensor]:
        if self.first is None or self.second is None:
            raise InvalidModel("every layer must run on the calibration data, but one did not; leave it out")
        count = int(sum_over_processes(torch.tensor(self.count)))
        # in place: a second set of all moments would double the memory
        return sum_over_processes(self.first).div_(count), sum_over_processes(self.second).div_(count)


class _Collector:
    """The hooks of one pass."""

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        sides: Mapping[str, Side],
        *,
        seed: int | None,
        temperature: float,
    ) -> None:
        self.model = model
        self.layers = {name: model.get_submodule(name) for name in layers}
        others = {name: layer for name, layer in self.layers.items() if name not in sides}
        self.sides = {**{name: narrower_side(dense_weight(layer)) for name, layer in others.items()}, **sides}
        self.seed = seed
        self.temperature = temperature
        self.activations = {name: _Sum() for name in layers}
        self.backward = {name: _Sum() for name in layers}
        self.examples = 0
        self.mask = torch.empty(0, 0, dtype=torch.bool)
        self.first_alone = first_token_layers(model)
        self.steps = dict.fromkeys(layers, 0)
        self.last_input: tuple[Tensor, str] | None = None
        self.real: dict[str, Tensor] = {}

    def run(self, batch: Batch, places: range) -> None:
        """Pass one batch forward and, for gradients, noise back from the logits."""
        inputs = to_device(batch, self.model)
        mask = inputs["attention_mask"]
        self.mask, self.steps = mask.bool(), dict.fromkeys(self.layers, 0)
        self.examples += len(mask)
        logits = self.model(**inputs).logits
        for name, steps in self.steps.items():
            # a layer without any is refused at the end: one that runs on some batches only is none
            if 0 < steps < rows_read(name, mask, self.first_alone).shape[1]:
                raise InvalidModel(
                    f"{name} must see one row per token, but got {steps} of the {mask.shape[1]} of each example; "
                    "leave it out"
                )
        if self.seed is not None:
            backward_fisher_noise(logits, mask, seed=self.seed, places=places, temperature=self.temperature)
        self.last_input = None

    def handles(self) -> list[RemovableHandle]:
        """Put hooks on every layer."""
        handles: list[RemovableHandle] = []
        for name, layer in self.layers.items():
            if self.sides[name] is Side.OUTPUT:
                handles.append(layer.register_forward_hook(self._output_hook(name, dense_bias(layer))))
            else:
                handles.append(layer.register_forward_pre_hook(self._input_hook(name)))
            if self.sides[name] is Side.BOTH and self.seed is not None:
                handles.append(layer.register_forward_hook(self._answer_hook(name)))
        return handles

    def moments(self) -> dict[str, Moments]:
        """What was collected, by layer."""
        shared: dict[int, tuple[Tensor, Tensor]] = {}
        examples = int(sum_over_processes(torch.tensor(self.examples)))
        found = {}
        for name in self.layers:
            total = self.activations[name]
            if id(total) not in shared:
                shared[id(total)] = total.means()
            mean, second = shared[id(total)]
            gradient = self.backward[name].second
            found[name] = Moments(
                mean, second, None if gradient is None else sum_over_processes(gradient).div_(examples)
            )
        return found

    def _input_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...] | None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            tensor = inputs[0]
            real = self._real(tensor, name)
            if self.last_input is not None and self.last_input[0] is tensor:
                self.activations[name] = self.activations[self.last_input[1]]
            else:
                self.activations[name].add(_rows(tensor.detach(), real))
                self.last_input = (tensor, name)
            self.real[name] = real
            if self.seed is None or self.sides[name] is Side.BOTH:
                return None
            # a view of its own, so that the gradient is what comes back through this layer alone
            # (the first state of a recurrent layer comes from nowhere, and has no gradient to begin with)
            own = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            own.register_hook(self._gradient_hook(name, real))
            return (own, *inputs[1:])

        return hook

    def _output_hook(self, name: str, bias: Tensor | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
            real = self._real(out, name)
            rows = _rows(out.detach(), real)
            self.activations[name].add(rows if bias is None else rows - bias)
            if self.seed is not None:
                self._watch(out, name, real)

        return hook

    def _answer_hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, _inputs, out: self._watch(out, name, self.real[name])

    def _watch(self, out: Tensor, name: str, real: Tensor) -> None:
        # (in place where it has no gradient yet: the model goes on with this very tensor)
        own = out if out.requires_grad else out.requires_grad_()
        own.register_hook(self._gradient_hook(name, real))

    def _gradient_hook(self, name: str, real: Tensor) -> Callable[[Tensor], None]:
        return lambda gradient: self.backward[name].add(_rows(gradient, real))

    def _real(self, tensor: Tensor, name: str) -> Tensor:
        """Which rows of a layer's next call are real: it holds the next time steps of every example."""
        mask = rows_read(name, self.mask, self.first_alone)
        examples, length = mask.shape
        steps, rest = divmod(tensor[..., 0].numel(), examples)
        start = self.steps[name]
        self.steps[name] = end = start + steps
        if rest or end > length:
            raise InvalidModel(f"{name} must see one row per token, but got {tuple(tensor.shape)}; leave it out")
        return mask[:, start:end].reshape(-1).nonzero().squeeze(-1)


def _rows(tensor: Tensor, real: Tensor) -> Tensor:
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows[real] if len(real) < len(rows) else rows

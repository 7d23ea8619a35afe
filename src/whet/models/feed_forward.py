"""The feed-forward neurons of a model: hidden features that an elementwise function computes and one layer reads.

A set of neurons is h = f(W₁x), or h = f(W₁x, W₂x) with a gate, where neuron j depends only on row j of the weights, and
y = W₃h is the only reader of h. W₁ and W₂ may be one layer, with first the rows of one and then those of the other. The
search uses no module names. In each block, layers with as many outputs as a later layer has inputs, or twice as many,
are candidates, and an experiment decides: it adds noise to half of the entries of W₁x and W₂x while W₃ still reads the
h without noise. The candidate is confirmed if h changes only in the noisy half, so that neurons are independent, and
the logits do not change, so that nothing else reads h. An attention fails, since it mixes values over tokens. At last
some neurons are taken out, and the family's own code must compute the others as before (see `whet.models.proof`).
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from whet.errors import NothingToCompress
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.inference import answers, kind_of_model, removing_hooks
from whet.models.layers.resized import Resized
from whet.models.proof import close, example_of, proven
from whet.models.surgery import replace_module
from whet.tasks.data import Batch, Batches

__all__ = ["FeedForward"]

FeedForwardLayers = TypeVar("FeedForwardLayers", bound="FeedForward")


class FeedForward(NamedTuple):
    """The linear layers around one set of neurons, by module name."""

    inputs: tuple[str, ...]
    """The layers whose rows are the neurons: one, or two if one is a gate, or one that holds both."""
    output: str
    """The layer whose columns are the neurons."""
    width: int = 1
    """Features that pruning removes together."""

    @classmethod
    def all_of(cls, model: nn.Module, include: str, batches: Batches) -> list[Self]:
        """Return the sets of neurons whose output layer's name the wildcard matches, in module order.

        Args:
            model: a model in eval mode.
            include: wildcard over names of output layers.
            batches: calibration data; a few examples run through the model.

        Raises:
            NothingToCompress: the model has no such neurons, or none that matches.
        """
        parts = cls._find(model, example_of(batches))
        if not parts:
            raise NothingToCompress(
                f"blocks must have neurons between linear layers, which one linear layer reads, but "
                f"{type(model).__name__} has none; factorise the layers instead, with --method kfac"
            )
        matching = [part for part in parts if fnmatchcase(part.output, include)]
        if not matching:
            names = ", ".join(part.output for part in parts[:6])
            raise NothingToCompress(
                f"no layer that reads neurons matches {include!r}; the layers here are {names}, ..."
            )
        return matching

    @classmethod
    def _find(cls, model: nn.Module, batch: Batch) -> list[Self]:
        """Return all sets of neurons; as blocks are alike, their corresponding candidates are tested together."""
        architecture = Architecture.of(model)
        candidates = [
            list(cls._candidates(model, [name for name in architecture.linears if name.startswith(f"{block}.")]))
            for block in architecture.parts
        ]
        confirmed: list[Self] = []
        for i in range(max(map(len, candidates), default=0)):
            used = {name for part in confirmed for name in (*part.inputs, part.output)}
            tested = [row[i] for row in candidates if i < len(row) and not used & {*row[i].inputs, row[i].output}]
            confirmed += _confirmed(model, tested, batch)
        order = {name: index for index, name in enumerate(architecture.linears)}
        return sorted(confirmed, key=lambda part: order[part.output])

    @classmethod
    def _candidates(cls, model: nn.Module, names: Sequence[str]) -> Iterator[Self]:
        """Yield the sets that the shapes of one block's layers allow; for one output, most inputs first."""
        shapes = [tuple(dense_weight(model.get_submodule(name)).shape) for name in names]
        for index, name in enumerate(names):
            first = index
            while first and shapes[first - 1] == shapes[index][::-1]:
                first -= 1
            for start in range(first, index):
                yield cls(tuple(names[start:index]), name)
            # one layer holds the gate too
            for fused in (place for place in (index - 1, index + 1) if 0 <= place < len(names)):
                if shapes[fused] == (2 * shapes[index][1], shapes[index][0]):
                    yield cls((names[fused],), name)

    def keep(self, model: nn.Module, kept: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See `Removable.keep`."""
        neurons = dense_weight(model.get_submodule(self.output)).shape[1]
        for name in self.inputs:
            layer = model.get_submodule(name)
            rows = (torch.arange(0, len(dense_weight(layer)), neurons).to(kept)[:, None] + kept).flatten()
            layer_bias = dense_bias(layer)
            narrow = Resized.of(dense_weight(layer)[rows], None if layer_bias is None else layer_bias[rows])
            replace_module(model, name, narrow)
        replace_module(model, self.output, Resized.of(weight, bias))


def _confirmed(model: nn.Module, parts: Sequence[FeedForwardLayers], batch: Batch) -> list[FeedForwardLayers]:
    """Return the candidates whose neurons are independent, have one reader and can leave."""
    if not parts:
        return []
    experiment = _NoiseExperiment(model, parts)
    before, after = experiment.logits(batch, noise=False), experiment.logits(batch, noise=True)
    independent = [part for part in parts if part.output in experiment.independent]
    if close(before, after) and (not independent or proven(model, independent, batch)):
        return independent
    # another module reads the neurons of a candidate and spreads its noise to the others: test each one alone
    return [] if len(parts) == 1 else [part for single in parts for part in _confirmed(model, [single], batch)]


class _NoiseExperiment:
    """Two passes over one batch, without and with noise in the neurons; the readers always get the first pass's."""

    def __init__(self, model: nn.Module, parts: Sequence[FeedForward]) -> None:
        self.model = model
        self.parts = parts
        self.noise = False
        self.clean: dict[str, list[Tensor]] = {part.output: [] for part in parts}
        self.calls: dict[str, int] = {}
        self.dependent: set[str] = set()

    @property
    def independent(self) -> set[str]:
        """The layers that read independent neurons, in every call."""
        return {name for name, clean in self.clean.items() if clean} - self.dependent

    def logits(self, batch: Batch, *, noise: bool) -> Tensor:
        """Return the logits; the pass without noise comes first."""
        self.noise = noise
        self.calls = dict.fromkeys(self.clean, 0)
        handles = []
        for part in self.parts:
            for name in part.inputs:
                write = lambda _module, _inputs, out, name=part.output: self._add_noise(out, name)  # noqa: E731
                handles.append(self.model.get_submodule(name).register_forward_hook(write))
            read = lambda _module, inputs, name=part.output: self._compare(inputs[0], name)  # noqa: E731
            handles.append(self.model.get_submodule(part.output).register_forward_pre_hook(read))
        with removing_hooks(handles), torch.inference_mode():
            return answers(self.model, batch, kind_of_model(self.model)).logits

    def _add_noise(self, out: Tensor, name: str) -> Tensor:
        if not self.noise:
            return out
        width = self.clean[name][0].shape[-1] if self.clean[name] else out.shape[-1]
        gates = out.shape[-1] // width
        noisy = _noisy(out.shape[:-1], width).repeat(*(1 for _ in out.shape[:-1]), gates).to(out.device)
        return torch.where(noisy, out + 3 * (1 + out.std()), out)

    def _compare(self, neurons: Tensor, name: str) -> tuple[Tensor]:
        if not self.noise:
            self.clean[name].append(neurons)
            return (neurons,)
        if self.calls[name] == len(self.clean[name]):
            self.dependent.add(name)
            return (neurons,)
        clean = self.clean[name][self.calls[name]]
        self.calls[name] += 1
        others = ~_noisy(neurons.shape[:-1], neurons.shape[-1]).to(neurons.device)
        if neurons.shape != clean.shape or not close(clean[others], neurons[others]):
            self.dependent.add(name)
        return (clean,)


def _noisy(rows: Sequence[int], width: int) -> Tensor:
    """Return (*rows, width) which entries get noise, the same ones for the same shape."""
    return torch.rand((*rows, width), generator=torch.Generator().manual_seed(0)) < 0.5

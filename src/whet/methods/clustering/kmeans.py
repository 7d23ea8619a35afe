"""Weight clustering: the weights of each layer take one of a few values, the centroids of k-means.

W ≈ codebook[assignments], with the least Σ_ij m_i (W_ji − c)² over the weights of a layer. All weights count alike,
m = 1, or as much as their inputs, m_i = E[x_i²]: the error of the outputs, if inputs were uncorrelated. A word of an
embedding is an input that is 0 or 1, so that m is how often it is read. With `epochs`, the centroids are then trained
to give the original's predictions and hidden states, while assignments stay.

Source: Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding", ICLR 2016, arXiv 1510.00149.
Differs: trained by distillation, with the mean of the gradients of a cluster in the place of their sum; weights can
count as their inputs; embeddings are clustered too; a pruned layer keeps its zeros as one of its clusters.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.moments import collect
from whet.calibration.resources import Resources, calibrated
from whet.errors import MissingResource
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.inference import removing_hooks, to_device
from whet.models.layers.codebook import Clustered, CodebookForm
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace
from whet.numerics.coding import Coding
from whet.numerics.kmeans import Start, quantized
from whet.numerics.moments import Side
from whet.tasks.data import Batches
from whet.training.trainer import distil
from whet.utils.progress import track

__all__ = ["KMeans"]


@dataclass(frozen=True, kw_only=True)
class KMeans(Method):
    """Give the weights of every layer and embedding a few values."""

    clusters: Annotated[int, Interval(ge=2, le=256)] = 16
    """Values of each layer; a weight then takes as many bits as their number has."""
    start: Start = "kmeans++"
    """Where centroids begin: evenly from the least weight to the greatest, at even shares of them, or drawn."""
    importance: Literal["none", "inputs"] = "none"
    """Whether weights count alike, or as much as their inputs on calibration data."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that it does not match stay as they are."""
    coding: Coding = "entropy"
    """How assignments are stored: all in as many bits (fixed), or frequent ones in fewer (entropy)."""
    epochs: Annotated[float, Interval(ge=0, lt=math.inf)] = 0
    """Passes over the training text in which the centroids learn from the original; 0 leaves them as they are."""
    learning_rate: Annotated[float, Interval(gt=0, lt=math.inf)] = 5e-5
    """Peak of AdamW's learning rate, of the centroids and of what is not clustered."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"clusters": 16}
    mildest: ClassVar[dict[str, Any]] = {"clusters": 256}

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; inputs are looked at and centroids trained only where that is asked for."""
        looked_at = {"calibration"} if self.importance == "inputs" else set()
        return self.needs | looked_at | ({"train", "teacher"} if self.epochs > 0 else set())

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        found = stored_weights(model, self.include, again=(Clustered,))
        names = list(found.values())
        masses = _inputs(model, names, calibrated(resources)) if self.importance == "inputs" else {}
        for number, (place, name) in enumerate(track(found.items(), "clustering", total=len(found))):
            few = self._few(model, place, name, masses.get(name), seed=resources.seed + number)
            replace(model, place, few)
        if self.epochs > 0:
            if resources.train is None or resources.teacher is None:
                raise MissingResource("training data and a teacher must be given, but got none; give --task")
            distil(
                model,
                resources.teacher,
                resources.train,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                temperature=1.0,
                hidden_states=1.0,
                seed=resources.seed,
            )
        return model

    def _few(self, model: nn.Module, place: str, name: str, masses: Tensor | None, *, seed: int) -> Clustered:
        """The clustered layer that takes a place, with the weights of the ordinary layer there."""
        weight, bias, own = weights_of(model.get_submodule(name))
        pruned = isinstance(model.get_submodule(place), Masked | MaskedEmbedding | Clustered)
        values = self._values(weight, masses, seed=seed, zeros=pruned and not bool(weight.all()))
        return Clustered.of(values, bias, CodebookForm(**asdict(own), coding=self.coding))

    def _values(self, weight: Tensor, masses: Tensor | None, *, seed: int, zeros: bool) -> Tensor:
        """The weight with the nearest centroid in the place of each number; zeros of a pruned layer stay zero."""
        there = weight != 0 if zeros else torch.ones_like(weight, dtype=torch.bool)
        values = weight[there]
        if not len(values):
            return weight
        own = None if masses is None else masses.expand_as(weight)[there]
        few = quantized(values, self.clusters - zeros, start=self.start, seed=seed, masses=own)
        return torch.zeros_like(weight).masked_scatter(there, few)


def _inputs(model: nn.Module, names: list[str], batches: Batches) -> dict[str, Tensor]:
    """The mean square of every input, (1, in) of a linear layer, (words, 1) of an embedding."""
    embeddings = [name for name in names if isinstance(model.get_submodule(name), nn.Embedding)]
    linears = [name for name in names if name not in embeddings]
    moments = collect(model, batches, linears, sides=dict.fromkeys(linears, Side.INPUT)) if linears else {}
    squares = {name: own.second.diagonal().clamp_min(0)[None] for name, own in moments.items()}
    return squares | _readings(model, embeddings, batches)


def _readings(model: nn.Module, names: list[str], batches: Batches) -> dict[str, Tensor]:
    """How often each word is read by real tokens, (words, 1), and once more: text that is still to come has others."""
    counts = {name: torch.ones(weights_of(model.get_submodule(name)).form.rows, dtype=torch.float64) for name in names}
    real = torch.empty(0)

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            read = inputs[0].expand_as(real)[real].cpu()
            counts[name] += torch.bincount(read, minlength=len(counts[name]))

        return count

    handles = [model.get_submodule(name).register_forward_pre_hook(counter(name)) for name in names]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            inputs = to_device(batch, model)
            real = inputs["attention_mask"].bool()
            model(**inputs)
    return {name: own[:, None].to(weights_of(model.get_submodule(name)).weight.device) for name, own in counts.items()}

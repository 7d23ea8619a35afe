"""Weight clustering: each weight of a layer takes one of a few values, the centroids of k-means.

W ≈ codebook[assignments] minimises Σ_ij m_i (W_ji − c)² over the weights of a layer. All weights count equally, m = 1,
or as their inputs, m_i = E[x_i²], which gives the error of the outputs if inputs are uncorrelated. A word of an
embedding is an input of 0 or 1, so that its m is its frequency. With `epochs`, the centroids are then distilled from
the baseline's predictions and hidden states, while the assignments stay.

Source: Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding", ICLR 2016, arXiv 1510.00149.
Differs: centroids are trained by distillation, with the mean of a cluster's gradients instead of their sum; weights can
count as their inputs; embeddings are clustered too; a pruned layer keeps its zeros as one of its clusters.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources, require_calibration
from whet.errors import MissingResource
from whet.methods._storage import stored_weights, weights_of
from whet.methods.base import Method, Stage
from whet.models.inference import model_inputs, removing_hooks
from whet.models.layers.codebook import Clustered, CodebookSpec
from whet.models.layers.masked import Masked, MaskedEmbedding
from whet.models.surgery import replace_module
from whet.numerics.coding import Coding
from whet.numerics.kmeans import Initialization, quantize_to_centroids
from whet.numerics.moments import Side
from whet.tasks.data import Batches
from whet.utils.progress import track
from whet.utils.ranges import LearningRate

__all__ = ["KMeans"]


@dataclass(frozen=True, kw_only=True)
class KMeans(Method):
    """Replace the weights of every linear layer and embedding by a few shared values."""

    n_clusters: Annotated[int, Interval(ge=2, le=256)] = 16
    """Number of distinct values in each layer, e.g. 16; a weight then takes at most log2(n_clusters) bits, rounded
    up."""
    init: Initialization = "kmeans++"
    """How to choose the first centroids: linear spaces them evenly between the extreme weights, density puts an equal
    number of weights between them, kmeans++ draws them at random."""
    importance: Literal["none", "inputs"] = "none"
    """How to weight errors: none counts all weights equally, inputs by the mean square of their input on calibration
    data."""
    include: str = "*"
    """Wildcard over the names of linear layers and embeddings; those that do not match stay unchanged."""
    coding: Coding = "entropy"
    """How to store assignments on disk: fixed gives all the same number of bits, entropy gives frequent ones fewer
    bits."""
    epochs: Annotated[float, Interval(ge=0, le=10_000)] = 0
    """Epochs in which the centroids are distilled from the baseline on the training text, e.g. 1; 0 trains nothing."""
    learning_rate: LearningRate = 5e-5
    """Peak learning rate of AdamW, for the centroids and all weights that are not clustered."""

    stage: ClassVar[Stage] = Stage.STORAGE
    needs: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[dict[str, Any]] = {"n_clusters": 16}
    renamed: ClassVar[Mapping[str, str]] = {"clusters": "n_clusters", "start": "init"}
    mildest: ClassVar[dict[str, Any]] = {"n_clusters": 256}

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; input importance needs calibration data, training needs its data and a teacher."""
        calibration = {"calibration"} if self.importance == "inputs" else set()
        return self.needs | calibration | ({"train", "teacher"} if self.epochs > 0 else set())

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        dense_names = stored_weights(model, self.include, again=(Clustered,))
        importance: dict[str, Tensor] = {}
        if self.importance == "inputs":
            importance = _input_squares(model, list(dense_names.values()), require_calibration(resources))
        for i, (name, dense) in enumerate(track(dense_names.items(), "clustering", total=len(dense_names))):
            replace_module(
                model, name, self._clustered(model, name, dense, importance.get(dense), seed=resources.seed + i)
            )
        if self.epochs > 0:
            if resources.train is None or resources.teacher is None:
                raise MissingResource("training data and a teacher must be given, but got none; give --task")
            from whet.training.trainer import distil  # slow to import

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

    def _clustered(self, model: nn.Module, name: str, dense: str, importance: Tensor | None, *, seed: int) -> Clustered:
        """Return the clustered layer that replaces the layer `name`, which holds the dense layer `dense`."""
        weight, bias, shape = weights_of(model.get_submodule(dense))
        pruned = isinstance(model.get_submodule(name), Masked | MaskedEmbedding | Clustered)
        values = self._values(weight, importance, seed=seed, zeros=pruned and not bool(weight.all()))
        return Clustered.of(values, bias, CodebookSpec(**asdict(shape), coding=self.coding))

    def _values(self, weight: Tensor, importance: Tensor | None, *, seed: int, zeros: bool) -> Tensor:
        """Return the weight with each number replaced by its centroid; with `zeros`, zeros stay zero."""
        clustered = weight != 0 if zeros else torch.ones_like(weight, dtype=torch.bool)
        values = weight[clustered]
        if not len(values):
            return weight
        masses = None if importance is None else importance.expand_as(weight)[clustered]
        centroids = quantize_to_centroids(values, self.n_clusters - zeros, init=self.init, seed=seed, masses=masses)
        return torch.zeros_like(weight).masked_scatter(clustered, centroids)


def _input_squares(model: nn.Module, names: list[str], batches: Batches) -> dict[str, Tensor]:
    """Return the mean square of every input by layer name, (1, in) for a linear layer, (words, 1) for an embedding."""
    embeddings = [name for name in names if isinstance(model.get_submodule(name), nn.Embedding)]
    linears = [name for name in names if name not in embeddings]
    moments = collect_moments(model, batches, linears, sides=dict.fromkeys(linears, Side.INPUT)) if linears else {}
    squares = {name: layer.second.diagonal().clamp_min(0)[None] for name, layer in moments.items()}
    return squares | _row_counts(model, embeddings, batches)


def _row_counts(model: nn.Module, names: list[str], batches: Batches) -> dict[str, Tensor]:
    """Return how often real tokens read each row of the named embeddings, (words, 1), plus one for unseen words."""
    counts = {name: torch.ones(weights_of(model.get_submodule(name)).spec.rows, dtype=torch.float64) for name in names}
    is_token = torch.empty(0)

    def counter(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].expand_as(is_token)[is_token].cpu()
            counts[name] += torch.bincount(rows, minlength=len(counts[name]))

        return count

    handles = [model.get_submodule(name).register_forward_pre_hook(counter(name)) for name in names]
    with removing_hooks(handles), torch.inference_mode():
        for batch in batches:
            inputs = model_inputs(batch, model)
            is_token = batch["attention_mask"].bool().to(inputs["input_ids"].device)
            model(**inputs)
    return {
        name: row_counts[:, None].to(weights_of(model.get_submodule(name)).weight.device)
        for name, row_counts in counts.items()
    }

"""Finds the parts of a model's blocks, and builds them from calibration statistics.

A part is a set of layers that change together: a self-attention, the layers around some neurons, or a single layer.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from whet.calibration.moments import collect_moments
from whet.errors import NothingToCompress
from whet.methods._candidates import Candidate
from whet.methods.pruning._attention_part import AttentionPart
from whet.methods.pruning._parts import BlockPart, FeedForwardPart, HeadGroupsPart, ReadFeatures
from whet.models.architecture import Architecture, dense_weight
from whet.models.attention import SelfAttention
from whet.models.feed_forward import FeedForward
from whet.models.head_groups import HeadGroups, attentions_with_heads
from whet.numerics.linalg import diagonal_blocks
from whet.numerics.low_rank import covariance_of, kfac_svd, svd_of_kl
from whet.numerics.moments import Moments, Side, moments_at, narrower_side
from whet.tasks.data import Batches
from whet.utils.progress import track

__all__ = ["PartLocation", "dissect", "part_locations"]

PartLocation = SelfAttention | HeadGroups | FeedForward | str
"""The layers of a part: those of an attention, those around neurons, or the name of a layer that belongs to neither."""


def part_locations(model: nn.Module, batches: Batches, *, include: str, factored: bool) -> dict[str, PartLocation]:
    """Return the locations of a model's parts by name, in module order.

    Args:
        model: the model, in eval mode.
        batches: the calibration data.
        include: wildcard over the names of parts. A part has the name of its attention, of the layer that reads its
            neurons, or of its single layer.
        factored: whether layers that belong to no attention and no neurons are parts too.

    Raises:
        NothingToCompress: the model has no part, or none matches `include`.
    """
    locations = _all_locations(model, batches, factored=factored)
    chosen = {name: location for name, location in locations.items() if fnmatchcase(name, include)}
    if not chosen:
        raise NothingToCompress(
            f"no part matches {include!r}; the parts here are {', '.join(list(locations)[:6])}, ..."
        )
    return chosen


def dissect(
    model: nn.Module,
    batches: Batches,
    chosen: Mapping[str, PartLocation],
    *,
    factored: bool,
    damping: float,
    temperature: float,
    seed: int,
) -> dict[str, BlockPart]:
    """Return the parts of a model's blocks by name, with the statistics that their configurations need.

    Args:
        model: the model, in eval mode.
        batches: the calibration data.
        chosen: the locations of the parts, from `part_locations`.
        factored: whether layers may be factorised.
        damping: number added to every variance, as a fraction of their mean.
        temperature: temperature that softens the predictions before gradients are taken.
        seed: seed of the noise from which gradients are taken.
    """
    both_sides = {name for location in chosen.values() for name in _two_sided_layers(location)}
    sides = {
        name: Side.BOTH if name in both_sides else narrower_side(dense_weight(model.get_submodule(name)))
        for location in chosen.values()
        for name in _layers(location)
        if factored or name in both_sides
    }
    moments = collect_moments(model, batches, list(sides), seed=seed, temperature=temperature, sides=sides)
    builder = _PartBuilder(model, moments, both_sides, factored=factored, damping=damping)
    return {name: builder.part(name, location) for name, location in track(chosen.items(), "analysing parts")}


def _all_locations(model: nn.Module, batches: Batches, *, factored: bool) -> dict[str, PartLocation]:
    """Return the locations of all parts by name, in the order of their layers."""
    locations: dict[str, PartLocation] = {}
    errors = []
    try:
        locations |= {location.name: location for location in attentions_with_heads(model, "*", batches)}
    except NothingToCompress as error:
        errors.append(error)
    try:
        locations |= {location.output: location for location in FeedForward.all_of(model, "*", batches)}
    except NothingToCompress as error:
        errors.append(error)
    # where sizes coincide, neurons pass the test for heads too; neurons leave one by one
    neurons = {name for one in locations.values() if isinstance(one, FeedForward) for name in _layers(one)}
    locations = {
        name: one for name, one in locations.items() if isinstance(one, FeedForward) or neurons.isdisjoint(_layers(one))
    }
    linears = Architecture.of(model).linears
    if factored:
        part_layers = {name for location in locations.values() for name in _layers(location)}
        locations |= {name: name for name in linears if name not in part_layers}
    if not locations:
        raise errors[0]
    position = {name: location for location, name in enumerate(linears)}
    return dict(sorted(locations.items(), key=lambda item: position[_layers(item[1])[0]]))


def _layers(location: PartLocation) -> tuple[str, ...]:
    return (location,) if isinstance(location, str) else (*location.inputs, location.output)


def _two_sided_layers(location: PartLocation) -> tuple[str, ...]:
    """Return the layers for which moments of both inputs and output gradients are needed."""
    if isinstance(location, str):
        return ()
    return (location.key, location.output) if isinstance(location, SelfAttention) else (location.output,)


class _PartBuilder:
    """Builds parts, and removes the moments of each part once used, to free their memory."""

    def __init__(
        self, model: nn.Module, moments: dict[str, Moments], both_sides: set[str], *, factored: bool, damping: float
    ) -> None:
        self.model = model
        self.moments = moments
        self.both_sides = both_sides
        self.factored = factored
        self.damping = damping

    def part(self, name: str, location: PartLocation) -> BlockPart:
        layers = {layer: dense_weight(self.model.get_submodule(layer)) for layer in _layers(location)}
        candidates = {layer: self._candidate(layer) for layer in layers} if self.factored else {}
        if isinstance(location, str):
            part = BlockPart(name, layers, candidates)
        elif isinstance(location, FeedForward):
            part = FeedForwardPart(name, layers, candidates, self._reader(location.output), location)
        elif isinstance(location, HeadGroups):
            reader = self._reader(location.output, width=location.width)
            part = HeadGroupsPart(name, layers, candidates, reader, location)
        else:
            part = self._attention(name, location, layers, candidates)
        for layer in layers:
            self.moments.pop(layer, None)
        return part

    def _attention(
        self, name: str, location: SelfAttention, layers: Mapping[str, Tensor], candidates: Mapping[str, Candidate]
    ) -> AttentionPart:
        width = location.width
        keys = moments_at(self.moments[location.key], layers[location.key], Side.OUTPUT)
        outputs = moments_at(self.moments[location.output], layers[location.output], Side.INPUT)
        scores = [svd_of_kl(*head) for head in zip(*_by_head(keys, width), strict=True)]
        values = [svd_of_kl(*head) for head in zip(*_by_head(outputs, width), outputs.mean.split(width), strict=True)]
        reader = self._reader(location.output, width=width)
        return AttentionPart(name, layers, candidates, reader, location, scores, values)

    def _candidate(self, layer: str) -> Candidate:
        module, moments = self.model.get_submodule(layer), self.moments[layer]
        weight = dense_weight(module)
        if layer in self.both_sides:
            moments = moments_at(moments, weight, narrower_side(weight))
        return Candidate.of(module, kfac_svd(weight, moments, damping=self.damping))

    def _reader(self, layer: str, *, width: int = 1) -> ReadFeatures:
        return ReadFeatures.of(self.model.get_submodule(layer), self.moments[layer], damping=self.damping, width=width)


def _by_head(moments: Moments, width: int) -> tuple[Tensor, Tensor]:
    """Return the covariance and the gradient moment of every head, (heads, width, width) each."""
    assert moments.gradient is not None
    return diagonal_blocks(covariance_of(moments), width), diagonal_blocks(moments.gradient, width)

"""A model taken apart: the parts of its blocks that change together, and what calibration says of them."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from torch import Tensor, nn

from whet.calibration.moments import collect
from whet.errors import NothingToCompress
from whet.methods._candidates import Candidate
from whet.methods.pruning._parts import AttentionPart, BlockPart, FeedForwardPart, ReadFeatures
from whet.models.architecture import Architecture, dense_weight
from whet.models.attention import SelfAttention
from whet.models.feed_forward import FeedForward
from whet.numerics.linalg import diagonal_blocks
from whet.numerics.low_rank import centred, kfac_svd, svd_of_kl
from whet.numerics.moments import Moments, Side, at_side, side_of
from whet.tasks.data import Batches
from whet.utils.progress import track

__all__ = ["PartLocation", "dissect", "part_locations"]

PartLocation = SelfAttention | FeedForward | str
"""Where a part is: an attention, neurons, or a layer that belongs to neither."""


def part_locations(model: nn.Module, batches: Batches, *, include: str, factored: bool) -> dict[str, PartLocation]:
    """Return where a model's parts are, by name, in module order.

    Args:
        model: in eval mode.
        batches: the calibration data.
        include: wildcard over the names of parts: of attentions, of what reads neurons, and of other layers.
        factored: whether layers which no attention or neurons belong to are parts too.

    Raises:
        NothingToCompress: there is no such part, or none that matches.
    """
    found = _all_places(model, batches, factored=factored)
    chosen = {name: place for name, place in found.items() if fnmatchcase(name, include)}
    if not chosen:
        raise NothingToCompress(f"no part matches {include!r}; the parts here are {', '.join(list(found)[:6])}, ...")
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
    """Return parts of a model's blocks by name, each with what it can become.

    Args:
        model: in eval mode.
        batches: the calibration data.
        chosen: from `part_locations`.
        factored: whether layers may become factors.
        damping: added to every variance, as a share of their mean.
        temperature: softens the predictions that gradients start from.
        seed: of the gradients' noise.
    """
    both = {name for place in chosen.values() for name in _read(place)}
    wanted = {
        name: Side.BOTH if name in both else side_of(dense_weight(model.get_submodule(name)))
        for place in chosen.values()
        for name in _layers(place)
        if factored or name in both
    }
    moments = collect(model, batches, list(wanted), seed=seed, temperature=temperature, sides=wanted)
    taker = _PartBuilder(model, moments, both, factored=factored, damping=damping)
    return {name: taker.part(name, place) for name, place in track(chosen.items(), "taking apart")}


def _all_places(model: nn.Module, batches: Batches, *, factored: bool) -> dict[str, PartLocation]:
    """All parts by name, in the order of their layers."""
    found: dict[str, PartLocation] = {}
    reasons = []
    try:
        found |= {place.name: place for place in SelfAttention.all_of(model, "*")}
    except NothingToCompress as error:
        reasons.append(error)
    try:
        found |= {place.output: place for place in FeedForward.all_of(model, "*", batches)}
    except NothingToCompress as error:
        reasons.append(error)
    linears = Architecture.of(model).linears
    if factored:
        taken = {name for place in found.values() for name in _layers(place)}
        found |= {name: name for name in linears if name not in taken}
    if not found:
        raise reasons[0]
    order = {name: place for place, name in enumerate(linears)}
    return dict(sorted(found.items(), key=lambda item: order[_layers(item[1])[0]]))


def _layers(place: PartLocation) -> tuple[str, ...]:
    return (place,) if isinstance(place, str) else (*place.inputs, place.output)


def _read(place: PartLocation) -> tuple[str, ...]:
    """The layers whose inputs and whose outputs' gradients are looked at."""
    if isinstance(place, str):
        return ()
    return (place.key, place.output) if isinstance(place, SelfAttention) else (place.output,)


class _PartBuilder:
    """Makes parts of places, and empties the moments, which are large, as it goes."""

    def __init__(
        self, model: nn.Module, moments: dict[str, Moments], both: set[str], *, factored: bool, damping: float
    ) -> None:
        self.model = model
        self.moments = moments
        self.both = both
        self.factored = factored
        self.damping = damping

    def part(self, name: str, place: PartLocation) -> BlockPart:
        layers = {layer: dense_weight(self.model.get_submodule(layer)) for layer in _layers(place)}
        candidates = {layer: self._candidate(layer) for layer in layers} if self.factored else {}
        if isinstance(place, str):
            found = BlockPart(name, layers, candidates)
        elif isinstance(place, FeedForward):
            found = FeedForwardPart(name, layers, candidates, self._reader(place.output), place)
        else:
            found = self._attention(name, place, layers, candidates)
        for layer in layers:
            self.moments.pop(layer, None)
        return found

    def _attention(
        self, name: str, place: SelfAttention, layers: Mapping[str, Tensor], candidates: Mapping[str, Candidate]
    ) -> AttentionPart:
        keys = at_side(self.moments[place.key], layers[place.key], Side.OUTPUT)
        mixed = at_side(self.moments[place.output], layers[place.output], Side.INPUT)
        scores = [svd_of_kl(*one) for one in zip(*_by_head(keys, place.width), strict=True)]
        values = [
            svd_of_kl(*one) for one in zip(*_by_head(mixed, place.width), mixed.mean.split(place.width), strict=True)
        ]
        reader = self._reader(place.output, width=place.width)
        return AttentionPart(name, layers, candidates, reader, place, scores, values)

    def _candidate(self, layer: str) -> Candidate:
        module, found = self.model.get_submodule(layer), self.moments[layer]
        weight = dense_weight(module)
        own = at_side(found, weight, side_of(weight)) if layer in self.both else found
        return Candidate.of(module, kfac_svd(weight, own, damping=self.damping))

    def _reader(self, layer: str, *, width: int = 1) -> ReadFeatures:
        return ReadFeatures.of(self.model.get_submodule(layer), self.moments[layer], damping=self.damping, width=width)


def _by_head(moments: Moments, width: int) -> tuple[Tensor, Tensor]:
    assert moments.gradient is not None
    return diagonal_blocks(centred(moments), width), diagonal_blocks(moments.gradient, width)

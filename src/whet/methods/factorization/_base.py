"""What every low-rank method shares: choose ranks under one budget and put two thin layers in the place of a dense one.

A method gives every layer its spectrum: the factors of all ranks and what each costs. Ranks then follow from the budget
in one way for all methods.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from torch import nn

from whet.calibration.resources import Resources, calibrated, require_tokens
from whet.errors import InvalidParameter
from whet.evaluation.timing import representative_batches
from whet.methods._budget import Ranks, at_speed
from whet.methods._candidates import Candidate, accepted_ranks, planned_ranks, timed_ranks
from whet.methods.base import Method, Stage
from whet.methods.factorization._rank_search import algorithm_2, by_time, latencies_of
from whet.methods.factorization._refit import Refit, refit
from whet.models.architecture import Architecture, dense_weight
from whet.models.surgery import copy_sharing_parameters, replace
from whet.numerics.allocation import shared_out
from whet.numerics.low_rank import Spectrum
from whet.utils.progress import track

__all__ = ["Allocation", "Factorization", "largest"]

Allocation = Literal["uniform", "by_loss", "by_time", "algorithm_2", "ranks"]
"""How a method shares its budget out."""
BUDGETS: dict[str, dict[str, Any]] = {
    "uniform": {"keep": 0.4, "speedup": 2},
    "by_loss": {"keep": 0.4, "speedup": 2},
    "by_time": {"speedup": 2},
    "algorithm_2": {"allowed_kl": 0.02},
    "ranks": {"ranks": {"*": 96}},
}
"""The parameters of which one says how much, for each allocation, with values to name in errors."""


def largest(ranks: Iterable[int | None]) -> int:
    """Return the largest of some ranks, where None is a layer that stays dense; 0 if all do."""
    return max((rank for rank in ranks if rank is not None), default=0)


@dataclass(frozen=True, kw_only=True)
class Factorization(Method):
    """A method that gives every layer a spectrum; ranks, replacement and budget are the same for all."""

    keep: Annotated[float | None, Interval(gt=0, le=1)] = None
    """Share of the matched linear parameters that is kept, such as 0.4; for the allocations uniform and by_loss."""
    allocation: Allocation = "uniform"
    """Who gets how much: every layer the same share (uniform), the least summed loss under one budget of parameters
    (by_loss) or of measured time (by_time), DRONE's own search (algorithm_2), or a plan (ranks)."""
    include: str = "*"
    """Wildcard over module names; layers that it does not match stay as they are."""
    speedup: Annotated[float | None, Interval(gt=1)] = None
    """How many times as many sentences a second the model shall take here, such as 2; for the allocation by_time, and
    in the place of keep."""
    allowed_kl: Annotated[float | None, Interval(gt=0)] = None
    """Mean KL to the original that held-out training examples may show, in nats; for the allocation algorithm_2."""
    acceptance: Literal["cumulative", "fixed"] = "cumulative"
    """In algorithm_2, whether layers may use what those before them left over, or hold the sum to their own share."""
    ranks: Mapping[str, int | float] | None = None
    """Plan for the allocation ranks: for each wildcard over names a rank, or a share of the layer's narrower side."""
    calibration: Literal["one_shot", "sequential"] = "one_shot"
    """Whether factors are fitted once more, in forward order, to the inputs that the compressed layers before them
    give and to the outputs of the original."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    example: ClassVar[dict[str, Any]] = {"keep": 0.5}
    mildest: ClassVar[dict[str, Any]] = {"keep": 1.0}
    refits: ClassVar[Refit] = Refit.OUTER
    """What sequential calibration fits: both factors only where it is the outputs' error that the method minimises."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range, missing, or not one of the allocation's own."""
        super().__post_init__()
        budgets = {name: value for budget in BUDGETS.values() for name, value in budget.items()}
        given = {name: getattr(self, name) for name in budgets if getattr(self, name) is not None}
        own = BUDGETS[self.allocation]
        wanted = " or ".join(own)
        typical = " or ".join(f"{name}={value}" for name, value in own.items())
        if not given.keys() & own.keys():
            raise InvalidParameter(
                f"{wanted} must be given with allocation={self.allocation}, but got none; such as {typical}"
            )
        if len(given) > 1:
            stated = ", ".join(f"{name}={value}" for name, value in given.items())
            raise InvalidParameter(
                f"{wanted} must be given alone with allocation={self.allocation}, but got {stated}; leave one out"
            )

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; text is needed to time layers with, and held-out text to accept ranks."""
        timed = self.speedup is not None or self.allocation == "algorithm_2"
        more = {"calibration"} if timed or self.calibration == "sequential" else set()
        return self.needs | more | ({"validation"} if self.allocation == "algorithm_2" else set())

    @abstractmethod
    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """Yield each layer's name and decomposition."""

    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """See `Method.apply`."""
        architecture = Architecture.of(model)
        for pattern in self.ranks or ():
            architecture.refuse_shared(pattern)
        names = architecture.matching(self.include)
        if self.keep == 1:
            return model
        original = copy_sharing_parameters(model)
        if self.allocation == "algorithm_2":
            chosen = self._search(model, original, names, resources)
        else:
            chosen = self._decompose(model, names, resources)
        if self.calibration == "sequential":
            layers = [name for name, rank in chosen.items() if rank is not None]
            refit(model, original, calibrated(resources), layers, what=self.refits)
        return model

    def _decompose(self, model: nn.Module, names: tuple[str, ...], resources: Resources) -> Ranks:
        """Choose all ranks from one decomposition of every layer, and put the factors in."""
        planned = None if self.ranks is None else planned_ranks(model, names, self.ranks)
        names = names if planned is None else tuple(planned)
        layers = {name: model.get_submodule(name) for name in names}
        spectra = track(self.spectra(model, names, resources), "decomposing", total=len(names))
        found = {name: Candidate.of(layers[name], spectrum) for name, spectrum in spectra}

        def build(ranks: Ranks) -> nn.Module:
            return _with_ranks(copy_sharing_parameters(model), found, ranks)

        chosen: Ranks = dict(planned) if planned is not None else self._choose(model, found, resources, build)
        self._check_tokens(chosen, resources)
        _with_ranks(model, found, chosen)
        return chosen

    def _choose(
        self,
        model: nn.Module,
        found: Mapping[str, Candidate],
        resources: Resources,
        build: Callable[[Ranks], nn.Module],
    ) -> Ranks:
        if self.allocation == "by_time":
            assert self.speedup is not None
            losses = {name: one.losses(timed_ranks(one.weight)) for name, one in found.items()}
            batches = representative_batches(calibrated(resources))
            return by_time(model, losses, batches, speedup=self.speedup, build=build)
        offers = {name: one.offer() for name, one in found.items()}
        options = {name: offer.options for name, offer in offers.items()}

        def choose(keep: float) -> Ranks:
            chosen = shared_out(options, keep, spread=self.allocation == "by_loss")
            return {name: offers[name].ranks[i] for name, i in chosen.items()}

        if self.keep is not None:
            return choose(self.keep)
        assert self.speedup is not None
        return at_speed(model, choose, representative_batches(calibrated(resources)), speedup=self.speedup, build=build)

    def _search(self, model: nn.Module, original: nn.Module, names: tuple[str, ...], resources: Resources) -> Ranks:
        """DRONE's Algorithm 2: statistics of each layer are taken on the model as compressed so far."""
        assert self.allowed_kl is not None and resources.validation is not None
        grid = {name: accepted_ranks(dense_weight(model.get_submodule(name))) for name in names}
        batches = representative_batches(calibrated(resources))
        seconds = {name: own.dense for name, own in latencies_of(model, dict.fromkeys(names, ()), batches).items()}

        def factorize(name: str) -> Callable[[int | None], None]:
            dense = model.get_submodule(name)
            candidate = Candidate.of(dense, dict(self.spectra(model, (name,), resources))[name])
            return lambda rank: replace(model, name, dense if rank is None else candidate.layer(rank))

        chosen = algorithm_2(
            model,
            original,
            grid,
            resources.validation,
            seconds=seconds,
            allowed_kl=self.allowed_kl,
            acceptance=self.acceptance,
            factorize=factorize,
        )
        self._check_tokens(chosen, resources)
        return chosen

    def _check_tokens(self, chosen: Ranks, resources: Resources) -> None:
        if "calibration" in self.needs:
            require_tokens(calibrated(resources), largest(chosen.values()), what="the largest rank")


def _with_ranks(model: nn.Module, found: Mapping[str, Candidate], ranks: Ranks) -> nn.Module:
    for name, rank in ranks.items():
        if rank is not None:
            replace(model, name, found[name].layer(rank))
    return model

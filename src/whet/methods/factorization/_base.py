"""The base of low-rank methods: it chooses ranks under one budget and replaces dense layers by two thin ones.

A method computes a spectrum for every layer: the factors at all ranks and the loss of each rank. The base class then
chooses the ranks from the budget, in the same way for all methods.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from whet.calibration.resources import Resources, require_calibration, require_tokens
from whet.errors import InvalidParameter
from whet.evaluation.timing import representative_batches
from whet.methods._budget import Ranks, at_speed
from whet.methods._candidates import Candidate, accepted_ranks, planned_ranks, timed_ranks
from whet.methods._share import KeepsShare
from whet.methods.factorization._rank_search import layer_latency_tables, ranks_within_kl, ranks_within_time
from whet.methods.factorization._refit import Refit, refit
from whet.models.architecture import Architecture, dense_weight
from whet.models.surgery import copy_sharing_parameters, replace_module
from whet.numerics.allocation import allocate
from whet.numerics.low_rank import Spectrum
from whet.utils.progress import track
from whet.utils.ranges import Keep, MaxKl, Speedup

__all__ = ["Allocation", "Factorization", "largest_rank"]

Allocation = Literal["uniform", "by_loss", "by_time", "algorithm_2", "ranks"]
"""How a method spreads its budget over the layers."""
BUDGET_PARAMETERS: dict[str, dict[str, Any]] = {
    "uniform": {"keep": 0.4, "speedup": 2},
    "by_loss": {"keep": 0.4, "speedup": 2},
    "by_time": {"speedup": 2},
    "algorithm_2": {"allowed_kl": 0.02},
    "ranks": {"ranks": {"*": 96}},
}
"""For each allocation, the parameters that can set its budget, with example values for error messages."""


def largest_rank(ranks: Iterable[int | None]) -> int:
    """Return the largest of `ranks`, where None stands for a layer that stays dense; 0 if all layers do."""
    return max((rank for rank in ranks if rank is not None), default=0)


@dataclass(frozen=True, kw_only=True)
class Factorization(KeepsShare):
    """A low-rank method; a subclass computes the spectra, this class chooses ranks and replaces layers."""

    keep: Keep | None = None
    """Fraction of the weights of the matched linear layers to keep, e.g. 0.4; for the allocations uniform and
    by_loss."""
    allocation: Allocation = "uniform"
    """How to share the budget: the same fraction for every layer (uniform), the least summed loss under one budget of
    parameters (by_loss) or of measured time (by_time), DRONE's own search (algorithm_2), or given ranks (ranks)."""
    include: str = "*"
    """Wildcard over the names of linear layers; layers that do not match stay dense."""
    speedup: Speedup | None = None
    """Wanted speedup in sentences per second on this machine, e.g. 2; for the allocation by_time, or instead of
    keep."""
    allowed_kl: MaxKl | None = None
    """Largest mean KL divergence from the baseline on held-out training examples, in nats, e.g. 0.02; for the
    allocation algorithm_2."""
    acceptance: Literal["cumulative", "fixed"] = "cumulative"
    """For algorithm_2: cumulative lets a layer spend the KL that earlier layers left over, fixed holds the total KL
    to the layer's own share."""
    ranks: Mapping[str, int | float] | None = None
    """Ranks for the allocation ranks, e.g. {"*": 96}: maps a wildcard over layer names to a rank, or to a fraction of
    the layer's narrower side, such as 0.25."""
    calibration: Literal["one_shot", "sequential"] = "one_shot"
    """How to fit the factors: one_shot uses the baseline's inputs; sequential then fits them again in forward order, to
    the inputs from the compressed layers before them and the outputs of the baseline."""

    refits: ClassVar[Refit] = Refit.OUTER
    """The factors that sequential calibration fits; both only if the method minimises the error of the outputs."""

    def __post_init__(self) -> None:
        """Check the parameters.

        Raises:
            InvalidParameter: a parameter is outside its range, or not exactly one budget of the allocation is given.
        """
        super().__post_init__()
        budgets = {name: value for budget in BUDGET_PARAMETERS.values() for name, value in budget.items()}
        given = {name: getattr(self, name) for name in budgets if getattr(self, name) is not None}
        accepted = BUDGET_PARAMETERS[self.allocation]
        expected = " or ".join(accepted)
        examples = " or ".join(f"{name}={value}" for name, value in accepted.items())
        if not given.keys() & accepted.keys():
            raise InvalidParameter(
                f"{expected} must be given with allocation={self.allocation}, but got none; such as {examples}"
            )
        if len(given) > 1:
            stated = ", ".join(f"{name}={value}" for name, value in given.items())
            raise InvalidParameter(
                f"{expected} must be given alone with allocation={self.allocation}, but got {stated}; leave one out"
            )

    @property
    def reads(self) -> frozenset[str]:
        """See `Method.reads`; timing needs calibration text, and algorithm_2 needs held-out text."""
        times_layers = self.speedup is not None or self.allocation == "algorithm_2"
        extra = {"calibration"} if times_layers or self.calibration == "sequential" else set()
        return self.needs | extra | ({"validation"} if self.allocation == "algorithm_2" else set())

    @abstractmethod
    def spectra(
        self, model: nn.Module, layers: tuple[str, ...], resources: Resources
    ) -> Iterator[tuple[str, Spectrum]]:
        """Yield each layer's name and its spectrum.

        Args:
            model: the model, which must not be changed.
            layers: names of dense layers.
            resources: what `needs` names.
        """

    def locations(self, model: nn.Module, resources: Resources) -> tuple[str, ...]:
        """See `KeepsShare.locations`; the names of linear layers."""
        architecture = Architecture.of(model)
        for pattern in self.ranks or ():
            architecture.refuse_shared(pattern)
        return architecture.matching(self.include)

    def compress(self, model: nn.Module, locations: tuple[str, ...], resources: Resources) -> nn.Module:
        """See `KeepsShare.compress`."""
        original = copy_sharing_parameters(model)
        if self.allocation == "algorithm_2":
            chosen = self._search(model, original, locations, resources)
        else:
            chosen = self._decompose(model, locations, resources)
        if self.calibration == "sequential":
            layers = [name for name, rank in chosen.items() if rank is not None]
            refit(model, original, require_calibration(resources), layers, what=self.refits)
        return model

    def _decompose(self, model: nn.Module, names: tuple[str, ...], resources: Resources) -> Ranks:
        """Choose all ranks from one decomposition of every layer, and replace the layers by their factors."""
        planned = None if self.ranks is None else planned_ranks(model, names, self.ranks)
        names = names if planned is None else tuple(planned)
        layers = {name: model.get_submodule(name) for name in names}
        spectra = track(self.spectra(model, names, resources), "decomposing", total=len(names))
        candidates = {name: Candidate.of(layers[name], spectrum) for name, spectrum in spectra}

        def build(ranks: Ranks) -> nn.Module:
            return _with_ranks(copy_sharing_parameters(model), candidates, ranks)

        chosen: Ranks = dict(planned) if planned is not None else self._choose(model, candidates, resources, build)
        self._check_tokens(chosen, resources)
        _with_ranks(model, candidates, chosen)
        return chosen

    def _choose(
        self,
        model: nn.Module,
        candidates: Mapping[str, Candidate],
        resources: Resources,
        build: Callable[[Ranks], nn.Module],
    ) -> Ranks:
        if self.allocation == "by_time":
            assert self.speedup is not None
            losses = {name: candidate.losses(timed_ranks(candidate.weight)) for name, candidate in candidates.items()}
            batches = representative_batches(require_calibration(resources))
            return ranks_within_time(model, losses, batches, speedup=self.speedup, build=build)
        offers = {name: candidate.offer() for name, candidate in candidates.items()}
        options = {name: offer.options for name, offer in offers.items()}

        def choose(keep: float) -> Ranks:
            chosen = allocate(options, keep, spread=self.allocation == "by_loss")
            return {name: offers[name].ranks[i] for name, i in chosen.items()}

        if self.keep is not None:
            return choose(self.keep)
        assert self.speedup is not None
        return at_speed(
            model, choose, representative_batches(require_calibration(resources)), speedup=self.speedup, build=build
        )

    def _search(self, model: nn.Module, original: nn.Module, names: tuple[str, ...], resources: Resources) -> Ranks:
        """Run DRONE's Algorithm 2, which takes the statistics of each layer from the model as compressed so far."""
        assert self.allowed_kl is not None and resources.validation is not None
        grid = {name: accepted_ranks(dense_weight(model.get_submodule(name))) for name in names}
        batches = representative_batches(require_calibration(resources))
        seconds = {
            name: latencies.dense
            for name, latencies in layer_latency_tables(model, dict.fromkeys(names, ()), batches).items()
        }

        def factorize(name: str) -> Callable[[int | None], None]:
            dense = model.get_submodule(name)
            candidate = Candidate.of(dense, dict(self.spectra(model, (name,), resources))[name])
            return lambda rank: replace_module(model, name, dense if rank is None else candidate.layer(rank))

        chosen = ranks_within_kl(
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
            require_tokens(require_calibration(resources), largest_rank(chosen.values()), what="the largest rank")


def _with_ranks(model: nn.Module, candidates: Mapping[str, Candidate], ranks: Ranks) -> nn.Module:
    for name, rank in ranks.items():
        if rank is not None:
            replace_module(model, name, candidates[name].layer(rank))
    return model

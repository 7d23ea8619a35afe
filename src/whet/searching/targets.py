"""Targets of a search: the runtimes that candidates run in, each in its precisions."""

from collections.abc import Sequence
from typing import NamedTuple

from whet.errors import InvalidParameter
from whet.evaluation.trial import Trial
from whet.runtimes.base import ExportRuntime, runtime_named, search_runtimes
from whet.utils.lookup import choose
from whet.utils.precision import BF16, FP32, INT8, PYTORCH

__all__ = ["Target", "targets"]

PRECISIONS = (FP32, INT8, BF16)
"""Precisions by default, as far as the runtimes and the processor support them."""
_QUICKEST = (INT8, BF16, FP32)
"""The same, those first that are the fastest where they hold the bar."""


class Target(NamedTuple):
    """A runtime and the precision that a model runs in there."""

    runtime: str
    precision: str = FP32

    def __str__(self) -> str:
        return self.runtime if self.runtime == PYTORCH else f"{self.runtime} {self.precision}"

    @property
    def rank(self) -> int:
        """The place in the order in which targets are tried where there is no time for all of them."""
        return _QUICKEST.index(self.precision) if self.precision in _QUICKEST else len(_QUICKEST)

    @property
    def exported(self) -> bool:
        """Whether models are exported for it."""
        return isinstance(runtime_named(self.runtime), ExportRuntime)

    @classmethod
    def of(cls, candidate: Trial) -> "Target":
        """Return the target of a measured candidate."""
        conditions = candidate.conditions or {}
        return cls(conditions["runtime"], conditions["precision"])


def targets(runtimes: Sequence[str] | None, precisions: Sequence[str] | None) -> tuple[Target, ...]:
    """Return the targets of a search; those that were not named and are not available here are left out.

    Args:
        runtimes: names of runtimes; all that are installed, if None.
        precisions: of all runtimes but pytorch; fp32, int8 and bf16, if None.

    Raises:
        UnknownName, InvalidParameter: a runtime or precision that was named is unknown, or not available here.
    """
    available: list[Target] = []
    known = search_runtimes()
    for name in runtimes or known:
        try:
            available += _targets_in(choose(name, known, what="the runtime"), precisions)
        except InvalidParameter:
            if runtimes is not None:
                raise
    return tuple(dict.fromkeys(available))


def _targets_in(name: str, precisions: Sequence[str] | None) -> list[Target]:
    runtime = runtime_named(name)
    runtime.require()
    if precisions is not None:
        return [Target(name, precision) for precision in runtime.supported(precisions)]
    available = []
    for precision in PRECISIONS:
        try:
            available += [Target(name, supported) for supported in runtime.supported([precision])]
        except InvalidParameter:
            continue
    return available

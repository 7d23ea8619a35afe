"""Where candidates of a search run: runtimes, each in its precisions."""

from collections.abc import Sequence
from typing import NamedTuple

from whet.errors import InvalidParameter
from whet.evaluation.trial import Trial
from whet.runtimes.base import ExportRuntime, runtime_named, search_runtimes
from whet.utils.lookup import choose
from whet.utils.precision import BF16, FP32, INT8, PYTORCH

__all__ = ["Target", "targets"]

PRECISIONS = (FP32, INT8, BF16)
"""What is tried where nothing else is asked for, as far as runtimes and the processor offer it."""


class Target(NamedTuple):
    """Where a model runs, and how."""

    runtime: str
    precision: str = FP32

    def __str__(self) -> str:
        return self.runtime if self.runtime == PYTORCH else f"{self.runtime} {self.precision}"

    @property
    def exported(self) -> bool:
        """Whether models are exported for it."""
        return isinstance(runtime_named(self.runtime), ExportRuntime)

    @classmethod
    def of(cls, trial: Trial) -> "Target":
        """Return where a candidate ran."""
        conditions = trial.conditions or {}
        return cls(conditions["runtime"], conditions["precision"])


def targets(runtimes: Sequence[str] | None, precisions: Sequence[str] | None) -> tuple[Target, ...]:
    """Return where candidates run; what nobody named is left out where it cannot be had here.

    Raises:
        UnknownName, InvalidParameter: what somebody named is unknown, or cannot be had here.
    """
    found: list[Target] = []
    known = search_runtimes()
    for name in runtimes or known:
        try:
            found += _targets_of(choose(name, known, what="the runtime"), precisions)
        except InvalidParameter:
            if runtimes is not None:
                raise
    return tuple(dict.fromkeys(found))


def _targets_of(name: str, precisions: Sequence[str] | None) -> list[Target]:
    runtime = runtime_named(name)
    runtime.require()
    if precisions is not None:
        return [Target(name, precision) for precision in runtime.supported(precisions)]
    found = []
    for precision in PRECISIONS:
        try:
            found += [Target(name, one) for one in runtime.supported([precision])]
        except InvalidParameter:
            continue
    return found

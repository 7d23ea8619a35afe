"""Which structure a search tries next: a pure function of what its workers have recorded and are trying.

1. Bisection. Less and less of the blocks is a line on which quality falls; four or five structures find where it
   crosses the bar, first without a recovery and then, from there on, with one.
2. Neighbours. One level more or less of anything, or less of the blocks for more of the table, around the best
   structure that has an untried neighbour; the smallest model first.
3. Everything else, at random. What removes no less of anything than a structure that failed comes last.

The sampler keeps no state, so that a search has one store, its folder (see `storage`): nothing can disagree with it
after a kill, and each worker sees what the others record. A structure that another worker is trying counts as one that
just holds the bar until its outcome is known.

Why not optuna, whose journal was a second store with code to reconcile both: its TPE sampler does not pay for it. Mean
share of the best score in the space that simulated searches have found (60 seeds, speed times compression;
benchmarks/sampler.py, with intervals in benchmarks/README.md):

                                           84 structures            1,008, finer levels
    structures tried                       12      16      20       20      30      50
    bisection, then TPE                    0.767   0.817   0.869    0.774   0.868   0.936
    bisection, best's neighbours, TPE      0.955   0.977   0.977    0.779   0.867   0.944
    this module                            0.972   0.998   0.998    0.817   0.929   0.948

The second line is what whet 0.1 did. Spaces of more axes are not measured yet; measure them once they exist. Any
sampler that is a function of the recorded outcomes fits in here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from random import Random

from whet.searching.space import Space, Structure

__all__ = ["next_structure"]

BARELY = 1e-9
"""The value that a structure is given while a worker is trying it: above the bar, and below all that are known."""


def next_structure(
    space: Space, values: Mapping[Structure, float], *, running: Collection[Structure] = (), seed: int
) -> Structure | None:
    """Return the structure to try next, or None if all of them were tried or are being tried.

    Args:
        space: the structures that the model allows.
        values: the outcome of each structure that was tried: its score if it holds the bar, otherwise at most 0.
        running: structures that workers are trying now.
        seed: of the choice among equals; the same arguments give the same structure.
    """
    outcomes = {**dict.fromkeys(running, BARELY), **values}
    structure = _bisection(space, outcomes)
    if structure is not None:
        return structure
    untried = [structure for structure in space.every() if structure not in outcomes]
    failed = [structure for structure, value in outcomes.items() if value <= 0]
    hopeful = [structure for structure in untried if not any(_removes_no_less(structure, than=one) for one in failed)]
    choice = next(_neighbourhoods(outcomes, hopeful), hopeful or untried)
    return Random(f"{seed}/{len(outcomes)}").choice(choice) if choice else None


def _bisection(space: Space, outcomes: Mapping[Structure, float]) -> Structure | None:
    """What tells where quality crosses the bar along the blocks; None once that is known."""
    start = 0
    for recovery in range(space.most.recovery + 1):
        line = [Structure(blocks, 0, recovery) for blocks in range(start, space.most.blocks + 1)]
        holding = _holding(line, outcomes)
        if isinstance(holding, Structure):
            return holding
        start = max(1, start + holding)  # a recovery of the whole model is not worth a trial
    return None


def _holding(line: Sequence[Structure], outcomes: Mapping[Structure, float]) -> Structure | int:
    """How many structures at the beginning of a line hold the bar, or the one to try in order to find out."""
    held = {i: outcomes[structure] > 0 for i, structure in enumerate(line) if structure in outcomes}
    if line and 0 not in held:
        return line[0]
    good = max((i for i, holds in held.items() if holds), default=-1)
    bad = min((i for i, holds in held.items() if not holds and i > good), default=len(line))
    return line[(good + bad + 1) // 2] if bad - good > 1 else bad


def _neighbourhoods(outcomes: Mapping[Structure, float], hopeful: Sequence[Structure]) -> Iterator[list[Structure]]:
    """The smallest hopeful structures next to each one that holds the bar, those next to the best first."""
    allowed = set(hopeful)
    holding = (structure for structure, value in outcomes.items() if value > 0)
    for structure in sorted(holding, key=outcomes.__getitem__, reverse=True):
        near = [neighbour for neighbour in _neighbours(structure) if neighbour in allowed]
        if near:
            most = max(map(sum, near))
            yield [neighbour for neighbour in near if sum(neighbour) == most]


def _neighbours(structure: Structure) -> Iterator[Structure]:
    """One level more or less of anything, or one more of the blocks for one less of the table and the reverse."""
    for axis, level in structure._asdict().items():
        yield structure._replace(**{axis: level + 1})
        yield structure._replace(**{axis: level - 1})
    for step in (-1, 1):
        yield structure._replace(blocks=structure.blocks - step, table=structure.table + step)


def _removes_no_less(structure: Structure, *, than: Structure) -> bool:
    """Whether a structure removes as much as another one or more of everything, and recovers no longer."""
    levels = zip(structure._replace(recovery=-structure.recovery), than._replace(recovery=-than.recovery), strict=True)
    return all(level >= other for level, other in levels)

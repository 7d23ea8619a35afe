"""How soon a search finds its best structure, for several ways to choose the next one.

    python benchmarks/sampler.py

simulates searches, without any model: each seed makes up how much quality every structure loses, and every sampler
searches the same spaces. Prints the share of the best score in a space that a search has found after so many
structures, the mean over the seeds with a 95 % bootstrap interval, and how far whet's own sampler is ahead. Writes both
to sampler.json beside this file. The rows with TPE need the package optuna (`pip install optuna`); without it they are
left out.
"""

import argparse
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from whet.evaluation import Estimate, bootstrap
from whet.searching import LESS, TABLES, Space, Structure, next_structure

RESULTS = Path(__file__).with_suffix(".json")
WHET = "next_structure"
STARTUP, TRIES = 4, 20
"""How whet 0.1 used TPE: from the fourth outcome on, and after 20 suggestions of known structures a random one."""
AROUND = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 1, 0), (-1, 0, 0))
"""Steps to the neighbours of the best structure, as whet 0.1 tried them."""
TABLE_SHARE = 0.52
"""Share of MiniLM's bytes that its word embeddings take."""

Values = Mapping[Structure, float]
Sampler = Callable[[Space, Values, int], Structure | None]
"""Takes the space, the outcomes so far and a seed; returns the structure to try next, or None."""


class Case(NamedTuple):
    """A space, and the numbers of structures after which searches in it are compared."""

    space: Space
    counts: tuple[int, ...]


class FinerSpace(Space):
    """A space of as many axes as today's, with finer levels between the same ends."""

    @property
    def most(self) -> Structure:
        """The highest level of each axis."""
        return Structure(27, 17, 1)


CASES = {
    "speed": Case(Space(recovery=1.0), (8, 10, 12, 16)),
    "speed times compression": Case(Space(recovery=1.0, table=True), (8, 12, 16, 20)),
    "speed times compression, finer levels": Case(FinerSpace(recovery=1.0, table=True), (12, 20, 30, 50)),
}


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, help="simulated searches of each sampler in each space")
    seeds = parser.parse_args().seeds
    samplers = available_samplers()
    results: dict[str, Any] = {"seeds": seeds, "optuna": optuna_version(), "cases": {}}
    for name, case in CASES.items():
        structures = len(case.space.every())
        print(f"\n{name}, {structures} structures: share of the best score after {case.counts} structures", flush=True)
        results["cases"][name] = {"structures": structures, "rows": compare(samplers, case, seeds)}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def available_samplers() -> dict[str, Sampler]:
    """Return the samplers by name, without those that need optuna where it is not installed."""
    samplers = {
        "bisection, then at random": after_bisection(at_random),
        "bisection, then TPE": after_bisection(by_tpe),
        "bisection, the best's neighbours, then at random": after_bisection(first_around_best(at_random)),
        "bisection, the best's neighbours, then TPE (whet 0.1)": after_bisection(first_around_best(by_tpe)),
        WHET: lambda space, values, seed: next_structure(space, values, seed=seed),
    }
    if optuna_version() is None:
        print("The rows with TPE are left out, since optuna is not installed; pip install optuna to measure them.")
        return {name: sampler for name, sampler in samplers.items() if "TPE" not in name}
    return samplers


def optuna_version() -> str | None:
    """Return the version of optuna, or None if it is not installed."""
    if importlib.util.find_spec("optuna") is None:
        return None
    return str(importlib.import_module("optuna").__version__)


def compare(samplers: Mapping[str, Sampler], case: Case, seeds: int) -> dict[str, dict[int, Any]]:
    """Return and print the mean shares of the best score, and their paired differences from those of whet's sampler.

    Args:
        samplers: by name.
        case: the space that is searched, and the numbers of structures.
        seeds: how many searches.
    """
    shares = {
        name: np.array([best_shares(sampler, case, seed) for seed in range(seeds)])
        for name, sampler in samplers.items()
    }
    differences = {f"{WHET} minus {name}": shares[WHET] - shares[name] for name in shares if name != WHET}
    rows = {
        name: dict(zip(case.counts, map(mean, array.T), strict=True)) for name, array in (shares | differences).items()
    }
    for name, row in rows.items():
        print(f"{name:74}" + "".join(map(shown, row.values())), flush=True)
    return {name: {count: estimate._asdict() for count, estimate in row.items()} for name, row in rows.items()}


def mean(shares: np.ndarray[Any, Any]) -> Estimate:
    """Return the mean over the seeds, with its 95 % bootstrap interval."""
    return bootstrap(lambda drawn: float(shares[drawn].mean()), len(shares), seed=0)


def best_shares(sampler: Sampler, case: Case, seed: int) -> list[float]:
    """Simulate one search, and return the share of the best score that it has found, for each number of structures."""
    truth = made_up_values(case.space, seed)
    values: dict[Structure, float] = {}
    while len(values) < max(case.counts):
        structure = sampler(case.space, values, seed)
        assert structure is not None and structure not in values, "every structure is tried once"
        values[structure] = truth[structure]
    scores = np.maximum(0, list(values.values()))
    return [float(scores[:count].max()) / max(truth.values()) for count in case.counts]


def made_up_values(space: Space, seed: int) -> dict[Structure, float]:
    """Return the value of each structure: its score if it loses less than a point, otherwise minus what is missing.

    The loss grows with what is removed, at rates that the seed draws, so that the best structures are spread over the
    levels of the blocks from 1.5 up. A recovery takes 60 % of the loss away. Half a point for the width of the interval
    and noise of .05 points are added. A tenth of the time cannot be saved.
    """
    random = np.random.default_rng(seed)
    of_blocks, of_table = np.exp(random.uniform(np.log([0.05, 0.1]), np.log([3.5, 1.0])))

    def value(structure: Structure) -> float:
        less, table = (
            between(LESS, structure.blocks, space.most.blocks),
            between(TABLES, structure.table, space.most.table),
        )
        removed = of_blocks * (less - 1) ** 1.5 + of_table * (1 / table - 1)
        loss = 0.5 + removed * (0.4 if structure.recovery else 1.0) + random.normal(scale=0.05)
        speedup = 1 / (0.1 + 0.9 / less)
        compression = 1 / (TABLE_SHARE * table + (1 - TABLE_SHARE) / less) if space.table else 1.0
        return speedup * compression if loss < 1 else 1 - loss

    return {structure: value(structure) for structure in space.every()}


def between(levels: tuple[float, ...], level: int, highest: int) -> float:
    """Return a level of an axis; where the axis is finer than these levels, interpolate between them."""
    return float(np.interp(level / max(1, highest) * (len(levels) - 1), range(len(levels)), levels))


def after_bisection(sampler: Sampler) -> Sampler:
    """Return a sampler that bisects first, as `next_structure` does."""

    def propose(space: Space, values: Values, seed: int) -> Structure | None:
        # where no structures are left, next_structure still bisects, and returns None as soon as that is over
        with mock.patch.object(type(space), "every", return_value=[]):
            structure = next_structure(space, values, seed=seed)
        return structure or sampler(space, values, seed)

    return propose


def first_around_best(sampler: Sampler) -> Sampler:
    """Return a sampler that tries the neighbours of the best structure first, as whet 0.1 did."""

    def propose(space: Space, values: Values, seed: int) -> Structure | None:
        best = max(values, key=values.__getitem__)
        near = [Structure(*map(sum, zip(best, step, strict=True))) for step in AROUND]
        untried = untried_structures(space, values)
        return next((structure for structure in near if structure in untried), None) or sampler(space, values, seed)

    return propose


def at_random(space: Space, values: Values, seed: int) -> Structure:
    """Return any untried structure."""
    return Random(f"{seed}/{len(values)}").choice(untried_structures(space, values))


def by_tpe(space: Space, values: Values, seed: int) -> Structure:
    """Return the untried structure that optuna's TPE sampler suggests."""
    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = {axis: optuna.distributions.IntDistribution(0, level) for axis, level in space.most._asdict().items()}
    sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(values), n_startup_trials=STARTUP)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        optuna.trial.create_trial(params=structure._asdict(), distributions=axes, value=value)
        for structure, value in values.items()
    )
    for _ in range(TRIES):
        trial = study.ask(axes)
        if (structure := Structure(**trial.params)) not in values:
            return structure
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return at_random(space, values, seed)


def untried_structures(space: Space, values: Values) -> list[Structure]:
    """Return the structures without an outcome."""
    return [structure for structure in space.every() if structure not in values]


def shown(estimate: Estimate) -> str:
    """Return an estimate as it is printed."""
    return f"  {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()

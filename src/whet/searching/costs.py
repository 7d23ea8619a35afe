"""About how long the parts of a search take on this machine, judged by what the baseline has taken.

Forward passes are counted in examples of the baseline's. Exports compute on one core whatever the model, so that their
time is a number of seconds, longer where others use the machine too.
"""

from whet.calibration.resources import Calibration
from whet.evaluation.benchmark import Benchmark
from whet.searching.baseline import (
    FULL_ROUNDS,
    PROXY_BATCHES,
    SELECTION_BATCH_SIZE,
    SHORT_ROUNDS,
    TIMED_EXAMPLES,
    Baseline,
)

__all__ = ["CONFIRMATION", "LEAST_ROUNDS", "SAMPLE", "confirmation_seconds", "structure_seconds", "target_seconds"]

SAMPLE = Calibration()
"""The sample that methods look at."""
CONFIRMATION = Benchmark(singles=20, timed=96, metrics=("fidelity", "latency", "size"))
"""How the best is measured on the dev split."""
LEAST_ROUNDS = 6
"""Rounds of timing below which no difference can be significant."""
SINGLE = 4
"""A sentence alone takes about as long as so many in a batch."""
LENGTH, FULL_TOKENS = 128, 9 * 128
"""Tokens of the texts of a fixed length that are timed too, and of all these together."""
MARGIN = 1.2
"""What is confirmed late costs the time that was promised; what is confirmed early costs a structure at most."""
WARM_UP = 2
"""Rounds of timing that do not count."""
TIMED = (SHORT_ROUNDS + WARM_UP) * TIMED_EXAMPLES
"""Examples of a short run of timing."""
TO_ONNX, CONVERSION = 10.0, 4.0
"""Seconds of one core to export a model to ONNX, and then to convert it for one target."""
MEASURED_TWICE = 0.5
"""A target measures at about twice the baseline's speed, or is left out before it measures everything."""


def confirmation_seconds(baseline: Baseline) -> float:
    """Return about how long it takes to measure the baseline and the best on the dev split."""
    dev = len(baseline.task.splits.dev)
    full = FULL_TOKENS / baseline.tokens if baseline.max_length >= LENGTH else 0.0
    timed = (CONFIRMATION.rounds + WARM_UP) * (CONFIRMATION.timed + SINGLE * CONFIRMATION.singles + full)
    # both answer in PyTorch, and the best in its runtime too
    return MARGIN * (baseline.loading + baseline.seconds * (3 * dev + 2 * timed))


def structure_seconds(baseline: Baseline, *, exported: int) -> float:
    """Return about how long a structure takes that is made without learning, the first one, with the baseline's timing.

    Args:
        baseline: the model.
        exported: targets for which it is exported.
    """
    own = (FULL_ROUNDS + WARM_UP) * TIMED_EXAMPLES  # the baseline's own speed
    passes = own + SAMPLE.examples + PROXY_BATCHES * SELECTION_BATCH_SIZE + 2 * TIMED
    to_onnx = TO_ONNX * baseline.slowness if exported else 0.0
    return to_onnx + passes * baseline.seconds + exported * target_seconds(baseline)


def target_seconds(baseline: Baseline) -> float:
    """Return about how long one target more takes: its conversion, its answers, its timing."""
    passes = baseline.selection.inputs + PROXY_BATCHES * SELECTION_BATCH_SIZE + TIMED
    return CONVERSION * baseline.slowness + MEASURED_TWICE * passes * baseline.seconds

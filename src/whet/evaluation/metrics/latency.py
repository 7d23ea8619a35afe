"""Latency and throughput, on inputs of the task's own lengths and at fixed shapes, from token ids or from texts.

All models run each batch in turn, in a random order drawn anew each time, so that other load on the machine affects all
of them alike. A speedup is the median over rounds of the ratio of times within a round.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from whet.evaluation.measurement import Better, Comparison, Measurement
from whet.evaluation.metrics.base import Metric, ModelUnderTest
from whet.evaluation.significance import bootstrap, paired_ratio
from whet.evaluation.timing import Call, time_batches
from whet.models.inference import model_inputs
from whet.tasks.data import Batch, Batches

__all__ = ["FIXED_SHAPES", "Latency"]

Array = np.ndarray[Any, Any]

FIXED_SHAPES = ((1, 128), (8, 128))
"""Batch size and length in tokens, without padding."""


class Latency(Metric):
    """Median and 95th percentile for single examples, throughput in batches, and medians at fixed shapes."""

    name: ClassVar[str] = "latency"
    timed: ClassVar[bool] = True

    def measure(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        """See `Metric.measure`."""
        parts = self._singles(subjects), self._batched(subjects), *self._fixed(subjects)
        return [[measurement for part in parts for measurement in part[i]] for i in range(len(subjects))]

    def _singles(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        times = _time(subjects, _calls([(subject, subject.singles) for subject in subjects], 1), "single sentences")
        times *= 1e3
        rows = []
        for i, subject in enumerate(subjects):
            medians = np.median(times[i], axis=0)  # over rounds, for each example
            for metric, percentile in (("latency_median", 50), ("latency_p95", 95)):
                statistic = _percentile(percentile)
                versus = _versus(times, i, statistic, subject.seed)
                rows.append(_row(metric, "ms", "lower", medians, statistic, versus, subject.seed))
        return [rows[2 * i : 2 * i + 2] for i in range(len(subjects))]

    def _batched(self, subjects: Sequence[ModelUnderTest]) -> list[list[Measurement]]:
        size = len(subjects[0].timed.batches[0]["input_ids"])
        times = _time(subjects, _calls([(subject, subject.timed) for subject in subjects], size), "batches")
        count = len(subjects[0].timed.labels)
        return [
            [
                _row(
                    "throughput",
                    "1/s",
                    "higher",
                    count / times[i].sum(1),
                    _percentile(50),
                    _versus(times, i, np.sum, s.seed),
                    s.seed,
                )
            ]
            for i, s in enumerate(subjects)
        ]

    def _fixed(self, subjects: Sequence[ModelUnderTest]) -> list[list[list[Measurement]]]:
        by_shape = []
        for size, length in FIXED_SHAPES:
            if length > min(subject.max_length for subject in subjects) or subjects[0].predictor is not None:
                continue
            calls = [[_call(subject, _full_batch(subject, size, length)) for subject in subjects]]
            times = _time(subjects, calls, f"{size} × {length} tokens") * 1e3
            by_shape.append(
                [
                    [
                        _row(
                            f"latency_{size}x{length}",
                            "ms",
                            "lower",
                            times[i, :, 0],
                            _percentile(50),
                            _versus(times, i, np.sum, subject.seed),
                            subject.seed,
                        )
                    ]
                    for i, subject in enumerate(subjects)
                ]
            )
        return by_shape


def _calls(parts: Sequence[tuple[ModelUnderTest, Batches]], size: int) -> Sequence[Sequence[Call]]:
    """Return, for each batch, what runs it in each model.

    Args:
        parts: each model with its batches.
        size: inputs of a batch that is given as texts.
    """
    first, batches = parts[0]
    if first.predictor is None:
        return list(zip(*([_call(subject, batch) for batch in part] for subject, part in parts), strict=True))
    assert batches.source is not None
    inputs = first.predictor.inputs(batches.source.plain())
    return [
        [partial(subject.predictor.predict, inputs[start : start + size]) for subject, _ in parts if subject.predictor]
        for start in range(0, len(inputs), size)
    ]


def _call(subject: ModelUnderTest, batch: Batch) -> Call:
    inputs = model_inputs(batch, subject.model)
    return lambda: subject.model(**inputs)


def _time(subjects: Sequence[ModelUnderTest], calls: Sequence[Sequence[Call]], what: str) -> Array:
    """Return (subjects, rounds, batches) seconds; the rounds, device, seed and stopwatch of the first hold for all.

    Args:
        subjects: the models.
        calls: for each batch, what runs it in each model.
        what: what is timed, for the progress bar.
    """
    first = subjects[0]
    seconds = time_batches(
        calls,
        rounds=first.rounds,
        device=first.device,
        seed=first.seed,
        label=f"timing {what}",
        stopwatch=first.stopwatch if first.device == "cpu" else None,  # on others it is waited for without computing
    )
    return seconds.transpose(2, 0, 1)


def _full_batch(subject: ModelUnderTest, size: int, length: int) -> Batch:
    """Return a batch of random tokens without padding, with the same inputs as the task's batches."""
    generator = torch.Generator().manual_seed(subject.seed)
    vocabulary = int(subject.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    example = subject.dev.batches[0]
    batch = {key: torch.zeros(size, length, dtype=value.dtype, device=value.device) for key, value in example.items()}
    ids = torch.randint(vocabulary // 2, vocabulary, (size, length), generator=generator)
    return batch | {"input_ids": ids.to(subject.device), "attention_mask": torch.ones_like(ids).to(subject.device)}


def _percentile(percentile: int) -> Callable[[Array], float]:
    return lambda values: float(np.percentile(values, percentile))


def _versus(times: Array, i: int, statistic: Callable[[Array], float], seed: int) -> Comparison | None:
    if i == 0:
        return None
    baseline, model = ([statistic(seconds) for seconds in times[k]] for k in (0, i))
    return paired_ratio(baseline, model, seed=seed)


def _row(
    metric: str,
    unit: str,
    better: Better,
    values: Array,
    statistic: Callable[[Array], float],
    versus: Comparison | None,
    seed: int,
) -> Measurement:
    estimate = bootstrap(lambda drawn: statistic(values[drawn]), len(values), seed=seed)
    return Measurement(metric=metric, **estimate._asdict(), unit=unit, n=len(values), better=better, versus=versus)

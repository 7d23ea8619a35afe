import threading

import pytest

from whet.evaluation import slowness
from whet.evaluation.slowness import Stopwatch, busy_advice, busy_sentence

BUSY = {"slowness": 2.3, "threads": 1}


@pytest.fixture(autouse=True)
def on_its_own(monkeypatch):
    """The limit that users have; `conftest` takes it away."""
    monkeypatch.setattr(slowness, "BUSY", 1.25)


def test_slowness_is_seconds_by_the_clock_for_one_of_computing(monkeypatch):
    clock, processor = iter([10.0, 13.0, 20.0, 22.0]), iter([0.0, 1.0, 1.0, 2.0])
    monkeypatch.setattr(slowness.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(slowness.time, "thread_time", lambda: next(processor))
    watch = Stopwatch()
    assert watch.slowness == 1
    for _ in range(2):
        with watch.running():
            pass
    assert (watch.seconds, watch.computing, watch.slowness) == (5.0, 2.0, 2.5)


def test_what_other_threads_compute_does_not_hide_waiting():
    """Two threads that share a processor compute as much as one that has it for itself."""
    watch, until = Stopwatch(), threading.Event()

    def compute() -> None:
        while not until.is_set():
            sum(range(1000))

    other = threading.Thread(target=compute)
    other.start()
    with watch.running():
        until.wait(0.2)
    until.set()
    other.join()
    assert watch.slowness > 5


def test_a_little_slowness_is_no_news():
    for conditions in (None, {}, {"slowness": 1.1, "threads": 1}, {"slowness": "much"}):
        assert busy_sentence(conditions) == "" == busy_advice(conditions or {})


def test_several_threads_wait_for_each_other_on_an_idle_machine_too():
    assert busy_sentence({"slowness": 1.3, "threads": 2}) == ""
    assert busy_sentence({"slowness": 1.3, "threads": 1}) and busy_sentence({"slowness": 1.6, "threads": 2})


def test_a_busy_machine_is_told_with_what_to_do():
    told = (
        "the machine was busy with other work: what was timed waited 57 % of the time, so that times and "
        "speedups may be wrong"
    )
    assert busy_sentence(BUSY) == f"{told[0].upper()}{told[1:]}."
    assert busy_advice(BUSY) == f"{told}; run it again when the machine is idle"
    assert busy_advice({**BUSY, "threads": 2}).endswith("machine is idle, or with fewer --threads than 2")

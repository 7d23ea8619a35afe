"""A piece of work ends once its time is over, wherever it is, and nothing comes after it."""

import contextlib
import math
import sys
import threading

import pytest

from whet.utils import interruption
from whet.utils.interruption import TimeIsOver, within


def busy() -> None:
    """Compute until somebody raises something; in the end for the sake of the test."""
    for _ in range(10**9):
        pass


def test_work_without_end_ends_and_cleans_up():
    reached = []

    def work() -> None:
        try:
            busy()
        finally:
            reached.append("the end")

    with pytest.raises(TimeIsOver):
        within(0.01, work)
    assert reached == ["the end"]


@pytest.mark.parametrize("caught", [TimeIsOver, Exception])
def test_what_catches_exceptions_does_not_go_on(monkeypatch, caught):
    monkeypatch.setattr(interruption, "AGAIN", 0.01)

    def work() -> None:
        with contextlib.suppress(caught):
            busy()
        busy()

    with pytest.raises(TimeIsOver):
        within(0.01, work)


@pytest.mark.parametrize("seconds", [100.0, math.inf])
def test_work_that_ends_in_time_is_left_alone(seconds):
    assert within(seconds, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(seconds, lambda: 1 // 0)


def test_nothing_is_raised_after_the_end():
    """It may have been raised and not have arrived when the work ends; of 300 times some come that late."""
    for i in range(300):
        with contextlib.suppress(TimeIsOver):
            assert within(i * 1e-6, lambda: sum(range(100))) == 4950
        sum(range(500))


def test_another_thread_can_have_a_limit():
    ended = []

    def work() -> None:
        with contextlib.suppress(TimeIsOver):
            within(0.01, busy)
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended


def test_an_import_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.2)\ndone = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(interruption, "AGAIN", 0.01)

    def work() -> None:
        import slow_to_import  # noqa: F401

        busy()

    with pytest.raises(TimeIsOver):
        within(0.01, work)
    assert sys.modules.pop("slow_to_import").done

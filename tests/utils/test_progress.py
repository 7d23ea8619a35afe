"""Progress: a line a minute in a log, bars on a terminal, and nothing where nothing is wanted."""

import io
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from transformers.utils import logging

from whet.utils import progress
from whet.utils.progress import (
    ProgressBar,
    activity,
    aside,
    detail,
    note,
    progress_bar,
    progress_line,
    say,
    speaking,
    time_in_words,
    track,
    without_foreign_bars,
)


class Terminal(io.StringIO):
    """An error stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def bar(description: str, total: float | None, done: float, begun: float) -> ProgressBar:
    made = ProgressBar(description, total)
    made.done, made.begun = done, begun
    return made


@pytest.mark.parametrize(
    ("bars", "line"),
    [
        ([("whet measure", None, 0, 0)], "whet measure: at work for 5 min"),
        ([("measuring", 10, 4, 180)], "measuring: 40 % after 2 min, about 3 min left"),
        ([("whet measure", None, 0, 0), ("measuring", 10, 4, 180)], "measuring: 40 % after 2 min, about 3 min left"),
        (
            [("measuring", 10, 4, 180), ("logits of a", 8, 8, 290)],
            "measuring: 40 % after 2 min, about 3 min left (logits",
        ),
        ([("measuring", 100, 1, 180)], "measuring: 1 % after 2 min"),
        ([("measuring", 10, 10, 180)], "measuring: 100 % after 2 min"),
        ([("measuring", 10, 12, 180)], "measuring: 100 % after 2 min"),
    ],
)
def test_a_line_says_how_far_the_outermost_work_is(bars, line):
    said = progress_line([bar(*one) for one in bars], 300.0)
    assert said == line or (
        said.startswith(line) and line.endswith("(logits") and said.endswith("(logits of a: 100 %)")
    )


def test_the_time_left_does_not_grow_during_one_long_step():
    """Where a step takes longer than all before it made likely, nothing is foretold, but how far the step is."""
    outer, inner = bar("measuring", 10, 4, 0), bar("timing", 10, 3, 120)
    outer.reached = 120.0
    said = [progress_line([outer, inner], now) for now in (120.0, 180.0, 600.0)]
    assert said[0] == "measuring: 40 % after 2 min, about 3 min left (timing: 30 %)"
    assert said[1:] == [
        "measuring: 40 % after 3 min, about 2 min left (timing: 30 %)",
        "measuring: 40 % after 10 min (timing: 30 %)",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.42, "0.4 s"),
        (45.4, "45 s"),
        (59.7, "1 min"),
        (61, "1 min"),
        (200, "3 min"),
        (3600, "1 h 0 min"),
        (3900, "1 h 5 min"),
    ],
)
def test_times_in_words(seconds, words):
    assert time_in_words(seconds) == words


@pytest.fixture
def soon(monkeypatch):
    """A log gets its lines every hundredth of a second."""
    monkeypatch.setattr(progress, "EVERY", 0.01)


def waited_for(log: io.StringIO, text: str) -> bool:
    until = time.monotonic() + 10
    while text not in log.getvalue() and time.monotonic() < until:
        time.sleep(0.005)
    return text in log.getvalue()


def test_a_log_gets_lines_and_no_bar(monkeypatch, soon):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with activity("whet search"):
        assert waited_for(log, "whet search: at work for 0.0 s\n")
        with progress_bar("measuring", 10) as outer:
            outer.advance(4)
            with progress_bar("a part", 3):
                assert waited_for(log, "measuring: 40 % after") and waited_for(log, "(a part: 0 %)\n")
    said = log.getvalue()
    time.sleep(0.05)
    assert log.getvalue() == said, "nothing is said once the work has ended"
    assert "\x1b" not in said and "━" not in said


def test_the_first_line_comes_after_a_minute(monkeypatch):
    assert progress.EVERY == 60
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for _ in track(range(3), "quick"):
        pass
    assert log.getvalue() == ""


def test_quiet_says_only_what_must_be_said(monkeypatch, soon):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with speaking("quiet"), activity("x"), progress_bar("measuring", 2):
        note("a note")
        detail("a step")
        time.sleep(0.05)
        say("an error")
    assert log.getvalue() == "an error\n"


def test_verbose_says_every_step_and_its_time(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with speaking("verbose"):
        for _ in track(range(3), "loading"):
            pass
        with progress_bar("never shown", 1, hidden=True):
            pass
    assert log.getvalue() == "- loading: 0.0 s\n"


def test_bars_on_a_terminal_leave_standard_output_alone(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("outer", 2) as outer, progress_bar("inner", 3) as inner:
        inner.advance()
        outer.advance(note="renamed")
        with aside():
            print("a result")
        print("another")
        say("a sentence")
    assert capsys.readouterr().out == "a result\nanother\n"
    assert all(word in terminal.getvalue() for word in ("outer", "inner", "a sentence"))


def test_work_may_end_in_any_order(monkeypatch, soon):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    outer, inner = (track(range(2), name) for name in ("outer", "inner"))
    next(outer)
    next(inner)
    outer.close()
    assert waited_for(log, "inner: ")
    inner.close()
    assert not progress._BOARD._bars and progress._BOARD._ended is None


@pytest.mark.parametrize("first_out", [0, 1])
def test_bars_of_transformers_come_back_whichever_block_ends_first(first_out):
    """Blocks of two threads may overlap; a hook of the user's own is the one that comes back."""
    shown = []

    def own(factory, args, kwargs):
        shown.append(args)
        return logging.EmptyTqdm(*args, **kwargs)

    before = logging.set_tqdm_hook(own)
    try:
        blocks = [ExitStack(), ExitStack()]
        for block in blocks:
            block.enter_context(without_foreign_bars())
        assert list(logging.tqdm([1, 2])) == [1, 2] and not shown
        other = threading.Thread(target=blocks[first_out].close)
        other.start()
        other.join()
        assert list(logging.tqdm([3])) == [3] and not shown
        blocks[1 - first_out].close()
        assert list(logging.tqdm([4])) == [4] and shown == [([4],)]
    finally:
        assert logging.set_tqdm_hook(before) is own

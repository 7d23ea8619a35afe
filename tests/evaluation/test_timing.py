import ast
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from torch import nn

import whet
from helpers import tiny_batches, tiny_model
from whet.api.inspecting import inspect
from whet.errors import OutputNotWritten
from whet.evaluation import slowness, timing
from whet.evaluation.metrics.base import ModelUnderTest
from whet.evaluation.metrics.latency import Latency
from whet.evaluation.significance import paired_ratio, speedup
from whet.evaluation.slowness import Stopwatch
from whet.evaluation.timing import (
    RuntimeTimer,
    layer_latencies,
    machine_lock,
    representative_batches,
    time_batches,
    time_interleaved,
    time_models,
    time_modules,
)
from whet.methods import _budget
from whet.models.inference import predict

SOURCE = Path(whet.__file__).parent


def under_test(model: nn.Module, name: str) -> ModelUnderTest:
    batches = tiny_batches()
    return ModelUnderTest(
        name=name,
        source="",
        model=model,
        device="cpu",
        max_length=40,
        dev=batches,
        answers=predict(model, batches, name=name),
        singles=batches,
        timed=batches,
        rounds=6,
        seed=0,
    )


# turns


def test_calls_take_turns_in_a_random_order_after_a_warm_up():
    seen: list[int] = []
    seconds = time_interleaved([lambda i=i: seen.append(i) for i in range(3)], rounds=30)
    assert seconds.shape == (30, 3) and (seconds > 0).all()
    assert len(seen) == 3 * (30 + timing.WARM_UP)
    rounds = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert {tuple(sorted(one)) for one in rounds} == {(0, 1, 2)}, "each takes its turn once a round"
    assert len(set(rounds)) == 6, "every order occurs"


def test_the_order_is_that_of_the_seed():
    def order(seed: int) -> list[int]:
        seen: list[int] = []
        time_interleaved([lambda i=i: seen.append(i) for i in range(3)], rounds=6, seed=seed)
        return seen

    assert order(1) == order(1) != order(2)


def test_every_batch_is_timed_once_a_round():
    seen: list[tuple[int, int]] = []
    calls = [[lambda at=(batch, i): seen.append(at) for i in range(2)] for batch in range(3)]
    assert time_batches(calls, rounds=4).shape == (4, 3, 2)
    passes = [seen[i : i + 6] for i in range(0, len(seen), 6)]
    assert all([batch for batch, _ in one] == [0, 0, 1, 1, 2, 2] for one in passes)
    assert all(sorted(one) == sorted(passes[0]) for one in passes)


def test_times_are_those_of_their_own_call():
    calls = [[lambda: time.sleep(0.004), lambda: None], [lambda: None, lambda: time.sleep(0.004)]]
    slow = time_batches(calls, rounds=5).min(0) >= 0.004
    assert slow.tolist() == [[True, False], [False, True]]


def test_slow_calls_take_fewer_turns_but_never_fewer_than_3():
    def rounds(budget: float) -> int:
        return len(time_interleaved([lambda: time.sleep(0.002)] * 2, rounds=20, budget=budget))

    assert rounds(math.inf) == 20
    assert rounds(0.0) == 3
    assert 3 <= rounds(0.03) <= 9  # a round takes 4 ms or more


def test_an_accelerator_is_waited_for_before_and_after_each_call(monkeypatch):
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", events.append)
    time_interleaved([lambda: events.append("call")], rounds=1, device="cuda:1")
    assert events == ["cuda:1", "call", "cuda:1"] * (1 + timing.WARM_UP)


def test_what_counts_is_watched_for_other_work():
    watch, seen = Stopwatch(), list[float]()
    seconds = time_batches([[lambda: seen.append(watch.seconds)]], rounds=3, stopwatch=watch)
    assert watch.seconds >= seconds.sum()
    assert seen[: timing.WARM_UP + 1] == [0.0] * (timing.WARM_UP + 1) and seen == sorted(seen) and seen[-1] > 0


# speedup


def test_a_speedup_is_the_median_of_the_ratios_within_rounds():
    baseline, model = np.array([1.0, 10.0, 3.0]), np.array([1.0, 2.0, 6.0])
    assert np.median(baseline) / np.median(model) == 1.5  # of other rounds each, so it says nothing
    assert speedup(baseline, model) == 1.0
    assert paired_ratio(baseline, model, seed=0).value == 1.0


def test_methods_and_whet_measure_give_the_same_speedup_for_the_same_times(monkeypatch):
    rounds = np.array([[1.0, 1.0], [10.0, 2.0], [3.0, 6.0]])
    asked: list[float] = []

    def choose(keep: float) -> dict[str, int | None]:
        asked.append(keep)
        return {}

    monkeypatch.setattr(_budget, "time_models", lambda models, batches: rounds)
    with pytest.raises(whet.errors.InvalidParameter, match=r"speedup <= 1\.00 must hold on this machine"):
        _budget.at_speed(nn.Identity(), choose, [], speedup=1.2, build=lambda ranks: nn.Identity())
    assert asked == [_budget.SMALLEST]

    monkeypatch.setattr("whet.evaluation.metrics.latency.time_batches", lambda calls, **rest: rounds[:, None, :])
    subjects = [under_test(tiny_model("bert"), name) for name in "ab"]
    throughput = Latency().measure(subjects)[1][2]
    assert throughput.metric == "throughput" and throughput.versus.value == 1.0


# the lock


TAKERS: dict[str, Callable[[nn.Module], object]] = {
    "calls": lambda model: time_interleaved([lambda: model(**tiny_batches().batches[0])], rounds=1),
    "models": lambda model: time_models([model], tiny_batches().batches),
    "modules": lambda model: time_modules(model, {"it": model}, tiny_batches().batches[0], rounds=1),
    "a runtime": lambda model: (timer := RuntimeTimer(batches=tiny_batches())).time([timer.opened(model)]),
    "whet measure": lambda model: Latency().measure([under_test(model, "it")]),
    "whet inspect": lambda model: inspect("it", batch=(1, 4), rounds=1),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_whatever_takes_times_holds_the_lock(taker: str, monkeypatch):
    monkeypatch.setattr("whet.api.inspecting.load_with_tokenizer", lambda source, kind: (model, None))
    monkeypatch.setattr("whet.api.inspecting.refusals", lambda model, tokenizer: {})
    monkeypatch.setattr("whet.evaluation.inspection._tokens_read", lambda model: "all tokens")
    model, lock, alone = tiny_model("bert"), FileLock(timing.LOCK), list[bool]()

    def watch(*_: object) -> None:
        try:
            with lock.acquire(timeout=0):
                alone.append(False)
        except Timeout:
            alone.append(True)

    under_test(model, "warm")
    model.register_forward_pre_hook(watch)
    TAKERS[taker](model)
    answered = 1 if taker == "whet measure" else 0  # the dev examples, which nobody times
    batches = len(tiny_batches().batches)
    assert len(alone) > answered and all(alone[answered * batches :])
    with lock.acquire(timeout=0):
        pass


PROGRAM = """
import sys, time
from pathlib import Path
from whet.evaluation import slowness, timing
timing.LOCK = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    seen = []
    timing.time_interleaved([lambda: (seen.append(time.monotonic()), time.sleep(0.02))], rounds=4)
    print(seen[0], seen[-1] + 0.02, flush=True)
"""


def test_two_programs_never_take_times_together(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "lock")]
    programs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for program in programs:
        assert program.stdout.readline() == "ready\n"
    for program in programs:
        program.stdin.write("\n")
        program.stdin.flush()
    spans = []
    for i, program in enumerate(programs):
        out, err = program.communicate(timeout=120)
        assert program.returncode == 0, err
        spans += [(*map(float, line.split()), i) for line in out.splitlines()]
    assert len(spans) == 6
    spans.sort()
    assert all(end <= begin for (_, end, _), (begin, _, _) in pairwise(spans))


def test_the_user_is_told_what_is_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(timing, "PATIENCE", 0.01)
    held = threading.Event()

    def other() -> None:
        with FileLock(timing.LOCK, mode=0o600):
            held.set()
            time.sleep(0.3)

    program = threading.Thread(target=other)
    program.start()
    held.wait()
    time_interleaved([lambda: None], rounds=1)
    program.join()
    err = capsys.readouterr().err
    by = f"process {os.getpid()}" if Path("/proc/locks").exists() else "another program"
    assert (
        err.count(f"waiting for {by}, another run of whet that takes times on this machine") == 1
        and err.count("\n") == 1
    )


def test_nobody_is_told_of_no_waiting(capsys):
    with machine_lock():
        pass
    assert capsys.readouterr().err == ""


def test_a_lock_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(timing, "LOCK", tmp_path / "file" / "lock")
    with pytest.raises(
        OutputNotWritten, match=r"lock must be a file that you can write, but .*; remove it, or set TMPD"
    ):
        time_interleaved([lambda: None], rounds=1)


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("aim"), Path.mkdir, os.mkfifo])
def test_what_others_may_have_put_in_the_locks_place_is_left_alone(tmp_path, monkeypatch, make):
    make(tmp_path / "lock")
    monkeypatch.setattr(timing, "LOCK", tmp_path / "lock")
    with pytest.raises(OutputNotWritten, match=r"lock must be .*, but it is a symlink or no file; remove it"):
        time_interleaved([lambda: None], rounds=1)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_lock_is_its_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "LOCK", tmp_path / "lock")
    time_interleaved([lambda: None], rounds=1)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(OutputNotWritten, match=r"but it is another user's"):
        time_interleaved([lambda: None], rounds=1)


# models, layers, modules


@pytest.mark.parametrize("runtime", ["pytorch", "onnxruntime"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
def test_a_runtime_times_models_in_turn(runtime: str):
    timer = RuntimeTimer(batches=tiny_batches(), runtime=runtime)
    timer.require()
    seconds = timer.time([timer.opened(tiny_model("bert")) for _ in range(2)])
    assert seconds.shape[1] == 2 and (seconds > 0).all()


def test_a_larger_rank_is_never_taken_to_be_faster():
    found = layer_latencies(torch.empty(24, 16), [1, 2, 4, 8], representative_batches(tiny_batches()))
    assert found.dense > 0
    assert list(found.factored) == [1, 2, 4, 8]
    assert np.all(np.diff(list(found.factored.values())) >= 0)


class Nap(nn.Module):
    def forward(self) -> None:
        time.sleep(0.004)


def test_modules_have_the_time_that_they_take_in_a_whole_pass():
    class Sleeper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.shared, self.once, self.never = Nap(), Nap(), Nap()

        def forward(self) -> None:
            for module in (self.shared, self.shared, self.once):
                module()

    model = Sleeper()
    found = time_modules(model, dict(model.named_children()), {}, rounds=3)
    assert found.modules["never"] == 0
    assert found.modules["once"] >= 0.004 and found.modules["shared"] >= 0.008
    assert sum(found.modules.values()) <= found.whole
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_modules_are_left_without_hooks_by_a_failure():
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError):
        time_modules(model, {"it": model}, {}, rounds=1)
    assert not model._forward_hooks and not model._forward_pre_hooks


def test_representative_batches_are_full_and_spread_over_the_lengths():
    batches = tiny_batches(count=20, batch_size=3)
    found = representative_batches(batches, batch_size=12, count=3)
    lengths = [batch["input_ids"].shape[1] for batch in found]
    assert len(found) == 3
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    assert all(len(batch["input_ids"]) == 12 for batch in found)
    assert all(batch["input_ids"].shape == batch["attention_mask"].shape for batch in found)
    assert representative_batches(tiny_batches(count=1)) != []


# one clock


CLOCKS = {"perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time", "thread_time", "timeit"}
STEPS = {
    "api/comparing.py": "how long each model of a comparison took to make",
    "cli/demo.py": "how long each step of the demo took",
    "evaluation/timing.py": "the clock itself",
    "methods/recipe.py": "how long each step of a recipe took",
    "evaluation/slowness.py": "how much longer timed work took than it computed",
    "searching/baseline.py": "how long the original took to load, by which a search is planned",
    "searching/search.py": "when a search began",
    "searching/stages.py": "how long each structure of a search took",
    "searching/worker.py": "how much of the time of a search has gone",
    "utils/progress.py": "how far a job is, for lines of progress",
}
"""Modules that read a clock, and what of: all but the first report whole steps, and compare no models by them."""


def reads_a_clock(source: str) -> bool:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.name for alias in node.names}
        names |= {getattr(node, "attr", ""), getattr(node, "id", "")}
    return bool(CLOCKS & names)


def test_models_are_timed_by_one_clock_alone():
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if reads_a_clock(path.read_text())}
    assert found == STEPS.keys()


@pytest.mark.parametrize(
    "fault",
    ["import time\nbegun = time.perf_counter()", "from time import perf_counter_ns as now", "import timeit"],
)
def test_a_second_clock_is_found(fault: str):
    assert reads_a_clock(fault)


def test_whoever_compresses_beside_other_work_is_told_once(monkeypatch, capsys):
    """A structure that was chosen on a busy machine lost 2.4 points where one of an idle machine lost 1.7."""
    timing._say_that_choices_may_be_poor.cache_clear()
    model, batches = tiny_model("bert", blocks=1), tiny_batches().batches[:1]
    time_models([model], batches)
    assert "busy" not in capsys.readouterr().err
    monkeypatch.setattr(slowness, "BUSY", 0)
    for _ in range(2):
        time_models([model], batches)
    assert capsys.readouterr().err.count("the machine is busy with other work: times by which methods choose") == 1

"""The rules of a search: its loop with made-up figures (`searches`), and tiny models from end to end."""

import dataclasses
import errno
import json
import math
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import whet
from folders import classifier, save, tree, write_rows
from interruptible import stop_at
from retrieval_data import write_retrieval
from searches import candidate, drop_of, made_up, stop_after, write_model_and_data
from sentences import sentence_folder
from whet.cli import app
from whet.cli.options import seconds_in
from whet.errors import (
    InvalidData,
    InvalidModel,
    InvalidParameter,
    OutputExists,
    OutputNotWritten,
    UnknownName,
    WhetError,
)
from whet.evaluation import records, slowness
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.searching import search, winner, worker
from whet.searching.goal import Goal
from whet.searching.result import SearchResult
from whet.searching.space import Space, Structure
from whet.searching.stages import StagedEvaluation
from whet.searching.storage import FAILED, FINISHED, SearchTrial
from whet.searching.targets import Target
from whet.tasks.base import Splits, Task, task_named
from whet.tasks.data import Examples
from whet.tasks.own_data import task_from_files
from whet.tasks.splits import FILL_UP_TO, ResplitTask, with_selection_split
from whet.utils import interruption

MADE_UP = {"goal": Goal(max_drop=1.0), "runtimes": ["pytorch"], "seconds": 3600.0}


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory, tokenizer) -> Path:
    """A fine-tuned model and own data; never changed."""
    root = tmp_path_factory.mktemp("made")
    write_model_and_data(root, tokenizer)
    return root


@pytest.fixture(autouse=True)
def short_confirmation(monkeypatch):
    """What the dev split says does not depend on how long it is timed."""
    few = Benchmark(rounds=6, singles=2, timed=4, metrics=("fidelity", "latency", "size"))
    monkeypatch.setattr(winner, "CONFIRMATION", few)


@pytest.fixture
def run_search(model_and_data, tmp_path):
    """Search, for figures that are made up unless `StagedEvaluation.run` is replaced."""

    def run(**changes) -> SearchResult:
        words = {**MADE_UP, "out": tmp_path / "out", **changes}
        return whet.search(model_and_data / "model", task_of(model_and_data), words.pop("out"), **words)

    return run


@pytest.fixture
def evaluated(monkeypatch) -> list[Structure]:
    """Made-up figures for every structure; what is tried is counted."""
    return count_evaluated(monkeypatch, made_up())


def notes_of(result) -> list[str]:
    """What a search says at its end, but for what so few dev examples cannot show."""
    return [note for note in result.notes if "24 dev examples do not show" not in note]


def count_evaluated(monkeypatch, evaluate) -> list[Structure]:
    tried: list[Structure] = []

    def counted(self, proposal, folder, past):
        tried.append(proposal.structure)
        return evaluate(self, proposal, folder, past)

    monkeypatch.setattr(StagedEvaluation, "run", counted)
    return tried


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(search, "time", clock)
        monkeypatch.setattr(worker, "time", clock)


def task_of(root: Path) -> Task:
    return task_from_files(root / "train.csv", root / "dev.csv", text="text")


def trials_in(out: Path) -> list[SearchTrial]:
    return [SearchTrial.read(path) for path in sorted((out / "trials").glob("*.json"))]


# (a) something is always returned


def test_the_best_is_an_ordinary_folder_that_says_how_it_runs(run_search, evaluated, monkeypatch, tmp_path):
    stop_after(monkeypatch, 5)
    result = run_search()
    best = tmp_path / "out" / "best"
    AutoModelForSequenceClassification.from_pretrained(best)
    artifact.verify(best)
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["target"] == {"runtime": "pytorch", "precision": "fp32"}
    chosen, on_dev = records.trials(best)
    assert chosen == result.best and on_dev == result.confirmation[1]
    assert chosen.conditions["split"] == "selection slice of the training data" and "split" not in on_dev.conditions
    assert result.accepted and result.best in result.frontier.trials and len(result.search_trials) == 5
    lines = (tmp_path / "out" / "measurements.jsonl").read_text().splitlines()
    assert [Trial.from_json(line) for line in lines] == [result.baseline, *result.candidates]


def test_a_best_is_there_before_anything_was_tried(run_search, monkeypatch, tmp_path):
    def run(self, *_rest):
        artifact.verify(tmp_path / "out" / "best")
        raise KeyboardInterrupt

    monkeypatch.setattr(StagedEvaluation, "run", run)
    result = run_search()
    assert result.best == result.baseline and not result.accepted and not result.candidates and result.stopped
    assert result.notes[-1] == "no structure was measured yet, and best is the baseline"


@pytest.mark.parametrize("held", [True, False])
def test_ctrl_c_ends_with_the_best_so_far(run_search, monkeypatch, tmp_path, held):
    evaluate = made_up(drop=drop_of if held else lambda structure: 9 + drop_of(structure))

    def stopped(self, proposal, folder, past):
        if len(past) == 3:
            raise KeyboardInterrupt
        return evaluate(self, proposal, folder, past)

    monkeypatch.setattr(StagedEvaluation, "run", stopped)
    result = run_search()
    assert len(result.candidates) == 3 and result.accepted is held and result.stopped
    assert result.best == Goal().winner(result.candidates, result.baseline)
    assert records.trials(tmp_path / "out" / "best") == [result.best]
    assert not result.confirmation and "the same command goes on" in result.notes[-1]
    # what was stopped is tried again
    first = count_evaluated(monkeypatch, evaluate)
    stop_after(monkeypatch, 4)
    assert len(run_search().candidates) == 4 and len(first) == 1


def test_where_nothing_holds_the_nearest_is_kept(run_search, monkeypatch, tmp_path):
    count_evaluated(monkeypatch, made_up(drop=lambda structure: 3 + drop_of(structure)))
    stop_after(monkeypatch, 3)
    result = run_search()
    assert not result.accepted and result.best.recipe == [{"method": "lossless.first_token"}]
    assert records.trials(tmp_path / "out" / "best")[0] == result.best
    assert result.confirmation


def test_all_candidates_fail(run_search, monkeypatch, tmp_path):
    def fail(self, recipe):
        raise InvalidModel("no way")

    monkeypatch.setattr("whet.searching.recipe_cache.CachedRecipes.apply", fail)
    stop_after(monkeypatch, 4)
    result = run_search()
    assert [(one.state, one.message) for one in result.search_trials] == [(FAILED, "InvalidModel: no way")] * 4
    assert not result.accepted and result.best == result.baseline and not result.confirmation
    assert "every candidate failed" in result.notes[-1]
    artifact.verify(tmp_path / "out" / "best")


def test_a_full_disk_while_the_winner_is_saved_leaves_the_one_before(run_search, evaluated, monkeypatch, tmp_path):
    stop_after(monkeypatch, 1)
    before = run_search().best
    copy = shutil.copy2

    def full(source, target, **rest):
        if ".best." in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target, **rest)

    monkeypatch.setattr(shutil, "copy2", full)
    stop_after(monkeypatch, 3)
    with pytest.raises(OutputNotWritten, match=r"No space left on device; free some space"):
        run_search()
    best = tmp_path / "out" / "best"
    artifact.verify(best)
    assert records.trials(best)[0] == before
    monkeypatch.setattr(shutil, "copy2", copy)
    result = run_search()
    assert records.trials(best)[0] == result.best != before
    assert len(evaluated) == len(set(evaluated)) == 3


# (b) the lower bound on the selection slice, then dev once


def test_the_selection_slice_is_of_training_data_that_nothing_else_sees(model_and_data):
    task = task_of(model_and_data)
    own = with_selection_split(task)
    train, chosen, dev = own.splits
    assert dev == task.splits.dev
    assert set(chosen.texts) >= set(task.splits.validation.texts)
    together = sorted(zip([*train.texts, *chosen.texts], [*train.labels, *chosen.labels], strict=True))
    assert together == sorted(zip(*(getattr(task.read()[0], name) for name in ("texts", "labels")), strict=True))
    assert len(chosen) == 6 + 57 and own.label_names == ("no", "yes") and own.metrics == task.metrics


@pytest.mark.parametrize(
    ("official", "slice_size"), [(100, 52), (3668, 1925), (10_000, FILL_UP_TO), (20_000, 1000), (100_000, 1000)]
)
def test_how_large_the_slice_is(official, slice_size):
    held_out = min(1000, official // 20)
    some = Examples([f"a{i}" for i in range(official)], [i % 2 for i in range(official)])
    splits = Splits(some.take(range(held_out, official)), some.take(range(held_out)), some.take([0, 1]))
    task = ResplitTask(name="t", whole=task_named("agreement"), own=splits)
    assert len(with_selection_split(task).splits.validation) == slice_size


def test_twins_stay_in_one_split():
    train, chosen, _ = with_selection_split(task_named("agreement")).splits
    assert len(chosen) % 2 == len(train) % 2 == 0


def test_nothing_trained_on_is_a_part_of_what_is_chosen_by_nor_the_other_way_round():
    sentences = [f"The film {i} is dull ." for i in range(200)]
    phrases = [text[4:-2].upper() for text in sentences] + ["dull", "no part"] * 20
    texts = [text for pair in zip(sentences, phrases, strict=False) for text in pair] + phrases[200:]
    some = Examples(texts, [i % 2 for i in range(len(texts))])
    splits = Splits(some.take(range(20, len(texts))), some.take(range(20)), some.take([0, 1]))
    train, chosen, _ = with_selection_split(ResplitTask(name="t", whole=task_named("agreement"), own=splits)).splits
    assert set(chosen.texts) <= {*sentences, "no part"} and len(chosen) > 100
    for text in train.texts:
        assert not any(text.lower() in sentence.lower() for sentence in chosen.texts)
    assert any(text.startswith("FILM") for text in train.texts), "phrases of other sentences stay"


def test_a_pair_is_a_part_only_of_a_pair():
    first = [f"first {i}" for i in range(100)]
    some = Examples(first, [i % 2 for i in range(100)], ["the same"] * 99 + ["first 0"])
    splits = Splits(some.take(range(5, 100)), some.take(range(5)), some.take([0, 1]))
    train, chosen, _ = with_selection_split(ResplitTask(name="t", whole=task_named("agreement"), own=splits)).splits
    assert len(train) + len(chosen) == 100


def test_the_dev_split_is_seen_once_and_last(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 3)
    seen: list[int] = []
    run = Benchmark.compare
    monkeypatch.setattr(Benchmark, "compare", lambda *args: seen.append(len(evaluated)) or run(*args))
    first = run_search()
    assert seen == [3] and first.confirmation[0].name == "model"
    assert run_search().confirmation == first.confirmation and seen == [3]
    assert first.confirmation[1].conditions["data_sha256"] != first.best.conditions["data_sha256"]


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        (0.4, ""),
        (0.6, "dev examples do not show that the best holds the bar of 1: it may lose 1.1 points there"),
        (9.0, "on dev the best loses 9 points, and the bar is 1"),
    ],
)
def test_a_winner_that_is_not_shown_to_hold_the_bar_on_dev_is_told(run_search, evaluated, monkeypatch, drop, told):
    stop_after(monkeypatch, 3)
    run = Benchmark.compare

    def compare(*args):
        baseline, _ = run(*args)
        return [baseline, candidate(0, Structure(), baseline, drop=drop, speed=2.0)]

    monkeypatch.setattr(Benchmark, "compare", compare)
    notes = [note for note in run_search().notes if "on dev" in note or "dev examples" in note]
    assert len(notes) == bool(told) and all(told in note for note in notes)


def test_choices_do_not_change_with_the_dev_split(model_and_data, tmp_path, evaluated, monkeypatch):
    stop_after(monkeypatch, 4)
    write_rows(tmp_path / "other.csv", 30, seed=5)
    names = []
    for i, dev in enumerate((model_and_data / "dev.csv", tmp_path / "other.csv")):
        task = task_from_files(model_and_data / "train.csv", dev, text="text")
        names.append(whet.search(model_and_data / "model", task, tmp_path / str(i), **MADE_UP).best.recipe)
    assert names[0] == names[1]


# (c) killed at any time, it goes on


def test_it_goes_on_and_tries_nothing_twice(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 3)
    first = run_search()
    stop_after(monkeypatch, 8)
    second = run_search()
    assert len(evaluated) == len(set(evaluated)) == 8
    assert second.search_trials[:3] == first.search_trials and second.baseline == first.baseline
    assert run_search().search_trials == second.search_trials and len(evaluated) == 8


MOMENTS = {
    "before a structure": ("whet.searching.stages:StagedEvaluation.run", "before"),
    "measured, not recorded": ("whet.searching.stages:StagedEvaluation.run", "after"),
    "recorded, still claimed": ("whet.searching.storage:SearchStorage.release", "before"),
    "recorded, the best not saved": ("whet.searching.storage:SearchStorage.record", "after"),
    "while the best is saved": ("whet.models.manifest:Manifest.to_json", "before"),
    "saved, not remembered": ("whet.models.artifact:copy_files", "after"),
    "while it is confirmed": ("whet.evaluation.benchmark:Benchmark.compare", "before"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_search_loses_nothing_that_was_finished(model_and_data, tmp_path, evaluated, monkeypatch, moment):
    """A fork of this process is killed there; the next one finds what it had finished, and does only the rest."""
    stop_after(monkeypatch, 2)
    out, ready = tmp_path / "out", tmp_path / "ready"
    pid = os.fork()
    if pid == 0:
        if moment != "while the best is saved":
            stop_at(*MOMENTS[moment], ready=ready)
        else:
            original = records.copy_model
            records.copy_model = lambda *args, **rest: (stop_at(*MOMENTS[moment], ready=ready), original(*args, **rest))
        try:
            whet.search(model_and_data / "model", task_of(model_and_data), out, **MADE_UP)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    finished = [one.structure for one in trials_in(out)]
    artifact.verify(out / "best")
    stop_after(monkeypatch, 4)
    result = whet.search(model_and_data / "model", task_of(model_and_data), out, **MADE_UP)
    assert [one.structure for one in result.search_trials[: len(finished)]] == finished
    assert not set(evaluated) & set(finished) and len(evaluated) == len(set(evaluated)) == 4 - len(finished)
    assert records.trials(out / "best") == [result.best, result.confirmation[1]]


def as_version_0_1_0_wrote_it(out: Path) -> None:
    """Rewrite the files of a search under the names that version 0.1.0 had, with what it had of its own."""
    search_file = out / "search.json"
    held = json.loads(search_file.read_text())
    shared = held.pop("shared")
    held["identity"]["versions"]["whet"] = "0.1.0"
    held["identity"]["machine"]["waiting"] = held["identity"]["machine"].pop("omp_wait_policy")
    confirmed = {key: [json.dumps(trial) for trial in trials] for key, trials in shared["confirmations"].items()}
    held["known"] = {
        "original": json.dumps(shared["baseline"]),
        "recovery": shared["recovery_share"],
        "best": shared["best"],
        "confirmed": confirmed,
    }
    search_file.write_text(json.dumps(held))
    for path in (out / "trials").glob("*.json"):
        entry = json.loads(path.read_text())
        entry |= {"kl": entry.pop("proxy_kl"), "speed": entry.pop("proxy_speedup"), "trials": entry.pop("candidates")}
        path.write_text(json.dumps(entry))
    (out / "journal").write_bytes(b'{"op_code":4,"worker')


def test_a_search_that_version_0_1_0_began_goes_on(run_search, evaluated, monkeypatch, tmp_path):
    stop_after(monkeypatch, 3)
    first = run_search()
    as_version_0_1_0_wrote_it(tmp_path / "out")
    assert run_search() == first and len(evaluated) == 3
    stop_after(monkeypatch, 4)
    assert run_search().search_trials[:3] == first.search_trials and len(evaluated) == len(set(evaluated)) == 4


def test_results_have_their_old_names_with_a_warning(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 1)
    result = run_search()
    for old, new in (("original", "baseline"), ("trials", "candidates"), ("attempts", "search_trials")):
        with pytest.warns(FutureWarning, match=rf"SearchResult.{old} is called {new} now"):
            assert getattr(result, old) is getattr(result, new)


# (d) a bar that is finer than the data can tell


def test_it_warns_of_a_bar_that_no_such_data_could_show(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 1)
    told: list[str] = []
    run_search(warn=told.append, goal=Goal(max_drop=2))
    assert told[1:] == [
        "a bar of 2 points is finer than 63 examples can tell, of which not one may change; about 150 would be needed: "
        "give more training data, or a wider bar"
    ]


def test_it_warns_once_where_intervals_are_too_wide(run_search, monkeypatch):
    count_evaluated(monkeypatch, made_up(drop=lambda structure: 4.8))
    stop_after(monkeypatch, 3)
    told: list[str] = []
    result = run_search(warn=told.append, goal=Goal(max_drop=5))
    needed = math.ceil(63 * (0.005 / 0.002) ** 2)
    assert len(told) == 2 and not result.accepted
    assert f"down to -5.3 cannot be ruled out; about {needed} examples would be needed" in told[1]


def test_it_warns_of_other_work_on_the_machine(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 1)
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    load, told = search.Baseline.of, list[str]()
    monkeypatch.setattr(
        search.Baseline, "of", lambda *args, **rest: dataclasses.replace(load(*args, **rest), slowness=2.3)
    )
    result = run_search(warn=told.append)
    assert "the machine was busy with other work: what was timed waited 57 % of" in told[1]
    assert result.candidates[0].conditions["slowness"] == 2.3


# bad input, refused before work


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"seconds": 0.0}, InvalidParameter, r"0 < seconds <= 100000000 must hold, but got seconds=0.0; give"),
        ({"seconds": -5.0}, InvalidParameter, "0 < seconds <= 100000000 must hold"),
        ({"seconds": math.nan}, InvalidParameter, "0 < seconds <= 100000000 must hold"),
        ({"seconds": math.inf}, InvalidParameter, "0 < seconds <= 100000000 must hold"),
        ({"batch_size": 0}, InvalidParameter, "1 <= batch_size <= 1000000 must hold, but got batch_size=0"),
        ({"max_length": 1}, InvalidParameter, "2 <= max_length <= 1000000 must hold"),
        ({"runtimes": ["onyx"]}, WhetError, "did you mean onnxruntime"),
        ({"precisions": ["int3"]}, UnknownName, "the precision must be a known name, but got 'int3'"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(run_search, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run_search(**changes)
    assert not (tmp_path / "out").exists()


def test_too_short_a_time_is_told_what_it_needs(run_search, evaluated, monkeypatch):
    clock = Clock(monkeypatch)
    load = search.Baseline.of

    def slow(*args, **rest):
        clock.now += 30
        return dataclasses.replace(load(*args, **rest), seconds=0.01)

    monkeypatch.setattr(search.Baseline, "of", slow)
    with pytest.raises(
        InvalidParameter, match=r"enough for one candidate, about (\d+) s here, but got 31 s"
    ) as refused:
        run_search(seconds=31.0)
    needed = float(re.search(r"about (\d+) s", str(refused.value))[1])
    # loading, calibration on 512 examples forward and back, the slice
    assert needed > 30 + 0.01 * (3 * 512 + 63) and not evaluated
    stop_after(monkeypatch, 1)
    assert run_search(seconds=needed + 1).candidates
    # what is there already is returned, however short the time
    clock.now = 0
    assert run_search(seconds=1.0).candidates and len(evaluated) == 1


def test_too_short_a_time_is_told_what_leads_on(run_search, monkeypatch):
    load = search.Baseline.of
    changes = {"seconds": 1.0, "slowness": 1.0}

    def made_slow(*args, **rest):
        return dataclasses.replace(load(*args, **rest), **changes)

    def advice(**words) -> str:
        with pytest.raises(InvalidParameter, match="enough for one candidate") as refused:
            run_search(seconds=1.0, **words)
        return str(refused.value)

    monkeypatch.setattr(search.Baseline, "of", made_slow)
    alone = advice()
    needed = float(re.search(r"about (\d+) s", alone)[1])
    assert alone.endswith(f"give --time {math.ceil(1.5 * needed / 60)}m")
    both = advice(runtimes=["pytorch", "onnxruntime"])
    assert both.endswith("m, or --runtime pytorch instead of pytorch, onnxruntime")
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    changes["slowness"] = 2.3
    assert advice().endswith("m, or --threads 1 instead of 2, since others use the machine too")


def test_it_ends_in_time(run_search, monkeypatch):
    clock, evaluate = Clock(monkeypatch), made_up()

    def minute(self, proposal, folder, past):
        clock.now += 60
        return evaluate(self, proposal, folder, past)._replace(seconds=60.0)

    tried = count_evaluated(monkeypatch, minute)
    monkeypatch.setattr(worker, "confirmation_seconds", lambda baseline: 30.0)
    result = run_search(seconds=600.0)
    assert len(tried) == 9 and clock.now <= 600 and result.confirmation and not notes_of(result)


def test_a_first_structure_that_did_not_fit_is_told(run_search, monkeypatch):
    clock, evaluate = Clock(monkeypatch), made_up()

    def hour(self, proposal, folder, past):
        clock.now += 3600
        return evaluate(self, proposal, folder, past)._replace(seconds=3600.0)

    count_evaluated(monkeypatch, hour)
    result = run_search(seconds=600.0)
    assert len(result.candidates) == 1
    [note] = notes_of(result)
    assert note.startswith(
        "the first structure alone did not fit into 600 s: with loading it took 3600 s; the least time"
    )


def test_a_structure_that_does_not_end_in_time_is_given_back(run_search, monkeypatch, tmp_path):
    """The confirmation has its time all the same."""
    clock, evaluate, limits = Clock(monkeypatch), made_up(), []

    def run(self, proposal, folder, past):
        trial = evaluate(self, proposal, folder, past)
        while len(past) == 2:
            pass
        clock.now += 60
        return trial._replace(seconds=60.0)

    def shortened(limit, work):
        limits.append(limit)
        return interruption.within(limit if len(limits) < 3 else 1.0, work)

    count_evaluated(monkeypatch, run)
    monkeypatch.setattr(worker, "within", shortened)
    monkeypatch.setattr(worker, "confirmation_seconds", lambda baseline: 30.0)
    result = run_search(seconds=230.0)
    assert limits == [math.inf, 230 - 60 - 30, 230 - 120 - 30], "the first one may be late: without it there is nothing"
    assert len(result.candidates) == 2 and result.confirmation
    assert notes_of(result) == ["the time ended within structure 2; the same command with more time tries it"]
    assert not (tmp_path / "out" / "models" / "0002").exists()
    count_evaluated(monkeypatch, evaluate)
    stop_after(monkeypatch, 3)
    assert [trial.number for trial in run_search().search_trials] == [0, 1, 2]


def test_a_small_space_is_searched_to_its_end(run_search, evaluated, monkeypatch):
    few = Space(first_token=False)
    monkeypatch.setattr(worker.Space, "of", lambda *args, **rest: few)
    result = run_search()
    assert sorted(evaluated) == sorted(few.every()) and notes_of(result) == ["every structure of the space was tried"]


@pytest.mark.parametrize("rows", [2, 30])
def test_a_task_without_training_data_is_refused(model_and_data, tmp_path, rows):
    write_rows(tmp_path / "few.csv", rows)
    task = task_from_files(tmp_path / "few.csv", model_and_data / "dev.csv", text="text")
    with pytest.raises(InvalidData, match=rf"examples each to choose by and to train on, but got {rows} examples"):
        whet.search(model_and_data / "model", task, tmp_path / "out", **MADE_UP)
    assert not (tmp_path / "out").exists()


def test_queries_without_judgments_cannot_choose(tmp_path, tokenizer):
    """The documents that stand for them are texts to calibrate by, of which nothing is the answer."""
    folder = write_retrieval(tmp_path / "data")
    (folder / "qrels" / "train.tsv").unlink()
    embedder = sentence_folder(tmp_path / "model", tokenizer)
    with pytest.raises(InvalidData, match="must choose by training queries with judgments, but retrieval has none"):
        whet.search(embedder, whet.load_task("retrieval", data_dir=folder), tmp_path / "out", seconds=3600)
    assert not (tmp_path / "out").exists()


def test_without_dev_data_nothing_could_confirm(model_and_data, tmp_path):
    task = task_from_files(model_and_data / "train.csv", text="text")
    with pytest.raises(InvalidData, match="--dev-file must be given with --train-file, to confirm the winner"):
        whet.search(model_and_data / "model", task, tmp_path / "out", **MADE_UP)


def test_a_folder_of_another_search_is_refused(run_search, evaluated, monkeypatch, model_and_data, tmp_path):
    stop_after(monkeypatch, 1)
    run_search()
    held = tree(tmp_path / "out")
    write_rows(tmp_path / "other.csv", 30, seed=5)
    save(classifier("distilbert"), AutoTokenizer.from_pretrained(model_and_data / "model"), tmp_path / "other")
    others = {
        "model_sha256": lambda: whet.search(tmp_path / "other", task_of(model_and_data), tmp_path / "out", **MADE_UP),
        "data_sha256": lambda: whet.search(
            model_and_data / "model",
            task_from_files(model_and_data / "train.csv", tmp_path / "other.csv", text="text"),
            tmp_path / "out",
            **MADE_UP,
        ),
        "goal": lambda: run_search(goal=Goal(max_drop=2)),
        "runtimes": lambda: run_search(runtimes=["pytorch", "onnxruntime"]),
        "seed": lambda: run_search(seed=1),
    }
    for key, other in others.items():
        with pytest.raises(InvalidParameter, match=rf"must go on with what it began with, but got {key}="):
            other()
    assert tree(tmp_path / "out") == held


def test_times_of_another_machine_are_refused_and_measured_again_if_asked(run_search, evaluated, monkeypatch):
    stop_after(monkeypatch, 2)
    run_search()
    own = search.current_machine()
    monkeypatch.setattr(search, "current_machine", lambda: dataclasses.replace(own, cpu="Another CPU"))
    with pytest.raises(InvalidParameter, match=r"got machine=.*Another CPU.*do not carry over; .*--overwrite"):
        run_search()
    assert len(run_search(overwrite=True).search_trials) == 2 and len(evaluated) == 4
    # what does not change times is no other machine
    monkeypatch.setattr(search, "current_machine", lambda: dataclasses.replace(own, cpu="Another CPU", memory_gib=1.0))
    assert len(run_search().search_trials) == 2 and len(evaluated) == 4


def test_two_searches_on_one_folder(run_search, monkeypatch, tmp_path):
    """The second is refused, or helps if it is asked to; neither tries what the other does, and one confirms."""
    evaluate, inner = made_up(), []

    def another(self, proposal, folder, past):
        if not inner:
            inner.append("refused")
            with pytest.raises(OutputExists, match="must be alone in its folder"):
                run_search()
            inner.append(run_search(join=True))
        return evaluate(self, proposal, folder, past)

    tried = count_evaluated(monkeypatch, another)
    stop_after(monkeypatch, 3)
    outer = run_search()
    helped = inner[1]
    assert len(helped.search_trials) == 3 and helped.confirmation == []
    assert "the last of them confirms" in helped.notes[0]
    assert len(tried) == len(set(tried)) == 4 == len(outer.search_trials) and outer.confirmation


def test_the_folder_must_not_hold_the_model(run_search, model_and_data):
    with pytest.raises(OutputExists, match="must be one of its own"):
        run_search(out=model_and_data)


# the command line


@pytest.fixture
def run(monkeypatch, capsys, model_and_data):
    """Run `whet search` as the shell does; return its exit code, and what it printed on both streams."""

    def ran(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(model_and_data)
        data = ["--train-file", "train.csv", "--dev-file", "dev.csv", "--runtime", "pytorch"]
        monkeypatch.setattr(sys, "argv", ["whet", "search", "model", *data, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            app.main()
        return (end.value.code or 0, *capsys.readouterr())

    return ran


def test_the_verb_shows_the_frontier_and_the_best(run, evaluated, monkeypatch, tmp_path):
    stop_after(monkeypatch, 3)
    code, out, err = run("--out", str(tmp_path / "out"), "--max-drop", "5")
    assert code == 0 and err.startswith("note: searching for at most 30 min") and err.count("\n") == 1
    assert "◀ the best" in " ".join(out.split()) and "on 24 dev examples: accuracy" in out
    assert f"saved to {tmp_path / 'out' / 'best'}, for pytorch in fp32" in out.replace("\n", "")
    assert re.search(r"^0: .* ×( \(.*\))?, [+-]0\.0 \(-0\.5 to \+0\.5\) points; 0 s$", out, re.MULTILINE)


def test_the_verb_ends_with_three_where_nothing_holds(run, monkeypatch, tmp_path):
    count_evaluated(monkeypatch, made_up(drop=lambda structure: 4.8))
    stop_after(monkeypatch, 2)
    code, out, err = run("--out", str(tmp_path / "out"), "--max-drop", "5")
    assert code == 3 and "◀ the nearest" in " ".join(out.split())
    assert "nothing that is better than the baseline holds the bar; the nearest is saved to" in out
    assert "note: a bar of 5 points is finer than 63 examples can tell" in err
    code, out, err = run("--out", str(tmp_path / "out"), "--max-drop", "5", "--json")
    told = json.loads(out)
    assert code == 3 and told["accepted"] is False and len(told["attempts"]) == 2
    assert told["best"] in told["trials"] and len(told["confirmation"]) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--max-drop", "0"], "InvalidParameter: 0 < max_drop <= 100 must hold, but got max_drop=0"),
        (["--max-drop", "-1"], "InvalidParameter: 0 < max_drop <= 100 must hold"),
        (["--max-size", "0"], "InvalidParameter: 0 < max_size <= 1000000000 must hold"),
        (["--goal", "speed"], "InvalidParameter: best must be one of latency, size, both, but got"),
        (["--time", "soon"], "InvalidParameter: --time must be a number with s, m or h, but got 'soon'"),
        (["--time", "0m"], "InvalidParameter: 0 < time <= 100000000 must hold"),
        (
            ["--time", ""],
            "UsageError: the command line must be one that whet knows, but got: an empty value after --time",
        ),
        (["--task", "agreement"], "InvalidParameter: one of --task and --train-file must be given"),
    ],
)
def test_bad_words_end_with_a_sentence_and_two(run, tmp_path, words, sentence):
    code, out, err = run("--out", str(tmp_path / "out"), *words)
    assert code == 2 and not out and err.startswith(sentence)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("45", 45)])
def test_times_as_people_write_them(text, seconds):
    assert seconds_in(text) == seconds


# end to end, nothing made up


def test_a_search_with_real_models_and_runtimes(run_search, monkeypatch, tmp_path):
    stop_after(monkeypatch, 1)
    words = {"goal": Goal(max_drop=20), "runtimes": ["pytorch", "onnxruntime"], "precisions": ["int8"]}
    result = run_search(**words)
    [trial] = result.search_trials
    where = {str(Target.of(trial)) for trial in result.candidates} | set(trial.left_out)
    assert trial.state == FINISHED and where == {"pytorch", "onnxruntime int8"}
    best, conditions = tmp_path / "out" / "best", result.best.conditions
    target = json.loads((best / "manifest.json").read_text())["target"]
    assert target == {name: conditions[name] for name in ("runtime", "precision")}
    exports = [path.name for path in best.glob("*.onnx")]
    assert exports == ([] if target["runtime"] == "pytorch" else ["model_quantized.onnx"])
    assert run_search(**words) == result

"""The rules of a search: its loop with made-up figures (`searches`), and tiny models from end to end."""

import errno
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import whet
from folders import classifier, save, write_rows
from interruptible import stop_at
from searches import drop_of, made_up, stop_after
from whet import artifact, exploration, ladder
from whet.benchmark import Benchmark
from whet.errors import InvalidModel, OutputNotWritten
from whet.exploration import Found
from whet.goal import Goal
from whet.ladder import Ladder
from whet.ledger import FAILED, PRUNED, Attempt
from whet.original import MOST, PLENTY, resplit
from whet.resources import Examples
from whet.space import Structure
from whet.task import Resplit, Splits, Task, task_from_files, task_named
from whet.trial import Trial

MADE_UP = {"goal": Goal(max_drop=1.0), "runtimes": ["pytorch"], "seconds": 3600.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer) -> Path:
    """A fine-tuned model and own data; never changed."""
    root = tmp_path_factory.mktemp("made")
    save(classifier(), tokenizer, root / "model")
    write_rows(root / "train.csv", 120)
    write_rows(root / "dev.csv", 24, seed=1)
    return root


@pytest.fixture(autouse=True)
def short_confirmation(monkeypatch):
    """What the dev split says does not depend on how long it is timed."""
    few = Benchmark(rounds=6, singles=2, timed=4, metrics=("fidelity", "latency", "size"))
    monkeypatch.setattr(exploration, "CONFIRMATION", few)


@pytest.fixture
def look(made, tmp_path):
    """Search, for figures that are made up unless `ladder` says otherwise."""

    def looked(**changes) -> Found:
        words = {**MADE_UP, "out": tmp_path / "out", **changes}
        return whet.search(made / "model", task_of(made), words.pop("out"), **words)

    return looked


@pytest.fixture
def climbed(monkeypatch) -> list[Structure]:
    """Made-up figures for every structure; what is tried is counted."""
    return count_climbs(monkeypatch, made_up())


def count_climbs(monkeypatch, climb) -> list[Structure]:
    tried: list[Structure] = []

    def counted(self, proposal, folder, past):
        tried.append(proposal.structure)
        return climb(self, proposal, folder, past)

    monkeypatch.setattr(Ladder, "climb", counted)
    return tried


def task_of(root: Path) -> Task:
    return task_from_files(root / "train.csv", root / "dev.csv", text="text")


def attempts_in(out: Path) -> list[Attempt]:
    return [Attempt.from_json(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]


# (a) something is always returned


def test_the_best_is_an_ordinary_folder_that_says_how_it_runs(look, climbed, monkeypatch, tmp_path):
    stop_after(monkeypatch, 5)
    found = look()
    best = tmp_path / "out" / "best"
    AutoModelForSequenceClassification.from_pretrained(best)
    artifact.verify(best)
    manifest = json.loads((best / "manifest.json").read_text())
    assert manifest["deployment"] == {"runtime": "pytorch", "precision": "fp32"}
    chosen, on_dev = artifact.trials(best)
    assert chosen == found.best and on_dev == found.confirmation[1]
    assert chosen.conditions["split"] == "selection slice of the training data" and "split" not in on_dev.conditions
    assert found.accepted and found.best in found.frontier.trials and len(found.attempts) == 5
    lines = (tmp_path / "out" / "measurements.jsonl").read_text().splitlines()
    assert [Trial.from_json(line) for line in lines] == [found.original, *found.trials]


def test_a_best_is_there_before_anything_was_tried(look, monkeypatch, tmp_path):
    def looked(self, *_rest):
        artifact.verify(tmp_path / "out" / "best")
        raise KeyboardInterrupt

    monkeypatch.setattr(Ladder, "climb", looked)
    found = look()
    assert found.best == found.original and not found.accepted and not found.trials


@pytest.mark.parametrize("held", [True, False])
def test_ctrl_c_ends_with_the_best_so_far(look, monkeypatch, tmp_path, held):
    climb = made_up(drop=drop_of if held else lambda structure: 9 + drop_of(structure))

    def stopped(self, proposal, folder, past):
        if len(past) == 3:
            raise KeyboardInterrupt
        return climb(self, proposal, folder, past)

    monkeypatch.setattr(Ladder, "climb", stopped)
    found = look()
    assert len(found.trials) == 3 and found.accepted is held
    assert found.best == Goal().winner(found.trials, found.original)
    assert artifact.trials(tmp_path / "out" / "best") == [found.best]
    assert not found.confirmation and "the same command goes on" in found.notes[-1]
    # what was stopped is tried again
    first = count_climbs(monkeypatch, climb)
    stop_after(monkeypatch, 4)
    assert len(look().trials) == 4 and len(first) == 1


def test_where_nothing_holds_the_nearest_is_kept(look, monkeypatch, tmp_path):
    count_climbs(monkeypatch, made_up(drop=lambda structure: 3 + drop_of(structure)))
    stop_after(monkeypatch, 3)
    found = look()
    assert not found.accepted and found.best.recipe == [{"method": "lossless.first_token"}]
    assert artifact.trials(tmp_path / "out" / "best")[0] == found.best
    assert found.confirmation


def test_all_candidates_fail(look, monkeypatch, tmp_path):
    def fail(self, recipe):
        raise InvalidModel("no way")

    monkeypatch.setattr("whet.shared_steps.SharedSteps.apply", fail)
    stop_after(monkeypatch, 4)
    found = look()
    assert [(one.state, one.message) for one in found.attempts] == [(FAILED, "InvalidModel: no way")] * 4
    assert not found.accepted and found.best == found.original and not found.confirmation
    assert "every candidate failed" in found.notes[-1]
    artifact.verify(tmp_path / "out" / "best")


def test_a_full_disk_while_the_winner_is_saved_leaves_the_one_before(look, climbed, monkeypatch, tmp_path):
    stop_after(monkeypatch, 1)
    before = look().best
    copy = shutil.copy2

    def full(source, target, **rest):
        if ".best." in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target, **rest)

    monkeypatch.setattr(shutil, "copy2", full)
    stop_after(monkeypatch, 3)
    with pytest.raises(OutputNotWritten, match=r"No space left on device; free some space"):
        look()
    best = tmp_path / "out" / "best"
    artifact.verify(best)
    assert artifact.trials(best)[0] == before
    monkeypatch.setattr(shutil, "copy2", copy)
    found = look()
    assert artifact.trials(best)[0] == found.best != before
    assert len(climbed) == len(set(climbed)) == 3


# (b) the lower bound on the selection slice, then dev once


def test_the_selection_slice_is_of_training_data_that_nothing_else_sees(made):
    task = task_of(made)
    own = resplit(task)
    train, chosen, dev = own.splits
    assert dev == task.splits.dev
    assert set(chosen.texts) >= set(task.splits.validation.texts)
    together = sorted(zip([*train.texts, *chosen.texts], [*train.labels, *chosen.labels], strict=True))
    assert together == sorted(zip(*(getattr(task.read()[0], name) for name in ("texts", "labels")), strict=True))
    assert len(chosen) == 6 + 57 and own.label_names == ("no", "yes") and own.metrics == task.metrics


@pytest.mark.parametrize(
    ("official", "slice_size"), [(100, 52), (3668, 1925), (10_000, MOST), (20_000, PLENTY), (100_000, PLENTY)]
)
def test_how_large_the_slice_is(official, slice_size):
    held_out = min(1000, official // 20)
    some = Examples([f"a{i}" for i in range(official)], [i % 2 for i in range(official)])
    splits = Splits(some.take(range(held_out, official)), some.take(range(held_out)), some.take([0, 1]))
    task = Resplit(name="t", whole=task_named("agreement"), own=splits)
    assert len(resplit(task).splits.validation) == slice_size


def test_twins_stay_in_one_split():
    train, chosen, _ = resplit(task_named("agreement")).splits
    assert len(chosen) % 2 == len(train) % 2 == 0


def test_the_dev_split_is_seen_once_and_last(look, climbed, monkeypatch):
    stop_after(monkeypatch, 3)
    seen: list[int] = []
    run = exploration.Benchmark.compare
    monkeypatch.setattr(exploration.Benchmark, "compare", lambda *args: seen.append(len(climbed)) or run(*args))
    first = look()
    assert seen == [3] and first.confirmation[0].name == "model"
    assert look().confirmation == first.confirmation and seen == [3]
    assert first.confirmation[1].conditions["data_sha256"] != first.best.conditions["data_sha256"]


def test_choices_do_not_change_with_the_dev_split(made, tmp_path, climbed, monkeypatch):
    stop_after(monkeypatch, 4)
    write_rows(tmp_path / "other.csv", 30, seed=5)
    names = []
    for i, dev in enumerate((made / "dev.csv", tmp_path / "other.csv")):
        task = task_from_files(made / "train.csv", dev, text="text")
        names.append(whet.search(made / "model", task, tmp_path / str(i), **MADE_UP).best.recipe)
    assert names[0] == names[1]


# (c) killed at any time, it goes on


def test_it_goes_on_and_tries_nothing_twice(look, climbed, monkeypatch):
    stop_after(monkeypatch, 3)
    first = look()
    stop_after(monkeypatch, 8)
    second = look()
    assert len(climbed) == len(set(climbed)) == 8
    assert second.attempts[:3] == first.attempts and second.original == first.original
    assert look().attempts == second.attempts and len(climbed) == 8


MOMENTS = {
    "before a structure": ("whet.ladder:Ladder.climb", "before"),
    "measured, not recorded": ("whet.ladder:Ladder.climb", "after"),
    "recorded, the journal not told": ("whet.ledger:Ledger.record", "after"),
    "told, the best not saved": ("whet.proposals:Proposals.finish", "after"),
    "while the best is saved": ("whet.artifact:_manifest", "after"),
    "saved, not remembered": ("whet.artifact:copy", "after"),
    "while it is confirmed": ("whet.benchmark:Benchmark.compare", "before"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_search_loses_nothing_that_was_finished(made, tmp_path, climbed, monkeypatch, moment):
    """A fork of this process is killed there; the next one finds what it had finished, and does only the rest."""
    stop_after(monkeypatch, 2)
    out, ready = tmp_path / "out", tmp_path / "ready"
    pid = os.fork()
    if pid == 0:
        if moment != "while the best is saved":
            stop_at(*MOMENTS[moment], ready=ready)
        else:
            original = artifact.copy
            artifact.copy = lambda *args, **rest: (stop_at(*MOMENTS[moment], ready=ready), original(*args, **rest))
        try:
            whet.search(made / "model", task_of(made), out, **MADE_UP)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    finished = [one.structure for one in attempts_in(out)]
    artifact.verify(out / "best")
    stop_after(monkeypatch, 4)
    found = whet.search(made / "model", task_of(made), out, **MADE_UP)
    assert [one.structure for one in found.attempts[: len(finished)]] == finished
    assert not set(climbed) & set(finished) and len(climbed) == len(set(climbed)) == 4 - len(finished)
    assert artifact.trials(out / "best") == [found.best, found.confirmation[1]]


# (d) a bar that is finer than the data can tell


def test_it_warns_of_a_bar_that_no_such_data_could_show(look, climbed, monkeypatch):
    stop_after(monkeypatch, 1)
    told: list[str] = []
    look(warn=told.append, goal=Goal(max_drop=2))
    assert told == [
        "a bar of 2 points is finer than 63 examples can tell, of which not one may change; about 150 would be needed: "
        "give more training data, or a wider bar"
    ]


def test_it_warns_once_where_intervals_are_too_wide(look, monkeypatch):
    count_climbs(monkeypatch, made_up(drop=lambda structure: 4.8))
    stop_after(monkeypatch, 3)
    told: list[str] = []
    found = look(warn=told.append, goal=Goal(max_drop=5))
    needed = math.ceil(63 * (0.005 / 0.002) ** 2)
    assert len(told) == 1 and not found.accepted
    assert f"down to -5.3 cannot be ruled out; about {needed} examples would be needed" in told[0]


# (e) cheap things first


def test_what_a_few_batches_show_to_be_hopeless_is_not_exported(look, monkeypatch):
    def noise(self, recipe):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = classifier()
            for weight in model.parameters():
                weight.data = torch.randn_like(weight)
        return model

    saved = []
    monkeypatch.setattr("whet.shared_steps.SharedSteps.apply", noise)
    monkeypatch.setattr(ladder.artifact, "save", lambda *args, **rest: saved.append(1))
    monkeypatch.setattr(Ladder, "_hopeless", lambda self, look, *_rest: "below the bar" if look.kl > 0.1 else "")
    stop_after(monkeypatch, 2)
    monkeypatch.setattr(exploration._Search, "_save_best", lambda *args: None)
    monkeypatch.setattr(exploration._Search, "_confirmed", lambda *args: [])
    found = look()
    assert [one.state for one in found.attempts] == [PRUNED, PRUNED] and not saved

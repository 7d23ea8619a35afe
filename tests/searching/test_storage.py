import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from folders import edit_json, tree
from searches import BASELINE, candidate
from whet.errors import InvalidData, InvalidParameter, OutputExists, OutputNotWritten
from whet.evaluation.trial import Trial
from whet.searching.sampler import next_structure
from whet.searching.space import Space, Structure
from whet.searching.storage import FAILED, FINISHED, SearchStorage, SearchTrial

WRITTEN_BY_0_1_0 = Path(__file__).parent.parent / "fixtures" / "written_by_0_1_0"
WHOSE = {"model_sha256": "a", "task": "t", "machine": {"cpu": "x", "threads": 1}, "goal": [1.0, None, "latency"]}


def opened(folder: Path, *, whose=WHOSE, overwrite: bool = False, join: bool = False):
    return SearchStorage.opened(folder, whose, overwrite=overwrite, join=join)


def outcome(number: int, **others) -> SearchTrial:
    structure = Structure(number)
    candidates = (candidate(number, structure, BASELINE, drop=0.5, speed=2.0, recipe=[]),)
    return SearchTrial(
        number, structure, [{"method": "pruning.neurons", "keep": 0.5}], FINISHED, candidates=candidates, **others
    )


def test_what_is_recorded_is_there_again(tmp_path):
    first = outcome(
        0, value=2.0, proxy_kl=0.01, proxy_speedup=1.5, seconds=3.0, left_out={"openvino int8": "failed: no"}
    )
    second = SearchTrial(7, Structure(1, 1), [], FAILED, message="InvalidModel: no")
    with opened(tmp_path / "out") as storage:
        storage.record(second, BASELINE)
        storage.record(first, BASELINE)
        storage.share(baseline=BASELINE.to_dict())
        storage.share(recovery_share=0.5)
    with opened(tmp_path / "out") as storage:
        assert storage.trials() == [first, second]
        assert storage.shared == {"baseline": BASELINE.to_dict(), "recovery_share": 0.5}
        lines = (storage.folder / "measurements.jsonl").read_text().splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["baseline", first.candidates[0].name]
        assert list((storage.folder / "workers").iterdir()) == [storage._worker_lock(storage.worker)]
    assert not list((tmp_path / "out" / "workers").iterdir())


@pytest.mark.parametrize(
    "other",
    [{"model_sha256": "b"}, {"task": "u"}, {"machine": {"cpu": "y", "threads": 1}}, {"goal": [2.0, None, "latency"]}],
)
def test_another_search_is_refused_and_measured_again_if_asked(tmp_path, other):
    with opened(tmp_path / "out") as storage:
        storage.record(outcome(0), BASELINE)
        (storage.folder / "models" / "0000").mkdir()
    key = next(iter(other))
    with (
        pytest.raises(
            InvalidParameter,
            match=rf"must go on with what it began with, but got {key}=.*holds one of {key}=.*do not carry over.*"
            "--overwrite to measure all of it again",
        ),
        opened(tmp_path / "out", whose=WHOSE | other),
    ):
        pass
    with opened(tmp_path / "out") as storage:
        assert len(storage.trials()) == 1
    with opened(tmp_path / "out", whose=WHOSE | other, overwrite=True) as storage:
        assert not storage.trials() and not list((storage.folder / "models").iterdir())


def test_two_searches_in_one_folder_only_if_asked(tmp_path):
    with opened(tmp_path / "out") as first:
        before = tree(tmp_path / "out")
        for asked in ({}, {"overwrite": True}, {"overwrite": True, "join": True}):
            with (
                pytest.raises(OutputExists, match=r"must be alone in its folder, .*give --join"),
                opened(tmp_path / "out", **asked),
            ):
                pass
        assert tree(tmp_path / "out") == before
        with opened(tmp_path / "out", join=True) as second:
            assert second.other_workers() == {first.worker} and first.other_workers() == {second.worker}
        assert not first.other_workers()
    with opened(tmp_path / "out", join=True) as alone:
        assert not alone.other_workers()


def test_one_of_several_workers_is_the_last(tmp_path):
    """However they end: who leaves others behind is alive no more for them."""
    with opened(tmp_path / "out") as first, opened(tmp_path / "out", join=True) as second:
        assert not first.is_last() and second.is_last() and second.is_last()
        assert not first.is_last()
    with opened(tmp_path / "out") as alone:
        assert alone.is_last()


def test_what_workers_claim_is_theirs_until_it_is_recorded_or_they_leave(tmp_path):
    with opened(tmp_path / "out") as first, opened(tmp_path / "out", join=True) as second:
        claimed = [worker.claim(Structure(level)) for level, worker in ((1, first), (2, second))]
        assert claimed == [(0, Structure(1)), (1, Structure(2))]
        assert sorted(first.claimed()) == sorted(second.claimed()) == claimed
        second.record(outcome(1), BASELINE)
        assert first.claimed() == claimed[:1]
        assert second.claim(Structure(3)).number == 2
        assert not second.is_last() and first.claimed() == claimed[:1]
    with opened(tmp_path / "out") as storage:
        assert not storage.claimed()


def try_everything(folder: Path, log: Path) -> None:
    """What a worker does, without the work."""
    with opened(folder, join=True) as storage:
        while True:
            with storage.lock:
                values = {trial.structure: 1.0 for trial in storage.trials()}
                running = [proposal.structure for proposal in storage.claimed()]
                structure = next_structure(Space(), values, running=running, seed=0)
                if structure is None:
                    return
                proposal = storage.claim(structure)
            with log.open("a") as file:
                file.write(f"{proposal.number} {structure.blocks}\n")
            time.sleep(0.01)
            storage.record(SearchTrial(*proposal, recipe=[], state=FINISHED), BASELINE)


@pytest.mark.parametrize("kill_after", [0.0, 0.05, 0.1])
def test_processes_share_a_search_though_one_is_killed(tmp_path, kill_after):
    """Nothing is tried twice but what the killed one was trying."""
    processes = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                try_everything(tmp_path / "out", tmp_path / "log")
                status = 0
            finally:
                os._exit(status)
        processes.append(pid)
    time.sleep(kill_after)
    os.kill(processes[0], signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]
    assert codes[1:] == [0, 0]
    try_everything(tmp_path / "out", tmp_path / "log")  # also what the killed one left
    with opened(tmp_path / "out") as storage:
        trials = storage.trials()
    assert sorted(trial.structure for trial in trials) == sorted(Space().every())
    assert len(trials) <= len((tmp_path / "log").read_text().splitlines()) <= len(trials) + 1


def test_a_killed_worker_is_not_waited_for(tmp_path):
    """And what it was trying may be tried by others."""
    text = (
        "import sys, time; from pathlib import Path; from whet.searching.space import Structure\n"
        "from whet.searching.storage import SearchStorage\n"
        "with SearchStorage.opened(Path(sys.argv[1]), {}, overwrite=False, join=False) as storage:\n"
        "    storage.claim(Structure(3)); print('in', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "in\n"
    with pytest.raises(OutputExists, match="must be alone"), opened(tmp_path / "out", whose={}):
        pass
    with opened(tmp_path / "out", whose={}, join=True) as storage:
        assert storage.claimed() == [(0, Structure(3))]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with opened(tmp_path / "out", whose={}) as storage:
        assert not storage.claimed() and not storage.other_workers()
        assert [path.suffix for path in (storage.folder / "workers").iterdir()] == [".lock"]


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    with pytest.raises(OutputExists, match="must be new or empty"), opened(tmp_path / "mine"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputExists, match="must be a folder"), opened(tmp_path / "file"):
        pass
    assert (tmp_path / "mine" / "precious").read_text() == "x"
    with pytest.raises(OutputNotWritten, match="must have a name of at most"), opened(tmp_path / ("a" * 5000)):
        pass


@pytest.mark.parametrize("name", ["search.json", "trials/0000.json"])
@pytest.mark.parametrize("content", ["", "{}", '{"number": 1', "[]", "[" * 10**5, '{"identity": 1, "shared": []}'])
def test_damaged_files_are_answered(tmp_path, name, content):
    with opened(tmp_path / "out") as storage:
        storage.record(outcome(0), BASELINE)
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(InvalidData, match=f"{name} must be as whet wrote it"), opened(tmp_path / "out") as storage:
        storage.trials()


@pytest.mark.parametrize(
    "changes",
    [{"structure": {"blocks": 99}}, {"structure": "x"}, {"candidates": [{}]}, {"seconds": "long"}, {"number": -1}],
)
def test_odd_values_in_trials_are_answered(tmp_path, changes):
    with opened(tmp_path / "out") as storage:
        storage.record(outcome(0), BASELINE)
        edit_json(storage.folder / "trials" / "0000.json", **changes)
        with pytest.raises(InvalidData, match=f"0000.json must be as whet wrote it.*{next(iter(changes))}"):
            storage.trials()


@pytest.mark.parametrize(
    "shared", [{"baseline": {}}, {"recovery_share": "x"}, {"best": 1}, {"best": [0]}, {"confirmations": {"0": 1}}]
)
def test_odd_values_that_workers_share_are_answered(tmp_path, shared):
    with opened(tmp_path / "out") as storage:
        storage.record(outcome(0), BASELINE)
        edit_json(storage.folder / "search.json", shared=shared)
        with pytest.raises(InvalidData, match=f"search.json must be as whet wrote it.*{next(iter(shared))}"):
            _ = storage.shared


@pytest.mark.parametrize("there", [(), ("out",)])
def test_a_search_that_ends_before_anything_is_known_leaves_nothing(tmp_path, there):
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(InvalidParameter, match="no time"), opened(tmp_path / "out"):
        raise InvalidParameter("no time")
    assert not list(tmp_path.iterdir())


def test_a_search_that_was_killed_before_anything_was_known_is_no_obstacle(tmp_path):
    """Neither to the same search nor to another, at whatever file it was killed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    (tmp_path / "out" / ".search.json.123.partial").touch()
    with opened(tmp_path / "out") as storage:
        assert not (storage.folder / ".search.json.123.partial").exists()
        whole = tree(storage.folder)
        storage.share(recovery_share=0.5)
    shutil.rmtree(tmp_path / "out")
    for name in ("trials", "models", "workers"):
        (tmp_path / "out" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "search.json").write_bytes(whole["search.json"])
        with opened(tmp_path / "out", whose=WHOSE | {"task": "u"}) as storage:
            storage.record(outcome(0), BASELINE)
        shutil.rmtree(tmp_path / "out")


def test_what_killed_workers_left_half_written_is_removed(tmp_path):
    with opened(tmp_path / "out") as storage:
        storage.record(outcome(0), BASELINE)
    whole = tree(tmp_path / "out").keys()
    for name in ("models/.0001.123.partial", "trials/.0001.json.123.partial", ".best.123.partial", ".best.lock"):
        (tmp_path / "out" / name).mkdir()
    with opened(tmp_path / "out"):
        pass
    assert tree(tmp_path / "out").keys() == whole


def test_a_folder_of_version_0_1_0_goes_on(tmp_path):
    """Its trials are read under today's names, and its journal is ignored."""
    folder = Path(shutil.copytree(WRITTEN_BY_0_1_0 / "search", tmp_path / "search"))
    identity = json.loads((folder / "search.json").read_text())["identity"]
    identity["machine"]["omp_wait_policy"] = identity["machine"].pop("waiting")
    del identity["versions"]["whet"]
    with opened(folder, whose=identity) as storage:
        first, second = storage.trials()
        assert (first.structure, second.structure) == (Structure(), Structure(7))
        assert second.proxy_kl == pytest.approx(0.16565, abs=1e-5)
        assert second.candidates[0].conditions["candidate"] == 1
        baseline = Trial.from_dict(storage.shared["baseline"])
        assert baseline.name == "dense" and storage.shared["recovery_share"] == 1.0
        [confirmation] = storage.shared["confirmations"].values()
        assert [Trial.from_dict(entry).name for entry in confirmation] == ["dense", "best"]
        assert storage.claim(Structure(4)).number == 2
        storage.record(outcome(2), baseline)
        storage.share(recovery_share=0.5)
    with opened(folder, whose=identity) as storage:
        assert storage.trials() == [first, second, outcome(2)]
        assert Trial.from_dict(storage.shared["baseline"]) == baseline and storage.shared["recovery_share"] == 0.5
    with pytest.raises(InvalidParameter, match="got seed=5"), opened(folder, whose=identity | {"seed": 5}):
        pass


def test_only_models_that_are_asked_for_stay(tmp_path):
    with opened(tmp_path / "out") as storage:
        for number in range(4):
            storage.model_folder(number).mkdir()
        storage.record(outcome(2), BASELINE)
        assert storage.claim(Structure()).number == 3
        storage.keep_models({1})
        assert sorted(path.name for path in (storage.folder / "models").iterdir()) == ["0001", "0003"]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_args, **_rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(tmp_path / "out") as storage:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputNotWritten, match="No space left"):
            storage.record(outcome(0), BASELINE)
        monkeypatch.undo()
        assert not storage.trials()
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OutputNotWritten, match="No space left"), opened(tmp_path / "new"):
        pass

import io
import json
from pathlib import Path

import pytest
from matplotlib import image

from folders import tree
from measured import keep, saved, trial
from whet.errors import InvalidData, InvalidParameter, OutputExists, OutputNotWritten
from whet.evaluation import records
from whet.models import artifact
from whet.report import write
from whet.report.collect import Result
from whet.report.write import save_report, write_report
from whet.utils.manifests import MEASUREMENTS
from whet.utils.outputs import files_of_others

FILES = ["report.html", "report.md", "report.png", "report.svg"]
DENSE, SMALL = trial("dense"), trial("small", speedup=2.0)


@pytest.fixture
def run(tmp_path) -> Path:
    return keep(tmp_path / "run", DENSE, SMALL)


def test_four_files_are_written_into_the_measured_folder(run):
    assert write_report([run]) == run / "report.html"
    assert sorted(path.name for path in run.iterdir()) == sorted([*FILES, MEASUREMENTS])
    assert files_of_others(run) == []  # what measures or searches there again takes them for a report
    assert image.imread(io.BytesIO((run / "report.png").read_bytes())).std() > 0.01


def test_a_missing_output_folder_is_created(run, tmp_path):
    before = tree(run)
    assert write_report([run, run], tmp_path / "a" / "b") == tmp_path / "a" / "b" / "report.html"
    assert sorted(tree(tmp_path / "a" / "b")) == FILES
    assert tree(run) == before


@pytest.mark.parametrize("left", [["report.png"], ["report.png", ".report.md.123.partial"]])
def test_what_a_killed_report_left_is_no_obstacle(run, tmp_path, left):
    """The page comes last; the files before it are known by their mark."""
    write_report([run], tmp_path / "out")
    for name in ("report.html", "report.md"):
        (tmp_path / "out" / name).unlink()
    for name in left[1:]:
        (tmp_path / "out" / name).touch()
    write_report([run], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_the_next_report_replaces_the_last_and_equal_ones_are_equal(run):
    write_report([run])
    first = tree(run)
    write_report([run])
    assert tree(run) == first
    for _ in range(2):  # also where there is nothing but a report, or a note beside it
        write_report([run], run.parent / "out")
        (run.parent / "out" / "notes.txt").touch()
    keep(run, DENSE, SMALL, trial("third", speedup=3.0))
    write_report([run])
    assert "third" in (run / "report.html").read_text()
    assert all(tree(run)[name] != first[name] for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_reports_stay(run, name):
    (run / name).write_text("my own notes")
    before = tree(run)
    with pytest.raises(OutputExists, match=rf"files of others must stay, but .*{name} is there already"):
        write_report([run])
    assert tree(run) == before
    write_report([run], overwrite=True)
    assert (run / name).read_bytes() != b"my own notes"


def test_a_folder_with_the_name_of_a_file_stays_even_with_overwrite(run):
    (run / "report.md").mkdir()
    with pytest.raises(OutputExists, match=r"must be a file, but .*report.md is a folder"):
        write_report([run], overwrite=True)


def test_an_output_folder_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritten, match=r"must be a folder, but got .*file is a file"):
        write_report([run], tmp_path / "file" / "below")


def test_an_output_folder_that_cannot_be_written_is_refused(run, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OutputNotWritten, match=r"must be writable, but .*run is not; name another"):
        write_report([run])


def test_a_full_disk_leaves_the_last_report(run, monkeypatch):
    write_report([run])
    before = tree(run)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "html" in path.name:
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    keep(run, DENSE, trial("other", speedup=3.0))
    with pytest.raises(OutputNotWritten, match="No space left on device; free some space"):
        write_report([run])
    assert {name: tree(run)[name] for name in FILES} == {name: before[name] for name in FILES}
    assert sorted(tree(run)) == sorted(before)


def test_the_output_folder_is_checked_before_any_work(run, monkeypatch):
    monkeypatch.setattr(write, "collect_results", None)
    (run / "report.md").write_text("my own notes")
    with pytest.raises(OutputExists):
        write_report([run])


def test_several_folders_need_an_output_folder(run):
    with pytest.raises(InvalidParameter, match="--out must be given for a report of 2 folders"):
        write_report([run, run])


def test_a_report_in_a_models_folder_is_refused(tmp_path, tokenizer):
    """The manifest would count it as one of them."""
    digest = saved(tmp_path / "small", tokenizer)
    records.record(tmp_path / "small", trial("small", model=digest))
    with pytest.raises(InvalidParameter, match=r"outside of a model's folder.*give --out FOLDER"):
        write_report([tmp_path / "small"])
    assert write_report([tmp_path / "small"], tmp_path / "out").is_file()
    artifact.verify(tmp_path / "small")


def test_trials_of_a_search_need_no_model_folder(tmp_path):
    """`save_report` takes trials as they come, with or without a model."""
    assert save_report([Result(DENSE), Result(SMALL)], tmp_path / "out").is_file()
    with pytest.raises(InvalidData, match="one trial at least"):
        save_report([], tmp_path / "out")


def test_what_cannot_be_read_is_said_in_all_pages(tmp_path, run):
    (run / "broken").mkdir()
    (run / "broken" / "measurements.jsonl").write_text("{")
    told = []
    write_report([tmp_path, run / "broken" / ".."], tmp_path / "out", warn=told.append)
    assert len(told) == 1 and "broken/measurements.jsonl" in told[0]
    assert all("Not shown: line 1 of" in (tmp_path / "out" / name).read_text() for name in FILES[:2])


def test_a_name_that_is_no_text_does_not_lose_the_report(tmp_path):
    save_report([Result(trial("dense \udcff")), Result(SMALL)], tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == FILES
    save_report([Result(trial("dense")), Result(SMALL)], tmp_path / "out")


def test_without_times_the_picture_shows_sizes(tmp_path):
    small = [one for one in SMALL.measurements if one.metric in ("accuracy", "disk")]
    save_report([Result(type(SMALL)("small", [], 0, small, None, SMALL.conditions))], tmp_path)
    assert sorted(tree(tmp_path)) == FILES
    text = (tmp_path / "report.md").read_text()
    assert ": accuracy against size\n" in text and "speed" not in text.partition("|")[0]


def test_a_report_as_json_has_what_the_page_says(run):
    report = write.make_report([run], None, only=None, max_drop=None, overwrite=False, warn=print)
    told = json.loads(json.dumps(report.to_dict()))
    assert told["headline"] == "small: 2.0 times as fast, accuracy the same, 80 MiB as before."
    assert (told["best"], told["page"], told["examples"]) == ("small", str(run / "report.html"), "408 dev examples")
    dense, small = told["rows"]
    assert (dense["headline"], dense["holds_bar"]) == ("", True) and small["headline"] in told["headline"]
    assert {one["metric"] for one in small["measurements"]} >= {"accuracy", "speedup", "speedup_single", "disk"}
    text = (run / "report.html").read_text()
    assert small["headline"] in text and all(value in text for value in told["conditions"].values())

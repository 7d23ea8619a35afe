import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from folders import classifier, save
from measured import keep, saved, trial
from whet.errors import InvalidArtifact, InvalidData, InvalidParameter
from whet.evaluation import records
from whet.report.collect import collect_results, find_confirmations, flat_conditions

SVD = [{"method": "svd", "keep": 0.5}]


def names(results) -> list[str]:
    return [result.trial.name for result in results]


def test_the_baseline_comes_first_then_the_fastest(tmp_path):
    keep(tmp_path / "run", trial("slow", speedup=1.1), trial("fast", speedup=3.0), trial("dense"))
    assert names(collect_results([tmp_path])) == ["dense", "fast", "slow"]


def test_trials_find_their_models_by_digest(tmp_path, tokenizer):
    """Also where the trial was kept elsewhere, and not where the model was made anew."""
    digest = saved(tmp_path / "small", tokenizer, SVD)
    keep(tmp_path / "run", trial("dense"), trial("small", speedup=2.0, model=digest))
    assert [result.folder for result in collect_results([tmp_path])] == [None, tmp_path / "small"]
    keep(tmp_path / "run", trial("dense"), trial("small", speedup=2.0, model="another"))
    assert [result.folder for result in collect_results([tmp_path])] == [None, None]


def test_a_trial_in_two_folders_counts_once(tmp_path, tokenizer):
    digest = saved(tmp_path / "small", tokenizer, SVD)
    one = trial("small", speedup=2.0, model=digest)
    records.record(tmp_path / "small", one)
    shutil.copytree(tmp_path / "small", tmp_path / "zcopy")
    keep(tmp_path / "run", trial("dense"), one)
    [_, found] = collect_results([tmp_path])
    assert found.folder == tmp_path / "small"
    assert names(collect_results([tmp_path, tmp_path / "small"])) == ["dense", "small"]


def test_a_run_shows_its_own_trials_and_not_those_of_its_models(tmp_path, tokenizer):
    """A search keeps its best model below it, with a trial on other data: those that confirm it."""
    run = tmp_path / "run"
    digest = saved(run / "best", tokenizer, SVD)
    keep(run, trial("dense"), trial("small", speedup=2.0, model=digest))
    records.record(run / "best", trial("best", speedup=1.9, model=digest, data_sha256="0ther"))
    found = collect_results([run])
    assert names(found) == ["dense", "small"] and found[1].folder == run / "best"
    with pytest.raises(InvalidData, match="data_sha256"):
        collect_results([tmp_path])


def test_a_model_that_was_chosen_shows_what_the_dev_split_says(tmp_path, tokenizer):
    digest = saved(tmp_path / "best", tokenizer, SVD)
    chosen = trial("0003", speedup=2.0, model=digest, data_sha256="0ther", split="selection")
    records.record(tmp_path / "best", chosen)
    assert names(collect_results([tmp_path / "best"])) == ["0003"]
    records.record(tmp_path / "best", trial("best", speedup=1.9, model=digest))
    assert names(collect_results([tmp_path / "best"])) == names(collect_results([tmp_path])) == ["best"]


def test_the_newest_trial_with_times_counts(tmp_path):
    old = trial("small", speedup=2.0, measured="2026-11-01")
    new = trial("small", speedup=3.0, measured="2026-11-02")
    untimed = trial("small", speedup=4.0, measured="2026-11-03")
    kept = [one for one in untimed.measurements if one.metric != "throughput"]
    untimed = type(untimed)(untimed.name, untimed.recipe, 0, kept, None, untimed.conditions)
    keep(tmp_path, trial("dense"), new, old, untimed)
    assert collect_results([tmp_path])[1].trial == new


def test_runtimes_of_one_model_are_rows_of_their_own(tmp_path):
    here, there = trial("small", speedup=2.0), trial("small", speedup=3.0, runtime="onnxruntime")
    eight = trial("small", speedup=4.0, runtime="onnxruntime", precision="int8")
    keep(tmp_path, trial("dense"), here, there, eight)
    assert len(collect_results([tmp_path])) == 4


@pytest.mark.parametrize("above", [("one", "two"), ("one", "one")])
def test_equal_names_become_unique(tmp_path, tokenizer, above):
    keep(tmp_path / "run", trial("dense"))
    for i, (place, share) in enumerate(zip(above, (0.4, 0.5), strict=True)):
        folder = tmp_path / str(i) / place / "seed 0"
        digest = saved(folder, tokenizer, [{"method": "svd", "keep": share}])
        records.record(folder, trial("seed 0", speedup=2.0 - i / 10, model=digest))
    expected = ["seed 0, one", "seed 0, two"] if above[0] != above[1] else ["seed 0, one, 1", "seed 0, one, 2"]
    assert names(collect_results([tmp_path])) == ["dense", *expected]


def test_a_search_is_kept_apart_from_what_was_measured_on_dev(tmp_path):
    """Other data too, but their digests would tell nobody what is wrong."""
    chosen_by = {"split": "selection slice", "data_sha256": "other"}
    keep(tmp_path / "search", trial("dense", **chosen_by), trial("found", speedup=2.0, **chosen_by))
    keep(tmp_path / "measured", trial("dense"), trial("small", speedup=3.0))
    told = r"got split=dev \(dense, small\) and split=selection slice \(dense, found\); choose one, such as"
    with pytest.raises(InvalidData, match=told):
        collect_results([tmp_path])
    assert names(collect_results([tmp_path], only={"split": "dev"})) == ["dense", "small"]
    assert names(collect_results([tmp_path], only={"split": "selection slice"})) == ["dense", "found"]


@pytest.mark.parametrize(
    "key",
    [
        "task", "data_sha256", "cpu", "instruction_sets", "device", "cores", "threads", "omp_wait_policy",
        "max_length", "batch_size", "batch_tokens", "padding", "baseline", "baseline_artifact",
    ],
)  # fmt: skip
def test_trials_under_other_conditions_are_refused_and_can_be_chosen(tmp_path, key):
    keep(tmp_path, trial("dense"), trial("small", speedup=2.0), trial("other", speedup=9.0, **{key: "another"}))
    with pytest.raises(InvalidData, match=rf"must be alike in task.*{key}=another \(other\); choose.*--only '{key}="):
        collect_results([tmp_path])
    value = flat_conditions(trial("dense").conditions).get(key, "none")
    assert names(collect_results([tmp_path], only={key: value})) == ["dense", "small"]


def test_a_condition_that_no_trial_has_is_refused(tmp_path):
    keep(tmp_path, trial("dense"))
    with pytest.raises(InvalidParameter, match="--only must leave some trials, but got threads=7; there are threads=2"):
        collect_results([tmp_path], only={"threads": "7"})


def test_conditions_can_be_chosen_by_the_names_of_version_0_1_0(tmp_path):
    keep(tmp_path, trial("dense"), trial("small", speedup=2.0, precision="int8"))
    assert names(collect_results([tmp_path], only={"dtype": "float32"})) == ["dense"]


def test_nested_conditions_have_joined_names():
    found = flat_conditions({"versions": {"torch": "2.13"}, "sets": ["a", "b"], "batch": None, "threads": 2})
    assert found == {"versions.torch": "2.13", "sets": "a, b", "batch": "none", "threads": "2"}


def test_two_baselines_are_refused(tmp_path):
    keep(tmp_path, trial("dense"), trial("other"))
    with pytest.raises(InvalidData, match="against one baseline, but got dense, other; measure them in one run"):
        collect_results([tmp_path])


def test_a_baseline_that_was_not_kept_may_be_missing(tmp_path):
    keep(tmp_path, trial("small", speedup=2.0))
    assert names(collect_results([tmp_path])) == ["small"]


def test_drafts_and_scratch_folders_are_ignored(tmp_path):
    keep(tmp_path / ".small.12.partial", trial("half", speedup=2.0))
    keep(tmp_path / "run", trial("dense"))
    assert names(collect_results([tmp_path])) == ["dense"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match=r"must be a folder, but got .*nowhere, which does not exist"):
        collect_results([tmp_path / "nowhere"])


def test_a_folder_without_models_is_refused(tmp_path, tokenizer):
    (tmp_path / "notes.txt").write_text("nothing of whet's")
    with pytest.raises(InvalidData, match=r"must hold models that whet measured, but .* holds none"):
        collect_results([tmp_path])


def test_models_without_measurements_are_named(tmp_path, tokenizer):
    saved(tmp_path / "small", tokenizer)
    with pytest.raises(InvalidData, match=r"must have been measured, but .*small were not; run whet measure"):
        collect_results([tmp_path])


@pytest.mark.parametrize("change", [{"name": 3}, {"recipe": "kfac"}, {"recipe": ["kfac"]}, {"measurements": ["x"]}])
def test_broken_measurements_are_refused(tmp_path, change):
    entry = json.loads(trial("dense").to_json()) | change
    (tmp_path / "measurements.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(InvalidArtifact, match=r"line 1 of .*must be as whet wrote it, but (name|recipe|measurements)"):
        collect_results([tmp_path])


def test_a_broken_file_among_others_is_told_and_the_others_count(tmp_path, tokenizer):
    keep(tmp_path / "run", trial("dense"), trial("small", speedup=2.0))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "measurements.jsonl").write_text("{")
    saved(tmp_path / "model", tokenizer)
    (tmp_path / "model" / "manifest.json").write_text("{}")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "of another program"}')
    told = []
    assert names(collect_results([tmp_path], warn=told.append)) == ["dense", "small"]
    assert [re.search(r"/(broken|model|web)/", sentence)[1] for sentence in told] == ["model", "broken"]
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InvalidArtifact, match=r"broken/measurements.jsonl must be"):
        collect_results([tmp_path])


def test_folders_are_searched_at_any_depth_and_symlinks_are_not_followed(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 100)
    keep(deep, trial("dense"))
    (deep / "loop").symlink_to(tmp_path)
    (tmp_path / "measurements.jsonl").symlink_to("measurements.jsonl")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 60)
    try:
        assert names(collect_results([tmp_path])) == ["dense"]
    finally:
        sys.setrecursionlimit(limit)


def test_trials_without_conditions_are_refused(tmp_path):
    entry = json.loads(trial("dense").to_json()) | {"conditions": None}
    (tmp_path / "measurements.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(
        InvalidData, match=r"a trial must have conditions, but one in .* has none; measure the model ag"
    ):
        collect_results([tmp_path])


def test_other_models_in_the_folder_are_ignored(tmp_path, tokenizer):
    save(classifier(), tokenizer, tmp_path / "plain")
    keep(tmp_path / "run", trial("dense"))
    assert names(collect_results([tmp_path])) == ["dense"]


def test_what_a_search_confirmed_on_dev_belongs_to_the_model_that_it_chose():
    """The folder of a search of 0.1.0: 28 examples chose its best, and 12 others confirm it."""
    folder = Path(__file__).parents[1] / "fixtures" / "written_by_0_1_0" / "search"
    results = collect_results([folder])
    [found] = find_confirmations([folder], results)
    assert found.chosen in [result.trial.name for result in results[1:]]
    assert (found.trial.measurements[0].n, results[0].trial.measurements[0].n) == (12, 28)
    assert find_confirmations([folder / "best"], results) == []


def test_models_that_were_measured_without_a_search_confirm_nothing(tmp_path):
    folder = keep(tmp_path / "run", trial("dense"), trial("small", speedup=2.0))
    assert find_confirmations([folder], collect_results([folder])) == []

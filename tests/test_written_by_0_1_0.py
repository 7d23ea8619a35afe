"""Folders that whet 0.1.0 wrote load, measure and report as they did there.

`fixtures/written_by_0_1_0/` holds an artifact of every kind of saved layer (`int8` is saved as `integers`), a recurrent
student, a language model, what `measure --out` kept, and a search; `write.py` there wrote them.
"""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import whet
from whet.evaluation import records
from whet.evaluation.benchmark import Benchmark
from whet.models import artifact
from whet.tasks.own_data import task_from_files
from whet.utils.hardware import supports_products

FOLDER = Path(__file__).parent / "fixtures" / "written_by_0_1_0"
WRITTEN = json.loads((FOLDER / "logits.json").read_text())
ROUNDED_ON_THE_WAY = {"int8": 0.05}
"""Where an activation on the edge between two 8-bit numbers may fall to the other side on another processor."""


@pytest.mark.parametrize("name", sorted(WRITTEN["logits"]))
def test_a_model_gives_the_logits_that_it_gave(name):
    if name == "int8" and not supports_products("int8"):
        pytest.skip("without instructions for int8, PyTorch computes it in 7 bits")
    artifact.verify(FOLDER / name)
    load = AutoModelForCausalLM.from_pretrained if name == "language_model" else artifact.load_verified
    model = load(FOLDER / name).eval()
    batch = {key: torch.tensor(value) for key, value in WRITTEN["batch"].items()}
    batch["input_ids"] %= model.config.vocab_size
    with torch.inference_mode():
        found = model(**batch).logits.double()
    expected = torch.tensor(WRITTEN["logits"][name], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=ROUNDED_ON_THE_WAY.get(name, 1e-6))


def test_every_folder_of_a_model_is_loaded_above():
    assert {path.parent.name for path in FOLDER.glob("*/manifest.json")} == set(WRITTEN["logits"])


def test_recipes_are_read_and_give_the_same_methods():
    for name in WRITTEN["logits"]:
        steps = records.read_steps(FOLDER / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of parameters that have another name now
            methods = whet.Recipe.from_list(steps).methods
        for step, method in zip(steps, methods, strict=True):
            assert method.renewed(step) == method.to_dict()


def test_old_names_of_parameters_are_told():
    steps = records.read_steps(FOLDER / "clustered")
    with pytest.warns(
        FutureWarning, match=r"^clustering\.kmeans: clusters=4, start='kmeans\+\+' is now n_clusters=4, "
    ):
        whet.Recipe.from_list(steps)


def test_trials_are_read():
    [dense], [low_rank] = records.trials(FOLDER / "dense"), records.trials(FOLDER / "low_rank")
    assert [trial.name for trial in records.trials(FOLDER / "measured")] == ["dense", "low_rank"]
    assert dense.artifact == artifact.model_digest(FOLDER / "dense")
    assert low_rank.artifact == artifact.model_digest(FOLDER / "low_rank")
    assert low_rank.get("parameters").value < dense.get("parameters").value
    assert len(records.trials(FOLDER / "search")) == 3
    assert records.trials(FOLDER / "search" / "best")[-1].artifact == artifact.model_digest(FOLDER / "search" / "best")


def test_it_measures_what_was_measured(tmp_path):
    models = [Path(shutil.copytree(FOLDER / name, tmp_path / name)) for name in ("dense", "low_rank")]
    task = task_from_files(FOLDER / "train.csv", FOLDER / "dev.csv", text="text", label="label")
    few = Benchmark(rounds=6, singles=2, timed=4, batch_size=4)
    for before, again in zip(
        records.trials(FOLDER / "measured"), whet.measure(models, task, benchmark=few), strict=True
    ):
        assert again.conditions["data_sha256"] == before.conditions["data_sha256"]
        for metric in ("accuracy", "macro_f1", "kl", "disagreement", "parameters", "nonzeros", "disk"):
            then, now = before.get(metric), again.get(metric)
            assert (now.value, now.low, now.high) == pytest.approx((then.value, then.low, then.high), abs=1e-5), metric
        assert {row.metric for row in again.measurements} == {row.metric for row in before.measurements}
    assert len(records.trials(models[1])) == 2


@pytest.mark.parametrize(("folders", "shown"), [(("measured", "dense", "low_rank"), "low_rank"), (("search",), "best")])
def test_it_writes_a_report(tmp_path, folders, shown):
    page = whet.write_report([FOLDER / name for name in folders], tmp_path / "report")
    assert shown in page.read_text(encoding="utf-8")

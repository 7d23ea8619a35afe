"""What holds for every kind of task: methods leave its models as whole as any other's, and every verb takes them.

Each kind has a row in `tests/kinds.py`: a tiny model and a few examples; a new kind needs its row and nothing here. One
recipe stands for each way in which models become smaller; `tests/methods/test_method_contract.py` has every method, for
classifiers.
"""

from dataclasses import fields, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import whet
from kinds import ROWS, Row
from searches import made_up, stop_after
from whet.calibration.resources import Calibration, Resources, prepare_resources
from whet.evaluation import significance
from whet.models.artifact import load_with_tokenizer
from whet.models.inference import kind_of_model, predict
from whet.models.recognition import recognized
from whet.run.kinds.base import predictor_named
from whet.runtimes.base import runtime_named
from whet.searching import baseline as baseline_module
from whet.searching import winner
from whet.searching.baseline import Baseline
from whet.searching.stages import StagedEvaluation
from whet.tasks.data import Batches
from whet.tasks.encoding import encode, shortest_first
from whet.tasks.kinds.base import TaskKind, all_kinds
from whet.tasks.splits import with_selection_split

LENGTH = 32
PACE = {"epochs": 1, "learning_rate": 1e-3}
RECIPES = {
    "low_rank": [{"method": "kfac", "keep": 0.5}],
    "structured": [{"method": "neurons", "keep": 0.5}],
    "quantizing": [{"method": "weight_only", "bits": 8}],
    "recovering": [{"method": "svd", "keep": 0.5}, {"method": "recovery.distillation", **PACE}],
}
CALIBRATION = Calibration(examples=16, max_length=LENGTH)
TRAINING = whet.TrainingSettings(max_length=LENGTH, **PACE)
BENCHMARK = whet.Benchmark(
    batch_size=8, max_length=LENGTH, rounds=6, singles=2, timed=4, metrics=("fidelity", "latency", "size")
)

every_kind = pytest.mark.parametrize("name", sorted(ROWS))
LEARNED = {name for name, kind in all_kinds().items() if kind.has_labels and not kind.pretrained}
"""The kinds that `whet finetune` trains."""
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


class Made:
    """A kind's model and data, and what is made of them, once a session."""

    def __init__(self, root: Path, row: Row) -> None:
        self.folder = root / "model"
        self.task = whet.load_task(**row(root))
        self.model, self.tokenizer = load_with_tokenizer(self.folder)

    @cached_property
    def resources(self) -> Resources:
        """What `whet.compress` gives the methods of any recipe."""
        needs = frozenset(field.name for field in fields(Resources))
        texts = self.task.unlabeled()
        return prepare_resources(self.model, self.tokenizer, texts, CALIBRATION, seed=0, device="cpu", needs=needs)

    @cached_property
    def dev(self) -> Batches:
        """The dev examples, encoded."""
        ordered = shortest_first(self.task.splits.dev, self.tokenizer, max_length=LENGTH)
        return encode(ordered, self.tokenizer, max_length=LENGTH, batch_size=8)

    @cached_property
    def student(self) -> Path:
        """The folder of a student of one block."""
        out = self.folder.with_name("student")
        whet.distill(self.folder, whet.student_from("layer_subset:odd"), self.task, out, settings=TRAINING)
        return out

    def compressed(self, recipe: str) -> Path:
        """Return the folder of the model that a recipe makes."""
        out = self.folder.with_name(recipe)
        if not out.exists():
            whet.compress(self.folder, recipe_named(recipe), out, task=self.task, calibration=CALIBRATION)
        return out


@pytest.fixture(scope="session")
def make(tmp_path_factory):
    return cache(lambda name: Made(tmp_path_factory.mktemp(name), ROWS[name]))


@pytest.fixture
def made(name, make) -> Made:
    return make(name)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals need not be good here."""
    monkeypatch.setattr(significance, "RESAMPLES", 100)


@pytest.fixture
def kind(name):
    return all_kinds()[name]


def recipe_named(name: str) -> whet.Recipe:
    return whet.Recipe.from_list(RECIPES[name])


def refilled(batches: Batches) -> Batches:
    """Return the same batches with another token wherever padding is."""
    ids = (torch.where(batch["attention_mask"].bool(), batch["input_ids"], 7) for batch in batches)
    return replace(batches, batches=[{**batch, "input_ids": own} for batch, own in zip(batches, ids, strict=True)])


def test_every_kind_has_a_row():
    assert set(ROWS) == set(all_kinds())


@every_kind
def test_own_data_are_read_as_the_model_answers_where_nobody_says_more(name, kind, made, tmp_path):
    options = {option: value for option, value in ROWS[name](tmp_path).items() if option not in ("kind", "metric")}
    task = recognized(made.folder, whet.load_task(**options)).task
    assert task.kind.name() == kind.name() and task.splits.dev.digest() == made.task.splits.dev.digest()
    assert len(recognized(made.folder, task, labels="unread").task.unlabeled().splits.train)


def is_of(model: nn.Module, kind: TaskKind) -> bool:
    """Return whether a model is of a kind, which may know more of a model than of data."""
    return type(kind_of_model(model)) is type(kind)


@every_kind
def test_the_kind_of_model_and_data_is_found(kind, made):
    assert made.task.kind is kind
    assert is_of(made.model, kind)


@every_kind
@every_recipe
def test_a_saved_model_answers_as_one_that_is_made_again(kind, recipe, made):
    """One in a folder, one in memory, from the same resources; the model that they are made from stays as it is."""
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    again = recipe_named(recipe).apply(made.model, made.resources)
    assert all(torch.equal(before[key], value) for key, value in made.model.state_dict().items())
    loaded = whet.load_model(made.compressed(recipe))
    assert type(loaded) is type(made.model) and is_of(loaded, kind)
    found, expected = predict(loaded, made.dev), predict(again, made.dev)
    assert np.array_equal(found.logits, expected.logits) and np.array_equal(found.inputs, expected.inputs)
    assert not np.array_equal(found.logits, predict(made.model, made.dev).logits)


@every_kind
@every_recipe
def test_it_is_blind_to_what_padding_holds(recipe, made):
    assert any(not batch["attention_mask"].all() for batch in made.resources.calibration)
    padded = {part: refilled(getattr(made.resources, part)) for part in ("calibration", "train", "validation")}
    again = recipe_named(recipe).apply(made.model, replace(made.resources, **padded))
    found = predict(again, refilled(made.dev))
    expected = predict(whet.load_model(made.compressed(recipe)), made.dev)
    assert np.abs(found.logits - expected.logits).max() <= 1e-3 * np.abs(expected.logits).max()


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_it_is_fine_tuned(kind, made, tmp_path):
    curve = whet.finetune(made.folder, made.task, tmp_path / "tuned", settings=TRAINING)
    assert all(np.isfinite([epoch.validation_loss, epoch.validation_metric]).all() for epoch in curve)
    tuned = whet.load_model(tmp_path / "tuned")
    assert is_of(tuned, kind) and type(tuned) is type(made.model)
    assert not np.array_equal(predict(tuned, made.dev).logits, predict(made.model, made.dev).logits)


@pytest.mark.parametrize("name", sorted(set(ROWS) - LEARNED))
def test_fine_tuning_is_refused_where_there_are_no_labels(made, tmp_path):
    with pytest.raises(whet.InvalidParameter, match="whet finetune must have labels to learn, but"):
        whet.finetune(made.folder, made.task, tmp_path / "tuned", settings=TRAINING)


@every_kind
def test_it_is_distilled(kind, made):
    student = whet.load_model(made.student)
    assert is_of(student, kind) and type(student) is type(made.model)
    assert not np.array_equal(predict(student, made.dev).logits, predict(made.model, made.dev).logits)


@every_kind
def test_it_is_measured_and_reported(made, tmp_path):
    folders = [made.folder, made.compressed("low_rank")]
    baseline, small = whet.measure(folders, made.task, benchmark=BENCHMARK)
    first, other = baseline.measurements[0], small.measurements[0]
    assert first.metric == other.metric == made.task.metrics[0]
    assert first.n == other.n == len(made.task.splits.dev)
    assert first.versus is None and other.versus is not None
    assert baseline.get("kl").value == 0 < small.get("kl").value
    page = whet.write_report([made.compressed("low_rank")], tmp_path / "report")
    assert small.name in page.read_text(encoding="utf-8")


@every_kind
def test_it_is_exported(kind, made, tmp_path):
    """The smallest model that there is, which takes seconds all the same."""
    folder = tmp_path / "small"
    whet.compress(made.student, whet.Recipe.from_list([{"method": "svd", "keep": 0.5}]), folder)
    [agreement] = whet.export(folder, ["onnxruntime"], task=made.task).values()
    assert agreement.largest_difference < 1e-3 and agreement.equal_predictions in (None, 1)
    model = whet.load_model(folder)
    exported = predict(runtime_named("onnxruntime").load(model, folder, threads=1), made.dev)
    expected = predict(model, made.dev)
    assert exported.kind == expected.kind and np.array_equal(exported.inputs, expected.inputs)
    assert exported.divergences(expected).max() < 1e-6
    places = ["pytorch", *(["onnxruntime"] if predictor_named(made.task.kind.name()).runs_exports else [])]
    trials = whet.measure([folder], made.task, benchmark=replace(BENCHMARK, from_text=True))
    assert [trial.conditions["runtime"] for trial in trials] == places
    assert all(trial.get("latency_median").value > 0 and trial.conditions["timed_from"] == "text" for trial in trials)


@every_kind
def test_a_few_examples_of_a_search_are_whole(made, monkeypatch):
    """With several inputs or rows an example too: the model loses nothing against itself, and a smaller one does."""
    monkeypatch.setattr(baseline_module, "SELECTION_BATCH_SIZE", 3)  # a batch ends between the sides of a pair
    monkeypatch.setattr(baseline_module, "PROXY_BATCHES", 2)
    task = with_selection_split(made.task)
    baseline = Baseline.of(made.folder, task, max_length=LENGTH, batch_size=8, seed=0)
    same, small = (baseline.proxy_score(whet.load_model(path)) for path in (made.folder, made.compressed("low_rank")))
    assert same.kl == pytest.approx(0, abs=1e-9) and same.versus.value in (0, 1)
    assert small.kl > 0


@every_kind
def test_it_is_searched(kind, made, tmp_path, monkeypatch):
    """Figures of structures are made up; those of the baseline and of the winner on the dev split are real."""
    monkeypatch.setattr(StagedEvaluation, "run", made_up())
    monkeypatch.setattr(winner, "CONFIRMATION", BENCHMARK)
    stop_after(monkeypatch, 2)
    goal = whet.Goal(max_drop=5.0)
    result = whet.search(made.folder, made.task, tmp_path / "out", goal=goal, seconds=3600, runtimes=["pytorch"])
    assert result.candidates and is_of(whet.load_model(tmp_path / "out" / "best"), kind)

"""The kind of a model is told by its folder, the user or the task, and never guessed where these say nothing."""

import json
import shutil
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForTokenClassification

from folders import classifier, edit_json, save
from helpers import tiny_model
from whet import api
from whet.api.inspecting import inspect
from whet.errors import InvalidData, InvalidModel, UnknownName
from whet.evaluation.load_task import load_task
from whet.methods.recipe import Recipe
from whet.models.checkpoint import Checkpoint
from whet.models.inference import kind_of_model
from whet.models.load import load_with_new_head
from whet.models.recognition import recognized
from whet.searching.search import search
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.kinds.base import TaskKind, all_kinds, kind_named
from whet.training.settings import TrainingSettings
from whet.training.students.base import student_from


@dataclass(frozen=True, kw_only=True)
class Unread(Task):
    """A task of any kind whose data must not be read."""

    name: str = "unread"
    of: str = field(default="classification")

    names: ClassVar[tuple[str, ...]] = ("unread",)
    label_names: ClassVar[tuple[str, ...]] = ("no", "yes")  # type: ignore[assignment]
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)  # type: ignore[assignment]

    @property
    def kind(self) -> TaskKind:
        return kind_named(self.read_for or self.of)

    def read(self) -> tuple[Examples, Examples]:
        raise AssertionError("data must not be read")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer):
    """A tiny classifier, tagger and regressor, none of which says its kind by problem_type."""
    place = tmp_path_factory.mktemp("recognized")
    found = {
        "classification": save(classifier(), tokenizer, place / "classification"),
        "token_classification": save(
            AutoModelForTokenClassification.from_config(tiny_model("bert").config), tokenizer, place / "tagger"
        ),
        "regression": save(tiny_model("bert", num_labels=1), tokenizer, place / "regression"),
    }
    for folder in found.values():
        edit_json(folder / "config.json", problem_type=None)
    return found


def test_a_task_of_another_kind_is_refused_by_every_verb_before_data_are_read(folders, tmp_path):
    model, task = folders["token_classification"], Unread()
    student, settings = student_from("layer_subset:top:1"), TrainingSettings()
    for call in (
        lambda: api.compress(model, Recipe(()), tmp_path / "out", task=task),
        lambda: api.distill(model, student, task, tmp_path / "out", settings=settings),
        lambda: api.measure([folders["classification"], model], task),
        lambda: api.compare(model, {"a": Recipe(())}, task, tmp_path / "out"),
        lambda: api.export(model, ["onnx"], task=task, out=tmp_path / "out"),
        lambda: search(model, task, tmp_path / "out"),
    ):
        with pytest.raises(
            InvalidData,
            match=r"the model must be a text classifier, as unread asks, but it is a tagger of words; give another",
        ):
            call()
    assert not list(tmp_path.iterdir())


def test_a_kind_that_contradicts_the_folder_is_refused(folders, tmp_path):
    model = folders["token_classification"]
    for call in (
        lambda: api.load_model(model, kind="classification"),
        lambda: inspect(model, kind="classification"),
        lambda: api.compress(model, Recipe(()), tmp_path / "out", kind="classification"),
        lambda: api.export(model, ["onnx"], kind="classification", out=tmp_path / "out"),
    ):
        with pytest.raises(
            InvalidModel, match=r"the kind must be that of the model, but got classification .*; give token_classif"
        ):
            call()
    with pytest.raises(UnknownName, match=r"the kind .*token_clasification"):
        api.load_model(model, kind="token_clasification")


def test_a_kind_that_a_known_task_is_read_for_must_be_the_models(folders, tmp_path, monkeypatch):
    """It is what --kind says beside --task; the model's own kind would serve the data too."""
    monkeypatch.setattr(Unread, "serves", ("token_classification",))
    model, task = folders["token_classification"], Unread(read_for="classification")
    student, settings = student_from("layer_subset:top:1"), TrainingSettings()
    for call in (
        lambda: api.distill(model, student, task, tmp_path / "out", settings=settings),
        lambda: api.measure([model], task),
        lambda: api.compare(model, {"a": Recipe(())}, task, tmp_path / "out"),
        lambda: search(model, task, tmp_path / "out"),
    ):
        with pytest.raises(InvalidModel, match=r"the kind must be that of the model, but got classification for"):
            call()
    assert load_task("glue/stsb", kind="regression").read_for == "regression"


def test_data_that_serve_the_kind_of_the_model_are_read_for_it(folders, monkeypatch):
    monkeypatch.setattr(Unread, "serves", ("token_classification",))
    assert recognized(folders["classification"], Unread()).task.read_for is None
    found = recognized(folders["token_classification"], Unread())
    assert (found.kind, found.task.kind.name()) == ("token_classification", "token_classification")


def test_what_cannot_be_told_apart_is_asked_for_and_kept(folders, tmp_path):
    model = folders["regression"]
    message = "may be a regressor or a reranker; say which: --kind regression or --kind reranking .in Python kind='regr"
    for call in (
        lambda: api.load_model(model),
        lambda: inspect(model),
        lambda: api.compress(model, Recipe(()), tmp_path / "out"),
        lambda: api.export(model, ["onnx"], out=tmp_path / "out"),
    ):
        with pytest.raises(InvalidModel, match=message):
            call()
    assert recognized(model, Unread(of="regression")).kind == "regression"
    for kind in ("reranking", "regression"):
        api.compress(model, Recipe(()), tmp_path / kind, kind=kind)
        assert recognized(tmp_path / kind, Unread(of=kind)).kind == kind
        assert kind_of_model(api.load_model(tmp_path / kind)).name() == kind  # its configuration says it now
        with pytest.raises(InvalidModel, match=r"the kind must be that of the model"):
            api.load_model(tmp_path / kind, kind=({"reranking", "regression"} - {kind}).pop())


@pytest.mark.parametrize(
    "hint",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_cross_encoders_are_told_by_what_sentence_transformers_wrote(hint, folders, tmp_path):
    model = shutil.copytree(folders["regression"], tmp_path / "model")
    edit_json(model / "config.json", **hint)
    assert kind_of_model(api.load_model(model)).name() == "reranking"
    api.compress(model, Recipe(()), tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text()).items() >= hint.items()
    assert kind_of_model(api.load_model(model, kind="regression")).name() == "regression"
    more = shutil.copytree(folders["classification"], tmp_path / "more")
    edit_json(more / "config.json", **hint)  # such as an NLI model, with a class each
    assert kind_of_model(api.load_model(more)).name() == "classification"


def test_a_model_without_a_head_is_an_embedder_only_if_that_is_said(tmp_path, tokenizer, capsys):
    folder = save(tiny_model("bert").base_model, tokenizer, tmp_path / "model")
    with pytest.raises(InvalidModel, match=r"holds a BertModel; fine-tune it first: whet finetune; or .*--kind embed"):
        api.load_model(folder)
    model = api.load_model(folder, kind="embedding")
    assert kind_of_model(model).modules.pooling == ("mean",)
    assert f"vectors of {folder} are the mean over their tokens" in capsys.readouterr().err
    api.compress(folder, Recipe(()), tmp_path / "saved", kind="embedding")
    assert kind_of_model(api.load_model(tmp_path / "saved")).modules.pooling == ("mean",)  # its folder says it now


@pytest.mark.parametrize("kind", sorted(all_kinds()))
def test_every_kind_gets_its_head(kind, folders, tmp_path, tokenizer):
    """A new one, or that of the model, for kinds whose outputs are no labels."""
    own = {"language_modeling": tiny_language_model(), "masked_language_modeling": masked()}
    base = save(own.get(kind, tiny_model("bert").base_model), tokenizer, tmp_path / "base")
    known = kind_named(kind)
    model = load_with_new_head(base, known, ("a", "b", "c") if known.has_classes else None, tokenizer)
    assert kind_of_model(model).name() == kind
    model.save_pretrained(tmp_path / "saved")
    assert kind == "embedding" or Checkpoint.of(tmp_path / "saved").kind().name() == kind


def tiny_language_model():
    return AutoModelForCausalLM.from_config(tiny_model("gpt2").config)


def masked():
    return AutoModelForMaskedLM.from_config(tiny_model("bert").config)

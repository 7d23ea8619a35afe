"""A cascade in one model: rows that are not sure get the next model's answers, in PyTorch, in folders, in exports."""

from collections import Counter

import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import whet
from covering import covering
from families import tiny
from folders import write_rows
from helpers import PAD, VOCAB, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.methods.factorization.svd import Svd
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.cascade import SCORES, CascadeForSequenceClassification, confidence
from whet.models.configs import CascadeConfig
from whet.runtimes.base import runtime_named
from whet.searching.baseline import Baseline
from whet.tasks.splits import with_selection_split

LENGTH = 8
LABELS = ("LABEL_0", "LABEL_1", "LABEL_2")


def texts(count=24):
    ids = torch.randint(1, VOCAB, (count, LENGTH), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, 5:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def fast():
    return Recipe((Svd(keep=0.5),)).apply(tiny_model("bert", blocks=1), Resources()).eval()


def cascade_of(*models, at=0.5, score="probability"):
    """A cascade whose first model is as sure as needed of this share of the texts."""
    thresholds = []
    for model in models[:-1]:
        with torch.no_grad():
            sure = confidence(model(**texts()).logits, model.config.problem_type, score)
        thresholds.append(float(sure.quantile(1 - at)) if 0 < at < 1 else (1 - at) * 1.1)
    return CascadeForSequenceClassification.of(models, thresholds, score=score, longest=40, shown={})


@torch.no_grad()
@pytest.mark.parametrize("score", SCORES)
def test_each_row_has_the_answer_of_the_first_model_that_is_sure(score):
    models = fast(), tiny_model("bert", blocks=2, seed=1), tiny_model("bert", seed=2)
    cascade = cascade_of(*models, score=score)
    found, expected = cascade(**texts()).logits, [model(**texts()).logits for model in models]
    sure = [
        confidence(own, None, score) >= least for own, least in zip(expected, cascade.config.thresholds, strict=False)
    ]
    wanted = torch.where(sure[0][:, None], expected[0], torch.where(sure[1][:, None], expected[1], expected[2]))
    assert 0 < sure[0].sum() < len(sure[0]) and not (sure[0] | sure[1]).all()
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_a_model_that_is_always_sure_never_asks_another():
    model = fast()
    cascade = cascade_of(model, tiny_model("bert"), at=1)
    cascade.stages[1].forward = lambda **_: pytest.fail("the second model ran")
    assert torch.equal(cascade(**texts()).logits, model(**texts()).logits)


def test_of_several_labels_the_least_sure_counts():
    logits = torch.tensor([[3.0, -3.0], [0.0, 9.0]])
    torch.testing.assert_close(
        confidence(logits, "multi_label_classification"), torch.tensor([torch.tensor(3.0).sigmoid(), 0.5])
    )
    torch.testing.assert_close(confidence(logits, None), logits.softmax(-1).amax(-1))


@pytest.mark.parametrize(
    ("score", "expected"), [("probability", [0.5, 1.0]), ("margin", [0.2, 1.0]), ("entropy", [0.0627, 1.0])]
)
def test_how_sure_a_model_is_has_three_scores(score, expected):
    """The entropy of .5, .3 and .2 is 1.0297 nats, of ln 3 = 1.0986 at most."""
    logits = torch.tensor([[0.5, 0.3, 0.2], [1.0, 1e-30, 1e-30]]).log()
    torch.testing.assert_close(confidence(logits, None, score), torch.tensor(expected), rtol=0, atol=1e-4)
    torch.testing.assert_close(confidence(torch.zeros(1, 3), None, score), torch.tensor([1 / 3 * (score[0] == "p")]))


def save(cascade, tokenizer, folder):
    records.save_model(cascade, tokenizer, folder, recipe=[], origin="tiny", seed=0)
    return folder


def test_a_folder_holds_all_models_with_their_structure(tmp_path, tokenizer):
    cascade = cascade_of(fast(), tiny_model("bert"))
    folder = save(cascade, tokenizer, tmp_path / "cascade")
    for loaded in (artifact.load_verified(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()):
        assert type(loaded) is CascadeForSequenceClassification
        with torch.no_grad():
            torch.testing.assert_close(loaded(**texts()).logits, cascade(**texts()).logits)
    answers = whet.load(folder)(["w5 w6", "w7 w8 w9"])
    assert len(answers) == 2


CASES = [(precision, at) for precision in ("fp32", "int8") for at in (0, 0.5, 1)]


@pytest.mark.parametrize(("precision", "at"), covering(CASES, lambda case: case[1] != 0))
def test_one_onnx_file_answers_batches_of_which_none_some_or_all_are_passed_on(precision, at, tmp_path, tokenizer):
    # both have the same tables and heads, as after a compression without training; exporters merge equal weights
    cascade = cascade_of(fast(), tiny_model("bert", blocks=1), at=at)
    folder = save(cascade, tokenizer, tmp_path / "cascade")
    whet.export(folder, ["onnxruntime"], precisions=[precision])
    session = runtime_named("onnxruntime").open(folder, precision=precision, threads=1)
    with torch.no_grad():
        expected = cascade(**texts()).logits.numpy()
    found = session(texts())["logits"]
    assert found.shape == expected.shape
    if precision == "fp32":
        torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)
    else:
        assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.8
        [branch] = [node for node in onnx.load(folder / "model_quantized.onnx").graph.node if node.op_type == "If"]
        kinds = Counter(node.op_type for attribute in branch.attribute for node in attribute.g.node)
        assert kinds["MatMulInteger"] == 6 and kinds["MatMul"] + kinds["Gemm"] == 2  # pooler and head
    for size in (1, 3):
        assert session({name: value[:size] for name, value in texts().items()})["logits"].shape == (size, 3)


@pytest.mark.parametrize("score", ["margin", "entropy"])
def test_other_scores_are_exported_too(score, tmp_path, tokenizer):
    cascade = cascade_of(fast(), tiny_model("bert", blocks=1, seed=1), score=score)
    folder = save(cascade, tokenizer, tmp_path / "cascade")
    whet.export(folder, ["onnxruntime"])
    found = runtime_named("onnxruntime").open(folder, precision="fp32", threads=1)(texts())["logits"]
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), cascade(**texts()).logits, rtol=1e-3, atol=1e-4)


def test_models_of_two_families_may_follow_each_other():
    with torch.no_grad():
        assert cascade_of(tiny("distilbert"), tiny("roberta"))(**texts()).logits.shape == (24, 3)


def test_methods_refuse_a_cascade():
    with pytest.raises(InvalidModel, match="must be one model, but got a cascade of several; work on these"):
        Recipe((Svd(keep=0.5),)).apply(cascade_of(fast(), tiny_model("bert")), Resources(calibration=tiny_batches()))


def test_verbs_that_train_or_search_refuse_a_cascade(tmp_path, tokenizer):
    folder = save(cascade_of(fast(), tiny_model("bert")), tokenizer, tmp_path / "cascade")
    files = {f"{name}_file": write_rows(tmp_path / f"{name}.csv", 60, labels=LABELS) for name in ("train", "dev")}
    task = whet.load_task(**files, text="text")
    for verb in (
        lambda: whet.finetune(folder, task, tmp_path / "out", settings=whet.TrainingSettings(epochs=1)),
        lambda: whet.compress(folder, whet.Recipe.from_list([{"method": "half"}]), tmp_path / "out"),
        lambda: Baseline.of(folder, with_selection_split(task), max_length=8, batch_size=8, seed=0),
    ):
        with pytest.raises(InvalidModel, match="must be one model, but got a cascade"):
            verb()
    assert not (tmp_path / "out").exists()


def test_thresholds_must_fit_the_models():
    with pytest.raises(InvalidParameter, match="two or more models and a threshold for each but the last, but got 0"):
        CascadeForSequenceClassification(CascadeConfig())


def test_the_score_must_be_known():
    config = cascade_of(fast(), tiny_model("bert")).config
    config.score = "luck"
    with pytest.raises(InvalidParameter, match="must be probability, margin, entropy, but got 'luck'; correct its"):
        CascadeForSequenceClassification(config)

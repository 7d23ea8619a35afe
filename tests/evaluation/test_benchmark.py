import dataclasses
import gzip
import json
import os
import shutil
import signal
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics
from transformers import BertConfig, BertForSequenceClassification

import whet
from folders import LABELS, classifier, edit_json, save, write_rows
from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidData, InvalidModel, InvalidParameter, UnknownName
from whet.evaluation import records, slowness, timing
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics import memory
from whet.evaluation.metrics.base import ModelUnderTest, Quality, all_metrics, metric_named, quality_named
from whet.evaluation.metrics.latency import Latency
from whet.evaluation.metrics.memory import Memory
from whet.evaluation.metrics.size import Size
from whet.evaluation.trial import Trial
from whet.methods.base import all_methods
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.inference import predict, predict_logits
from whet.models.load import class_order
from whet.numerics.divergence import categorical_kl, gaussian_kl
from whet.tasks.base import Task
from whet.tasks.data import Batches, Examples
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import Answers, kind_named
from whet.tasks.own_data import task_from_files

CORRELATIONS = ("pearson", "spearman")
QUALITIES = ("accuracy", "f1", "macro_f1", "matthews", "weighted_f1", *CORRELATIONS)
METHOD = next(method for _, method in sorted(all_methods().items()) if not method.needs and "keep" in method.example)
BENCHMARK = Benchmark(batch_size=8, rounds=6, singles=4, timed=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory, tokenizer) -> Path:
    """A model, its twin, the same with its classes the other way round, and a compressed one."""
    root = tmp_path_factory.mktemp("models")
    save(classifier(), tokenizer, root / "model")
    shutil.copytree(root / "model", root / "twin")
    other = classifier(labels=LABELS[::-1])
    for parameter in other.classifier.parameters():
        parameter.data = parameter.data.flip(0)
    save(other, tokenizer, root / "swapped")
    recipe = Recipe((METHOD(**METHOD.example),))
    compressed = recipe.apply(classifier(), Resources())
    records.save_model(compressed, tokenizer, root / "small", recipe=recipe.to_list(), origin="model", seed=0)
    write_rows(root / "train.csv", 60)
    write_rows(root / "dev.csv", 40, seed=1)
    return root


def task_of(root: Path) -> Task:
    return task_from_files(root / "train.csv", root / "dev.csv", text="text")


@pytest.fixture(scope="module")
def trials(root, memory_in_processes) -> dict[str, Trial]:
    names = ("model", "twin", "swapped", "small")
    found = BENCHMARK.run([root / name for name in names], task_of(root))
    return dict(zip(names, found, strict=True))


def test_all_metrics_are_there_for_every_model(trials):
    expected = {
        "accuracy", "macro_f1", "kl", "disagreement", "latency_median", "latency_p95", "throughput",
        "parameters", "nonzeros", "disk", "compressed", "peak_memory",
    }  # fmt: skip
    for name, trial in trials.items():
        assert trial.name == name
        assert {one.metric for one in trial.measurements} == expected
        for one in trial.measurements:
            assert np.isfinite([one.value, one.low, one.high]).all()
            assert one.low <= one.value <= one.high
            assert one.n >= 1


@pytest.mark.parametrize("name", ["twin", "swapped"])
def test_a_model_against_itself_does_not_differ(trials, name):
    own = trials[name]
    assert own.get("accuracy").value == trials["model"].get("accuracy").value
    versus = own.get("accuracy").versus
    assert (versus.value, versus.p_value, versus.significant) == (0, 1, False) and versus.low == -versus.high
    for metric in ("kl", "disagreement"):
        assert own.get(metric).value == pytest.approx(0, abs=1e-6)


def test_the_accuracy_is_that_of_a_plain_loop(trials, root, tokenizer):
    model, right = classifier(), 0
    lines = (root / "dev.csv").read_text().splitlines()[1:]
    for line in lines:
        text, label = line.split(",")
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        right += LABELS[int(logits.argmax())] == label
    assert trials["model"].get("accuracy").value == pytest.approx(right / len(lines))


def test_speedups_are_ratios_with_ordered_intervals(trials):
    for name, trial in trials.items():
        for metric in ("throughput", "latency_median", "latency_p95"):
            one = trial.get(metric)
            assert one.value > 0
            assert (one.versus is None) == (name == "model")
            if one.versus is not None:
                assert one.versus.kind == "ratio"
                assert 0 < one.versus.low <= one.versus.value <= one.versus.high
    assert 1 / 3 < trials["twin"].get("throughput").versus.value < 3


def test_a_file_that_changes_is_compressed_again(trials, root, tmp_path):
    shutil.copytree(root / "model", tmp_path / "model")
    subject = SimpleNamespace(model=classifier(), source=tmp_path / "model", files=())

    def compressed() -> float:
        [rows] = Size().measure([subject])
        return {one.metric: one.value for one in rows}["compressed"]

    whole = compressed()
    assert whole == trials["model"].get("compressed").value == compressed()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(1000))
    assert compressed() < whole / 10


def test_memory_is_that_of_the_model_alone(trials):
    """What it imports takes 150 MiB."""
    for trial in trials.values():
        memory = trial.get("peak_memory")
        assert 0 < memory.value < 60
        assert memory.unit == "MiB"
        assert memory.n == 3


def test_sizes_are_counted(trials, root):
    for name, trial in trials.items():
        stored = root / name / "model.safetensors"
        assert trial.get("disk").value == stored.stat().st_size / 2**20
        deflated = len(gzip.compress(stored.read_bytes(), 1)) / 2**20
        assert trial.get("compressed").value == pytest.approx(deflated, abs=1e-4)
    dense = sum(parameter.numel() for parameter in classifier().parameters())
    assert trials["model"].get("parameters").value == dense
    assert trials["small"].get("parameters").value < dense
    # the dead row of the tiny model, and the padding's embedding if there is one
    assert trials["model"].get("nonzeros").value <= dense - 32


def test_trials_survive_json(trials):
    for trial in trials.values():
        line = trial.to_json()
        assert "\n" not in line and "NaN" not in line
        assert Trial.from_json(line) == trial


def test_conditions_are_recorded(trials):
    conditions = trials["small"].conditions
    assert conditions["task"] == "tabular"
    assert conditions["threads"] == torch.get_num_threads()
    assert conditions["cpu"] and conditions["cores"] >= 1 and conditions["device"] == "cpu"
    assert conditions["versions"]["torch"] == torch.__version__
    assert set(conditions["versions"]) >= {"whet", "transformers", "python", "numpy"}
    assert (conditions["batch_size"], conditions["rounds"], conditions["precision"]) == (8, 6, "fp32")
    assert len(conditions["data_sha256"]) == 64
    assert (conditions["baseline"], conditions["baseline_artifact"]) == ("model", None)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(conditions["measured"])) < timedelta(hours=1)
    assert all(trial.conditions == conditions for trial in trials.values())


def test_other_work_beside_times_is_told_and_kept(root, monkeypatch, capsys):
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    monkeypatch.setattr(slowness.time, "thread_time", lambda: 0.0)
    timed = dataclasses.replace(BENCHMARK, metrics=("latency",))
    [trial] = timed.run([root / "model"], task_of(root))
    assert trial.conditions["slowness"] > 1.25
    assert "the machine was busy with other work" in capsys.readouterr().err
    [trial] = dataclasses.replace(timed, metrics=()).run([root / "model"], task_of(root))
    assert "slowness" not in trial.conditions and capsys.readouterr().err == ""


def test_a_budget_of_tokens_gives_every_model_the_same_batches(root, tokenizer, quick, monkeypatch):
    """Even to one that cuts its inputs shorter."""
    seen = []
    monkeypatch.setattr(Latency, "measure", lambda self, subjects: seen.extend(subjects) or [[] for _ in subjects])
    benchmark = Benchmark(batch_tokens=48, rounds=6, singles=4, timed=20)
    trials = benchmark.run([root / "model", root / "small"], task_of(root))
    for part in ("dev", "timed"):
        first, second = ([len(batch["input_ids"]) for batch in getattr(one, part)] for one in seen)
        assert first == second and len(set(first)) > 1
        assert max(batch["input_ids"].numel() for batch in getattr(seen[0], part)) <= 48
    assert [len(batch["input_ids"]) for batch in seen[0].singles] == [1] * 4
    conditions = trials[0].conditions
    assert conditions["batch_tokens"] == 48 and "batch_size" not in conditions
    whole = BENCHMARK.run([root / "model"], task_of(root))[0]
    assert trials[0].get("accuracy").value == whole.get("accuracy").value


def test_a_batch_has_one_size():
    with pytest.raises(
        InvalidParameter, match="one of batch_size and batch_tokens must be given, but got batch_size=8"
    ):
        Benchmark(batch_size=8, batch_tokens=64)
    with pytest.raises(InvalidParameter, match="1 <= batch_tokens <= 100000000 must hold, but got batch_tokens=0"):
        Benchmark(batch_tokens=0)


def test_artifacts_are_named_by_recipe_and_digest(trials, root):
    assert Recipe.from_list(trials["small"].recipe) == Recipe((METHOD(**METHOD.example),))
    assert trials["small"].artifact == artifact.model_digest(root / "small")
    assert (trials["model"].recipe, trials["model"].artifact) == ([], None)


@pytest.fixture
def quick(monkeypatch):
    """Leaves out what takes time."""
    monkeypatch.setattr("whet.evaluation.significance.RESAMPLES", 60)
    for metric in (Memory, Latency):
        monkeypatch.setattr(metric, "measure", lambda self, subjects: [[] for _ in subjects])


def test_another_row_is_another_data_hash(root, tmp_path, quick):
    write_rows(tmp_path / "dev.csv", 40, seed=2)
    other = task_from_files(root / "train.csv", tmp_path / "dev.csv", text="text")
    first, second = (BENCHMARK.run([root / "model"], task)[0].conditions for task in (task_of(root), other))
    assert first.keys() == second.keys()
    # the two were measured one after the other, at times of their own
    assert {name for name in first if first[name] != second[name]} - {"measured"} == {"data_sha256"}


@pytest.mark.parametrize("metric", QUALITIES)
def test_every_quality_can_be_asked_for(root, tmp_path, metric, quick, tokenizer):
    scores = metric in CORRELATIONS
    write_rows(tmp_path / "train.csv", 60, labels=("0.5", "1.5") if scores else LABELS)
    write_rows(tmp_path / "dev.csv", 20, seed=1, labels=("0.5", "1.5") if scores else LABELS)
    save(tiny_model("bert", 1) if scores else classifier(), tokenizer, tmp_path / "model")
    task = task_from_files(tmp_path / "train.csv", tmp_path / "dev.csv", text="text", metric=metric)
    first, second = BENCHMARK.run([tmp_path / "model", tmp_path / "model"], task)
    assert -1 <= first.get(metric).value <= 1
    assert second.get(metric).versus.value == 0
    assert second.get(metric).versus.p_value == 1


def test_whet_measure_keeps_the_rows(root, tmp_path, quick):
    shutil.copytree(root / "small", tmp_path / "small")
    found = whet.measure([root / "model", tmp_path / "small"], task_of(root), benchmark=BENCHMARK)
    assert records.trials(tmp_path / "small") == [found[1]]
    assert (root / "model").exists() and not (root / "model" / "measurements.jsonl").exists()


def test_bad_parameters_are_refused():
    for field, value in (
        ("batch_size", 0),
        ("max_length", 1),
        ("rounds", 5),
        ("singles", 1),
        ("timed", 1),
        ("seed", -1),
    ):
        with pytest.raises(InvalidParameter, match=f"{field} <.* must hold, but got {field}={value}; "):
            dataclasses.replace(Benchmark(), **{field: value})


def test_an_unknown_metric_is_refused_before_any_model_is_loaded(root, monkeypatch):
    monkeypatch.setattr("whet.evaluation.benchmark.load_with_tokenizer", lambda source: pytest.fail("work had begun"))
    task = task_from_files(root / "train.csv", root / "dev.csv", text="text", metric="acuracy")
    with pytest.raises(UnknownName, match="did you mean accuracy"):
        BENCHMARK.run([root / "model"], task)


def test_answers_that_are_not_finite_are_refused():
    model = tiny_model("bert")
    model.classifier.bias.data[0] = float("nan")
    with pytest.raises(InvalidModel, match="logits must be finite, but tiny gives NaN or infinity; check its weights"):
        predict_logits(model, tiny_batches(), name="tiny")


def test_answers_come_in_the_order_of_the_batches():
    model, batches = tiny_model("bert"), tiny_batches()
    found = predict_logits(model, batches, name="tiny")
    with torch.inference_mode():
        assert np.array_equal(found[:4], model(**batches.batches[0]).logits.numpy())
    assert found.shape == (24, 3)


# classes


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("no", "yes"), [0, 1]),
        (("yes", "no"), [1, 0]),
        (("YES", "No"), [1, 0]),
    ],
)
def test_classes_are_matched_by_name(root, names, order, capsys):
    """What does not follow from equal names is said once, however many models there are."""
    task = task_of(root)
    for _ in range(2):
        assert class_order(classifier(labels=names), task) == order
    assert capsys.readouterr().err.count("note: labels are paired") == (names == ("YES", "No"))


@pytest.mark.parametrize("count", [10, 12])
def test_a_models_own_answers_are_right_for_any_number_of_classes(tmp_path, tokenizer, count):
    """The head's classes are called LABEL_i, as transformers calls them, and the labels are their numbers."""
    model = tiny_model("bert", count)
    rows = write_rows(tmp_path / "rows.csv", 40 * count, labels=["-"] * count).read_text().splitlines()
    texts = [row.split(",")[0] for row in rows[1:]]
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        model.classifier.bias -= logits.mean(0)  # so that every class occurs
    save(model, tokenizer, tmp_path / "model")
    labels = (logits - logits.mean(0)).argmax(1).tolist()
    assert len(set(labels)) == count
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    task = task_from_files(tmp_path / "rows.csv", tmp_path / "rows.csv", text="text")
    # the task's own metric may be named too, and is measured all the same
    [trial] = dataclasses.replace(BENCHMARK, metrics=("accuracy",)).run([tmp_path / "model"], task)
    assert trial.get("accuracy").value == 1 and "latency_median" not in {one.metric for one in trial.measurements}


def test_models_with_other_classes_than_the_first_are_not_compared(root, tokenizer, tmp_path):
    save(classifier(labels=(*LABELS, "maybe")), tokenizer, tmp_path / "more")
    quick = dataclasses.replace(BENCHMARK, metrics=("fidelity",))
    for names in ([tmp_path / "more", root / "model"], [root / "model", tmp_path / "more"]):
        with pytest.raises(
            InvalidData, match=r"same classes besides .* got (maybe|none) .* and (maybe|none) .*; measure"
        ):
            quick.run(names, task_of(root))
    [one, _] = quick.run([tmp_path / "more"] * 2, task_of(root))
    assert one.get("accuracy").n == 40


def test_f1_is_that_of_the_models_class_1_or_the_named_one(root, capsys):
    """Whatever the alphabet says."""
    quick = dataclasses.replace(BENCHMARK, metrics=())
    found = {}
    for name in ("model", "swapped"):
        for positive in (None, "no", "yes"):
            own = {"train_file": root / "train.csv", "dev_file": root / "dev.csv"}
            task = whet.load_task(**own, metric="f1", positive=positive)
            [trial] = quick.run([root / name], task)
            one = trial.get("f1")
            found[name, positive] = one.value, one.conditions["class"]
            assert trial.conditions["positive"] == one.conditions["class"]
            assert f"f1 of {trial.conditions['positive']}" in repr(whet.Trials([trial]))
            said = capsys.readouterr().err
            assert ("f1 is that of the class" in said) == (positive is None)
    assert found["model", None] == found["model", "yes"] == found["swapped", "yes"]
    assert found["swapped", None] == found["swapped", "no"] == found["model", "no"]
    assert found["model", "no"] != found["model", "yes"]
    assert {positive: found["model", positive][1] for positive in ("no", "yes")} == {"no": "no", "yes": "yes"}


def test_heads_that_do_not_fit_are_refused(root):
    with pytest.raises(InvalidData, match="must know the labels no, yes, but it knows bad, good; say which"):
        class_order(classifier(labels=("bad", "good")), task_of(root))
    with pytest.raises(InvalidData, match="must have the task's classes no, yes, but got num_labels=3; fine-tune"):
        class_order(tiny_model("bert", 3), task_of(root))
    scores = task_from_files(root / "train.csv", root / "dev.csv", text="text", metric="pearson")
    with pytest.raises(InvalidData, match="must be a regressor, as your data ask, but it is a text classifier"):
        class_order(classifier(), scores)
    assert class_order(tiny_model("bert", 1), scores) == []


def test_a_head_of_many_classes_makes_a_short_message(root, tmp_path):
    write_rows(tmp_path / "many.csv", 200, labels=[f"c{i:03}" for i in range(90)])
    task = task_from_files(tmp_path / "many.csv", tmp_path / "many.csv", text="text")
    with pytest.raises(InvalidData, match=r"classes c000, .*, c009 and 80 more, but got num_labels=2; fine-tune"):
        class_order(classifier(), task)


# quality


def reference(metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    return {
        "accuracy": lambda: sklearn_metrics.accuracy_score(labels, predictions),
        "f1": lambda: sklearn_metrics.f1_score(labels, predictions),
        "macro_f1": lambda: sklearn_metrics.f1_score(labels, predictions, average="macro"),
        "weighted_f1": lambda: sklearn_metrics.f1_score(labels, predictions, average="weighted"),
        "matthews": lambda: sklearn_metrics.matthews_corrcoef(labels, predictions),
        "pearson": lambda: stats.pearsonr(labels, predictions).statistic,
        "spearman": lambda: stats.spearmanr(labels, predictions).statistic,
    }[metric]()


def drawn(metric: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    if metric in CORRELATIONS:
        return random.normal(size=50), random.normal(size=50)
    return random.integers(2, size=50), random.integers(2, size=50)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", QUALITIES)
def test_scores_agree_with_their_reference(metric, seed):
    labels, predictions = drawn(metric, seed)
    assert quality_named(metric).score(labels, predictions) == pytest.approx(reference(metric, labels, predictions))


def test_classes_weigh_by_how_many_examples_have_them():
    """Class 1 is neither a label nor a prediction, and class 3 never a label."""
    labels, predictions = np.asarray([0, 0, 0, 0, 2, 2]), np.asarray([0, 0, 0, 2, 2, 3])
    wanted = reference("weighted_f1", labels, predictions)
    assert quality_named("weighted_f1").score(labels, predictions) == pytest.approx(wanted)
    assert wanted != pytest.approx(reference("macro_f1", labels, predictions))


@pytest.mark.parametrize("metric", QUALITIES)
def test_the_right_answers_score_one(metric):
    labels, _ = drawn(metric, 0)
    assert quality_named(metric).score(labels, labels) == pytest.approx(1)


@pytest.mark.parametrize("metric", QUALITIES)
@pytest.mark.parametrize("side", ["labels", "predictions", "both"])
def test_constant_answers_have_a_finite_score(metric, side):
    labels, predictions = drawn(metric, 0)
    if side != "predictions":
        labels = np.zeros_like(labels)
    if side != "labels":
        predictions = np.full_like(predictions, 1)
    assert np.isfinite(quality_named(metric).score(labels, predictions))


@pytest.mark.parametrize("metric", QUALITIES)
def test_constant_answers_can_be_measured(metric, quick):
    """Also every bootstrap resample must have a finite score."""
    labels, _ = drawn(metric, 0)
    quality = quality_named(metric)
    logits = np.zeros((len(labels), 1 if metric in CORRELATIONS else 2), dtype=np.float32)
    kind = kind_named("regression" if metric in CORRELATIONS else "classification")
    answers = Answers(kind, logits, np.arange(len(labels)))
    one = dataclasses.replace(subject(tiny_model("bert")), dev=Batches([], labels), answers=answers)
    baseline, twin = (rows[0] for rows in quality.measure([one, one]))
    assert np.isfinite([baseline.value, baseline.low, baseline.high]).all()
    assert (twin.versus.value, twin.versus.p_value) == (0, 1)


def test_only_qualities_are_named_qualities():
    for name in (name for name, metric in all_metrics().items() if not issubclass(metric, Quality)):
        assert metric_named(name).universal
        with pytest.raises(UnknownName, match="the metric must be a known name, but got"):
            quality_named(name)


# fidelity


@pytest.mark.parametrize("scale", [1, 100])
def test_divergences_agree_with_torch(scale):
    random = np.random.default_rng(0)
    p, q = (random.normal(size=(30, 4)) * scale for _ in range(2))
    expected = torch.nn.functional.kl_div(
        torch.tensor(q).log_softmax(1), torch.tensor(p).log_softmax(1), log_target=True, reduction="none"
    ).sum(1)
    assert np.allclose(categorical_kl(p, q), expected.numpy(), rtol=1e-9, atol=1e-12)


def test_divergences_are_zero_for_the_same_and_never_negative():
    logits = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    assert np.all(categorical_kl(logits, logits) == 0)
    assert np.all(categorical_kl(logits, logits + 1e-7) >= 0)


def test_divergences_of_scores_are_half_the_squared_difference():
    assert gaussian_kl(np.asarray([[1.0], [2.0]]), np.asarray([[4.0], [2.0]])).tolist() == [4.5, 0]


def test_disagreement_is_the_fraction_of_other_answers():
    one, other = subject(tiny_model("bert")), subject(tiny_model("bert"))
    answers = one.answers
    logits = answers.logits.copy()
    logits[:6] = -logits[:6]
    found = metric_named("fidelity").measure(
        [one, dataclasses.replace(other, answers=dataclasses.replace(answers, logits=logits))]
    )
    rows = {row.metric: row for row in found[1]}
    assert rows["disagreement"].value == np.mean(answers.logits.argmax(1) != logits.argmax(1))
    assert rows["kl"].value == pytest.approx(categorical_kl(answers.logits, logits).mean())
    assert [row.value for row in found[0]] == [0, 0]


# size and speed


def subject(model, source: Path | str = "", **changes) -> ModelUnderTest:
    batches = tiny_batches()
    found = ModelUnderTest(
        name="tiny",
        source=str(source),
        model=model,
        device="cpu",
        max_length=40,
        dev=batches,
        answers=predict(model, batches, name="tiny"),
        singles=Batches([{key: value[:1] for key, value in batch.items()} for batch in batches], batches.labels[:6]),
        timed=batches,
        rounds=6,
        seed=0,
    )
    return dataclasses.replace(found, **changes)


def counts(model, folder: Path) -> dict[str, float]:
    model.save_pretrained(folder)
    return {row.metric: row.value for row in Size().measure([subject(model, folder)])[0]}


def test_tied_weights_count_once(tmp_path):
    model = tiny_model("bert")
    plain = counts(model, tmp_path / "plain")
    first, second = (layer.output.dense for layer in model.bert.encoder.layer)
    second.weight = first.weight
    tied = sum(
        row.value for row in Size().measure([subject(model, tmp_path / "plain")])[0] if row.metric == "parameters"
    )
    assert tied == plain["parameters"] - first.weight.numel()


def test_zeros_are_parameters_but_not_nonzeros(tmp_path):
    model = tiny_model("bert")
    before = counts(model, tmp_path / "a")
    weight = model.bert.encoder.layer[1].output.dense.weight
    weight.data[:4] = 0
    after = counts(model, tmp_path / "b")
    assert after["parameters"] == before["parameters"]
    assert after["nonzeros"] == before["nonzeros"] - 4 * weight.shape[1]


def test_the_disk_size_is_that_of_all_shards(tmp_path):
    model = tiny_model("bert")
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    shards = list((tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 1
    (tmp_path / "shards" / "vocab.txt").write_text("x" * 1000)
    found = {row.metric: row.value for row in Size().measure([subject(model, tmp_path / "shards")])[0]}
    assert found["disk"] == sum(path.stat().st_size for path in shards) / 2**20


def names(rows: list[Measurement]) -> set[str]:
    return {row.metric for row in rows}


class Asked:
    """A predictor that keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list] = []

    def inputs(self, rows):
        return [row[0] for row in rows]

    def predict(self, inputs):
        self.calls.append(inputs)


def test_times_from_texts_are_those_of_the_predictor(monkeypatch, tokenizer):
    """Each text alone and then all in batches, as often as there are rounds; the model itself is not run."""
    texts = [f"w{i} w{i + 1}" for i in range(9)]
    timed = encode(Examples(texts, [0] * 9), tokenizer, max_length=8, batch_size=4)
    found = subject(tiny_model("bert"), timed=timed, singles=timed, max_length=512, tokenizer=tokenizer)
    asked = Asked()
    monkeypatch.setattr(ModelUnderTest, "predictor", asked)
    monkeypatch.setattr(found.model, "forward", None)
    assert names(Latency().measure([found])[0]) == {"latency_median", "latency_p95", "throughput"}
    singles, batches = [[text] for text in texts], [texts[:4], texts[4:8], texts[8:]]
    rounds = found.rounds + timing.WARM_UP
    assert asked.calls == singles * rounds + batches * rounds


def test_fixed_shapes_need_a_model_that_reads_them():
    short = subject(tiny_model("bert"))
    config = BertConfig(
        vocab_size=99, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=128,
    )  # fmt: skip
    long = subject(BertForSequenceClassification(config).eval(), max_length=128)
    everywhere = {"latency_median", "latency_p95", "throughput"}
    assert names(Latency().measure([short])[0]) == everywhere
    found = Latency().measure([long, long])
    assert names(found[0]) == names(found[1]) == everywhere | {"latency_1x128", "latency_8x128"}
    assert all(row.versus is None for row in found[0]) and all(row.versus is not None for row in found[1])
    for rows in Latency().measure([long, short]):
        assert names(rows) == everywhere, "shapes must be read by every model, or by none"


def test_memory_of_a_model_that_cannot_be_loaded_is_one_sentence(tmp_path, memory_in_processes):
    with pytest.raises(
        InvalidModel, match=r"^every model must .* but got InvalidModel for .*nowhere: [^\n]*; try it alone$"
    ):
        Memory().measure([subject(tiny_model("bert"), tmp_path / "nowhere")])


def test_a_run_that_is_killed_for_its_memory_names_the_model():
    def killed(jobs):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(SystemExit, match="exit status -9 for big"):
        memory._in_child(killed, [{"source": "big"}])


def test_memory_is_measured_on_processors_only():
    assert Memory().measure([subject(tiny_model("bert"), device="cuda")]) == [[]]


def test_an_altered_artifact_is_refused(root, tmp_path):
    shutil.copytree(root / "small", tmp_path / "small")
    edit_json(tmp_path / "small" / "config.json", hidden_act="relu")
    with pytest.raises(whet.errors.InvalidArtifact, match=r"config.json was truncated or altered"):
        BENCHMARK.run([root / "model", tmp_path / "small"], task_of(root))


def test_measurements_are_json(trials):
    assert json.loads(trials["small"].to_json())["measurements"][0]["metric"] == "accuracy"


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
def test_a_compiled_model_gives_the_same_answers(root, tokenizer, tmp_path, monkeypatch):
    save(classifier(blocks=1), tokenizer, tmp_path / "model")
    benchmark = Benchmark(
        batch_size=8, rounds=6, singles=2, timed=8, runtimes=("pytorch", "torch_compile"), metrics=("fidelity",)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says to itself while it compiles
        _, compiled = benchmark.run([tmp_path / "model"], task_of(root))
    assert compiled.conditions["runtime"] == "torch_compile" and compiled.name == "model (torch_compile)"
    assert compiled.get("kl").value < 1e-6
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidParameter, match=r"needs a C\+\+ compiler, but no-such-compiler is not here; install"):
        benchmark.run([tmp_path / "model"], task_of(root))

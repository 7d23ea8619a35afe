"""What a structure goes through, with a tiny model and real runtimes."""

from pathlib import Path

import numpy as np
import pytest

from helpers import linears
from searches import candidate as made_up_candidate
from searches import write_model_and_data
from whet.calibration.resources import Calibration, prepare_resources
from whet.errors import InvalidModel, InvalidParameter, OutputNotWritten
from whet.evaluation.measurement import Comparison
from whet.evaluation.metrics.base import quality_named
from whet.evaluation.timing import RuntimeTimer
from whet.models import artifact
from whet.models.inference import predict
from whet.models.layers.base import count_weights
from whet.run.sessions import Session
from whet.runtimes.base import ExportedModel, runtime_named
from whet.runtimes.onnxruntime import OnnxRuntime
from whet.searching import baseline as baseline_module
from whet.searching.baseline import Baseline
from whet.searching.costs import structure_seconds
from whet.searching.goal import Goal
from whet.searching.recipe_cache import CachedRecipes
from whet.searching.space import Space, Structure
from whet.searching.stages import BEATEN, ENOUGH, StagedEvaluation, _TargetOutcomes
from whet.searching.storage import FAILED, FINISHED, PRUNED, Proposal, SearchTrial
from whet.searching.targets import Target, targets
from whet.tasks.own_data import task_from_files
from whet.tasks.splits import with_selection_split

ONNX, INT8, TORCH = Target("onnxruntime"), Target("onnxruntime", "int8"), Target("pytorch")
STRUCTURE = Structure(1)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory, tokenizer) -> Baseline:
    root = tmp_path_factory.mktemp("made")
    write_model_and_data(root, tokenizer)
    task = with_selection_split(task_from_files(root / "train.csv", root / "dev.csv", text="text"))
    return Baseline.of(root / "model", task, max_length=128, batch_size=8, seed=0)


@pytest.fixture(scope="module")
def baseline_trial(baseline):
    return baseline.trial()


@pytest.mark.parametrize("fit", [0, 1, 2, 4])
def test_where_time_is_short_those_that_are_the_fastest_are_tried(baseline, fit):
    """One export at least, since a search without any finds little."""
    where = targets(["onnxruntime", "openvino", "pytorch"], ["fp32", "int8"])
    left = structure_seconds(baseline, exported=fit) + 0.01
    evaluation = StagedEvaluation(baseline, None, Goal(), Space(), None, where, left=lambda: left)
    outcomes = _TargetOutcomes({}, {})
    beyond = evaluation._beyond(outcomes)
    kept = [target for target in where if target not in beyond]
    assert len(kept) == 1 + max(1, fit), "PyTorch needs no export"
    precisions = [target.precision for target in kept if target.exported]
    assert precisions == sorted(precisions, key=["int8", "fp32"].index) or fit == 4
    outcomes.leave_out(kept[0], BEATEN)
    assert kept[0] not in evaluation._beyond(outcomes)


@pytest.fixture
def evaluation_of(baseline, baseline_trial, monkeypatch):
    """Make an evaluation in which a model is as fast as it has few weights, and int8 twice as fast as that."""
    resources = prepare_resources(
        baseline.model, baseline.tokenizer, baseline.task, Calibration(), seed=0, device="cpu"
    )

    def speed(model) -> float:
        twice = 2 if isinstance(model, ExportedModel) and model.session.precision == "int8" else 1
        return twice * count_weights(baseline.model) / count_weights(model)

    def speedups(self, models, *, rounds):
        return [
            Comparison(kind="ratio", value=ratio, low=ratio, high=ratio, p_value=1.0, test="none")
            for ratio in map(speed, models)
        ]

    monkeypatch.setattr(Baseline, "speedups", speedups)
    monkeypatch.setattr(RuntimeTimer, "opened", lambda _, model: model)
    monkeypatch.setattr(RuntimeTimer, "time", lambda _, models: np.array([list(map(linears, models))]))

    def made(*where: Target, goal: Goal = Goal(max_drop=50)) -> StagedEvaluation:  # noqa: B008
        space = Space.of(baseline.model, resources, recovery=0.0, bytes_count=False)
        return StagedEvaluation(baseline, baseline_trial, goal, space, CachedRecipes(baseline.model, resources), where)

    return made


def evaluate(evaluation: StagedEvaluation, folder: Path, past=(), number: int = 3) -> SearchTrial:
    return evaluation.run(Proposal(number, STRUCTURE), folder, past)


def test_a_structure_is_made_once_and_measured_everywhere(evaluation_of, baseline, tmp_path, monkeypatch):
    made, evaluation = [], evaluation_of(TORCH, ONNX, INT8, goal=Goal(max_drop=50, best="both"))
    apply = CachedRecipes.apply
    monkeypatch.setattr(CachedRecipes, "apply", lambda *args: made.append(1) or apply(*args))
    monkeypatch.setattr(StagedEvaluation, "_hopeless", lambda *args: "")
    trial = evaluate(evaluation, tmp_path / "m")
    assert trial.state == FINISHED and len(made) == 1 and not trial.left_out
    assert [Target.of(candidate) for candidate in trial.candidates] == [TORCH, ONNX, INT8]
    (tmp_path / "trial.json").write_text(trial.to_json())
    assert SearchTrial.read(tmp_path / "trial.json") == trial
    model = artifact.load_verified(tmp_path / "m").eval()
    wanted = baseline.measure(model, folder=tmp_path / "m", files=[], name="it")
    for candidate, name in zip(trial.candidates, ("pytorch", "onnxruntime fp32", "onnxruntime int8"), strict=True):
        assert candidate.name == f"structure 1.2 ({name})"
        assert candidate.artifact == artifact.model_digest(tmp_path / "m") and candidate.conditions["candidate"] == 3
        assert [dict(step) for step in candidate.recipe] == evaluation.space.recipe(STRUCTURE, TORCH).to_list()
        throughput, rate = candidate.get("throughput"), evaluation.baseline_trial.get("throughput").value
        assert throughput.value == pytest.approx(rate * throughput.versus.value)
    torch_rows = [one for one in trial.candidates[0].measurements if one.metric != "throughput"]
    assert torch_rows == wanted
    assert trial.candidates[1].get("kl").value == pytest.approx(trial.candidates[0].get("kl").value, rel=1e-3)
    sizes = [candidate.get("disk").value * 2**20 for candidate in trial.candidates]
    stored = [(tmp_path / "m" / name).stat().st_size for name in ("model.safetensors", "model.onnx")]
    assert sizes[:2] == pytest.approx(stored)


def test_what_is_slower_than_one_that_holds_the_bar_is_not_looked_at(evaluation_of, tmp_path, monkeypatch):
    monkeypatch.setattr(StagedEvaluation, "_hopeless", lambda *args: "")
    trial = evaluate(evaluation_of(TORCH, ONNX, INT8), tmp_path / "m")
    assert [Target.of(candidate) for candidate in trial.candidates] == [INT8]
    assert trial.left_out == dict.fromkeys(map(str, (TORCH, ONNX)), f"{BEATEN}: {INT8} holds the bar and is faster")


def test_what_is_faster_but_fails_the_bar_beats_nothing(evaluation_of, tmp_path, monkeypatch):
    monkeypatch.setattr(StagedEvaluation, "_hopeless", lambda *args: "")
    evaluation = evaluation_of(TORCH, ONNX, INT8, goal=Goal(max_drop=0.001))
    trial = evaluate(evaluation, tmp_path / "m")
    assert [Target.of(candidate) for candidate in trial.candidates] == [TORCH, ONNX, INT8]


def test_the_difference_is_paired_and_on_the_whole_slice(evaluation_of, baseline, tmp_path):
    [candidate] = evaluate(evaluation_of(TORCH), tmp_path / "m").candidates
    quality, labels = quality_named("accuracy"), baseline.selection.labels
    model = artifact.load_verified(tmp_path / "m").eval()
    both = (predict(model, baseline.selection), baseline.answers)
    answers = [one.kind.predictions(one, baseline.selection) for one in both]
    versus = quality.compare(labels, *answers, seed=0)
    assert candidate.measurements[0].versus == versus and candidate.measurements[0].n == len(labels) == 63
    right = [(one == labels).mean() for one in answers]
    assert versus.value == pytest.approx(right[0] - right[1])


def test_few_batches_are_of_the_slice(baseline):
    few, answers = baseline._few
    texts = list(baseline.selection.source.texts)
    rows = [texts.index(text) for text in few.source.texts]
    np.testing.assert_allclose(answers.logits, baseline.answers.logits[rows], atol=1e-6)
    assert (few.labels == baseline.selection.labels[rows]).all()
    proxy = baseline.proxy_score(baseline.model)
    assert proxy.kl == pytest.approx(0, abs=1e-9) and proxy.versus.value == 0


@pytest.mark.parametrize("when", ["convert", "open", "run"])
def test_a_runtime_that_fails_ends_that_target_alone(evaluation_of, tmp_path, monkeypatch, when):
    def fail(self, *args, **rest):
        raise RuntimeError("no such\nkernel")

    if when == "run":
        opened = OnnxRuntime.open

        class Broken(Session):
            precision = "fp32"

            def run(self, inputs):
                return fail(self)

        def half(self, folder, *, precision="fp32", threads):
            sound = opened(self, folder, precision=precision, threads=threads)
            if folder.name != "m":  # the export itself goes well
                return sound
            return Broken()

        monkeypatch.setattr(OnnxRuntime, "open", half)
    else:
        monkeypatch.setattr(OnnxRuntime, when, fail)
    trial = evaluate(evaluation_of(TORCH, ONNX), tmp_path / "m")
    assert trial.state == FINISHED and [Target.of(candidate) for candidate in trial.candidates] == [TORCH]
    assert trial.left_out == {"onnxruntime fp32": f"{FAILED}: RuntimeError: no such kernel"}
    alone = evaluate(evaluation_of(ONNX), tmp_path / "n" / "m")
    assert (alone.state, alone.value, alone.candidates) == (FAILED, None, ())
    assert alone.message == f"onnxruntime fp32: {FAILED}: RuntimeError: no such kernel"


def test_a_model_without_a_form_in_onnx_still_runs_in_pytorch(evaluation_of, tmp_path, monkeypatch):
    def fail(*args, **rest):
        raise InvalidModel("no form")

    monkeypatch.setattr("whet.runtimes.export.to_onnx", fail)
    trial = evaluate(evaluation_of(TORCH, ONNX, INT8), tmp_path / "m")
    assert [Target.of(candidate) for candidate in trial.candidates] == [TORCH]
    assert set(trial.left_out.values()) == {f"{FAILED}: InvalidModel: no form"} and len(trial.left_out) == 2


def test_answers_that_are_not_finite_fail_a_structure(evaluation_of, tmp_path, monkeypatch):
    apply = CachedRecipes.apply

    def spoilt(self, recipe):
        model = apply(self, recipe)
        model.classifier.bias.data.fill_(float("nan"))
        return model

    monkeypatch.setattr(CachedRecipes, "apply", spoilt)
    trial = evaluate(evaluation_of(TORCH), tmp_path / "m")
    assert trial.state == FAILED and "logits must be finite" in trial.message and not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OutputNotWritten])
def test_what_ends_a_search_is_not_taken_for_a_failure(evaluation_of, tmp_path, monkeypatch, kind):
    def stop(*args, **rest):
        raise kind("stop")

    monkeypatch.setattr(artifact, "save_files", stop)
    with pytest.raises(kind):
        evaluate(evaluation_of(TORCH), tmp_path / "m")


def test_what_a_few_batches_show_to_be_below_the_bar_is_not_saved(evaluation_of, tmp_path, monkeypatch):
    worse = Comparison(kind="difference", value=-0.2, low=-0.3, high=-0.1, p_value=0.0, test="none")
    monkeypatch.setattr(type(quality_named("accuracy")), "compare", lambda *args, **rest: worse)
    evaluation = evaluation_of(TORCH, ONNX, goal=Goal(max_drop=1))
    trial = evaluate(evaluation, tmp_path / "m")
    assert trial.state == PRUNED and "below the bar: -0.200, at most -0.100" in trial.message
    assert not (tmp_path / "m").exists() and trial.value is None and trial.proxy_speedup is not None


def test_what_another_beats_on_both_counts_is_given_up(evaluation_of, tmp_path):
    evaluation = evaluation_of(TORCH)
    seen = evaluate(evaluation, tmp_path / "m")
    assert seen.proxy_kl is not None and seen.proxy_speedup is not None and seen.state == FINISHED

    def given_up(kl: float, speed: float, **goal) -> bool:
        known = [seen._replace(number=0, proxy_kl=kl, proxy_speedup=speed, candidates=())]
        own = evaluation_of(TORCH, goal=Goal(max_drop=50, **goal))
        return evaluate(own, tmp_path / "n", known).state == PRUNED

    assert given_up(seen.proxy_kl / 2, seen.proxy_speedup * 1.5)
    assert not given_up(seen.proxy_kl / 2, seen.proxy_speedup * 1.05)
    assert not given_up(seen.proxy_kl * 0.98, seen.proxy_speedup * 1.5)
    # what is slower and further off may be smaller
    assert not given_up(seen.proxy_kl / 2, seen.proxy_speedup * 1.5, best="size")


def past_of(evaluation: StagedEvaluation, **speeds: tuple[float, float]) -> list[SearchTrial]:
    """Outcomes in which ONNX Runtime ran at the first of two speeds, and its int8 at the second."""
    past = []
    for number, (fp32, int8) in enumerate(speeds.values()):
        candidates = []
        for target, speed in ((ONNX, fp32), (INT8, int8)):
            one = made_up_candidate(number, STRUCTURE, evaluation.baseline_trial, drop=0.1, speed=speed)
            conditions = {**one.conditions, **target._asdict()}
            candidates.append(type(one)(one.name, [], 0, one.measurements, None, conditions))
        past.append(SearchTrial(number, STRUCTURE, [], FINISHED, value=1.0, candidates=tuple(candidates)))
    return past


def test_a_target_that_is_always_beaten_is_left_out(evaluation_of, tmp_path):
    evaluation = evaluation_of(TORCH, ONNX, INT8)
    twice = past_of(evaluation, a=(1.0, 2.0), b=(1.5, 2.5))
    assert len(twice) == ENOUGH
    assert (
        evaluation._is_useless(ONNX, twice)
        and not evaluation._is_useless(INT8, twice)
        and not evaluation._is_useless(TORCH, twice)
    )
    assert not evaluation._is_useless(ONNX, twice[:1])
    assert not evaluation._is_useless(ONNX, [*twice, *past_of(evaluation, c=(2.0, 2.1))])
    trial = evaluate(evaluation, tmp_path / "m", twice)
    assert trial.left_out["onnxruntime fp32"].startswith(BEATEN)
    assert not (tmp_path / "m" / "model.onnx").exists() and (tmp_path / "m" / "model_quantized.onnx").exists()


def test_one_that_holds_no_bar_beats_no_other(evaluation_of):
    evaluation = evaluation_of(ONNX, INT8, goal=Goal(max_drop=0.01))
    assert not evaluation._is_useless(ONNX, past_of(evaluation, a=(1.0, 2.0), b=(1.5, 2.5)))


@pytest.mark.parametrize(("reason", "out"), [(f"{FAILED}: x", True), (f"{BEATEN}, x", True), ("below the bar", False)])
def test_a_target_that_always_fails_is_left_out(evaluation_of, reason, out):
    past = [SearchTrial(i, STRUCTURE, [], FINISHED, left_out={str(INT8): reason}) for i in range(ENOUGH)]
    assert evaluation_of(INT8)._is_useless(INT8, past) is out


# timing


def test_ratios_are_times_of_the_baseline_over_those_of_the_model(baseline, monkeypatch):
    seconds = np.array([[1.0, 1.0, 2.0], [10.0, 2.0, 5.0], [3.0, 6.0, 6.0]])  # whose medians have ratios 1.5 and 0.6
    monkeypatch.setattr(baseline_module, "time_interleaved", lambda runs, **rest: seconds)
    assert [one.value for one in baseline.speedups([baseline.model] * 2, rounds=3)] == [1.0, 0.5]


def test_timed_batches_have_the_size_that_counts(baseline):
    assert {len(batch["input_ids"]) for batch in baseline._timed_batches[:-1]} == {8}
    lengths = [batch["input_ids"].shape[1] for batch in baseline._timed_batches]
    assert lengths == sorted(lengths) and 2 <= len(lengths) <= 8


# where candidates run


def test_all_that_is_installed_is_offered(monkeypatch):
    available = targets(None, None)
    assert available[0] == TORCH and {ONNX, INT8, Target("openvino"), Target("openvino", "int8")} <= set(available)
    assert not any(target.precision == "static_int8" for target in available)
    assert targets(["onnxruntime"], ["int8"]) == (INT8,)
    assert targets(["pytorch"], ["int8"]) == (TORCH,)

    def absent(self, precision="fp32"):
        raise InvalidParameter("not installed")

    monkeypatch.setattr(type(runtime_named("openvino")), "require", absent)
    assert {target.runtime for target in targets(None, None)} == {"pytorch", "onnxruntime"}
    with pytest.raises(InvalidParameter, match="not installed"):
        targets(["openvino"], None)

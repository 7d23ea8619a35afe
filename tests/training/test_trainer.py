import dataclasses
import json
import math
import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments, set_seed
from transformers.integrations import TensorBoardCallback

from helpers import tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact, InvalidData, InvalidModel, InvalidParameter, OutputNotWritten
from whet.models.inference import predict_logits
from whet.numerics.divergence import categorical_kl
from whet.tasks.data import Examples
from whet.tasks.encoding import encode
from whet.training import checkpoints, loop, teacher_cache
from whet.training.curve import Epoch
from whet.training.distiller import Teacher
from whet.training.lora import attach_lora
from whet.training.objective import Objective
from whet.training.settings import LoraSettings, TrainingSettings
from whet.training.students.base import student_from
from whet.training.teacher_cache import cached_logits, teacher_logits
from whet.training.trainer import train
from whet.utils.files import digest
from whet.utils.progress import progress_bar

SETTINGS = TrainingSettings(epochs=2, learning_rate=1e-3, batch_size=8, max_length=16)


def examples(count: int, *, words: tuple[int, int] = (5, 60), seed: int = 0) -> Examples:
    """Sentences of which the first word says the class."""
    random = np.random.default_rng(seed)
    rows = [random.integers(*words, size=random.integers(2, 9)) for _ in range(count)]
    return Examples([" ".join(f"w{word}" for word in row) for row in rows], [int(row[0]) % 3 for row in rows])


class Stop(Exception):
    """Ends a training half-way."""


@pytest.fixture
def learn(tokenizer, tmp_path):
    """Train a tiny model; `stop` is the step at which it is interrupted."""

    def learned(settings=SETTINGS, *, train_on=None, stop=None, scratch="scratch", name="base", start=None, **others):
        set_seed(settings.seed)
        model = start or tiny_model("bert", blocks=1)
        model.name_or_path = name
        reached = []
        with progress_bar("x", 1) as progress:

            def reach(done):
                reached.append(done)
                if stop is not None and len(reached) == stop:
                    raise Stop

            progress.reach = reach
            curve = train(
                model,
                tokenizer,
                examples=train_on or examples(60),
                validation=examples(20, words=(60, 99), seed=1),
                settings=settings,
                scorer=lambda answers, batches: float((batches.labels == answers.logits.argmax(-1)).mean()),
                scratch=tmp_path / scratch,
                progress=progress,
                **others,
            )
        return model, curve, reached

    return learned


def test_the_curve_has_one_row_per_epoch(learn):
    model, curve, reached = learn()
    assert [row.epoch for row in curve] == [1, 2]
    assert Epoch._fields == ("epoch", "training_loss", "validation_loss", "validation_metric")
    assert all(math.isfinite(value) for row in curve for value in row)
    assert all(0 <= row.validation_metric <= 1 for row in curve)
    assert not model.training
    assert reached[-1] == 1 and reached == sorted(reached)


def test_a_part_of_an_epoch_has_a_row_too(learn):
    _, curve, _ = learn(TrainingSettings(epochs=0.5, batch_size=8, max_length=16))
    assert len(curve) == 1
    assert 0 < curve[0].epoch <= 1


def test_training_learns(learn):
    single = Examples(["w5", "w6", "w7"] * 20, [0, 1, 2] * 20)
    _, curve, _ = learn(TrainingSettings(epochs=10, learning_rate=3e-3, batch_size=10, max_length=16), train_on=single)
    assert curve[-1].training_loss < 0.3 * curve[0].training_loss


def test_the_same_seed_gives_the_same_weights_and_another_others(learn):
    one, other, third = (
        learn(TrainingSettings(epochs=1, max_length=16, seed=seed), scratch=f"s{i}")[0].classifier.weight
        for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_batches_are_of_similar_length_in_a_new_order_every_epoch(learn, monkeypatch):
    step, seen = Trainer.training_step, []
    monkeypatch.setattr(
        Trainer,
        "training_step",
        lambda self, model, inputs, *rest: (
            seen.append(inputs["attention_mask"].sum(1).tolist()) or step(self, model, inputs, *rest)
        ),
    )
    learn(TrainingSettings(epochs=2, batch_size=8, max_length=16))
    first, second = seen[:8], seen[8:]
    assert first != second
    # (two batches an epoch are not: the longest example of all comes first, to see whether memory is enough)
    assert sum(batch == sorted(batch, reverse=True) for batch in seen) >= 12, "the longest first, next to those like it"
    assert sorted(map(sum, first)) != sorted(map(sum, second)), "other batches, not the same ones in another order"


def test_validation_examples_are_never_trained_on(learn, monkeypatch):
    seen = {True: set(), False: set()}
    step, predict = Trainer.training_step, Trainer.prediction_step

    def note(training, inputs):
        seen[training] |= set(inputs["input_ids"].unique().tolist())
        return inputs

    monkeypatch.setattr(
        Trainer, "training_step", lambda self, model, inputs, *rest: step(self, model, note(True, inputs), *rest)
    )
    monkeypatch.setattr(
        Trainer,
        "prediction_step",
        lambda self, model, inputs, *rest, **more: predict(self, model, note(False, inputs), *rest, **more),
    )
    learn()
    special = {0, 2, 3}
    assert seen[True] - special and max(seen[True]) < 60
    assert seen[False] - special and min(seen[False] - special) >= 60


def checkpointed(scratch):
    """The last checkpoint of a run: the bytes of its files, and its log without times."""
    (folder,) = scratch.glob("checkpoint-*")
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    files = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "process-0.safetensors"}
    return folder.name, files, [{key: row[key] for key in row if not key.endswith(("time", "second"))} for row in log]


@pytest.fixture
def same_as_whole(learn, tmp_path):
    """Check that a run that was interrupted ends as if it had not been: weights, curve and last checkpoint."""

    def check(settings, *, start=lambda: None, **others):
        resumed, curve, reached = learn(settings, start=start(), **others)
        whole, expected, _ = learn(settings, start=start(), scratch="whole", **others)
        assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
        assert curve == expected
        assert checkpointed(tmp_path / "scratch") == checkpointed(tmp_path / "whole")
        return len(reached), curve

    return check


@pytest.mark.parametrize(
    ("batch_size", "epochs", "stop", "left"),
    [(2, 3, 70, 40), (6, 6, 55, 10), (1, 1.5, 78, 40), (6, 5, None, 0), (1, 0.9, None, 0)],
    ids=["in an epoch", "at its end", "in part of an epoch", "after the last step", "after part of an epoch"],
)
def test_an_interrupted_run_resumes_and_ends_like_an_uninterrupted_one(
    learn, same_as_whole, batch_size, epochs, stop, left
):
    settings = TrainingSettings(epochs=epochs, learning_rate=1e-3, batch_size=batch_size, max_length=16)
    with nullcontext() if stop is None else pytest.raises(Stop):
        learn(settings, stop=stop)
    steps, curve = same_as_whole(settings)
    assert steps == left, "from the checkpoint"
    assert len(curve) == math.ceil(epochs)


@pytest.mark.parametrize("writer", ["weights", "optimizer_state", "wait_for_all", "complete_checkpoint"])
def test_a_run_killed_while_it_writes_a_checkpoint_resumes_from_the_one_before(
    learn, same_as_whole, monkeypatch, tmp_path, writer
):
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    write, calls = getattr(loop, writer), []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Stop
        return write(*args)

    with monkeypatch.context() as during, pytest.raises(Stop):
        during.setattr(loop, writer, killed)
        during.setattr(checkpoints, "_remove_unfinished", lambda scratch: None)  # a kill leaves it
        learn(settings)
    assert {path.name for path in (tmp_path / "scratch").iterdir()} == {"checkpoint-50", "checkpoint-90"}
    assert same_as_whole(settings)[0] == 90 - 50, "from the checkpoint at step 50"


def test_a_checkpoint_is_complete_once_every_process_has_its_part(learn, monkeypatch, tmp_path):
    seen = []

    def waiting():
        (checkpoint,) = (tmp_path / "scratch").iterdir()
        seen.append({path.name for path in checkpoint.iterdir()})

    monkeypatch.setattr(loop, "wait_for_all", waiting)
    learn(TrainingSettings(epochs=1, max_length=16))
    assert seen == [{"process-0.safetensors"}]


def test_a_resumed_run_executes_nothing_that_its_checkpoint_holds(learn, tmp_path, capsys):
    """Neither a pickle under a name that transformers would load, nor one in place of a state."""
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    with pytest.raises(Stop):
        learn(settings, stop=70)
    folder = tmp_path / "scratch" / "checkpoint-50"
    mine = {path.name: path.read_bytes() for path in folder.iterdir()}

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    pickled = pickle.dumps(Bomb())
    for name in ("model.safetensors", "optimizer.safetensors", "process-0.safetensors"):
        for path, content in mine.items():
            (folder / path).write_bytes(content)
        (folder / name).write_bytes(pickled)
        # with a list that fits, as one who means harm would write it
        listed = json.loads(mine["complete.json"])
        listed["files"][name] = digest(folder / name)
        (folder / "complete.json").write_text(json.dumps(listed))
        with pytest.raises(InvalidArtifact, match=rf"{name} must be a state that whet wrote, but .*; delete .*-50 and"):
            learn(settings)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickled)
    capsys.readouterr()
    learn(settings)
    assert "; the training starts anew" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=1, max_length=16)}, "epochs=3"),
        (
            {"settings": TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=1, max_length=8)},
            "max_length=8",
        ),
        ({"name": "another"}, "model=another"),
        ({"start": tiny_model("bert", blocks=1, seed=1)}, "model_sha256=[0-9a-f]{64}"),
        ({"train_on": examples(60, seed=9)}, "data_sha256=[0-9a-f]{64}"),
        ({"metric": "f1"}, "metric=f1"),
    ],
    ids=["settings", "length", "model", "weights", "data", "metric"],
)
def test_another_run_does_not_resume_from_it(learn, changes, told):
    settings = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=1, max_length=16)
    with pytest.raises(Stop):
        learn(settings, stop=55)
    with pytest.raises(
        InvalidParameter,
        match=rf"must resume with its own settings, but got {told}, which .*complete.json does not hold; ",
    ):
        learn(**{"settings": settings, **changes})
    _, _, reached = learn(**{"settings": settings, "overwrite": True, **changes})
    assert reached[0] < 0.05, "with --overwrite, the other run is thrown away"


@pytest.mark.parametrize("device", ["cuda:1", "cuda:0", "cuda", "mps"])
def test_training_uses_the_given_device(learn, monkeypatch, device):
    """Of two GPUs transformers would take the first, and copy the model to both."""
    seen = []

    def note(trainer, **others):
        seen.append(
            (trainer.args.device, trainer.accelerator.device, trainer.args.n_gpu, trainer.args.train_batch_size)
        )
        raise Stop

    def with_two(arguments):
        with monkeypatch.context() as patched:
            patched.setattr(torch.cuda, "device_count", lambda: 2)
            choose(arguments)

    choose = TrainingArguments.__post_init__
    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(Trainer, "_move_model_to_device", lambda *others: None)
    monkeypatch.setattr(Trainer, "train", note)
    with pytest.raises(Stop):
        learn(device=device)
    place = torch.device(device)
    assert seen == [(place, place, 1, SETTINGS.batch_size)]
    assert chosen == ([place] if ":" in device else [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_may_use_the_last_gpu(learn):
    device = f"cuda:{torch.cuda.device_count() - 1}"
    model, curve, _ = learn(device=device)
    assert {str(parameter.device) for parameter in model.parameters()} == {device}
    assert len(curve) == 2


def test_a_run_without_a_checkpoint_does_not_block_another(learn):
    with pytest.raises(Stop):
        learn(stop=2)
    learn(TrainingSettings(epochs=1, max_length=16))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_its_last_good_checkpoint(learn, monkeypatch, tmp_path):
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    compute, seen = Trainer.compute_loss, []

    def spoilt(self, model, *args, **others):
        seen.append(model.training)
        loss = compute(self, model, *args, **others)
        return loss * float("nan") if model.training and sum(seen) == 60 else loss

    monkeypatch.setattr(Trainer, "compute_loss", spoilt)
    told = (
        r"must stay finite, but got others at step 59 with learning_rate=0.001; the last good checkpoint is (.*?); del"
    )
    with pytest.raises(InvalidModel, match=told) as stopped:
        learn(settings)
    kept = re.search(told, str(stopped.value))[1]
    assert kept == str(tmp_path / "scratch" / "checkpoint-50")
    assert all(weight.isfinite().all() for weight in load_file(f"{kept}/model.safetensors").values())


def test_weights_that_are_not_finite_reach_no_checkpoint(learn, monkeypatch, tmp_path):
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    step = Trainer.training_step

    def spoiling(self, model, *args, **others):
        loss = step(self, model, *args, **others)
        if self.state.global_step == 49:
            next(model.parameters()).grad.fill_(float("nan"))
        return loss

    monkeypatch.setattr(Trainer, "training_step", spoiling)
    with pytest.raises(InvalidModel, match="must stay finite, but got others at step 50 with"):
        learn(settings)
    assert not (tmp_path / "scratch").exists(), "there was nothing worth keeping"


def test_trackers_get_the_curve(learn, monkeypatch, tmp_path):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    learn(report_to=["tensorboard"], logs=tmp_path / "logs")
    assert list((tmp_path / "logs").glob("events.*"))


def test_a_tracker_that_fails_does_not_end_the_training(learn, monkeypatch, tmp_path, capsys):
    def fails(*args, **others):
        raise ConnectionError("no network")

    monkeypatch.setattr(TensorBoardCallback, "on_log", fails)
    _, curve, _ = learn(report_to=["tensorboard"], logs=tmp_path / "logs")
    assert len(curve) == 2
    assert capsys.readouterr().err == (
        "note: TensorBoard failed and gets no more figures: ConnectionError('no network'); the training goes on\n"
    )


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_reported(learn, monkeypatch, tmp_path, error):
    def full(*args, **others):
        raise error

    monkeypatch.setattr(loop, "complete_checkpoint", full)
    with pytest.raises(
        OutputNotWritten, match=r"scratch must be writable to its end, but .*No space left on device.*; free some space"
    ):
        learn()
    assert not (tmp_path / "scratch").exists(), "half a checkpoint fills the disk"


def test_other_errors_are_not_reported_as_a_full_disk(learn, monkeypatch):
    def broken(*args, **others):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Trainer, "training_step", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        learn()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0.0), ("epochs", math.inf), ("epochs", math.nan), ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("batch_size", 0), ("weight_decay", -0.1), ("weight_decay", math.inf), ("warmup", 1.0), ("max_length", 1),
        ("seed", -1), ("seed", 2**32),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(InvalidParameter, match=rf"{field}.* must hold, but got {field}={value}; give one such as"):
        TrainingSettings(**{field: value})


def test_scratch_holds_one_checkpoint_at_most(learn, tmp_path):
    learn(TrainingSettings(epochs=2, batch_size=1, max_length=16))
    assert len(list((tmp_path / "scratch").glob("checkpoint-*"))) == 1
    shutil.rmtree(tmp_path / "scratch")


def lesson(student="all", **weights):
    return Teacher(tiny_model("bert", seed=3), Objective(**weights), student)


def agreement(model, teacher, tokenizer):
    """KL of the teacher's answers from the model's."""
    batches = encode(examples(60), tokenizer, max_length=16, batch_size=10)
    return float(categorical_kl(predict_logits(teacher, batches), predict_logits(model, batches)).mean())


@pytest.mark.parametrize("weights", [{"alpha": 1.0}, {"alpha": 1.0, "hidden_states": 1.0, "cosine": 1.0}])
def test_a_student_comes_closer_to_its_teacher(learn, tokenizer, weights):
    taught = lesson(**weights)
    before = agreement(tiny_model("bert"), taught.teacher, tokenizer)
    model, curve, _ = learn(
        TrainingSettings(epochs=5, learning_rate=3e-3, batch_size=10, max_length=16), teacher=taught
    )
    assert agreement(model, taught.teacher, tokenizer) < 0.5 * before
    assert len(curve) == 5


def test_a_teacher_stays_unchanged_and_runs_without_dropout(learn):
    taught = lesson(alpha=0.5)
    before = [parameter.clone() for parameter in taught.teacher.parameters()]
    learn(teacher=taught)
    assert all(torch.equal(a, b) for a, b in zip(before, taught.teacher.parameters(), strict=True))
    assert not taught.teacher.training
    assert all(parameter.grad is None for parameter in taught.teacher.parameters())


def test_with_alpha_0_the_teacher_has_no_influence(learn):
    plain, taught = learn(scratch="a")[0], learn(scratch="b", teacher=lesson(alpha=0.0))[0]
    for one, other in zip(plain.parameters(), taught.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def narrow():
    set_seed(0)
    return student_from("transformer:layers=1,width=16").build(tiny_model("bert"), Resources()).model


@pytest.mark.parametrize(
    ("start", "weights"),
    [(lambda: None, {"alpha": 0.7}), (narrow, {"hidden_states": 1.0, "relations": 1.0})],
    ids=["teacher_logits", "a learned layer"],
)
def test_an_interrupted_distillation_resumes_and_ends_like_an_uninterrupted_one(learn, same_as_whole, start, weights):
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    model = start()
    with pytest.raises(Stop):
        learn(settings, stop=70, start=model, teacher=lesson(**weights))
    assert not hasattr(model, "hidden_projection")
    same_as_whole(settings, start=start, teacher=lesson(**weights))


@pytest.mark.parametrize(
    ("other", "told"),
    [(lesson(alpha=0.9), "alpha=0.9"), (lesson("odd", alpha=0.7), "student=odd")],
    ids=["objective", "student"],
)
def test_another_objective_does_not_resume_from_it(learn, other, told):
    settings = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=1, max_length=16)
    with pytest.raises(Stop):
        learn(settings, stop=55, teacher=lesson(alpha=0.7))
    with pytest.raises(InvalidParameter, match=f"must resume with its own settings, but got {told}, which"):
        learn(settings, teacher=other)


def adapted(seed=0):
    set_seed(seed)
    model = attach_lora(tiny_model("bert"), LORA)
    model.name_or_path = "base"
    return model


LORA = LoraSettings(rank=2)


def test_an_interrupted_training_of_adapters_ends_like_an_uninterrupted_one(learn, same_as_whole):
    settings = TrainingSettings(epochs=3, learning_rate=1e-3, batch_size=2, max_length=16)
    with pytest.raises(Stop):
        learn(settings, stop=70, start=adapted(), lora=LORA)
    same_as_whole(settings, start=adapted, lora=LORA)


def test_other_adapters_do_not_resume_from_it(learn):
    settings = TrainingSettings(epochs=1, learning_rate=1e-3, batch_size=1, max_length=16)
    with pytest.raises(Stop):
        learn(settings, stop=55, start=adapted(), lora=LORA)
    with pytest.raises(InvalidParameter, match="must resume with its own settings, but got lora_rank=3, which"):
        learn(settings, start=adapted(), lora=LoraSettings(rank=3))


@pytest.fixture
def cached(tokenizer, tmp_path):
    """The lesson of a teacher whose predictions are known."""

    def known(taught, folder="cache"):
        rows = examples(60).encode(tokenizer, max_length=16).rows
        logits = cached_logits(tmp_path / folder, taught.teacher, tokenizer, rows)
        return taught._replace(teacher=None, logits=logits)

    return known


def test_cached_logits_teach_like_the_teacher(learn, cached):
    taught = lesson(alpha=0.7)
    one = learn(teacher=taught, scratch="a")[0]
    other = learn(teacher=cached(taught), scratch="b")[0]
    again = learn(teacher=cached(taught), scratch="c")[0]
    alone = learn(teacher=lesson(alpha=0.0), scratch="d")[0]
    known, told, same, untold = (
        torch.nn.utils.parameters_to_vector(model.parameters()) for model in (one, other, again, alone)
    )
    assert torch.equal(told, same)
    # (predictions differ in the last digit by their padding, and AdamW makes more of that)
    assert (told - known).abs().mean() < 0.01 * (untold - known).abs().mean()


def test_the_teacher_runs_once(cached, monkeypatch, tmp_path):
    """And a cache that is read leaves nothing of the killed run that wrote it."""
    taught = lesson()
    first = cached(taught)
    monkeypatch.setattr(taught.teacher, "forward", None)
    (tmp_path / ".cache.lock").touch()
    (tmp_path / ".cache.123.partial").mkdir()
    assert torch.equal(cached(taught).logits, first.logits)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_cache_of_another_teacher_or_data_is_refused(cached, tmp_path, tokenizer):
    cached(lesson())
    with pytest.raises(InvalidParameter, match=r"must be of this teacher, .* was made with another teacher; give"):
        cached(Teacher(tiny_model("bert", seed=4), Objective(), "all"))
    rows = examples(60, seed=5).encode(tokenizer, max_length=16).rows
    with pytest.raises(InvalidParameter, match="was made with other data or another tokenizer"):
        cached_logits(tmp_path / "cache", lesson().teacher, tokenizer, rows)


def test_a_damaged_cache_is_refused(cached, tmp_path):
    whole = cached(lesson())
    folder = tmp_path / "cache"
    about, logits = folder / "about.json", folder / "logits.safetensors"
    saved = {path: path.read_bytes() for path in (about, logits)}
    flipped = bytearray(saved[logits])
    flipped[-1] ^= 1
    of_0_1_0 = json.dumps({key: value for key, value in json.loads(saved[about]).items() if key != "logits_sha256"})
    cases = [
        ({about: b"[1]"}, "its about.json is not as it was written"),
        ({logits: bytes(flipped)}, "its logits.safetensors is not as it was written"),
        ({logits: saved[logits][:-4]}, "its logits.safetensors is not as it was written"),
        ({about: of_0_1_0.encode(), logits: b"junk"}, "its logits.safetensors cannot be read"),
        (
            {about: of_0_1_0.encode(), logits: safetensors.torch.save({"logits": whole.logits[1:]})},
            r"it holds \(59, 3\) logits where finite ones of \(60, 3\) are due",
        ),
    ]
    for changes, told in cases:
        for path, content in (saved | changes).items():
            path.write_bytes(content)
        with pytest.raises(InvalidParameter, match=f"the cache must be whole, but got .*cache, and {told}; delete it"):
            cached(lesson())
    about.write_text(of_0_1_0)
    logits.write_bytes(saved[logits])
    assert torch.equal(cached(lesson()).logits, whole.logits), "caches of 0.1.0 are read"


def test_a_teacher_may_read_columns_that_its_student_does_not(learn, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "model_input_names", [*tokenizer.model_input_names, "token_type_ids"])
    taught, calls = lesson(), []
    forward = taught.teacher.forward
    monkeypatch.setattr(taught.teacher, "forward", lambda **given: calls.append(set(given)) or forward(**given))
    student = student_from("recurrent:lstm:8").build(tiny_model("bert"), Resources()).model
    learn(teacher=taught, start=student)
    assert len(calls) > 10 and all("token_type_ids" in given and "labels" not in given for given in calls)


def test_a_teacher_with_a_weight_of_no_dimension_has_a_digest(tokenizer, tmp_path):
    teacher = tiny_model("bert")
    teacher.register_parameter("scale", torch.nn.Parameter(torch.tensor(2.0)))
    rows = examples(4).encode(tokenizer, max_length=16).rows
    assert cached_logits(tmp_path / "cache", teacher, tokenizer, rows).shape == (4, 3)
    teacher.scale.data.fill_(3)
    with pytest.raises(InvalidParameter, match="was made with another teacher"):
        cached_logits(tmp_path / "cache", teacher, tokenizer, rows)


def test_predictions_are_in_the_order_of_the_examples(tokenizer):
    teacher, rows = tiny_model("bert"), examples(9).encode(tokenizer, max_length=16).rows
    batches = encode(examples(9), tokenizer, max_length=16, batch_size=1)
    expected = torch.from_numpy(predict_logits(teacher, batches))
    torch.testing.assert_close(teacher_logits(teacher, tokenizer, rows), expected, rtol=1e-5, atol=1e-5)


def test_pairs_and_single_sentences_are_not_joined():
    single, pairs = Examples(["a"], [0]), Examples(["a"], [0], ["b"])
    assert list(pairs.joined(pairs).pairs) == ["b", "b"] and single.joined(single).pairs is None
    with pytest.raises(InvalidData, match="all text must be single sentences, as the task's is, but got pairs; give"):
        single.joined(pairs)
    with pytest.raises(InvalidData, match="all text must be pairs, as the task's is, but got single sentences; give"):
        pairs.joined(single)


@pytest.mark.parametrize("taught", [False, True])
def test_products_in_bf16_learn_the_same_and_leave_a_model_in_float32(learn, monkeypatch, taught):
    computed, models = {}, {}
    for name in ("fp32", "bf16"):
        kinds = computed[name] = set()

        def forward(layer, x, kinds=kinds, real=torch.nn.Linear.forward):
            out = real(layer, x)
            kinds.add((layer.training, out.dtype))
            return out

        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Linear, "forward", forward)
            settings = dataclasses.replace(SETTINGS, precision=name)
            models[name] = learn(settings, scratch=name, teacher=lesson(alpha=0.5) if taught else None)[0]
    assert (True, torch.bfloat16) in computed["bf16"] and (True, torch.float32) not in computed["bf16"]
    assert ((False, torch.bfloat16) in computed["bf16"]) == taught  # the teacher, and no held-out examples
    assert {dtype for _, dtype in computed["fp32"]} == {torch.float32}
    same, other = models["fp32"], models["bf16"]
    pairs = [*zip(same.parameters(), other.parameters(), strict=True)]
    assert all(weight.dtype == torch.float32 for _, weight in pairs)
    assert any(not torch.equal(a, b) for a, b in pairs)
    start = tiny_model("bert").state_dict()
    moved = [(one - start[name]).norm() for name, one in same.named_parameters()]
    apart = [(a - b).norm() for a, b in pairs]
    assert sum(apart) < 0.5 * sum(moved)
    # no wrapper is left behind
    words = {"input_ids": torch.arange(5, 13)[None], "attention_mask": torch.ones(1, 8, dtype=torch.long)}
    fresh = type(other)(other.config).eval()
    fresh.load_state_dict(other.state_dict())
    assert torch.equal(other(**words).logits, fresh(**words).logits)


@pytest.mark.parametrize(("precision", "fast", "said"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)])
def test_a_processor_without_bf16_is_said_before_training_in_it(learn, monkeypatch, capsys, precision, fast, said):
    monkeypatch.setattr("whet.training.loop.supports_products", lambda kind: fast)
    learn(dataclasses.replace(SETTINGS, precision=precision))
    assert capsys.readouterr().err.count("note: this processor has no instructions for bf16") == said


def test_training_has_two_precisions():
    with pytest.raises(InvalidParameter, match="precision must be one of fp32, bf16, but got precision='fp16'"):
        TrainingSettings(precision="fp16")


def test_runs_that_share_a_cache_ask_the_teacher_once(tmp_path, tokenizer, monkeypatch):
    """The others wait for the first, and read what it wrote."""
    teacher, rows, asked = tiny_model("bert", 3), examples(4).encode(tokenizer, max_length=16).rows, []
    monkeypatch.setattr(teacher_cache, "teacher_logits", lambda *given: asked.append(1) or teacher_logits(*given))
    with ThreadPoolExecutor(3) as runs:
        shared = list(runs.map(lambda _: cached_logits(tmp_path / "cache", teacher, tokenizer, rows), range(3)))
    assert len(asked) == 1 and all(torch.equal(logits, shared[0]) for logits in shared)

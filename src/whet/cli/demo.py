"""The main job from end to end on the built-in task: train, compress by three recipes, measure, save, reload."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, set_seed

from whet.api import compress, finetune, measure
from whet.errors import InvalidData, OutputExists
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.metrics.base import quality_named
from whet.evaluation.trial import Trial
from whet.methods.recipe import Recipe
from whet.models.artifact import load_any
from whet.models.inference import predict_logits
from whet.models.layers.base import count_weights
from whet.report.plots import trade_off_picture
from whet.report.tables import trial_table
from whet.tasks.base import Task, task_named
from whet.tasks.data import Batches
from whet.tasks.encoding import encode
from whet.training.trainer import TrainingSettings
from whet.utils.files import not_written, remove
from whet.utils.outputs import adding_to, check_inputs, check_output, new_folder

__all__ = ["RECIPES", "run_demo"]

TASK = "agreement"
RECIPES: dict[str, list[dict[str, Any]]] = {
    "svd-0.5": [{"method": "svd", "keep": 0.5}],
    "drone-0.5": [{"method": "drone", "keep": 0.5}],
    "kfac-0.25": [{"method": "kfac", "keep": 0.25}],
}
"""The recipes compared: without data, with the data's inputs, and with what the loss says of them at half the size."""
MODELS = ("base", "dense", *RECIPES, "best")
PICTURE = "trade_off.png"
MARK = ".demo"
"""An empty file by which the next demo knows a folder that it may replace."""
MAX_DROP = 0.01
"""The best model is the smallest that loses no more than this on held-out training data."""
_LENGTH = 32


def run_demo(out: Path, *, seed: int = 0, say: Callable[[Any], None] = print) -> list[Trial]:
    """Run the whole job into `out` and return what was measured.

    Args:
        out: folder for all models, the picture and the best model; an earlier demo there is replaced.
        seed: of everything random.
        say: prints lines and tables.
    """
    with adding_to(out):
        _make_room(out)
        return _run(out, seed=seed, say=say)


def _make_room(out: Path) -> None:
    """Remove an earlier demo, which may have been stopped; nothing else is removed.

    Raises:
        OutputExists: the folder holds something else.
    """
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    known = (MARK, PICTURE, *MODELS)
    others = [name for name in held if name not in known and not name.startswith(tuple(f".{own}." for own in MODELS))]
    if held and (MARK not in held or others):
        raise OutputExists(
            f"the demo must have a folder of its own, but {out} holds {(others or held)[0]}; name another or delete it"
        )
    check_inputs(out, ())
    remove(*(out / name for name in held))
    check_output(out, overwrite=False)
    try:
        out.mkdir(exist_ok=True)
        (out / MARK).touch()
    except OSError as error:
        raise not_written(out, error) from error


def _run(out: Path, *, seed: int, say: Callable[[Any], None]) -> list[Trial]:
    task = task_named(TASK)
    _make_base(task, out / "base", seed=seed)
    say(f"1. training a 4-layer BERT on {len(task.splits.train):,} sentences of the task {TASK}")
    settings = TrainingSettings(epochs=3, learning_rate=3e-4, batch_size=32, max_length=_LENGTH, seed=seed)
    finetune(out / "base", task, out / "dense", settings=settings)
    for name, steps in RECIPES.items():
        say(f"2. compressing: {name}")
        compress(out / "dense", Recipe.from_list(steps), out / name, task=task, seed=seed)
    say(f"3. measuring on {len(task.splits.dev):,} sentences that no step has seen")
    folders = [out / "dense", *(out / name for name in RECIPES)]
    trials = measure(folders, task, benchmark=Benchmark(max_length=_LENGTH, seed=seed))
    say(trial_table(trials, title=f"{TASK}: {len(task.splits.dev):,} dev sentences"))
    picture = out / PICTURE
    picture.write_bytes(trade_off_picture(trials, quality="accuracy", costs=("latency_median", "throughput")))
    best = _best(folders, task)
    shutil.copytree(out / best, out / "best")
    _reload(out / best, out / "best", task)
    say(f"4. the smallest within a point on held-out training data: {best}")
    say(f"   saved to {out / 'best'}, reloaded by plain transformers, bit-equal")
    say(f"   the picture: {picture}")
    return trials


def _make_base(task: Task, folder: Path, *, seed: int) -> None:
    tokenizer = task.tokenizer()
    if tokenizer is None:
        raise InvalidData(f"the task must bring its own tokenizer, but {task.name} does not; choose {TASK}")
    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,  # at the default of 0.02, so small a model takes thousands of steps to begin to learn
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with new_folder(folder, overwrite=False) as draft:
        BertModel(config).save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def _validation(task: Task) -> Batches:
    tokenizer = task.tokenizer()
    assert tokenizer is not None
    return encode(task.splits.validation, tokenizer, max_length=_LENGTH, batch_size=64)


def _best(folders: list[Path], task: Task) -> str:
    """The smallest model that loses no more than MAX_DROP on held-out training data; the dense one always qualifies."""
    batches, quality = _validation(task), quality_named(task.metrics[0])
    models = {folder.name: load_any(folder) for folder in folders}
    scores = {
        name: quality.score(batches.labels, quality.predict(predict_logits(model, batches, name=name)))
        for name, model in models.items()
    }
    good = [name for name, score in scores.items() if score >= scores[folders[0].name] - MAX_DROP]
    return min(good, key=lambda name: count_weights(models[name]))


def _reload(saved: Path, again: Path, task: Task) -> None:
    """Compare the answers of the saved model with those that plain transformers gives for its copy."""
    batches = _validation(task)
    plain = AutoModelForSequenceClassification.from_pretrained(again, dtype=torch.float32).eval()
    before = predict_logits(load_any(saved), batches, name=saved.name)
    if not np.array_equal(before, predict_logits(plain, batches, name="the copy")):
        raise InvalidData(f"a reloaded model must give the same answers, but {again} does not; report this")

"""The product in one command: train a small BERT, compress it, and show what was won; it reads as a tutorial."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from transformers import BertConfig, BertModel, set_seed

from whet.api.comparing import compare
from whet.api.training import finetune
from whet.calibration.resources import Calibration
from whet.errors import InvalidData, OutputExists
from whet.evaluation.benchmark import Benchmark
from whet.evaluation.headline import MAX_DROP, POINTS, headline, quality_difference
from whet.evaluation.load_task import load_task
from whet.evaluation.timing import time_interleaved
from whet.evaluation.trial import Trial
from whet.methods.recipe import Recipe
from whet.report.tables import trial_table
from whet.run.kinds.base import Predictor
from whet.run.predictor import load
from whet.tasks.base import Task
from whet.training.settings import TrainingSettings
from whet.utils.files import not_written, remove
from whet.utils.hardware import current_machine
from whet.utils.outputs import adding_to, check_inputs, check_output, new_folder
from whet.utils.precision import PYTORCH

__all__ = ["RECIPES", "run_demo"]

TASK = "agreement"
RUNTIME, PRECISION = "onnxruntime", "int8"
"""Where every model runs besides PyTorch."""
RECIPES: dict[str, list[dict[str, Any]]] = {
    "drone": [{"method": "drone", "keep": 0.5}],
    "kfac": [{"method": "kfac", "keep": 0.25}],
    "structure": [
        {"method": "first_token"},
        {"method": "structure", "speedup": 3},
        {"method": "distillation", "epochs": 1, "learning_rate": 3e-4, "share": 0.5},
    ],
}
"""Two that factorise layers: for the inputs of the data, and for what the loss says; and whole heads and neurons less,
with half an epoch of answering as the dense model does."""
MODELS = ("base", "dense", "compared", "best")
FORMER = ("svd-0.5", "drone-0.5", "kfac-0.25", "trade_off.png")
"""What the demo of version 0.1.0 wrote too."""
MARK = ".demo"
"""An empty file by which the next demo knows a folder that it may replace."""
SENTENCES = [
    "the king near the girls is old today .",
    "the king near the girls are old today .",
    "the queen that saw no boys has already moved alone .",
]
SIZE = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
EPOCHS = 3
METRICS = ("fidelity", "latency", "size")
"""All but peak memory, which takes a fresh process for each row."""
ROUNDS = 6
TIMED = 256
"""Held-out sentences that the choice of the best model times."""
_LENGTH = 32

Say = Callable[[str | Table], None]


def run_demo(out: Path, *, seed: int = 0, say: Say = print) -> list[Trial]:
    """Run the whole job into `out` and return what was measured, the dense model in PyTorch first.

    Args:
        out: folder for all models, the report and the best model; an earlier demo there is replaced.
        seed: of everything random.
        say: prints lines and tables.
    """
    with adding_to(out):
        _make_room(out)
        return _run(out, seed, say)


def _run(out: Path, seed: int, say: Say) -> list[Trial]:
    task, begun = load_task(TASK), time.perf_counter()
    with _step(f"1. train a 4-layer BERT on {len(task.splits.train):,} generated sentences", say):
        _make_base(out / "base", seed)
        settings = TrainingSettings(epochs=EPOCHS, learning_rate=3e-4, max_length=_LENGTH, seed=seed)
        finetune(out / "base", task, out / "dense", settings=settings)

    say(f"2. compress it in {len(RECIPES)} ways, run each in PyTorch and in {RUNTIME} {PRECISION}")
    compared = compare(
        out / "dense",
        {name: Recipe.from_list(steps) for name, steps in RECIPES.items()},
        task,
        out / "compared",
        benchmark=Benchmark(
            max_length=_LENGTH,
            runtimes=(PYTORCH, RUNTIME),
            precisions=(PRECISION,),
            metrics=METRICS,
            rounds=ROUNDS,
            seed=seed,
        ),
        calibration=Calibration(batch_size=32, max_length=_LENGTH),
        seed=seed,
        report=lambda line: say(f"   {line}"),
    )
    with _step("3. choose the best, on training sentences that were held out", say):
        best = _choose([out / "compared" / name for name in ("dense", *RECIPES)], task)
        shutil.copytree(best, out / "best")

    machine = current_machine()
    say(trial_table(compared.trials, title=f"{len(task.splits.dev):,} sentences that nothing was chosen by"))
    say(f"{machine.cpu}, {machine.threads} threads, {', '.join(machine.instruction_sets) or 'no vector instructions'}")
    say(f"\n4. reload {out / 'best'} and ask it for the label of three sentences")
    predictor = load(out / "best", runtime=RUNTIME, precision=PRECISION)
    for sentence, answer in zip(SENTENCES, predictor(SENTENCES), strict=True):
        say(f"   {answer.label:<12} {answer.score:4.0%}  {sentence}")
    say(f"\n{_won(compared.trials, best.name)}")
    say(f"The report is {compared.page}; all of this took {time.perf_counter() - begun:.0f} s.")
    say("\nNext, with a model and files of your own:")
    data = "--train-file train.csv --dev-file dev.csv"
    say(f"  whet measure MODEL --runtime pytorch,{RUNTIME} --precision fp32,{PRECISION} {data}")
    say(f"  whet search MODEL {data} --time 30m --out best")
    return list(compared.trials)


@contextmanager
def _step(what: str, say: Say) -> Iterator[None]:
    """Say what begins, and how long it took."""
    say(what)
    begun = time.perf_counter()
    yield
    say(f"   done in {time.perf_counter() - begun:.0f} s")


def _make_room(out: Path) -> None:
    """Remove an earlier demo, which may have been stopped; nothing else is removed.

    Raises:
        OutputExists: the folder holds something else.
    """
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    drafts = tuple(f".{own}." for own in MODELS)
    others = [name for name in held if name not in (MARK, *MODELS, *FORMER) and not name.startswith(drafts)]
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


def _make_base(folder: Path, seed: int) -> None:
    """Save a BERT that has learnt nothing yet, with the tokenizer of the task."""
    tokenizer = load_task(TASK).tokenizer()
    if tokenizer is None:
        raise InvalidData(f"the task must bring its own tokenizer, but {TASK} does not; choose another")
    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,  # at the default of 0.02, so small a model takes thousands of steps to begin to learn
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SIZE,
    )
    with new_folder(folder, overwrite=False) as draft:
        BertModel(config).save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def _choose(folders: Sequence[Path], task: Task) -> Path:
    """Return the model that answers fastest among those that lose less than the bar; the first if none does."""
    held_out = task.splits.validation
    names = task.label_names or ()

    def accuracy(predictor: Predictor) -> float:
        answers = predictor.predict(held_out.texts)
        return float(
            np.mean([one.label == names[int(label)] for one, label in zip(answers, held_out.labels, strict=True)])
        )

    exported = {one: load(one, runtime=RUNTIME, precision=PRECISION) for one in folders if any(one.glob("*.onnx"))}
    bar = accuracy(load(folders[0], runtime=PYTORCH)) - MAX_DROP / POINTS
    good = [folder for folder, predictor in exported.items() if accuracy(predictor) > bar] or [folders[0]]
    runs = [partial(exported[folder].predict, held_out.texts[:TIMED]) for folder in good if folder in exported]
    seconds = np.median(time_interleaved(runs, rounds=ROUNDS), axis=0) if runs else [0]
    return good[int(np.argmin(seconds))]


def _won(trials: Sequence[Trial], name: str) -> str:
    """Return in words what the chosen model won against the dense one in PyTorch."""
    [best] = [trial for trial in trials if trial.name == f"{name} ({RUNTIME} {PRECISION})"]
    least = -POINTS * quality_difference(best).low
    shown = f"Shown to lose less than {max(least, 0):.1f} points" if least > 0 else "Shown to lose nothing"
    return f"Won: {best.name} is {headline(trials[0], best)}. {shown} against {trials[0].name} in PyTorch."

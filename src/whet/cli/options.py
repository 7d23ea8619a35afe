"""What the verbs of the command line share: their options, and the task or recipe that options make together."""

import importlib.metadata
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from typer.core import TyperCommand, TyperOption

from whet.errors import InvalidParameter, InvalidRecipe
from whet.evaluation.metrics.base import quality_named
from whet.methods.base import method_from, method_named
from whet.methods.recipe import Recipe
from whet.tasks.base import Task, task_from_files, task_named, texts_from
from whet.tasks.data import Examples
from whet.training.lora import LoraSettings
from whet.training.trainer import TrainingSettings
from whet.utils.distributed import join_processes, process_count
from whet.utils.parameters import parameters

__all__ = [
    "AsJson",
    "BatchSize",
    "BatchTokens",
    "Cache",
    "DataDir",
    "DevFile",
    "Device",
    "Epochs",
    "Keep",
    "KeepTime",
    "Label",
    "LearningRate",
    "Lora",
    "LoraAlpha",
    "LoraDropout",
    "LoraNorms",
    "LoraTargets",
    "MaxKl",
    "MaxLength",
    "MethodName",
    "MetricName",
    "Out",
    "Overwrite",
    "Precision",
    "RecipeFile",
    "ReportTo",
    "Seed",
    "Settings",
    "Speedup",
    "TaskName",
    "Text",
    "TextPair",
    "Threads",
    "TrainFile",
    "TrainingPrecision",
    "Unlabeled",
    "Verb",
    "Version",
    "conditions_in",
    "lora_of",
    "more_text",
    "names_in",
    "optional_task",
    "recipe_of",
    "seconds_in",
    "task_of",
    "training_of",
    "use_device",
]

DEFAULT_METHOD, DEFAULT_FOR_SPEED = "kfac", "structure"
"""Which methods --keep and --speedup alone ask for."""


def _print_version(asked: bool) -> None:
    if asked:
        print(f"whet {importlib.metadata.version('whet')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
]

TaskName = Annotated[str | None, typer.Option("--task", help="Such as glue/mrpc, imdb, agreement.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the task's local files; without it, the hub.")]
TrainFile = Annotated[Path | None, typer.Option(help="Own training data: CSV, TSV, JSONL or Parquet.")]
DevFile = Annotated[Path | None, typer.Option(help="Own data for the final measurement; only measure needs it.")]
Text = Annotated[str, typer.Option(help="Column of the own data with the text.")]
TextPair = Annotated[str | None, typer.Option(help="Column with the second text.")]
Label = Annotated[str, typer.Option(help="Column with the label.")]
MetricName = Annotated[str | None, typer.Option("--metric", help="Metric of the own data that counts.")]

RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML or JSON file with the steps.")]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help=f"One method instead; whet methods lists them. If none is given, {DEFAULT_METHOD} for --keep, and "
        f"{DEFAULT_FOR_SPEED} for --speedup and --keep-time.",
    ),
]
Keep = Annotated[float | None, typer.Option(help="Its share of parameters kept, such as 0.4.")]
Speedup = Annotated[
    float | None, typer.Option(help="Instead, how many times as fast the model shall be here, such as 2.")
]
KeepTime = Annotated[float | None, typer.Option(help="The same, as the share of its time, such as 0.5.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Another parameter, as NAME=VALUE; lists and mappings as JSON.")
]

Epochs = Annotated[float, typer.Option(help="Passes over the training data.")]
LearningRate = Annotated[float, typer.Option(help="Its peak.")]
BatchSize = Annotated[int, typer.Option(help="Examples a step.")]
TrainingPrecision = Annotated[
    str, typer.Option("--precision", help="Of products: fp32, or bf16, about twice as fast on processors with AMX.")
]

Cache = Annotated[Path | None, typer.Option(help="Folder to keep the teacher's predictions in, for more runs.")]

Unlabeled = Annotated[
    Path | None, typer.Option(help="File of more text, in the columns --text and --text-pair; labels are not read.")
]
ReportTo = Annotated[
    list[str] | None, typer.Option(help="Tracker such as tensorboard (its files go to OUT.logs) or mlflow; repeatable.")
]

BatchTokens = Annotated[int | None, typer.Option(help="Instead, tokens a batch with padding: as many as fit.")]
MaxKl = Annotated[
    float | None, typer.Option(help="Most that int8 may cost, in nats; the worst layers then stay in fp32.")
]
Precision = Annotated[
    str, typer.Option(help="Of other runtimes, with commas between: fp32, bf16, int8, static_int8; each takes its own.")
]

Lora = Annotated[int | None, typer.Option(help="Train corrections of this rank instead of the weights: LoRA.")]
LoraAlpha = Annotated[float | None, typer.Option(help="Corrections count alpha / rank times; 16 if not given.")]
LoraDropout = Annotated[float | None, typer.Option(help="Of the corrections' inputs.")]
LoraTargets = Annotated[
    str | None, typer.Option(help="Wildcard over the linear layers that get one, such as '*.query'; all if not given.")
]
LoraNorms = Annotated[bool, typer.Option("--lora-norms", help="Train layer norms too.")]

Out = Annotated[Path, typer.Option(help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output folder.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of every random choice.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the processor; all cores if not given.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
MaxLength = Annotated[int, typer.Option(help="Longer inputs are cut, in tokens.")]


class Verb(TyperCommand):
    """Refuses an option of one value that is given twice, where click takes the last without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click's `Command.parse_args`."""
        given = self.make_parser(ctx).parse_args(args=list(args))[-1]
        for option in given:
            single = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if single and given.count(option) > 1:
                ctx.fail(f"Option {option.opts[0]!r} given more than once.")
        return super().parse_args(ctx, args)


def task_of(
    name: str | None,
    data_dir: Path | None,
    train_file: Path | None,
    dev_file: Path | None,
    text: str,
    text_pair: str | None,
    label: str,
    metric: str | None,
) -> Task:
    """Return the task that these options make.

    Raises:
        InvalidParameter, UnknownName: they do not go together, or name what there is not.
    """
    if (name is None) == (train_file is None):
        raise InvalidParameter("one of --task and --train-file must be given, but got both or none; give one")
    if train_file is None:
        if any(given is not None for given in (dev_file, text_pair, metric)):
            raise InvalidParameter(
                "--dev-file, --text-pair and --metric must go with --train-file, but got one with --task; leave it out"
            )
        return task_named(str(name), data_dir=data_dir)
    if data_dir is not None:
        raise InvalidParameter("--data-dir must go with --task, but got it with --train-file; leave it out")
    if metric is not None:
        quality_named(metric)
    return task_from_files(train_file, dev_file, text=text, text_pair=text_pair, label=label, metric=metric)


def optional_task(
    name: str | None,
    data_dir: Path | None,
    train_file: Path | None,
    dev_file: Path | None,
    text: str,
    text_pair: str | None,
    label: str,
    metric: str | None,
) -> Task | None:
    """Return the task that these options make, or None if they name no data."""
    if all(given is None for given in (name, data_dir, train_file, dev_file)):
        return None
    return task_of(name, data_dir, train_file, dev_file, text, text_pair, label, metric)


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in a text with commas between."""
    return tuple(name.strip() for name in text.split(","))


def conditions_in(given: list[str]) -> dict[str, str]:
    """Return conditions by name.

    Raises:
        InvalidParameter: one is not NAME=VALUE, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in found:
            raise InvalidParameter(f"--only must be NAME=VALUE, each name once, but got {text!r}; such as threads=2")
        found[name] = value
    return found


def seconds_in(text: str) -> float:
    """Return the seconds that a text such as 90s, 30m or 2h stands for.

    Raises:
        InvalidParameter: it stands for none.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError as error:
        raise InvalidParameter(f"--time must be a number with s, m or h, but got {text!r}; such as 30m") from error


def training_of(
    epochs: float, learning_rate: float, batch_size: int, max_length: int, seed: int, precision: str
) -> TrainingSettings:
    """Return the settings that these options make.

    Raises:
        InvalidParameter: one is out of range.
    """
    return TrainingSettings(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        precision=precision,  # type: ignore[arg-type]  # (checked there)
    )


def lora_of(
    rank: int | None, alpha: float | None, dropout: float | None, targets: str | None, norms: bool
) -> LoraSettings | None:
    """Return the corrections that these options ask for, or None where they ask for none.

    Raises:
        InvalidParameter: one is given without a rank, or is out of range.
    """
    others = {"alpha": alpha, "dropout": dropout, "targets": targets, "norms": norms or None}
    given = {name: value for name, value in others.items() if value is not None}
    if rank is not None:
        return LoraSettings(rank=rank, **given)  # type: ignore[arg-type]
    if given:
        first = next(iter(given))
        raise InvalidParameter(f"--lora-{first} must go with --lora, but got it alone; add --lora 8, or leave it out")
    return None


def more_text(path: Path, task: Task, text: str, text_pair: str | None) -> Examples:
    """Return the texts of a file, in pairs where the task's are; the second column is text_pair if none is named."""
    pairs = task.splits.train.pairs is not None
    return texts_from(path, text=text, text_pair=(text_pair or "text_pair") if pairs else None)


def recipe_of(
    path: Path | None,
    method: str | None,
    *,
    keep: float | None,
    speedup: float | None,
    keep_time: float | None,
    settings: list[str],
) -> Recipe:
    """Return the recipe that these options make.

    Raises:
        InvalidRecipe, InvalidParameter, UnknownName: they do not go together, or are wrong in themselves.
    """
    budgets = {"--keep": keep, "--speedup": speedup, "--keep-time": keep_time}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) > 1:
        raise InvalidRecipe(f"one of {', '.join(budgets)} must be given, but got {' and '.join(given)}; leave one out")
    if keep_time is not None:
        if not 0 < keep_time < 1:
            raise InvalidParameter(f"0 < keep_time < 1 must hold, but got keep_time={keep_time}; such as 0.5")
        speedup = 1 / keep_time
    if path is None and method is None and given:
        method = DEFAULT_METHOD if speedup is None else DEFAULT_FOR_SPEED
    if (path is None) == (method is None):
        raise InvalidRecipe("one of --recipe and --method must be given, but got both or none; give one")
    if path is not None:
        if given or settings:
            raise InvalidRecipe(
                f"{', '.join(budgets)} and --set belong to --method, but got them with --recipe; put them in the file"
            )
        return Recipe.read(path)
    found = method_named(str(method))
    entry: dict[str, Any] = {"method": found.name()}
    if keep is not None:
        entry["keep"] = keep
    if speedup is not None:
        entry["speedup"] = speedup
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InvalidParameter(f"--set must be NAME=VALUE, but got {setting!r}; such as --set allocation=uniform")
        if key in entry:
            raise InvalidParameter(f"{key} must be given once, but got {setting!r} as well; leave one out")
        entry[key] = _value(value)
    if speedup is not None and any("by_time" in one.choices for one in parameters(found)):
        entry.setdefault("allocation", "by_time")
    return Recipe((method_from(entry),))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def use_device(device: str, threads: int | None, *, alone: bool = False) -> str:
    """Choose how many threads compute, and return the device of this process.

    Args:
        device: as torch names it.
        threads: all cores, if None.
        alone: whether several processes are refused.

    Raises:
        InvalidParameter: torch has no such device, or there is less than one thread, or more than one process.
    """
    if threads is not None:
        if threads < 1:
            raise InvalidParameter(f"1 <= threads must hold, but got threads={threads}; leave it out to use all cores")
        torch.set_num_threads(threads)
    try:
        # a device without memory, such as meta, has no number to give back
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InvalidParameter(f"the device must be one that torch can use, but got {device!r}; try cpu") from error
    own = join_processes(device)
    if alone and process_count() > 1:
        raise InvalidParameter(f"this must run in one process, but got {process_count()}; leave accelerate launch out")
    return own

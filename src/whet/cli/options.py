"""The options of the command line, each group declared once as a dataclass whose docstrings are its help.

cyclopts makes a group's fields options of every verb that takes the group. A group also knows what its options stand
for: the task, the settings, the recipe. What that needs is imported when it is asked for, so that help is quick.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from whet.errors import InvalidData, InvalidParameter
from whet.utils.inputs import require_file
from whet.utils.parameters import require
from whet.utils.ranges import BatchSize, Device, Duration, Epochs, LearningRate, MaxLength, Seed, Threads

if TYPE_CHECKING:
    from whet.tasks.base import Task
    from whet.tasks.data import Examples
    from whet.training.settings import LoraSettings, TrainingSettings

__all__ = [
    "MAX_LENGTH",
    "Flag",
    "InputLength",
    "Json",
    "LoraOptions",
    "MachineOptions",
    "OutputOptions",
    "Precisions",
    "SeedOptions",
    "TaskOptions",
    "Texts",
    "ThreadOptions",
    "TrainingOptions",
    "Untimed",
    "conditions_in",
    "given_words",
    "in_words",
    "label_map_in",
    "names_in",
    "seconds_in",
    "silence_transformers",
]

Flag = Annotated[bool, Parameter(show_default=False, allow_repeating=True)]
"""An option without a value."""
Texts = Annotated[tuple[str, ...], Parameter(show_default=False)]
"""An option that may be repeated."""
Json = Annotated[Flag, Parameter(name="--json", help="Print JSON instead of tables.")]
MAX_LENGTH = 128
"""Tokens of the longest input, if nothing else is asked for."""
InputLength = Annotated[MaxLength, Parameter(help="Longer inputs are cut to this many tokens.")]
Untimed = Annotated[Flag, Parameter(help="Take no times, for which nothing else should use the machine.")]
Precisions = Annotated[
    str,
    Parameter(help="Precisions of other runtimes than pytorch, separated by commas: fp32, bf16, int8, ..."),
]


@Parameter(name="*", group="Data: a known task, or your own files")
@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the model is for."""

    task: str | None = None
    """Known task, e.g. glue/mrpc, imdb or agreement."""
    data_dir: Path | None = None
    """Folder with the known task's local files; without it, they come from the hub."""
    train_file: Path | None = None
    """Your own training data: CSV, TSV, JSONL, Parquet, CoNLL columns, or SQuAD's JSON; measure needs it only to
    calibrate int8."""
    dev_file: Path | None = None
    """Your own data for the final measurement; only measure needs it."""
    kind: str | None = None
    """What the model answers, e.g. token_classification, where its folder and your data do not tell."""
    text: str = "text"
    """Column of your files with the text."""
    text_pair: str | None = None
    """Column with the second text, if there is one."""
    label: tuple[str, ...] = ("label",)
    """Column with the class, score, tags, or names of several labels; repeatable, for a column of 0 and 1 each."""
    stride: int | None = None
    """For language models: tokens that each window of the final measurement counts; half of a window if not given."""
    label_separator: str | None = None
    """What stands between the names of several labels in a cell; a comma if not given."""
    metric: str | None = None
    """Metric of your own data that counts; accuracy, or the kind's first, if not given."""
    label_map: str | None = None
    """Class of the model for each label of the data, where names do not tell: negative=LABEL_0,positive=LABEL_1; or
    numbers, negative=0,positive=1."""
    positive: str | None = None
    """Class that f1 scores; class 1 of the model, or of the known task, if not given."""

    def load(self) -> "Task":
        """Return the task that these options name.

        Raises:
            InvalidData: there is no such file.
            InvalidParameter, UnknownName: options do not go together, or there is no such task or metric.
        """
        for path in (self.train_file, self.dev_file):
            if path is not None and not path.is_dir():  # a folder may be a saved Dataset
                require_file(path, what="the data file", error=InvalidData)  # before slow imports
        from whet.evaluation.load_task import load_task

        return load_task(
            self.task,
            data_dir=self.data_dir,
            train_file=self.train_file,
            dev_file=self.dev_file,
            kind=self.kind,
            text=self.text,
            text_pair=self.text_pair,
            label=self.label,
            label_separator=self.label_separator,
            stride=self.stride,
            metric=self.metric,
            label_map=None if self.label_map is None else label_map_in(self.label_map),
            positive=self.positive,
        )

    def load_if_given(self) -> "Task | None":
        """Return the task, or None where no option is given, or the kind alone, which may be the model's.

        Raises:
            InvalidData, InvalidParameter, UnknownName: see `load`.
        """
        data = [field for field in fields(self) if field.name != "kind"]
        return None if all(getattr(self, field.name) == field.default for field in data) else self.load()

    def words(self, *, max_length: int, pairs: bool = False) -> list[str]:
        """Return the words that name the same data for `measure`, with a placeholder where some are missing.

        Args:
            max_length: longest input in tokens, which is named unless it is the usual one.
            pairs: whether the data for the final measurement are pairs of texts with a score, as embedders need them.
        """
        given = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        words = given_words({**given, "max_length": (max_length, MAX_LENGTH)})
        if self.task is not None or self.dev_file is not None:
            return words
        missing = ["--text-pair", "SECOND_TEXT", "--label", "SCORE"] if pairs and self.text_pair is None else []
        return [*words, *missing, "--dev-file", "DEV_FILE"]

    def more_text(self, path: Path, task: "Task") -> "Examples":
        """Return the texts of a file in the form of the task's; see `Task.more_text`."""
        return task.more_text(path, text=self.text, text_pair=self.text_pair)


@Parameter(name="*", group="Training")
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is trained."""

    epochs: Epochs = 5
    """Passes over the training data."""
    learning_rate: LearningRate = 5e-5
    """Peak of the learning rate."""
    batch_size: BatchSize = 32
    """Examples in one step."""
    precision: str = "fp32"
    """Precision of products: fp32, or bf16, which is about twice as fast on processors with AMX."""
    max_length: InputLength = MAX_LENGTH
    """Longer inputs are cut to this many tokens."""
    report_to: Texts = ()
    """Tracker, e.g. tensorboard (its files go to OUT.logs) or mlflow; repeatable."""

    def settings(self, seed: int) -> "TrainingSettings":
        """Return the settings.

        Raises:
            InvalidParameter: one is out of range.
        """
        from whet.training.settings import TrainingSettings

        return TrainingSettings(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            max_length=self.max_length,
            seed=seed,
            precision=self.precision,  # type: ignore[arg-type]  # (checked there)
        )


@Parameter(name="*", group="LoRA")
@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank corrections that are trained instead of the weights."""

    lora: int | None = None
    """Train corrections of this rank instead of the weights, and add them to the weights in the end."""
    lora_alpha: float | None = None
    """Corrections are multiplied by alpha / rank; 16 if not given."""
    lora_dropout: float | None = None
    """Dropout of the corrections' inputs."""
    lora_targets: str | None = None
    """Wildcard over the linear layers that get a correction, e.g. '*.query'; all if not given."""
    lora_norms: Flag = False
    """Train layer norms too."""

    def settings(self) -> "LoraSettings | None":
        """Return the corrections, or None where no option asks for any.

        Raises:
            InvalidParameter: one is given without a rank, or is out of range.
        """
        from whet.training.settings import LoraSettings

        others = {
            "alpha": self.lora_alpha,
            "dropout": self.lora_dropout,
            "targets": self.lora_targets,
            "norms": self.lora_norms or None,
        }
        given = {name: value for name, value in others.items() if value is not None}
        if self.lora is not None:
            return LoraSettings(rank=self.lora, **given)  # type: ignore[arg-type]
        if given:
            first = next(iter(given))
            raise InvalidParameter(
                f"--lora-{first} must go with --lora, but got it alone; add --lora 8, or leave it out"
            )
        return None


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where a model goes."""

    out: Path
    """Folder to write."""
    overwrite: Flag = False
    """Replace the output folder."""
    as_json: Json = False

    def keep(self, *files: Path | None) -> None:
        """Refuse a folder that holds one of the files that are read.

        Raises:
            OutputExists: it does.
            OutputNotWritten: it cannot be a folder to write.
        """
        from whet.utils.outputs import check_inputs

        check_inputs(self.out, [file for file in files if file is not None])


@Parameter(name="*", group="Machine")
@dataclass(frozen=True, kw_only=True)
class ThreadOptions:
    """What a verb that runs on the processor may use."""

    threads: Threads | None = None
    """Threads of the processor; all cores if not given."""

    def use_cpu(self) -> None:
        """Choose how many threads compute, and refuse to run in several processes.

        Raises:
            InvalidParameter: there is less than one thread, or more than one process.
        """
        _use("cpu", self.threads, processes="one")


@Parameter(name="*", group="Machine")
@dataclass(frozen=True, kw_only=True)
class SeedOptions(ThreadOptions):
    """The same, for a verb with random choices."""

    seed: Seed = 0
    """Seed of every random choice."""


@Parameter(name="*", group="Machine")
@dataclass(frozen=True, kw_only=True)
class MachineOptions(SeedOptions):
    """The same, for a verb that runs on any device."""

    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, mps."""

    def use(self, *, processes: Literal["one", "several"] = "several") -> str:
        """Choose how many threads compute, and return the device of this process.

        Args:
            processes: whether several processes are refused.

        Raises:
            InvalidParameter: torch has no such device, or there is less than one thread, or more than one process.
        """
        return _use(self.device, self.threads, processes=processes)


def silence_transformers() -> None:
    """Keep transformers' own warnings and progress bars off the terminal."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _use(device: str, threads: int | None, *, processes: Literal["one", "several"]) -> str:
    import torch

    from whet.utils import distributed

    silence_transformers()
    if threads is not None:
        torch.set_num_threads(threads)
    require(device, Device, name="device", advice="try cpu")
    joined = distributed.join_processes(device)
    if processes == "one" and (count := distributed.process_count()) > 1:
        raise InvalidParameter(f"this must run in one process, but got {count}; leave accelerate launch out")
    return joined


def names_in(text: str) -> tuple[str, ...]:
    """Return the names in a text with commas between, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def given_words(options: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return the words of the options that are not at their default.

    Args:
        options: value and default of each, by the name of its parameter.
    """
    words: list[str] = []
    for name, (value, default) in options.items():
        if value != default:
            values = value if isinstance(value, tuple) else [value]
            option = f"--{name.replace('_', '-')}"
            words += [word for one in values for word in ([option] if one is True else [option, str(one)])]
    return words


def in_words(*words: str | Path) -> str:
    """Return a command line as a shell reads it."""
    return shlex.join(map(str, words))


def label_map_in(text: str) -> dict[str | int, str | int]:
    """Return the class for each label, from LABEL=CLASS with commas between, or from a JSON object.

    Raises:
        InvalidParameter: it is neither, or has a label twice.
    """
    if text.lstrip().startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=list)
        except (ValueError, RecursionError):
            pairs = [("", "")]
    else:
        pairs = [(label.strip(), name.strip()) for label, _, name in (pair.rpartition("=") for pair in text.split(","))]
    given: dict[str | int, str | int] = {str(label): str(name) for label, name in pairs if not isinstance(name, list)}
    if not given or len(given) != len(pairs) or not all(given) or not all(given.values()):
        raise InvalidParameter(
            "--label-map must be LABEL=CLASS with commas between, or a JSON object, each label once, but got "
            f"{text!r}; such as negative=0,positive=1"
        )
    return given


def conditions_in(given: tuple[str, ...]) -> dict[str, str]:
    """Return conditions by name.

    Raises:
        InvalidParameter: one is not NAME=VALUE, or a name is given twice.
    """
    conditions: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in conditions:
            raise InvalidParameter(f"--only must be NAME=VALUE, each name once, but got {text!r}; such as threads=2")
        conditions[name] = value
    return conditions


def seconds_in(text: str) -> float:
    """Return the seconds that a text such as 90s, 30m or 2h stands for.

    Raises:
        InvalidParameter: it stands for none.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError as error:
        raise InvalidParameter(f"--time must be a number with s, m or h, but got {text!r}; such as 30m") from error
    require(seconds, Duration, name="time", advice="give some, such as 30m")
    return seconds

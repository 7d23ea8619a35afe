"""The commands that make the models of a report again."""

import shlex
from collections.abc import Mapping, Sequence

from whet.evaluation.places import place_of, without_place
from whet.evaluation.trial import Trial
from whet.methods.base import all_methods
from whet.models.lineage import public_name
from whet.report.view import SPEED_OF, ReportView, find_measurement
from whet.tasks.base import task_names
from whet.utils.precision import FP32, PYTORCH

__all__ = ["RECIPE_FILE", "commands_again"]

RECIPE_FILE = "recipe.yaml"
_LENGTH, _SEED, _METRIC, _CALIBRATION, _BATCH_SIZE = "128", "0", "accuracy", "512", "4"
"""What the command line takes where nothing else is given."""


def commands_again(
    view: ReportView,
    trials: Sequence[Trial],
    *,
    origin: str | None = None,
    calibration: Mapping[str, int] | None = None,
) -> str:
    """Return the commands that make a compressed model and measure it, one a line, as a shell reads them.

    A command knows whet's methods alone: where a recipe has others, a comment says what to run in Python instead.

    Args:
        view: the contents of the report.
        trials: the model's trials, one for each place where it was measured, all made by one recipe.
        origin: folder or hub name of the model that it was made from; the baseline, if None.
        calibration: how much text the recipe's methods looked at; what is usual, if None.
    """
    first = trials[0]
    conditions = first.conditions or {}
    baseline, name = (
        _operand(str(conditions.get("baseline") or view.trials[0].name)),
        _operand(without_place(first.name, conditions)),
    )
    data, places = _data_words(view), dict.fromkeys(place_of(trial.conditions) for trial in trials)
    rest = [*_unless("--max-length", conditions.get("max_length"), _LENGTH), *_unless("--seed", first.seed, _SEED)]
    if view.baseline:  # the baseline's own place too, which speeds are compared with
        places = dict.fromkeys((place_of(view.trials[0].conditions), *places))
    runtimes = ",".join(dict.fromkeys(runtime for runtime, _ in places))
    precisions = ",".join(dict.fromkeys(each for runtime, each in places if runtime != PYTORCH)) or FP32
    source = baseline if origin is None else _operand(public_name(origin))
    sample = [
        *_unless("--calibration", (calibration or {}).get("examples"), _CALIBRATION),
        *_unless("--batch-size", (calibration or {}).get("batch_size"), _BATCH_SIZE),
        *_unless("--max-length", (calibration or conditions).get("max_length"), _LENGTH),
        *_unless("--seed", first.seed, _SEED),
    ]
    lines = [["whet", "compress", source, "--recipe", RECIPE_FILE, *data, "--out", name, *sample]]
    exported = [(runtime, precision) for runtime, precision in places if runtime != PYTORCH]
    lines += [["whet", "export", name, "--to", runtime, "--precision", each, *data] for runtime, each in exported]
    where = [*_unless("--runtime", runtimes, PYTORCH), *_unless("--precision", precisions, FP32)]
    timed = any(find_measurement(trial, metric) for trial in trials for metric in SPEED_OF.values())
    lines.append(["whet", "measure", baseline, name, *data, *where, *rest, *([] if timed else ["--untimed"])])
    commands = [shlex.join(map(_on_one_line, line)) for line in lines]
    if own := [step["method"] for step in first.recipe if step["method"] not in all_methods()]:
        call = f"whet.compress({source!r}, whet.Recipe.read({RECIPE_FILE!r}), {name!r}, task=task)"
        about = f"# not a command, since {', '.join(own)} is no method of whet's: define or import it in Python, then"
        commands[0] = "\n".join(map(_on_one_line, (about, f"# {call}")))
    return "\n".join(commands)


def _on_one_line(word: str) -> str:
    """A word without what a terminal obeys, a new line among it; whoever pastes it sees all that runs."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in word)


def _operand(name: str) -> str:
    """A folder's name that no program takes for an option."""
    return f"./{name}" if name.startswith("-") else name


def _data_words(view: ReportView) -> list[str]:
    """The words that name the data: a known task, or places for the reader's own files."""
    task, positive = view.task, view.common.get("positive")
    scored = [] if positive is None else ["--positive", positive]
    if task in task_names():
        return ["--task", task, *scored]
    return ["--train-file", "TRAIN.csv", "--dev-file", "DEV.csv", *_unless("--metric", view.quality, _METRIC), *scored]


def _unless(option: str, value: object, usual: str) -> list[str]:
    return [] if value is None or str(value) == usual else [option, str(value)]

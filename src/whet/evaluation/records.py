"""What an artifact says of itself: how the model was made, what was measured of it, and its model card."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.errors import FiguresNotKept, InvalidArtifact, WhetError
from whet.evaluation.formatting import comparison, interval_of, markdown_code, markdown_text, number, with_unit
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.manifest import read_manifest
from whet.utils.files import check_path, write_text
from whet.utils.inputs import require_file
from whet.utils.manifests import CARD, CONFIG, MEASUREMENTS, RECIPE, is_artifact
from whet.utils.outputs import adding_to, check_inputs, claimed, files_of_others, kind_of, new_folder
from whet.utils.progress import note
from whet.utils.schema import from_json
from whet.utils.yaml_files import read_yaml

__all__ = [
    "card",
    "copy_model",
    "holding_run",
    "is_run",
    "keep",
    "measured_table",
    "read_steps",
    "record",
    "recordable",
    "save_model",
    "trials",
]

Steps = Sequence[Mapping[str, Any]]
"""A recipe's file form: each method's name and parameters."""


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    recipe: Steps,
    origin: str,
    seed: int,
    overwrite: bool = False,
    extras: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model with everything that is known of it; the folder appears whole or not at all.

    Args:
        model: dense or compressed.
        tokenizer: saved beside it.
        folder: the artifact to write.
        recipe: the steps that made it; empty for a baseline.
        origin: folder or hub name of the model that it was made from.
        seed: the seed of every random choice.
        overwrite: whether an existing folder may be replaced.
        extras: contents of more files, by name.

    Raises:
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
    """
    steps, origin = [dict(step) for step in recipe], _public(origin)
    notes = {
        RECIPE: yaml.safe_dump(steps, sort_keys=False),
        **_notes(_About(folder.name, steps, origin, model.config.num_labels), []),
    }
    files = {**(extras or {}), **{name: text.encode() for name, text in notes.items()}}
    artifact.save_files(
        model, tokenizer, folder, about={"origin": origin, "seed": seed}, files=files, overwrite=overwrite
    )


def copy_model(
    folder: Path,
    to: Path,
    *,
    export: tuple[str, str] | None,
    about: Mapping[str, Any],
    trials: Sequence[Trial],
    overwrite: bool = False,
) -> None:
    """Copy an artifact with other measurements; the new folder appears whole or not at all.

    Args:
        folder: the artifact.
        to: the folder to write.
        export: the runtime and precision of the export to copy; None copies no export.
        about: more entries for the manifest.
        trials: what was measured of it.
        overwrite: whether an existing folder may be replaced.

    Raises:
        InvalidArtifact: it was not exported for that.
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
    """
    notes = _notes(_about(folder)._replace(name=to.name), trials)
    artifact.copy_files(folder, to, export=export, about=about, notes=notes, overwrite=overwrite)


def recordable(models: Sequence[str | Path]) -> list[Path]:
    """Return the artifacts among some models, after checking before a measurement that `record` can add it to them.

    Raises:
        InvalidArtifact: what one of them holds already cannot be read.
    """
    folders = [Path(model) for model in models if is_artifact(model)]
    for folder in folders:
        read_manifest(folder)
        read_steps(folder)
        trials(folder)
    return folders


def record(folder: Path, trial: Trial) -> None:
    """Add a measured trial to an artifact, and show it in its model card.

    Raises:
        InvalidArtifact: what it holds already cannot be read, or it holds another model than was measured.
        OutputNotWritten: the folder cannot be written.
    """
    with adding_to(folder, wait=True):
        if trial.artifact not in (None, artifact.model_digest(folder)):
            raise InvalidArtifact(
                f"a row must be of the model in its folder, but {folder} was replaced meanwhile; measure it again"
            )
        known = [*trials(folder), trial]
        artifact.write_notes(folder, _notes(_about(folder), known))


def keep(
    measured: Sequence[Trial], rows: Iterable[tuple[Path, Trial]], out: Path | None, *, overwrite: bool = False
) -> None:
    """Write what was measured: rows into the folders of their models, and all of it into a folder of its own.

    Args:
        measured: everything.
        rows: artifacts, each with its trial; those that cannot be written are left out.
        out: the folder that keeps everything, and what was measured into it before; None for none.
        overwrite: whether it is replaced.

    Raises:
        FiguresNotKept: something could not be written, after all else was.
    """
    failures: list[Exception] = []
    for folder, trial in rows:
        if os.access(folder, os.W_OK):
            with _noted(failures):
                record(folder, trial)
        else:
            note(f"{folder} cannot be written, so it keeps no record of this measurement; --out DIR keeps one")
    if out is not None:
        lines = "".join(f"{one.to_json()}\n" for one in measured)
        with _noted(failures):
            if is_run(out) and not overwrite:
                write_text(out / MEASUREMENTS, "".join(f"{one.to_json()}\n" for one in trials(out)) + lines)
            else:
                with new_folder(out, overwrite=overwrite) as draft:
                    (draft / MEASUREMENTS).write_text(lines, encoding="utf-8")
    if failures:
        error = FiguresNotKept(
            f"{'; '.join(dict.fromkeys(map(str, failures)))} (what was measured is not lost: it is printed, or in "
            "`trials` of this error)"
        )
        error.trials = measured
        raise error from failures[0]


def is_run(folder: Path) -> bool:
    """Return whether a folder holds what `measure` kept there, and else at most a report."""
    return kind_of(folder) == MEASUREMENTS and not files_of_others(folder)


@contextmanager
def holding_run(folder: Path | None, *, overwrite: bool, inputs: Sequence[Path]) -> Iterator[None]:
    """Hold the folder that `keep` will write, if there is one.

    Args:
        folder: the folder.
        overwrite: whether it is replaced; otherwise it must be new, or of an earlier `keep`.
        inputs: paths that it must not contain.

    Raises:
        InvalidArtifact: what was kept there before cannot be read.
        OutputExists, OutputNotWritten: it holds something else, is being written, or cannot be written.
    """
    if folder is not None:
        check_path(folder)
    with ExitStack() as stack:
        if folder is not None and is_run(folder) and not overwrite:
            check_inputs(folder, inputs)
            stack.enter_context(adding_to(folder))
            trials(folder)
        elif folder is not None:
            stack.enter_context(claimed(folder, overwrite=overwrite, inputs=inputs))
        yield


@contextmanager
def _noted(failures: list[Exception]) -> Iterator[None]:
    """Note an error, and go on after the block."""
    try:
        yield
    except (WhetError, OSError) as error:
        failures.append(error)


def trials(folder: Path) -> list[Trial]:
    """Return the trials recorded in an artifact, oldest first.

    Raises:
        InvalidArtifact: they cannot be read.
    """
    path = folder / MEASUREMENTS
    require_file(path, what="the record of measurements", error=InvalidArtifact)
    lines = path.read_bytes().splitlines()
    return [Trial.from_json(line, what=f"line {i} of {path}") for i, line in enumerate(lines, 1) if line.strip()]


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """Return the file form of the recipe that made an artifact.

    Raises:
        InvalidArtifact: it cannot be read.
    """
    path = folder / RECIPE
    steps = read_yaml(path, what="the recipe of an artifact", error=InvalidArtifact)
    if not isinstance(steps, list) or not all(isinstance(step, dict) and _has_name(step) for step in steps):
        raise InvalidArtifact(f"{path} must be a list of steps, each with its method, but it is not; copy it again")
    return steps


def card(name: str, recipe: Steps, origin: str | None, measured: Sequence[Trial], *, outputs: int = 2) -> str:
    """Return the model card: what it is, how to load it, how it was made, what was measured last.

    Args:
        name: of the model.
        recipe: the steps that made it.
        origin: folder or hub name of the model that it was made from; None if that is not known.
        measured: what was measured of it.
        outputs: of its head; a single one is a score, which pipelines would squash between 0 and 1.
    """
    shown = json.dumps(name, ensure_ascii=not name.isprintable())
    as_it_is = ', function_to_apply="none"' if outputs == 1 else ""
    made_from = "Made" if origin is None else f"Made from {markdown_code(_public(origin))}"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [whet, compressed]",
        "---",
        f"# {markdown_text(name)}",
        "",
        f"{made_from} by whet: {_told(recipe)}.",
        "",
        "```python",
        "import whet  # makes the structure known to transformers",
        "from transformers import pipeline",
        "",
        f'{"score" if outputs == 1 else "classify"} = pipeline("text-classification", model={shown}{as_it_is})',
        "```",
        "",
        "## Measured",
        "",
    ]
    unmeasured = ["Not yet: `whet measure ORIGINAL THIS --task TASK` fills this in."]
    lines += measured_table(measured[-1]) if measured else unmeasured
    return "\n".join(lines) + "\n"


def measured_table(trial: Trial) -> list[str]:
    """Return the lines of a Markdown table of everything measured, and of its conditions."""
    rows = ["| metric | value | 95 % interval | n | against the baseline |", "|---|---|---|---|---|"]
    for one in trial.measurements:
        cells = (one.title, with_unit(one), interval_of(one), number(one.n), comparison(one.versus))
        rows.append(f"| {' | '.join(map(markdown_text, cells))} |")
    conditions = ", ".join(f"{key}: {value}" for key, value in (trial.conditions or {}).items())
    return [*rows, "", f"Conditions: {markdown_text(conditions)}."]


class _About(NamedTuple):
    """What a model card says besides measurements."""

    name: str
    recipe: Steps
    origin: str | None
    outputs: int


class _Head(BaseModel):
    """What a configuration says of the head."""

    id2label: dict[str, str] = {"0": "", "1": ""}


def _about(folder: Path) -> _About:
    config = folder / CONFIG
    head = from_json(_Head, config.read_bytes(), what=str(config), error=InvalidArtifact, remedy="copy it again")
    return _About(folder.name, read_steps(folder), read_manifest(folder).origin, len(head.id2label))


def _notes(about: _About, measured: Sequence[Trial]) -> dict[str, str]:
    lines = "".join(f"{trial.to_json()}\n" for trial in measured)
    text = card(about.name, about.recipe, about.origin, measured, outputs=about.outputs)
    return {MEASUREMENTS: lines, CARD: text}


def _told(recipe: Steps) -> str:
    """The steps by the names of their methods, which need not be known here."""
    steps = []
    for step in recipe:
        shown = ", ".join(f"{key}={value}" for key, value in step.items() if key != "method")
        steps.append(markdown_code(f"{step['method']}({shown})"))
    return " → ".join(steps) or "nothing"


def _has_name(step: Mapping[str, Any]) -> bool:
    return isinstance(step.get("method"), str)


def _public(origin: str) -> str:
    """A model's name without where it lies on this machine: a hub name stays, of any other path the last name."""
    path = Path(origin)
    hub_name = len(path.parts) <= 2 and not path.is_absolute() and not origin.startswith((".", "~"))
    return origin if hub_name else path.name or path.resolve().name

"""What an artifact says of itself: how the model was made, what was measured of it, and its model card."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whet.errors import FiguresNotKept, InvalidArtifact, WhetError
from whet.evaluation.card import CardFacts, Form, model_card
from whet.evaluation.description import Steps, description
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.checkpoint import Checkpoint
from whet.models.inference import kind_of_model
from whet.models.lineage import FINETUNE, QUANTIZED, lineage_from, public_name
from whet.models.manifest import CASCADE, DISTILLED, Lineage, Made, Manifest, read_manifest, refuse_deployment
from whet.models.surgery import describe
from whet.tasks.base import hub_dataset
from whet.tasks.kinds.base import kind_of_head
from whet.utils.files import check_path, write_text
from whet.utils.inputs import require_file
from whet.utils.manifests import CARD, CONFIG, MEASUREMENTS, RECIPE, WEIGHTS, is_artifact
from whet.utils.outputs import adding_to, check_inputs, claimed, files_of_others, kind_of, new_folder
from whet.utils.precision import FP32, PYTORCH
from whet.utils.progress import note
from whet.utils.schema import from_json
from whet.utils.yaml_files import read_yaml

__all__ = [
    "copy_model",
    "description_in",
    "holding_run",
    "is_run",
    "keep",
    "read_steps",
    "record",
    "recordable",
    "renew_card",
    "save_model",
    "trials",
]

_OWN_MODELS = "whet_"
"""Begins the types of the models that transformers does not have."""


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    recipe: Steps,
    origin: str,
    seed: int,
    made: Made | None = None,
    calibration: Mapping[str, int] | None = None,
    overwrite: bool = False,
    extras: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model with everything that is known of it; the folder appears whole or not at all.

    Args:
        model: dense or compressed.
        tokenizer: saved beside it.
        folder: the artifact to write.
        recipe: the steps that compressed it; empty for a baseline.
        origin: folder or hub name of the model that it was made from.
        seed: the seed of every random choice.
        made: how it was trained, if it was.
        calibration: how much text the steps looked at, if they did.
        overwrite: whether an existing folder may be replaced.
        extras: contents of more files, by name.

    Raises:
        OutputExists, OutputNotWritten: the folder exists or cannot be written.
    """
    steps, name = [dict(step) for step in recipe], public_name(origin)
    lineage, config = _lineage(origin, steps, made), model.config
    answered = kind_of_model(model)
    structured = bool(describe(model)) or config.model_type.startswith(_OWN_MODELS)
    facts = CardFacts(folder.name, steps, name, made, lineage, answered.name(), structured)
    notes = {RECIPE: yaml.safe_dump(steps, sort_keys=False), **_notes(facts, [])}
    files = {**(extras or {}), **{name: text.encode() for name, text in notes.items()}}
    about: dict[str, Any] = {"origin": name, "seed": seed}
    about |= {} if made is None else {"made": made}
    about |= {} if calibration is None else {"calibration": dict(calibration)}
    about |= {} if lineage == Lineage() else {"lineage": lineage}
    artifact.save_files(model, tokenizer, folder, about=about, files=files, overwrite=overwrite)


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
    facts = _facts(folder)
    forms = [form for form in facts.forms if form.runtime == PYTORCH or form == export]
    target = about.get("target") and Form(**about["target"])
    notes = _notes(facts._replace(name=to.name, forms=forms, target=target), trials)
    artifact.copy_files(folder, to, export=export, about=about, notes=notes, overwrite=overwrite)


def recordable(models: Sequence[str | Path]) -> list[Path]:
    """Return the artifacts among some models, after checking before a measurement that `record` can add it to them.

    Raises:
        InvalidArtifact: what one of them holds already cannot be read.
    """
    folders = [Path(model) for model in models if is_artifact(model)]
    for folder in folders:
        refuse_deployment(folder, read_manifest(folder))
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
        artifact.write_notes(folder, _notes(_facts(folder), known))


def renew_card(folder: Path) -> None:
    """Write the model card of an artifact anew, after it got another form, such as an export.

    Raises:
        InvalidArtifact: what the artifact holds cannot be read.
        OutputNotWritten: the folder cannot be written.
    """
    with adding_to(folder, wait=True):
        artifact.write_notes(folder, {CARD: model_card(_facts(folder), trials(folder))})


def description_in(folder: Path) -> str:
    """Return what the model of an artifact is, in words; see `description`.

    Raises:
        InvalidArtifact: its manifest or recipe cannot be read.
    """
    manifest = read_manifest(folder)
    return description(read_steps(folder), origin=manifest.origin, made=manifest.made)


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


class _Config(BaseModel):
    """What a card says of a configuration."""

    model_type: str = ""
    quantization_config: dict[str, Any] | None = None

    @property
    def needs_whet(self) -> bool:
        """Whether transformers knows the model only after `import whet`."""
        return self.quantization_config is not None or self.model_type.startswith(_OWN_MODELS)


def _facts(folder: Path) -> CardFacts:
    """Return what a card says of an artifact besides measurements."""
    path, manifest = folder / CONFIG, read_manifest(folder)
    config = from_json(_Config, path.read_bytes(), what=str(path), error=InvalidArtifact, remedy="copy it again")
    target = (manifest.model_extra or {}).get("target")
    return CardFacts(
        name=folder.resolve().name,
        recipe=read_steps(folder),
        origin=manifest.origin,
        made=manifest.made,
        lineage=manifest.lineage,
        kind=kind_of_head(Checkpoint.of(folder).head()).name(),
        needs_whet=config.needs_whet,
        forms=_forms(manifest),
        target=Form(**target) if isinstance(target, dict) and target.keys() == set(Form._fields) else None,
    )


def _forms(manifest: Manifest) -> list[Form]:
    """Return the forms that an artifact holds."""
    plain = [Form(PYTORCH)] if any(fnmatchcase(name, WEIGHTS) for name in manifest.files) else []
    exports = [key.partition(" ") for key in manifest.exports]
    return [*plain, *(Form(runtime, precision or FP32) for runtime, _, precision in exports)]


def _lineage(origin: str, recipe: Steps, made: Made | None) -> Lineage:
    """Return where a model comes from as the hub tells it."""
    quantized = bool(recipe) and all(step["method"].startswith("quantization.") for step in recipe)
    relation = FINETUNE if made is not None else QUANTIZED if quantized else None
    data = None if made is None or made.task is None else hub_dataset(made.task)
    lineage = lineage_from(origin, relation=relation, datasets=[data] if data else [])
    # a student need not have the weights of the base, and a cascade has those of others too
    if made is not None and made.how in (DISTILLED, CASCADE):
        return lineage.model_copy(update={"base_model_relation": None})
    return lineage


def _notes(facts: CardFacts, measured: Sequence[Trial]) -> dict[str, str]:
    lines = "".join(f"{trial.to_json()}\n" for trial in measured)
    return {MEASUREMENTS: lines, CARD: model_card(facts, measured)}


def _has_name(step: Mapping[str, Any]) -> bool:
    return isinstance(step.get("method"), str)

"""Comparing recipes from Python: every model made, all measured beside the baseline in one run, one report.

`comparison.json` in the folder says how each model is made. A second run keeps the models that were made in the same
way and are whole, and makes the others.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from whet.api.compressing import compress
from whet.api.exporting import export
from whet.calibration.resources import Calibration, require_held_out
from whet.errors import InvalidArtifact, InvalidParameter, OutputExists, OutputNotWritten, WhetError
from whet.evaluation import records
from whet.evaluation.benchmark import Benchmark, require_dev
from whet.evaluation.rows import BenchmarkRow, usable_targets
from whet.evaluation.trial import Trials
from whet.methods.own_code import own_code
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.models.recognition import recognized
from whet.numerics.vectors import WHOLE
from whet.report.write import write_report
from whet.runtimes.base import ExportRuntime, runtime_named
from whet.tasks.base import Task
from whet.training.states import weights_digest
from whet.utils.calls import checked
from whet.utils.files import remove, write_text
from whet.utils.inputs import exists, one_line
from whet.utils.locks import LOCK
from whet.utils.manifests import MEASUREMENTS, file_name, is_artifact
from whet.utils.outputs import adding_to, check_inputs, claimed, files_of_others, kind_of
from whet.utils.precision import FP32, PYTORCH
from whet.utils.ranges import Seed
from whet.utils.schema import from_json

__all__ = ["Compared", "compare"]

COSTS = ("latency", "size")
"""Metrics of which a report must have one."""
COMPARISON = "comparison.json"
"""Says how each model of the folder is made, and tells that the folder is a comparison."""
Target = tuple[str, str]
"""A runtime and a precision."""


class Compared(NamedTuple):
    """What comparing recipes gave."""

    trials: Trials
    """A row for every model in every runtime, the baseline first."""
    failures: dict[str, str]
    """Why a model is missing among them, by its name; the runtime stands in brackets if it is missing there alone."""
    page: Path
    """The report."""


@checked
def compare(
    model: str | Path,
    recipes: Mapping[str, Recipe],
    task: Task,
    out: str | Path,
    *,
    benchmark: Benchmark | None = None,
    calibration: Calibration | None = None,
    seed: Seed = 0,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Compared:
    """Make a model by each recipe, measure all of them beside the baseline in one run, and write a report.

    Each model goes to a folder of its own inside `out`. The same call again keeps what is there already. A recipe that
    fails is told at the end, and the others go on.

    Args:
        model: folder or hub name of the fine-tuned baseline.
        recipes: by the name of the model that each makes.
        task: gives calibration data, from training data only, and the dev examples.
        out: folder of the models, of what was measured, and of the report.
        benchmark: how to measure, in which runtimes and precisions. What runtimes need is exported; the baseline is
            then copied into `out`.
        calibration: how much text the methods look at.
        seed: of the sample and of every random choice of the recipes.
        overwrite: whether all models are made again.
        report: called with a line after each step.

    Raises:
        OutputExists: `out` holds something else, or a model that was made in another way.
        WhetError: anything wrong with the baseline or the data, before any work; or no model can be measured.
    """
    folder, how = Path(out), benchmark or Benchmark()
    name = Path(model).resolve().name if exists(Path(model)) else Path(model).name
    _check_names([name, *recipes])
    if how.metrics is not None and not {*COSTS} & {*how.metrics}:
        raise InvalidParameter(
            f"a comparison must take {' or '.join(COSTS)}, but got metrics={how.metrics}; add one, or measure the "
            "models by whet.measure"
        )
    if how.vector_form != WHOLE:
        raise InvalidParameter(
            f"vectors must be compared as models give them, but got dimensions={how.dimensions} and "
            f"vectors={how.vectors}; measure the models in {folder} with these afterwards"
        )
    task = recognized(model, task).task
    require_dev(task)
    require_held_out(task)
    with _holding(folder, overwrite=overwrite, inputs=[Path(model), *task.files]):
        making = _Making(model, name, task, folder, how, calibration or Calibration(), seed, report)
        rows, failures = making.rows(recipes)
        begun = time.perf_counter()
        recordable = records.recordable([row.source for row in rows])
        trials = Trials(how.compare(rows, task))
        report(f"measured {len(trials)} rows in {time.perf_counter() - begun:.0f} s")
        write_text(folder / MEASUREMENTS, "".join(f"{trial.to_json()}\n" for trial in trials))
        page = write_report([folder])
        own = [(Path(row.source), trial) for row, trial in zip(rows, trials, strict=True)]
        records.keep(trials, [(source, trial) for source, trial in own if source in recordable], None)
    return Compared(trials, failures, page)


@dataclass(frozen=True)
class _Making:
    """Makes the models of a comparison."""

    model: str | Path
    name: str
    task: Task
    folder: Path
    benchmark: Benchmark
    calibration: Calibration
    seed: int
    report: Callable[[str], None]

    def rows(self, recipes: Mapping[str, Recipe]) -> tuple[list[BenchmarkRow], dict[str, str]]:
        """Return what to measure, the baseline first and then runtime by runtime, and what failed."""
        how = self.benchmark
        targets = usable_targets(how.runtimes or (PYTORCH,), how.precisions or (FP32,), device=how.device)
        baseline = weights_digest(artifact.load_any(self.model, kind=self.task.kind.name()))
        data = self.task.splits
        same = {
            "baseline": baseline,
            "data": [data.train.digest(), data.validation.digest()],
            "calibration": asdict(self.calibration),
            "seed": self.seed,
        }
        wanted = {name: {**same, **_recipe_entry(recipe)} for name, recipe in recipes.items()}
        exported = [target for target in targets if isinstance(runtime_named(target[0]), ExportRuntime)]
        if exported:
            wanted[self.name] = {**same, "recipe": []}
        _note(self.folder, wanted)
        sources, failures = {self.name: self._baseline(exported)}, dict[str, str]()
        for name, recipe in recipes.items():
            with self._step(name, failures):
                self._compress(name, recipe)
                sources[name] = self.folder / name
        for name, target in [(name, target) for name in sources for target in exported]:
            with self._step(_row_name(name, target), failures):
                self._export(name, target)
        rows = [
            BenchmarkRow(source, *target)
            for target in targets
            for name, source in sources.items()
            if _row_name(name, target) not in failures
        ]
        return rows, failures

    def _baseline(self, exported: Sequence[Target]) -> str | Path:
        """Return where the baseline is measured: where it lies, or in a copy with its exports."""
        copy = self.folder / self.name
        if not exported:
            return self.model
        if not _is_whole(copy):
            runtime, precision = exported[0]
            export(self.model, [runtime], precisions=[precision], task=self.task, out=copy, overwrite=True)
        return copy

    def _compress(self, name: str, recipe: Recipe) -> None:
        place = self.folder / name
        if _is_whole(place):
            self.report(f"{name}: kept from an earlier run")
            return
        begun = time.perf_counter()
        compress(
            self.model,
            recipe,
            place,
            task=self.task,
            calibration=self.calibration,
            seed=self.seed,
            device=self.benchmark.device,
            overwrite=True,
        )
        self.report(f"{name}: made in {time.perf_counter() - begun:.0f} s")

    def _export(self, name: str, target: Target) -> None:
        """Export a model for a runtime, unless an earlier run did."""
        runtime, precision = target
        with suppress(InvalidArtifact):
            artifact.exported(self.folder / name, runtime, precision)
            return
        begun = time.perf_counter()
        export(self.folder / name, [runtime], precisions=[precision], task=self.task, seed=self.seed)
        self.report(f"{name}: exported for {runtime} {precision} in {time.perf_counter() - begun:.0f} s")

    @contextmanager
    def _step(self, name: str, failures: dict[str, str]) -> Iterator[None]:
        """Note why a step fails, and go on after the block, unless no other could be written either."""
        try:
            yield
        except OutputNotWritten:
            raise
        except Exception as error:
            kind = "" if isinstance(error, WhetError) else f"{type(error).__name__}: "
            failures[name] = f"{kind}{one_line(error)}".removesuffix(": ")
            self.report(f"{name}: failed: {failures[name]}")


@contextmanager
def _holding(folder: Path, *, overwrite: bool, inputs: Sequence[Path]) -> Iterator[None]:
    """Hold the folder of a comparison, a new one or one to go on with."""
    with ExitStack() as stack:
        if kind_of(folder) == COMPARISON and not overwrite and not files_of_others(folder):
            check_inputs(folder, inputs)
            stack.enter_context(adding_to(folder))
        else:
            stack.enter_context(claimed(folder, overwrite=overwrite, inputs=inputs))
            held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
            # last what tells the kind of folder: after a kill it must still be known as one of whet's
            remove(*(folder / name for name in sorted(held - {LOCK}, key=lambda name: name == kind_of(folder))))
        yield


def _check_names(names: Sequence[str]) -> None:
    """Refuse names that cannot be folders of models side by side."""
    if len(names) < 2:
        raise InvalidParameter("a recipe must be given to compare, but got none; give one such as kfac at keep=0.5")
    for i, name in enumerate(names):
        try:
            alone = file_name(name)[0] not in ".-" and "/" not in name
            plain = alone and name not in (COMPARISON, MEASUREMENTS)
        except ValueError:
            plain = False
        if not plain:
            raise InvalidParameter(f"a model must have a name that can be a folder's, but got {name!r}; give another")
        if name in names[:i]:
            raise InvalidParameter(f"every model must have a name of its own, but got {name} twice; rename one recipe")


def _recipe_entry(recipe: Recipe) -> dict[str, Any]:
    """What makes one recipe's model another than that of the same name before."""
    code = own_code(recipe.methods)
    return {"recipe": recipe.to_list(), **({} if code is None else {"code of its methods": code})}


def _note(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Write down how models are made, before they are.

    Raises:
        OutputExists: a model is there that was made in another way.
    """
    path = folder / COMPARISON
    known: dict[str, Any] = {}
    if path.is_file():
        known = from_json(dict, path.read_bytes(), what=str(path), error=InvalidArtifact, remedy="give --overwrite")
    made = known.get("files", {})
    for name, entry in wanted.items():
        changed = [key for key in entry if name in made and made[name].get(key) != entry[key]]
        if changed and exists(folder / name):
            raise OutputExists(
                f"a model that is kept must be made as before, but {folder / name} has {_other(changed[0])}; name "
                "another folder, or give --overwrite, which makes all models again"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"files": {**made, **wanted}}, indent=1) + "\n")


def _other(what: str) -> str:
    return f"other {what}" if what == "data" else f"another {what}"


def _row_name(name: str, target: Target) -> str:
    return f"{name} ({BenchmarkRow(name, *target).place})"


def _is_whole(folder: Path) -> bool:
    if not is_artifact(folder):
        return False
    try:
        artifact.verify(folder)
    except InvalidArtifact:
        return False
    return True

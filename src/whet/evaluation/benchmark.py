"""Measure models side by side on one task: the same examples, the same batches, the same machine, in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Interval
from transformers import PreTrainedTokenizerBase

from whet.errors import InvalidData, InvalidParameter
from whet.evaluation import records
from whet.evaluation.comparable import check_same_classes
from whet.evaluation.metrics.base import Metric, ModelUnderTest, Quality, all_metrics, quality_named, task_qualities
from whet.evaluation.places import TIMED_FROM
from whet.evaluation.rows import (
    BenchmarkRow,
    LeftOut,
    answering_texts,
    kept_files,
    rows_of,
    say_left_out,
    where_exported,
    where_kept,
    with_data,
)
from whet.evaluation.slowness import busy_advice
from whet.evaluation.trial import Trial
from whet.evaluation.vectors import require_form, with_form
from whet.models import artifact
from whet.models.artifact import LoadedModel, load_with_tokenizer
from whet.models.inference import predict
from whet.models.load import class_order, common_max_length
from whet.models.recognition import recognized
from whet.models.sentence import vector_width
from whet.numerics.vectors import WHOLE, VectorForm, require_dimensions
from whet.runtimes.base import ExportedModel, runtime_named
from whet.runtimes.export import CALIBRATION, ExportSettings
from whet.runtimes.export_cache import ExportCache, export_cache
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.encoding import encode, fitting_batch_sizes, say_cut, shortest_first
from whet.utils.hardware import current_machine
from whet.utils.lookup import choose
from whet.utils.manifests import is_artifact
from whet.utils.parameters import check
from whet.utils.precision import FP32, VectorType
from whet.utils.progress import note, track
from whet.utils.ranges import BatchSize, BatchTokens, Device, Dimensions, MaxLength, Rounds, Seed

__all__ = ["Benchmark", "MeasuredRow", "require_dev"]

BATCH_SIZE = 32
"""Examples a batch, where nothing else is asked for."""


class _Part(NamedTuple):
    """Some of the dev examples, and how many of them are in a batch."""

    examples: Examples
    batch_size: int | Sequence[int]


class MeasuredRow(NamedTuple):
    """A model where it ran, and what was measured of it."""

    row: BenchmarkRow
    trial: Trial


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How models are measured; the same for every model of a run."""

    batch_size: BatchSize | None = None
    """Examples a batch; 32, if nothing else is given."""
    batch_tokens: BatchTokens | None = None
    """Instead, tokens a batch with padding: as many examples as fit, one at least. The first model's tokens count, so
    that the batches of all hold the same examples."""
    max_length: MaxLength = 128
    """Longer inputs are cut, in tokens."""
    rounds: Rounds = 10
    """Interleaved rounds of timing; fewer than 6 cannot show a difference at p < 0.05."""
    singles: Annotated[int, Interval(ge=2, le=1_000_000)] = 50
    """Dev sentences that are timed one by one."""
    timed: Annotated[int, Interval(ge=2, le=1_000_000)] = 256
    """Dev sentences that are timed in batches."""
    seed: Seed = 0
    """Of resampling and of the order of runs."""
    device: Device = "cpu"
    """Where models run, as torch names it."""
    runtimes: tuple[str, ...] | None = None
    """Where every model runs, in turn. None means PyTorch for all, and a further row for each folder that was exported:
    where the search that made it chose it for, or else each of its exports."""
    precisions: tuple[str, ...] | None = None
    """In which of its precisions each of the runtimes but pytorch runs it; fp32 if None."""
    cache: str | Path | None = None
    """Folder of the exports of models that have none; if None, WHET_CACHE, or whet below XDG_CACHE_HOME or ~/.cache."""
    metrics: tuple[str, ...] | None = None
    """What is measured besides the task's own metrics: fidelity, latency, size, memory; everything if None."""
    from_text: bool = False
    """Whether times are from texts, as `whet.load` answers them, and not from token ids; fixed shapes are left out."""
    dimensions: Dimensions | None = None
    """Leading dimensions of an embedder's vectors that an index keeps; all if None."""
    vectors: VectorType = "float32"
    """How an index keeps each number of them. With a choice here or in `dimensions`, the baseline has a further row
    with its vectors as they are, which all rows are compared with."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range, two sizes of a batch, or precisions of no runtime."""
        check(self)
        if self.runtimes is None and self.precisions is not None:
            raise InvalidParameter(
                f"--precision must go with --runtime, but got {', '.join(self.precisions)} alone; add --runtime "
                "onnxruntime, or leave it out"
            )
        if self.batch_size is not None and self.batch_tokens is not None:
            raise InvalidParameter(
                f"one of batch_size and batch_tokens must be given, but got batch_size={self.batch_size} and "
                f"batch_tokens={self.batch_tokens}; leave one out"
            )
        if self.from_text and (self.batch_tokens is not None or self.device != "cpu"):
            raise InvalidParameter(
                "times from texts must be taken on the CPU in batches of a fixed size, but got "
                f"device={self.device}, batch_tokens={self.batch_tokens}; leave out from_text, or the other"
            )

    @property
    def vector_form(self) -> VectorForm:
        """What an index keeps of an embedder's vectors."""
        return VectorForm(self.dimensions, self.vectors)

    def run(self, sources: Sequence[str | Path], task: Task) -> list[Trial]:
        """Return one trial per runtime, precision and model, models changing first; the first is the baseline.

        A model without an export for a runtime is exported into the cache. A row that cannot be made, for lack of
        calibration data for one, is left out, which is said.

        Raises:
            InvalidData: the task's data cannot be used, or a model's head does not fit it.
            InvalidModel, InvalidArtifact: a model cannot be loaded or was altered.
            UnknownName, InvalidParameter: there is no such runtime here, or it runs elsewhere than on the device.
            WhetError: the first row cannot be made.
        """
        return [one.trial for one in self.measured(sources, task)]

    def measured(self, sources: Sequence[str | Path], task: Task) -> list[MeasuredRow]:
        """Return what `run` returns, each trial with its row."""
        if not sources:
            raise InvalidParameter("a model must be given to measure, but got none; give the baseline first")
        for source in sources:  # a wrong name, a broken configuration or another kind is told before data are read
            task = recognized(source, task).task
        require_form(self.vector_form, task.kind)
        rows = rows_of(sources, self.runtimes, self.precisions or (FP32,), device=self.device)

        def left_out(row: BenchmarkRow, error: Exception) -> None:
            if row == rows[0]:  # the others are compared with it
                raise error
            say_left_out(row, error)

        return self._measured(rows, task, left_out)

    def compare(self, rows: Sequence[BenchmarkRow], task: Task) -> list[Trial]:
        """Return one trial for each row; the first is the baseline. A row that cannot be made is an error."""

        def refuse(row: BenchmarkRow, error: Exception) -> None:
            raise error

        return [one.trial for one in self._measured(rows, task, refuse)]

    def _measured(self, rows: Sequence[BenchmarkRow], task: Task, left_out: LeftOut) -> list[MeasuredRow]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        others = self._other_metrics(task)
        files = {row: where_exported(row, device=self.device) for row in rows}
        dev = task.splits.dev
        require_dev(task)
        rows = with_data(rows, files, task, left_out)
        if self.from_text:
            rows = answering_texts(rows, task, left_out)
        sources = list(dict.fromkeys(str(row.source) for row in rows))
        artifacts = {source: _saved(source) for source in sources}  # they may be replaced meanwhile
        with export_cache(self.cache) as cache:
            plain = self._plain(sources, task, dev)
            exports = self._exported([row for row in rows if files[row] is None], task, cache, left_out)
            rows = [row for row in rows if files[row] is not None or row in exports]
            subjects = [self._placed(plain[str(row.source)], row, files[row] or (), exports.get(row)) for row in rows]
            check_same_classes(subjects, task)
            if self.vector_form != WHOLE:
                rows = [rows[0], *rows]
                subjects = [subjects[0], *(with_form(subject, self.vector_form) for subject in subjects)]
            qualities = task_qualities(task, subjects[0].order)
            measured: list[list[Any]] = [[] for _ in subjects]
            for metric in track([*qualities, *others], "measuring"):
                for own, found in zip(measured, metric.measure(subjects), strict=True):
                    own.extend(found)
        baseline = {"baseline": subjects[0].name, "baseline_artifact": artifacts[subjects[0].source].digest}
        sizes = [one.value for one in measured[0] if one.metric == "disk"]
        baseline |= {"baseline_disk": sizes[0]} if sizes else {}
        conditions = {
            **self._conditions(task, dev),
            **_scored_class(task, qualities),
            **baseline,
            **subjects[0].stopwatch.conditions,
            "measured": now,
        }
        if busy := busy_advice(conditions):
            note(busy)
        return [
            MeasuredRow(
                row,
                Trial(
                    subject.name,
                    saved.recipe,
                    self.seed,
                    own,
                    saved.digest,
                    {
                        **conditions,
                        "runtime": subject.runtime,
                        "precision": subject.precision,
                        **(subject.vectors._asdict() if subject.vectors != WHOLE else {}),
                    },
                    saved.made,
                ),
            )
            for row, subject, own in zip(rows, subjects, measured, strict=True)
            for saved in [artifacts[subject.source]]
        ]

    def _plain(self, sources: Sequence[str], task: Task, dev: Examples) -> dict[str, ModelUnderTest]:
        """Every model in PyTorch, with the same dev examples."""
        kind = task.kind.name()
        loaded = {source: load_with_tokenizer(source, kind=kind) for source in sources}
        first, models = loaded[sources[0]].tokenizer, [model.model for model in loaded.values()]
        say_cut(task, dev, first, max_length=common_max_length(self.max_length, *models))
        examples = shortest_first(dev, first, max_length=self.max_length)
        parts = {
            "dev": self._part(examples, first),
            "singles": _Part(_spread(examples, self.singles), 1),
            "timed": self._part(_spread(examples, self.timed), first),
        }
        return {source: self._subject(source, model, task, parts) for source, model in loaded.items()}

    def _exported(
        self, rows: Sequence[BenchmarkRow], task: Task, cache: ExportCache, left_out: LeftOut
    ) -> dict[BenchmarkRow, Path]:
        """The folder of the export in the cache for each row of a model that has none."""
        settings = ExportSettings(
            calibration=replace(CALIBRATION, max_length=self.max_length),
            seed=self.seed,
            held_out=False,
            kind=task.kind.name(),
        )
        return where_kept(rows, task, cache, settings=settings, left_out=left_out)

    def _placed(
        self, plain: ModelUnderTest, row: BenchmarkRow, files: tuple[Path, ...], kept: Path | None
    ) -> ModelUnderTest:
        """The same model where it is to run.

        Args:
            plain: the model in PyTorch.
            row: where it is to run.
            files: what the runtime reads from the model's folder.
            kept: the folder of its export in the cache, or None.
        """
        runtime, threads = runtime_named(row.runtime), torch.get_num_threads()
        folder = Path(plain.source) if kept is None else kept
        model = runtime.load(plain.model, folder, precision=row.precision, threads=threads)
        if model is plain.model:
            return plain
        name = f"{plain.name} ({row.place})"
        return replace(
            plain,
            name=name,
            model=model,
            answers=predict(model, plain.dev, name=name).ordered(plain.order),
            runtime=row.runtime,
            precision=model.session.precision if isinstance(model, ExportedModel) else plain.precision,
            files=files if kept is None else kept_files(kept, row),
        )

    def _other_metrics(self, task: Task) -> list[Metric]:
        """What is measured besides the task's own metrics."""
        own = {quality_named(name).name for name in task.metrics}
        others = {name: metric for name, metric in all_metrics().items() if metric.universal}
        known = {*others, *own, *task.metrics}
        wanted = others if self.metrics is None else {choose(name, known, what="the metric") for name in self.metrics}
        return [metric() for name, metric in others.items() if name in wanted and name not in own]

    def _part(self, examples: Examples, tokenizer: PreTrainedTokenizerBase) -> "_Part":
        if self.batch_tokens is None:
            return _Part(examples, self.batch_size or BATCH_SIZE)
        sizes = fitting_batch_sizes(examples, tokenizer, max_length=self.max_length, batch_tokens=self.batch_tokens)
        return _Part(examples, sizes)

    def _subject(
        self, source: str | Path, loaded: LoadedModel, task: Task, parts: Mapping[str, "_Part"]
    ) -> ModelUnderTest:
        model, tokenizer = loaded
        order = class_order(model, task)
        if self.dimensions is not None:
            require_dimensions(self.dimensions, vector_width(model.config))
        length = common_max_length(self.max_length, model)
        name = Path(source).resolve().name if Path(source).exists() else str(source)

        encoded = {
            part: encode(some.examples, tokenizer, max_length=length, batch_size=some.batch_size, device=self.device)
            for part, some in parts.items()
        }
        model.to(self.device)
        return ModelUnderTest(
            name=name,
            source=str(source),
            model=model,
            device=self.device,
            max_length=length,
            dev=encoded["dev"],
            answers=predict(model, encoded["dev"], name=name).ordered(order),
            singles=encoded["singles"],
            timed=encoded["timed"],
            rounds=self.rounds,
            seed=self.seed,
            order=tuple(order),
            tokenizer=tokenizer if self.from_text else None,
        )

    def _conditions(self, task: Task, dev: Examples) -> dict[str, Any]:
        return {
            "task": task.name,
            "data_sha256": dev.digest(),
            **current_machine(self.device).to_dict(),
            **(
                {"batch_size": self.batch_size or BATCH_SIZE}
                if self.batch_tokens is None
                else {"batch_tokens": self.batch_tokens}
            ),
            "max_length": self.max_length,
            "padding": "to the longest of a batch, sorted by length",
            "rounds": self.rounds,
            **({TIMED_FROM: "text"} if self.from_text else {}),
            "versions": artifact.versions(),
        }


def require_dev(task: Task) -> None:
    """Check that the task has examples for the final measurement.

    Raises:
        InvalidData: it has none.
    """
    if not len(task.splits.dev):
        raise InvalidData("--dev-file must be given with --train-file, but got none; add it")


def _scored_class(task: Task, qualities: Sequence[Quality]) -> dict[str, Any]:
    """The class that a metric scores, unless the task is known for it."""
    if task.ordered and task.positive is None:
        return {}
    return next(({"positive": one.conditions["class"]} for one in qualities if one.of_one_class), {})


def _spread(examples: Examples, count: int) -> Examples:
    """A sample of sorted examples, evenly over their lengths, with few inputs each."""
    indices = np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int))
    return examples.take(indices).brief()


class _Saved(NamedTuple):
    """What an artifact says of its model; nothing for models from elsewhere."""

    recipe: list[dict[str, Any]]
    digest: str | None
    made: str | None


def _saved(source: str | Path) -> _Saved:
    if not is_artifact(source):
        return _Saved([], None, None)
    folder = Path(source)
    return _Saved(records.read_steps(folder), artifact.model_digest(folder), records.description_in(folder))

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
from whet.evaluation.metrics.base import Metric, ModelUnderTest, Quality, all_metrics, quality_named, task_qualities
from whet.evaluation.trial import Trial
from whet.models import artifact
from whet.models.artifact import LoadedModel, load_with_tokenizer
from whet.models.inference import predict_logits
from whet.models.load import class_order, common_max_length
from whet.runtimes.base import ExportedModel, runtime_named
from whet.tasks.base import Task
from whet.tasks.data import Examples
from whet.tasks.encoding import encode, fitting_batch_sizes, say_cut, shortest_first
from whet.tasks.files import listed
from whet.tasks.pairing import folded
from whet.utils.hardware import current_machine
from whet.utils.lookup import choose
from whet.utils.manifests import is_artifact
from whet.utils.parameters import check
from whet.utils.precision import FP32, PYTORCH
from whet.utils.progress import track
from whet.utils.ranges import BatchSize, Device, MaxLength, Seed

__all__ = ["Benchmark", "BenchmarkRow", "require_dev"]

BATCH_SIZE = 32
"""Examples a batch, where nothing else is asked for."""


class _Part(NamedTuple):
    """Some of the dev examples, and how many of them are in a batch."""

    examples: Examples
    batch_size: int | Sequence[int]


class BenchmarkRow(NamedTuple):
    """One model where it is to run."""

    source: str | Path
    """Folder or hub name."""
    runtime: str = PYTORCH
    precision: str = FP32


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How models are measured; the same for every model of a run."""

    batch_size: BatchSize | None = None
    """Examples a batch; 32, if nothing else is given."""
    batch_tokens: Annotated[int | None, Interval(ge=1, le=100_000_000)] = None
    """Instead, tokens a batch with padding: as many examples as fit, one at least. The first model's tokens count, so
    that the batches of all hold the same examples."""
    max_length: MaxLength = 128
    """Longer inputs are cut, in tokens."""
    rounds: Annotated[int, Interval(ge=6, le=10_000)] = 10
    """Interleaved rounds of timing; fewer than 6 cannot show a difference at p < 0.05."""
    singles: Annotated[int, Interval(ge=2, le=1_000_000)] = 50
    """Dev sentences that are timed one by one."""
    timed: Annotated[int, Interval(ge=2, le=1_000_000)] = 256
    """Dev sentences that are timed in batches."""
    seed: Seed = 0
    """Of resampling and of the order of runs."""
    device: Device = "cpu"
    """Where models run, as torch names it."""
    runtimes: tuple[str, ...] = (PYTORCH,)
    """Where every model runs, in turn; others than pytorch and torch_compile need its export."""
    precisions: tuple[str, ...] = (FP32,)
    """In which of its precisions each of the others runs it."""
    metrics: tuple[str, ...] | None = None
    """Names of what is measured besides the task's own metrics, such as fidelity; everything if None."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range, or two sizes of a batch."""
        check(self)
        if self.batch_size is not None and self.batch_tokens is not None:
            raise InvalidParameter(
                f"one of batch_size and batch_tokens must be given, but got batch_size={self.batch_size} and "
                f"batch_tokens={self.batch_tokens}; leave one out"
            )

    def run(self, sources: Sequence[str | Path], task: Task) -> list[Trial]:
        """Return one trial per runtime, precision and model, models changing first; the first is the baseline.

        Raises:
            InvalidData: the task's data cannot be used, or a model's head does not fit it.
            InvalidModel, InvalidArtifact: a model cannot be loaded, was altered, or was not exported for a runtime.
            UnknownName, InvalidParameter: there is no such runtime here, or it runs elsewhere than on the device.
        """
        places = self._places()
        if not sources:
            raise InvalidParameter("a model must be given to measure, but got none; give the baseline first")
        return self.compare([BenchmarkRow(source, *place) for place in places for source in sources], task)

    def compare(self, rows: Sequence[BenchmarkRow], task: Task) -> list[Trial]:
        """Return one trial for each row; the first is the baseline. See `run`."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        others = self._other_metrics(task)
        files = [self._files(row) for row in rows]
        sources = list(dict.fromkeys(str(row.source) for row in rows))
        dev = task.splits.dev
        require_dev(task)
        length = self.max_length
        artifacts = {source: _saved(source) for source in sources}  # they may be replaced meanwhile
        loaded = {source: load_with_tokenizer(source) for source in sources}
        first = loaded[sources[0]].tokenizer
        say_cut(task, dev, first, max_length=common_max_length(length, *(model.model for model in loaded.values())))
        examples = shortest_first(dev, first, max_length=length)
        parts = {
            "dev": self._part(examples, first),
            "singles": _Part(_spread(examples, self.singles), 1),
            "timed": self._part(_spread(examples, self.timed), first),
        }
        plain = {source: self._subject(source, model, task, parts) for source, model in loaded.items()}
        subjects = [self._placed(plain[str(row.source)], row, own) for row, own in zip(rows, files, strict=True)]
        _check_same_classes(subjects, task)
        qualities = task_qualities(task, subjects[0].order)
        chosen = [*qualities, *others]
        measured: list[list[Any]] = [[] for _ in subjects]
        for metric in track(chosen, "measuring"):
            for own, found in zip(measured, metric.measure(subjects), strict=True):
                own.extend(found)
        baseline = {"baseline": subjects[0].name, "baseline_artifact": artifacts[subjects[0].source].digest}
        sizes = [one.value for one in measured[0] if one.metric == "disk"]
        baseline |= {"baseline_disk": sizes[0]} if sizes else {}
        conditions = {**self._conditions(task, dev), **_scored_class(task, qualities), **baseline, "measured": now}
        return [
            Trial(
                subject.name,
                saved.recipe,
                self.seed,
                own,
                saved.digest,
                {**conditions, "runtime": subject.runtime, "precision": subject.precision},
                saved.made,
            )
            for subject, own in zip(subjects, measured, strict=True)
            for saved in [artifacts[subject.source]]
        ]

    def _places(self) -> list[tuple[str, str]]:
        """Every runtime with each of the wanted precisions that it knows."""
        return [
            (name, precision)
            for name in dict.fromkeys(self.runtimes)
            for precision in runtime_named(name).supported(self.precisions, device=self.device)
        ]

    def _files(self, row: BenchmarkRow) -> tuple[Path, ...]:
        """What the runtime reads instead of the model's weights; looked for before anything is loaded."""
        runtime = runtime_named(row.runtime)
        runtime.require(row.precision, device=self.device)
        return tuple(runtime.files(Path(row.source), row.precision))

    def _placed(self, plain: ModelUnderTest, row: BenchmarkRow, files: tuple[Path, ...]) -> ModelUnderTest:
        """The same model where it is to run."""
        runtime, threads = runtime_named(row.runtime), torch.get_num_threads()
        model = runtime.load(plain.model, Path(plain.source), precision=row.precision, threads=threads)
        if model is plain.model:
            return plain
        name = f"{plain.name} ({row.runtime if row.precision == FP32 else f'{row.runtime} {row.precision}'})"
        return replace(
            plain,
            name=name,
            model=model,
            logits=predict_logits(model, plain.dev, name=name)[:, plain.order],
            runtime=row.runtime,
            precision=model.session.precision if isinstance(model, ExportedModel) else plain.precision,
            files=files,
        )

    def _other_metrics(self, task: Task) -> list[Metric]:
        """What is measured besides the task's own metrics."""
        own = {quality_named(name).name for name in task.metrics}
        others = {name: metric for name, metric in all_metrics().items() if metric.universal}
        wanted = others if self.metrics is None else {choose(name, others, what="the metric") for name in self.metrics}
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
            logits=predict_logits(model, encoded["dev"], name=name)[:, order],
            singles=encoded["singles"],
            timed=encoded["timed"],
            rounds=self.rounds,
            seed=self.seed,
            order=tuple(order),
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


def _check_same_classes(subjects: Sequence[ModelUnderTest], task: Task) -> None:
    """Refuse models that have different classes besides the task's, since their answers cannot be compared.

    Raises:
        InvalidData: a model has other classes than the first.
    """

    def others(subject: ModelUnderTest) -> list[str]:
        config: Any = subject.model.config
        return [
            folded(str(config.id2label[index])) for index in subject.order[len(task.label_names or subject.order) :]
        ]

    for subject in subjects[1:]:
        if others(subject) != others(subjects[0]):
            got = [f"{listed(others(one)) or 'none'} ({one.name})" for one in (subjects[0], subject)]
            raise InvalidData(
                f"models must have the same classes besides those of the data, but got {' and '.join(got)}; "
                "measure them on their own"
            )


def _spread(examples: Examples, count: int) -> Examples:
    """A sample of sorted examples, evenly over their lengths."""
    return examples.take(np.unique(np.linspace(0, len(examples) - 1, min(count, len(examples))).round().astype(int)))


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

"""The one training path, on transformers.Trainer: resumable, with a progress bar, and a row of figures per epoch."""

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint
from transformers.utils import ModelOutput

from whet.distillation import Objective
from whet.encoding import tokenize
from whet.errors import InvalidParameter, OutputNotWritten
from whet.lora import LoraSettings
from whet.parameter import Range, check
from whet.progress import Bar, bar
from whet.resources import Batches, Examples

__all__ = ["Epoch", "Lesson", "Scorer", "TrainingSettings", "distil", "train"]

Scorer = Callable[[Any, Any], float]
"""From labels and logits, both (examples, ...), to the metric that counts."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long and how fast to train."""

    epochs: Annotated[float, Range(above=0, below=math.inf)] = 5
    """Passes over the training data."""
    learning_rate: Annotated[float, Range(above=0, below=math.inf)] = 5e-5
    """Peak of AdamW's learning rate; it falls linearly to zero."""
    batch_size: Annotated[int, Range(least=1)] = 32
    """Examples a step."""
    weight_decay: Annotated[float, Range(least=0, below=math.inf)] = 0.01
    """AdamW's decoupled weight decay."""
    warmup: Annotated[float, Range(least=0, below=1)] = 0.06
    """Share of the steps over which the learning rate rises."""
    max_length: Annotated[int, Range(least=2)] = 128
    """Longer inputs are cut, in tokens."""
    seed: Annotated[int, Range(least=0, below=2**32)] = 0
    """Of the head, the order of examples and dropout."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a value outside its range."""
        check(self)


class Epoch(NamedTuple):
    """One row of the learning curve."""

    epoch: float
    training_loss: float
    validation_loss: float
    validation_metric: float


KNOWN = "teacher_logits"
"""Where batches hold what the teacher answers, if it is known."""


class Lesson(NamedTuple):
    """What a student learns from beside labels."""

    teacher: PreTrainedModel | None
    """In eval mode, of the same classes; None where its predictions are known."""
    objective: Objective
    """How much each thing counts."""
    student: str
    """What the student is made of; a run goes on only with the same."""
    logits: Tensor | None = None
    """(examples, classes) the teacher's predictions on the training data, in its order."""

    def loss(self, student: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of one batch with labels."""
        asked: dict[str, Any] = {key: value for key, value in batch.items() if key != KNOWN}
        if self.objective.reads_hidden_states:
            asked["output_hidden_states"] = True
        return self.objective.loss(student(**asked), self._wanted(batch, asked), batch["attention_mask"].bool())

    def _wanted(self, batch: Mapping[str, Tensor], asked: Mapping[str, Any]) -> ModelOutput:
        if self.teacher is None:
            return SequenceClassifierOutput(logits=batch[KNOWN])
        with torch.no_grad():
            answer: ModelOutput = self.teacher(**{key: value for key, value in asked.items() if key != "labels"})
        return answer

    def rehearse(self, student: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
        """Refuse a student that cannot learn from this teacher, on one batch.

        Raises:
            InvalidModel: it answers in another form.
        """
        with torch.no_grad():
            self.loss(student.eval(), {key: value.to(student.device) for key, value in batch.items()})


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    examples: Examples,
    validation: Examples,
    settings: TrainingSettings,
    scorer: Scorer,
    scratch: Path,
    progress: Bar,
    device: str = "cpu",
    lesson: Lesson | None = None,
    lora: LoraSettings | None = None,
) -> list[Epoch]:
    """Train `model` in place, from labels or from a teacher too, and return its learning curve.

    Checkpoints go to `scratch`; a run that finds one there goes on from it. `lora` says what adapters the model has.

    Raises:
        InvalidParameter: `scratch` holds a run with other settings, of another model or with other data.
        OutputNotWritten: a checkpoint could not be written, on a full disk for one.
    """
    encoded = tokenize(examples, tokenizer, max_length=settings.max_length)
    collator = DataCollatorWithPadding(tokenizer)
    if lesson is not None:
        if lesson.logits is not None:
            encoded = [{**row, KNOWN: known} for row, known in zip(encoded, lesson.logits.tolist(), strict=True)]
        lesson.rehearse(model, collator([encoded[0]]))
    _claim(scratch, model, examples, settings, *(() if lora is None else (lora,)), lesson=lesson)
    steps = max(1, round(settings.epochs * -(-len(examples) // settings.batch_size)))
    arguments = TrainingArguments(
        **_shared(settings.epochs, settings.learning_rate, settings.seed, device),
        output_dir=str(scratch),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=64,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * steps),
        eval_strategy="epoch",
        logging_strategy="epoch",
        remove_unused_columns=lesson is None,  # the teacher may read more of them than the student
        save_steps=max(50, steps // 10),
        save_total_limit=1,
    )
    trainer = _Trainer(
        lesson,
        model=model,
        args=_placed(arguments, device),
        train_dataset=encoded,
        eval_dataset=tokenize(validation, tokenizer, max_length=settings.max_length),
        data_collator=collator,
        compute_metrics=lambda output: _score(output, scorer),
        callbacks=[_Progress(progress)],
    )
    trainer.pop_callback(PrinterCallback)
    with _writing(scratch):
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(scratch)))
    model.eval()
    return _curve(trainer.state.log_history)


def distil(
    model: nn.Module,
    teacher: nn.Module,
    batches: Batches,
    *,
    epochs: float,
    learning_rate: float,
    temperature: float,
    hidden_states: float,
    seed: int,
) -> None:
    """Train `model` in place to give the teacher's predictions and hidden states.

    Args:
        model: of the same depth and width as the teacher.
        teacher: in eval mode.
        batches: what both read; every step takes one of them, in an order drawn anew each epoch.
        epochs: passes over the batches.
        learning_rate: AdamW's peak; it falls linearly to zero.
        temperature: divides the logits of both.
        hidden_states: weight of the error after each block, against 1 for the predictions; see `distillation`.
        seed: of the order.
    """
    device = str(next(model.parameters()).device)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with tempfile.TemporaryDirectory() as scratch, bar("distilling", 1) as progress:
        arguments = TrainingArguments(
            **_shared(epochs, learning_rate, seed, device),
            output_dir=scratch,
            per_device_train_batch_size=1,
            weight_decay=0.0,
            warmup_steps=round(0.06 * epochs * len(batches)),
            save_strategy="no",
            remove_unused_columns=False,
        )
        trainer = _Distiller(
            teacher,
            Objective(alpha=1.0, temperature=temperature, hidden_states=hidden_states),
            model=model,
            args=_placed(arguments, device),
            train_dataset=list(batches),
            data_collator=lambda batch: dict(batch[0]),
            callbacks=[_Progress(progress)],
        )
        trainer.pop_callback(PrinterCallback)
        trainer.train()
    model.eval()
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)
        parameter.grad = None


def _shared(epochs: float, learning_rate: float, seed: int, device: str) -> dict[str, Any]:
    """What every training asks of the trainer."""
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
        "report_to": [],
        "label_names": ["labels"],  # it would not find them below adapters
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "use_cpu": device == "cpu",
        "log_level": "error",
    }


def _placed(arguments: TrainingArguments, device: str) -> TrainingArguments:
    """Keep to the device that was named: of several GPUs, transformers takes the first and copies the model to all."""
    place = torch.device(device)
    if place.type == "cpu":
        return arguments
    # one state for all of accelerate, which reads its device there
    arguments.distributed_state.device = place
    arguments._n_gpu = 1
    vars(arguments)["_setup_devices"] = place  # where the choice is kept once it is made
    if place.index is not None and place.type == "cuda":
        torch.cuda.set_device(place)  # its random state is the one that checkpoints keep
    return arguments


def _claim(
    scratch: Path,
    model: PreTrainedModel,
    examples: Examples,
    *settings: TrainingSettings | LoraSettings,
    lesson: Lesson | None,
) -> None:
    """Say in `scratch` whose checkpoints it holds; without a checkpoint there is nothing to be told apart."""
    record = scratch / "settings.json"
    wanted = {"model": model.name_or_path, "data_sha256": examples.digest()}
    for one in settings:
        prefix = "lora_" if isinstance(one, LoraSettings) else ""
        wanted |= {f"{prefix}{key}": value for key, value in dataclasses.asdict(one).items()}
    if lesson is not None:
        wanted |= {"student": lesson.student, **dataclasses.asdict(lesson.objective)}
    begun = scratch.is_dir() and get_last_checkpoint(str(scratch)) is not None
    if begun and record.is_file() and (held := json.loads(record.read_text())) != wanted:
        others = ", ".join(f"{key}={value}" for key, value in wanted.items() if held.get(key) != value)
        raise InvalidParameter(
            f"an interrupted run must go on with its own settings, but got {others}, which {record} does not hold; "
            f"give those, or delete {scratch}"
        )
    scratch.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(wanted, indent=1))


@contextmanager
def _writing(scratch: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch's own writer says nothing else when the disk is full
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        raise OutputNotWritten(
            f"{scratch} must be writable to its end, but {error}; free some space and call it again"
        ) from error


def _score(output: EvalPrediction, scorer: Scorer) -> dict[str, float]:
    return {"metric": scorer(output.label_ids, output.predictions)}


def _curve(history: Sequence[dict[str, float]]) -> list[Epoch]:
    losses = {row["epoch"]: row["loss"] for row in history if "loss" in row}
    return [
        Epoch(row["epoch"], losses.get(row["epoch"], float("nan")), row["eval_loss"], row["eval_metric"])
        for row in history
        if "eval_loss" in row
    ]


class _ByLength(LengthGroupedSampler):
    """Batches of like length; seed and epoch alone decide their order, so that a resumed epoch goes on with its own."""

    def __init__(self, trainer: Trainer) -> None:
        size, seed = trainer.args.train_batch_size, trainer.args.seed
        super().__init__(size, dataset=trainer.train_dataset, model_input_name="input_ids")
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next; the trainer says so before each."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


class _Trainer(Trainer):
    """Takes its examples in the order of `_ByLength`, and learns from a teacher too if it has a lesson."""

    def __init__(self, lesson: Lesson | None, **others: Any) -> None:
        super().__init__(**others)
        self._lesson = lesson
        if lesson is not None and lesson.teacher is not None:
            lesson.teacher.to(self.args.device)

    def _get_train_sampler(self, train_dataset: Any = None) -> _ByLength:
        return _ByLength(self)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *rest: Any, **others: Any) -> Any:
        """Return the loss of one batch; held-out examples are scored by their labels alone."""
        if self._lesson is None or not model.training:
            return super().compute_loss(model, inputs, *rest, **others)
        return self._lesson.loss(model, inputs)


class _Distiller(Trainer):
    """Learns from a teacher instead of labels."""

    def __init__(self, teacher: nn.Module, objective: Objective, **others: Any) -> None:
        super().__init__(**others)
        self._teacher = teacher
        self._objective = objective

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """Return the loss of one batch."""
        asked = {**inputs, "output_hidden_states": self._objective.reads_hidden_states}
        with torch.no_grad():
            wanted = self._teacher(**asked)
        # without dropout: it would be noise that the teacher's answers do not have
        return self._objective.loss(model.eval()(**asked), wanted, inputs["attention_mask"].bool())


class _Progress(TrainerCallback):
    """Moves the bar at every step."""

    def __init__(self, progress: Bar) -> None:
        self._progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """Set the bar to the share of steps done."""
        self._progress.reach(state.global_step / state.max_steps)

"""The steps of a training run, on transformers.Trainer: batches split between processes, and whole checkpoints.

A run that resumes from a checkpoint gives what an uninterrupted one gives, bit by bit: weights and learning curve.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from whet.errors import InvalidModel
from whet.models.inference import kind_of_model, model_inputs, outputs_with_loss
from whet.tasks.encoding import LABELS
from whet.training.callbacks import SaveWholeEpochs
from whet.training.checkpoints import (
    STATE,
    checkpoint_folder,
    complete_checkpoint,
    last_checkpoint,
    new_checkpoint,
    state_of,
)
from whet.training.distiller import Teacher
from whet.training.states import (
    State,
    load_weights,
    optimizer_state,
    random_state,
    restore_optimizer,
    restore_random,
    weights,
)
from whet.utils.distributed import from_first_process, rows_of_process, wait_for_all
from whet.utils.hardware import supports_products
from whet.utils.precision import ComputePrecision
from whet.utils.progress import note

__all__ = ["ByLength", "Loop", "on_device", "shared_arguments"]

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def shared_arguments(
    epochs: float, learning_rate: float, seed: int, device: str, *, inputs: Iterable[str]
) -> dict[str, Any]:
    """Return the arguments that all training runs pass to the trainer.

    Args:
        epochs: of training.
        learning_rate: at its peak.
        seed: of all random choices.
        device: as torch names it.
        inputs: the names of what batches hold.
    """
    return {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "seed": seed,
        "report_to": [],
        # the trainer does not find them in a model with adapters, and has no loss without all of them
        "label_names": sorted(LABELS.intersection(inputs)),
        "disable_tqdm": True,
        "dataloader_pin_memory": device != "cpu",
        "average_tokens_across_devices": False,  # losses are means over examples, and each process weights its own rows
        "use_cpu": device == "cpu",
        "log_level": "error",
    }


def on_device(arguments: TrainingArguments, device: str) -> TrainingArguments:
    """Bind the trainer to one device; with several GPUs, transformers would copy the model to all of them."""
    target = torch.device(device)
    if target.type == "cpu":
        return arguments
    # all of accelerate reads its device from this shared state
    arguments.distributed_state.device = target
    arguments._n_gpu = 1
    vars(arguments)["_setup_devices"] = target  # transformers caches the device under this name
    if target.index is not None and target.type == "cuda":
        torch.cuda.set_device(target)  # checkpoints hold the random state of the current device
    return arguments


class ByLength(LengthGroupedSampler):
    """Batches of similar length, in an order that seed and epoch alone determine, as a resumed epoch requires."""

    def __init__(self, rows: Sequence[dict[str, Any]], size: int, *, seed: int) -> None:
        super().__init__(size, dataset=rows, model_input_name="input_ids")
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order is drawn next; the trainer calls it before each epoch."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


class Loop(Trainer):
    """A trainer that splits every batch between processes, can distil a teacher, and stops at a loss not finite."""

    def __init__(
        self,
        teacher: Teacher | None,
        *,
        order: Sampler[int],
        precision: ComputePrecision,
        dropout: bool = True,
        settings: Mapping[str, Any] | None = None,
        score: Callable[[nn.Module], float] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        **others: Any,
    ) -> None:
        super().__init__(callbacks=[SaveWholeEpochs(), *callbacks], **others)
        self.pop_callback(PrinterCallback)
        if self.eval_dataset is not None:  # a loss needs all labels that the trainer knows of
            self.label_names = sorted(LABELS & set(self.eval_dataset[0]))
            self.can_return_loss = teacher is not None and not self.label_names
        self._teacher = teacher
        self._order = order
        self._precision = precision
        self._dropout = dropout
        self._settings = settings or {}
        self._score = score
        if precision == "bf16" and self.args.device.type == "cpu" and not supports_products("bf16"):
            note("this processor has no instructions for bf16, so that bf16 trains many times slower than fp32")

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of whole batches in every process.

        If accelerate dealt batches out, two processes would take half as many steps.
        """
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True
        )
        return prepared

    def training_step(self, *args: Any, **others: Any) -> Tensor:
        """Return the loss of one step.

        Raises:
            InvalidModel: the loss is not finite.
        """
        loss: Tensor = super().training_step(*args, **others)
        self.require_finite(loss)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *rest: Any, **others: Any) -> Any:
        """Return this process's part of the loss of one batch; in eval mode, that on labels alone if there are any."""
        if not model.training and self._teacher is not None and not self.label_names:
            loss = self._teacher.loss(model, inputs)
            return (loss, {}) if others.get("return_outputs") else loss
        if not model.training:
            return self._loss_on_labels(model, model_inputs(inputs, model), *rest, **others)
        rows, weight = rows_of_process(inputs)
        model.train(self._dropout)
        # the trainer's own bf16 mode would leave the model's forward method wrapped after training
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            if self._teacher is None:
                return weight * self._loss_on_labels(model, model_inputs(rows, model), *rest, **others)
            return weight * self._teacher.loss(model, rows)

    def _loss_on_labels(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **others: Any
    ) -> Any:
        if kind_of_model(model).own_loss:
            return super().compute_loss(model, inputs, return_outputs, **others)
        outputs = outputs_with_loss(model, inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def evaluation_loop(self, *args: Any, **others: Any) -> EvalLoopOutput:
        """Return the loss on the held-out examples and their score."""
        output = super().evaluation_loop(*args, **others)
        if self._score is not None:
            output.metrics["eval_metric"] = self._score(self.model.eval())
        return output

    def require_finite(self, *tensors: Tensor) -> None:
        """Check losses or weights before they reach a checkpoint.

        Raises:
            InvalidModel: one of them is not finite.
        """
        if all(tensor.isfinite().all() for tensor in tensors):
            return
        scratch = Path(self.args.output_dir)
        last = last_checkpoint(scratch)
        advice = f"; the last good checkpoint is {last}; delete {scratch} and" if last else ";"
        raise InvalidModel(
            f"the loss and the weights must stay finite, but got others at step {self.state.global_step} with "
            f"learning_rate={self.args.learning_rate:g}{advice} give a smaller learning rate"
        )

    def finish(self, checkpoint: Path) -> None:
        """Take over the weights and the learning curve of a checkpoint after the last step."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = state_of(checkpoint)

    # the names below are those of transformers, which calls them

    def _save_checkpoint(self, *args: Any, **others: Any) -> None:
        self.require_finite(*self.model.parameters())
        folder = checkpoint_folder(Path(self.args.output_dir), self.state.global_step)
        from_first_process(lambda: new_checkpoint(folder))
        steps = self.state.global_step - self._globalstep_last_logged
        own = random_state()
        running = {"running_loss": self._tr_loss}
        State({**own.tensors, **running}, {**own.values, "steps": steps}).write(folder / self._own_file())
        # the list of files, which completes the checkpoint, must name the file of every process
        wait_for_all()
        from_first_process(lambda: self._complete(folder))

    def _complete(self, folder: Path) -> None:
        weights(self.model).write(folder / WEIGHTS)
        optimizer_state(self.optimizer, self.lr_scheduler).write(folder / OPTIMIZER)
        self.state.save_to_json(str(folder / STATE))
        complete_checkpoint(folder, self._settings)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model if model is None else model, State.read(Path(resume_from_checkpoint) / WEIGHTS))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            restore_optimizer(self.optimizer, self.lr_scheduler, State.read(Path(checkpoint) / OPTIMIZER))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        own = State.read(Path(checkpoint) / self._own_file())
        restore_random(own)
        # transformers would begin the mean loss of an epoch anew in its middle
        self._tr_loss = own.tensors["running_loss"].to(self.args.device)
        self._globalstep_last_logged = self.state.global_step - own.values["steps"]

    def _own_file(self) -> str:
        return f"process-{self.args.process_index}.safetensors"

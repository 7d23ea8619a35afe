"""`finetune` and `distill`: the verbs that train."""

from dataclasses import replace
from pathlib import Path

from whet.cli.console import print_curve, show, tell
from whet.cli.options import LoraOptions, MachineOptions, OutputOptions, TaskOptions, TrainingOptions, in_words
from whet.utils.ranges import Alpha, Temperature, Weight


def finetune(
    base: str,
    /,
    *,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    training: TrainingOptions = TrainingOptions(),
    adapters: LoraOptions = LoraOptions(),
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Train a base model for a task; an interrupted run goes on where it stopped.

    Args:
        base: Folder or hub name of a base model.
    """
    from whet.models.model_files import ModelFiles

    settings, lora = training.settings(machine.seed), adapters.settings()
    ModelFiles.of(base)
    task = data.load()
    device = machine.use()  # what is wrong so far is said before what is slow to import
    from whet import api

    curve = api.finetune(
        base,
        task,
        output.out,
        settings=settings,
        lora=lora,
        device=device,
        overwrite=output.overwrite,
        report_to=training.report_to,
        report=lambda share: None if output.as_json or lora is None else show(str(share)),
    )
    print_curve(curve, f"{output.out}: {task.metrics[0]} on held-out training data", as_json=output.as_json)
    if not output.as_json:
        small = output.out.with_name(f"{output.out.name}-small")
        same = data.words(max_length=training.max_length)
        words = in_words("whet", "compress", output.out, "--speedup", "2", *same, "--out", small)
        show(f"saved to {output.out}")
        tell(f"make it smaller: {words}")


def distill(
    teacher: str,
    /,
    *,
    student: str,
    output: OutputOptions,
    data: TaskOptions = TaskOptions(),
    alpha: Alpha | None = None,
    temperature: Temperature = 2,
    hidden_states: Weight = 0,
    cosine: Weight = 0,
    relations: Weight = 0,
    similarities: Weight = 0,
    unlabeled: Path | None = None,
    cache: Path | None = None,
    training: TrainingOptions = TrainingOptions(),
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Train a smaller model from a fine-tuned one; an interrupted run goes on where it stopped.

    Args:
        teacher: Folder or hub name of a fine-tuned model.
        student: What to train: layer_subset:odd, :even, :top:3, :bottom:3, :evenly_spaced:3, :influence:3, :kl:3 or
            :0,2,4; recurrent:lstm:256, :bilstm:256:2 or :rnn:128:own; transformer:layers=2,width=128 or :NAME;
            static:256 or cnn:256.
        alpha: Weight of the teacher's predictions; the labels get the rest. 0.5 if not given, and 1 for embeddings.
        temperature: Divides the logits of both models.
        hidden_states: Weight of the hidden states' error.
        cosine: Weight of 1 - cosine of the last hidden states.
        relations: Weight of the relations in the last attention.
        similarities: Weight of the similarities of texts in a batch, for embeddings alone.
        unlabeled: File with more text, in the columns --text and --text-pair; its labels are not read.
        cache: Folder that keeps the teacher's predictions for more runs.
    """
    from whet.models.model_files import ModelFiles

    settings = training.settings(machine.seed)
    ModelFiles.of(teacher)
    task = data.load()
    output.keep(unlabeled)
    from whet.models.recognition import recognized
    from whet.training.objective import Objective
    from whet.training.students.base import student_from

    given = {} if alpha is None else {"alpha": alpha}
    task = recognized(teacher, task).task
    objective = replace(
        Objective.for_kind(task.kind),
        temperature=temperature,
        hidden_states=hidden_states,
        cosine=cosine,
        relations=relations,
        similarities=similarities,
        **given,
    )
    wanted = student_from(student)
    device = machine.use()  # what is wrong so far is said before what is slow to import
    from whet import api

    curve = api.distill(
        teacher,
        wanted,
        task,
        output.out,
        settings=settings,
        objective=objective,
        cache=cache,
        unlabeled=None if unlabeled is None else data.more_text(unlabeled, task),
        device=device,
        overwrite=output.overwrite,
        report_to=training.report_to,
        report=lambda built: None if output.as_json else show(f"student: {built.plan}"),
    )
    metric = task.metrics[0] if task.metrics else "cosine with the teacher"
    print_curve(curve, f"{output.out}: {metric} on held-out training data", as_json=output.as_json)
    if not output.as_json:
        show(f"saved to {output.out}")
        same = data.words(max_length=training.max_length)
        tell(f"measure it: {in_words('whet', 'measure', teacher, output.out, *same)}")

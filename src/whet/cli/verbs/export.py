"""The verb `export` of the command line."""

from pathlib import Path

from whet.cli.console import print_agreements, print_json
from whet.cli.options import InputLength, Json, Precisions, SeedOptions, TaskOptions, names_in


def export(
    model: Path,
    /,
    *,
    to: str,
    precision: Precisions = "fp32",
    max_kl: float | None = None,
    opset: int | None = None,
    max_length: InputLength = 128,
    data: TaskOptions = TaskOptions(),
    machine: SeedOptions = SeedOptions(),
    as_json: Json = False,
) -> None:
    """Write what other runtimes run beside the weights, once it gives the model's own answers.

    Args:
        model: Folder of a model that whet wrote.
        to: Runtimes, separated by commas: onnxruntime (or onnx), openvino.
        max_kl: Largest mean KL on held-out training data, in nats; layers that cost most stay in fp32 until it is met.
        opset: Version of ONNX's operators, 18 to 23, for older versions of ONNX Runtime; the fastest if not given.
    """
    from dataclasses import replace

    from whet.runtimes.export import CALIBRATION
    from whet.runtimes.export import export as export_model

    machine.use_cpu()
    agreements = export_model(
        model,
        names_in(to),
        precisions=names_in(precision),
        task=data.load_if_given(),
        calibration=replace(CALIBRATION, max_length=max_length),
        seed=machine.seed,
        max_kl=max_kl,
        threads=machine.threads,
        opset=opset,
    )
    if as_json:
        print_json({" ".join(target): agreement._asdict() for target, agreement in agreements.items()})
    else:
        print_agreements(agreements)

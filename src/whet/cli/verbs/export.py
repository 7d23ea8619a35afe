"""The verb `export` of the command line."""

from dataclasses import fields
from pathlib import Path

from whet.cli.console import print_agreements, print_json, show
from whet.cli.options import (
    Flag,
    InputLength,
    Json,
    Precisions,
    SeedOptions,
    TaskOptions,
    given_words,
    in_words,
    names_in,
)
from whet.errors import InvalidArtifact
from whet.utils.manifests import is_artifact


def export(
    model: str,
    /,
    *,
    to: str,
    precision: Precisions = "fp32",
    max_kl: float | None = None,
    opset: int | None = None,
    max_length: InputLength = 128,
    data: TaskOptions = TaskOptions(),
    machine: SeedOptions = SeedOptions(),
    out: Path | None = None,
    overwrite: Flag = False,
    as_json: Json = False,
) -> None:
    """Write what other runtimes run, once it gives the model's own answers.

    Args:
        model: Folder of a model that whet wrote, beside whose weights the files go; or, with --out, any folder or hub
            name.
        to: Runtimes, separated by commas: onnxruntime (or onnx), openvino.
        max_kl: Largest mean KL on held-out training data, in nats; layers that cost most stay in fp32 until it is met.
        opset: Version of ONNX's operators, 18 to 23, for older versions of ONNX Runtime; the fastest if not given.
        out: Folder to write: the model, its tokenizer and the export.
        overwrite: Replace the output folder.
    """
    if out is None and not is_artifact(model):
        options = {
            "precision": (precision, "fp32"),
            "max_kl": (max_kl, None),
            "opset": (opset, None),
            "max_length": (max_length, 128),
            **{one.name: (getattr(group, one.name), one.default) for group in (data, machine) for one in fields(group)},
        }
        _require_out(model, ["--to", to, *given_words(options)])
    from dataclasses import replace

    from whet import api
    from whet.runtimes.export import CALIBRATION

    machine.use_cpu()
    agreements = api.export(
        model,
        names_in(to),
        precisions=names_in(precision),
        task=data.load_if_given(),
        calibration=replace(CALIBRATION, max_length=max_length),
        seed=machine.seed,
        max_kl=max_kl,
        threads=machine.threads,
        opset=opset,
        out=out,
        overwrite=overwrite,
    )
    if as_json:
        print_json({" ".join(target): agreement._asdict() for target, agreement in agreements.items()})
        return
    print_agreements(agreements)
    if out is not None:
        show(f"saved to {out}; measure it: {in_words('whet', 'measure', model, out, *data.words())}")


def _require_out(model: str, words: list[str]) -> None:
    """Say what to type for a model that whet did not write; nothing is written into its folder.

    Raises:
        InvalidModel: there is no such model.
        InvalidArtifact: there is.
    """
    from whet.models.checkpoint import Checkpoint

    Checkpoint.of(model)
    command = in_words("whet", "export", model, *words, "--out", f"{Path(model).resolve().name}-exported")
    raise InvalidArtifact(
        f"an export must have a folder that whet wrote, but got {model}; give one for a copy of the model with its "
        f"export: {command}"
    )

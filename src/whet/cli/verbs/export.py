"""The verb `export` of the command line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from whet.cli.console import print_agreements, print_exports, print_json, show, tell
from whet.cli.options import (
    MAX_LENGTH,
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
from whet.errors import InvalidArtifact, InvalidParameter
from whet.utils.manifests import is_artifact
from whet.utils.ranges import Dimensions, MaxKl, Opset


def export(
    model: str,
    /,
    *,
    to: Annotated[str | None, Parameter(alias="--runtime")] = None,
    precision: Precisions = "fp32",
    max_kl: MaxKl | None = None,
    opset: Opset | None = None,
    max_length: InputLength = MAX_LENGTH,
    dimensions: Dimensions | None = None,
    data: TaskOptions = TaskOptions(),
    machine: SeedOptions = SeedOptions(),
    out: Path | None = None,
    deploy: Path | None = None,
    overwrite: Flag = False,
    as_json: Json = False,
) -> None:
    """Write what other runtimes run, once it gives the model's own answers.

    Args:
        model: Folder of a model that whet wrote, beside whose weights the files go; or, with --out, any folder or hub
            name.
        to: Runtimes, separated by commas: onnxruntime (or onnx), openvino. Only --deploy does without it: it takes an
            export that is there.
        max_kl: Largest mean KL on held-out training data, in nats; layers that cost most stay in fp32 until it is met.
        opset: Version of ONNX's operators, 18 to 23, for older versions of ONNX Runtime; the fastest if not given.
        dimensions: Leading dimensions that the vectors of an embedder keep in --out, e.g. 128; all if not given.
        out: Folder to write: the model, its tokenizer and the export.
        deploy: Folder to write: all that runs the model without torch, with a small server.
        overwrite: Replace the output folder.
    """
    options = {
        "precision": (precision, "fp32"),
        "max_kl": (max_kl, None),
        "opset": (opset, None),
        "max_length": (max_length, MAX_LENGTH),
        "dimensions": (dimensions, None),
        **{one.name: (getattr(group, one.name), one.default) for group in (data, machine) for one in fields(group)},
    }
    if deploy is not None:
        _check_deployment(deploy, model, names_in(to or ""), names_in(precision), kind=data.kind, overwrite=overwrite)
    elif to is None:
        raise InvalidParameter("--to must name a runtime, but got nothing; --to onnxruntime exports the model")
    if to is None:
        _refuse_settings(given_words({**options, "out": (out, None)}))
        _deployed(model, deploy, overwrite=overwrite, as_json=as_json)
        return
    if out is None and deploy is None and (dimensions is not None or not is_artifact(model)):
        _require_out(model, ["--to", to, *given_words(options)])
    from dataclasses import replace

    from whet import api
    from whet.runtimes.export import CALIBRATION

    machine.use_cpu()
    with _place(model, out, dimensions) as place:
        agreements = api.export(
            model,
            names_in(to),
            precisions=names_in(precision),
            task=data.load_if_given(),
            kind=data.kind,
            dimensions=dimensions,
            calibration=replace(CALIBRATION, max_length=max_length),
            seed=machine.seed,
            max_kl=max_kl,
            threads=machine.threads,
            opset=opset,
            out=place,
            overwrite=overwrite,
        )
        if deploy is not None:
            _deployed(place or model, deploy, *agreements, overwrite=overwrite, as_json=as_json)
            return
    if as_json:
        print_json({" ".join(target): agreement._asdict() for target, agreement in agreements.items()})
        return
    print_agreements(agreements)
    print_exports(out or Path(model), agreements)
    if out is not None:
        show(f"saved to {out}")
        words = data.words(max_length=max_length, pairs=_embeds(out))
        tell(f"measure it: {in_words('whet', 'measure', model, out, *words)}")


def _check_deployment(
    folder: Path,
    model: str,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    *,
    kind: str | None,
    overwrite: bool,
) -> None:
    """Refuse what cannot become a deployment before anything is exported."""
    from whet.api.deploying import require_exports
    from whet.models.checkpoint import Checkpoint
    from whet.utils.outputs import check_output

    for known in Checkpoint.of(model).kinds(kind) if runtimes else ():
        require_exports(known.name(), model)
    if len(runtimes) > 1 or len(precisions) > 1:
        raise InvalidParameter(
            f"--deploy must go with one runtime and precision, but got {', '.join(runtimes)} in "
            f"{', '.join(precisions)}; name one of each"
        )
    check_output(folder, overwrite=overwrite, inputs=[Path(model)])


def _embeds(folder: Path) -> bool:
    """Return whether a folder that whet wrote holds an embedder, which pairs of texts measure."""
    from whet.run.folder import ModelFolder
    from whet.tasks.kinds.base import NO_HEAD, kind_named

    return NO_HEAD in kind_named(ModelFolder(folder).kind).heads


def _refuse_settings(words: Sequence[str]) -> None:
    """Refuse settings of an export where none is made.

    Raises:
        InvalidParameter: there are some.
    """
    if words:
        raise InvalidParameter(
            f"--deploy must stand alone where it takes an export that is there, but got {' '.join(words)}; add --to "
            "onnxruntime to make one, or leave them out"
        )


@contextmanager
def _place(model: str, out: Path | None, dimensions: int | None) -> Iterator[Path | None]:
    """Yield the folder to export into; None for the model's own. That of others, without --out, is a temporary one."""
    if out is not None or (is_artifact(model) and dimensions is None):
        yield out
        return
    from whet.utils.scratch import temporary_folder

    with temporary_folder() as folder:
        yield folder / Path(model).resolve().name


def _deployed(
    model: str | Path, folder: Path | None, target: tuple[str, str] | None = None, *, overwrite: bool, as_json: bool
) -> None:
    """Write a deployment and show it."""
    from whet import api

    assert folder is not None
    runtime, precision = target or (None, None)
    deployment = api.deploy(model, folder, runtime=runtime, precision=precision, overwrite=overwrite)
    if as_json:
        print_json({"folder": str(folder), "target": deployment.target, "bytes": deployment.size})
        return
    size = f"{deployment.size / 2**20:.1f} MiB"
    show(f"saved to {folder}: {deployment.target}, {size}; run it in Python: whet.load({str(folder)!r})")


def _require_out(model: str, words: list[str]) -> None:
    """Say what to type for a model that whet did not write, or with other vectors; its folder stays as it is.

    Raises:
        InvalidModel: there is no such model.
        InvalidArtifact: there is.
    """
    from whet.models.model_files import ModelFiles

    ModelFiles.of(model)
    command = in_words("whet", "export", model, *words, "--out", f"{Path(model).resolve().name}-exported")
    raise InvalidArtifact(
        f"an export must lie beside the model that it is of, in a folder that whet wrote, but got {model}; give one "
        f"for a copy of the model with its export: {command}"
    )

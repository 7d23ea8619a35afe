"""Deployments: a folder with the one file that runs, its tokenizer and labels, and all that serving it needs."""

import json
import shlex
import shutil
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from whet.errors import InvalidArtifact, InvalidParameter
from whet.evaluation.card import Form, won_by
from whet.evaluation.formatting import markdown_text
from whet.evaluation.records import trials
from whet.models.artifact import versions
from whet.models.checkpoint import Checkpoint
from whet.models.manifest import Manifest
from whet.run.folder import ModelFolder
from whet.run.kinds.base import predictor_named
from whet.run.target import OPENVINO, choose_target, target_name
from whet.run.text import SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, TokenEncoder
from whet.tasks.kinds.base import kind_named
from whet.tasks.sentences import MODULES, SETTINGS, TRANSFORMER
from whet.utils.calls import checked
from whet.utils.commands import export_command
from whet.utils.files import digest
from whet.utils.lengths import longest_input
from whet.utils.manifests import CARD, CONFIG, MANIFEST, MEASUREMENTS, MODULE_FOLDERS
from whet.utils.outputs import holding_output, new_folder
from whet.utils.precision import PYTORCH

__all__ = ["Deployment", "deploy", "require_exports"]

SERVER, REQUIREMENTS = "serve.py", "requirements.txt"
_COPIED = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, MODULES, SETTINGS, TRANSFORMER)
_OF_MODULES = f"{MODULE_FOLDERS}/*.json"
_SERVE = '''"""Serve the model in this folder: `uvicorn serve:app`, then POST JSON to /predict; /docs says what."""

from pathlib import Path

from whet.run import server

app = server(Path(__file__).parent)
'''
_CARD = """# {name}

{won}{holds}, {size:.0f} MiB for {target}, made by whet {version} from {origin}. It needs no torch and no transformers.

```
pip install -r requirements.txt
```

```python
import whet

predictor = whet.load(".")
print({call})
```

`uvicorn serve:app` serves it: POST `{request}` to `/predict`.
"""


class Deployment(NamedTuple):
    """What a deployment holds."""

    folder: Path
    """Where it is."""
    target: str
    """Runtime and precision, such as `onnxruntime int8`."""
    size: int
    """Bytes of all its files."""


def require_exports(kind: str, model: str | Path) -> None:
    """Refuse a model of a kind that runs in PyTorch alone.

    Args:
        kind: its name.
        model: folder or hub name, for the message.

    Raises:
        InvalidParameter: the kind is such.
    """
    if not predictor_named(kind).runs_exports:
        raise InvalidParameter(
            f"a deployment must hold what runs without torch, but {model} is {kind_named(kind).holds}, which runs in "
            "PyTorch alone; copy its folder"
        )


@checked
@holding_output("model")
def deploy(
    model: str | Path,
    out: str | Path,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    overwrite: bool = False,
) -> Deployment:
    """Write a folder that runs a model without torch: one export, tokenizer, labels, a server and its requirements.

    `whet.load(out)` loads it.

    Args:
        model: folder of a model that was exported.
        out: folder to write.
        runtime: onnxruntime or openvino; chosen as `whet.load` chooses, if None.
        precision: such as int8; chosen in the same way.
        overwrite: whether `out` may be replaced.

    Raises:
        InvalidParameter: the model has no such export.
        InvalidArtifact: a file is missing or altered.
        OutputExists, OutputNotWritten: `out` exists or cannot be written.
    """
    source = ModelFolder(Path(model))
    if source.is_own:
        require_exports(source.kind, model)
    else:
        Checkpoint.of(model).refuse_encoder_decoder()
    if not source.exports or runtime == PYTORCH:
        raise InvalidParameter(
            f"a deployment must hold an export, but {model} {'runs in PyTorch' if runtime == PYTORCH else 'has none'}; "
            f"{export_command(model, 'onnxruntime')} --deploy {shlex.quote(str(out))}"
        )
    target = choose_target(source, runtime, precision, exported=True)
    entry = source.manifest["exports"][" ".join(target)]
    TokenEncoder(source, None)  # a tokenizer that only transformers can read is refused here
    listed = [name for name in source.manifest["files"] if name in _COPIED or fnmatchcase(name, _OF_MODULES)]
    exported = source.export_files(*target)
    with new_folder(Path(out), overwrite=overwrite) as draft:
        for path in (*map(source.file, listed), *exported):
            copy = draft / path.relative_to(source.path)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
        (draft / SERVER).write_text(_SERVE, encoding="utf-8")
        (draft / REQUIREMENTS).write_text(_requirements(target[0]), encoding="utf-8")
        (draft / CARD).write_text(_card(source, Path(out), target, exported), encoding="utf-8")
        about = {
            "kind": source.kind,
            "target": dict(zip(("runtime", "precision"), target, strict=True)),
            "max_length": source.measured_length(target) or longest_input(source.config),
            "deployed_from": entry["model"],
            "versions": versions(),
            "exports": {" ".join(target): entry},
            "files": {name: digest(draft / name) for name in [*listed, SERVER, REQUIREMENTS, CARD]},
        }
        (draft / MANIFEST).write_text(Manifest.model_validate(about).to_json(), encoding="utf-8")
    size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    return Deployment(Path(out), target_name(target), size)


def _requirements(runtime: str) -> str:
    """The packages that run and serve a model, in the versions that are installed here."""
    own = "openvino" if runtime == OPENVINO else "onnxruntime"
    packages = ("whet", "lazy_loader", "numpy", "tokenizers", own, "fastapi", "uvicorn")
    known, extras = versions(*packages), {"whet": "" if runtime == OPENVINO else "[run]"}
    pinned = (f"=={known[package]}" if package in known else "" for package in packages)
    return "".join(f"{package}{extras.get(package, '')}{pin}\n" for package, pin in zip(packages, pinned, strict=True))


def _card(source: ModelFolder, out: Path, target: tuple[str, str], paths: list[Path]) -> str:
    origin = source.manifest.get("origin") or source.path.resolve().name
    answering, holds = predictor_named(source.kind), kind_named(source.kind).holds
    labels = f" ({markdown_text(', '.join(source.labels))})" if answering.has_labels and len(source.labels) > 1 else ""
    won = _won(source.path, target)
    return _CARD.format(
        name=markdown_text(out.resolve().name),
        target=target_name(target),
        size=sum(path.stat().st_size for path in paths) / 2**20,
        version=versions()["whet"],
        origin=markdown_text(str(origin)),
        holds=f"{holds[0].upper()}{holds[1:]}{labels}",
        call=answering.call,
        request=json.dumps(answering.request),
        won=won and f"{won}\n\n",
    )


def _won(model: Path, target: tuple[str, str]) -> str:
    """What the form that is deployed won where it was measured; a damaged record is passed over, as everywhere here."""
    if not (model / MEASUREMENTS).is_file():
        return ""
    with suppress(InvalidArtifact):
        return won_by(Form(*target), trials(model))
    return ""

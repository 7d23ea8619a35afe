"""Alter the files of saved models: flipped bits, lost ends, swapped, added and deleted files, edited notes.

    cd tests && python -m campaigns.altered [--count 1000] [--seed 0] [--only KIND ...] [--processes 2] [--keep]

Whatever reads a folder (loading, compressing, measuring, sessions of its export, reports) must refuse an alteration
with an error of whet's, or give exactly the answers that the untouched folder gives. No alteration is ever executed.
What it cannot tell is out of its reach by design: a manifest is not signed, and measurements are notes.
"""

import argparse
import contextlib
import io
import json
import os
import pickle  # only to write traps, which nothing may read
import random
import shutil
import sys
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from campaigns.command import Plan, run_campaign
from folders import classifier
from helpers import word_tokenizer
from measured import trial
from whet import api
from whet.api.exporting import export
from whet.calibration.resources import Resources
from whet.errors import InvalidArtifact, WhetError
from whet.evaluation import records
from whet.methods.recipe import Recipe
from whet.models import artifact
from whet.report.collect import collect_results
from whet.report.html import html_page
from whet.report.view import report_view
from whet.runtimes.base import runtime_named
from whet.utils.manifests import MANIFEST, MEASUREMENTS, RECIPE

__all__ = ["KINDS", "Alteration", "Situation", "alterations", "prepare_models", "problems_of"]

TEXT = "w5 w6 w7 w8"
RUNTIME = "onnxruntime"
PLAIN = "plain transformers"
STEPS = [{"method": "factorization.svd", "keep": 0.5}]


@dataclass(frozen=True)
class Alteration:
    """One change of a folder, which the seed decides."""

    kind: str
    seed: str

    def apply(self, folder: Path, situation: "Situation") -> str:
        """Change a copy of the model, and return what was done."""
        return KINDS[self.kind](folder, random.Random(self.seed), situation)


@dataclass(frozen=True)
class Situation:
    """Two whole models, and what their readers answer."""

    model: Path
    """Compressed, exported and measured; it is copied, and the copy is altered."""
    other: Path
    """Another model of the same files."""
    answers: Mapping[str, Any]
    """What each reader answers for the whole model."""
    marker: Path
    """A file that appears if anything in a folder is executed."""


# what reads a folder


def _loaded(folder: Path, scratch: Path) -> Any:
    """What compress, measure, distil, export and search load."""
    model, tokenizer = artifact.load_with_tokenizer(folder)
    batch = tokenizer(TEXT, return_tensors="pt")
    return batch["input_ids"].tolist(), _logits(model, batch)


def _plain(folder: Path, scratch: Path) -> Any:
    return _logits(api.load_model(folder), {"input_ids": torch.tensor([[2, 5, 6, 3]])})


def _by_transformers(folder: Path, scratch: Path) -> Any:
    """It compares the configuration and the weights; whatever transformers says of other files is refusal too."""
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    except Exception as error:
        raise InvalidArtifact("transformers refuses it") from error
    return _logits(model, {"input_ids": torch.tensor([[2, 5, 6, 3]])})


def _recorded(folder: Path, scratch: Path) -> Any:
    """What measure looks at first; a note is answered for by nobody, and left out."""
    records.recordable([folder])
    artifact.verify(folder)
    return records.read_steps(folder)


def _compressed(folder: Path, scratch: Path) -> Any:
    out = scratch / "out"
    api.compress(folder, Recipe.from_list([{"method": "quantization.half"}]), out, overwrite=True)
    return (out / "model.safetensors").read_bytes(), (out / "config.json").read_bytes()


def _session(folder: Path, scratch: Path) -> Any:
    runtime = runtime_named(RUNTIME)
    runtime.files(folder)
    session = runtime.load(classifier(blocks=1), folder, threads=1).session
    ids = torch.tensor([[2, 5, 6, 3]])
    return session({"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids * 0})[
        "logits"
    ].tolist()


def _reported(folder: Path, scratch: Path) -> Any:
    warned: list[str] = []
    results = collect_results([folder], warn=warned.append)
    page = html_page(report_view(results), results, mark="campaign")
    if warned or "Not shown:" in page:
        raise InvalidArtifact("the page says so")
    return page


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "load": _plain,
    "load with tokenizer": _loaded,
    PLAIN: _by_transformers,
    "measure's look before": _recorded,
    "compress": _compressed,
    "a session": _session,
    "report": _reported,
}
NOTE_READERS = ("report",)
"""They show measurements, which are notes: nobody can tell that another figure is wrong."""


def _logits(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> Any:
    with torch.inference_mode():
        return model(**batch).logits.tolist()


# alterations


def _one_of(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def _flip(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 3))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return f"bits of {path.name} flipped"


def _truncate(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    content = path.read_bytes()
    path.write_bytes(content[: chance.choice((0, len(content) - 1, chance.randrange(len(content))))])
    return f"{path.name} cut to {path.stat().st_size} bytes"


def _grow(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    path.write_bytes(path.read_bytes() + chance.choice((b"\0", b"\n", b"{}", chance.randbytes(100))))
    return f"{path.name} longer"


def _delete(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    path.unlink()
    return f"{path.name} deleted"


def _swap(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    if chance.random() < 0.7 and (situation.other / path.name).exists():
        shutil.copy(situation.other / path.name, path)
        return f"{path.name} of the other model"
    second = _one_of(folder, chance)
    contents = path.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    path.write_bytes(contents[1])
    return f"{path.name} and {second.name} exchanged"


def _link(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    path.unlink()
    target = chance.choice(
        (situation.model / path.name, situation.other / path.name, Path("/dev/zero"), Path("nowhere"))
    )
    path.symlink_to(target)
    return f"{path.name} a link to {target}"


def _special(folder: Path, chance: random.Random, situation: Situation) -> str:
    path = _one_of(folder, chance)
    path.unlink()
    kind = chance.choice(("pipe", "folder"))
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    return f"{path.name} a {kind}"


READ = (
    "adapter_config.json", "adapter_model.safetensors", "added_tokens.json", "chat_template.jinja", "vocab.txt",
    "generation_config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json", "modules.json",
    "config_sentence_transformers.json", "pytorch_model.bin", "special_tokens_map.json", "merges.txt", "spiece.model",
    "tokenizer.4.0.0.json",
)  # fmt: skip
NOT_READ = (
    "notes.txt", ".manifest.json.123.partial", "results.json", "modeling_bert.py", "training_args.bin", "optimizer.pt",
    "conftest.py", "checkpoint-10", ".export.partial", "__init__.py",
)  # fmt: skip


def _add_read(folder: Path, chance: random.Random, situation: Situation) -> str:
    """A file that a load reads: it must be refused even where it changes nothing."""
    name = chance.choice(READ)
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(situation.other),
        "r": 1,
        "target_modules": ["query"],
    }
    index = {"metadata": {}, "weight_map": {"classifier.weight": "../other/model.safetensors"}}
    contents = (json.dumps(adapter).encode(), json.dumps(index).encode(), b'{"w5": 6}', _pickle(situation), b"")
    (folder / name).write_bytes(chance.choice(contents))
    return f"{name} added"


def _add_other(folder: Path, chance: random.Random, situation: Situation) -> str:
    """A file that no load reads: it must not matter, and not be executed."""
    name = chance.choice(NOT_READ)
    code = f"open({os.fspath(situation.marker)!r}, 'w')".encode()
    (folder / name).write_bytes(chance.choice((b"", code, _pickle(situation), b"{}")))
    return f"{name} added beside"


def _pickle(situation: Situation) -> bytes:
    return pickle.dumps(_Trap(os.fspath(situation.marker)))


class _Trap:
    """Unpickled, it writes the marker."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (self.marker, "w"))


ODD = (
    None, True, 0, -1, 3.5, 10**30, "", "x" * 300, "../x", "/etc/passwd", "a/b", "\0", [], [[]], {}, {"x": {}}, ["a"],
    "0" * 64, float("inf"), float("nan"),
)  # fmt: skip


def _edit_json(path: Path, chance: random.Random) -> str:
    """Change, remove or add a value somewhere in a JSON file."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    places: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            look(value[key])

    look(whole)
    holder, key = chance.choice(places)
    action = chance.choice(("set", "set", "remove", "rename", "nest"))
    if action == "remove":
        del holder[key]
    elif action == "rename" and isinstance(holder, dict):
        holder[chance.choice(("", "../x", "x" * 300, "files", "adapter_config.json", "a\nb"))] = holder.pop(key)
    else:
        holder[key] = "NEST" if action == "nest" else chance.choice(ODD)
    depth = chance.choice((10, 1000, 100_000))
    path.write_text(json.dumps(whole).replace('"NEST"', "[" * depth + "]" * depth), encoding="utf-8")
    return f"{path.name}: {action} {key!r}"


def _manifest(folder: Path, chance: random.Random, situation: Situation) -> str:
    return _edit_json(folder / MANIFEST, chance)


def _configuration(folder: Path, chance: random.Random, situation: Situation) -> str:
    return _edit_json(folder / chance.choice(("config.json", "tokenizer.json", "tokenizer_config.json")), chance)


def _measurements(folder: Path, chance: random.Random, situation: Situation) -> str:
    return _edit_json(folder / MEASUREMENTS, chance)


def _recipe(folder: Path, chance: random.Random, situation: Situation) -> str:
    bomb = "- &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"- &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
    )
    call = f"!!python/object/apply:builtins.open [{situation.marker}, w]"
    text = chance.choice(("[" * 100_000, bomb, call, "- {}", "- 3", "", "\0", "- {method: own}"))
    (folder / RECIPE).write_text(text)
    return f"{RECIPE}: {text[:20]!r}"


KINDS: dict[str, Callable[[Path, random.Random, Situation], str]] = {
    "bits flipped": _flip,
    "cut": _truncate,
    "longer": _grow,
    "deleted": _delete,
    "swapped": _swap,
    "a link": _link,
    "no file": _special,
    "a file that a load reads": _add_read,
    "a file that none reads": _add_other,
    "manifest": _manifest,
    "configuration": _configuration,
    "measurements": _measurements,
    "recipe": _recipe,
}


def alterations(count: int, seed: int, only: Collection[str] = KINDS.keys()) -> list[Alteration]:
    """Return alterations, as many of each kind."""
    kinds = list(only)
    return [Alteration(kinds[i % len(kinds)], f"{seed} {i}") for i in range(count)]


# what must hold


def prepare_models(folder: Path) -> Situation:
    """Make two models that are measured and the first exported, and ask every reader about that."""
    places = folder / "model", folder / "other"
    tokenizer = word_tokenizer()
    for i, place in enumerate(places):
        model = Recipe.from_list(STEPS).apply(classifier(blocks=1), Resources())
        with torch.no_grad():
            model.classifier.bias += i
        records.save_model(model, tokenizer, place, recipe=STEPS, origin="tiny", seed=i)
        records.record(place, trial("model", model=artifact.model_digest(place)))
    export(places[0], [RUNTIME])
    (places[1] / "model.onnx").write_bytes((places[0] / "model.onnx").read_bytes()[::-1])
    marker = folder / "executed"
    with _in_silence():
        answers = {name: read(places[0], folder) for name, read in READERS.items()}
    return Situation(*places, answers, marker)


def problems_of(case: Alteration, situation: Situation, scratch: Path) -> list[str]:
    """Alter a copy of the model, and return what does not hold."""
    folder = scratch / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(situation.model, folder)
    done = case.apply(folder, situation)
    problems = []
    for name, read in READERS.items():
        try:
            with _in_silence():
                answer = read(folder, scratch)
        except WhetError as error:
            if not 0 < len(str(error)) < 2000 or "\n" in str(error):
                problems.append(f"{done}: {name} says no sentence: {str(error)[:300]!r}")
            if case.kind == "a file that none reads":
                problems.append(f"{done}: {name} refuses it: {error}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            problems.append(f"{done}: {name} crashes: {type(error).__name__}: {str(error)[:300]}")
        else:
            may_differ = name in NOTE_READERS and _differ(folder, situation)
            if answer != situation.answers[name] and not may_differ:
                problems.append(f"{done}: {name} answers differently, and says nothing")
            if case.kind == "a file that a load reads" and name not in ("a session", PLAIN):
                problems.append(f"{done}: {name} says nothing")
    if situation.marker.exists():
        situation.marker.unlink()
        problems.append(f"{done}: something was executed")
    return problems


def _differ(folder: Path, situation: Situation) -> bool:
    """Whether the notes differ that a report shows."""
    return any(
        not (folder / name).is_file() or (folder / name).read_bytes() != (situation.model / name).read_bytes()
        for name in (MEASUREMENTS, MANIFEST)
    )


@contextlib.contextmanager
def _in_silence() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _plan(given: argparse.Namespace, scratch: Path) -> Plan:
    situation = prepare_models(scratch)
    cases = alterations(given.count, given.seed, given.only)
    return Plan(cases, lambda case: case.kind, lambda case, own: problems_of(case, situation, own))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; return 1 if something did not hold."""
    return run_campaign("altered artifacts", __doc__, arguments, count=1000, kinds=KINDS, plan=_plan)


if __name__ == "__main__":
    sys.exit(main())

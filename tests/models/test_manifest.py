"""Manifests that others wrote: each is refused in one sentence, or means what it says."""

import ast
import inspect
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import transformers

from folders import classifier
from whet.errors import InvalidArtifact
from whet.evaluation import records
from whet.models import artifact
from whet.models.manifest import Manifest, read_manifest
from whet.utils.files import digest, json_digest
from whet.utils.manifests import read_by_a_load

HEX = "0" * 64
FILES = {"config.json": HEX, "model.safetensors": HEX}


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory) -> Path:
    """Never changed."""
    folder = tmp_path_factory.mktemp("manifests") / "model"
    records.save_model(classifier(blocks=1), tokenizer, folder, recipe=[], origin="tiny", seed=3)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def export_with(**changes: object) -> str:
    entry = {"files": {"model.onnx": HEX}, "model": HEX, **changes}
    return json.dumps({"files": FILES, "exports": {"onnxruntime fp32": entry}})


BAD = {
    "no JSON": (b"{", "Invalid JSON"),
    "other bytes": (b"\xff\xfe\x00", "Invalid JSON"),
    "deep nesting": (b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
    "deep nesting in a part": (b'{"files": {}, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
    "a list": (b"[]", "Input should be an object"),
    "no files": (b"{}", "files: Field required"),
    "a list of files": (b'{"files": ["config.json"]}', "files: Input should be an object"),
    "a digest that is a number": (json.dumps({"files": {"a": 1}}), "files.a: Input should be a valid string"),
    "a digest that is none": (json.dumps({"files": {"a": "12"}}), "files.a: String should match pattern"),
    "a seed that is a text": (json.dumps({"files": FILES, "seed": "three"}), "seed: Input should be a valid integer"),
    "an origin that is a list": (json.dumps({"files": FILES, "origin": []}), "origin: Input should be a valid string"),
    "exports that are a list": (json.dumps({"files": FILES, "exports": []}), "exports: Input should be an object"),
    "an export that is a text": (json.dumps({"files": FILES, "exports": {"a": "b"}}), "exports.a: Input should be"),
    "an export without files": (export_with(files={}), "files: Dictionary should have at least 1 item"),
    "an export of no model": (export_with(model=None), "onnxruntime fp32.model: Input should be a valid string"),
    "an export that a load reads": (export_with(files={"adapter_config.json": HEX}), "the file adapter_config.json"),
    "a KL that is a text": (export_with(kl="low"), "kl: Input should be a valid number"),
    "more than a manifest holds": (b'{"files": {}, "x": "' + b"y" * 2**24 + b'"}', "more than 16,777,216 bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_manifest_is_refused_in_one_short_line(kind: str, tmp_path: Path):
    text, message = BAD[kind]
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidArtifact, match=rf".*{re.escape(message)}.*; copy it again$") as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "../w",
        "/etc/passwd",
        "a/b/c",
        "a/..",
        "./a",
        "a//b",
        "/a",
        "a/",
        "a\\b",
        "C:x",
        "..",
        ".",
        "",
        "x" * 300,
        "a\0b",
        "a\nb",
        "\ud800",
    ],
)
@pytest.mark.parametrize("where", ["files", "exports"])
def test_names_lead_to_no_other_folder(name: str, where: str, tmp_path: Path):
    entry = {"files": {name: HEX}, "model": HEX}
    text = {"files": {**FILES, name: HEX}} if where == "files" else {"files": FILES, "exports": {"x fp32": entry}}
    (tmp_path / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(
        InvalidArtifact, match=r"must be as whet wrote it, but .*(plain name, in one folder|Invalid JSON)"
    ):
        read_manifest(tmp_path)


def test_keys_of_other_versions_are_kept(folder: Path):
    path = folder / "manifest.json"
    known = json.loads(path.read_text()) | {"made_by": {"version": [9]}}
    path.write_text(json.dumps(known))
    artifact.write_notes(folder, {"README.md": "mine"})
    again = json.loads(path.read_text())
    known["files"]["README.md"] = digest(b"mine")
    assert again == known


def test_a_manifest_need_not_say_where_its_model_is_from(folder: Path):
    path = folder / "manifest.json"
    path.write_text(json.dumps({"files": json.loads(path.read_text())["files"]}))
    records.recordable([folder])
    artifact.load_verified(folder)


@pytest.mark.parametrize("files", [{}, {"config.json": HEX}, {"model.safetensors": HEX}, {"README.md": HEX}])
def test_a_manifest_lists_a_configuration_and_weights(files: dict[str, str], folder: Path):
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    with pytest.raises(
        InvalidArtifact, match=r"must list the model's files, but it lists no (config.json|\*.safetens)"
    ):
        artifact.verify(folder)


READ = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "added_tokens.json",
    "vocab.txt",
    "chat_template.jinja",
    "config_sentence_transformers.json",
    "pytorch_model.bin",
]
NOT_READ = ["notes.txt", "results.json", ".manifest.json.123.partial", ".DS_Store", "model.py", "extra.bin", "logs"]


@pytest.mark.parametrize("name", READ)
def test_a_file_that_a_load_reads_must_be_listed(name: str, folder: Path):
    (folder / name).write_text("{}")
    with pytest.raises(InvalidArtifact, match=rf"does not list {re.escape(name)}, which a load reads; remove it"):
        artifact.load_verified(folder)


def test_other_files_change_nothing_and_are_never_adopted(folder: Path):
    before, listed = artifact.model_digest(folder), read_manifest(folder).files
    for name in NOT_READ:
        (folder / name).write_text("{}")
    artifact.load_verified(folder)
    (folder / "whole.onnx").write_bytes(b"1")
    artifact.add_export(folder, "onnxruntime", "fp32", [folder / "whole.onnx"], {"kl": 0.1})
    artifact.write_notes(folder, {"README.md": "mine"})
    for name in NOT_READ:
        (folder / name).unlink(missing_ok=True)  # a draft is swept
    artifact.load_verified(folder)
    assert artifact.model_digest(folder) == before and read_manifest(folder).files.keys() == listed.keys()
    assert artifact.exported(folder, "onnxruntime").kl == 0.1


def test_files_of_others_that_0_1_0_adopted_lose_nothing(folder: Path):
    """It listed whatever it found: an export made before is of this model still, and the file may go."""
    manifest = read_manifest(folder)
    before = {name: value for name, value in manifest.files.items() if name not in ("README.md", "measurements.jsonl")}
    (folder / "model.onnx").write_bytes(b"1")
    export = {"files": {"model.onnx": digest(b"1")}, "model": json_digest(before), "kl": 0.1}
    files = {**manifest.files, "notes.txt": digest(b"")}
    adopted = manifest.with_entries(files=files, exports={"onnxruntime fp32": export})
    (folder / "manifest.json").write_text(adopted.to_json())
    artifact.load_verified(folder)
    assert artifact.exported(folder, "onnxruntime").kl == 0.1


def vocabulary_files() -> set[str]:
    """The names that any tokenizer of transformers reads, from its source: importing them all takes long."""
    names = set()
    for path in Path(inspect.getfile(transformers)).parent.rglob("tokenization*.py"):
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"^VOCAB_FILES_NAMES = (\{[^}]*\})", text, re.MULTILINE):
            dictionary = ast.parse(found, mode="eval").body
            assert isinstance(dictionary, ast.Dict)
            names |= {one.value for one in dictionary.values if isinstance(one, ast.Constant)}
    return names


def test_every_file_that_transformers_reads_is_known():
    names = vocabulary_files()
    assert {"vocab.txt", "tokenizer.json", "merges.txt", "spiece.model"} <= names
    own = {
        value
        for key, value in vars(transformers.utils).items()
        if re.fullmatch(r"(\w+_)?(WEIGHTS|CONFIG)(_INDEX)?_NAME", key)
    }
    assert {"config.json", "model.safetensors", "generation_config.json"} <= own
    assert [name for name in sorted(names | own) if not read_by_a_load(name)] == []


def test_links_stay_in_the_folder_or_in_the_cache_of_a_hub(folder: Path, tmp_path: Path):
    weights = folder / "model.safetensors"
    weights.rename(folder / "weights.0")
    weights.symlink_to("weights.0")
    artifact.load_verified(folder)
    (folder / "weights.0").rename(tmp_path / "weights.0")
    weights.unlink()
    weights.symlink_to(tmp_path / "weights.0")
    with pytest.raises(
        InvalidArtifact, match=r"model.safetensors is a link that leads out of the folder; copy it again"
    ):
        artifact.load_verified(folder)
    cached = tmp_path / "models--x" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    for i, path in enumerate(sorted(folder.iterdir())):
        blob = tmp_path / "models--x" / "blobs" / str(i)
        shutil.copy(path, blob)
        (cached / path.name).symlink_to(Path("..", "..", "blobs", str(i)))
    artifact.load_verified(cached)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_manifest_that_is_no_file_is_not_taken_for_none(kind: str, folder: Path):
    path = folder / "manifest.json"
    path.unlink()
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(InvalidArtifact, match=r"must hold a readable manifest.json, but it is not a file"):
        artifact.load_any(folder)


def test_an_index_of_weights_names_weights_of_the_manifest(folder: Path):
    index = folder / "model.safetensors.index.json"
    for name, refused in (("model.safetensors", False), ("../w.safetensors", True), ("other.safetensors", True)):
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"w": name}}))
        manifest = read_manifest(folder)
        files = {**manifest.files, index.name: digest(index)}
        (folder / "manifest.json").write_text(manifest.with_entries(files=files).to_json())
        if refused:
            with pytest.raises(InvalidArtifact, match="must name files of the manifest, but got"):
                artifact.verify(folder)
        else:
            artifact.verify(folder)


def test_a_manifest_is_written_as_it_was_read():
    text = {"origin": "x", "target": {"runtime": "pytorch"}, "files": {"a": HEX, "b": HEX}}
    assert json.loads(Manifest.model_validate(text).to_json()) == text
    assert list(json.loads(Manifest.model_validate(text).to_json()))[-1] == "files"

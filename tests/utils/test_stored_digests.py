"""Digests that users have in their files keep the values that whet 0.1.0 wrote."""

import json
from hashlib import sha256
from pathlib import Path

import torch

from whet.models import artifact
from whet.searching.search import _weights_digest
from whet.tasks.data import Examples
from whet.training.states import weights_digest


def test_the_digest_of_data():
    pairs, scores = Examples(["one", "zwei – ½"], [0, 1], ["a", "b"]), Examples(["one"], [0.5])
    assert pairs.digest() == "6a2823630d4058e7cfd97f72158d14abefa1753aa94e84ebee62fa6d2c5a51ff"
    assert scores.digest() == "e21c1e9d2df132604a7bb3f6a33b52072035bae368d52f31ce49568085c75a35"


def test_the_digest_of_an_artifact(tmp_path: Path):
    """Notes about the model are left out of it."""
    names = ("model.safetensors", "config.json", "README.md", "measurements.jsonl")
    files = {name: str(i) * 64 for i, name in enumerate(names, 1)}
    (tmp_path / "manifest.json").write_text(json.dumps({"origin": "x", "files": files}))
    assert artifact.model_digest(tmp_path) == "12356a7b43b02d4e52594a6885f93b40766609150455fcbe38dfb5539ff91510"


def test_the_digest_of_a_plain_folder_in_a_search(tmp_path: Path):
    empty = (2).to_bytes(8, "little") + b"{}"
    shards = {f"model-0000{i}-of-00002.safetensors": empty + bytes([i]) for i in (1, 2)}
    index = json.dumps({"weight_map": dict(zip("vw", shards, strict=True))}).encode()
    for name, content in {"config.json": b"{}", "model.safetensors.index.json": index, **shards}.items():
        (tmp_path / name).write_bytes(content)
    assert _weights_digest(tmp_path) == sha256(b"".join(sha256(part).digest() for part in shards.values())).hexdigest()


def test_the_digest_of_a_teacher_in_its_cache():
    layer = torch.nn.Linear(2, 1)
    layer.load_state_dict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})
    assert weights_digest(layer) == "97bb47583a84927bc91c30aa61464d063ec59a2b196ce06aab65db81f8535739"

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import in_processes
from folders import classifier, save, write_rows
from helpers import tiny_batches
from whet.errors import InvalidData, InvalidParameter
from whet.models.artifact import load_any
from whet.utils import distributed
from whet.utils.distributed import (
    from_first_process,
    is_first,
    items_of_process,
    join_processes,
    process_count,
    rows_of_process,
    sum_over_processes,
)


@pytest.fixture
def of_three(monkeypatch):
    """Make this process one of three; what they would send each other is not sent."""

    def be(rank: int) -> None:
        monkeypatch.setattr(distributed, "_group", lambda: torch.distributed)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)

    return be


def test_one_process_has_everything():
    assert join_processes("cpu") == "cpu"
    assert process_count() == 1 and is_first()
    assert list(items_of_process("abc")) == [(0, "a"), (1, "b"), (2, "c")]
    assert float(sum_over_processes(torch.tensor(3.0))) == 3
    assert from_first_process(lambda: "made") == "made"
    batch = {"x": torch.arange(4)}
    rows, weight = rows_of_process(batch)
    assert torch.equal(rows["x"], batch["x"]) and weight == 1


SECOND = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE must be a whole number, but got WORLD_SIZE='x'; unset it, or start with"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number, but got WORLD_SIZE=''"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE must be a whole number"),
        ({"RANK": "first"}, "RANK must be a whole number, but got RANK='first'"),
        ({"RANK": "2"}, "RANK must be below 2, but got RANK=2"),
        ({"LOCAL_RANK": "9" * 20}, "LOCAL_RANK must be a whole number"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT must be below 65536, but got MASTER_PORT=70000"),
        (
            {"RANK": None},
            "RANK must be set with LOCAL_RANK=1, but got none; unset LOCAL_RANK, or start with accelerate",
        ),
        ({"MASTER_ADDR": None}, "MASTER_ADDR must be set with LOCAL_RANK=1, but got none"),
        ({"LOCAL_RANK": None}, "LOCAL_RANK must be set with WORLD_SIZE=2, but got none; unset WORLD_SIZE"),
        ({"WORLD_SIZE": None, "LOCAL_RANK": "0"}, "WORLD_SIZE must be set with LOCAL_RANK=0, but got none"),
        ({"WORLD_SIZE": None, "RANK": "0", "LOCAL_RANK": "x"}, "LOCAL_RANK must be a whole number"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, "ACCELERATE_MIXED_PRECISION must be no, .* give whet --precision bf16"),
        (
            {"ACCELERATE_USE_FSDP": "true"},
            "must hold the whole model, but got ACCELERATE_USE_FSDP='true'",
        ),
    ],
)
def test_broken_variables_of_the_environment_are_refused_before_anything_waits(monkeypatch, changes, message):
    for name, value in (SECOND | changes).items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(InvalidParameter, match=message):
        join_processes("cpu")


def test_every_item_is_dealt_once(of_three):
    found = []
    for rank in range(3):
        of_three(rank)
        found += list(items_of_process("abcdefgh"))
        assert is_first() == (rank == 0)
    assert sorted(found) == list(enumerate("abcdefgh"))


def test_a_process_without_a_batch_is_refused(of_three):
    of_three(2)
    with pytest.raises(InvalidData, match="every process must have a batch, but got 2 for 3; give more examples"):
        list(items_of_process("ab"))


def test_results_and_errors_of_the_first_process_reach_all(of_three, monkeypatch):
    sent: list[object] = []
    monkeypatch.setattr(
        torch.distributed,
        "broadcast_object_list",
        lambda box: sent.extend(box) if box != [None, None] else box.__setitem__(slice(None), sent),
    )
    of_three(0)
    assert from_first_process(lambda: 7) == 7
    of_three(1)
    assert from_first_process(lambda: 8) == 7, "others take what the first made"
    sent.clear()
    of_three(0)
    with pytest.raises(InvalidData, match="no good"):
        from_first_process(refuse)
    of_three(2)
    with pytest.raises(InvalidData, match="no good"):
        from_first_process(lambda: 8)


def refuse() -> None:
    raise InvalidData("no good")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 32])
def test_weighted_means_of_the_rows_are_the_mean_of_the_batch(of_three, size: int):
    values = torch.randn(size, 5, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    batch = {"x": values, "labels": torch.arange(size)}
    parts = []
    for rank in range(3):
        of_three(rank)
        rows, weight = rows_of_process(batch)
        assert len(rows["x"]) == len(rows["labels"]) >= 1
        parts.append(weight * rows["x"].mean(0))
    torch.testing.assert_close(torch.stack(parts).mean(0), values.mean(0), rtol=0, atol=1e-12)


def test_two_processes_end_where_one_does(tmp_path: Path, tokenizer):
    """Fine-tuning, distillation, and moments followed by recovery, in batches that two processes cannot halve."""
    model = classifier()
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    save(model, tokenizer, tmp_path / "base")
    write_rows(tmp_path / "train.csv", 60)
    in_processes.run(tmp_path, "one")
    script = str(Path(in_processes.__file__))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script]
    done = subprocess.run([*command, str(tmp_path), "two"], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 processes") == 1, "the first one speaks"
    for name in in_processes.MADE:
        one, two = (load_any(tmp_path / folder / name) for folder in ("one", "two"))
        with torch.no_grad():
            answers = [np.concatenate([m(**batch).logits for batch in tiny_batches()]) for m in (one, two)]
        scale = np.abs(answers[0]).max()
        assert np.abs(answers[0] - answers[1]).max() < 1e-5 * scale, name
    assert not list(tmp_path.glob("*/.*")), "nothing is left beside them"

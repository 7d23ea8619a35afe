"""Set before anything else is imported: no network, one thread. What all tests share is made once."""

import gc
import math
import os
import tempfile
from collections.abc import Mapping, Sequence

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from exports import exported_once
from helpers import word_tokenizer
from whet.evaluation import slowness, timing
from whet.evaluation.metrics import memory

# on two cores, forty times faster for tiny models
torch.set_num_threads(1)
# tests wait for nothing that takes times on this machine, and not for each other
timing.LOCK = Path(tempfile.gettempdir()) / f"whet.test.{os.getpid()}.lock"
# nor is it told how busy the machine is, which would be among what they read
slowness.BUSY = math.inf
# a process that takes the peak memory imports everything once more; `memory_in_processes` asks for one
IN_PROCESSES = memory.peaks_of


def made_up_peaks(jobs: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """A MiB for every run."""
    return [[1.0] * memory.RUNS for _ in jobs]


memory.peaks_of = made_up_peaks


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data beside the checkout."""
    folder = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data must lie in {folder.resolve()}, but it does not")
    return folder.resolve()


@pytest.fixture(scope="module")
def memory_in_processes():
    """Peak memory is taken as users have it taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "peaks_of", IN_PROCESSES)
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """See `helpers.word_tokenizer`."""
    return word_tokenizer()


@pytest.fixture(scope="session", autouse=True)
def export_each_model_once(tmp_path_factory):
    """See `exports.exported_once`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", exported_once(torch.onnx.export, folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def keep_exports_of_the_session(tmp_path_factory):
    """Measuring exports models into a cache, which is not the user's own here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def collect_no_garbage_of_imports():
    """Libraries collect garbage in every training; looking through all that is imported takes longer than the rest."""
    gc.collect()
    gc.freeze()

"""Studies write their tables and pictures anew from committed results, and measure nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
WITHOUT_MEASURING = {
    "drone_glue": "--tasks",
    "embeddings": "--only",
    "frontier": "--tasks",
    "lora_and_rnn_cola": "--parts",
    "multi_label": "--tasks",
    "student_initialization": "--settings",
}


@pytest.mark.parametrize("study", WITHOUT_MEASURING)
def test_the_committed_table_follows_from_the_committed_results(study, tmp_path):
    copied = tmp_path / "studies"
    shutil.copytree(STUDIES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / study / "results.md").unlink()
    command = [sys.executable, str(copied / study / "run.py"), WITHOUT_MEASURING[study]]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (copied / study / "results.md").read_bytes() == (STUDIES / study / "results.md").read_bytes()

"""Studies write their tables and pictures anew from committed results, and measure nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[2] / "studies"
WITHOUT_MEASURING = [
    ("drone_glue", "results", "--tasks"),
    ("embeddings", "results", "--only"),
    ("embeddings", "results_avx512", "--results results_avx512 --only"),
    ("frontier", "results", "--tasks"),
    ("lora_and_rnn_cola", "results", "--parts"),
    ("multi_label", "results", "--tasks"),
    ("question_answering", "results", "--write-only"),
    ("reranking", "results", "--write-only"),
    ("student_initialization", "results", "--settings"),
]


@pytest.mark.parametrize(("study", "results", "options"), WITHOUT_MEASURING)
def test_the_committed_table_follows_from_the_committed_results(study, results, options, tmp_path):
    copied, table = tmp_path / "studies", f"{results}.md"
    shutil.copytree(STUDIES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    (copied / study / table).unlink()
    command = [sys.executable, str(copied / study / "run.py"), *options.split()]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (copied / study / table).read_bytes() == (STUDIES / study / table).read_bytes()

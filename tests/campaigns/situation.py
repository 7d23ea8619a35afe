"""What the campaigns work on: tiny models, their artifacts and data in a folder, made by whet's own verbs."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import BertConfig, BertForMaskedLM

from campaigns.forked import Job, Outcome, run
from folders import classifier, save, write_rows
from helpers import PAD, VOCAB, word_tokenizer

__all__ = ["DATA", "DONE", "TRAIN", "VERBS", "Verb", "copied", "prepare"]

DONE = {0, 3}
"""Exit codes of a call that ends by itself; 3 is that of a search that finds nothing."""
DATA = ("--train-file", "train.csv", "--threads", "1")
"""Own data without those for the final measurement."""
MEASURED = (*DATA, "--dev-file", "dev.csv", "--rounds", "6")
# (so many steps that a checkpoint comes within an epoch)
TRAIN = (*DATA, "--epochs", "2", "--batch-size", "1", "--max-length", "16")
RECOVERED = """
- {method: kfac, keep: 0.5}
- {method: recovery.distillation, epochs: 1, hidden_states: 0}
"""


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A command that makes something."""

    name: str
    argv: Sequence[str]
    out: str
    """The folder that it makes or adds to."""
    over: str | None = None
    """A folder that lies there before, which is replaced."""
    exact: bool = True
    """Whether the same call gives the same weights."""
    weight: float = 1
    """How many kills it gets, relative to others: fewer where a call takes long."""

    def line(self, *, overwrite: bool = False) -> list[str]:
        """Return its words."""
        return [*self.argv, *(("--overwrite",) if (overwrite or self.over) and "--overwrite" not in self.argv else ())]


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            name="compress", argv=("compress", "ft", "--method", "kfac", "--keep", ".5", *DATA, "--out", "o"), out="o"
        ),
        Verb(
            name="compress again",
            argv=("compress", "ft", "--method", "svd", "--keep", ".5", "--out", "o"),
            out="o",
            over="kf",
        ),
        Verb(name="finetune", argv=("finetune", "base", *TRAIN, "--out", "o"), out="o"),
        Verb(name="finetune again", argv=("finetune", "base", *TRAIN, "--out", "o"), out="o", over="ft"),
        Verb(
            name="distill",
            argv=("distill", "ft", "--student", "layer_subset:top:1", *TRAIN, "--cache", "cache", "--out", "o"),
            out="o",
        ),
        Verb(name="recover", argv=("compress", "ft", "--recipe", "recovered.yaml", *DATA, "--out", "o"), out="o"),
        Verb(
            name="measure",
            argv=("measure", "ft", "kf", *MEASURED, "--picture", "p.png", "--out", "o"),
            out="o",
            exact=False,
        ),
        Verb(name="report", argv=("report", "measured", "--out", "o"), out="o", exact=False),
        Verb(name="export", argv=("export", "kf", "--to", "onnx"), out="kf", exact=False),
        Verb(
            name="search",
            argv=(
                "search",
                "ft",
                *DATA,
                "--dev-file",
                "dev.csv",
                "--runtime",
                "pytorch",
                "--time",
                "12s",
                "--out",
                "o",
            ),
            out="o",
            exact=False,
            weight=0.3,
        ),
    )
}


def prepare(folder: Path) -> Path:
    """Write everything that `VERBS` read into a folder, and return it."""
    root = folder / "situation"
    root.mkdir(parents=True)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        pad_token_id=PAD,
    )
    save(BertForMaskedLM(config), word_tokenizer(), root / "base")
    save(classifier(), word_tokenizer(), root / "model")
    write_rows(root / "train.csv", 80)
    write_rows(root / "dev.csv", 24, seed=1)
    (root / "recovered.yaml").write_text(RECOVERED)
    for argv in (
        ("finetune", "base", *TRAIN, "--out", "ft"),
        ("compress", "ft", "--method", "kfac", "--keep", ".5", *DATA, "--out", "kf"),
        ("measure", "ft", "kf", *MEASURED, "--out", "measured"),
    ):
        done(run(Job(argv=argv, folder=root, streams=folder / "streams")))
    return root


def done(outcome: Outcome) -> Outcome:
    """Return an outcome that must be a success."""
    if outcome.code not in DONE:
        raise RuntimeError(f"it must succeed, but it ended with {outcome.code}:\n{outcome.stderr}")
    return outcome


def copied(root: Path, to: Path, verb: Verb | None = None) -> Path:
    """Copy a situation, with what lies in the place of a verb's output before it."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(root, to, symlinks=True)
    if verb is not None and verb.over is not None:
        shutil.copytree(root / verb.over, to / verb.out)
    return to

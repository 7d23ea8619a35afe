"""Odd paths in the place of inputs and outputs."""

import random
from pathlib import Path

from campaigns.grammar.base import BadInput
from campaigns.situation import DATA

__all__ = ["path_inputs"]

PATHS = (
    "",
    " ",
    ".",
    "..",
    "/",
    "ft",
    "train.csv",
    "train.csv/o",
    "a" * 256,
    "a" * 5000,
    "/".join(["a" * 100] * 50),
    "loop",
    "loop/o",
    "a\nb",
    "a\tb",
    "\x1b[31mred",
    "\udcff\udcfe",
    "/proc/o",
    "/proc/self/o",
    "/dev/null",
    "/dev/null/o",
    "/dev/full",
    "dangling",
    "run_$LR_$SEED",
    "a[0-9]",
    "-o",
    "~",
    "~nobody/o",
    "$HOME",
    "o/../ft",
    "ft/inside",
    "ft/config.json",
    "file:///o",
    "s3://bucket/o",
    "C:\\o",
    "CON",
    "o ",
    ".hidden",
    "full",
)


def path_inputs(chance: random.Random) -> BadInput:
    """Return a call with an odd path."""
    path = chance.choice(PATHS)
    words = chance.choice(
        (
            ["compress", "ft", "--method", "svd", "--keep", ".5", "--out", path],
            ["compress", path, "--method", "svd", "--keep", ".5", "--out", "o"],
            ["compress", "ft", "--recipe", path, "--out", "o"],
            ["compress", "ft", "--method", "svd", "--keep", ".5", "--out", path, "--overwrite"],
            ["finetune", "base", *DATA, "--epochs", ".1", "--max-length", "16", "--out", path],
            ["finetune", "base", "--train-file", path, "--epochs", ".1", "--out", "o"],
            ["measure", "ft", *DATA, "--dev-file", "dev.csv", "--rounds", "6", "--out", path],
            ["measure", "ft", *DATA, "--dev-file", "dev.csv", "--rounds", "6", "--picture", path],
            [
                "distill",
                "ft",
                "--student",
                "layer_subset:top:1",
                *DATA,
                "--epochs",
                ".1",
                "--cache",
                path,
                "--out",
                "o",
            ],
            ["report", path],
            ["report", "measured", "--out", path],
            ["export", path, "--to", "onnx"],
            ["search", "ft", *DATA, "--dev-file", "dev.csv", "--runtime", "pytorch", "--time", "1s", "--out", path],
            [
                "compress",
                "ft",
                "--method",
                "kfac",
                "--keep",
                ".5",
                "--task",
                "glue/mrpc",
                "--data-dir",
                path,
                "--out",
                "o",
            ],
        )
    )

    def links(folder: Path) -> None:
        (folder / "loop").symlink_to("loop")
        (folder / "dangling").symlink_to("nowhere")
        (folder / "full").symlink_to("/dev/full")

    return BadInput(kind="path", argv=words, about="loop, dangling, full are links", edit=links)

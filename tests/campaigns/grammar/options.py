"""Options with odd values."""

import random

from campaigns.grammar.base import BadInput
from campaigns.grammar.recipes import odd_value
from campaigns.situation import DATA

__all__ = ["option_inputs"]

OPTIONS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("compress", "ft", "--method", "kfac", "--keep", ".5", *DATA, "--out", "o"): (
        "--calibration",
        "--batch-size",
        "--max-length",
        "--seed",
        "--threads",
        "--keep",
        "--text",
        "--label",
        "--text-pair",
        "--metric",
        "--method",
        "--device",
        "--task",
        "--data-dir",
        "--label-map",
    ),
    ("finetune", "base", *DATA, "--epochs", ".1", "--max-length", "16", "--out", "o"): (
        "--epochs",
        "--batch-size",
        "--learning-rate",
        "--warmup",
        "--weight-decay",
        "--max-length",
        "--seed",
        "--threads",
        "--lora-rank",
        "--lora-alpha",
        "--report-to",
        "--metric",
        "--evaluations",
        "--gradient-accumulation",
        "--precision",
    ),
    ("distill", "ft", "--student", "layer_subset:top:1", *DATA, "--epochs", ".1", "--max-length", "16", "--out", "o"): (
        "--alpha",
        "--temperature",
        "--hidden-states",
        "--cosine",
        "--relations",
        "--epochs",
        "--student",
        "--learning-rate",
    ),
    ("measure", "ft", *DATA, "--dev-file", "dev.csv", "--rounds", "6"): (
        "--batch-size",
        "--batch-tokens",
        "--rounds",
        "--max-length",
        "--runtime",
        "--precision",
        "--seed",
        "--threads",
        "--metric",
        "--device",
        "--positive",
    ),
    ("inspect", "ft", "--batch-size", "2", "--length", "8"): ("--batch-size", "--length", "--threads"),
    ("export", "kf", "--to", "nothing"): ("--to", "--precision", "--max-kl", "--threads", "--max-length", "--opset"),
    ("search", "ft", *DATA, "--dev-file", "dev.csv", "--runtime", "pytorch", "--time", "1s", "--out", "o"): (
        "--max-drop",
        "--max-size",
        "--time",
        "--goal",
        "--runtime",
        "--precision",
        "--batch-size",
        "--max-length",
        "--seed",
    ),
    ("report", "measured", "--out", "o"): ("--only",),
    ("methods",): ("--nothing",),
}
STUDENTS = (
    "layer_subset:top:0",
    "layer_subset:top:9",
    "layer_subset:",
    "layer_subset:1,1",
    "layer_subset:-1",
    "recurrent:lstm:1000000000",
    "recurrent:lstm:0",
    "recurrent:gru:8",
    "static:0",
    "cnn:wide",
    "transformer:layers=2,layers=3",
    "transformer:layers=0",
    "transformer:width=7",
    f"transformer:width={'9' * 20}",
    "transformer:nothing=1",
    "nothing",
    ":",
    "transformer:",
)


def option_inputs(chance: random.Random) -> BadInput:
    """Return a call with an odd value of one or two options."""
    words = chance.choice(list(OPTIONS))
    argv = list(words)
    for option in chance.sample(OPTIONS[words], min(len(OPTIONS[words]), chance.randint(1, 2))):
        value = chance.choice(STUDENTS) if option == "--student" else odd_value(chance)[:3000]
        argv += [option, value]
    if chance.random() < 0.1:
        argv += [chance.choice(("--nothing", "x", "--out", "--overwrite=5", "--json=no"))]
    return BadInput(kind="option", argv=argv)

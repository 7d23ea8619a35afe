"""Good calls in odd environments."""

import random

from campaigns.grammar.base import BadInput
from campaigns.situation import DATA

__all__ = ["environment_inputs"]

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "WORLD_SIZE": ("x", "0", "-1", "2", "", "9" * 20),
    "RANK": ("x", "5"),
    "LOCAL_RANK": ("x", "-5"),
    "MASTER_PORT": ("x", "99999"),
    "TMPDIR": ("/nowhere", "/proc", "", "train.csv"),
    "HOME": ("/nowhere", "/proc", "", "train.csv"),
    "XDG_CACHE_HOME": ("/proc",),
    "XDG_STATE_HOME": ("/proc",),
    "COLUMNS": ("x", "0", "-1", "1"),
    "TERM": ("dumb", "", "x"),
    "OMP_NUM_THREADS": ("x", "0", "-1"),
    "MPLBACKEND": ("nothing",),
    "MPLCONFIGDIR": ("/proc",),
    "HF_HOME": ("/proc",),
    "ACCELERATE_MIXED_PRECISION": ("x", "fp8"),
    "NO_COLOR": ("1",),
    "FORCE_COLOR": ("1",),
    "LC_ALL": ("C", "x"),
    "PYTHONIOENCODING": ("x",),
    "USER": ("",),
}


def environment_inputs(chance: random.Random) -> BadInput:
    """Return a good call in an odd environment; what libraries read when they are imported has no effect here."""
    names = chance.sample(list(ENVIRONMENTS), chance.randint(1, 2))
    words = chance.choice(
        (
            ("compress", "ft", "--method", "kfac", "--keep", ".5", *DATA, "--out", "o"),
            ("finetune", "base", *DATA, "--epochs", ".1", "--max-length", "16", "--out", "o"),
            ("measure", "ft", *DATA, "--dev-file", "dev.csv", "--rounds", "6", "--out", "o"),
            ("report", "measured", "--out", "o"),
            ("methods",),
        )
    )
    return BadInput(
        kind="environment", argv=words, environment={name: chance.choice(ENVIRONMENTS[name]) for name in names}
    )

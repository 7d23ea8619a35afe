"""What starting costs: `import whet` and the command line, beside `import torch`, each in a fresh interpreter.

    python benchmarks/startup.py --rounds 9

runs each command once a round, in random order, after one round that is not counted (it writes the bytecode), and
compares it with `import torch` of the same round. Processor time is what other work on the machine disturbs least.
The medians go to startup.json beside this file.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from whet.utils import current_machine

RESULTS = Path(__file__).with_suffix(".json")
TORCH = "import torch"
COMMANDS = {
    TORCH: ["-c", TORCH],
    "import whet": ["-c", "import whet"],
    "import torch, whet": ["-c", "import torch, whet"],
    "from whet import compress": ["-c", "from whet import compress"],
    "whet --help": ["-m", "whet", "--help"],
    "whet methods": ["-m", "whet", "methods"],
}
"""What the interpreter is called with, by the name in the results."""


class Times(NamedTuple):
    """How long one start took, in seconds."""

    processor: float
    """Of all threads, in user and system mode."""
    wall: float
    """By the clock."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    one_round()
    rounds = [one_round() for _ in range(options.rounds)]
    rows = {name: row(name, rounds) for name in COMMANDS}
    for name, figures in rows.items():
        print(f"{name:28}", *(f"{key} {value:6.2f}" for key, value in figures.items()))
    written = {"machine": current_machine("cpu").to_dict(), "rounds": options.rounds, "commands": rows}
    RESULTS.write_text(json.dumps(written, indent=1) + "\n")


def one_round() -> dict[str, Times]:
    """Start everything once, in random order."""
    return {name: started(COMMANDS[name]) for name in random.sample(list(COMMANDS), len(COMMANDS))}


def started(arguments: list[str]) -> Times:
    """Run a fresh interpreter to its end."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} must end with exit code 0, but got {process.returncode}")
    return Times(usage.ru_utime + usage.ru_stime, wall)


def row(name: str, rounds: list[dict[str, Times]]) -> dict[str, float]:
    """Return the medians of one command, and of its comparison with torch within a round."""
    return {
        "processor_seconds": median(one[name].processor for one in rounds),
        "wall_seconds": median(one[name].wall for one in rounds),
        "beyond_torch_seconds": median(one[name].processor - one[TORCH].processor for one in rounds),
        "times_torch": median(one[name].processor / one[TORCH].processor for one in rounds),
    }


if __name__ == "__main__":
    main()

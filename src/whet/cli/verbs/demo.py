"""The verb `demo` of the command line."""

from pathlib import Path

from whet.cli.console import print_json, show
from whet.cli.options import Json, SeedOptions


def demo(*, out: Path = Path("runs/demo"), machine: SeedOptions = SeedOptions(), as_json: Json = False) -> None:
    """Show on a built-in task what whet does, in minutes: train a model, compress it, measure, keep the best, use it.

    Args:
        out: Folder to write.
    """
    from whet.cli.demo import run_demo

    machine.use_cpu()
    trials = run_demo(out, seed=machine.seed, say=(lambda part: None) if as_json else show)
    if as_json:
        print_json([trial.to_dict() for trial in trials])

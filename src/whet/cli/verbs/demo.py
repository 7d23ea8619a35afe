"""The verb `demo` of the command line."""

from pathlib import Path

from whet.cli.console import show
from whet.cli.options import SeedOptions


def demo(*, out: Path = Path("runs/demo"), machine: SeedOptions = SeedOptions()) -> None:
    """Run the main job on a built-in task: train, compress by three recipes, measure, save, reload.

    Args:
        out: Folder to write.
    """
    from whet.cli.demo import run_demo

    machine.use_cpu()
    run_demo(out, seed=machine.seed, say=show)

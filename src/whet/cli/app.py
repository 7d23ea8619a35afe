"""The entry of the command line: Ctrl-C and errors are answered from its first moment on, and the verbs come after."""

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["main"]

NEEDED = ("cyclopts", "pydantic", "torch", "transformers")
"""Some of the packages that only making models needs."""


def main() -> None:
    """Run the command line and leave; see `shell` for the exit codes."""
    try:
        missing = [name for name in NEEDED if find_spec(name) is None]
        if not missing:
            from whet.cli.shell import run_command_line
    except KeyboardInterrupt:
        sys.exit(130)
    if missing:
        print(
            f"MissingPackage: the whet command needs {', '.join(missing)}, which whet alone and whet[run] leave out; "
            "pip install 'whet[compress]', or run a model in Python: whet.load(FOLDER)",
            file=sys.stderr,
        )
        sys.exit(2)
    run_command_line(_verbs)


def _verbs() -> "App":
    from whet.cli.verbs import app  # slow to import

    return app

"""The entry of the command line: Ctrl-C and errors are answered from its first moment on, and the verbs come after."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave; see `shell` for the exit codes."""
    try:
        from whet.cli.shell import run_command_line
    except KeyboardInterrupt:
        sys.exit(130)
    run_command_line(_verbs)


def _verbs() -> "App":
    from whet.cli.verbs import app  # slow to import

    return app

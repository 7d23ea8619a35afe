"""The entry of the command line: Ctrl-C and errors are answered from its first moment on, and the verbs come after."""

from typing import TYPE_CHECKING

from whet.cli.shell import run_command_line

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave; see `shell` for the exit codes."""
    run_command_line(_verbs)


def _verbs() -> "App":
    from whet.cli.verbs import app  # slow to import

    return app

"""Run the command line as a shell expects it: errors as sentences, and exit codes."""

import sys
from typing import Any

import transformers
import typer

from whet.errors import WhetError
from whet.utils.distributed import leave_processes
from whet.utils.progress import say

__all__ = ["run"]

_UsageError: Any = typer.BadParameter.__bases__[0]
"""What typer raises for options it does not know; click's own or typer's copy of it, by version."""
_STOPPED = 130
"""The exit code that typer answers Ctrl-C with."""


def run(app: typer.Typer) -> None:
    """Run the command line and leave; bad input ends with a sentence and exit code 2."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        code = app(prog_name="whet", standalone_mode=False)
    except WhetError as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(2)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "whet"
        problem = (error.format_message() or "No command.").strip().rstrip(".")
        say(f"UsageError: the command line must be one that whet knows, but got: {problem}; see {command} --help")
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = _STOPPED
    finally:
        leave_processes()
    if code == _STOPPED:
        say("stopped; nothing half-written was left")
    sys.exit(code)

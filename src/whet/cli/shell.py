"""Run the command line as a shell expects it: errors as sentences, and exit codes."""

import sys

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError

from whet.errors import WhetError
from whet.utils.distributed import leave_processes
from whet.utils.progress import say

__all__ = ["run_app"]

_STOPPED = 130
"""The exit code that shells expect after Ctrl-C."""


def run_app(app: App) -> None:
    """Run the command line and leave; bad input ends with a sentence and exit code 2."""
    try:
        code = _code(app, sys.argv[1:])
    except WhetError as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(2)
    except CycloptsError as error:
        command = " ".join(["whet", *(error.command_chain or ())])
        say(
            f"UsageError: the command line must be one that whet knows, but got: {_problem(error)}; "
            f"see {command} --help"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        code = _STOPPED
    finally:
        leave_processes()
    if code == _STOPPED:
        say("stopped; nothing half-written was left")
    sys.exit(code)


def _code(app: App, words: list[str]) -> int:
    if not words:
        raise CycloptsError(msg="no command")
    code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def _problem(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"nothing for {error.argument.name}"
    if isinstance(error, UnusedCliTokensError):
        return f"words that belong to no option: {' '.join(error.unused_tokens or ())}"
    sentence = " ".join(str(error).split()).rstrip(".")
    return sentence[:1].lower() + sentence[1:]

"""Run the command line as a shell expects it: errors as sentences, exit codes, and a clean end at Ctrl-C.

It imports nothing slow, so that it is ready before what is slow begins. Exit codes: 0, done; 2, something that the user
can mend, told in a sentence; 3, a search found nothing that holds the bar; 70, a fault of whet's; 74, standard output
did not take what was printed; 129, 130 and 143, stopped by SIGHUP, Ctrl-C and SIGTERM. A pipe whose reader has left is
no error.
"""

import errno
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from whet.cli.signals import STOPPED, Stops, stopped_by_signals
from whet.errors import InvalidParameter, WhetError
from whet.utils.distributed import leave_processes
from whet.utils.progress import Verbosity, activity, say, speaking
from whet.utils.streams import OutputFailure, safe_streams

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

__all__ = ["GLOBAL_OPTIONS", "GlobalOptions", "run_command_line"]

REFUSED, FAULT, NOT_PRINTED = 2, 70, 74
DEBUG = "--debug"
GLOBAL_OPTIONS = {
    "--quiet": "print results and errors only",
    "--verbose": "say every step, with its time",
    "--wide": "all columns of tables",
    DEBUG: "show the traceback of an error",
}
"""What every command takes, before or after its name."""
_NEW_LINE = re.compile(r"\s*\n\s*")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "cannot allocate memory")
"""What errors without a type of their own say where memory ran out."""


def run_command_line(load: Callable[[], "App"]) -> NoReturn:
    """Run the command line and leave.

    Args:
        load: imports the verbs.
    """
    words, options = GlobalOptions.of(sys.argv[1:])
    with safe_streams() as output, stopped_by_signals() as stops, speaking(options.verbosity):
        # without a home folder it says at every start that it takes a temporary one
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        code = _run(load, words, stops, options)
        if code == stops.exit_code and stops.first is not None:
            stops.leave()
        if code == stops.exit_code:
            say(STOPPED)
        code = _printed(code, output)
    sys.exit(code)


class GlobalOptions(NamedTuple):
    """Which of the options that every command takes were given."""

    given: frozenset[str]

    @classmethod
    def of(cls, words: Sequence[str]) -> tuple[list[str], "GlobalOptions"]:
        """Return the other words, and which of these options are among the words; after `--`, none is."""
        end = words.index("--") if "--" in words else len(words)
        given = frozenset(words[:end]) & GLOBAL_OPTIONS.keys()
        return [word for i, word in enumerate(words) if word not in given or i > end], cls(given)

    @property
    def verbosity(self) -> Verbosity:
        """How much is said; a wish for more wins."""
        return "verbose" if "--verbose" in self.given else "quiet" if "--quiet" in self.given else "normal"

    @property
    def debug(self) -> bool:
        """Whether the traceback of an error is shown."""
        return DEBUG in self.given

    @property
    def wide(self) -> bool:
        """Whether tables have all their columns."""
        return "--wide" in self.given


def _run(load: Callable[[], "App"], words: Sequence[str], stops: Stops, options: GlobalOptions) -> int:
    """Run the words and return the exit code; every error ends as a sentence here."""
    try:
        try:
            with activity(_command(words)):
                code = _code(load(), words, wide=options.wide)
        finally:
            leave_processes()
        sys.stdout.flush()
        return code
    except SystemExit:
        raise
    except BaseException as error:
        if options.debug:
            traceback.print_exc()
        # a library may turn the exception of a signal into one of its own
        if stops.first is not None or isinstance(error, KeyboardInterrupt):
            return stops.exit_code
        code, sentence = _told(error, words)
        say(sentence)
        return code


def _code(app: "App", words: Sequence[str], *, wide: bool) -> int:
    from cyclopts import CycloptsError

    from whet.cli.console import wide_tables

    if not words:
        raise CycloptsError(msg="no command")
    if "" in words:  # which would be a number to nobody, and the working folder as a path
        before = words[words.index("") - 1] if words[0] else "whet"
        raise CycloptsError(msg=f"an empty value after {before}", command_chain=tuple(words[:1]))
    _require_working_folder()
    with wide_tables(wanted=wide):
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def _require_working_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109  # pathlib is slow to import
    except FileNotFoundError as error:
        raise InvalidParameter(
            "the working folder must exist, but it was deleted or moved; change to another and run it again"
        ) from error


def _told(error: BaseException, words: Sequence[str]) -> tuple[int, str]:
    """Return the exit code of an error and the sentence that tells of it."""
    from cyclopts import CycloptsError

    if isinstance(error, WhetError):
        return REFUSED, f"{type(error).__name__}: {_NEW_LINE.sub(' ', str(error))}"
    if isinstance(error, CycloptsError):
        return REFUSED, _out_of_range(error) or _usage(error)
    if _is_lack_of_memory(error):
        return REFUSED, (
            f"OutOfMemory: {_command(words)} must fit into memory, but there was too little ({_in_line(error)}); give "
            "a smaller model, smaller batches or fewer examples, or free some memory"
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return REFUSED, f"OutputNotWritten: the disk must have room, but {_in_line(error)}; free some space"
    return FAULT, (
        f"InternalError: {_command(words)} must end with a result or say what is wrong with its input, but got "
        f"{_in_line(error)} in {_place(error)}, which is a fault of whet's; {_kept_traceback(error, words)}"
    )


def _out_of_range(error: "CycloptsError") -> str | None:
    """Return what is told of a value outside the bounds of its annotation, as Python is told; None for other errors."""
    from cyclopts import ValidationError

    from whet.utils.parameters import parameter_of, shown

    argument = error.argument
    if not isinstance(error, ValidationError) or argument is None or not argument.field_info:
        return None
    field = argument.field_info
    parameter = parameter_of(field.name, field.annotation, field.default, _meaning(error, argument.name))
    broken, told = parameter.broken(argument.value), f"{parameter.name}={shown(argument.value)}"
    return broken and f"{InvalidParameter.__name__}: {broken}, but got {told}; {parameter.advice}"


def _meaning(error: "CycloptsError", option: str) -> str:
    """Return what the help says of an option; cyclopts reads docstrings for its help alone."""
    known = error.app.assemble_argument_collection(parse_docstring=True) if error.app else ()
    return next((str(one.parameter.help or "") for one in known if one.name == option), "")


def _usage(error: "CycloptsError") -> str:
    told = f"the command line must be one that whet knows, but got: {_problem(error)}"
    return f"UsageError: {told}; see {_command_of(error)} --help"


def _command_of(error: "CycloptsError") -> str:
    return " ".join(["whet", *(error.command_chain or ())])


def _problem(error: "CycloptsError") -> str:
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    from whet.utils.inputs import one_line

    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return f"nothing for {error.argument.name}"
    if isinstance(error, UnusedCliTokensError):
        return f"words that belong to no option: {one_line(' '.join(error.unused_tokens or ()))}"
    sentence = one_line(error)
    if not sentence.endswith("..."):  # of a list that goes on
        sentence = sentence.rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _is_lack_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and any(phrase in said for phrase in _NO_MEMORY))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


def _command(words: Sequence[str]) -> str:
    return " ".join(["whet", *words[:1]])


def _in_line(error: BaseException, longest: int = 300) -> str:
    """Return the kind of an error and what it says, in one line."""
    said = " ".join(str(error).split())
    short = said if len(said) <= longest else f"{said[:longest]} ..."
    return f"{type(error).__name__}: {short}" if short else type(error).__name__


def _place(error: BaseException) -> str:
    """Return what whet was doing: the innermost of its own functions, that of the traceback's last frame if none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if frame.f_globals.get("__name__", "").split(".")[0] == "whet"] or frames
    return f"{own[-1].f_globals.get('__name__')}.{own[-1].f_code.co_name}" if own else "whet"


def _kept_traceback(error: BaseException, words: Sequence[str]) -> str:
    """Write the traceback to a file of its own, and return where to find it."""
    text = "".join([f"whet {words}\nPython {sys.version}\n\n", *traceback.format_exception(error)])
    try:
        descriptor, name = tempfile.mkstemp(prefix="whet-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return f"run it again with {DEBUG} to see the traceback, and please report it"
    return f"please report it with its traceback, which is in {name} and shown with {DEBUG}"


def _printed(code: int, output: OutputFailure) -> int:
    """Return the exit code, and say so if standard output did not take what was printed."""
    if output.error is None or output.reader_left:
        return code
    say(
        "OutputNotWritten: standard output must take what is printed, but "
        f"{output.error}; files that were to be written are whole, what was printed is not"
    )
    return code or NOT_PRINTED

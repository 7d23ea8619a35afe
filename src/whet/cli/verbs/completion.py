"""`--install-completion`: the shell completes commands and options."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from whet.cli.console import show, tell
from whet.errors import InvalidParameter, OutputNotWritten

if TYPE_CHECKING:
    from cyclopts import App

SHELLS = ("bash", "zsh", "fish")


def completion_of(app: "App") -> Callable[..., None]:
    """Return the command that installs completion of all commands of an app."""

    def install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> None:
        """Have your shell complete commands and options.

        Args:
            shell: The shell; the one that this runs in, if not given.
        """
        from cyclopts.completion.detect import ShellDetectionError, detect_shell

        try:
            chosen: str = shell or detect_shell()
        except ShellDetectionError:
            chosen = "no shell that is known"
        if chosen not in SHELLS:
            raise InvalidParameter(f"the shell must be {' or '.join(SHELLS)}, but got {chosen}; give --shell bash")
        try:
            path = app.install_completion(shell=chosen)  # type: ignore[arg-type]  # (it is one of these)
        except OSError as error:
            raise OutputNotWritten(
                f"the home folder must be one that can be written, but {error}; set HOME to one that can"
            ) from error
        show(f"saved to {path}")
        tell(f"start a new {chosen} to use it")

    return install_completion

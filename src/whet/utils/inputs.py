"""Files that a user names, looked at before they are opened: a pipe or a device must not hang or fill the memory."""

import errno
import stat
from pathlib import Path

from whet.errors import WhetError

__all__ = ["exists", "one_line", "read_text", "require_file", "require_folder"]

_LARGEST = 2**20
"""Bytes of the largest YAML file."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def require_file(path: Path, *, what: str, error: type[WhetError]) -> None:
    """Check that a path names a regular file that may be read, without opening anything else.

    Args:
        path: what the user named.
        what: what the file is to be, for the message, such as "the data file".
        error: what to raise.

    Raises:
        WhetError: of the type `error`.
    """
    shown = one_line(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb"):
                return
    except (OSError, ValueError) as problem:
        if isinstance(problem, OSError) and problem.errno not in _ABSENT:
            raise error(f"{what} must be readable, but got {shown}: {problem.strerror}; check the path") from problem
        raise error(f"{what} must exist, but got {shown}; check the path") from problem
    kind = _KINDS.get(stat.S_IFMT(mode), "none")
    raise error(f"{what} must be a file, but got {shown}, which is {kind}; save the content to a file and give that")


def require_folder(path: Path, *, what: str, error: type[WhetError]) -> None:
    """Check that a path names a folder.

    Args:
        path: what the user named.
        what: what the folder is to be, for the message, such as "--data-dir".
        error: what to raise.

    Raises:
        WhetError: of the type `error`.
    """
    mode = _mode(path)
    if mode is None:
        raise error(f"{what} must be a folder, but got {one_line(path)}, which does not exist; check the path")
    if not stat.S_ISDIR(mode):
        raise error(f"{what} must be a folder, but got {one_line(path)}; check the path")


def exists(path: Path) -> bool:
    """Return whether there is anything at a path; False where none can be, such as for a name that is too long."""
    return _mode(path) is not None


def read_text(path: Path, *, what: str, error: type[WhetError], largest: int = _LARGEST) -> str:
    """Return the text of a small file in UTF-8.

    Args:
        path: what the user named.
        what: what the file is to be, for the message, such as "the recipe".
        error: what to raise.
        largest: how many bytes it may have.

    Raises:
        WhetError: of the type `error`: it is no readable file, too large, or not UTF-8.
    """
    require_file(path, what=what, error=error)
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        if len(content) <= largest:
            return content.decode("utf-8-sig")
        reason = f"more than {largest:,} bytes"
    except UnicodeDecodeError as problem:
        reason = f"byte 0x{problem.object[problem.start]:02x}, which is not UTF-8"
    except OSError as problem:
        reason = str(problem.strerror)
    raise error(f"{what} must be a small text file, but got {one_line(path)}: {reason}; correct it")


def one_line(value: object, longest: int = 500) -> str:
    """Return a value as text that fits into a sentence: one line, without control characters, and not too long."""
    line = " ".join(str(value).split())
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in line)
    return line if len(line) <= longest else f"{line[:longest]}..."


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None

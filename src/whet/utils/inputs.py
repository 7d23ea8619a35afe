"""Files that a user names: looked at before they are opened, so that a pipe or a device cannot hang or fill the memory.

YAML is read by the safe loader, within limits: a small file may stand for a very large value, by aliases of aliases.
"""

import errno
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from whet.errors import WhetError

__all__ = ["exists", "one_line", "read_text", "read_yaml", "require_file", "require_folder"]

_LARGEST = 2**20
"""Bytes of the largest YAML file."""
_DEEPEST = 20
"""Levels of the most deeply nested value."""
_MOST = 20_000
"""Values in a YAML file, with aliases written out."""
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


def read_yaml(path: Path, *, what: str, error: type[WhetError]) -> Any:
    """Return what a YAML or JSON file holds.

    Args:
        path: what the user named.
        what: what the file is to be, for the message, such as "the recipe".
        error: what to raise.

    Raises:
        WhetError: of the type `error`: it is no readable file, not YAML, gives a key twice, or is beyond a limit.
    """
    text = read_text(path, what=what, error=error)
    try:
        return yaml.load(text, _Loader)  # a safe loader
    except (yaml.YAMLError, ValueError) as problem:
        raise error(
            f"{what} must be a YAML or JSON file, but got {one_line(path)}: {one_line(problem)}; correct it"
        ) from problem


def one_line(value: object, longest: int = 500) -> str:
    """Return a value as text that fits into a sentence: one line, without control characters, and not too long."""
    line = " ".join(str(value).split())
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in line)
    return line if len(line) <= longest else f"{line[:longest]}..."


class _Loader(yaml.SafeLoader):
    """Reads numbers as JSON does, and refuses keys given twice, deep nesting, and aliases that stand for too much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node, after a look at its depth and at its size with aliases written out."""
        where = f"line {self.peek_event().start_mark.line + 1}"
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels of nesting in {where}")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias and node not in self._sizes:
            raise ValueError(f"an alias inside of what it names in {where}")
        if not is_alias:
            self._sizes[node] = 1 + sum(self._sizes[inner] for inner in _inner(node))
        if self._sizes[node] > _MOST:
            raise ValueError(f"more than {_MOST:,} values in {where}, with aliases written out")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the mapping, whose keys must differ: of two values, the first would be lost without a word."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else (key.tag, id(key))
            if name in seen:
                raise ValueError(f"the key {key.value!r} twice, in line {key.start_mark.line + 1}")
            seen.add(name)
        return node


# YAML 1.1 takes 1e-05 for a text and wants 1.0e-05; JSON and YAML 1.2 do not
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        yield from (part for pair in node.value for part in pair)

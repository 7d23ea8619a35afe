"""YAML that a user names, read by the safe loader within limits.

A small file may stand for a very large value, by aliases of aliases.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from whet.errors import WhetError
from whet.utils.inputs import one_line, read_text

__all__ = ["parse_yaml", "read_yaml"]

_DEEPEST = 20
"""Levels of the most deeply nested value."""
_MOST = 20_000
"""Values in a YAML file, with aliases written out."""


def read_yaml(path: Path, *, what: str, error: type[WhetError]) -> Any:
    """Return what a YAML or JSON file holds.

    Args:
        path: what the user named.
        what: what the file is to be, for the message, such as "the recipe".
        error: what to raise.

    Raises:
        WhetError: of the type `error`: it is no readable file, not YAML, gives a key twice, or is beyond a limit.
    """
    return parse_yaml(read_text(path, what=what, error=error), what=what, source=path, error=error)


def parse_yaml(text: str, *, what: str, source: object, error: type[WhetError]) -> Any:
    """Return what YAML or JSON says.

    Args:
        text: the YAML.
        what: what its file is to be, for the message, such as "the recipe".
        source: the file, for the message.
        error: what to raise.

    Raises:
        WhetError: of the type `error`: it is not YAML, gives a key twice, or is beyond a limit.
    """
    try:
        return yaml.load(text, _Loader)  # a safe loader
    except (yaml.YAMLError, ValueError) as problem:
        raise error(
            f"{what} must be a YAML or JSON file, but got {one_line(source)}: {one_line(problem)}; correct it"
        ) from problem


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


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        yield from (part for pair in node.value for part in pair)

"""What kinds share whose heads have an output for each class of a task, whatever a row stands for."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from whet.tasks.kinds.base import TaskKind
from whet.tasks.pairing import Pairing, pair_classes

__all__ = ["Classes"]


class Classes(TaskKind):
    """The outputs of a head are classes with names."""

    gives: ClassVar[str] = "classes"
    has_classes: ClassVar[bool] = True

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return tuple(label_names or ())

    def label_names(self, head: Mapping[int, str]) -> tuple[str, ...]:
        """See `TaskKind.label_names`."""
        return tuple(head.values())

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`."""
        return pair_classes(head, self.output_names(label_names), ordered=ordered, label_map=label_map)

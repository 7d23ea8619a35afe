"""What kinds have in common whose heads have one output, a score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from whet.errors import InvalidData, InvalidParameter
from whet.tasks.files import finite_scores
from whet.tasks.kinds._distributions import Gaussian
from whet.tasks.pairing import Pairing

__all__ = ["Score"]


class Score(Gaussian):
    """One score per input: the mean of a normal distribution of unit variance."""

    def output_names(self, label_names: Sequence[str] | None) -> tuple[str, ...]:
        """See `TaskKind.output_names`."""
        return ("score",)

    def label_names(self, head: Mapping[int, str]) -> None:
        """See `TaskKind.label_names`; scores have none."""
        return

    def pairing(
        self,
        head: Mapping[int, str],
        label_names: Sequence[str] | None,
        *,
        ordered: bool = True,
        label_map: Mapping[str, str] = MappingProxyType({}),
    ) -> Pairing:
        """See `TaskKind.pairing`; there is one output."""
        if len(head) != 1:
            raise InvalidData(
                f"the model's head must give one score, but got num_labels={len(head)}; "
                "fine-tune it on this task, or name the right task or column"
            )
        if label_map:
            raise InvalidParameter("--label-map must go with classes, but the task's labels are scores; leave it out")
        return Pairing([0])

    def read_labels(self, raw: Sequence[str], label_names: Sequence[str] | None, *, source: Path | str) -> list[float]:
        """See `TaskKind.read_labels`."""
        return finite_scores(raw, source=source)

    def renumbered(self, labels: Sequence[Any], order: Sequence[int]) -> list[Any]:
        """See `TaskKind.renumbered`; scores have no numbering."""
        return list(labels)

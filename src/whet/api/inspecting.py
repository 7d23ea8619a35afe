"""Inspecting from Python."""

from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from whet.evaluation.inspection import Inspection, inspected, require_batch
from whet.methods.suitability import refusals
from whet.models.artifact import load_with_tokenizer
from whet.utils.calls import checked

__all__ = ["inspect"]


@checked
def inspect(
    model: str | Path,
    *,
    kind: str | None = None,
    batch: tuple[int, int] = (32, 64),
    rounds: Annotated[int, Interval(ge=1, le=10_000)] = 15,
    untimed: bool = False,
) -> Inspection:
    """Return what a model answers, where its parameters and its time are, and what can help.

    Args:
        model: folder or hub name.
        kind: of the model's answers, such as embedding, where the folder does not tell.
        batch: sentences and tokens a sentence to time it with; fewer tokens if the model cannot read as many.
        rounds: forward passes that are timed.
        untimed: whether no times are taken, for which nothing else should use the machine.

    Raises:
        InvalidModel, InvalidArtifact: the model cannot be loaded or was altered.
        InvalidParameter: a sentence or a token is the least, and LARGEST_BATCH tokens are the most.
    """
    require_batch(batch)
    loaded, tokenizer = load_with_tokenizer(model, kind=kind)
    return inspected(loaded, batch=batch, rounds=0 if untimed else rounds, methods=refusals(loaded, tokenizer))

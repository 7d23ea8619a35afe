"""What a model is, in words: what it was made from and how. Model cards, tables and reports say it in the same way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from whet.evaluation.trial import Trial
from whet.models.manifest import CASCADE, DISTILLED, Made

__all__ = ["Steps", "description", "description_of"]

Steps = Sequence[Mapping[str, Any]]
"""A recipe's file form: each method's name and parameters."""
_VERBS = {
    "clustering": "clustered",
    "factorization": "factorised",
    "pruning": "pruned",
    "quantization": "quantized",
}
"""What a family of methods does to a model; several families, and others, compress it."""


def _last_name(step: Mapping[str, Any]) -> str:
    return str(step.get("method", "?")).rpartition(".")[2]


def description(
    recipe: Steps,
    *,
    origin: str | None,
    made: Made | None,
    step_text: Callable[[Mapping[str, Any]], str] = _last_name,
) -> str:
    """Return what a model is, such as `DistilBERT-like student: layers 1, 3, 5 of base`, or `tuned, pruned by heads`.

    Args:
        recipe: the steps that compressed it; empty if none did. Their methods need not be known here.
        origin: public name of the model that it was made from; None if that is not known.
        made: how it was trained; None if it was not, or if that is not known.
        step_text: tells a step of the recipe; by the last name of its method, if not given.
    """
    if made is not None and made.how == DISTILLED:
        return f"{made.student or 'student'} of {origin or 'a teacher'}"
    if made is not None and made.how == CASCADE:
        return f"cascade: {made.student or 'a fast model'} where it is sure, then {origin or 'the original'}"
    if made is not None:
        return f"{made.how} from {origin or 'a base model'}"
    if recipe:
        how = f"{_verb(recipe)} by {', '.join(map(step_text, recipe))}"
        return f"{origin}, {how}" if origin else how
    return f"made from {origin}" if origin else "not changed by whet"


def description_of(trial: Trial, *, step_text: Callable[[Mapping[str, Any]], str] = _last_name) -> str:
    """Return what the model of a trial is, in words; a trial of an earlier version tells no more than a recipe."""
    if trial.made is not None:
        return trial.made
    if trial.artifact is not None and not trial.recipe:
        return "made by whet without a recipe"
    return description(trial.recipe, origin=None, made=None, step_text=step_text)


def _verb(recipe: Steps) -> str:
    families = {str(step.get("method", "")).rpartition(".")[0] for step in recipe}
    return _VERBS.get(families.pop(), "compressed") if len(families) == 1 else "compressed"

"""The options that say how a model is compressed, and the recipe or the recipes that they make."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval
from cyclopts import Parameter

from whet.cli.options import Texts
from whet.errors import InvalidParameter, InvalidRecipe
from whet.utils.inputs import one_line
from whet.utils.parameters import parameters, shown
from whet.utils.ranges import Keep, Speedup

if TYPE_CHECKING:
    from whet.methods.recipe import Recipe

__all__ = ["RecipeOptions", "RecipesOptions"]

DEFAULT_METHOD, DEFAULT_FOR_SPEED = "kfac", "structure"
"""Which methods --keep and --speedup alone ask for."""


@Parameter(name="*", group="Compression: a recipe, or one method")
@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What is done to a model."""

    recipe: Path | None = None
    """YAML or JSON file with the steps, or the name of a recipe that comes with whet, e.g. structured."""
    method: str | None = None
    """One method instead; `whet methods` lists them. Without it, --keep asks for kfac, and --speedup and --keep-time
    ask for structure."""
    keep: Keep | None = None
    """Fraction of parameters to keep, e.g. 0.4."""
    speedup: Speedup | None = None
    """How many times as fast the model must become on this machine, e.g. 2; instead of --keep."""
    keep_time: Annotated[float | None, Interval(gt=0, lt=1)] = None
    """Fraction of its time that the model may still take on this machine, e.g. 0.5; instead of --speedup."""
    settings: Annotated[Texts, Parameter(name="--set")] = ()
    """Another parameter of the method, as NAME=VALUE, with lists and mappings as JSON; repeatable."""

    def load(self) -> "Recipe":
        """Return the recipe that these options make.

        Raises:
            InvalidRecipe, InvalidParameter, UnknownName: they do not go together, or are wrong in themselves.
        """
        from whet.methods.recipe import Recipe

        budgets = {"--keep": self.keep, "--speedup": self.speedup, "--keep-time": self.keep_time}
        given = [name for name, value in budgets.items() if value is not None]
        if len(given) > 1:
            raise InvalidRecipe(
                f"one of {', '.join(budgets)} must be given, but got {' and '.join(given)}; leave one out"
            )
        speedup = self._wanted_speedup()
        method = self.method
        if self.recipe is None and method is None and given:
            method = DEFAULT_METHOD if speedup is None else DEFAULT_FOR_SPEED
        if (self.recipe is None) == (method is None):
            raise InvalidRecipe("one of --recipe and --method must be given, but got both or none; give one")
        if self.recipe is None:
            return self._of_one(str(method), speedup)
        if given or self.settings:
            raise InvalidRecipe(
                f"{', '.join(budgets)} and --set belong to --method, but got them with --recipe; put them in the file"
            )
        return Recipe.read(self.recipe)

    def _wanted_speedup(self) -> float | None:
        if self.keep_time is None:
            return self.speedup
        return 1 / self.keep_time

    def _of_one(self, name: str, speedup: float | None) -> "Recipe":
        from whet.methods.base import method_from, method_named
        from whet.methods.recipe import Recipe

        method = method_named(name)
        budgets = {"keep": self.keep, "speedup": speedup}
        entry: dict[str, Any] = {"method": method.name(), **{k: v for k, v in budgets.items() if v is not None}}
        for setting in self.settings:
            key, equals, value = setting.partition("=")
            if not equals:
                raise InvalidParameter(
                    f"--set must be NAME=VALUE, but got {shown(setting)}; such as --set allocation=uniform"
                )
            if key in entry:
                raise InvalidParameter(f"{key} must be given once, but got {shown(setting)} as well; leave one out")
            entry[key] = _value(value)
        if speedup is not None and any("by_time" in parameter.choices for parameter in parameters(method)):
            entry.setdefault("allocation", "by_time")
        return Recipe((method_from(entry),))


@Parameter(name="*", group="Compression: recipes, methods, or both")
@dataclass(frozen=True, kw_only=True)
class RecipesOptions:
    """What is done to a model, in several ways."""

    recipe: Texts = ()
    """YAML or JSON file with a recipe, or with several by name; or the name of one that comes with whet, e.g. course
    (one model of each kind); repeatable."""
    method: str | None = None
    """Methods, separated by commas, e.g. svd,drone,kfac; `whet methods` lists them."""
    keep: str | None = None
    """Fractions of parameters to keep, separated by commas, e.g. 0.5,0.25; each method makes a model of each."""
    speedup: str | None = None
    """How many times as fast models must become on this machine, separated by commas, e.g. 2,3; instead of --keep."""

    def load(self) -> "dict[str, Recipe]":
        """Return the recipes that these options make, by the name of the model that each makes.

        Raises:
            InvalidRecipe, InvalidParameter, UnknownName: they do not go together, or are wrong in themselves.
        """
        from whet.methods.recipe import Recipe

        recipes: dict[str, Recipe] = {}
        for name, recipe in [
            *(entry for source in self.recipe for entry in Recipe.read_several(source).items()),
            *self._of_methods(),
        ]:
            if name in recipes:
                raise InvalidRecipe(f"every recipe must have a name of its own, but got {name} twice; rename one")
            recipes[name] = recipe
        if not recipes:
            raise InvalidRecipe("--recipe or --method must be given, but got none; try --recipe course")
        return recipes

    def _of_methods(self) -> "Iterator[tuple[str, Recipe]]":
        if self.keep is not None and self.speedup is not None:
            raise InvalidRecipe("one of --keep and --speedup must be given, but got both; leave one out")
        budgets = {"keep": self.keep, "speedup": self.speedup}
        given = [(name, _number(part)) for name, text in budgets.items() if text for part in text.split(",")]
        if self.method is None:
            if given:
                raise InvalidRecipe("--keep and --speedup belong to --method, but got none; add one, such as kfac")
            return
        for method in (name.strip() for name in self.method.split(",")):
            short = method.rpartition(".")[2]
            if not given:
                yield short, RecipeOptions(method=method).load()
            for budget, value in given:
                if budget == "keep":
                    yield f"{short}-{value:g}", RecipeOptions(method=method, keep=value).load()
                else:
                    yield f"{short}-{value:g}x", RecipeOptions(method=method, speedup=value).load()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidParameter(f"--keep and --speedup must be numbers, but got {shown(text)}; correct it") from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InvalidParameter(
            f"a value of --set must not have so many brackets inside of each other, but got {one_line(text, 40)}; "
            "correct it"
        ) from error
    except ValueError:
        return text

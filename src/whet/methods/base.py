"""A method: a frozen set of parameters that turns a model into a smaller or faster one."""

import dataclasses
import inspect
import json
import re
import sys
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, InvalidRecipe
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.parameters import check, parameters, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Method", "Stage", "all_methods", "method_from", "method_named"]

PACKAGE = "whet.methods"
"""Where our own methods lie, and the group of entry points by which installed packages add theirs."""


class Stage(IntEnum):
    """What a method changes; the stages of a recipe never decrease."""

    ARCHITECTURE = 1
    """Which layers there are: students, dropped blocks."""
    STRUCTURE = 2
    """How layers are built: low rank, removed neurons."""
    TRAINING = 3
    """The values of the weights."""
    VOCABULARY = 4
    """Which tokens there are; no later step reads data, since those were encoded before."""
    STORAGE = 5
    """How weights are stored: quantized, clustered, sparse."""


class _Renaming(ABCMeta):
    """Takes parameters under their old names too, with a warning, and refuses classes that are incomplete."""

    def __call__(cls, **given: Any) -> Any:
        method: Any = cls
        _check_complete(method)
        renewed = method.renewed(given)
        if renewed != given:
            warnings.warn(
                f"{method.name()}: {_only_in(given, renewed)} is now {_only_in(renewed, given)}; "
                "0.3 drops the old name",
                FutureWarning,
                stacklevel=2,
            )
        return super().__call__(**renewed)


def _check_complete(method: "type[Method]") -> None:
    """Refuse a class that its author has not finished, before a recipe stumbles over it.

    Raises:
        InvalidParameter: it has no stage or needs, or has parameters that no dataclass takes.
    """
    if inspect.isabstract(method):
        return
    name = method.__qualname__
    for missing in (attribute for attribute in ("stage", "needs") if not hasattr(method, attribute)):
        example = {"stage": "whet.Stage.STRUCTURE", "needs": "frozenset()"}[missing]
        raise InvalidParameter(
            f"a method must say its {missing}, but got none in {name}; add the line `{missing}: ClassVar = {example}`"
        )
    known = {field.name for field in dataclasses.fields(method)}
    for parameter, hint in inspect.get_annotations(method).items():
        if parameter not in known and "ClassVar" not in str(hint):
            raise InvalidParameter(
                f"a method with parameters must be a dataclass, but got {parameter} in {name}, which is none; put "
                f"@dataclass(frozen=True, kw_only=True) above class {name}"
            )


def _only_in(parameters: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in parameters.items() if (key, value) not in others.items())


@dataclass(frozen=True, kw_only=True)
class Method(metaclass=_Renaming):
    """One step of a recipe."""

    stage: ClassVar[Stage]
    """The stage of a recipe at which it may be applied."""
    needs: ClassVar[frozenset[str]]
    """Fields of Resources that it always reads; it gets no others unless `reads` names them."""
    example: ClassVar[dict[str, Any]]
    """Parameters of a typical use, for tests and documentation."""
    mildest: ClassVar[dict[str, Any]]
    """Parameters of the least compression, at which outputs stay within 5 % of the original's."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Today's names of parameters by the names that recipes of earlier versions have."""
    renamed_choices: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    """By parameter: today's names of its values, or of those in a list, by earlier ones."""
    lossless: ClassVar[bool] = False
    """Whether predictions stay the same, up to rounding."""

    def __post_init__(self) -> None:
        """Raises InvalidParameter for a parameter outside its range."""
        check(self)

    @abstractmethod
    def apply(self, model: nn.Module, resources: Resources) -> nn.Module:
        """Return the compressed model; `model` must not be used again.

        Its layers may be replaced. Its weights are the original's, and may be written to from stage TRAINING on only.

        Raises:
            NothingToCompress: the model has nothing that this method can work on.
        """

    def tokenizer(self, resources: Resources) -> "PreTrainedTokenizerBase | None":
        """Return the tokenizer of the compressed model, or None if it stays the same."""
        return None

    @property
    def reads(self) -> frozenset[str]:
        """Fields of Resources that it reads with these parameters: `needs`, and those that a parameter asks for."""
        return self.needs

    @classmethod
    def renewed(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters with today's names in the place of earlier ones.

        Raises:
            InvalidParameter: a parameter is given under both names.
        """
        for old, new in cls.renamed.items():
            if old in given and new in given:
                raise InvalidParameter(f"{new} must be given once, but got {old} too, its old name; leave {old} out")
        renewed = {cls.renamed.get(key, key): value for key, value in given.items()}
        for key, today in cls.renamed_choices.items():
            value = renewed.get(key)
            if isinstance(value, str):
                renewed[key] = today.get(value, value)
            elif isinstance(value, list | tuple):
                renewed[key] = type(value)(today.get(part, part) for part in value)
        return renewed

    @classmethod
    def name(cls) -> str:
        """Return the method's full name, such as `factorization.drone`; see `member_name`."""
        return member_name(cls, PACKAGE)

    @classmethod
    def source(cls) -> str:
        """Return the publication that the docstring names after `Source:`, or an empty text."""
        source = re.search(r"^Source: (.+?)(?=^\S+: |\Z)", cls._description(), re.MULTILINE | re.DOTALL)
        return " ".join(source[1].split()) if source else ""

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the docstring."""
        return cls._description().partition("\n")[0]

    @classmethod
    def _description(cls) -> str:
        """The docstring of the module; of a class from elsewhere its own, since it may share a module or a notebook."""
        described: Any = sys.modules[cls.__module__] if cls.__module__.startswith(f"{PACKAGE}.") else cls
        return inspect.cleandoc(described.__doc__ or "")

    @classmethod
    def about(cls) -> dict[str, Any]:
        """Return a description of the method as JSON values."""
        return {
            "summary": cls.summary(),
            "stage": cls.stage.name,
            "needs": sorted(cls.needs),
            "parameters": [row.to_dict() for row in parameters(cls)],
            "source": cls.source(),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the step of a recipe as JSON values: the method's name and all its parameters.

        Raises:
            InvalidRecipe: a class from elsewhere has the name of another method, or a parameter that no file can hold.
        """
        _check_own_name(type(self))
        try:
            given: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        except (TypeError, ValueError) as error:
            raise InvalidRecipe(
                f"parameters of a method must be numbers, texts or lists of them, which a recipe's file can hold, but "
                f"got {self}: {error}; change them"
            ) from error
        return {"method": self.name(), **given}

    def __str__(self) -> str:
        shown = ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(self).items())
        return f"{self.name()}({shown})"


def all_methods() -> dict[str, type[Method]]:
    """Return every method by its full name, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    return by_name(members(PACKAGE, Method, group=PACKAGE), lambda method: (method.name(),))


def method_named(name: str) -> type[Method]:
    """Return the method of that full or last name: `factorization.drone` or `drone`.

    A class that this process defines, in a script or a notebook, is found too: `MyMethod` as `my_method`.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known, short, own = all_methods(), _short_names(), _defined_here()
    choose(name, [*short, *own, *known] if "." in name else [*short, *own], what="the method")
    return short.get(name) or known.get(name) or own[name]


def _short_names() -> dict[str, type[Method]]:
    """Every method by its last name."""
    return by_name(all_methods().values(), lambda method: (method.name().rpartition(".")[2],))


def _defined_here() -> dict[str, type[Method]]:
    """The methods that scripts and notebooks define, by name; where a cell ran twice, the class of its last run."""
    classes = Method.__subclasses__()
    for method in classes:  # which grows meanwhile
        classes += method.__subclasses__()
    return {method.name(): method for method in classes if not _is_ours(method) and not inspect.isabstract(method)}


def _is_ours(method: type[Method]) -> bool:
    return method.__module__.startswith(f"{PACKAGE}.")


def _check_own_name(method: type[Method]) -> None:
    """Refuse a class from elsewhere whose name in recipes already means another method.

    Raises:
        InvalidRecipe: it does.
    """
    if _is_ours(method):
        return
    other = (all_methods() | _short_names()).get(method.name(), method)
    if other is not method:
        raise InvalidRecipe(
            f"a method must have a name of its own, but got class {method.__qualname__}, which recipes call "
            f"{method.name()!r} like {other.name()}; rename the class"
        )


def method_from(entry: Mapping[str, Any]) -> Method:
    """Return the method that `to_dict` wrote.

    Raises:
        UnknownName: no such method.
        InvalidParameter: an unknown, missing or invalid parameter.
    """
    if not isinstance(entry, Mapping):
        raise InvalidParameter(
            f"a step must be a mapping such as {{'method': 'kfac', 'keep': 0.4}}, but got {shown(entry)}; correct it"
        )
    method = method_named(str(entry.get("method", "")))
    given = {key: value for key, value in entry.items() if key != "method"}
    fields, renewed = {field.name: field for field in dataclasses.fields(method)}, method.renewed(given)
    for key in renewed:
        if key not in fields:
            near = ", ".join(fields)
            raise InvalidParameter(
                f"{method.name()} takes the parameters {near}, but got {key}={shown(renewed[key])}; correct it"
            )
    for key, field in fields.items():
        if key not in renewed and field.default is dataclasses.MISSING:
            raise InvalidParameter(f"{method.name()} must be given {key}, but got none; see whet methods")
    made: Method = method(**given)
    return made

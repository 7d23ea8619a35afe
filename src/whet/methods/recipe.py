"""An ordered list of methods, checked before any work, and its YAML or JSON form."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import yaml
from torch import nn

from whet.calibration.resources import Resources
from whet.errors import InvalidRecipe, MissingResource, NothingToCompress, UnknownName
from whet.methods.base import Method, Stage, method_from
from whet.models.layers.base import count_weights
from whet.models.sixteen_bits import has_sixteen_bits, round_to_sixteen_bits
from whet.models.surgery import copy_sharing_parameters, describe, stored_bytes, unshare_parameters
from whet.utils.calls import checked
from whet.utils.distributed import is_first
from whet.utils.inputs import exists
from whet.utils.lookup import advice_on
from whet.utils.parameters import shown
from whet.utils.progress import note
from whet.utils.yaml_files import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Recipe", "Step"]

Run = Callable[[tuple[Method, ...], Method, nn.Module, Resources], nn.Module]
"""Applies a step, given the steps before it, the step, the model that those made, and the resources that it reads."""
SHIPPED = Path(__file__).parent / "recipes"
"""Folder of the recipes in the package; a user's file of the same name takes precedence."""


class Step(NamedTuple):
    """The effect of one method."""

    method: Method
    """The method."""
    layers: int
    """Number of layers whose structure it changed."""
    parameters_before: int
    """Number of parameters of the whole model before the step."""
    parameters_after: int
    """Number of parameters of the whole model after the step."""
    seconds: float
    """Wall-clock time in seconds."""
    bytes_before: int
    """Bytes that the tensors of the whole model take in a file before the step."""
    bytes_after: int
    """The same after the step."""


@dataclass(frozen=True)
class Recipe:
    """Methods in the order in which they are applied; the empty recipe is the baseline."""

    methods: tuple[Method, ...] = ()
    """The steps; their stages never fall."""

    def __post_init__(self) -> None:
        """Check the steps.

        Raises:
            InvalidRecipe: a step is no method, belongs before the one ahead of it, or reads data of other tokens.
        """
        methods: Any = self.methods
        if isinstance(methods, list):
            object.__setattr__(self, "methods", tuple(methods))
        if not isinstance(methods, list | tuple) or not all(isinstance(method, Method) for method in methods):
            raise InvalidRecipe(
                f"a recipe must be a tuple of methods, but got {shown(methods)}; make one by "
                "whet.Recipe.from_list([...])"
            )
        for first, second in zip(self.methods, self.methods[1:], strict=False):
            if second.stage < first.stage:
                raise InvalidRecipe(
                    f"{second.name()} ({second.stage.name}) must come before {first.name()} ({first.stage.name}), "
                    "but got it after; swap the two steps"
                )
            if first.stage is Stage.VOCABULARY and (read := self._read_after(first)):
                raise InvalidRecipe(
                    f"no step after {first.name()} may read data, which it encodes anew, but got {read}; apply that to "
                    "what this gives, in a second call"
                )

    def _read_after(self, method: Method) -> str:
        later = self.methods[self.methods.index(method) + 1 :]
        return ", ".join(f"{step.name()} with {' and '.join(sorted(step.reads))}" for step in later if step.reads)

    @classmethod
    @checked
    def read(cls, path: str | Path) -> Self:
        """Return the recipe in a YAML or JSON file, or the shipped one of that name, such as `drone_retrain`.

        Raises:
            InvalidRecipe: the file is missing or is not a list of steps.
            UnknownName, InvalidParameter: a step is wrong.
        """
        return cls._of_entries(_read(path), path)

    @classmethod
    def _of_entries(cls, entries: Any, path: str | Path) -> Self:
        if _are_several(entries):
            raise InvalidRecipe(
                f"one recipe must be given, but {path} holds several: {', '.join(map(str, entries))}; whet compare "
                "takes them all"
            )
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidRecipe(
                f"the recipe must be a list of steps such as `- method: kfac`, but {path} is not; correct it"
            )
        return cls.from_list(entries)

    @classmethod
    @checked
    def read_several(cls, path: str | Path) -> dict[str, Self]:
        """Return the recipes in a file by name: a mapping from names to lists of steps, or one list, named as its file.

        Args:
            path: YAML or JSON file, or the name of one that comes with whet, such as `course`.

        Raises:
            InvalidRecipe: the file is missing, or is neither.
            UnknownName, InvalidParameter: a step is wrong.
        """
        entries = _read(path)
        if not _are_several(entries):
            return {Path(path).stem: cls._of_entries(entries, path)}
        return {str(name): cls._of_entries(steps, f"{name} in {path}") for name, steps in entries.items()}

    @classmethod
    def from_list(cls, entries: Iterable[dict[str, Any]]) -> Self:
        """Return the recipe that `to_list` wrote.

        Raises:
            UnknownName, InvalidParameter, InvalidRecipe: a step is wrong, or the steps do not go together.
        """
        if not isinstance(entries, Iterable) or isinstance(entries, str | Mapping):
            raise InvalidRecipe(
                f"a recipe must be a list of steps, but got {shown(entries)}; give one such as "
                "[{'method': 'kfac', 'keep': 0.4}]"
            )
        try:
            return cls(tuple(method_from(entry) for entry in entries))
        except UnknownName as error:
            raise UnknownName(f"{error}; a method of your own must be defined or imported first") from error

    def to_list(self) -> list[dict[str, Any]]:
        """Return the steps as JSON values.

        Raises:
            InvalidRecipe: a step cannot be recorded; see `Method.to_dict`.
        """
        return [method.to_dict() for method in self.methods]

    def to_yaml(self) -> str:
        """Return the recipe as YAML."""
        text: str = yaml.safe_dump(self.to_list(), sort_keys=False)
        return text

    @property
    def needs(self) -> frozenset[str]:
        """Fields of Resources that some step reads."""
        return frozenset().union(*(method.reads for method in self.methods))

    def check(self, resources: Resources) -> None:
        """Refuse resources that lack what a step needs.

        Raises:
            MissingResource: the message names the step and what it lacks.
        """
        for method in self.methods:
            for need in sorted(method.reads):
                if getattr(resources, need) is None:
                    what = "a teacher" if need == "teacher" else f"{need} data"
                    raise MissingResource(f"{method.name()} needs {what}, but got none; give --task or --train-file")

    def apply(
        self,
        model: nn.Module,
        resources: Resources,
        *,
        report: Callable[[Step], None] = lambda step: None,
        run: Run | None = None,
    ) -> nn.Module:
        """Return a compressed copy of `model`, which stays unchanged.

        A step that changes no answers, such as `lossless.first_token`, is left out where it can do nothing for the
        model and the recipe has other steps; that is said.

        Args:
            model: any model with linear layers.
            resources: the resources that the steps read.
            report: called after each step.
            run: applies a step; `Method.apply` if None.

        Raises:
            MissingResource: before any work.
        """
        self.check(resources)
        compressed: nn.Module = copy_sharing_parameters(model)
        bits: Literal[16, 32] = 16 if has_sixteen_bits(model) else 32
        for i, method in enumerate(self.methods):
            if method.stage >= Stage.TRAINING:
                unshare_parameters(compressed, model)
            before, known, stored = count_weights(compressed), describe(compressed), stored_bytes(compressed, bits=bits)
            start = time.perf_counter()
            readable = resources.only(method.reads)
            try:
                if run is None:
                    made = method.apply(compressed, readable)
                else:
                    made = run(self.methods[:i], method, compressed, readable)
            except NothingToCompress as error:
                if not method.lossless or len(self.methods) == 1:
                    raise
                _say_left_out(method, error)
                continue
            if not isinstance(made, nn.Module):
                raise InvalidRecipe(
                    f"a method must return a model, but {method.name()} returned {shown(made)}; correct it"
                )
            compressed = made.eval()
            changed = sum(known.get(name) != entry for name, entry in describe(compressed).items())
            seconds, after = time.perf_counter() - start, count_weights(compressed)
            report(Step(method, changed, before, after, seconds, stored, stored_bytes(compressed, bits=bits)))
        unshare_parameters(compressed, model)
        if bits == 16:
            round_to_sixteen_bits(compressed)
        return compressed

    def tokenizer(self, tokenizer: "PreTrainedTokenizerBase", resources: Resources) -> "PreTrainedTokenizerBase":
        """Return the tokenizer of the compressed model, from that of the original."""
        for method in self.methods:
            tokenizer = method.tokenizer(resources.only(method.reads)) or tokenizer
        return tokenizer

    def __str__(self) -> str:
        return " → ".join(map(str, self.methods)) or "nothing"


def _say_left_out(method: Method, error: NothingToCompress) -> None:
    """Say that a step which would change no answers can do nothing for a model; the other steps stand without it."""
    if is_first():
        note(f"{method.name()} is left out: {str(error).partition(';')[0]}")


def _are_several(entries: Any) -> bool:
    """Return whether a file holds recipes by name, and not one."""
    return isinstance(entries, dict) and all(isinstance(steps, list) for steps in entries.values())


def _read(path: str | Path) -> Any:
    """Return what a file of recipes holds, or the shipped one of that name."""
    shipped = SHIPPED / f"{path}.yaml"
    own = Path(path)
    is_name = own.name == str(path) and (own.is_dir() or not exists(own))  # results may lie in a folder of that name
    if is_name and not own.suffix and not exists(shipped):
        names = sorted(recipe.stem for recipe in SHIPPED.glob("*.yaml"))
        raise InvalidRecipe(
            f"the recipe must be a file or the name of one that comes with whet, but got {shown(str(path))}; "
            f"{advice_on(str(path), names)}"
        )
    source = shipped if is_name and exists(shipped) else own
    return read_yaml(source, what="the recipe", error=InvalidRecipe)

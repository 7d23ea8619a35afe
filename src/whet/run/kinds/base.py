"""A predictor: a model in any of its forms, and how the answers of its kind are read.

A new kind is one more module here, with a class below `Predictor`; an installed package adds its own by the entry
points `whet.predictors`, each named as the kind in `whet.task_kinds`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from whet.errors import InvalidParameter
from whet.run.sessions import Session
from whet.run.text import Encoder, Row, padded_batch
from whet.tasks.sentences import SentenceModules
from whet.utils.inputs import one_line
from whet.utils.lookup import by_name, choose, member_name, members
from whet.utils.precision import PYTORCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "TRANSFORMERS",
    "About",
    "Predictor",
    "all_predictors",
    "as_list",
    "checked_texts",
    "is_text",
    "predictor_named",
]

Array = np.ndarray[Any, Any]

PACKAGE = "whet.run.kinds"
TRANSFORMERS = "transformers"
"""The package that runs most kinds in PyTorch."""
WINDOW = 256
"""Batches that are tokenized at once and sorted by length, so that millions of texts need little memory."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a predictor knows of its model."""

    source: str
    """Its folder or hub name."""
    target: str
    """Runtime and precision, such as `onnxruntime int8`."""
    labels: tuple[str, ...]
    """The name of every output of the head, in order."""
    max_length: int | None
    """Longest input in tokens; None if nothing limits it."""
    batch_size: int
    """Inputs that run together."""
    config: Mapping[str, Any]
    """What config.json says."""
    sentences: SentenceModules | None = None
    """What sentence-transformers wrote around the model, if it did."""


class Predictor(ABC):
    """A model, ready to answer; safe to call from several threads."""

    call: ClassVar[str] = 'predictor.predict(["The text to classify."])'
    """Code that asks `predictor`, for model cards."""
    request: ClassVar[Mapping[str, Any]] = {"texts": ["The text to classify."]}
    """What is sent to a server, as JSON."""
    library: ClassVar[str] = TRANSFORMERS
    """The package that runs models of the kind in PyTorch, as the hub calls it."""
    has_labels: ClassVar[bool] = True
    """Whether the outputs of the head have names that answers are given in."""
    runs_exports: ClassVar[bool] = True
    """Whether models of the kind run elsewhere than in PyTorch."""
    in_windows: ClassVar[bool] = False
    """Whether a text that is too long is read in several windows, and not cut."""

    def __init__(self, session: Session, encoder: Encoder, about: About) -> None:
        self.target = about.target
        """Runtime and precision, such as `onnxruntime int8`."""
        self.labels = about.labels if self.has_labels else ()
        """The names of the classes, in the order of the model's outputs."""
        self.max_length = about.max_length
        """Longest input in tokens; what is longer is cut. None if nothing limits it."""
        self._session, self._encoder, self._about = session, encoder, about

    def __repr__(self) -> str:
        labels = f", labels={list(self.labels)}" if self.labels else ""
        length = "" if self.max_length is None else f", max_length={self.max_length}"
        return f"{type(self).__name__}({self._about.source}: {self.target}{labels}{length})"

    @classmethod
    def kind(cls) -> str:
        """Return the name of the kind, such as `classification`."""
        return member_name(cls, PACKAGE)

    @classmethod
    def in_pytorch(cls, folder: str, pipeline_tag: str) -> list[str]:
        """Return lines of Python that load a model and ask it in PyTorch.

        Args:
            folder: its folder, as a literal of Python.
            pipeline_tag: the name of the kind's pipeline in transformers.
        """
        return ["import whet", "", f'predictor = whet.load({folder}, runtime="{PYTORCH}")', f"print({cls.call})"]

    @property
    def model(self) -> "PreTrainedModel":
        """The model itself, if it runs in PyTorch.

        Raises:
            InvalidParameter: it runs elsewhere.
        """
        model: PreTrainedModel | None = getattr(self._session, "model", None)
        if model is None:
            raise InvalidParameter(
                f"only a predictor in pytorch has the model itself, but this one runs in {self.target}; give "
                "runtime='pytorch', or call whet.load_model"
            )
        return model

    @classmethod
    def inputs(cls, rows: Iterable[tuple[str, ...]]) -> list[Any]:
        """Return what `predict` reads of examples, each given by its texts; see `Examples.plain`."""
        return [row[0] if len(row) == 1 else row for row in rows]

    def __call__(self, inputs: Any, /) -> Any:
        """Return the answer to one input, or the answers to several.

        Args:
            inputs: one as text or tuple, or an iterable of several; see `predict`.
        """
        answers = self.predict(inputs)
        return answers[0] if isinstance(inputs, str | tuple) else answers

    @abstractmethod
    def predict(self, inputs: Any, /) -> Any:
        """Return the answer to each input, in order.

        Args:
            inputs: one as text or tuple, or an iterable of several.

        Raises:
            InvalidParameter: something is no input of the kind.
        """

    @abstractmethod
    def answer(self, request: Any) -> Any:
        """Return the answer to a request to a server; its annotations say what is JSON on either side."""

    def _chunks(self, inputs: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield as many inputs as are tokenized at once, each time with the index of the first."""
        size = self._about.batch_size * WINDOW
        for first in range(0, len(inputs), size):
            yield first, inputs[first : first + size]

    def _outputs(self, rows: Sequence[Row]) -> Iterator[tuple[Array, dict[str, Array]]]:
        """Run rows in batches of similar length; yield the indices of those of a batch, and its outputs by name."""
        order = np.argsort([len(row.input_ids) for row in rows], kind="stable")
        size = self._about.batch_size
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield batch, self._session(padded_batch([rows[i] for i in batch], self._encoder.padding))

    def _token_outputs(self, rows: Sequence[Row]) -> Iterator[tuple[int, dict[str, Array]]]:
        """Run rows, and yield the index of each with its outputs by name, (tokens, ...) without padding."""
        left = self._encoder.padding.left
        for batch, outputs in self._outputs(rows):
            for place, i in enumerate(batch):
                length = len(rows[i].input_ids)
                yield (
                    int(i),
                    {
                        name: values[place, values.shape[1] - length :] if left else values[place, :length]
                        for name, values in outputs.items()
                    },
                )


def as_list(inputs: Any, *, name: str) -> list[Any]:
    """Return what is to be answered as a list.

    Args:
        inputs: one as text or tuple, or an iterable of several.
        name: what they are, such as texts.

    Raises:
        InvalidParameter: it is neither.
    """
    if isinstance(inputs, str | tuple):
        return [inputs]
    if not isinstance(inputs, Iterable):
        raise InvalidParameter(
            f"{name} must be one, or a list of several, but got {name}={one_line(repr(inputs), 60)}; correct it"
        )
    return list(inputs)


def checked_texts(texts: Any, *, pairs: bool = True) -> list[Any]:
    """Return inputs as a list of texts, and of pairs as tuples.

    Args:
        texts: one, or an iterable of several.
        pairs: whether pairs are allowed.

    Raises:
        InvalidParameter: something is neither.
    """
    listed = as_list(texts, name="texts")
    for i, text in enumerate(listed):
        parts = text if pairs and isinstance(text, tuple) and len(text) == 2 else (text,)
        if not all(map(is_text, parts)):
            advice = "give several texts as a list" if isinstance(text, tuple) else "correct it"
            what = "texts, or pairs of them as tuples" if pairs else "texts"
            raise InvalidParameter(f"texts must be {what}, but got texts[{i}]={one_line(repr(text), 60)}; {advice}")
    return listed


def is_text(value: Any) -> bool:
    """Return whether a value is a text that can be written as UTF-8, which half a character cannot."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


@cache
def all_predictors() -> dict[str, type[Predictor]]:
    """Return the predictors by the names of their kinds, those of installed packages too.

    Raises:
        InvalidPlugin: an installed package has an entry point that cannot be used, or a name that is taken.
    """
    classes: Iterable[type[Predictor]] = members(PACKAGE, Predictor, group="whet.predictors")
    return by_name(classes, lambda predictor: (predictor.kind(),))


def predictor_named(kind: str) -> type[Predictor]:
    """Return the predictor of a kind.

    Raises:
        UnknownName: there is none; the message gives the nearest.
    """
    known = all_predictors()
    return known[choose(kind, known, what="the kind of a model")]

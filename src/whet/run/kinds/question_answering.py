"""Question answerers: the piece of a context that answers a question."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from whet.errors import InvalidParameter
from whet.run.kinds.base import Predictor, as_list, is_text
from whet.tasks.spans import WindowLogits, best_span
from whet.utils.inputs import one_line

__all__ = ["Answer", "AskedQuestions", "QuestionAnswerer"]

Question = tuple[str, str]
"""A question, and the context that holds the answer."""

_EXAMPLE = ("Who wrote the first program?", "Ada Lovelace wrote the first program in 1843.")


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of a context."""

    text: str
    """The answer as it stands in the context; empty if there is none."""
    start: int
    """The character of the context where it starts."""
    end: int
    """The character behind its last one."""
    score: float
    """Probability of its start times that of its end."""


@dataclass(frozen=True)
class AskedQuestions:
    """A request to a server: questions with their contexts."""

    texts: list[tuple[str, str]]
    may_lack_answer: bool = False
    """Whether a context may hold no answer."""


class QuestionAnswerer(Predictor):
    """A model that finds the answer to a question in a context; a long context is read in windows that overlap."""

    call: ClassVar[str] = f'predictor.predict([("{_EXAMPLE[0]}", "{_EXAMPLE[1]}")])'
    request: ClassVar[Mapping[str, Any]] = {"texts": [[*_EXAMPLE]]}
    has_labels: ClassVar[bool] = False
    in_windows: ClassVar[bool] = True

    def __call__(
        self, questions: Question | Iterable[Question], /, *, may_lack_answer: bool = False
    ) -> Answer | list[Answer]:
        """Return the answer to one question, or a list of those to several; see `predict`."""
        answers = self.predict(questions, may_lack_answer=may_lack_answer)
        return answers[0] if isinstance(questions, tuple) else answers

    def predict(self, questions: Question | Iterable[Question], *, may_lack_answer: bool = False) -> list[Answer]:
        """Return the answer to each question, in order.

        Args:
            questions: a question with its context as a tuple, or an iterable of such pairs.
            may_lack_answer: whether a context may hold no answer, as in SQuAD 2; the answer is then empty where the
                model says so.

        Raises:
            InvalidParameter: something is no such pair.
            InvalidData: a question is so long that it leaves no room for its context.
        """
        found = []
        for _, part in self._chunks(_checked(questions)):
            windows = [self._encoder.windows(question, context) for question, context in part]
            owners = [(i, one) for i, some in enumerate(windows) for one in some]
            answered: list[dict[int, WindowLogits]] = [{} for _ in part]
            for place, outputs in self._token_outputs([one.row for _, one in owners]):
                i, one = owners[place]
                answered[i][place] = WindowLogits(one.window, outputs["start_logits"], outputs["end_logits"])
            for (_, context), logits in zip(part, answered, strict=True):
                span = best_span([logits[place] for place in sorted(logits)], may_lack_answer=may_lack_answer)
                found.append(_answer(context, span.start, span.end, span.score))
        return found

    def answer(self, request: AskedQuestions) -> list[Answer]:
        """See `Predictor.answer`."""
        return self.predict(request.texts, may_lack_answer=request.may_lack_answer)


def _answer(context: str, start: int, end: int, score: float) -> Answer:
    """Return the piece of a context without spaces around it."""
    text = context[start:end]
    first = start + len(text) - len(text.lstrip())
    return Answer(text.strip(), first, first + len(text.strip()), score)


def _checked(questions: Any) -> list[Question]:
    listed = as_list(questions, name="questions")
    for i, question in enumerate(listed):
        if not (isinstance(question, tuple) and len(question) == 2 and all(map(is_text, question))):
            raise InvalidParameter(
                f"questions must be tuples of a question and its context, but got questions[{i}]="
                f"{one_line(repr(question), 60)}; give them as [(question, context), ...]"
            )
    return listed

"""Cascades from Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Interval

from whet.calibration.resources import require_held_out
from whet.errors import InvalidData, InvalidModel, InvalidParameter
from whet.evaluation import records
from whet.evaluation.slowness import Stopwatch
from whet.models.artifact import LoadedModel, load_with_tokenizer
from whet.models.cascade import CascadeForSequenceClassification, confidences
from whet.models.configs import CascadeScore
from whet.models.inference import model_inputs, predict
from whet.models.lineage import public_name
from whet.models.load import check_head, common_max_length, max_positions
from whet.models.manifest import CASCADE, Made
from whet.models.recognition import recognized
from whet.numerics.thresholds import examples_needed, most_permissive
from whet.tasks.base import Task
from whet.tasks.encoding import encode, shortest_first
from whet.tasks.kinds.base import Answers
from whet.utils.calls import checked
from whet.utils.outputs import holding_output
from whet.utils.ranges import MaxDisagreement, MaxLength

__all__ = ["Cascade", "cascade"]

KINDS = ("classification", "multi_label")
"""Kinds with one score an example, and answers that differ or not."""
BATCH_SIZE = 32
Confidence = Annotated[float, Interval(ge=0.5, le=0.9999)]


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """What held-out data showed of a cascade."""

    thresholds: tuple[float, ...]
    """The least confidence with which a model answers, of all but the last."""
    answered: tuple[float, ...]
    """The share of the held-out examples that each model answers."""
    disagreement: float
    """The share of them that is answered otherwise than by the last model, in percent. What was asked is what holds
    with confidence: this share is from the data that chose the thresholds."""
    examples: int
    """Held-out examples."""
    seconds: tuple[float, ...]
    """What each model computed for an example, in PyTorch: the time on a processor of the thread that asks."""

    @property
    def expected_speedup(self) -> float:
        """Times the last model: what is expected in PyTorch of texts like these, from `seconds` and `answered`."""
        reached = 1 - np.cumsum([0.0, *self.answered[:-1]])
        return float(self.seconds[-1] / np.dot(reached, self.seconds))


@checked
@holding_output("models", "task")
def cascade(
    models: Sequence[str | Path],
    task: Task,
    out: str | Path,
    *,
    max_disagreement: MaxDisagreement = 0.5,
    confidence: Confidence = 0.95,
    score: CascadeScore = "probability",
    max_length: MaxLength = 128,
    kind: str | None = None,
    overwrite: bool = False,
) -> Cascade:
    """Save several models as one: each answers where it is sure, and passes the rest on to the next.

    The thresholds come from held-out training data, so that with `confidence` at most `max_disagreement` percent of the
    answers differ from those of the last model. Where there are three or more models, each may use an equal part.

    Args:
        models: folders or hub names of classifiers with the same classes and tokens, the fastest first.
        task: gives the held-out data, of which only texts are read.
        out: folder of the cascade.
        max_disagreement: percent of answers that may differ.
        confidence: with which that must hold.
        score: what says how sure a model is: the probability of its answer, the margin to the next one, or the entropy
            of all; they differ where there are three classes or more.
        max_length: tokens of the longest text.
        kind: of the models' answers, where neither folders nor task tell.
        overwrite: whether `out` may be replaced.

    Raises:
        InvalidParameter: there is only one model, models have other classes or tokens, or one is slower than the next.
        InvalidModel: the models are of another kind.
        InvalidData: the held-out data cannot show what was asked; the message says how many examples could.
        WhetError: anything wrong with a model, the data or the place.
    """
    if len(models) < 2:
        raise InvalidParameter(
            f"a cascade must have two or more models, the fastest first, but got {len(models)}; name the original last"
        )
    kind, read = recognized(models[-1], task, kind, labels="unread")
    if read.kind.name() not in KINDS:
        raise InvalidModel(
            f"a cascade must be of classifiers, of one label or of several, but {models[-1]} holds {read.kind.holds}; "
            "give classifiers"
        )
    texts = read.unlabeled()
    require_held_out(texts)
    least = examples_needed(max_disagreement / 100 / (len(models) - 1), confidence=_each(confidence, len(models)))
    held_out = texts.splits.validation
    if len(held_out) < least:
        raise InvalidData(
            f"held-out data must show that at most {max_disagreement:g} % of the answers differ, which takes {least} "
            f"examples, but got {len(held_out)}; give about {_rows_needed(texts, least):,} rows of training data, or a "
            "larger max_disagreement"
        )
    loaded = [load_with_tokenizer(source, kind=kind) for source in models]
    _require_alike(models, loaded)
    check_head(loaded[-1].model, texts)
    length = common_max_length(max_length, *(one.model for one in loaded))
    tokenizer = loaded[-1].tokenizer
    batches = encode(
        shortest_first(held_out, tokenizer, max_length=length), tokenizer, max_length=length, batch_size=BATCH_SIZE
    )
    answers, seconds = [], []
    for source, (model, _) in zip(models, loaded, strict=True):
        with torch.inference_mode():  # what the first call prepares is not the model's own time
            model(**model_inputs(batches.batches[0], model))
        watch = Stopwatch()
        with watch.running():
            answers.append(predict(model, batches, name=str(source)))
        seconds.append(watch.computing / len(held_out))  # not by the clock, which other work disturbs
    _require_faster_first(models, seconds)
    sure = [confidences(own, score) for own in answers[:-1]]
    chosen = _chosen(models, answers, sure, seconds, share=max_disagreement / 100, confidence=confidence)
    made = CascadeForSequenceClassification.of(
        [one.model for one in loaded],
        chosen.thresholds,
        score=score,
        longest=min((n for one in loaded if (n := max_positions(one.model))), default=None),
        shown={"max_disagreement": max_disagreement, "confidence": confidence, "examples": chosen.examples},
    )
    names = ", ".join(public_name(str(source)) for source in models[:-1])
    records.save_model(
        made,
        tokenizer,
        Path(out),
        recipe=[],
        origin=str(models[-1]),
        seed=0,
        made=Made(how=CASCADE, task=task.name, student=names),
        overwrite=overwrite,
    )
    return chosen


def _rows_needed(texts: Task, held_out: int) -> int:
    """Rows of which as many are held out, where the share stays that of these data; to two digits, rounded up."""
    rows = held_out * (len(texts.splits.train) + len(texts.splits.validation)) / max(1, len(texts.splits.validation))
    unit = 10 ** max(0, len(str(int(rows))) - 2)
    return int(-(-rows // unit) * unit)


def _each(confidence: float, models: int) -> float:
    """The confidence of each test, so that all of them hold with `confidence`."""
    return 1 - (1 - confidence) / (models - 1)


def _require_alike(models: Sequence[str | Path], loaded: Sequence[LoadedModel]) -> None:
    *others, last = loaded
    words, config = last.tokenizer.get_vocab(), last.model.config
    for source, (model, tokenizer) in zip(models, others, strict=False):
        if model.config.id2label != config.id2label:
            raise InvalidParameter(
                f"models of a cascade must have the same classes in the same order, but {source} has "
                f"{_few(model.config.id2label)} and {models[-1]} {_few(config.id2label)}; give models of one task"
            )
        if tokenizer.get_vocab() != words:
            raise InvalidParameter(
                f"models of a cascade must read the same tokens, but {source} has another vocabulary than "
                f"{models[-1]}; make it from a model with that vocabulary"
            )


def _require_faster_first(models: Sequence[str | Path], seconds: Sequence[float]) -> None:
    for (source, own), (following, other) in pairwise(zip(models, seconds, strict=True)):
        if own >= other:
            raise InvalidParameter(
                f"each model of a cascade must be faster than the next, but {source} takes {1000 * own:.3g} ms for a "
                f"text in PyTorch, and {following} takes {1000 * other:.3g}; leave {source} out, or make it smaller"
            )


def _few(names: dict[int, str]) -> str:
    return ", ".join(list(names.values())[:4])


def _chosen(
    models: Sequence[str | Path],
    answers: Sequence[Answers],
    sure: Sequence[np.ndarray[Any, Any]],
    seconds: Sequence[float],
    *,
    share: float,
    confidence: float,
) -> Cascade:
    fast, last = answers[:-1], answers[-1]
    part, each = share / len(fast), _each(confidence, len(answers))
    left, wrong = np.ones(len(last), bool), np.zeros(len(last), bool)
    thresholds, answered = [], []
    for source, own, how_sure in zip(models, fast, sure, strict=False):
        decided_otherwise = last.disagreements(own)
        assert decided_otherwise is not None  # both kinds decide
        differs = decided_otherwise > 0
        threshold = most_permissive(how_sure, differs, share=part, confidence=each)
        if threshold is None:
            raise InvalidData(
                f"a model of a cascade must agree with the last one where it is sure, but {source} differs from "
                f"{models[-1]} too often even where its confidence is .9999; give a better model, or a larger "
                "max_disagreement"
            )
        mine = left & (how_sure >= threshold)
        if not mine.any():
            raise InvalidData(
                f"a model of a cascade must answer some of the texts, but {source} would answer none of {len(wrong)}, "
                f"after the models before it and with a confidence of {threshold:.4f} or more; leave it out, or give "
                "more training data, or a larger max_disagreement"
            )
        wrong |= mine & differs
        answered.append(float(mine.mean()))
        left &= ~mine
        thresholds.append(threshold)
    return Cascade(
        thresholds=tuple(thresholds),
        answered=(*answered, float(left.mean())),
        disagreement=100 * float(wrong.mean()),
        examples=len(wrong),
        seconds=tuple(seconds),
    )

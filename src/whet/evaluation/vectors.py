"""Vectors of embedders in an index: what it keeps of them, and how far those of another model are from them."""

from dataclasses import replace

import numpy as np

from whet.evaluation.metrics.base import ModelUnderTest
from whet.evaluation.places import without_place
from whet.models.artifact import LoadedModel
from whet.models.inference import predict
from whet.models.sentence import require_vectors
from whet.numerics.vectors import WHOLE, VectorForm
from whet.tasks.data import Examples
from whet.tasks.encoding import encode
from whet.tasks.kinds.base import TaskKind
from whet.tasks.similarity import unit_vectors

__all__ = ["cosine_with", "require_form", "with_form"]

FEW = 64
"""Texts that show how far vectors moved, of which a glance suffices."""


def require_form(form: VectorForm, kind: TaskKind) -> None:
    """Refuse another form of vectors for models that give none.

    Raises:
        InvalidParameter: that is asked for.
    """
    for name, value in form._asdict().items():
        if value != getattr(WHOLE, name):
            require_vectors(kind, f"--{name}")


def with_form(subject: ModelUnderTest, form: VectorForm) -> ModelUnderTest:
    """Return a model whose answers are read from vectors in another form; its name says which.

    Raises:
        InvalidParameter: there are fewer dimensions.
    """
    short = form.shortened(subject.answers.logits)
    width = short.shape[1]
    read = form.read(form.stored(short), width)
    model = without_place(subject.name, {"runtime": subject.runtime})
    return replace(
        subject,
        name=f"{model}, {width} × {form.vectors}{subject.name[len(model) :]}",
        answers=replace(subject.answers, logits=unit_vectors(read).astype(np.float32)),
        vectors=form._replace(dimensions=width),
    )


def cosine_with(original: LoadedModel, model: LoadedModel, texts: Examples, *, max_length: int) -> float:
    """Return the mean cosine of the vectors that two models give a few texts.

    Args:
        original: an embedder.
        model: another, with vectors of as many dimensions.
        texts: any.
        max_length: longer texts are cut, in tokens.
    """
    few = texts.sample(FEW, seed=0).brief()
    before, after = (
        predict(one.model, encode(few, one.tokenizer, max_length=max_length, batch_size=8)) for one in (original, model)
    )
    return 1 - float(before.divergences(after).mean())

"""A model under test whose vectors are those that an index would keep of them."""

from dataclasses import replace

import numpy as np

from whet.evaluation.metrics.base import ModelUnderTest
from whet.evaluation.places import without_place
from whet.models.sentence import require_vectors
from whet.numerics.vectors import WHOLE, VectorForm
from whet.tasks.kinds.base import TaskKind
from whet.tasks.similarity import unit_vectors

__all__ = ["require_form", "with_form"]


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

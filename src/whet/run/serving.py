"""A model as a server over HTTP: JSON in, JSON out, as the kind of the model has them.

::

    from whet.run import server

    app = server("runs/best")  # uvicorn FILE:app

FastAPI makes the page /docs of what a model reads and answers. Requests run in threads.
"""

from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.errors import InvalidData, InvalidParameter, MissingPackage
from whet.run.kinds.base import Predictor
from whet.run.predictor import load

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["server"]

LARGEST_REQUEST = 1_000
"""Texts of the largest request, where nothing else is said."""


def server(model: str | Path | Predictor, *, largest: int = LARGEST_REQUEST) -> "FastAPI":
    """Return a server that answers at /predict, and at /health while it runs.

    What a request must hold and what comes back is JSON of the kind of the model: for classifiers
    `{"texts": ["..."]}`, and a list of objects with label, score and scores.

    Args:
        model: what `whet.load` reads, or a predictor.
        largest: texts of the largest request; a larger one is refused with status 422, as any wrong one is.

    Raises:
        MissingPackage: fastapi is not installed.
        InvalidModel, InvalidArtifact, InvalidParameter: see `whet.load`.
    """
    try:
        from fastapi import FastAPI, HTTPException
    except ImportError as error:
        raise MissingPackage("a server must have fastapi, but it is missing; pip install fastapi uvicorn") from error

    predictor = model if isinstance(model, Predictor) else load(model)
    app = FastAPI(title="whet", description=repr(predictor))

    @app.post("/predict")
    @wraps(predictor.answer)  # its annotations are what FastAPI reads
    def predict(request: Any) -> Any:
        if fault := _too_large(request, largest):
            raise HTTPException(422, fault)
        try:
            return predictor.answer(request)
        except (InvalidParameter, InvalidData) as error:
            raise HTTPException(422, str(error)) from error

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def _too_large(request: Any, largest: int) -> str | None:
    """Say what is wrong with a request that holds too much."""
    for field in fields(request):
        value = getattr(request, field.name)
        if isinstance(value, list) and len(value) > largest:
            return f"{field.name} must be {largest:,} at most, but got {len(value):,}; send them in parts"
    return None

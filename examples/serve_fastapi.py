"""Serve a model: `MODEL=runs/best uvicorn serve_fastapi:app`, then POST {"texts": ["..."]} to /predict."""

import os

from fastapi import FastAPI
from pydantic import BaseModel, Field

import whet

app = FastAPI()
predictor = whet.load(os.environ["MODEL"])


class Request(BaseModel):
    texts: list[str | tuple[str, str]] = Field(max_length=1000)


@app.post("/predict")
def predict(request: Request) -> list[whet.Prediction]:  # not async: requests run in threads
    return predictor.predict(request.texts)

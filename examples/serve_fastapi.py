"""Serve a model of any kind: `MODEL=runs/best uvicorn serve_fastapi:app`; /docs says what to POST to /predict."""

import os

from whet.run import server

app = server(os.environ["MODEL"])

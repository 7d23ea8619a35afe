"""Label the column `text` of Parquet files with Ray Data: `python million_rows.py MODEL IN OUT`."""

import os
import sys

import numpy as np
import ray

import whet


class Labeller:
    """A model in a process of its own, which is loaded once."""

    def __init__(self, model: str) -> None:
        self.predictor = whet.load(model, threads=1)  # as many processes as processors, each with one thread

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the rows with a label and its score."""
        predictions = self.predictor.predict(batch["text"].tolist())
        labels, scores = [one.label for one in predictions], [one.score for one in predictions]
        return {**batch, "label": np.array(labels), "score": np.array(scores, np.float32)}


def label(model: str, source: str, out: str, *, processes: int) -> None:
    """Write the rows with their labels."""
    rows = ray.data.read_parquet(source)
    rows.map_batches(
        Labeller, fn_constructor_args=[model], batch_size=2048, concurrency=processes, num_cpus=1
    ).write_parquet(out)


if __name__ == "__main__":
    model, source, out = map(os.path.abspath, sys.argv[1:])  # Ray's processes have other working folders
    label(model, source, out, processes=max(1, (os.cpu_count() or 1) - 1))  # one is left to read and write

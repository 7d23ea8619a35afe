"""Run a compressed model in a pipeline of transformers, in PyTorch: `python pipeline.py MODEL TEXT ...`."""

import sys

from transformers import pipeline

import whet  # noqa: F401  # makes the structure of compressed models known to transformers

if __name__ == "__main__":
    model, *texts = sys.argv[1:]
    for answer in pipeline("text-classification", model=model)(texts):
        print(f"{answer['label']}\t{answer['score']:.4f}")

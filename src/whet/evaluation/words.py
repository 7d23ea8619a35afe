"""The names of metrics in words, for people who have not read the code."""

import re

from whet.evaluation.measurement import Measurement

__all__ = ["metric_in_words"]

_WORDS = {
    "accuracy": "accuracy",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "f1": "F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "micro_f1": "micro F1 over labels",
    "macro_label_f1": "macro F1 over labels",
    "mean_average_precision": "mean average precision",
    "perplexity": "perplexity",
    "pseudo_perplexity": "pseudo-perplexity",
    "bits_per_byte": "bits per byte",
    "entity_f1": "F1 of entities",
    "entity_precision": "precision of entities",
    "entity_recall": "recall of entities",
    "strict_entity_f1": "F1 of entities, strict",
    "word_accuracy": "accuracy of words",
    "answer_f1": "F1 of answers",
    "exact_match": "exact match",
    "kl": "KL divergence from the baseline",
    "disagreement": "changed answers",
    "latency_median": "time for a single text, median",
    "latency_p95": "time for a single text, 95th percentile",
    "throughput": "texts per second in batches",
    "speedup": "speed in batches",
    "speedup_single": "speed for single texts",
    "disk": "size on disk",
    "compressed": "size when zipped",
    "parameters": "parameters",
    "nonzeros": "parameters that are not zero",
    "peak_memory": "peak memory",
    "vector_bytes": "bytes of a vector",
}
_FIXED_SHAPE = re.compile(r"latency_(\d+)x(\d+)")


def metric_in_words(measurement: Measurement) -> str:
    """Return the name of a metric in words, with the class that it scores if it scores one.

    A metric that another package brought is called by its own name, with spaces for underscores.
    """
    name = measurement.metric
    if shape := _FIXED_SHAPE.fullmatch(name):
        size, length = shape.groups()
        texts = "a text" if size == "1" else f"{size} texts"
        return f"time for {texts} of {length} tokens"
    words = _WORDS.get(name, name.replace("_", " "))
    scored = measurement.conditions.get("class")
    return words if scored is None else f"{words} of {scored}"

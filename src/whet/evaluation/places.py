"""Where a row of a table runs: its name says so in brackets, which narrow tables say shorter."""

from collections.abc import Iterable, Mapping
from typing import Any

from whet.utils.precision import FP32, PYTORCH

__all__ = [
    "TIMED_FROM",
    "place_of",
    "short_name",
    "short_place",
    "short_places_in_words",
    "tokenizer_in_words",
    "without_place",
]

_SHORT = {"onnxruntime": ("ORT", "ONNX Runtime"), "openvino": ("OV", "OpenVINO"), PYTORCH: ("PyTorch", "")}
"""The usual short form of a runtime's name, and what that stands for where it must be said."""

TIMED_FROM = "timed_from"
"""The condition of a trial that says what its times start from: text; or token ids, if it is missing."""


def tokenizer_in_words(conditions: Mapping[str, Any] | None) -> str:
    """Return whether times hold the tokenizer, in words."""
    return f"times are with{'' if (conditions or {}).get(TIMED_FROM) == 'text' else 'out'} the tokenizer"


def place_of(conditions: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the runtime and precision that a trial's conditions name."""
    known = conditions or {}
    return str(known.get("runtime") or PYTORCH), str(known.get("precision") or FP32)


def without_place(name: str, conditions: Mapping[str, Any] | None) -> str:
    """Return the model's name, without the runtime that a row may have after it in brackets."""
    model, _, where = name.removesuffix(")").rpartition(" (")
    return model if model and where.split(" ")[0] == place_of(conditions)[0] else name


def short_place(conditions: Mapping[str, Any] | None) -> str:
    """Return where a row runs, in few characters: `ORT int8`; the precision is left out for fp32."""
    runtime, precision = place_of(conditions)
    short, _ = _SHORT.get(runtime, (runtime, ""))
    return short if precision == FP32 else f"{short} {precision}"


def short_name(name: str, conditions: Mapping[str, Any] | None) -> str:
    """Return a row's name, with where it runs in few characters: `small (ORT int8)`."""
    model = without_place(name, conditions)
    return name if model == name else f"{model} ({short_place(conditions)})"


def short_places_in_words(rows: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Return what the short names of runtimes stand for, as far as rows with these conditions have them."""
    shown = {place_of(conditions)[0] for conditions in rows}
    return [f"{short}: {long}" for name, (short, long) in _SHORT.items() if name in shown and long]

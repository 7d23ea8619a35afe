"""Search folders that whet 0.1.0 wrote, under today's names.

They hold a `journal` beside these files, which is ignored: everything that counts is in the trials.
"""

import json
from collections.abc import Mapping
from typing import Any

from whet.evaluation.trial import current_names

__all__ = ["current_search", "current_trial"]

RENAMED_TRIAL = {"kl": "proxy_kl", "speed": "proxy_speedup", "trials": "candidates"}
RENAMED_SHARED = {"original": "baseline", "recovery": "recovery_share", "confirmed": "confirmations"}


def current_trial(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON value of a structure's outcome."""
    return {RENAMED_TRIAL.get(key, key): value for key, value in entry.items()}


def current_search(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON value of `search.json`.

    Raises:
        ValueError, TypeError, KeyError: it is no such value.
    """
    identity, shared = dict(entry["identity"]), dict(entry["known"] if "known" in entry else entry["shared"])
    if "machine" in identity:
        identity["machine"] = current_names(identity["machine"])
    if "versions" in identity:  # version 0.1.0 took its own for a reason to measure everything anew
        identity["versions"] = {name: version for name, version in identity["versions"].items() if name != "whet"}
    return {"identity": identity, "shared": {RENAMED_SHARED.get(key, key): _plain(shared[key]) for key in shared}}


def _plain(value: Any) -> Any:
    """The same with dicts where version 0.1.0 wrote trials as text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value

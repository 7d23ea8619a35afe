"""A report of several models as one web page that needs nothing but itself.

The page's Content-Security-Policy allows its own style and script, by their digests, and nothing else: no network, no
other script, whatever the names of models hold.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whet.errors import InvalidData
from whet.evaluation.formatting import change, comparison, interval_of, percent, value_of, with_interval, with_unit
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.report.collect import Result
from whet.report.layer_sizes import KeptSizes, PartSize, kept_sizes, words_of
from whet.report.plots import read_curve
from whet.report.view import SPEEDUP, Overview, find, notes, recipes, step_text, unit_of
from whet.utils.files import digest

__all__ = ["html_page"]

CURVE = "curve.csv"
_FIGURES = (SPEEDUP, "latency_median", "kl", "disk")
"""What is told of a mark besides its quality."""


class _Layers(NamedTuple):
    name: str
    kept: KeptSizes


def html_page(view: Overview, results: Sequence[Result], *, mark: str) -> str:
    """Return the page: frontier, table, layers, learning curves, conditions, recipes.

    Args:
        view: what `overview` made of the results.
        results: the same trials, with the folders that layers and curves are read from.
        mark: what the page says it was made by.

    Raises:
        InvalidModel, InvalidArtifact, InvalidData: a model's configuration, weights or curve cannot be read.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    models = _models(view, results)
    words = max(map(words_of, models.values()), default=0)
    found = {name: kept_sizes(folder, words=words) for name, folder in models.items()}
    layers = [_Layers(name, kept) for name, kept in found.items() if kept is not None]
    curves = {name: folder / CURVE for name, folder in models.items() if (folder / CURVE).is_file()}
    return (
        _environment()
        .get_template("report.html")
        .render(
            policy=f"default-src 'none'; style-src {_source_hash(style)}; script-src {_source_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
            style=Markup(style),
            script=Markup(script),
            mark=mark,
            view=view,
            best=_best(view),
            notes=notes(view),
            columns=[
                {"label": "model", "unit": ""},
                *({"label": name, "unit": unit_of(view, name)} for name in view.columns),
            ],
            rows=[_row(view, i) for i in range(len(view.trials))],
            layers=[model for model in layers if not model.kept.whole],
            whole=[model.name for model in layers if model.kept.whole],
            curves=bool(curves),
            recipes=[{"names": names, "text": recipe} for recipe, names in recipes(view).items()],
            data=_data(view, curves),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=PackageLoader("whet.report"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(percent=lambda share: percent(share.share, places=0).removesuffix("%"), tenth=_tenth)
    return environment


def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """A style or script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(bytes.fromhex(digest(text.encode()))).decode()}'"


def _tenth(share: PartSize) -> int:
    return min(10, math.floor(share.share * 10))


def _models(view: Overview, results: Sequence[Result]) -> dict[str, Path]:
    """Folders by the name of the first trial measured on them; runtimes share the model of one folder."""
    folders: dict[Path, str] = {}
    for trial, result in zip(view.trials, results, strict=True):
        if result.folder is not None:
            name = folders.get(result.folder, trial.name)
            folders[result.folder] = min(name, trial.name, key=len)
    return {name: folder for folder, name in folders.items()}


def _best(view: Overview) -> dict[str, Any] | None:
    """The headline, or None where nothing is compared."""
    if view.best is None:
        return None
    baseline, best = view.trials[0], view.trials[view.best]
    if view.best == 0:
        return {
            "title": f"No model is faster without a real loss of {view.quality}",
            "name": baseline.name,
            "tiles": [],
        }
    speedup, quality = best.get(SPEEDUP), best.get(view.quality)
    tiles = [
        {"label": "sentences a second", "value": with_unit(speedup), "note": interval_of(speedup)},
        {"label": view.quality, "value": value_of(quality), "note": comparison(quality.versus)},
    ]
    sizes = [find(trial, "disk") for trial in (baseline, best)]
    if sizes[0] is not None and sizes[1] is not None:
        tiles.append({"label": "on disk", "value": with_interval(sizes[1]), "note": f"of {with_interval(sizes[0])}"})
    title = f"The fastest that is not measurably worse than {baseline.name}"
    return {"title": title, "name": best.name, "tiles": tiles}


def _row(view: Overview, i: int) -> dict[str, Any]:
    trial = view.trials[i]
    return {
        "name": trial.name,
        "recipe": " → ".join(map(step_text, trial.recipe)),
        "series": view.series_of[i],
        "best": i == view.best,
        "cells": [_cell(find(trial, name), is_quality=name == view.quality) for name in view.columns],
    }


def _cell(one: Measurement | None, *, is_quality: bool) -> dict[str, Any]:
    if one is None:
        return {"value": "", "text": "–", "ends": "", "change": "", "versus": ""}
    return {
        "value": repr(float(one.value)),
        "text": value_of(one),
        "ends": interval_of(one),
        "change": change(one) if is_quality else "",
        "versus": comparison(one.versus) if one.versus is not None and one.versus.significant else "",
    }


def _data(view: Overview, curves: Mapping[str, Path]) -> dict[str, Any]:
    """What the script draws."""
    metrics = (view.quality, *(axis.metric for axis in view.axes))
    return {
        "quality": {"metric": view.quality, "better": view.trials[0].get(view.quality).better},
        "axes": [axis._asdict() for axis in view.axes],
        "series": view.series,
        "best": view.best,
        "points": [
            {
                "name": trial.name,
                "recipe": [*map(step_text, trial.recipe)],
                "series": series,
                "baseline": view.baseline and trial is view.trials[0],
                "mib": None if (disk := find(trial, "disk")) is None else disk.value,
                "values": {metric: _ends_of(trial.get(metric)) for metric in metrics},
                "figures": _figures(trial, view.quality),
            }
            for trial, series in zip(view.trials, view.series_of, strict=True)
        ],
        "curves": [{"name": name, "rows": _curve(path)} for name, path in curves.items()],
    }


def _curve(path: Path) -> list[list[float | None]]:
    """The rows of a learning curve; JSON knows no number that is not finite."""
    try:
        rows = read_curve(path)
        if not rows:
            raise ValueError("it has no rows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidData(f"{path} must be a learning curve, but {error!r}; copy it again, or remove it") from error
    return [[value if math.isfinite(value) else None for value in row] for row in rows]


def _ends_of(one: Measurement) -> list[float]:
    return [one.value, one.low, one.high]


def _figures(trial: Trial, quality: str) -> list[tuple[str, str, str]]:
    """What is told of a mark: names, values and intervals."""
    own = trial.get(quality)
    shown = [(quality, value_of(own), interval_of(own))]
    if own.versus is not None:
        shown.append(("against the baseline", change(own), ""))
    others = [(name, one) for name in _FIGURES if (one := find(trial, name)) is not None]
    return shown + [(name, with_unit(one), interval_of(one)) for name, one in others]

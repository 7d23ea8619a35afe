"""A report of several models as one self-contained web page.

The page's Content-Security-Policy allows only its own style and script, by their digests: no network access and no
other script, whatever the names of models contain.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whet.errors import InvalidArtifact, InvalidData, InvalidModel
from whet.evaluation.formatting import change, comparison, interval_of, percent, value_of, with_interval, with_unit
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.models.artifact import check_source
from whet.report.collect import Result
from whet.report.layer_sizes import LayerSize, ModelSizes, model_sizes, vocabulary_size
from whet.report.plots import read_curve
from whet.report.view import (
    SPEEDUP,
    ReportView,
    find_measurement,
    names_by_recipe,
    reader_notes,
    step_text,
    title_of,
    unit_of,
)
from whet.utils.files import digest

__all__ = ["html_page"]

CURVE_FILE = "curve.csv"
_FIGURES = (SPEEDUP, "latency_median", "kl", "disk")
"""Metrics that the tooltip of a mark shows besides its quality."""


T = TypeVar("T")
_Curve = list[list[float | None]]
"""The rows of a learning curve."""


class _Layers(NamedTuple):
    name: str
    kept: ModelSizes


def html_page(view: ReportView, results: Sequence[Result], *, mark: str) -> str:
    """Return the page: frontier, table, layers, learning curves, conditions and recipes.

    Args:
        view: the contents of the report, from `report_view`.
        results: the same trials, with the folders from which layers and curves are read; the page tells of those
            that cannot be read, and shows the figures all the same.
        mark: name of the generator in the page's metadata.
    """
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    models, notes = _models(view, results), list[str]()
    intact = {name: models[name] for name in _read(check_source, models, notes)}
    words = max(_read(vocabulary_size, intact, notes).values(), default=0)
    sizes = _read(partial(model_sizes, words=words), intact, notes)
    layers = [_Layers(name, layer_sizes) for name, layer_sizes in sizes.items() if layer_sizes is not None]
    files = {name: folder / CURVE_FILE for name, folder in models.items() if (folder / CURVE_FILE).is_file()}
    curves = _read(_curve, files, notes)
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
            notes=reader_notes(replace(view, notes=(*view.notes, *dict.fromkeys(notes)))),
            columns=[
                {"label": "model", "unit": ""},
                *({"label": title_of(view, name), "unit": unit_of(view, name)} for name in view.columns),
            ],
            rows=[_row(view, i) for i in range(len(view.trials))],
            layers=[model for model in layers if not model.kept.whole],
            whole=[model.name for model in layers if model.kept.whole],
            curves=bool(curves),
            recipes=[{"names": names, "text": recipe} for recipe, names in names_by_recipe(view).items()],
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
    """Return the expression for a style or script in a content security policy."""
    return f"'sha256-{base64.b64encode(bytes.fromhex(digest(text.encode()))).decode()}'"


def _tenth(share: LayerSize) -> int:
    return min(10, math.floor(share.share * 10))


def _models(view: ReportView, results: Sequence[Result]) -> dict[str, Path]:
    """Return the folders of the models by the shortest name of their trials; runtimes share a model's folder."""
    folders: dict[Path, str] = {}
    for trial, result in zip(view.trials, results, strict=True):
        if result.folder is not None:
            name = folders.get(result.folder, trial.name)
            folders[result.folder] = min(name, trial.name, key=len)
    return {name: folder for folder, name in folders.items()}


def _best(view: ReportView) -> dict[str, Any] | None:
    """Return the headline of the page, or None if nothing is compared."""
    if view.best is None:
        return None
    baseline, best = view.trials[0], view.trials[view.best]
    if view.best == 0:
        return {
            "title": f"No model is faster without a significant loss of {view.quality}",
            "name": baseline.name,
            "tiles": [],
        }
    speedup, quality = best.get(SPEEDUP), best.get(view.quality)
    tiles = [
        {"label": "sentences per second", "value": with_unit(speedup), "note": interval_of(speedup)},
        {"label": view.quality, "value": value_of(quality), "note": comparison(quality.versus)},
    ]
    sizes = [find_measurement(trial, "disk") for trial in (baseline, best)]
    if sizes[0] is not None and sizes[1] is not None:
        tiles.append({"label": "on disk", "value": with_interval(sizes[1]), "note": f"of {with_interval(sizes[0])}"})
    title = f"The fastest model that is not significantly worse than {baseline.name}"
    return {"title": title, "name": best.name, "tiles": tiles}


def _row(view: ReportView, i: int) -> dict[str, Any]:
    trial = view.trials[i]
    return {
        "name": trial.name,
        "recipe": " → ".join(map(step_text, trial.recipe)),
        "series": view.series_of[i],
        "best": i == view.best,
        "cells": [_cell(find_measurement(trial, name), is_quality=name == view.quality) for name in view.columns],
    }


def _cell(measurement: Measurement | None, *, is_quality: bool) -> dict[str, Any]:
    if measurement is None:
        return {"value": "", "text": "–", "ends": "", "change": "", "versus": ""}
    return {
        "value": repr(float(measurement.value)),
        "text": value_of(measurement),
        "ends": interval_of(measurement),
        "change": change(measurement) if is_quality else "",
        "versus": comparison(versus) if (versus := measurement.versus) is not None and versus.significant else "",
    }


def _read(read: Callable[[Path], T], paths: Mapping[str, Path], notes: list[str]) -> dict[str, T]:
    """Return what is read of each path, by name, and note what cannot be read."""
    values: dict[str, T] = {}
    for name, path in paths.items():
        try:
            values[name] = read(path)
        except (InvalidModel, InvalidArtifact, InvalidData) as error:
            notes.append(str(error))
    return values


def _data(view: ReportView, curves: Mapping[str, _Curve]) -> dict[str, Any]:
    """Return the data that the page's script draws."""
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
                "mib": disk.value if (disk := find_measurement(trial, "disk")) and math.isfinite(disk.value) else None,
                "values": {metric: _ends_of(trial.get(metric)) for metric in metrics},
                "figures": _figures(trial, view.quality),
            }
            for trial, series in zip(view.trials, view.series_of, strict=True)
        ],
        "curves": [{"name": name, "rows": rows} for name, rows in curves.items()],
    }


def _curve(path: Path) -> _Curve:
    """Return the rows of a learning curve, with None for numbers that are not finite, which JSON lacks."""
    try:
        rows = read_curve(path)
        if not rows:
            raise ValueError("it has no rows")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidData(f"{path} must be a learning curve, but {error!r}; copy it again, or remove it") from error
    return [[value if math.isfinite(value) else None for value in row] for row in rows]


def _ends_of(measurement: Measurement) -> list[float]:
    return [measurement.value, measurement.low, measurement.high]


def _figures(trial: Trial, quality: str) -> list[tuple[str, str, str]]:
    """Return the figures in the tooltip of a mark: names, values and intervals."""
    main = trial.get(quality)
    shown = [(quality, value_of(main), interval_of(main))]
    if main.versus is not None:
        shown.append(("against the baseline", change(main), ""))
    others = [(name, one) for name in _FIGURES if (one := find_measurement(trial, name)) is not None]
    return shown + [(name, with_unit(one), interval_of(one)) for name, one in others]

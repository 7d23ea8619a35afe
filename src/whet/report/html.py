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
from whet.evaluation.formatting import (
    TIMES,
    change,
    comparison,
    gain_unit,
    interval_of,
    number,
    percent,
    points,
    value_of,
    with_unit,
)
from whet.evaluation.headline import headline, points_in_words
from whet.evaluation.measurement import Measurement
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words
from whet.models.artifact import check_source
from whet.models.manifest import read_manifest
from whet.report.again import RECIPE_FILE, commands_again
from whet.report.collect import Result
from whet.report.layer_sizes import LayerSize, ModelSizes, model_sizes, vocabulary_size
from whet.report.plots import read_curve
from whet.report.view import (
    SPEED_OF,
    ReportView,
    differing_in_words,
    find_measurement,
    names_by_recipe,
    reader_notes,
    step_text,
    unit_of,
    what_it_is,
    words_of,
)
from whet.utils.files import digest

__all__ = ["html_page"]

CURVE_FILE = "curve.csv"
_FIGURES = (*SPEED_OF, "latency_median", "kl", "disk")
"""Metrics that the tooltip of a mark shows besides its quality."""
_COLUMNS = 6
"""Columns of a table that fit a small window, besides the names."""

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
            summary=_summary(view),
            notes=reader_notes(replace(view, notes=(*view.notes, *dict.fromkeys(notes)))),
            bar=points_in_words(view.max_drop, view.trials[0].get(view.quality)),
            words=words_of(view, view.quality),
            columns=_columns(view, view.columns),
            rows=_rows(view, view.columns),
            tables=_tables(view),
            confirmations=[
                {
                    "name": one.chosen or one.trial.name,
                    "sentence": headline(view.trials[0] if view.baseline else None, one.trial),
                    "n": number(one.trial.measurements[0].n),
                }
                for one in view.confirmations
            ],
            layers=[model for model in layers if not model.kept.whole],
            whole=[model.name for model in layers if model.kept.whole],
            curves=bool(curves),
            again=_again(view, intact),
            recipe_file=RECIPE_FILE,
            differing=differing_in_words(view),
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


def _summary(view: ReportView) -> dict[str, Any]:
    """Return what the top of the page says: the sentence, what it is about, and the figures behind it."""
    verdict, measured = view.verdict, view.evidence
    if verdict is None or measured is None:
        words, untimed = words_of(view, view.quality), "" if view.timed else "; not all of their speeds were measured"
        several = f"{words[0].upper()}{words[1:]} of {len(view.trials)} models and runtimes{untimed}"
        alone = f"{view.trials[0].name}: {_in_a_line(view)}"
        return {"sentence": alone if len(view.trials) == 1 else several, "detail": "", "won": None, "tiles": []}
    return {
        "sentence": verdict.sentence,
        "detail": verdict.detail,
        "won": {"name": verdict.trial.name, "what": what_it_is(verdict.trial)} if verdict.won else None,
        "confirmed": number(measured.measurements[0].n) if measured is not verdict.trial else "",
        "tiles": _tiles(view, measured) if verdict.won else [],
    }


def _in_a_line(view: ReportView) -> str:
    """Return what the first model is, such as `accuracy 0.912, 24.2 ms for a single text, 87.0 MiB on disk`."""
    uses = {"latency_median": "for a single text", "throughput": "in batches", "disk": "on disk"}
    shown = [one for metric in view.columns if (one := find_measurement(view.trials[0], metric)) is not None]
    return ", ".join(
        f"{_absolute(one)} {uses[one.metric]}" if one.metric in uses else f"{metric_in_words(one)} {_absolute(one)}"
        for one in shown
    )


def _tiles(view: ReportView, measured: Trial) -> list[dict[str, str]]:
    """Return the figures behind the sentence, with their intervals."""
    tiles = []
    for name, metric in SPEED_OF.items():
        speedup, timed = find_measurement(measured, name), find_measurement(measured, metric)
        if speedup is not None and timed is not None:
            note = f"{interval_of(speedup)}; {_absolute(timed)}"
            tiles.append({"label": metric_in_words(speedup), "value": with_unit(speedup), "note": note})
    quality = measured.measurements[0]
    if quality.versus is not None:
        note = f"{points(quality.versus)} {gain_unit(quality.better)}"
        tiles.append({"label": metric_in_words(quality), "value": value_of(quality), "note": note})
    sizes = [find_measurement(trial, "disk") for trial in (view.trials[0], measured)]
    if sizes[0] is not None and sizes[1] is not None:
        note = f"instead of {with_unit(sizes[0])}" if view.baseline else ""
        tiles.append({"label": metric_in_words(sizes[1]), "value": with_unit(sizes[1]), "note": note})
    return tiles


def _rows(view: ReportView, metrics: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": trial.name,
            "what": what_it_is(trial),
            "series": series,
            "best": i == view.best,
            "cells": [_cell(view, trial, metric) for metric in metrics],
        }
        for i, (trial, series) in enumerate(zip(view.trials, view.series_of, strict=True))
    ]


def _columns(view: ReportView, metrics: Sequence[str]) -> list[dict[str, str]]:
    units = {"1/s": "", TIMES: "times the baseline"}
    return [
        {"label": words_of(view, one), "unit": units.get(unit_of(view, one), unit_of(view, one))} for one in metrics
    ]


def _cell(view: ReportView, trial: Trial, metric: str) -> dict[str, Any]:
    measurement = find_measurement(trial, metric)
    if measurement is None:
        return {"value": "", "text": "–", "notes": [], "versus": ""}
    versus, own = measurement.versus, ""
    timed = find_measurement(trial, SPEED_OF.get(metric, ""))
    if timed is not None:
        own = _absolute(timed)
    elif metric == view.quality and versus is not None:
        own = f"{points(versus)} {gain_unit(measurement.better)}"
    return {
        "value": repr(float(measurement.value)),
        "text": with_unit(measurement) if measurement.unit == TIMES else value_of(measurement),
        "notes": [note for note in (interval_of(measurement), own) if note],
        "versus": comparison(versus) if versus is not None and versus.significant else "",
    }


def _absolute(timed: Measurement) -> str:
    return with_unit(replace(timed, unit="texts/s") if timed.unit == "1/s" else timed)


def _tables(view: ReportView) -> list[dict[str, Any]]:
    """Return the tables of all that the first one leaves out, each narrow enough for a small window."""
    names = {True: "Times", False: "Answers and sizes"}
    groups = [[one for one in view.others if _is_a_time(view, one) is timed] for timed in names]
    return [
        {"title": title, "columns": _columns(view, some), "rows": _rows(view, some)}
        for title, group in zip(names.values(), groups, strict=True)
        for some in (group[k : k + _COLUMNS] for k in range(0, len(group), _COLUMNS))
    ]


def _is_a_time(view: ReportView, metric: str) -> bool:
    return unit_of(view, metric) in ("ms", "1/s")


def _again(view: ReportView, models: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the recipe of every model that has one, and the commands that make it again.

    Args:
        view: the contents of the report.
        models: folders that can be read, by the names of their trials; they know what a model was made from.
    """
    best = None if view.best is None else view.trials[view.best].name
    made = []
    for text, names in names_by_recipe(view).items():
        trials = [trial for trial in view.trials if trial.name in names]
        manifest = next((read_manifest(models[name]) for name in names if name in models), None)
        origin, calibration = (None, None) if manifest is None else (manifest.origin, manifest.calibration)
        commands = ""
        if trials[0].recipe:
            commands = commands_again(view, trials, origin=origin, calibration=calibration)
        made.append({"names": names, "text": text, "commands": commands, "open": best in names})
    return [one for one in made if one["commands"]]


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
        "quality": {
            "metric": view.quality,
            "words": words_of(view, view.quality),
            "better": view.trials[0].get(view.quality).better,
        },
        "axes": [axis._asdict() for axis in view.axes],
        "series": view.series,
        "best": view.best,
        "points": [
            {
                "name": trial.name,
                "recipe": [*map(step_text, trial.recipe)] or [what_it_is(trial)],
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
    shown = [(metric_in_words(main), value_of(main), interval_of(main))]
    if main.versus is not None:
        shown.append(("against the baseline", change(main), ""))
    others = [one for name in _FIGURES if (one := find_measurement(trial, name)) is not None]
    return shown + [(metric_in_words(one), with_unit(one), interval_of(one)) for one in others]

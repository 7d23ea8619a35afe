"""A report of several models as Markdown with a picture, for papers and repositories."""

from collections.abc import Sequence
from dataclasses import replace

from whet.evaluation.formatting import TIMES, comparison, markdown_text, number, with_interval
from whet.evaluation.trial import Trial
from whet.report.view import ReportView, find_measurement, names_by_recipe, reader_notes, step_text, title_of, unit_of

__all__ = ["markdown_page"]


def markdown_page(view: ReportView, *, mark: str, picture: str) -> str:
    """Return the Markdown text: a table with intervals and paired tests, the recipes and the conditions.

    Args:
        view: the contents of the report.
        mark: name of the generator, in a comment at the beginning.
        picture: file name of the picture.
    """
    metrics = [name for name in view.columns if name != view.quality]
    heads = [
        "model",
        f"{title_of(view, view.quality)} (95 %)",
        "against the baseline",
        *(_head(view, name) for name in metrics),
    ]
    conditions = "; ".join(f"{key}: {value}" for key, value in view.common.items())
    return "\n".join(
        [
            f"<!-- {mark} -->",
            "",
            f"# {markdown_text(view.task)}: {markdown_text(view.quality)} against speed and size",
            "",
            f"![{markdown_text(view.quality)} against speed, with 95 % intervals]({picture})",
            "",
            _line(heads),
            f"|{'---|' * len(heads)}",
            *(_line(_cells(trial, view.quality, metrics)) for trial in view.trials),
            "",
            f"{number(view.examples)} dev examples; in brackets, 95 % intervals.",
            *(f"{markdown_text(note)}" for note in reader_notes(view)),
            "",
            *_recipes(view),
            "",
            f"Conditions: {markdown_text(conditions)}.",
            "",
        ]
    )


def _head(view: ReportView, metric: str) -> str:
    unit = unit_of(view, metric)
    title = title_of(view, metric)
    return f"{title} ({unit})" if unit not in ("", TIMES) else title


def _cells(trial: Trial, quality: str, metrics: Sequence[str]) -> list[str]:
    main = trial.get(quality)
    measurements = (find_measurement(trial, metric) for metric in metrics)
    others = [
        "" if one is None else with_interval(replace(one, unit="") if one.unit != TIMES else one)
        for one in measurements
    ]
    return [trial.name, with_interval(main), comparison(main.versus), *others]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


def _recipes(view: ReportView) -> list[str]:
    steps = {trial.name: " → ".join(map(step_text, trial.recipe)) for trial in view.trials}
    return [
        f"- {markdown_text(', '.join(names))}: {markdown_text(steps[names[0]] or 'nothing')}"
        for names in names_by_recipe(view).values()
    ]

"""A report of several models as Markdown with a picture, for papers and repositories."""

from collections.abc import Sequence
from dataclasses import replace

from whet.evaluation.formatting import TIMES, comparison, markdown_text, number, with_interval
from whet.evaluation.headline import headline
from whet.evaluation.trial import Trial
from whet.report.tables import TABLE_METRICS
from whet.report.view import ReportView, find_measurement, names_by_recipe, reader_notes, unit_of, what_it_is, words_of

__all__ = ["markdown_page"]


def markdown_page(view: ReportView, *, mark: str, picture: str) -> str:
    """Return the Markdown text: what was won, a table with intervals and paired tests, the recipes and the conditions.

    Args:
        view: the contents of the report.
        mark: name of the generator, in a comment at the beginning.
        picture: file name of the picture.
    """
    words = words_of(view, view.quality)
    metrics = [*view.columns[1:], *(name for name in TABLE_METRICS if name in view.others)]
    heads = ["model", f"{words} (95 %)", "against the baseline", *(_head(view, name) for name in metrics)]
    cost = "speed and size" if view.timed else "size"
    conditions = "; ".join(f"{key}: {value}" for key, value in view.common.items())
    return "\n".join(
        [
            f"<!-- {mark} -->",
            "",
            f"# {markdown_text(view.task)}: {markdown_text(words)} against {cost}",
            "",
            *([] if view.verdict is None else [markdown_text(str(view.verdict)), ""]),
            f"![{markdown_text(words)} against {cost}, with 95 % intervals]({picture})",
            "",
            _line(heads),
            f"|{'---|' * len(heads)}",
            *(_line(_cells(trial, view.quality, metrics)) for trial in view.trials),
            "",
            f"{markdown_text(view.examples)}; in brackets, 95 % intervals.",
            *(markdown_text(note) for note in (*_confirmed(view), *reader_notes(view))),
            "",
            *_recipes(view),
            "",
            f"Conditions: {markdown_text(conditions)}.",
            "",
        ]
    )


def _confirmed(view: ReportView) -> list[str]:
    return [
        f"On {number(one.trial.measurements[0].n)} dev examples, {one.chosen or one.trial.name} is "
        f"{headline(view.trials[0] if view.baseline else None, one.trial)}."
        for one in view.confirmations
    ]


def _head(view: ReportView, metric: str) -> str:
    unit = unit_of(view, metric)
    words = words_of(view, metric)
    return f"{words} ({unit})" if unit not in ("", "1/s", TIMES) else words


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
    texts = {trial.name: what_it_is(trial) for trial in view.trials}
    return [
        f"- {markdown_text(', '.join(names))}: {markdown_text(texts[names[0]])}"
        for names in names_by_recipe(view).values()
        if texts[names[0]]
    ]

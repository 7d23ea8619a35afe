"""The model card: what was won, how to load each form of the model, how it was made, and what was measured.

A card is the README.md of a model's folder, and the page of the model on the hub. Beside each figure stands the code
that reaches it: a speed that was measured in ONNX Runtime is that of no PyTorch pipeline. The code names the folder by
its last name, since a card travels with its folder; no path of a machine is in it.
"""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from whet.evaluation.description import Steps, description
from whet.evaluation.formatting import (
    comparison,
    interval_of,
    markdown_code,
    markdown_text,
    number,
    plain_line,
    ratio,
    with_unit,
)
from whet.evaluation.headline import SPEEDS, headline, least_speedup
from whet.evaluation.measurement import Measurement
from whet.evaluation.metrics.base import Quality, all_metrics
from whet.evaluation.places import tokenizer_in_words
from whet.evaluation.slowness import busy_sentence
from whet.evaluation.trial import Trial
from whet.evaluation.words import metric_in_words
from whet.models.manifest import Lineage, Made
from whet.run.kinds.base import TRANSFORMERS, predictor_named
from whet.run.target import PACKAGES
from whet.tasks.base import hub_dataset
from whet.tasks.kinds.base import kind_named
from whet.utils.precision import FP32, INT8, PYTORCH

__all__ = ["CardFacts", "Form", "measured_table", "model_card", "won_by"]

HUB_METRICS = {
    "answer_f1": "f1",
    "entity_f1": "f1",
    "entity_precision": "precision",
    "entity_recall": "recall",
    "macro_f1": "f1",
    "macro_label_f1": "f1",
    "matthews": "matthews_correlation",
    "micro_f1": "f1",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "strict_entity_f1": "f1",
    "weighted_f1": "f1",
    "word_accuracy": "accuracy",
}
"""What the hub calls metrics, where it calls them otherwise."""
FROM_FILES = "tabular"
"""The name of every task from a user's own files."""
_BATCHES = (
    "In int8, an answer depends a little on the other texts of its batch; with `whet.load(..., batch_size=1)` it does "
    "not."
)


class Form(NamedTuple):
    """One of the forms in which a folder holds its model."""

    runtime: str
    """The runtime that reads it."""
    precision: str = FP32
    """The precision that the runtime computes in."""

    def __str__(self) -> str:
        return self.runtime if self.runtime == PYTORCH else f"{self.runtime} {self.precision}"


class CardFacts(NamedTuple):
    """What a model card says besides measurements."""

    name: str
    """Name of the model's folder."""
    recipe: Steps = ()
    """The steps that compressed it."""
    origin: str | None = None
    """Public name of the model that it was made from; None if that is not known."""
    made: Made | None = None
    """How it was trained, if whet did."""
    lineage: Lineage = Lineage()
    """Where it comes from as the hub tells it."""
    kind: str = "classification"
    """Name of the kind of its answers."""
    needs_whet: bool = False
    """Whether transformers can load it only after `import whet`."""
    forms: Sequence[Form] = (Form(PYTORCH),)
    """The forms that the folder holds."""
    target: Form | None = None
    """The form that it was made for, if it was made for one."""


def model_card(facts: CardFacts, measured: Sequence[Trial]) -> str:
    """Return the model card, as Markdown with the hub's metadata at its head.

    Args:
        facts: what is known of the model.
        measured: what was measured of it, oldest first; of each form, the newest with times counts.
    """
    newest = _newest(measured)
    forms = sorted(facts.forms, key=lambda form: _rank(form, facts.target, newest.get(form)))
    made = description(facts.recipe, origin=facts.origin, made=facts.made)
    lines = ["---", *_head(facts, newest).splitlines(), "---", f"# {markdown_text(facts.name)}", ""]
    if forms and (won := _won(newest.get(forms[0]))):
        lines += [won, ""]
    lines += [f"Made by whet: {markdown_text(made)}."]
    if facts.recipe:
        lines += ["", f"Recipe: {_told(facts.recipe)}."]
    lines += ["", "## Load it", "", _where(facts)]
    for form in forms:
        lines += ["", *_loading(form, facts, newest.get(form))]
    lines += ["", "## Measured", ""]
    if not measured:
        lines += [f"Not yet: {_measure_it(facts, Form(PYTORCH))} measures it."]
    ordered = sorted(newest, key=lambda form: _rank(form, facts.target, newest[form]))
    for i, form in enumerate(ordered):
        title = [f"### Measured in {markdown_text(str(form))}", ""] if len(ordered) > 1 else []
        lines += [*[""][:i], *title, *measured_table(newest[form])]
    return "\n".join(lines) + "\n"


def won_by(form: Form, measured: Sequence[Trial]) -> str:
    """Return what a form wins, in one sentence of Markdown; nothing for the baseline, and without measurements.

    Args:
        form: the form.
        measured: what was measured of the model, oldest first; the newest of the form counts.
    """
    return _won(_newest(measured).get(form))


def measured_table(trial: Trial) -> list[str]:
    """Return the lines of a Markdown table of everything measured, and of its conditions."""
    rows = ["| metric | value | 95 % interval | n | against the baseline |", "|---|---|---|---|---|"]
    for one in trial.measurements:
        cells = (metric_in_words(one), with_unit(one), interval_of(one), number(one.n), comparison(one.versus))
        rows.append(f"| {' | '.join(map(markdown_text, cells))} |")
    conditions = ", ".join(f"{key}: {value}" for key, value in (trial.conditions or {}).items())
    return [*rows, "", f"Conditions: {markdown_text(conditions)}."]


def _newest(measured: Sequence[Trial]) -> dict[Form, Trial]:
    """The newest trial of each form; one with times is preferred to one without, as in a report."""
    return {_form_of(trial): trial for trial in sorted(measured, key=lambda trial: least_speedup(trial) is not None)}


def _form_of(trial: Trial) -> Form:
    conditions = trial.conditions or {}
    runtime = str(conditions.get("runtime", PYTORCH))
    return Form(runtime) if runtime == PYTORCH else Form(runtime, str(conditions.get("precision", FP32)))


def _rank(form: Form, target: Form | None, trial: Trial | None) -> tuple[bool, float]:
    """Sort the form that the model was made for first, then the fastest; what was not measured comes last."""
    return form != target, -((least_speedup(trial) if trial else None) or 0.0)


def _won(trial: Trial | None) -> str:
    """Say in one sentence what the form of this trial wins; nothing for the baseline, and without measurements."""
    if trial is None or all(one.versus is None for one in trial.measurements):
        return ""
    conditions = trial.conditions or {}
    size = conditions.get("baseline_disk")
    sizes = [Measurement.count("disk", size, "MiB")] if isinstance(size, int | float) else []
    words = markdown_text(headline(Trial("", [], 0, sizes), trial))
    against = f"against {markdown_code(str(conditions['baseline']))}" if "baseline" in conditions else ""
    where = f"in {markdown_text(str(_form_of(trial)))}"
    data = markdown_text(f"on {_data_of(trial)}, {conditions.get('split', 'dev split')}")
    return f"**{words[0].upper()}{words[1:]}**: {' '.join(filter(None, (where, against, data)))}."


def _where(facts: CardFacts) -> str:
    copy = '`huggingface_hub.snapshot_download("OWNER/NAME")` gives the path of a copy'
    return (
        f"The code names this folder {markdown_code(facts.name)}: run it in the folder that holds it, or put the path "
        f"there. On the hub, {copy}."
    )


def _loading(form: Form, facts: CardFacts, trial: Trial | None) -> list[str]:
    """Return how to load one form, after what was measured of it."""
    told = [f"### In {markdown_text(str(form))}", "", _speed(form, facts, trial), ""]
    threads = _threads(trial)
    if form.runtime == PYTORCH:
        lines = _in_pytorch(facts, threads)
        return [*told, *(_install(form) if facts.needs_whet else []), "```python", *lines, "```"]
    if form.runtime not in PACKAGES:
        return [*told, "The package that brought this runtime says how to load it."]
    name = _literal(facts.name)
    how = {"runtime": _literal(form.runtime), "precision": _literal(form.precision), "threads": threads}
    options = "".join(f", {key}={value}" for key, value in how.items() if value is not None)
    code = [
        "import whet",
        "",
        f"predictor = whet.load({name}{options})",
        f"print({predictor_named(facts.kind).call})",
    ]
    note = ["", _BATCHES] if form.precision == INT8 else []
    return [*told, *_install(form), "```python", *code, "```", *note]


def _speed(form: Form, facts: CardFacts, trial: Trial | None) -> str:
    """Say which speed was measured of a form."""
    timed = {one.metric: one.versus for one in trial.measurements} if trial else {}
    conditions = (trial.conditions if trial else None) or {}
    size = f"{conditions['batch_size']} texts" if "batch_size" in conditions else "many texts"
    places = {"latency_median": "for single texts", "throughput": f"in batches of {size} sorted by length"}
    told = [f"{ratio(versus)} {places[metric]}" for metric in places if (versus := timed.get(metric))]
    if told:
        baseline = markdown_code(str(conditions.get("baseline", "the baseline")))
        said = f"Speed, as a multiple of that of {baseline}: {', '.join(told)}; {tokenizer_in_words(conditions)}."
        return f"{said} {busy_sentence(conditions)}".rstrip()
    if any(metric in timed for metric in places):
        return "Other models were measured against this one."
    return f"Its speed is not measured yet: {_measure_it(facts, form)} measures it."


def _threads(trial: Trial | None) -> int | None:
    """Return with how many threads the speed beside a code was measured; None where there is none."""
    compared = trial is not None and any(one.metric in SPEEDS and one.versus for one in trial.measurements)
    threads = (trial.conditions or {}).get("threads") if trial is not None and compared else None
    return threads if isinstance(threads, int) else None


def _measure_it(facts: CardFacts, form: Form) -> str:
    where = "" if form.runtime == PYTORCH else f" --runtime {form.runtime} --precision {form.precision}"
    command = f"whet measure ORIGINAL {shlex.quote(facts.name)} --task TASK{where}"
    return f"{markdown_code(command)}, or with `--dev-file FILE` for rows of your own,"


def _install(form: Form) -> list[str]:
    return ["```bash", f"pip install {PACKAGES[form.runtime]}", "```", ""]


def _in_pytorch(facts: CardFacts, threads: int | None) -> list[str]:
    tag = kind_named(facts.kind).pipeline_tag
    lines = predictor_named(facts.kind).in_pytorch(_literal(facts.name), tag)
    if threads is not None:
        imports = lines.index("") + 1 if "" in lines else 0
        lines = ["import torch", *lines[:imports], f"torch.set_num_threads({threads})", *lines[imports:]]
    structure = ["import whet  # makes the structure known to transformers"]
    return [*structure, *lines] if facts.needs_whet and "import whet" not in lines else lines


def _literal(text: str) -> str:
    """Return a text as a literal of Python."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)


def _told(recipe: Steps) -> str:
    """Return the steps by the names of their methods, which need not be known here."""
    steps = []
    for step in recipe:
        given = {key: value for key, value in step.items() if key != "method" and value is not None}
        shown = ", ".join(f"{key}={value}" for key, value in given.items())
        steps.append(markdown_code(f"{step['method']}({shown})"))
    return " → ".join(steps)


def _head(facts: CardFacts, newest: Mapping[Form, Trial]) -> str:
    """Return the hub's metadata as YAML."""
    lineage, tag = facts.lineage, kind_named(facts.kind).pipeline_tag
    library = predictor_named(facts.kind).library
    results = {form: qualities for form, trial in newest.items() if (qualities := _qualities(trial))}
    how = ["compressed"] if facts.recipe else [facts.made.how] if facts.made else []
    others = [library] if library != TRANSFORMERS else []
    tags = ["whet", *others, *how, *dict.fromkeys(form.runtime for form in facts.forms if form.runtime != PYTORCH)]
    known: dict[str, Any] = {
        "library_name": "whet" if facts.needs_whet else library,
        "pipeline_tag": tag,
        "tags": tags,
        **lineage.model_dump(include=set(Lineage.model_fields), mode="json"),
        "metrics": list(dict.fromkeys(_hub_metric(one) for each in results.values() for one in each)),
        "model-index": [
            {
                "name": facts.name,
                "results": [_result(tag, newest[form], form, each) for form, each in results.items()],
            }
        ]
        if results
        else [],
    }
    told = {key: _on_one_line(value) for key, value in known.items() if value}
    text: str = yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=math.inf)
    return text


def _on_one_line(value: Any) -> Any:
    """Return JSON values with texts that take one line each: a line of dashes would end the head."""
    if isinstance(value, dict):
        return {key: _on_one_line(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_on_one_line(inner) for inner in value]
    return plain_line(value) if isinstance(value, str) else value


def _qualities(trial: Trial) -> list[Measurement]:
    """Return what was measured on the dev split of how good the answers are."""
    if "split" in (trial.conditions or {}):
        return []  # a slice of the training data, by which a search chose
    names = {name for name, metric in all_metrics().items() if issubclass(metric, Quality)}
    return [one for one in trial.measurements if one.metric in names and math.isfinite(one.value)]


def _result(tag: str, trial: Trial, form: Form, qualities: Sequence[Measurement]) -> dict[str, Any]:
    """Return an entry of the hub's model-index."""
    task = _data_of(trial)
    dataset: dict[str, Any] = {"name": f"{task}, dev split", "type": hub_dataset(task) or task, "split": "dev"}
    metrics = [
        {
            "type": _hub_metric(one),
            "value": one.value,
            "name": f"{metric_in_words(one)} on the dev split, in {form}",
        }
        for one in qualities
    ]
    return {"task": {"type": tag}, "dataset": dataset, "metrics": metrics}


def _data_of(trial: Trial) -> str:
    """Return the name of the data that a trial was measured on."""
    task = str((trial.conditions or {}).get("task", FROM_FILES))
    return "own data" if task == FROM_FILES else task


def _hub_metric(one: Measurement) -> str:
    return HUB_METRICS.get(one.metric, one.metric)

import ast
import dataclasses
import re
import warnings

import pytest
import yaml
from huggingface_hub import ModelCard

from measured import trial as measured_trial
from whet.evaluation import slowness
from whet.evaluation.card import CardFacts, Form, measured_table, model_card
from whet.evaluation.description import description, description_of
from whet.evaluation.formatting import plain_line
from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.trial import Trial
from whet.models.manifest import Lineage, Made
from whet.run.kinds.base import predictor_named
from whet.tasks.kinds.base import all_kinds

WORSE = Comparison(kind="difference", value=-0.012, low=-0.02, high=0.001, p_value=0.07, test="McNemar, exact")
FASTER = Comparison(kind="ratio", value=1.53, low=1.5, high=1.6, p_value=1e-5, test="Wilcoxon")
TRIAL = Trial(
    "small",
    [],
    0,
    [
        Measurement(metric="accuracy", value=0.9, unit="", low=0.88, high=0.92, n=1872, better="higher", versus=WORSE),
        Measurement(
            metric="latency_median", value=12.5, unit="ms", low=12.0, high=13.0, n=30, better="lower", versus=FASTER
        ),
        Measurement.count("disk", 14.0, "MiB"),
    ],
    conditions={"machine": "two cores", "task": "glue/mrpc", "baseline": "base", "baseline_disk": 87.0},
)
FACTS = CardFacts("small", origin="base")
INT8 = Form("onnxruntime", "int8")
HOSTILE = [
    '"""; import os; #',
    "`code`",
    "a\n---\n# other",
    "x|y|z",
    "<script>alert(1)</script>",
    "![a](b)",
    "\udcff",
    "$x$",
    "a: b # c\n- d",
    "\N{PILE OF POO} \x07",
]


def head_of(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def code_of(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)


def test_the_table_has_a_row_for_each_measurement():
    assert measured_table(TRIAL)[:5] == [
        "| metric | value | 95 % interval | n | against the baseline |",
        "|---|---|---|---|---|",
        "| accuracy | 0.900 | 0.880 to 0.920 | 1,872 | -0.012 (-0.020 to +0.001), p = 0.07 |",
        "| time for a single text, median | 12.5 ms | 12.0 to 13.0 | 30 | 1.53 × (1.50 to 1.60), p = 1e-05 |",
        "| size on disk | 14.0 MiB |  | 1 |  |",
    ]


def test_a_model_card_shows_what_was_measured_last():
    older = dataclasses.replace(TRIAL, measurements=[Measurement.count("parameters", 7, "")])
    table = measured_table(TRIAL)
    assert model_card(FACTS, [older, TRIAL]).splitlines()[-len(table) :] == table
    assert "Not yet: `whet measure" in model_card(FACTS, [])


def test_a_measurement_without_times_does_not_hide_those_of_an_earlier_one():
    untimed = dataclasses.replace(TRIAL, measurements=[one for one in TRIAL.measurements if one.metric == "accuracy"])
    assert model_card(FACTS, [TRIAL, untimed]) == model_card(FACTS, [TRIAL])


def test_the_first_line_says_in_words_what_was_won():
    lines = model_card(FACTS, [TRIAL]).splitlines()
    title = lines.index("# small")
    assert lines[title + 2] == (
        "**1.5 times as fast for single texts, accuracy 1.2 points lower (-2.0 to +0.1), 14 MiB instead of 87**: "
        "in pytorch against `base` on glue/mrpc, dev split."
    )
    baseline = dataclasses.replace(
        TRIAL, measurements=[dataclasses.replace(one, versus=None) for one in TRIAL.measurements]
    )
    assert "**" not in model_card(FACTS, [baseline])


def test_the_code_beside_a_speed_runs_what_was_measured():
    """The case that went wrong: 4.4 times in ONNX Runtime stood beside a PyTorch pipeline, which gave 1.09."""
    facts = FACTS._replace(forms=[Form("pytorch"), INT8], recipe=[{"method": "factorization.kfac", "keep": 0.3}])
    trials = [
        measured_trial("small", speedup=1.09),
        measured_trial("small", speedup=4.4, runtime="onnxruntime", precision="int8"),
        measured_trial("small", speedup=9.9, runtime="torch_compile"),
    ]
    for order in (trials, trials[::-1]):
        card = model_card(facts, order)
        parts = re.findall(r"^### In (.*?)$.*?(\d\.\d\d) × .*?\n(.*?)(?=^##)", card, re.DOTALL | re.MULTILINE)
        assert [(form, speed) for form, speed, _ in parts] == [("onnxruntime int8", "4.40"), ("pytorch", "1.09")]
        for (form, _, text), call in zip(parts, ('runtime="onnxruntime", precision="int8"', "pipeline("), strict=True):
            [code] = code_of(text)
            assert call in code, form
        assert card.index("**4.4 times as fast") < card.index("## Load it")


def test_a_speed_that_other_work_may_have_changed_is_doubted(monkeypatch):
    monkeypatch.setattr(slowness, "BUSY", 1.25)
    idle, busy = (model_card(FACTS, [measured_trial("a", speedup=2.0, slowness=one)]) for one in (1.0, 2.3))
    doubt = "The machine was busy with other work: what was timed waited 57 % of the time"
    assert doubt not in idle and doubt in busy


def test_the_code_beside_a_speed_has_its_threads():
    facts = FACTS._replace(forms=[Form("pytorch"), INT8], needs_whet=True)
    trials = [
        measured_trial("small", speedup=2.0, threads=3),
        measured_trial("small", speedup=4.0, threads=3, runtime="onnxruntime", precision="int8"),
    ]
    export, pytorch = code_of(model_card(facts, trials))
    assert 'whet.load("small", runtime="onnxruntime", precision="int8", threads=3)' in export
    assert pytorch.splitlines()[1:6] == [
        "import torch",
        "from transformers import pipeline",
        "",
        "torch.set_num_threads(3)",
        'classify = pipeline("text-classification", model="small")',
    ]
    baseline = measured_trial("small", threads=3)
    for measured in ([], [baseline]):
        assert "threads" not in "".join(code_of(model_card(facts, measured)))


def test_the_code_loads_only_what_whet_loads():
    card = model_card(FACTS._replace(forms=[Form("of_another_package")]), [])
    assert code_of(card) == [] and "The package that brought this runtime says how" in card


def test_the_form_that_a_model_was_made_for_comes_first():
    facts = FACTS._replace(forms=[Form("pytorch"), INT8], target=INT8)
    assert [("pipeline" in code) for code in code_of(model_card(facts, []))] == [False, True]
    unmeasured = model_card(facts, [])
    assert "`whet measure ORIGINAL small --task TASK --runtime onnxruntime --precision int8`" in unmeasured
    named = model_card(facts._replace(name="small one"), [])
    assert "`whet measure ORIGINAL 'small one' --task TASK --runtime" in named
    assert "**" not in unmeasured


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_card_means_the_same_whatever_names_it_shows(text: str):
    """As many lines, rows and columns as with plain names; the code is a string; nothing is HTML."""

    def shape(name: str) -> list[tuple[str, int]]:
        row = dataclasses.replace(TRIAL.measurements[2], metric=name)
        conditions = {name: name, "task": name, "baseline": name}
        trial = dataclasses.replace(TRIAL, measurements=[*TRIAL.measurements[:2], row], conditions=conditions)
        made = Made(how="distilled", student=name)
        facts = CardFacts(
            name, [{"method": name, name: name}], name, made, Lineage(license=name), forms=[Form("pytorch"), INT8]
        )
        card = model_card(facts, [trial])
        assert head_of(card)["license"] == plain_line(name)
        strings = [
            node.value for code in code_of(card) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)
        ]
        assert strings.count(name) == 2
        body = card.split("---\n", 2)[2].splitlines()
        shown = [line for line in body if not line.startswith(("classify", "predictor"))]
        assert "<script" not in re.sub(r"`[^`]*`", "", "\n".join(shown)).replace("\\<", "")
        return [(line[:2], line.replace("\\|", "").count("|")) for line in shown]

    plain, hostile = shape("plain"), shape(text)
    assert [line for line, _ in hostile] == [line for line, _ in plain]
    assert [cells for line, cells in hostile if line == "| "] == [cells for line, cells in plain if line == "| "]
    model_card(CardFacts(text, origin=text), []).encode()


def test_a_model_card_shows_scores_as_they_are():
    """Pipelines would squash a single output."""
    score = 'score = pipeline("text-classification", model="small", function_to_apply="none")'
    assert score in model_card(FACTS._replace(kind="regression"), [])
    every = 'classify = pipeline("text-classification", model="small", top_k=None)'
    assert every in model_card(FACTS._replace(kind="multi_label"), [])
    assert 'classify = pipeline("text-classification", model="small")' in model_card(
        FACTS._replace(kind="classification"), []
    )


def test_whet_is_imported_only_where_transformers_needs_it():
    for needed in (False, True):
        card = model_card(FACTS._replace(needs_whet=needed), [])
        assert ("import whet" in card) == needed
        assert head_of(card)["library_name"] == ("whet" if needed else "transformers")


def test_the_hub_reads_the_head():
    """As its own library reads and checks it, and everything that is known is there."""
    lineage = Lineage(
        base_model="google-bert/bert-base-uncased",
        base_model_relation="finetune",
        license="apache-2.0",
        language=("en",),
        datasets=("nyu-mll/glue",),
    )
    trials = [
        measured_trial("s"),
        measured_trial("s", accuracy=0.79, speedup=4.0, runtime="onnxruntime", precision="int8"),
    ]
    facts = FACTS._replace(lineage=lineage, forms=[Form("pytorch"), INT8], made=Made(how="fine-tuned"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ModelCard(model_card(facts, trials)).data
    assert {key: getattr(data, key) for key in ("base_model", "license", "language", "datasets", "metrics")} == {
        "base_model": "google-bert/bert-base-uncased",
        "license": "apache-2.0",
        "language": ["en"],
        "datasets": ["nyu-mll/glue"],
        "metrics": ["accuracy"],
    }
    assert data.pipeline_tag == "text-classification" and data.tags == ["whet", "fine-tuned", "onnxruntime"]
    assert data.model_name == "small"
    results = [(one.dataset_name, one.dataset_type, one.dataset_split, one.metric_type) for one in data.eval_results]
    assert results == [("glue/mrpc, dev split", "nyu-mll/glue", "dev", "accuracy")] * 2
    assert [one.metric_value for one in data.eval_results] == [0.8, 0.79]
    assert "onnxruntime int8" in data.eval_results[1].metric_name


def test_nothing_is_told_to_the_hub_that_is_not_known():
    """A figure from the slice that a search chose by is no figure of the dev split."""
    assert head_of(model_card(FACTS, [])).keys() == {"library_name", "pipeline_tag", "tags"}
    chosen_by = measured_trial("s", split="selection slice of the training data")
    assert "model-index" not in head_of(model_card(FACTS, [chosen_by]))
    own = measured_trial("s", task="tabular", speedup=2.0)
    assert head_of(model_card(FACTS, [own]))["model-index"][0]["results"][0]["dataset"]["name"] == "own data, dev split"
    assert "on own data, dev split." in model_card(FACTS, [own])
    unknown = measured_trial("s", task="my task")
    assert head_of(model_card(FACTS, [unknown]))["model-index"][0]["results"][0]["dataset"]["type"] == "my task"


@pytest.mark.parametrize(
    ("recipe", "made", "words"),
    [
        (
            [],
            Made(how="distilled", student="DistilBERT-like student: layers 1, 3, 5"),
            "DistilBERT-like student: layers 1, 3, 5 of base",
        ),
        ([], Made(how="fine-tuned", task="glue/mrpc"), "fine-tuned from base"),
        ([{"method": "quantization.dynamic_int8"}], None, "base, quantized by dynamic_int8"),
        (
            [{"method": "pruning.heads"}, {"method": "quantization.dynamic_int8"}],
            None,
            "base, compressed by heads, dynamic_int8",
        ),
        ([{"method": "somebody.elses", "strength": 2}], None, "base, compressed by elses"),
        ([], None, "made from base"),
    ],
)
def test_what_made_a_model_is_told_in_words(recipe, made, words):
    told = description(recipe, origin="base", made=made)
    assert told == words
    card = model_card(FACTS._replace(recipe=recipe, made=made), [])
    assert f"\nMade by whet: {words}.\n".replace("_", r"\_") in card
    assert "nothing" not in card
    trial = Trial("small", recipe, 0, TRIAL.measurements, "digest", {}, told)
    assert description_of(Trial.from_json(trial.to_json())) == words


def test_a_trial_of_an_earlier_version_tells_its_recipe():
    recipe = [{"method": "factorization.kfac", "keep": 0.4}]
    assert description_of(Trial("small", recipe, 0, [])) == "factorised by kfac"
    assert description_of(Trial("tuned", [], 0, [])) == "not changed by whet"
    assert description_of(Trial("small", recipe, 0, []), step_text=lambda step: f"kfac keep={step['keep']}") == (
        "factorised by kfac keep=0.4"
    )


@pytest.mark.parametrize("kind", all_kinds())
def test_every_kind_is_loaded_by_the_library_that_reads_it(kind):
    """What the code says can be compiled; what runs it is in the metadata."""
    forms = [Form("pytorch"), Form("onnxruntime")]
    card = model_card(FACTS._replace(kind=kind, needs_whet=False, forms=forms), [])
    library = "sentence-transformers" if kind in ("embedding", "reranking") else "transformers"
    head = head_of(card)
    assert head["library_name"] == library and (library == "transformers" or library in head["tags"])
    assert head["pipeline_tag"] == all_kinds()[kind].pipeline_tag
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2 and predictor_named(kind).call in blocks[1]
    for block in blocks:
        compile(block, "card", "exec")

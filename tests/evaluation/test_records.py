import ast
import dataclasses

import pytest

from whet.evaluation.measurement import Comparison, Measurement
from whet.evaluation.records import card, measured_table
from whet.evaluation.trial import Trial

WORSE = Comparison(kind="difference", value=-0.012, low=-0.02, high=0.001, p_value=0.07, test="McNemar, exact")
FASTER = Comparison(kind="ratio", value=1.53, low=1.5, high=1.6, p_value=1e-5, test="Wilcoxon")
TRIAL = Trial(
    "small",
    [],
    0,
    [
        Measurement(metric="accuracy", value=0.9, unit="", low=0.88, high=0.92, n=1872, better="higher", versus=WORSE),
        Measurement(metric="latency", value=12.5, unit="ms", low=12.0, high=13.0, n=30, better="lower", versus=FASTER),
        Measurement.count("parameters", 66_955_010, ""),
    ],
    conditions={"machine": "two cores"},
)


def test_the_table_has_a_row_for_each_measurement():
    assert measured_table(TRIAL) == [
        "| metric | value | 95 % interval | n | against the baseline |",
        "|---|---|---|---|---|",
        "| accuracy | 0.900 | 0.880 to 0.920 | 1,872 | -0.012 (-0.020 to +0.001), p = 0.07 |",
        "| latency | 12.5 ms | 12.0 to 13.0 | 30 | 1.53 × (1.50 to 1.60), p = 1e-05 |",
        "| parameters | 66,955,010 |  | 1 |  |",
        "",
        "Conditions: machine: two cores.",
    ]


def test_a_model_card_shows_what_was_measured_last():
    older = Trial("small", [], 0, [Measurement.count("parameters", 7, "")])
    lines = card("small", [], "base", [older, TRIAL]).splitlines()
    assert lines[-7:] == measured_table(TRIAL)
    assert "Not yet: `whet measure" in card("small", [], "base", [])


HOSTILE = [
    '"""; import os; #',
    "`code`",
    "a\n---\n# other",
    "x|y|z",
    "<script>alert(1)</script>",
    "![a](b)",
    "\udcff",
    "$x$",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_card_means_the_same_whatever_names_it_shows(text: str):
    """As many lines, rows and columns as with plain names; the code is a string; nothing is HTML."""

    def shape(name: str) -> list[tuple[str, int]]:
        row = dataclasses.replace(TRIAL.measurements[2], metric=name)
        trial = dataclasses.replace(TRIAL, measurements=[row], conditions={name: name})
        lines = card(name, [{"method": name, name: name}], name, [trial]).splitlines()
        assert "<script" not in "".join(
            line.replace("\\<", "") for line in lines if not line.startswith(("Made", "classify"))
        )
        [call] = [line for line in lines if line.startswith("classify = ")]
        keyword = ast.parse(call).body[0].value.keywords[0].value
        assert isinstance(keyword, ast.Constant) and keyword.value == name
        return [(line[:2], line.replace("\\|", "").count("|")) for line in lines if "classify" not in line]

    plain, hostile = shape("plain"), shape(text)
    assert [line for line, _ in hostile] == [line for line, _ in plain]
    assert [cells for line, cells in hostile if line == "| "] == [cells for line, cells in plain if line == "| "]
    card(text, [], text, []).encode()


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("/home/me/secret/tuned", "tuned"),
        ("../runs/tuned/", "tuned"),
        ("~/tuned", "tuned"),
        ("runs/mrpc/tuned", "tuned"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("tuned", "tuned"),
    ],
)
def test_a_model_card_names_no_folder_of_a_machine(origin: str, shown: str):
    assert f"Made from `{shown}` by whet" in card("small", [], origin, [])


def test_a_model_card_shows_scores_as_they_are():
    """Pipelines would squash a single output."""
    assert 'score = pipeline("text-classification", model="small", function_to_apply="none")' in card(
        "small", [], "base", [], outputs=1
    )
    assert 'classify = pipeline("text-classification", model="small")' in card("small", [], "base", [], outputs=3)

"""The study of language models: what it writes down is what was measured."""

import json
from pathlib import Path

from language_models import run
from whet import Trial


def test_the_table_and_the_readme_hold_the_results():
    rows = json.loads((run.HERE / "results.json").read_text(encoding="utf-8"))
    shares = {row["name"]: row.pop("linear_parameters") for row in rows}
    trials = [Trial.from_dict(row) for row in rows]
    assert [trial.name for trial in trials[1:]] == list(run.RECIPES)
    table = run.table(trials, shares)
    assert table == (run.HERE / "results.md").read_text(encoding="utf-8")
    assert table in (run.HERE / "README.md").read_text(encoding="utf-8")
    assert trials[-1].get("kl").high < trials[1].get("kl").value / 3 > trials[-2].get("kl").high


def test_texts_that_were_written_are_kept(tmp_path: Path):
    (tmp_path / "texts.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}]), encoding="utf-8")
    assert run.written_texts(tmp_path, 1, tmp_path / "texts.json") == [{"text": "a"}]

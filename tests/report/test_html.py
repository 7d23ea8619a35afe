import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from transformers import BertConfig, BertForSequenceClassification

from measured import keep, saved, trial
from whet.evaluation import records
from whet.report.collect import Result, collect_results
from whet.report.html import html_page
from whet.report.markdown import markdown_page
from whet.report.view import report_view

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & | ` * [a](b)\n# no heading"
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = {"many": 99, "few": 40}
CURVE = "epoch,training_loss,validation_loss,validation_metric\n1.0,0.7,0.6,0.5\n2.0,nan,0.55,0.75\n"


def page_of(*trials) -> str:
    results = [Result(one) for one in trials]
    return html_page(report_view(results), results, mark="whet report")


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def paper_of(*trials) -> str:
    return markdown_page(report_view([Result(one) for one in trials]), mark="whet report", picture="report.png")


def test_the_policy_allows_only_its_own_style_and_script():
    page = page_of(trial("dense"), trial("small", speedup=2.0))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1].replace("&#39;", "'")
    style, script = (re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("style", "script"))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy.split("; ") == [
        "default-src 'none'", f"style-src 'sha256-{digests[0]}'", f"script-src 'sha256-{digests[1]}'",
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert not re.search(r'(?:src|href|style)="|url\(|@import|innerHTML|https?://(?!www\.w3\.org/)', page)


def test_names_are_text_everywhere():
    """In the table, in the data of the script, in recipes, notes and conditions."""
    step = {"method": EVIL, "keep": EVIL}
    evil = trial(EVIL, speedup=2.0, recipe=[step], runtime=EVIL, task=EVIL, note=EVIL, baseline=EVIL)
    for trials in ([trial("dense", task=EVIL), evil], [evil]):
        page = page_of(*trials)
        assert page.count("<script") == page.count("</script>") == 2
        assert "<img" not in page
        assert EVIL in [point["name"] for point in data_of(page)["points"]]


def test_the_data_are_the_measurements():
    data = data_of(page_of(trial("dense"), trial("small", speedup=2.0, mib=40.0)))
    dense, small = data["points"]
    assert dense["baseline"] and not small["baseline"] and data["best"] == 1
    assert small["values"]["speedup"] == pytest.approx([2.0, 1.8, 2.2])
    assert small["values"]["accuracy"] == pytest.approx([0.8, 0.76, 0.84])
    assert small["mib"] == 40 and data["quality"] == {"metric": "accuracy", "words": "accuracy", "better": "higher"}


def heading_of(page: str) -> str:
    return re.search(r'<h1 id="headline">(.*?)</h1>', page, re.DOTALL)[1]


def test_the_page_begins_with_what_was_won_or_that_nothing_was():
    gained = page_of(trial("dense"), trial("small", speedup=2.0, mib=40))
    assert heading_of(gained) == "2.0 times as fast, accuracy the same, 40 MiB instead of 80."
    assert gained.index("<h1") < gained.index("<section") and "<strong>small</strong>" in gained
    lost = page_of(trial("dense"), trial("small", speedup=2.0, accuracy=0.78))
    assert heading_of(lost) == "No faster model is shown to lose less than 1 point of accuracy."
    assert "small may lose 2.2 points on the 408 examples measured" in lost
    assert "measurably" not in gained + lost and "significantly" not in gained + lost
    untimed = [
        replace(one, measurements=[row for row in one.measurements if row.metric in ("accuracy", "disk")])
        for one in (trial("dense"), trial("small", speedup=2.0, mib=40))
    ]
    assert heading_of(page_of(*untimed)) == "Accuracy of 2 models and runtimes; not all of their speeds were measured"
    assert heading_of(page_of(trial("dense"))).startswith("dense: accuracy 0.800, 20.0 ms for a single text")


def test_everything_that_was_measured_is_shown_in_words():
    page = page_of(trial("dense"), trial("small", speedup=2.0))
    for words in ("speed for single texts", "speed in batches", "size on disk", "time for a single text, median"):
        assert words in page
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r">\s*(latency_|throughput|disk\b)", shown)


def test_the_examples_of_a_search_are_named_for_what_they_are():
    split = {"split": "selection slice of the training data"}
    page = page_of(trial("dense", **split), trial("small", speedup=2.0, **split))
    assert "408 examples of the selection slice of the training data" in page and "dev examples" not in page
    [beside_rows] = re.findall(r'id="rows-on">(.*?)</p>', page)
    assert beside_rows == "Accuracy on 408 examples of the selection slice of the training data."


def test_layers_and_curves_come_from_the_models(tmp_path, tokenizer):
    dense = saved(tmp_path / "dense", tokenizer, curve=CURVE)
    small = saved(tmp_path / "small", tokenizer, [{"method": "svd", "keep": 0.4}])
    there = trial("small (onnxruntime)", speedup=3.0, model=small, runtime="onnxruntime")
    keep(tmp_path / "run", trial("dense", model=dense), trial("small", speedup=2.0, model=small), there)
    results = collect_results([tmp_path])
    page = html_page(report_view(results), results, mark="whet report")
    assert page.count("<figcaption>small") == 1 and "All layers have their full size in dense" in page
    assert re.search(r'title="low rank: rank \d+">\d+</td>', page)
    assert data_of(page)["curves"] == [{"name": "dense", "rows": [[1, 0.7, 0.6, 0.5], [2, None, 0.55, 0.75]]}]


def test_a_smaller_vocabulary_is_not_full_size_beside_a_larger_one(tmp_path, tokenizer):
    models = {name: BertForSequenceClassification(BertConfig(**TINY, vocab_size=n)) for name, n in WORDS.items()}
    digests = {name: saved(tmp_path / name, tokenizer, model=model.eval()) for name, model in models.items()}
    dense, small = trial("many", model=digests["many"]), trial("few", speedup=1.1, model=digests["few"])
    keep(tmp_path / "run", dense, small)
    results = collect_results([tmp_path])
    page = html_page(report_view(results), results, mark="whet report")
    assert page.count("<figcaption>few") == 1 and "All layers have their full size in many" in page


def test_without_models_there_are_neither_layers_nor_curves():
    page = page_of(trial("dense"))
    assert "Size of each layer" not in page and "Training" not in page


@pytest.mark.parametrize("content", ["", "epoch\n1\n", "no curve", CURVE.replace("0.7", "x")])
def test_a_broken_curve_is_told_and_the_figures_are_shown(tmp_path, tokenizer, content):
    digest = saved(tmp_path / "dense", tokenizer, curve=content)
    records.record(tmp_path / "dense", trial("dense", model=digest))
    results = collect_results([tmp_path])
    page = html_page(report_view(results), results, mark="whet report")
    assert re.search(r"Not shown: .*curve.csv must be a learning curve", page)
    assert data_of(page)["curves"] == [] and "0.800" in page


def test_broken_weights_are_told_and_the_figures_are_shown(tmp_path, tokenizer):
    for name in ("dense", "small"):
        records.record(tmp_path / name, trial(name, model=saved(tmp_path / name, tokenizer)))
    (tmp_path / "small" / "model.safetensors").write_bytes(b"short")
    results = [Result(one, tmp_path / one.name) for one in (trial("dense"), trial("small", speedup=2.0))]
    page = html_page(report_view(results), results, mark="whet report")
    assert len(re.findall(r"Not shown: .*small/model.safetensors was truncated or altered", page)) == 1
    assert "2.00 ×" in page


def test_the_markdown_has_every_model_with_intervals_and_test():
    text = paper_of(trial("dense"), trial("small", speedup=2.0, accuracy=0.78))
    assert text.startswith("<!-- whet report -->\n\n# glue/mrpc: accuracy against speed and size\n")
    assert "](report.png)" in text
    head, _, dense, small = (line.split(" | ") for line in text.splitlines() if line.startswith("|"))
    assert len(head) == len(dense) == len(small)
    assert small[:4] == [
        "| small", "0.780 (0.741 to 0.819)", "-0.020 (-0.022 to -0.018), p = 0.6", "2.00 × (1.80 to 2.20)",
    ]  # fmt: skip
    assert "time for a single text, median (ms)" in head and "10.0 (9.5 to 10.5)" in small
    assert "No faster model is shown to lose less than 1 point" in text
    assert "Conditions: task: glue/mrpc" in text


def test_the_markdown_escapes_names():
    evil = EVIL + " http://x.org www.x.org me@x.org \x1b[2J \u202e \udcff $x$"
    lines = paper_of(trial("dense"), trial(evil, speedup=2.0)).splitlines()
    assert not re.search(r"[^\\]://|www[.]|[^\\]@|[^\\][$]|[\x1b\u202e\udcff]", "\n".join(lines))
    [row] = [line for line in lines if "onerror" in line and line.startswith("|")]
    assert len(re.findall(r"(?<!\\)\|", row)) == len(
        re.findall(r"(?<!\\)\|", next(line for line in lines if line.startswith("|")))
    )
    assert not re.search(r"(?<!\\)<(?!!-- whet)", "\n".join(lines))
    assert not any(line.startswith("# no heading") for line in lines)

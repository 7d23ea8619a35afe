from pathlib import Path

import pytest

from folders import classifier
from whet.evaluation import records
from whet.models.lineage import FINETUNE, QUANTIZED, lineage_from, public_name
from whet.models.manifest import Lineage, Made, read_manifest

CARD = """---
license: apache-2.0
language: en
base_model: google-bert/bert-base-uncased
datasets: [nyu-mll/glue, "../data"]
---
# tuned
"""


def folder_with(card: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def test_a_model_of_the_hub_is_the_base():
    assert lineage_from("owner/name", relation=QUANTIZED) == Lineage(
        base_model="owner/name", base_model_relation=QUANTIZED
    )
    assert lineage_from("bert-base-uncased", relation=None).base_model == "bert-base-uncased"


def test_a_card_of_others_tells_what_it_tells(tmp_path):
    """What was done before is not known, so that the whole is a fine-tuned model only if whet trained it."""
    origin = folder_with(CARD, tmp_path / "tuned")
    told = Lineage(
        base_model="google-bert/bert-base-uncased", license="apache-2.0", language=("en",), datasets=("nyu-mll/glue",)
    )
    assert lineage_from(origin, relation=QUANTIZED) == told
    trained = lineage_from(origin, relation=FINETUNE, datasets=["stanfordnlp/imdb"])
    assert trained.base_model_relation == FINETUNE
    assert trained.datasets == ("nyu-mll/glue", "stanfordnlp/imdb")


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# no head",
        "---\n[\n---\n",
        "---\n- a\n---\n",
        "---\nlicense: {a: b}\nlanguage: 3\nbase_model: /home/me/secret\ndatasets: ../x\n---\n",
        "---\nlicense: MIT and more\nbase_model: [~/secret, ./x, a/b/c]\n---\n",
        "---\na: &a [*a]\n---\n",
        "x" * 2**21,
    ],
)
def test_a_card_that_tells_nothing_is_no_obstacle(tmp_path, card):
    assert lineage_from(folder_with(card, tmp_path / "tuned"), relation=FINETUNE) == Lineage()
    assert lineage_from(tmp_path / "none" / "of" / "these", relation=None) == Lineage()


def test_lineage_is_handed_down(tmp_path, tokenizer):
    """From a model of the hub through three folders of whet."""
    model, steps = classifier(), [{"method": "quantization.dynamic_int8"}]
    made = Made(how="fine-tuned", task="glue/mrpc")
    student = Made(how="distilled", student="student: layer 1")
    for name, origin, about in (
        ("tuned", "owner/base", {"made": made, "recipe": []}),
        ("small", str(tmp_path / "tuned"), {"recipe": steps}),
        ("student", str(tmp_path / "tuned"), {"made": student, "recipe": []}),
        ("only", "owner/base", {"recipe": steps}),
    ):
        records.save_model(model, tokenizer, tmp_path / name, origin=origin, seed=0, **about)
    found = {path.name: read_manifest(path).lineage for path in tmp_path.iterdir()}
    assert {one.base_model for one in found.values()} == {"owner/base"}
    relations = {name: one.base_model_relation for name, one in found.items()}
    assert relations == {"tuned": FINETUNE, "small": FINETUNE, "student": None, "only": QUANTIZED}
    assert {name: one.datasets for name, one in found.items()} == {
        "tuned": ("nyu-mll/glue",),
        "small": ("nyu-mll/glue",),
        "student": ("nyu-mll/glue",),
        "only": (),
    }
    assert records.description_in(tmp_path / "small") == "tuned, quantized by dynamic_int8"
    assert records.description_in(tmp_path / "student") == "student: layer 1 of tuned"


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
def test_a_public_name_names_no_folder_of_a_machine(origin: str, shown: str):
    assert public_name(origin) == shown

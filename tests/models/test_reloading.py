"""What whet writes is loaded again before it gets its name, and must answer as the model in memory."""

import pytest
import torch

import whet
from families import tiny
from helpers import word_tokenizer
from whet.models import artifact


@pytest.mark.parametrize("method", [{"method": "kmeans", "n_clusters": 16}, {"method": "svd", "keep": 0.5}])
def test_families_that_transformers_fuses_on_save_answer_the_same(method, tmp_path):
    """nomic_bert's query, key and value are one matrix in files of transformers, which compressed ones cannot be."""
    model = tiny("nomic_bert")
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    whet.compress(tmp_path / "model", whet.Recipe.from_list([method]), tmp_path / "small")
    loaded = whet.load_model(tmp_path / "small")
    loaded.save_pretrained(tmp_path / "again")  # by transformers alone
    again = type(loaded).from_pretrained(tmp_path / "again")
    ids = torch.arange(5, 13)[None]
    assert torch.equal(loaded(ids).logits, again(ids).logits)


def test_a_model_that_answers_otherwise_is_not_written(monkeypatch, tmp_path):
    model = tiny("bert")
    save = type(model).save_pretrained

    def other(self, folder, **options):
        with torch.no_grad():
            self.classifier.bias += 1
        save(self, folder, **options)
        with torch.no_grad():
            self.classifier.bias -= 1

    monkeypatch.setattr(type(model), "save_pretrained", other)
    with pytest.raises(whet.InvalidModel, match=r"BertForSequenceClassification \(bert\) gives answers that differ"):
        artifact.save_files(model, word_tokenizer(), tmp_path / "out", about={"origin": "o", "seed": 0}, files={})
    assert not (tmp_path / "out").exists()

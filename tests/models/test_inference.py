import numpy as np
import pytest
import torch

from helpers import tiny_batches, tiny_model
from whet.errors import InvalidModel
from whet.models.inference import predict_logits


@pytest.fixture(scope="module")
def model():
    return tiny_model("bert")


def test_logits_are_in_the_order_of_the_batches(model):
    batches = tiny_batches()
    with torch.no_grad():
        wanted = np.concatenate([model(**batch).logits.numpy() for batch in batches])
    assert np.array_equal(predict_logits(model, batches), wanted)
    assert np.array_equal(predict_logits(model, iter(batches), name="tiny"), wanted)
    assert len(np.unique(wanted, axis=0)) > 1


def test_no_gradient_is_kept(model):
    predict_logits(model, tiny_batches())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "wanted"), [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_logits_are_float32_at_least(dtype: str, wanted: str):
    model = tiny_model("bert").to(getattr(torch, dtype))
    assert predict_logits(model, tiny_batches()).dtype == wanted


def test_a_model_with_a_name_must_give_finite_logits():
    model = tiny_model("bert")
    model.classifier.bias.data[0] = torch.nan
    assert np.isnan(predict_logits(model, tiny_batches())).any()
    with pytest.raises(InvalidModel, match="logits must be finite, but tiny gives NaN or infinity; check its weights"):
        predict_logits(model, tiny_batches(), name="tiny")

"""What families do in their own way, and methods must stand: the roots of refusals and tracebacks of the matrix."""

import pytest
import torch

from families import tiny
from helpers import tiny_batches
from whet.calibration.moments import collect_moments
from whet.errors import InvalidModel, NothingToCompress
from whet.models.architecture import Architecture
from whet.models.embeddings import token_table
from whet.models.surgery import keep_blocks, keep_words


@pytest.mark.parametrize("family", ["gpt_neo", "longformer"])
def test_what_a_configuration_says_of_each_block_leaves_with_it(family):
    model = tiny(family)
    keep_blocks(model, [0, 2])
    again = type(model)(type(model.config).from_dict(model.config.to_dict())).eval()
    again.load_state_dict(model.state_dict())
    ids = torch.arange(5, 13)[None]
    assert torch.equal(model(ids).logits, again(ids).logits)


@pytest.mark.parametrize("family", ["albert", "xlm", "funnel"])
def test_blocks_that_are_not_one_list_of_their_own_stay(family):
    with pytest.raises(InvalidModel, match=r"must be one (block|number), but"):
        keep_blocks(tiny(family), [0])


@pytest.mark.parametrize("family", ["ctrl", "lilt"])
def test_gradients_reach_every_layer(family):
    """CTRL scales embeddings in place; no answer depends on LiLT's last layout layers."""
    model = tiny(family)
    layers = [name for name in Architecture.of(model).linears if "output" not in name][:24]
    found = collect_moments(model, tiny_batches(count=1, ragged=False), layers, seed=0)
    for moments in found.values():
        assert moments.gradient is not None and moments.gradient.isfinite().all()
        assert torch.linalg.eigvalsh(moments.gradient).max() > 0


def test_characters_are_no_table_of_tokens():
    with pytest.raises(NothingToCompress, match="an ordinary table, but CanineForSequenceClassification has none"):
        token_table(tiny("canine"))


def test_token_ids_beyond_the_table_stay_as_they_are():
    model = tiny("modernbert-decoder")
    beyond = model.config.cls_token_id
    assert beyond > model.config.vocab_size
    keep_words(model, [*range(50)])
    assert model.config.vocab_size == 50 and model.config.cls_token_id == beyond

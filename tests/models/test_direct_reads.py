"""Layers whose weights other modules read are found by running the model."""

import pytest

from families import tiny
from whet.calibration.resources import Resources
from whet.methods.base import method_from
from whet.models.architecture import Architecture
from whet.models.direct_reads import read_without_a_call

STORING = [{"method": "half"}, {"method": "weight_only"}, {"method": "kmeans", "n_clusters": 16}]


@pytest.mark.parametrize(("family", "read"), [("deberta-v2", ["rel_embeddings"]), ("bert", []), ("luke", [])])
def test_only_layers_that_others_read_are_found(family, read):
    """LUKE's layers for entities never run either, but nothing reads them."""
    model = tiny(family)
    architecture = Architecture.of(model)
    found = read_without_a_call(model, (*architecture.embeddings, *architecture.linears))
    assert [name.rpartition(".")[2] for name in found] == read


@pytest.mark.parametrize(
    "step", [{"method": "half"}, {"method": "weight_only"}, {"method": "kmeans", "n_clusters": 16}]
)
def test_methods_that_store_weights_leave_them_alone(step):
    model = tiny("deberta-v2")
    changed = method_from(step).apply(tiny("deberta-v2"), Resources())
    batch = model.dummy_inputs
    assert type(changed.deberta.encoder.rel_embeddings) is type(model.deberta.encoder.rel_embeddings)
    assert type(changed.deberta.embeddings.word_embeddings) is not type(model.deberta.embeddings.word_embeddings)
    assert changed(**batch).logits.isfinite().all()

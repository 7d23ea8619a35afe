"""Heads of attentions of many families are found, leave, and leave the others as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from covering import covering
from exported import assert_exports
from helpers import padded, tiny_batches
from text_families import tiny_of
from whet.calibration.resources import Resources
from whet.errors import NothingToCompress
from whet.evaluation import records
from whet.methods.pruning.heads import Heads
from whet.methods.pruning.structure import BlockStructure
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_bias, dense_weight
from whet.models.attention import SelfAttention
from whet.models.head_groups import HeadGroups, attentions_with_heads
from whet.models.layers.fewer_heads import FewerHeads

CALIBRATION = Resources(calibration=tiny_batches())
GROUPS = {
    "modernbert": 4,  # one layer for query, key and value; local attention, every second one
    "deberta-v2": 4,  # relative positions read the query and the key layer
    "phi3": 2,  # one layer for groups of heads that share a key; numbers of heads in the configuration
    "mpnet": 4,  # a bias of the scores for every head is passed in
    "gemma": 4,  # all heads share one key, which stays
    "bloom": 4,  # a bias by the distance, and rows of one layer that alternate between query, key and value
    "gpt2": 4,
    "llama": 2,
    "deberta": 4,
    "roformer": 4,
    "megatron-bert": 4,
    "rembert": 4,
    "xlm": 4,
    "nomic_bert": 4,
    "gte": 4,
    "jina_embeddings_v3": 4,
    "eurobert": 2,
    "modernbert-decoder": 4,
    "mistral": 2,
    "qwen2": 2,
    "qwen3": 2,
    "gemma2": 2,
    "gemma3_text": 2,
    "gpt_neox": 4,
    "gptj": 4,
    "opt": 4,
    "phi": 4,
    "mpt": 4,
}
"""Groups of heads that can leave, by family."""
COVERED = ("modernbert", "deberta-v2", "phi3", "mpnet", "gemma", "bloom")
REBUILT = ("megatron-bert", "rembert")
"""Families whose attention can be rebuilt as a narrower one too."""
every_family = pytest.mark.parametrize(("family",), covering(((name,) for name in GROUPS), lambda c: c[0] in COVERED))


def logits(model: nn.Module, *, left: bool = False) -> Tensor:
    """The logits of some texts, padded on the right or on the left."""
    random = np.random.default_rng(3)
    batch = padded([random.integers(5, 99, size=length) for length in (3, 7, 11)], extra=1)
    with torch.inference_mode():
        return model(**{name: rows.flip(1) if left else rows for name, rows in batch.items()}).logits


def in_blocks(model: nn.Module) -> int:
    """How many parameters the blocks have."""
    return sum(
        parameter.numel()
        for name in Architecture.of(model).blocks
        for parameter in model.get_submodule(name).parameters()
    )


def without_first(model: nn.Module) -> nn.Module:
    """A copy without the first group of heads in every attention, and all else as it was."""
    copied = copy.deepcopy(model)
    for part in HeadGroups.all_of(model, "*", tiny_batches()):
        layer = model.get_submodule(part.output)
        part.keep(copied, torch.arange(1, part.groups), dense_weight(layer)[:, part.width :], dense_bias(layer))
    return copied.eval()


def silenced(model: nn.Module) -> nn.Module:
    """The model in which nobody hears what the first group of heads says."""
    for part in HeadGroups.all_of(model, "*", tiny_batches()):
        dense_weight(model.get_submodule(part.output))[:, : part.width] = 0
    return model


@every_family
def test_heads_that_nobody_hears_leave_without_a_trace(family: str):
    model = silenced(tiny_of(family))
    small = without_first(model)
    parts = [module for module in small.modules() if isinstance(module, FewerHeads)]
    assert [(len(part.kept), part.groups) for part in parts] == [(GROUPS[family] - 1, GROUPS[family])] * 2
    assert in_blocks(small) < 0.95 * in_blocks(model)
    for left in (False, True):
        torch.testing.assert_close(logits(small, left=left), logits(model, left=left), rtol=1e-4, atol=1e-5)


@every_family
def test_fewer_heads_survive_save_and_load(family: str, tmp_path, tokenizer):
    small = Recipe((Heads(keep=0.8, damping=1e-2),)).apply(tiny_of(family), CALIBRATION)
    kept = [module.kept for module in small.modules() if isinstance(module, FewerHeads)]
    assert kept or family in REBUILT
    records.save_model(small, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert [module.kept for module in loaded.modules() if isinstance(module, FewerHeads)] == kept
    for left in (False, True):
        torch.testing.assert_close(logits(loaded, left=left), logits(small, left=left), rtol=0, atol=1e-6)


@every_family
def test_structure_takes_heads_and_neurons(family: str):
    model = tiny_of(family)
    whole = Recipe((BlockStructure(keep=1.0),)).apply(model, CALIBRATION)
    torch.testing.assert_close(logits(whole), logits(model))
    small = Recipe((BlockStructure(keep=0.3, structures=("neurons", "heads")),)).apply(model, CALIBRATION)
    fewer = [module for module in small.modules() if isinstance(module, FewerHeads)]
    assert fewer or family in REBUILT
    assert in_blocks(small) < 0.4 * in_blocks(model)
    assert logits(small).isfinite().all()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
@pytest.mark.parametrize(
    ("family",), covering([("modernbert",), ("deberta-v2",), ("mpnet",), ("llama",)], lambda c: c == ("modernbert",))
)
def test_fewer_heads_export_at_any_length(family: str, tmp_path):
    assert_exports(without_first(tiny_of(family)), tmp_path / "model.onnx")


def test_heads_whose_norm_is_one_for_all_are_refused():
    with pytest.raises(NothingToCompress, match=r"leave the other heads as they are, but Olmo2For.*--method neurons"):
        attentions_with_heads(tiny_of("olmo2"), "*", tiny_batches())


def test_an_attention_that_computes_more_than_its_layout_says_is_not_rebuilt():
    """Its parts have BERT's names, but it rotates queries and keys, or mixes tokens in another way."""
    for family in ("roformer", "yoso"):
        assert SelfAttention.found(tiny_of(family)) == []
    assert len(SelfAttention.found(tiny_of("megatron-bert"))) == 2


def test_heads_leave_once():
    small = without_first(tiny_of("modernbert"))
    with pytest.raises(NothingToCompress, match=r"compressed already .*fewer_heads"):
        attentions_with_heads(small, "*", tiny_batches())


def test_a_wildcard_over_attentions():
    model = tiny_of("modernbert")
    [part] = attentions_with_heads(model, "*.1.*", tiny_batches())
    assert part.name == "model.layers.1.attn" and part.width == 8
    with pytest.raises(NothingToCompress, match=r"no attention matches 'x'; the attentions here are model\.layers\.0"):
        attentions_with_heads(model, "x", tiny_batches())


def test_a_copy_of_fewer_heads_is_its_own():
    small = without_first(tiny_of("phi3"))
    copied = copy.deepcopy(small)
    copied.set_attn_implementation("eager")
    torch.testing.assert_close(logits(copied), logits(small), rtol=0, atol=1e-5)

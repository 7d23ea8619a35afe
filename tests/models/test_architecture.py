import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from families import tiny
from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, NothingToCompress
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.neurons import Neurons
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_bias, dense_weight, is_dense, reach_of, rows_read
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import replace_module

BERT = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
BERT += ["intermediate.dense", "output.dense"]
PARTS: dict[Family, tuple[str, int, list[str]]] = {
    "bert": ("bert.encoder.layer", 2, BERT),
    "roberta": ("roberta.encoder.layer", 2, BERT),
    "distilbert": (
        "distilbert.transformer.layer",
        2,
        ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"],
    ),
    "gpt2": ("transformer.h", 2, ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]),
    "llama": (
        "model.layers",
        3,
        [f"self_attn.{one}_proj" for one in "qkvo"] + [f"mlp.{one}_proj" for one in ("gate", "up", "down")],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_their_linear_layers_are_found_in_order(family: Family):
    found = Architecture.of(tiny_model(family))
    folder, count, names = PARTS[family]
    assert found.blocks == tuple(f"{folder}.{i}" for i in range(count))
    assert set(found.linears) == {f"{block}.{name}" for block in found.blocks for name in names}
    assert [name for name in found.linears if name.startswith(found.blocks[0])] == list(found.linears[: len(names)]), (
        "the layers of one block come together, first block first"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_dense_that_is_left_out_is_a_pooler_or_a_head(family: Family):
    model = tiny_model(family)
    found = Architecture.of(model)
    others = {name for name, module in model.named_modules() if is_dense(module)} - set(found.linears)
    assert others
    assert all(name.split(".")[0] in {"classifier", "pre_classifier", "score"} or "pooler" in name for name in others)
    assert not any(isinstance(model.get_submodule(name), nn.Embedding) for name in found.linears)


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_weights_are_out_by_in_and_biases_follow(family: Family):
    model = tiny_model(family)
    for name in Architecture.of(model).linears:
        module = model.get_submodule(name)
        weight, bias = dense_weight(module), dense_bias(module)
        rows = torch.randn(2, 5, weight.shape[1], generator=torch.Generator().manual_seed(0))
        expected = rows @ weight.T if bias is None else rows @ weight.T + bias
        with torch.no_grad():
            torch.testing.assert_close(module(rows), expected, rtol=1e-4, atol=1e-4)
        assert not weight.requires_grad
        assert isinstance(module, Conv1D) is (family == "gpt2")


def test_a_layer_with_a_shared_weight_is_left_out():
    model = tiny_model("bert")
    first, second = (model.bert.encoder.layer[i].intermediate.dense for i in (0, 1))
    second.weight = first.weight
    everything = set(Architecture.of(tiny_model("bert")).linears)
    assert everything - set(Architecture.of(model).linears) == {
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.1.intermediate.dense",
    }


def test_a_pattern_that_matches_only_shared_weights_is_refused():
    model = tiny_model("bert")
    first, second = (model.bert.encoder.layer[i].intermediate.dense for i in (0, 1))
    second.weight = first.weight
    why = r"weights of their own, but '\*intermediate\*' matches only bert\.encoder\.layer\.0\.intermediate\.dense, "
    with pytest.raises(NothingToCompress, match=why):
        Architecture.of(model).matching("*intermediate*")
    with pytest.raises(NothingToCompress, match=why):
        Svd(allocation="ranks", ranks={"*query": 4, "*intermediate*": 4}).apply(model, Resources())
    assert len(Architecture.of(model).matching("*")) == 10


def test_a_weight_shared_with_something_outside_the_blocks_is_left_out():
    model = tiny_model("bert")
    model.bert.pooler.dense.weight = model.bert.encoder.layer[0].attention.self.query.weight
    assert "bert.encoder.layer.0.attention.self.query" not in Architecture.of(model).linears


def test_a_layer_that_is_itself_in_two_places_is_left_out():
    # the same module twice shares its weight too, and replacing it in one place would leave it in the other
    model = tiny_model("bert")
    model.bert.encoder.layer[1].intermediate.dense = model.bert.encoder.layer[0].intermediate.dense
    assert not [name for name in Architecture.of(model).linears if name.endswith("intermediate.dense")]


def test_compressed_layers_are_not_dense_and_hide_their_factors():
    model = tiny_model("bert")
    name = "bert.encoder.layer.0.output.dense"
    before = Architecture.of(model).linears
    replace_module(model, name, LowRank(64, 32, 4, bias=True))
    assert set(before) - set(Architecture.of(model).linears) == {name}
    assert set(Architecture.of(model).linears) < set(before)


def test_wildcards_match_whole_names_and_cases():
    found = Architecture.of(tiny_model("bert"))
    assert found.matching("*") == found.linears
    assert found.matching("*query") == tuple(name for name in found.linears if name.endswith("query"))
    for include in ("query", "*QUERY", ""):
        with pytest.raises(NothingToCompress, match="no linear layer matches"):
            found.matching(include)


def test_the_outermost_of_equally_long_lists_holds_the_blocks():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(2))}) for _ in range(2)
            )

    found = Architecture.of(Nested())
    assert found.blocks == ("blocks.0", "blocks.1")
    assert len(found.linears) == 4


@pytest.mark.parametrize(
    "model",
    [nn.Sequential(nn.Linear(2, 2)), nn.ModuleList(), nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])],
    ids=["no list", "an empty list", "unequal modules"],
)
def test_a_model_without_equal_blocks_is_refused(model: nn.Module):
    with pytest.raises(InvalidModel, match=f"must have a list of equal blocks, but {type(model).__name__} has none"):
        Architecture.of(model)


def test_blocks_without_linear_layers_have_nothing_to_match():
    with pytest.raises(NothingToCompress, match=r"no linear layer matches '\*'; there is none"):
        Architecture.of(nn.Sequential(nn.ModuleList([nn.ReLU(), nn.ReLU()]))).matching("*")


def test_subclasses_of_linear_are_ordinary_if_they_compute_the_same():
    class Same(nn.Linear):
        def forward(self, rows):
            return rows @ self.weight.T + self.bias

    class Doubled(nn.Linear):
        def forward(self, rows):
            return 2 * super().forward(rows)

    assert is_dense(nn.Linear(2, 2))
    assert is_dense(Conv1D(2, 2))
    assert is_dense(Same(2, 2))
    assert not is_dense(Doubled(2, 2))
    assert not is_dense(nn.MultiheadAttention(2, 1).out_proj), "its weights are read without a call"
    assert not is_dense(nn.Embedding(2, 2))


def test_a_compressed_layer_has_no_dense_weight_to_give():
    with pytest.raises(TypeError, match="must have one dense weight, but got LowRank; take the layer inside it"):
        dense_weight(LowRank(4, 4, 2, bias=True))


@pytest.mark.parametrize(
    ("family", "share", "others"),
    [
        ("bert", 0.9, ()),
        ("xlm", 0.9, ()),
        ("falcon", 0.9, ()),
        ("squeezebert", 0.0, ("Conv1d",)),
        ("mixtral", 0.1, ("MixtralExperts", "MixtralTopKRouter")),
    ],
)
def test_the_share_of_weights_that_methods_reach(family, share, others):
    """XLM's blocks lie in lists beside each other, Falcon's layers are a class of its own that computes the same."""
    found = reach_of(tiny(family))
    assert found.share == pytest.approx(share, abs=0.1) and found.others == others


def test_without_linear_layers_the_refusal_says_where_the_weights_are():
    with pytest.raises(NothingToCompress, match="there is none: weights are in Conv1d, which no method changes yet"):
        Architecture.of(tiny("squeezebert")).matching("*")


def test_a_row_of_several_tokens_is_real_if_all_near_it_are():
    """CANINE and Funnel pool tokens; the rows of padding that Longformer adds are none."""
    mask = torch.tensor([[1] * 8 + [0] * 4, [0] * 2 + [1] * 10])
    pooled = rows_read("layer", mask, frozenset(), rows=6)
    assert pooled.tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]
    longer = rows_read("layer", mask[..., None].float(), frozenset(), rows=14)[..., 0]
    assert longer.tolist() == [[1] * 8 + [0] * 6, [0] * 2 + [1] * 10 + [0] * 2]
    assert rows_read("layer", mask, frozenset(), rows=12) is mask


@pytest.mark.parametrize("family", ["canine", "funnel", "longformer"])
def test_neurons_leave_families_that_change_the_number_of_rows(family):
    model = tiny(family)
    resources = Resources(calibration=tiny_batches(ragged=False), teacher=model)
    small = Recipe((Neurons(keep=0.5),)).apply(model, resources)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())

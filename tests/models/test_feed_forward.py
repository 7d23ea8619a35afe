import pytest
import torch
from torch import nn

from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.errors import NothingToCompress
from whet.models.feed_forward import FeedForward

PARTS: dict[Family, tuple[str, tuple[str, ...], str]] = {
    "bert": ("bert.encoder.layer", ("intermediate.dense",), "output.dense"),
    "roberta": ("roberta.encoder.layer", ("intermediate.dense",), "output.dense"),
    "distilbert": ("distilbert.transformer.layer", ("ffn.lin1",), "ffn.lin2"),
    "gpt2": ("transformer.h", ("mlp.c_fc",), "mlp.c_proj"),
    "llama": ("model.layers", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
}


def parts(model: nn.Module, include: str = "*") -> list[FeedForward]:
    return FeedForward.all_of(model, include, tiny_batches())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_every_family_are_found(family: Family):
    folder, inputs, output = PARTS[family]
    wanted = [
        FeedForward(tuple(f"{folder}.{i}.{name}" for name in inputs), f"{folder}.{i}.{output}")
        for i in range(3 if family == "llama" else 2)
    ]
    assert parts(tiny_model(family)) == wanted
    assert parts(tiny_model(family), "*.1.*") == wanted[1:2]


class Block(nn.Module):
    """Layers as wide as the model itself, so that shapes alone say nothing."""

    def __init__(self, *, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        if self.kind == "plain":
            return x + self.norm(self.third(self.norm(self.second(hidden.relu()))))
        if self.kind == "mixed over tokens":
            hidden = hidden.mean(1, keepdim=True) + hidden
        if self.kind == "mixed over features":
            hidden = self.norm(hidden)
        if self.kind == "read by another":
            return x + self.second(hidden) + self.norm(self.third(hidden))
        return x + self.norm(self.third(self.norm(self.second(hidden))))


class Stack(nn.Module):
    """Blocks over embeddings, with a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.words = nn.Embedding(99, 8)
        self.blocks = nn.ModuleList(Block(kind=kind) for _ in range(2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        return type("Output", (), {"logits": x.mean(1)})


def test_square_layers_are_distinguished_by_the_experiment():
    torch.manual_seed(0)
    assert parts(Stack("plain")) == [FeedForward((f"blocks.{i}.first",), f"blocks.{i}.second") for i in range(2)]


@pytest.mark.parametrize("kind", ["mixed over tokens", "mixed over features", "read by another"])
def test_neurons_that_depend_on_each_other_are_refused(kind: str):
    torch.manual_seed(0)
    with pytest.raises(NothingToCompress, match=r"blocks must have neurons .* but Stack has none; factor"):
        parts(Stack(kind))


def test_one_block_of_another_kind_does_not_hide_the_others():
    torch.manual_seed(0)
    model = Stack("plain")
    model.blocks[0].kind = "read by another"
    assert parts(model) == [FeedForward(("blocks.1.first",), "blocks.1.second")]


def test_a_wildcard_that_matches_nothing_is_refused():
    with pytest.raises(
        NothingToCompress, match=r"no layer that reads neurons matches '\*.query'; the layers here are bert"
    ):
        parts(tiny_model("bert"), "*.query")

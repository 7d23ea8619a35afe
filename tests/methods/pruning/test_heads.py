from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from covering import covering
from exported import assert_exports
from helpers import Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.kfac import Kfac
from whet.methods.pruning.heads import Heads
from whet.methods.pruning.neurons import Neurons
from whet.methods.recipe import Recipe
from whet.models.attention import SelfAttention
from whet.models.layers.attention import CompressedAttention
from whet.training.lora import attach_lora, merge_lora
from whet.training.settings import LoraSettings

ENCODERS: tuple[Family, ...] = ("bert", "roberta", "distilbert")
encoders = pytest.mark.parametrize("family", ENCODERS)
CALIBRATION = Resources(calibration=tiny_batches())


def pruned(model: nn.Module, **parameters: object) -> nn.Module:
    return Recipe((Heads(**parameters),)).apply(model, CALIBRATION)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def heads(model: nn.Module) -> list[int]:
    """How many heads each attention that has lost some has left."""
    return [module.heads for module in model.modules() if isinstance(module, CompressedAttention)]


def read(model: nn.Module, name: str) -> Tensor:
    """(tokens, features) what a layer reads of the calibration data, padding left out."""
    rows: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _module, inputs: rows.append(inputs[0]))
    with torch.inference_mode():
        for batch in tiny_batches():
            model(**batch)
            rows[-1] = rows[-1][batch["attention_mask"].bool()]
    handle.remove()
    return torch.cat(rows).double()


@encoders
def test_keep_1_leaves_the_model_unchanged(family: Family):
    model = tiny_model(family)
    assert torch.equal(logits(pruned(model, keep=1.0)), logits(model))
    assert not heads(pruned(model, keep=1.0))


@encoders
@pytest.mark.parametrize(("keep", "each"), [(0.25, 1), (0.5, 2), (0.8, 3)])
def test_a_uniform_budget_leaves_every_attention_equally_many(family: Family, keep: float, each: int):
    assert heads(pruned(tiny_model(family), keep=keep, allocation="uniform")) == [each, each]


@encoders
def test_one_budget_is_never_exceeded(family: Family):
    model = tiny_model(family)
    for total in range(2, 8):
        left = heads(pruned(model, keep=total / 8))
        assert sum(left) + 4 * (2 - len(left)) == total


@encoders
def test_remaining_heads_compute_the_same_as_before(family: Family):
    """The first attention reads what it read before, so that its heads are those of the original, place by place."""
    model = tiny_model(family)
    place = SelfAttention.all_of(model, "*")[0]
    compressed = pruned(model, keep=0.5, allocation="uniform", include=place.name)
    layer = compressed.get_submodule(place.name)
    after = f"{place.name}.output" if place.inside else f"{place.output}.linear"
    before, now = read(model, place.output).split(8, dim=1), read(compressed, after).split(8, dim=1)
    kept = [next(i for i, old in enumerate(before) if torch.allclose(old, new, atol=1e-5)) for new in now]
    assert len(kept) == layer.heads == 2 and kept == sorted(set(kept))
    # and what they say is fitted to what all of them said
    h = torch.cat([*(before[i] for i in kept), torch.ones(len(before[0]), 1)], 1)
    dense = model.get_submodule(place.output)
    wanted = read(model, place.output) @ dense.weight.detach().double().T + dense.bias.detach()
    fitted = torch.linalg.lstsq(h, wanted).solution
    narrow = compressed.get_submodule(after)
    torch.testing.assert_close(narrow.weight.double(), fitted[:-1].T, rtol=0.05, atol=0.02)
    found = torch.cat(now, 1) @ narrow.weight.detach().double().T + narrow.bias.detach()
    least = (h @ fitted - wanted).square().sum()
    assert float((found - wanted).square().sum()) == pytest.approx(float(least), rel=1e-3)
    torch.testing.assert_close(found.mean(0), wanted.mean(0), rtol=0, atol=1e-4)


@encoders
def test_a_redundant_head_is_removed_without_loss(family: Family):
    model = tiny_model(family)
    place = SelfAttention.all_of(model, "*")[1]
    with torch.no_grad():
        for name in place.inputs:
            layer = model.get_submodule(name)
            for value in (layer.weight, layer.bias):
                value[8:16] = value[24:32]
    compressed = pruned(model, keep=0.75, include=place.name, damping=1e-9)
    assert heads(compressed) == [3]
    torch.testing.assert_close(logits(compressed), logits(model), rtol=1e-3, atol=1e-3)


@encoders
def test_more_heads_lose_less(family: Family):
    model = tiny_model(family)
    distances = [float((logits(pruned(model, keep=n / 8)) - logits(model)).norm()) for n in (2, 4, 7)]
    assert all(after < before for before, after in pairwise(distances))


@encoders
def test_unequal_sizes_survive_save_load_and_lora(family: Family, tmp_path, tokenizer):
    compressed = pruned(tiny_model(family), keep=5 / 8)
    left = heads(compressed)
    assert left != [left[0]] * 2
    records.save_model(
        compressed, tokenizer, tmp_path / "m", recipe=Recipe((Heads(keep=0.5),)).to_list(), origin="tiny", seed=0
    )
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    torch.testing.assert_close(logits(plain), logits(compressed), rtol=0, atol=1e-5)
    assert heads(plain) == left
    found = merge_lora(attach_lora(plain, LoraSettings(rank=2)).eval())
    torch.testing.assert_close(logits(found), logits(compressed))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
@pytest.mark.parametrize(("family",), covering([("bert",), ("distilbert",)], lambda case: case == ("bert",)))
def test_exports_to_onnx_at_any_length(family: Family, tmp_path):
    assert_exports(pruned(tiny_model(family), keep=0.6), tmp_path / "model.onnx")


@encoders
def test_neurons_of_the_same_blocks_go_with_them(family: Family):
    steps = (Heads(keep=0.5, allocation="uniform"), Neurons(keep=0.5, allocation="uniform"))
    one, other = (Recipe(order).apply(tiny_model(family), CALIBRATION) for order in (steps, steps[::-1]))
    assert heads(one) == heads(other) == [2, 2]
    assert logits(one).isfinite().all() and not torch.equal(logits(one), logits(other))


def test_losses_share_their_unit_with_low_rank():
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[1]
    method = Heads(keep=0.5, damping=1e-9)
    found = method.parts(model, [place], method.moments(model, [place], CALIBRATION))[place.output]
    losses = found.reader.removal.losses
    spectrum = dict(Kfac(keep=0.5).spectra(model, (place.output,), CALIBRATION))[place.output]
    assert float(losses[0]) == pytest.approx(float(spectrum.losses[0]), rel=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameter, match=r"keep >= 0.25 must hold, .*, but got keep=0.2; give more"):
        pruned(tiny_model("bert"), keep=0.2)
    with pytest.raises(
        InvalidParameter, match=r"one of keep and speedup must be given, but got keep=0.5 and speedup=2"
    ):
        Heads(keep=0.5, speedup=2)
    with pytest.raises(NothingToCompress, match="no attention matches"):
        pruned(tiny_model("bert"), keep=0.5, include="*.7.*")

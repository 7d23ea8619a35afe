from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

import whet
from covering import covering
from exported import assert_exports
from helpers import FAMILIES, Family, tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.neurons import Neurons
from whet.methods.recipe import Recipe
from whet.models.architecture import dense_bias, dense_weight
from whet.models.feed_forward import FeedForward
from whet.models.layers.resized import Resized
from whet.tasks.data import Batches
from whet.training.lora import attach_lora, merge_lora
from whet.training.settings import LoraSettings

CALIBRATION = Resources(calibration=tiny_batches())
families = pytest.mark.parametrize("family", FAMILIES)


def pruned(model: nn.Module, **parameters: object) -> nn.Module:
    return Recipe((Neurons(**{"multiple_of": 1, **parameters}),)).apply(model, CALIBRATION)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def parts(model: nn.Module) -> list[FeedForward]:
    return FeedForward.all_of(model, "*", tiny_batches())


def size(model: nn.Module, names: list[str]) -> int:
    return sum(p.numel() for name in names for p in model.get_submodule(name).parameters() if p.dim() == 2)


def widths(model: nn.Module) -> list[int]:
    return [layer.linear.in_features for name, layer in model.named_modules() if _reads(name, layer)]


def _reads(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, Resized) and name.endswith(("output.dense", "lin2", "c_proj", "down_proj"))


def outputs(model: nn.Module, name: str) -> Tensor:
    """(tokens, out) of the calibration data, padding left out."""
    rows: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, out: rows.append(out))
    with torch.inference_mode():
        for batch in tiny_batches():
            model(**batch)
            rows[-1] = rows[-1][batch["attention_mask"].bool()]
    handle.remove()
    return torch.cat(rows).double()


@families
def test_keep_1_leaves_the_model_unchanged(family: Family):
    model = tiny_model(family)
    kept = pruned(model, keep=1.0)
    assert torch.equal(logits(kept), logits(model))
    assert not [layer for layer in kept.modules() if isinstance(layer, Resized)]


@families
@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@pytest.mark.parametrize(("keep", "multiple_of"), [(0.5, 16), (0.3, 1), (0.77, 5)])
def test_the_budget_is_never_exceeded_and_nearly_spent(family: Family, allocation: str, keep: float, multiple_of: int):
    model = tiny_model(family)
    compressed = pruned(model, keep=keep, multiple_of=multiple_of, allocation=allocation)
    names = [name for part in parts(model) for name in (*part.inputs, part.output)]
    whole, held = size(model, names), size(compressed, names)
    gained = sum(
        dense_bias(compressed.get_submodule(part.output).linear).numel()
        for part in parts(model)
        if dense_bias(model.get_submodule(part.output)) is None
        and isinstance(compressed.get_submodule(part.output), Resized)
    )
    assert held + gained <= keep * whole
    step = multiple_of * whole / 64 / len(parts(model))
    assert held + gained > keep * whole - step * (len(parts(model)) if allocation == "uniform" else 1) - gained
    assert all(width % multiple_of == 0 for width in widths(compressed))
    if allocation == "uniform":
        assert len(set(widths(compressed))) == 1


def test_one_budget_gives_parts_different_sizes():
    assert len(set(widths(pruned(tiny_model("bert"), keep=0.4)))) == 2


@families
def test_the_mean_output_over_real_tokens_stays(family: Family):
    model = tiny_model(family)
    for part in parts(model):
        compressed = pruned(model, keep=0.3, include=part.output)
        before, after = outputs(model, part.output), outputs(compressed, part.output)
        assert (before - after).norm() > 1e-2 * before.norm()
        torch.testing.assert_close(after.mean(0), before.mean(0), rtol=0, atol=2e-5 * float(before.abs().max()))


@families
def test_remaining_neurons_stay_the_same_and_their_reader_is_fitted(family: Family):
    """Nothing of the same neurons is better in the squared error: it is the regression on them, up to the damping."""
    model = tiny_model(family)
    for part in parts(model):
        compressed = pruned(model, keep=0.3, include=part.output, damping=1e-9)
        rows = {}
        for name in part.inputs:
            old, new = dense_weight(model.get_submodule(name)), compressed.get_submodule(name).linear
            rows[name] = [int((old == row).all(1).nonzero()[0]) for row in new.weight]
            bias = dense_bias(model.get_submodule(name))
            assert (new.bias is None) if bias is None else torch.equal(new.bias, bias[rows[name]])
        assert len(set(map(tuple, rows.values()))) == 1, "gates and what they let through belong together"
        kept = next(iter(rows.values()))
        assert kept == sorted(kept)
        read: list[Tensor] = []
        handle = model.get_submodule(part.output).register_forward_pre_hook(
            lambda _, inputs, own=read: own.append(inputs[0])
        )
        wanted = outputs(model, part.output)
        handle.remove()
        masks = [batch["attention_mask"].bool() for batch in tiny_batches()]
        h = torch.cat([one[mask] for one, mask in zip(read, masks, strict=True)]).double()[:, kept]
        h = torch.cat([h, torch.ones(len(h), 1)], 1)
        least = (wanted - h @ torch.linalg.lstsq(h, wanted).solution).square().sum()
        found = (wanted - outputs(compressed, part.output)).square().sum()
        assert float(found) == pytest.approx(float(least), rel=1e-3)


@families
def test_a_redundant_neuron_is_removed_first_without_loss(family: Family):
    model = tiny_model(family)
    part = parts(model)[1]
    with torch.no_grad():
        for name in part.inputs:
            layer = model.get_submodule(name)
            rows = layer.weight.T if family == "gpt2" else layer.weight
            rows[7] = rows[5]
            if layer.bias is not None:
                layer.bias[7] = layer.bias[5]
    compressed = pruned(model, keep=63 / 64, include=part.output, damping=1e-9)
    # (a bias that is gained costs more than a neuron)
    assert widths(compressed) == [63 if dense_bias(model.get_submodule(part.output)) is not None else 62]
    old, new = dense_weight(model.get_submodule(part.inputs[0])), compressed.get_submodule(part.inputs[0]).linear.weight
    gone = {i for i, row in enumerate(old) if not (new == row).all(1).any()}
    assert int((new == old[5]).all(1).sum()) == 1 and not gone & {5, 7}
    if family != "llama":
        torch.testing.assert_close(logits(compressed), logits(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@pytest.mark.parametrize("speedup", [1.2, 1.5])
def test_a_model_reaches_the_wanted_speedup(speedup: float, allocation: str, monkeypatch):
    """Every parameter of the linear layers takes as long as any other here."""

    def seconds(model: nn.Module) -> float:
        return 3000 + sum(p.numel() for name, p in model.named_parameters() if "encoder" in name and p.dim() == 2)

    monkeypatch.setattr(
        "whet.methods._budget.time_models", lambda models, _: np.array([[seconds(model) for model in models]])
    )
    model = tiny_model("bert")
    reached = seconds(model) / seconds(pruned(model, speedup=speedup, allocation=allocation))
    assert 0.98 * speedup <= reached <= 1.1 * speedup
    with pytest.raises(InvalidParameter, match="must hold on this machine, but got speedup=9"):
        pruned(model, speedup=9, allocation=allocation)


@families
def test_more_neurons_lose_less(family: Family):
    model = tiny_model(family)
    distances = [float((logits(pruned(model, keep=keep)) - logits(model)).norm()) for keep in (0.2, 0.5, 0.8, 0.97)]
    assert all(after < before for before, after in pairwise(distances))


def test_compensation_keeps_the_logits():
    """Of the same neurons, without what the others take over, the answers would be further away."""
    model = tiny_model("bert")
    compressed, bare = (pruned(model, keep=0.5) for _ in range(2))
    for part in parts(model):
        kept = compressed.get_submodule(part.inputs[0]).linear.weight
        old = dense_weight(model.get_submodule(part.inputs[0]))
        rows = [int((old == row).all(1).nonzero()[0]) for row in kept]
        bare.get_submodule(part.output).linear.weight.data.copy_(
            dense_weight(model.get_submodule(part.output))[:, rows]
        )
    near, far = (float((logits(one) - logits(model)).norm()) for one in (compressed, bare))
    assert near < 0.7 * far


@families
def test_unequal_widths_survive_save_and_load(family: Family, tmp_path, tokenizer):
    compressed = pruned(tiny_model(family), keep=0.4)
    assert len(set(widths(compressed))) > 1
    recipe = Recipe((Neurons(keep=0.4, multiple_of=1),))
    records.save_model(compressed, tokenizer, tmp_path / "m", recipe=recipe.to_list(), origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(logits(plain), logits(compressed))
    assert widths(plain) == widths(compressed)


@families
def test_lora_finds_the_layers_that_are_left(family: Family):
    compressed = pruned(tiny_model(family), keep=0.4)
    before, shapes = logits(compressed), widths(compressed)
    adapted = attach_lora(compressed, LoraSettings(rank=2))
    read = [name for name, _ in adapted.named_parameters() if "lora_A" in name and "linear" in name]
    assert len(read) >= 2 * len(shapes)
    found = merge_lora(adapted.eval())
    torch.testing.assert_close(logits(found), before)
    assert widths(found) == shapes


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
@pytest.mark.parametrize(("family",), covering([("bert",), ("distilbert",)], lambda case: case == ("distilbert",)))
def test_exports_to_onnx_at_any_length(family: Family, tmp_path):
    assert_exports(pruned(tiny_model(family), keep=0.4), tmp_path / "model.onnx")


def test_attention_of_the_same_blocks_can_be_factored_after_it():
    steps = (Neurons(keep=0.5), Kfac(keep=0.5, include="*attention*"))
    compressed = Recipe(steps).apply(tiny_model("bert"), CALIBRATION)
    kinds = {name: type(module).__name__ for name, module in compressed.named_modules()}
    block = "bert.encoder.layer.1"
    assert kinds[f"{block}.output.dense"] == kinds[f"{block}.intermediate.dense"] == "Resized"
    assert "LowRank" in {kind for name, kind in kinds.items() if "attention" in name}


def test_losses_share_their_unit_with_low_rank():
    """Without any input left, both lose ½ tr(G W C Wᵀ), up to the damping."""
    model, batches = tiny_model("bert"), tiny_batches()
    part = parts(model)[0]
    method = Neurons(keep=0.5, damping=1e-9)
    losses = method.parts(model, [part], method.moments(model, [part], CALIBRATION))[part.output].reader.removal.losses
    spectrum = dict(Kfac(keep=0.5, damping=1e-9).spectra(model, (part.output,), Resources(calibration=batches)))
    assert float(losses[0]) == pytest.approx(float(spectrum[part.output].losses[0]), rel=1e-5)


def test_few_tokens_are_no_special_case():
    few = Batches([{name: value[:2, :4] for name, value in tiny_batches().batches[-1].items()}], np.zeros(2))
    assert few.tokens < 64
    compressed = Recipe((Neurons(keep=0.5),)).apply(tiny_model("bert"), Resources(calibration=few))
    assert logits(compressed).isfinite().all()


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameter, match="0 < keep <= 1 must hold, but got keep=0"):
        Neurons(keep=0)
    with pytest.raises(InvalidParameter, match="1 <= multiple_of <= 1000000 must hold, but got multiple_of=0"):
        Neurons(keep=0.5, multiple_of=0)
    with pytest.raises(InvalidParameter, match="one of keep and speedup must be given"):
        whet.Recipe.from_list([{"method": "pruning.neurons"}])
    with pytest.raises(InvalidParameter, match=r"keep >= 0.25 must hold, .*, but got keep=0.2; give more"):
        pruned(tiny_model("bert"), keep=0.2, multiple_of=16)
    with pytest.raises(NothingToCompress, match="no layer that reads neurons matches"):
        pruned(tiny_model("bert"), keep=0.5, include="*.query")
    factored = Recipe((Svd(keep=0.5),)).apply(tiny_model("bert"), Resources())
    with pytest.raises(NothingToCompress, match="blocks must have neurons"):
        pruned(factored, keep=0.5)

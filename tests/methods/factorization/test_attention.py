import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

import whet
from covering import covering
from exported import assert_exports
from helpers import Family, tiny_batches, tiny_model
from laws import draw
from whet.calibration.resources import Resources
from whet.errors import InvalidData, InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.attention import NarrowAttention, score_projections
from whet.methods.recipe import Recipe
from whet.models.attention import SelfAttention
from whet.models.layers.attention import CompressedAttention as Layer
from whet.models.surgery import describe
from whet.tasks.data import Batches

CALIBRATION = Resources(calibration=tiny_batches())


def narrowed(model: nn.Module, **parameters: object) -> nn.Module:
    return Recipe((NarrowAttention(**parameters),)).apply(model, CALIBRATION)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def size(model: nn.Module) -> int:
    names = ("query", "key", "value", "attention.output.dense")
    return sum(p.numel() for name, p in model.named_parameters() if any(n in name for n in names) and p.dim() == 2)


def test_scores_of_every_rank_are_the_best_over_all_pairs():
    queries, keys = draw(6, 40), draw(6, 30, seed=1) + 0.5
    spectrum = score_projections(queries @ queries.T / 40, keys @ keys.T / 30)
    scores = queries.T @ keys
    singular = torch.linalg.svdvals(scores).square()
    for rank in range(1, 7):
        p, q = spectrum.p[:, :rank], spectrum.q[:rank]
        lost = ((p.T @ queries).T @ (q @ keys) - scores).square().sum()
        assert float(lost) == pytest.approx(float(singular[rank:].sum()), rel=1e-4, abs=1e-6 * float(singular.sum()))
        assert float(spectrum.losses[rank]) == pytest.approx(float(singular[rank:].sum() / singular.sum()), abs=1e-6)


def seen(model: nn.Module, name: str, *, before: bool = False) -> Tensor:
    """(tokens, features) what a layer puts out, or what enters it, padding left out."""
    rows: list[Tensor] = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_hook(lambda _module, inputs, out: rows.append(inputs[0] if before else out))
    with torch.inference_mode():
        for batch in tiny_batches():
            model(**batch)
            rows[-1] = rows[-1][batch["attention_mask"].bool()]
    handle.remove()
    return torch.cat(rows).double()


def test_scores_in_a_model_are_the_best_over_all_pairs():
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[0]
    compressed = narrowed(model, keep=0.5, metric="outputs", allocation="uniform", include=place.name)
    dense, narrow = (
        (seen(one, place.query), seen(one, place.key) - seen(one, place.key).mean(0)) for one in (model, compressed)
    )
    for head in range(4):
        full, few = (slice(width * head, width * (head + 1)) for width in (8, 4))
        wanted, found = dense[0][:, full] @ dense[1][:, full].T, narrow[0][:, few] @ narrow[1][:, few].T
        best = torch.linalg.svdvals(wanted).square()[4:].sum()
        assert float((found - wanted).square().sum()) == pytest.approx(float(best), rel=1e-3)


def test_values_of_every_width_are_the_best_after_the_output():
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[0]
    # without queries all scores are zero, so that nothing but the values is lost
    for value in model.get_submodule(place.query).parameters():
        value.data.zero_()
    before = seen(model, place.output, before=True)
    weight = model.get_submodule(place.output).weight.detach().double()
    compressed = narrowed(model, keep=0.5, metric="outputs", allocation="uniform", include=place.name)
    after = seen(compressed, place.output, before=True)
    narrow = compressed.get_submodule(place.output).linear
    for head in range(4):
        own, part = before[:, 8 * head : 8 * head + 8], weight[:, 8 * head : 8 * head + 8]
        exact = (own - own.mean(0)) @ part.T
        best = torch.linalg.svdvals(exact).square()[4:].sum()
        reached = after[:, 4 * head : 4 * head + 4] @ narrow.weight.detach().double()[:, 4 * head : 4 * head + 4].T
        lost = (exact - (reached - reached.mean(0))).square().sum()
        assert float(lost) == pytest.approx(float(best), rel=1e-3)


@pytest.mark.parametrize("metric", ["kl", "outputs"])
@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_keeps_the_wanted_fraction(metric: str, allocation: str, family: Family):
    model = tiny_model(family)
    compressed = narrowed(model, keep=0.5, metric=metric, allocation=allocation)
    assert size(compressed) == size(model) // 2


def test_more_width_loses_less():
    model = tiny_model("bert")
    for metric in ("kl", "outputs"):
        distances = [
            float((logits(narrowed(model, keep=keep, metric=metric)) - logits(model)).norm())
            for keep in (0.2, 0.5, 0.8, 0.95)
        ]
        assert distances == sorted(distances, reverse=True)


def test_a_constant_added_to_all_keys_changes_nothing():
    """Softmax does not see it, so that no width may be spent on it."""
    model, shifted = tiny_model("bert"), tiny_model("bert")
    for place in SelfAttention.all_of(shifted, "*"):
        shifted.get_submodule(place.key).bias.data += 5 * torch.randn(32, generator=torch.Generator().manual_seed(3))
    for metric in ("kl", "outputs"):
        one, other = (narrowed(m, keep=0.4, metric=metric, allocation="uniform") for m in (model, shifted))
        torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=2e-3)


def test_unequal_widths_survive_save_and_load(tmp_path, tokenizer):
    compressed = narrowed(tiny_model("bert"), keep=0.4)
    widths = {
        (entry["query_key_width"], entry["value_width"])
        for entry in describe(compressed).values()
        if entry["kind"] == "attention"
    }
    assert any(scores != values for scores, values in widths)
    recipe = Recipe((NarrowAttention(keep=0.4),))
    records.save_model(compressed, tokenizer, tmp_path / "m", recipe=recipe.to_list(), origin="tiny", seed=0)
    for implementation in ("sdpa", "eager"):
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", attn_implementation=implementation)
        torch.testing.assert_close(logits(plain.eval()), logits(compressed), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's exporter's own
@pytest.mark.parametrize(("family",), covering([("bert",), ("distilbert",)], lambda case: case == ("bert",)))
def test_exports_to_onnx_at_any_length(family: Family, tmp_path):
    assert_exports(narrowed(tiny_model(family), keep=0.4), tmp_path / "model.onnx")


def test_the_second_block_alone_may_be_narrower():
    compressed = narrowed(tiny_model("bert"), keep=0.5, include="*.1.*")
    changed = [name for name, module in compressed.named_modules() if isinstance(module, Layer)]
    assert changed == ["bert.encoder.layer.1.attention.self"]


def test_bad_input_is_refused():
    with pytest.raises(InvalidParameter, match="keep"):
        NarrowAttention(keep=0)
    with pytest.raises(InvalidParameter, match="must be given keep"):
        whet.Recipe.from_list([{"method": "factorization.attention"}])
    with pytest.raises(NothingToCompress, match="rotates them by their positions"):
        narrowed(tiny_model("llama"), keep=0.5)
    few = Batches([{name: value[:1, :3] for name, value in tiny_batches().batches[0].items()}], np.zeros(1))
    with pytest.raises(InvalidData, match="as many tokens as a head has features, 8, but got"):
        Recipe((NarrowAttention(keep=0.5),)).apply(tiny_model("bert"), Resources(calibration=few))

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from helpers import Family, tiny_batches, tiny_model
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidData, NothingToCompress
from whet.evaluation import records
from whet.methods.factorization.kfac import Kfac
from whet.methods.factorization.shared_qkv import SharedQkv, stacked_spectrum
from whet.methods.recipe import Recipe
from whet.models.attention import SelfAttention, stack_projections
from whet.models.layers.attention import CompressedAttention as Layer
from whet.numerics.low_rank import covariance_of, svd_of_kl
from whet.numerics.moments import Side
from whet.tasks.data import Batches

CALIBRATION = Resources(calibration=tiny_batches())
encoders = pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])


def compressed(model: nn.Module, **parameters: object) -> nn.Module:
    return Recipe((SharedQkv(**parameters),)).apply(model, CALIBRATION)


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in tiny_batches(seed=2)])


def projected(model: nn.Module, names: tuple[str, ...]) -> Tensor:
    """(tokens, 3 * out) what query, key and value give, padding left out."""
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, own=own: own.append(out))
        for name, own in rows.items()
    ]
    masks = [batch["attention_mask"].bool() for batch in tiny_batches()]
    with torch.inference_mode():
        for batch in tiny_batches():
            model(**batch)
    for handle in handles:
        handle.remove()
    real = [torch.cat([out[mask] for out, mask in zip(own, masks, strict=True)]) for own in rows.values()]
    return torch.cat(real, dim=1).double()


@encoders
def test_stacked_layer_gives_query_key_and_value(family: Family):
    model = tiny_model(family)
    place = SelfAttention.all_of(model, "*")[0]
    inputs = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    each = torch.cat([model.get_submodule(name)(inputs) for name in place.inputs], dim=1)
    torch.testing.assert_close(stack_projections(model, place)(inputs), each)


def test_outputs_of_every_rank_are_the_best_of_that_rank():
    """Of the first layer, whose inputs are those of the original."""
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[0]
    exact = projected(model, place.inputs)
    singular = torch.linalg.svdvals(exact - exact.mean(0)).square()
    for keep in (0.2, 0.4, 0.7):
        thin = compressed(model, keep=keep, metric="outputs", allocation="uniform", include=place.name)
        layer = thin.get_submodule(place.name)
        assert isinstance(layer, Layer) and layer.shared is not None
        reached = projected(thin, tuple(f"{place.name}.{part}" for part in ("query", "key", "value")))
        # the bias makes up for the mean, so that no error has one
        lost = float((reached - exact).square().sum())
        assert lost == pytest.approx(float(singular[layer.shared.out_features :].sum()), rel=1e-3)


@encoders
@pytest.mark.parametrize("metric", ["kl", "outputs"])
@pytest.mark.parametrize("allocation", ["uniform", "by_loss"])
def test_keeps_at_most_the_wanted_fraction(family: Family, metric: str, allocation: str):
    model = tiny_model(family)
    places = SelfAttention.all_of(model, "*")
    dense = sum(stack_projections(model, place).weight.numel() for place in places)
    thin = compressed(model, keep=0.5, metric=metric, allocation=allocation)
    parts = [thin.get_submodule(place.name) for place in places]
    kept = sum(
        layer.weight.numel()
        for part in parts
        for layer in ((part.shared, part.query, part.key, part.value) if isinstance(part, Layer) else ())
    )
    assert 0.4 * dense < kept <= 0.5 * dense


@encoders
def test_more_rank_loses_less(family: Family):
    model = tiny_model(family)
    for metric in ("kl", "outputs"):
        found = [logits(compressed(model, keep=keep, metric=metric)) for keep in (0.4, 0.7, 0.95)]
        distances = [float((one - logits(model)).norm()) for one in found]
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < distances[0] / 3


def test_loss_is_the_sum_of_what_each_error_costs():
    """At rank 0 all is lost, and losses add up."""
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[0]
    sides = dict.fromkeys(place.inputs, Side.INPUT)
    moments = collect_moments(model, tiny_batches(), place.inputs, seed=0, sides=sides)
    own = [moments[name] for name in place.inputs]
    each = [svd_of_kl(covariance_of(one), one.gradient, one.mean).losses[0] for one in own if one.gradient is not None]
    whole = stacked_spectrum(stack_projections(model, place).weight.detach(), own, metric="kl")
    torch.testing.assert_close(whole.losses[0], torch.stack(each).sum())


def test_ranks_are_even_or_spread_by_loss():
    def ranks(allocation: str) -> set[int]:
        layers = list(compressed(tiny_model("bert"), keep=0.5, allocation=allocation).modules())
        return {layer.shared.out_features for layer in layers if isinstance(layer, Layer) and layer.shared is not None}

    assert len(ranks("uniform")) == 1
    assert len(ranks("by_loss")) > 1


def test_loses_less_than_three_factorizations_of_the_same_size():
    model = tiny_model("bert")
    place = SelfAttention.all_of(model, "*")[0]
    exact = projected(model, place.inputs)
    alone = Recipe((Kfac(keep=0.5, allocation="uniform", include=f"{place.name}.*"),)).apply(model, CALIBRATION)
    together = compressed(model, keep=0.5, allocation="uniform", include=place.name)
    shared = projected(together, tuple(f"{place.name}.{part}" for part in ("query", "key", "value")))
    assert (shared - exact).norm() < (projected(alone, place.inputs) - exact).norm()


def test_survives_save_and_load_and_leaves_the_rest_to_other_methods(tmp_path, tokenizer):
    recipe = Recipe((SharedQkv(keep=0.5), Kfac(keep=0.5)))
    model = recipe.apply(tiny_model("bert"), CALIBRATION)
    records.save_model(model, tokenizer, tmp_path / "m", recipe=recipe.to_list(), origin="tiny", seed=0)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert torch.equal(logits(plain.eval()), logits(model))


def test_bad_input_is_refused():
    with pytest.raises(NothingToCompress, match=r"must be like BERT's.*but got LlamaFor.*rotates them"):
        compressed(tiny_model("llama"), keep=0.5)
    few = Batches([{name: value[:1, :3] for name, value in tiny_batches().batches[0].items()}], np.zeros(1))
    with pytest.raises(InvalidData, match=r"as many tokens as the largest rank, \d+, but got 2 tokens"):
        Recipe((SharedQkv(keep=0.5),)).apply(tiny_model("bert"), Resources(calibration=few))

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from helpers import FAMILIES, tiny_batches, tiny_model
from whet.calibration.moments import collect_moments
from whet.calibration.resources import Resources
from whet.errors import InvalidParameter, MissingResource, NothingToCompress
from whet.evaluation import records
from whet.methods.clustering.kmeans import KMeans
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_weight
from whet.models.embeddings import word_vectors
from whet.models.layers.codebook import Clustered, Codebook, CodebookSpec
from whet.models.layers.masked import Masked
from whet.numerics.moments import Side


def everything(family: str = "bert") -> Resources:
    return Resources(calibration=tiny_batches(), train=tiny_batches(), teacher=tiny_model(family))


def clustered(family="bert", *before, **given) -> nn.Module:
    return Recipe((*before, KMeans(**given))).apply(tiny_model(family), everything(family))


def layers(model: nn.Module) -> dict[str, Clustered]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Clustered)}


def original_weight(model: nn.Module, name: str) -> torch.Tensor:
    module = model.get_submodule(name)
    return module.weight.detach() if isinstance(module, nn.Embedding) else dense_weight(module)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_embeddings_take_few_values_and_other_weights_stay(family):
    original, model = tiny_model(family), clustered(family, n_clusters=8)
    architecture = Architecture.of(original)
    assert set(layers(model)) == {*architecture.linears, *architecture.embeddings}
    assert architecture.embeddings
    for name, layer in layers(model).items():
        weight, known = layer.dense.weight.detach(), original_weight(original, name)
        values = weight.unique()
        assert 2 <= len(values) <= 8
        assert torch.equal((known[..., None] - values).abs().argmin(-1), torch.bucketize(weight, values)), "nearest"
        if layer.bias is not None:
            assert torch.equal(layer.bias, original.get_submodule(name).bias)
    own = dict(model.named_parameters())
    for name, value in original.named_parameters():
        if name in own:  # norms, pooler and head
            assert torch.equal(own[name], value)


def test_include_chooses_embeddings_or_layers():
    assert set(layers(clustered(include="*word_embeddings"))) == {"bert.embeddings.word_embeddings"}
    assert not any("embeddings" in name for name in layers(clustered(include="*.layer.*")))


def test_weights_count_as_their_inputs():
    """No other choice of values or assignments near it has a smaller Σ E[x_i²] (w_ij − c)²."""
    original = tiny_model("bert")
    names = Architecture.of(original).linears
    moments = collect_moments(original, tiny_batches(), names, sides=dict.fromkeys(names, Side.INPUT))
    plain = layers(clustered(n_clusters=8, init="density"))
    weighted = layers(clustered(n_clusters=8, init="density", importance="inputs"))
    for name in names:
        squares, known = moments[name].second.diagonal(), original_weight(original, name).double()
        weight = weighted[name].dense.weight.detach().double()

        def error(few, known=known, squares=squares):
            return float(((known - few) ** 2 * squares).sum())

        assert error(weight) <= error(plain[name].dense.weight.detach().double()) * 1.02
        for value in weight.unique():
            own = weight == value
            masses = squares.expand_as(known)[own]
            assert value.item() == pytest.approx(float((masses * known[own]).sum() / masses.sum()), rel=1e-4, abs=1e-6)


def test_words_count_as_often_as_they_are_read():
    """And once more; padding is not read, position and word alike."""
    original, few = tiny_model("bert"), layers(clustered(n_clusters=4, importance="inputs"))
    batches = tiny_batches()
    words, positions = np.ones(99), np.ones(40)
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            np.add.at(words, ids[mask.bool()].numpy(), 1)
            positions[: int(mask.sum())] += 1
    for kind, counts in (("word", words), ("position", positions)):
        name = f"bert.embeddings.{kind}_embeddings"
        known, weight = original_weight(original, name), few[name].dense.weight.detach()
        for value in weight.unique():
            own = weight == value
            masses = torch.from_numpy(counts)[:, None].expand_as(known)[own]
            mean = float((masses * known[own].double()).sum() / masses.sum())
            assert value.item() == pytest.approx(mean, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_training_moves_values_and_leaves_assignments(family):
    before = clustered(family, n_clusters=8)
    after = clustered(family, n_clusters=8, epochs=4, learning_rate=1e-2)
    for name, layer in layers(before).items():
        first, second = layer.dense.weight.detach(), layers(after)[name].dense.weight.detach()
        assert len(second.unique()) == len(first.unique())
        assert not torch.equal(first, second)
        for value in first.unique():
            assert len(second[first == value].unique()) == 1, "equal weights stay equal"


def test_training_brings_logits_closer():
    def apart(model: nn.Module) -> float:
        with torch.no_grad():
            pairs = [(model(**batch).logits, tiny_model("bert")(**batch).logits) for batch in tiny_batches()]
        return float(sum((own - known).square().sum() for own, known in pairs))

    assert apart(clustered(n_clusters=4, epochs=20, learning_rate=1e-3)) < 0.7 * apart(clustered(n_clusters=4))


@pytest.mark.parametrize("shape", [(10, 16), (7, 5), (129, 3)])
@pytest.mark.parametrize("fused", [False, True])
def test_equal_weights_stay_equal_to_the_bit(shape, fused):
    """Whatever the optimizer's kernels do at the end of a tensor, which is no multiple of their width."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(6, generator=random)[torch.randint(6, shape, generator=random)]
    layer = Clustered.of(weight, torch.zeros(shape[0]), CodebookSpec("linear", *shape, bias=True)).train()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, fused=fused)
    for _ in range(60):
        optimizer.zero_grad()
        layer(torch.randn(4, shape[1], generator=random)).square().mean().backward()
        optimizer.step()
    trained = layer.eval().dense.weight.detach()
    assert not torch.equal(trained, weight)
    assert all(len(trained[weight == value].unique()) == 1 for value in weight.unique())


def test_the_gradient_is_that_of_the_codebook():
    """Moving a value by d moves the loss by d times the sum of its weights' gradients."""
    random = torch.Generator().manual_seed(0)
    codebook = torch.randn(4, generator=random, dtype=torch.float64, requires_grad=True)
    places = torch.randint(4, (5, 7), generator=random)
    inputs, bias = torch.randn(3, 7, generator=random, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    nn.functional.linear(inputs, codebook[places], bias).pow(3).sum().backward()
    layer = Clustered.of(codebook.detach()[places], bias, CodebookSpec("linear", 5, 7, bias=True))
    layer(inputs).pow(3).sum().backward()
    counts = places.flatten().bincount()
    assert torch.allclose(layer.dense.weight.grad, (codebook.grad / counts)[places], rtol=1e-12)


def test_a_pruned_layer_keeps_its_zeros_also_in_training():
    pruned = Recipe((Magnitude(sparsity=0.7),)).apply(tiny_model("bert"), everything())
    for given in ({}, {"epochs": 3, "learning_rate": 1e-2}):
        model = clustered("bert", Magnitude(sparsity=0.7), n_clusters=8, **given)
        assert not any(isinstance(layer, Masked) for layer in model.modules())
        for name, layer in pruned.named_modules():
            if isinstance(layer, Masked):
                weight = layers(model)[name].dense.weight.detach()
                assert torch.equal(weight == 0, layer.linear.weight == 0)
                assert len(weight.unique()) == 8


def test_pruned_and_clustered_layers_are_found_by_name():
    pruned = clustered("bert", Magnitude(sparsity=0.7), n_clusters=8, include="*.query")
    assert {name.rpartition(".")[2] for name in layers(pruned)} == {"query"}
    twice = clustered("bert", KMeans(n_clusters=32), n_clusters=4, include="*.query")
    for name, layer in layers(twice).items():
        assert not isinstance(layer.dense, Clustered)
        assert (len(layer.dense.weight.unique()) <= 4) == name.endswith("query") or layer.dense.weight.numel() < 100
    known = layers(clustered(n_clusters=4))
    assert layers(twice).keys() == known.keys()


def test_factors_are_clustered_too():
    model = clustered("bert", Svd(keep=0.5), n_clusters=8)
    assert {name.rpartition(".")[2] for name in layers(model) if ".layer." in name} == {"u", "v"}


@pytest.mark.parametrize("coding", ["fixed", "entropy"])
@pytest.mark.parametrize("clusters", [2, 5, 16, 33])
def test_stored_layers_hold_values_and_assignments(clusters, coding, tmp_path, tokenizer):
    model = clustered(n_clusters=clusters, coding=coding)
    records.save_model(model, tokenizer, tmp_path / "m", recipe=[], origin="tiny", seed=0)
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    for name, layer in layers(model).items():
        weight = layer.dense.weight
        if f"{name}.codes" not in tensors:
            assert isinstance(layer.stored(), Clustered) and weight.numel() < 100, "too small to gain"
            continue
        values = len(weight.unique())
        fixed = -(-weight.numel() * int(np.ceil(np.log2(values))) // 8)
        assert len(tensors[f"{name}.codebook"]) == values
        assert (len(tensors[f"{name}.codes"]) == fixed) if coding == "fixed" else len(tensors[f"{name}.codes"]) <= fixed
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert set(layers(loaded)) == set(layers(model))


def test_a_file_is_as_large_as_theory_says(tmp_path):
    """Of normal weights with 16 values: 4 bits each, or the entropy of the best 16 levels, 3.765 bits (Max, 1960)."""
    weight = torch.randn(500, 600, generator=torch.Generator().manual_seed(0))
    for coding, bits in (("fixed", 4.0), ("entropy", 3.765)):
        few = KMeans(n_clusters=16, init="density")._values(weight, None, seed=0, zeros=False)
        layer = Clustered.of(few, None, CodebookSpec("linear", 500, 600, coding=coding))
        save_file(layer.stored().state_dict(), tmp_path / "m.safetensors")
        assert (tmp_path / "m.safetensors").stat().st_size == pytest.approx(weight.numel() * bits / 8, rel=0.015)


def test_weights_of_many_values_are_stored_unchanged():
    """With 257 values, which a byte cannot tell apart."""
    weight = (torch.arange(3000) % 257).float().reshape(100, 30)
    layer = Clustered.of(weight, None, CodebookSpec("linear", 100, 30))
    assert layer.stored() is layer
    again = Clustered.empty(layer.structure())
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.running().dense.weight, layer.dense.weight)


@pytest.mark.parametrize("clusters", [1, 2, 3, 256])
def test_every_number_of_values_is_restored_to_the_bit(clusters):
    values = torch.randn(clusters, generator=torch.Generator().manual_seed(0)).sort().values
    places = torch.randint(clusters, (30, 41), generator=torch.Generator().manual_seed(1))
    places.flatten()[:clusters] = torch.arange(clusters)
    for coding in ("fixed", "entropy"):
        form = CodebookSpec("linear", 30, 41, bias=True, coding=coding)
        stored = Codebook.of(values, places.flatten().byte(), torch.arange(30.0), form)
        layer = stored.running()
        assert torch.equal(layer.dense.weight, values[places])
        assert torch.equal(layer.bias, torch.arange(30.0))


def test_the_embeddings_stay_the_models_input_embeddings():
    original, model = tiny_model("bert"), clustered(n_clusters=256)
    assert model.get_input_embeddings().num_embeddings == original.get_input_embeddings().num_embeddings
    assert word_vectors(model).shape == word_vectors(original).shape
    assert layers(model)["bert.embeddings.word_embeddings"].dense.padding_idx == 0


def test_needed_resources_follow_from_the_parameters():
    assert KMeans().reads == frozenset()
    assert KMeans(importance="inputs").reads == {"calibration"}
    assert KMeans(epochs=0.1).reads == {"train", "teacher"}
    with pytest.raises(MissingResource, match=r"clustering.kmeans needs calibration data, but got none"):
        Recipe((KMeans(importance="inputs"),)).apply(tiny_model("bert"), Resources())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_clusters": 1}, r"2 <= n_clusters <= 256 must hold, but got n_clusters=1"),
        ({"n_clusters": 257}, r"2 <= n_clusters <= 256 must hold"),
        ({"n_clusters": 2.5}, r"n_clusters must be of type int, but got n_clusters=2.5"),
        ({"init": "random"}, r"init must be one of linear, density, kmeans\+\+, but got init='random'"),
        ({"importance": "outputs"}, r"importance must be one of none, inputs"),
        ({"coding": "zip"}, r"coding must be one of fixed, entropy"),
        ({"epochs": -1}, r"0 <= epochs <= 10000 must hold, but got epochs=-1"),
        ({"learning_rate": 0}, r"0 < learning_rate <= 1e.38 must hold"),
    ],
)
def test_bad_parameters_are_refused(given, message):
    with pytest.raises(InvalidParameter, match=message):
        KMeans(**given)


def test_a_model_without_matching_layers_is_refused():
    with pytest.raises(NothingToCompress, match=r"no linear layer or embedding matches 'x\*'; there are bert.embedd"):
        clustered(include="x*")

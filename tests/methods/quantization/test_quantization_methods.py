"""What holds for half, weight_only and dynamic_int8."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers import tiny_batches, tiny_model
from whet.calibration.resources import Resources
from whet.errors import InvalidModel, InvalidParameter, NothingToCompress
from whet.evaluation import records
from whet.methods.base import Method
from whet.methods.clustering.kmeans import KMeans
from whet.methods.factorization.svd import Svd
from whet.methods.pruning.magnitude import Magnitude
from whet.methods.quantization.dynamic_int8 import DynamicInt8
from whet.methods.quantization.half import Half
from whet.methods.quantization.weight_only import WeightOnly
from whet.methods.recipe import Recipe
from whet.models.architecture import Architecture, dense_weight
from whet.models.inference import predict_logits
from whet.models.layers.base import count_weights
from whet.models.layers.halved import HalfPrecision, HalfSpec
from whet.models.layers.low_rank import LowRank
from whet.models.layers.masked import Masked, PackedSparse
from whet.models.layers.quantized import Int8, PackedQuantized, QuantizationSpec, Quantized
from whet.models.surgery import to_storage
from whet.numerics.divergence import categorical_kl
from whet.numerics.rounding import quantize_weight
from whet.runtimes._onnx import to_onnx
from whet.utils.hardware import supports_products

METHODS = [Half(), WeightOnly(bits=4), DynamicInt8()]


def run(*methods: Method, model: nn.Module | None = None, **resources: object) -> nn.Module:
    return Recipe(methods).apply(model or tiny_model("bert"), Resources(**resources))


def random(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def size(layer: nn.Module) -> int:
    """Bytes that a layer takes on disk, but for the bias."""
    return sum(value.numel() * value.element_size() for name, value in layer.state_dict().items() if name != "bias")


@pytest.mark.parametrize("group_size", [None, 8, 12])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_weight_is_rounded_in_its_group(bits, group_size):
    before, after = tiny_model("bert"), run(WeightOnly(bits=bits, group_size=group_size))
    architecture = Architecture.of(before)
    for name in (*architecture.linears, *architecture.embeddings):
        weight = before.get_submodule(name).weight.detach()
        wanted = quantize_weight(weight, bits=bits, group_size=group_size, scale_dtype=torch.float16)
        assert torch.equal(after.get_submodule(name).dense.weight, wanted.weight())
    assert torch.equal(after.classifier.weight, before.classifier.weight)


def test_embeddings_can_stay_unchanged():
    found = run(WeightOnly(embeddings=False))
    assert type(found.bert.embeddings.word_embeddings) is nn.Embedding
    assert type(found.bert.encoder.layer[0].attention.self.query) is Quantized


@pytest.mark.parametrize("layer", ["linear", "embedding"])
@pytest.mark.parametrize("coding", ["fixed", "entropy"])
@pytest.mark.parametrize("group_size", [None, 7, 32])
@pytest.mark.parametrize("bits", [4, 8])
def test_packing_is_exact(bits, group_size, coding, layer):
    form = QuantizationSpec(layer, 30, 41, bias=layer == "linear", bits=bits, group_size=group_size, coding=coding)
    weight, bias = random(30, 41), random(1, 30)[0] if layer == "linear" else None
    weight[3] = 0
    running = Quantized.of(form.rounded(weight).weight(), bias, form)
    stored = running.stored()
    assert type(stored) is PackedQuantized
    again = stored.running()
    assert torch.equal(again.dense.weight, running.dense.weight)
    assert bias is None or torch.equal(again.bias, bias)
    assert type(again.stored()) is PackedQuantized and torch.equal(again.stored().codes, stored.codes)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_to_the_nearest(dtype):
    form = HalfSpec("linear", 30, 41, bias=True, dtype=dtype)
    weight, bias = random(30, 41), random(1, 30)[0]
    running = HalfPrecision.of(form.rounded(weight).float(), bias, form)
    assert torch.equal(running.dense.weight, weight.to(getattr(torch, dtype)).float())
    stored = running.stored()
    assert size(stored) == 30 * 41 * 2
    assert torch.equal(stored.running().dense.weight, running.dense.weight)
    assert torch.equal(stored.running().bias, bias)


@pytest.mark.parametrize(("bits", "group_size", "per_weight"), [(8, None, 8 + 16 / 640), (8, 64, 8.25), (4, 32, 4.5)])
def test_a_layer_takes_the_bytes_that_theory_says(bits, group_size, per_weight):
    form = QuantizationSpec("linear", 300, 640, bits=bits, group_size=group_size)
    fixed = Quantized.of(form.rounded(random(300, 640)).weight(), None, form).stored()
    assert size(fixed) == pytest.approx(300 * 640 * per_weight / 8, rel=1e-3)
    entropy = QuantizationSpec("linear", 300, 640, bits=bits, group_size=group_size, coding="entropy")
    assert size(Quantized.of(fixed.running().dense.weight, None, entropy).stored()) < 0.98 * size(fixed)


def test_the_saved_model_is_smaller(tmp_path: Path, tokenizer):
    """Files of compressed weights against the bytes of their layers."""

    def disk(name: str, *methods: Method) -> int:
        recipe = Recipe(methods)
        records.save_model(run(*methods), tokenizer, tmp_path / name, recipe=recipe.to_list(), origin="tiny", seed=0)
        stored = load_file(tmp_path / name / "model.safetensors")
        return sum(value.numel() * value.element_size() for value in stored.values())

    model, dense = tiny_model("bert"), disk("dense")
    architecture = Architecture.of(model)
    weights = sum(
        model.get_submodule(name).weight.numel() for name in (*architecture.linears, *architecture.embeddings)
    )
    assert dense - disk("half", Half()) == 2 * weights
    in_eight = dense - disk("eight", WeightOnly(bits=8, coding="fixed"))
    rows = sum(len(model.get_submodule(name).weight) for name in (*architecture.linears, *architecture.embeddings))
    assert in_eight == 3 * weights - 2 * rows


@pytest.mark.parametrize("kind", ["quantized", "half"])
def test_weights_that_were_trained_since_are_stored_unchanged(kind):
    layer = (
        Quantized.of(
            QuantizationSpec("linear", 5, 6).rounded(random(5, 6)).weight(), None, QuantizationSpec("linear", 5, 6)
        )
        if kind == "quantized"
        else HalfPrecision.of(random(5, 6).bfloat16().float(), None, HalfSpec("linear", 5, 6))
    )
    assert layer.stored() is not layer
    layer.dense.weight.data[0, 0] *= 1.001
    assert layer.stored() is layer


@pytest.mark.parametrize("bias", [True, False])
def test_int8_is_the_arithmetic_of_whole_numbers(bias):
    generator = torch.Generator().manual_seed(0)
    form = QuantizationSpec("linear", 24, 40, bias=bias, products="int8")
    found = form.rounded(random(24, 40) * torch.logspace(-2, 1, 24)[:, None])
    own = torch.randn(24, generator=generator) if bias else None
    layer = Int8.of(found, own, form)
    inputs = 3 * torch.randn(2, 9, 40, generator=generator) + 1
    with torch.no_grad():
        out = layer(inputs)
    levels = 255 if supports_products("int8") else 127
    least = inputs.min().clamp_max(0)
    scale = (inputs.max().clamp_min(0) - least) / levels
    zero = (-least / scale).round()
    steps = ((inputs / scale).round() + zero).clamp(0, levels) - zero
    wanted = (steps.long() @ found.values.long().T).float() * scale * found.scales[:, 0].float()
    torch.testing.assert_close(out, wanted + own if bias else wanted, atol=1e-4, rtol=1e-4)


def test_int8_is_trained_through_in_float():
    layer = run(DynamicInt8()).bert.encoder.layer[0].attention.self.query
    inputs = random(3, 32).requires_grad_()
    out = layer(inputs)
    out.sum().backward()
    weight = layer.values * layer.scales
    torch.testing.assert_close(out, inputs @ weight.T + layer.bias)
    torch.testing.assert_close(inputs.grad, weight.sum(0).expand(3, -1))


def test_int8_follows_its_weights():
    """The kernel has a form of its own of the weight, which copies and loaded weights must not inherit."""
    first, second = (
        Int8.of(quantize_weight(random(6, 8, seed)), None, QuantizationSpec("linear", 6, 8, products="int8"))
        for seed in (1, 2)
    )
    inputs = random(3, 8)
    with torch.no_grad():
        before, other = first(inputs), second(inputs)
        copied = copy.deepcopy(first)
        first.load_state_dict(second.state_dict())
        assert torch.equal(first(inputs), other)
        assert torch.equal(copied(inputs), before)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name())
def test_a_layer_has_one_representation(method):
    for first in (*METHODS, KMeans()):
        once = run(first)
        with pytest.raises(InvalidModel, match=r"layers must hold ordinary weights, but .* already; take the model"):
            run(method, model=once)
    with pytest.raises(InvalidModel, match="layers must hold ordinary weights"):
        run(KMeans(), model=run(method))


def test_products_and_embeddings_can_be_dropped_separately():
    found = run(DynamicInt8(), WeightOnly(include="*embeddings*"))
    kinds = {type(module) for module in found.modules()}
    assert {Int8, Quantized} <= kinds


@pytest.mark.parametrize("method", [WeightOnly(bits=4), DynamicInt8()], ids=lambda method: method.name())
def test_pruned_layers_keep_their_zeros_and_take_less(method):
    pruned = run(Magnitude(sparsity=0.75))
    found = run(method, model=pruned)
    for name, layer in to_storage(found).named_modules():
        if isinstance(layer, PackedQuantized) and "encoder" in name:
            zeros = dense_weight(pruned.get_submodule(name).linear) == 0
            own = found.get_submodule(name)
            values = own.values if isinstance(own, Int8) else own.dense.weight
            assert zeros.any() and (values[zeros] == 0).all()
            assert size(layer) < size(pruned.get_submodule(name).stored())


def test_pruned_layers_keep_half_of_what_they_had():
    found = run(Magnitude(sparsity=0.75), Half())
    layer = found.bert.encoder.layer[1].attention.self.query
    assert type(layer) is Masked
    stored = layer.stored()
    assert type(stored) is PackedSparse and stored.values.dtype == torch.bfloat16
    assert torch.equal(stored.running().linear.weight, layer.linear.weight)


def test_factors_are_balanced_before_they_are_rounded():
    factored = run(Svd(keep=0.5))
    for module in factored.modules():
        if isinstance(module, LowRank):
            sizes = torch.logspace(-2, 2, module.rank)
            module.u.weight.data *= sizes
            module.v.weight.data /= sizes[:, None]
    before = predict_logits(factored, tiny_batches())
    after = predict_logits(run(WeightOnly(bits=8, embeddings=False), model=factored), tiny_batches())
    plain = predict_logits(run(WeightOnly(bits=8, embeddings=False), model=run(Svd(keep=0.5))), tiny_batches())
    assert np.abs(after - before).max() <= 2 * np.abs(plain - before).max()


def test_the_layers_of_highest_cost_stay_in_float32():
    held_out = tiny_batches(seed=1)
    model = tiny_model("distilbert")
    free = run(DynamicInt8(), model=model)
    lost = float(np.mean(categorical_kl(predict_logits(model, held_out), predict_logits(free, held_out))))
    strict = run(DynamicInt8(max_kl=lost / 2), model=model, validation=held_out)
    assert float(np.mean(categorical_kl(predict_logits(model, held_out), predict_logits(strict, held_out)))) <= lost / 2
    kinds = [type(module) for module in strict.modules()]
    assert 0 < kinds.count(Int8) < [type(module) for module in free.modules()].count(Int8)
    loose = run(DynamicInt8(max_kl=2 * lost), model=model, validation=held_out)
    assert np.array_equal(predict_logits(loose, held_out), predict_logits(free, held_out))
    with pytest.raises(NothingToCompress, match="max_kl=1e-12 must leave layers to round, but got none"):
        run(DynamicInt8(max_kl=1e-12), model=model, validation=held_out)


def test_weights_in_8_bits_are_counted():
    model = tiny_model("bert")
    assert count_weights(run(DynamicInt8(), model=model)) == count_weights(model)
    assert count_weights(model) == sum(weight.numel() for weight in model.parameters())


def test_int8_layers_are_not_exported(tmp_path: Path):
    batch = tiny_batches().batches[0]
    with pytest.raises(InvalidModel, match=r"must compute in float, but got one with 8-bit .* --precision int8"):
        to_onnx(run(DynamicInt8()), batch, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: WeightOnly(bits=3), "bits must be one of 4, 8, but got bits=3"),
        (lambda: WeightOnly(group_size=1), "2 <= group_size <= 1000000 must hold, but got group_size=1"),
        (lambda: WeightOnly(coding="gzip"), "coding must be one of fixed, entropy"),
        (lambda: Half(dtype="float8"), "dtype must be one of bfloat16, float16, but got dtype='float8'"),
        (lambda: DynamicInt8(max_kl=0), "0 < max_kl <= 10000 must hold, but got max_kl=0"),
    ],
)
def test_bad_parameters_are_refused(make, match):
    with pytest.raises(InvalidParameter, match=match):
        make()


def test_weights_out_of_range_are_refused():
    model = tiny_model("bert")
    model.bert.encoder.layer[1].output.dense.weight.data[2, 3] = 1e5
    with pytest.raises(
        InvalidModel, match=r"weights must be finite in float16, but got 100000 in .*; give dtype=bfloat16"
    ):
        run(Half(dtype="float16"), model=model)
    with pytest.raises(NothingToCompress, match=r"no linear layer matches 'nothing'; there are bert\.encoder"):
        run(DynamicInt8(include="nothing"))

import pytest
import torch

from whet.errors import InvalidModel
from whet.numerics.rounding import equalize_factors, quantize_weight


def awkward(rows: int = 7, columns: int = 30) -> torch.Tensor:
    """Of all sizes, with a dead row."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    weight *= torch.logspace(-3, 3, rows)[:, None]
    weight[2] = 0
    return weight


@pytest.mark.parametrize("scale_dtype", [None, torch.float16])
@pytest.mark.parametrize("group_size", [None, 1, 7, 10, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_weight_is_within_half_a_step(bits, group_size, scale_dtype):
    weight = awkward()
    found = quantize_weight(weight, bits=bits, group_size=group_size, scale_dtype=scale_dtype)
    assert found.values.dtype == torch.int8 and found.values.abs().max() == 2 ** (bits - 1) - 1
    assert found.scales.shape == (7, -(-30 // min(group_size or 30, 30)))
    assert ((found.weight() - weight).abs() <= found.steps() / 2 * (1 + 1e-5)).all()
    assert torch.equal(found.weight()[2], weight[2])


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-3, 1, 1e5])
@pytest.mark.parametrize("group_size", [None, 7])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_weight_does_not_change_when_quantized_again(bits, group_size, size):
    """With scales of 16 bits, even where these lose precision themselves."""
    weight = size * torch.randn(50, 60, generator=torch.Generator().manual_seed(1))
    once = quantize_weight(weight, bits=bits, group_size=group_size, scale_dtype=torch.float16)
    again = quantize_weight(once.weight(), bits=bits, group_size=group_size, scale_dtype=torch.float16)
    assert torch.equal(again.weight(), once.weight())
    assert ((once.weight() - weight).abs() <= once.steps() / 2 * (1 + 1e-5)).all()


def test_each_group_has_the_scale_of_its_largest():
    weight = torch.tensor([[1.0, -7.0, 70.0, 14.0, 3.5]])
    found = quantize_weight(weight, bits=4, group_size=2)
    assert found.scales.tolist() == [[1.0, 10.0, 0.5]]
    assert found.values.tolist() == [[1, -7, 7, 1, 7]]


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e9])
def test_weights_without_a_scale_are_refused(value):
    weight = torch.ones(3, 4)
    weight[1, 1] = value
    with pytest.raises(InvalidModel, match="weights must be finite and have a finite scale, but got"):
        quantize_weight(weight, scale_dtype=torch.float16)


def factors(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unbalanced ones: components of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(-2, 2, 16)[torch.randperm(16, generator=generator)]
    return torch.randn(40, 16, generator=generator) * sizes, torch.randn(16, 30, generator=generator) / sizes[:, None]


@pytest.mark.parametrize("seed", range(3))
def test_balanced_factors_have_the_same_product_and_lose_less(seed):
    u, v = factors(seed)
    u[:, 3], v[5] = 0, 0
    found = equalize_factors(u, v)
    torch.testing.assert_close(found.u @ found.v, u @ v, atol=1e-6 * float((u @ v).abs().max()), rtol=1e-5)
    sizes = torch.stack([found.u.norm(dim=0), found.v.norm(dim=1)])
    assert float(sizes.max() / sizes.min()) < 4

    def lost(left: torch.Tensor, right: torch.Tensor) -> float:
        return float((quantize_weight(left).weight() @ quantize_weight(right).weight() - u @ v).norm())

    assert lost(found.u, found.v) <= 0.5 * lost(u, v)
    again = equalize_factors(u, v)
    assert torch.equal(found.u, again.u) and torch.equal(found.v, again.v)


@pytest.mark.parametrize("seed", range(3))
def test_activations_between_equalized_factors_lose_less_in_rounding(seed):
    """Inputs of Transformers have a large mean, and singular values fall: one component takes most of the steps."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.logspace(0, -2, 24)
    left, right = (torch.linalg.qr(torch.randn(40, 24, generator=generator)).Q for _ in range(2))
    u, v = left * sizes.sqrt(), (right * sizes.sqrt()).T
    inputs = torch.randn(40, 500, generator=generator) + 10 * right[:, :1]

    def lost(u: torch.Tensor, v: torch.Tensor) -> float:
        between = v @ inputs
        step = between.abs().max() / 127
        return float((u @ ((between / step).round() * step) - u @ between).norm())

    assert lost(*equalize_factors(u, v)) <= 0.7 * lost(u, v)

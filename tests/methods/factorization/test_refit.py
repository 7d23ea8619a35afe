import pytest
import torch
from torch import Tensor, nn

from helpers import tiny_batches, tiny_model
from laws import draw
from recurrent import tiny_lstm
from whet.calibration.resources import Resources
from whet.errors import InvalidModel
from whet.methods.factorization._base import Factorization
from whet.methods.factorization._refit import Refit
from whet.methods.factorization.drone import Drone
from whet.methods.factorization.kfac import Kfac
from whet.models.layers.low_rank import LowRank
from whet.models.surgery import copy_sharing_parameters
from whet.numerics.reduced_rank import RIDGE, outer_factor, reduced_rank_regression

SHAPES = [(6, 9), (9, 6), (7, 7)]
TOKENS = 200


class Pair:
    """Inputs of a compressed prefix, and outputs of the original that they only roughly explain."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.x = draw(TOKENS, shape[1], seed=1) @ draw(shape[1], shape[1], seed=2)
        self.y = (self.x + draw(TOKENS, shape[1], seed=3)) @ draw(*shape, seed=4).T
        self.x, self.y = self.x - self.x.mean(0), self.y - self.y.mean(0)
        self.inputs, self.cross = self.x.T @ self.x / TOKENS, self.y.T @ self.x / TOKENS

    def error(self, product: Tensor) -> float:
        return float((self.y - self.x @ product.T).square().sum() / TOKENS)


@pytest.mark.parametrize("shape", SHAPES)
def test_regression_reaches_the_least_error_at_every_rank(shape: tuple[int, int]):
    # ‖y‖² less the k leading eigenvalues of Cyx Cxx⁻¹ Cxy is the least that rank k can leave
    pair = Pair(shape)
    explained = torch.linalg.eigvalsh(pair.cross @ torch.linalg.solve(pair.inputs, pair.cross.T)).flip(0)
    for rank in range(1, min(shape) + 1):
        u, v = reduced_rank_regression(pair.cross, pair.inputs, rank)
        assert (u.shape, v.shape) == ((shape[0], rank), (rank, shape[1]))
        least = float(pair.y.square().sum() / TOKENS - explained[:rank].sum())
        assert pair.error(u @ v) == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_outer_factor_is_least_squares(shape: tuple[int, int]):
    pair, v = Pair(shape), draw(3, shape[1], seed=9)
    expected = torch.linalg.lstsq(pair.x @ v.T, pair.y).solution.T
    torch.testing.assert_close(outer_factor(pair.cross, pair.inputs, v), expected, rtol=1e-3, atol=1e-3)


def test_inputs_that_never_move_leave_finite_factors():
    cross, inputs = torch.zeros(4, 5).double(), torch.zeros(5, 5).double()
    u, v = reduced_rank_regression(cross, inputs, 2)
    assert (u @ v).isfinite().all()
    assert RIDGE > 0


def outputs(model: nn.Module, layer: str) -> Tensor:
    rows = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, out: rows.append(out))
    batches = tiny_batches()
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    handle.remove()
    return torch.cat([row[batch["attention_mask"].bool()] for row, batch in zip(rows, batches, strict=True)])


@pytest.mark.parametrize(("method", "refits"), [(Drone, Refit.BOTH), (Kfac, Refit.OUTER)])
def test_sequential_layers_are_closer_to_the_original(method: type[Factorization], refits: Refit):
    assert method.refits is refits
    model = tiny_model("bert")
    one_shot, sequential = (
        method(keep=0.3, allocation="uniform", calibration=mode).apply(
            copy_sharing_parameters(model), Resources(calibration=tiny_batches())
        )
        for mode in ("one_shot", "sequential")
    )
    for layer in ("bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"):
        wanted = outputs(model, layer)
        before, after = (float((outputs(one, layer) - wanted).square().mean()) for one in (one_shot, sequential))
        assert after < before
        # the bias takes the means, so that they stay as they were
        torch.testing.assert_close(outputs(sequential, layer).mean(0), wanted.mean(0), rtol=0, atol=1e-4)
        assert not torch.allclose(outputs(one_shot, layer).mean(0), wanted.mean(0), rtol=0, atol=1e-4)


def test_ranks_stay_and_the_outer_fit_leaves_the_inner_factor():
    model = tiny_model("bert")
    found = [
        Kfac(keep=0.4, calibration=mode).apply(copy_sharing_parameters(model), Resources(calibration=tiny_batches()))
        for mode in ("one_shot", "sequential")
    ]
    layers = [{name: one for name, one in each.named_modules() if isinstance(one, LowRank)} for each in found]
    assert layers[0].keys() == layers[1].keys()
    for name, before in layers[0].items():
        assert torch.equal(before.v.weight, layers[1][name].v.weight)
        assert not torch.equal(before.u.weight, layers[1][name].u.weight)


def test_a_layer_that_sees_one_step_at_a_time_is_refused():
    model = tiny_lstm()
    with pytest.raises(InvalidModel, match=r"layers.0.recurrent must see one row per token in one call.*one_shot"):
        Drone(keep=0.5, calibration="sequential").apply(
            copy_sharing_parameters(model), Resources(calibration=tiny_batches(vocab=model.config.vocab_size))
        )

import itertools

import numpy as np
import pytest

from whet.numerics.allocation import LayerOptions, allocate_uniformly, minimise_loss

SEEDS = range(20)


def problem(seed: int, *, layers: int = 3, count: int = 5) -> dict[str, LayerOptions]:
    """Options with rising whole costs; the losses of some layers rise in between, the last is zero."""
    random = np.random.default_rng(seed)
    found = {}
    for i in range(layers):
        losses = random.random(count)
        if random.random() < 0.5:
            losses = np.sort(losses)[::-1].copy()
        losses[-1] = 0
        found[f"layer{i}"] = LayerOptions(np.cumsum(random.integers(1, 9, size=count)).astype(float), losses)
    return found


def even_convex_problem(seed: int) -> dict[str, LayerOptions]:
    """Every step costs the same and saves less than the one before: what an eigenvalue tail offers equal layers."""
    random = np.random.default_rng(seed)
    found = {}
    for i in range(3):
        saved = np.sort(random.random(4))
        losses = np.array([saved[: 4 - k].sum() for k in range(5)])
        found[f"layer{i}"] = LayerOptions(np.arange(1.0, 6.0) * 7, losses)
    return found


def loss_of(layers: dict[str, LayerOptions], chosen: dict[str, int]) -> float:
    return float(sum(layers[name].losses[i] for name, i in chosen.items()))


def cost_of(layers: dict[str, LayerOptions], chosen: dict[str, int]) -> float:
    return float(sum(layers[name].costs[i] for name, i in chosen.items()))


def optimum(layers: dict[str, LayerOptions], budget: float) -> float:
    """The smallest loss of all combinations within the budget."""
    choices = itertools.product(*(range(len(options.costs)) for options in layers.values()))
    combinations = [dict(zip(layers, choice, strict=True)) for choice in choices]
    return min(loss_of(layers, chosen) for chosen in combinations if cost_of(layers, chosen) <= budget)


def budgets(layers: dict[str, LayerOptions]) -> list[float]:
    least = sum(options.costs[0] for options in layers.values())
    most = sum(options.costs[-1] for options in layers.values())
    return [float(budget) for budget in np.arange(least, most + 2)]


def hull(options: LayerOptions) -> list[tuple[float, float]]:
    """(cost, loss) of the options that no mixture of two others beats, by definition and from the cheapest on."""
    points = sorted(zip(options.costs.tolist(), options.losses.tolist(), strict=True))
    kept = [points[0]]
    for cost, loss in points[1:]:
        below = [other for other in points if other != (cost, loss)]
        mixed = [
            a[1] + (b[1] - a[1]) * (cost - a[0]) / (b[0] - a[0])
            for a, b in itertools.combinations(below, 2)
            if a[0] <= cost <= b[0]
        ]
        beaten = any(other[0] <= cost and other[1] <= loss for other in below)
        if not beaten and all(loss < line for line in mixed):
            kept.append((cost, loss))
    return kept


def hull_budgets(layers: dict[str, LayerOptions]) -> list[float]:
    """Budgets that steps along the layers' hulls, steepest first, exactly meet."""
    steps = []
    for options in layers.values():
        points = hull(options)
        steps += [
            ((after[1] - before[1]) / (after[0] - before[0]), after[0] - before[0])
            for before, after in itertools.pairwise(points)
        ]
    least = float(sum(options.costs[0] for options in layers.values()))
    return [least, *(least + np.cumsum([price for _, price in sorted(steps)])).tolist()]


def largest_step(layers: dict[str, LayerOptions]) -> float:
    return max(before[1] - after[1] for o in layers.values() for before, after in itertools.pairwise(hull(o)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_budget_is_never_exceeded(seed: int):
    layers = problem(seed)
    for budget in budgets(layers):
        assert cost_of(layers, minimise_loss(layers, budget)) <= budget


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_optimum_where_hull_steps_meet_the_budget(seed: int):
    layers = problem(seed)
    for budget in hull_budgets(layers):
        assert loss_of(layers, minimise_loss(layers, budget)) == pytest.approx(optimum(layers, budget), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_elsewhere_the_loss_is_within_one_hull_step_of_the_optimum(seed: int):
    # the relaxed problem takes a part of the first step that does not fit, and no choice is better than that
    layers = problem(seed)
    for budget in budgets(layers):
        best = optimum(layers, budget)
        assert best - 1e-12 <= loss_of(layers, minimise_loss(layers, budget)) <= best + largest_step(layers)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_single_change_that_fits_saves_more(seed: int):
    layers = problem(seed)
    for budget in budgets(layers):
        chosen = minimise_loss(layers, budget)
        for name, options in layers.items():
            for i in range(len(options.costs)):
                other = {**chosen, name: i}
                assert cost_of(layers, other) > budget or loss_of(layers, other) >= loss_of(layers, chosen) - 1e-15


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_steps_and_falling_gains_are_always_solved_exactly(seed: int):
    layers = even_convex_problem(seed)
    losses = []
    for budget in budgets(layers):
        chosen = minimise_loss(layers, budget)
        losses.append(loss_of(layers, chosen))
        assert losses[-1] == pytest.approx(optimum(layers, budget), abs=1e-12)
        shares = {name: budget / len(layers) for name in layers}
        assert losses[-1] <= loss_of(layers, allocate_uniformly(layers, shares)) + 1e-12
    assert (np.diff(losses) <= 1e-12).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_larger_budget_does_worse_than_a_smaller_one_that_hull_steps_meet(seed: int):
    # between such budgets the loss can rise a little as the budget grows, as with any greedy choice: a step that now
    # fits can leave too little for two that together saved more
    layers = problem(seed)
    losses = {budget: loss_of(layers, minimise_loss(layers, budget)) for budget in budgets(layers)}
    for met in hull_budgets(layers):
        assert all(losses[budget] <= losses[met] + 1e-12 for budget in losses if budget >= met)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_unit_of_the_losses_does_not_matter(seed: int):
    layers = problem(seed)
    for scale in (2.0**-40, 2.0**40):  # powers of two round nothing
        scaled = {name: LayerOptions(options.costs, options.losses * scale) for name, options in layers.items()}
        for budget in budgets(layers)[::5]:
            assert minimise_loss(scaled, budget) == minimise_loss(layers, budget)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_of_the_layers_does_not_matter(seed: int):
    layers = problem(seed)
    turned = dict(reversed(layers.items()))
    for budget in budgets(layers)[::5]:
        assert minimise_loss(turned, budget) == minimise_loss(layers, budget)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_stays_dense_where_the_budget_allows(seed: int):
    layers = problem(seed)
    chosen = minimise_loss(layers, sum(options.costs[-1] for options in layers.values()))
    assert loss_of(layers, chosen) == 0


def test_an_affordable_dense_option_is_chosen():
    layers = {
        "a": LayerOptions(np.array([1.0, 2.0, 8.0]), np.array([0.5, 0.4, 0.0])),
        "b": LayerOptions(np.array([1.0, 2.0, 8.0]), np.array([1e-9, 5e-10, 0.0])),
    }
    assert minimise_loss(layers, 9) == {"a": 2, "b": 0}
    assert minimise_loss(layers, 10) == {"a": 2, "b": 1}


def test_a_layer_that_gains_nothing_stays_at_its_cheapest():
    flat = LayerOptions(np.array([1.0, 5.0, 9.0]), np.array([0.0, 0.0, 0.0]))
    steep = LayerOptions(np.array([1.0, 5.0, 9.0]), np.array([3.0, 2.0, 0.0]))
    assert minimise_loss({"flat": flat, "steep": steep}, 10) == {"flat": 0, "steep": 2}


@pytest.mark.parametrize("budget", [0.0, 5.9])
def test_every_layer_is_at_its_cheapest_where_even_that_is_too_dear(budget: float):
    layers = {name: LayerOptions(np.array([3.0, 4.0]), np.array([1.0, 0.0])) for name in "ab"}
    assert minimise_loss(layers, budget) == {"a": 0, "b": 0}


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_takes_the_dearest_option_within_each_budget(seed: int):
    layers = problem(seed)
    for share in (0.2, 0.5, 0.8, 1.0):
        own = {name: share * options.costs[-1] for name, options in layers.items()}
        for name, chosen in allocate_uniformly(layers, own).items():
            fitting = [i for i, cost in enumerate(layers[name].costs) if cost <= own[name]]
            assert chosen == max(fitting, default=0)

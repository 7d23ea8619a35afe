import itertools

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Trusted

from whet.numerics.kmeans import SortedValues, kmeans, nearest_centroid

STARTS = ("linear", "density", "kmeans++")


def draw(count: int = 500, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3


def error(values: torch.Tensor, centroids: torch.Tensor, masses: torch.Tensor | None = None) -> float:
    squares = (values - centroids[nearest_centroid(values, centroids)]) ** 2
    return float((squares if masses is None else squares * masses).sum())


@pytest.mark.parametrize("start", STARTS)
def test_few_distinct_numbers_are_reproduced_exactly(start):
    known = torch.tensor([-1.5, 0.1, 0.25, 7.0])
    values = known[torch.randint(4, (100,), generator=torch.Generator().manual_seed(0))]
    centroids = kmeans(values, 6, init=start, seed=0)
    assert torch.equal(centroids.float(), known)
    assert torch.equal(centroids.float()[nearest_centroid(values, centroids)], values)


@pytest.mark.parametrize("start", STARTS)
def test_one_cluster_is_the_weighted_mean(start):
    values, masses = draw(), draw(seed=1).abs()
    assert kmeans(values, 1, init=start, seed=0, masses=masses).item() == pytest.approx(
        float((masses * values).sum() / masses.sum()), rel=1e-12
    )


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_centroid_is_the_mean_of_its_nearest_values(start, weighted):
    """The fixed point of Lloyd's iteration, checked without any of its sums."""
    values = draw()
    masses = draw(seed=1).abs() if weighted else torch.ones_like(values)
    centroids = kmeans(values, 8, init=start, seed=0, masses=masses if weighted else None)
    assert bool((centroids.diff() > 0).all())
    distances = (values[:, None] - centroids).abs()
    assert torch.equal(distances.argmin(1), nearest_centroid(values, centroids))
    for number in range(8):
        own = nearest_centroid(values, centroids) == number
        assert own.any()
        mean = (masses[own] * values[own]).sum() / masses[own].sum()
        assert centroids[number].item() == pytest.approx(mean.item(), rel=1e-10)


@pytest.mark.parametrize("start", STARTS)
def test_iterations_never_raise_the_weighted_error(start, monkeypatch):
    values, masses = draw(), draw(seed=1).abs()
    errors = []
    for count in (0, 1, 2, 3, 5, 10, 50, 1000):
        monkeypatch.setattr("whet.numerics.kmeans.ITERATIONS", count)
        errors.append(error(values, kmeans(values, 8, init=start, seed=0, masses=masses), masses))
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_from_the_same_start_it_agrees_with_sklearn(weighted, monkeypatch):
    values = draw(2000)
    masses = draw(2000, seed=1).abs() if weighted else None
    monkeypatch.setattr("whet.numerics.kmeans.ITERATIONS", 0)
    start = kmeans(values, 6, init="linear", seed=0, masses=masses)
    monkeypatch.undo()
    ours = kmeans(values, 6, init="linear", seed=0, masses=masses)
    trusted = Trusted(6, init=start.numpy()[:, None], n_init=1, tol=0, max_iter=1000)
    trusted.fit(values.numpy()[:, None], sample_weight=None if masses is None else masses.numpy())
    assert error(values, ours, masses) == pytest.approx(trusted.inertia_, rel=1e-9)
    assert ours.numpy() == pytest.approx(np.sort(trusted.cluster_centers_[:, 0]), rel=1e-9)


def test_numbers_without_mass_move_nothing_and_no_mass_at_all_is_all_alike():
    values = draw()
    masses = (values > values.median()).double()
    own = kmeans(values, 4, init="density", seed=0, masses=masses)
    assert torch.allclose(own, kmeans(values[masses > 0], 4, init="density", seed=0), rtol=1e-12)
    none = kmeans(values, 4, init="density", seed=0, masses=torch.zeros_like(values))
    assert torch.equal(none, kmeans(values, 4, init="density", seed=0))


def test_a_large_mean_takes_no_digits():
    values = draw().sort().values.numpy()
    near, far = SortedValues.of(values), SortedValues.of(values + 1e8)
    centroids = np.array([2.0, 3.0, 4.5])
    assert far.error(centroids + 1e8 - far.mean) == pytest.approx(near.error(centroids - near.mean), rel=1e-5)


def test_the_second_of_kmeans_plus_plus_is_drawn_by_squared_distance(monkeypatch):
    """Over many seeds, each of four numbers follows the first as often as mass times squared distance says."""
    monkeypatch.setattr("whet.numerics.kmeans.ITERATIONS", 0)
    monkeypatch.setattr("whet.numerics.kmeans.DRAWS", 1)
    values, masses = torch.tensor([0.0, 1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 1.0, 1.0])
    pairs: dict[tuple[float, ...], int] = {}
    draws = 3000
    for seed in range(draws):
        pair = tuple(kmeans(values, 2, init="kmeans++", seed=seed, masses=masses).round(decimals=9).tolist())
        pairs[pair] = pairs.get(pair, 0) + 1
    chances: dict[tuple[float, ...], float] = {}
    for i in range(4):
        squares = masses * (values - values[i]) ** 2
        for j in set(range(4)) - {i}:
            pair = tuple(sorted((values[i].item(), values[j].item())))
            chances[pair] = chances.get(pair, 0.0) + float(masses[i] / masses.sum() * squares[j] / squares.sum())
    assert pairs.keys() <= chances.keys()
    for pair, chance in chances.items():
        spread = (chance * (1 - chance) / draws) ** 0.5
        assert abs(pairs.get(pair, 0) / draws - chance) <= 4 * spread


def test_the_best_of_several_draws_is_taken(monkeypatch):
    values = draw()
    best = error(values, kmeans(values, 5, init="kmeans++", seed=3))
    monkeypatch.setattr("whet.numerics.kmeans.DRAWS", 1)
    singles = [error(values, kmeans(values, 5, init="kmeans++", seed=seed)) for seed in range(20)]
    assert best <= np.median(singles) < max(singles)


def test_sums_give_the_error_of_every_stretch():
    values, masses = draw(50).sort().values, draw(50, seed=1).abs()
    numbers = SortedValues.of(values.numpy(), masses.numpy())
    begin, end, centroids = np.array([0, 5, 40]), np.array([5, 40, 50]), np.array([-1.0, 0.2, 2.0])
    wanted = [
        float((masses[a:b] * (values[a:b] - numbers.mean - c) ** 2).sum())
        for a, b, c in zip(begin, end, centroids, strict=True)
    ]
    assert numbers.errors(begin, end, centroids) == pytest.approx(wanted, rel=1e-10)


def test_a_centroid_that_nothing_is_near_to_keeps_its_place():
    values = torch.cat([draw(), torch.tensor([500.0], dtype=torch.float64)])
    centroids = kmeans(values, 8, init="linear", seed=0)
    assert centroids.isfinite().all() and bool((centroids.diff() > 0).all())
    assert len(nearest_centroid(values, centroids).unique()) < 8
    assert centroids[-1].item() == pytest.approx(500)

"""K-means of single numbers, exactly and fast.

Sorted numbers fall into clusters at the midpoints of neighbouring centroids, and running sums of their masses p, of p·v
and of p·v² give the mean and the error of every stretch between two places. After one sort, O(n log n), an iteration of
k centroids takes O(k log n), and so does a draw of k-means++.

Source: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982; Arthur,
Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
"""

from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["Initialization", "SortedValues", "kmeans", "nearest_centroid", "quantize_to_centroids"]

Initialization = Literal["linear", "density", "kmeans++"]
"""Where centroids begin: evenly from the least number to the greatest, at even shares of the mass, or drawn."""
Array = np.ndarray[Any, Any]

ITERATIONS = 1000
"""At most; from then on centroids hardly move."""
DRAWS = 8
"""Of k-means++, of which the one with the least error is taken: once numbers are sorted, they cost little."""


class SortedValues(NamedTuple):
    """Sorted numbers and running sums, in float64."""

    values: Array
    """(n,) rising, about their mean."""
    mass: Array
    """(n + 1,) sum of p over the numbers before each place."""
    first: Array
    """(n + 1,) sum of p·v."""
    second: Array
    """(n + 1,) sum of p·v²."""
    mean: float
    """What was taken off."""

    @classmethod
    def of(cls, values: Array, masses: Array | None = None) -> Self:
        """Return the sums.

        Args:
            values: (n,) rising.
            masses: (n,) not negative, of which some are not zero; all 1 if None.
        """
        wide = values.astype(np.float64)
        own = np.ones_like(wide) if masses is None else masses.astype(np.float64)
        mean = float((own * wide).sum() / own.sum())
        wide -= mean  # or large sums would take the digits of small differences
        return cls(wide, _running(own), _running(own * wide), _running(own * wide**2), mean)

    def bounds(self, centroids: Array) -> Array:
        """Return where each cluster begins and the last one ends, (k + 1,), for rising centroids (k,)."""
        inner = np.searchsorted(self.values, (centroids[1:] + centroids[:-1]) / 2)
        return np.concatenate([[0], inner, [len(self.values)]])

    def errors(self, begin: Array | int, end: Array | int, centroids: Array) -> Array:
        """Return the sums of p·(v − c)² over stretches of the numbers; arguments are (k,)."""
        mass, first, second = (one[end] - one[begin] for one in (self.mass, self.first, self.second))
        return np.asarray(np.maximum(second - 2 * centroids * first + centroids**2 * mass, 0))

    def error(self, centroids: Array) -> float:
        """Return the sum of p·(v − c)² with the nearest of rising centroids, (k,)."""
        bounds = self.bounds(centroids)
        return float(self.errors(bounds[:-1], bounds[1:], centroids).sum())


def kmeans(values: Tensor, clusters: int, *, start: Initialization, seed: int, masses: Tensor | None = None) -> Tensor:
    """Return centroids that are the means of the numbers nearest to them; of few distinct numbers, these themselves.

    Args:
        values: (n,) any float dtype.
        clusters: centroids, at most as many as there are distinct numbers.
        start: where they begin.
        seed: of what k-means++ draws.
        masses: (n,) how much each number counts, not negative; all alike if None, or if none counts.

    Returns:
        (k,) float64, rising; a cluster that lost all its numbers keeps its place.
    """
    plain = values.detach().cpu().numpy()
    if masses is not None and bool(masses.any()):
        order = np.argsort(plain, kind="stable")
        ordered, own = plain[order], masses.detach().cpu().numpy()[order]
    else:
        ordered, own = np.sort(plain), None
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if first.sum() <= clusters:
        return torch.from_numpy(ordered[first].astype(np.float64)).to(values.device)
    numbers = SortedValues.of(ordered, own)
    ends = [_lloyd(numbers, begin) for begin in _starts(numbers, clusters, start, seed=seed)]
    return torch.from_numpy(min(ends, key=numbers.error) + numbers.mean).to(values.device)


def quantize_to_centroids(
    values: Tensor, clusters: int, *, start: Initialization, seed: int, masses: Tensor | None = None
) -> Tensor:
    """Return the nearest of the centroids in the place of each value; arguments are those of `kmeans`.

    Returns:
        (n,) in the dtype of `values`, with at most `clusters` distinct numbers.
    """
    centroids = kmeans(values, clusters, start=start, seed=seed, masses=masses).to(values)
    return centroids[nearest_centroid(values, centroids)]


def nearest_centroid(values: Tensor, centroids: Tensor) -> Tensor:
    """Return the number of the centroid nearest to each value, in its shape, int64; centroids (k,) rise."""
    middles = (centroids[1:].double() + centroids[:-1].double()) / 2
    found: Tensor = torch.bucketize(values.double(), middles)
    return found


def _running(parts: Array) -> Array:
    sums = np.zeros(len(parts) + 1)
    np.cumsum(parts, out=sums[1:])
    return sums


def _lloyd(numbers: SortedValues, centroids: Array) -> Array:
    bounds = numbers.bounds(centroids)
    for _ in range(ITERATIONS):
        mass, first = np.diff(numbers.mass[bounds]), np.diff(numbers.first[bounds])
        centroids = np.divide(first, mass, out=centroids.copy(), where=mass > 0)
        before, bounds = bounds, numbers.bounds(centroids)
        if np.array_equal(before, bounds):
            break
    return centroids


def _starts(numbers: SortedValues, clusters: int, start: Initialization, *, seed: int) -> list[Array]:
    if start == "linear":
        return [np.linspace(numbers.values[0], numbers.values[-1], clusters)]
    if start == "density":
        return [_by_density(numbers, clusters)]
    random = np.random.default_rng(seed)
    return [_drawn(numbers, clusters, random) for _ in range(DRAWS)]


def _by_density(numbers: SortedValues, clusters: int) -> Array:
    """The numbers in the middle of equal shares of the mass."""
    shares = (np.arange(clusters) + 0.5) / clusters
    return np.asarray(numbers.values[_place(numbers, shares * numbers.mass[-1])])


def _drawn(numbers: SortedValues, clusters: int, random: np.random.Generator) -> Array:
    """Each by chance, as its mass times its squared distance to those that were drawn before."""
    chosen = numbers.values[_place(numbers, random.random(1) * numbers.mass[-1])]
    while len(chosen) < clusters:
        bounds = numbers.bounds(chosen)
        sums = numbers.errors(bounds[:-1], bounds[1:], chosen).cumsum()
        wanted = random.random() * sums[-1]
        cluster = min(int(np.searchsorted(sums, wanted, side="right")), len(chosen) - 1)
        rest = wanted - (sums[cluster - 1] if cluster else 0)
        place = _within(numbers, bounds[cluster], bounds[cluster + 1], chosen[cluster], rest)
        chosen = np.sort(np.append(chosen, numbers.values[place]))
    return np.asarray(chosen)


def _place(numbers: SortedValues, wanted: Array) -> Array:
    """The numbers at which the running mass passes what is wanted."""
    return np.minimum(np.searchsorted(numbers.mass[1:], wanted, side="right"), len(numbers.values) - 1)


def _within(numbers: SortedValues, begin: int, end: int, centroid: Array, wanted: float) -> int:
    """The number of a stretch at which its running error passes what is wanted, by bisection."""
    low, high = begin, end - 1
    while low < high:
        middle = (low + high) // 2
        if numbers.errors(begin, middle + 1, centroid) > wanted:
            high = middle
        else:
            low = middle + 1
    return low

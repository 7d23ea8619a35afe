"""Weighted k-means in one dimension, exact and fast.

Clusters of sorted values end at the midpoints of neighbouring centroids. Running sums of the masses p, of p·v and of
p·v² give the mean and the squared error of any slice of the sorted values. After one sort, O(n log n), an iteration
with k centroids takes O(k log n), and so does one draw of k-means++.

Source: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982; Arthur,
Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
"""

from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

__all__ = ["Initialization", "SortedValues", "kmeans", "nearest_centroid", "quantize_to_centroids"]

Initialization = Literal["linear", "density", "kmeans++"]
"""Initial centroids: evenly spaced over the range of values, at evenly spaced quantiles, or drawn by k-means++."""
Array = np.ndarray[Any, Any]

ITERATIONS = 1000
"""Most iterations of Lloyd's algorithm; centroids hardly move after that many."""
DRAWS = 8
"""Restarts of k-means++, of which the one with the least error wins; they cost little once values are sorted."""


class SortedValues(NamedTuple):
    """Sorted values and their running sums, in float64."""

    values: Array
    """(n,) ascending, with their mean subtracted."""
    mass: Array
    """(n + 1,) sum of p over all values before each index."""
    first: Array
    """(n + 1,) sum of p·v, likewise."""
    second: Array
    """(n + 1,) sum of p·v², likewise."""
    mean: float
    """The weighted mean that was subtracted."""

    @classmethod
    def of(cls, values: Array, masses: Array | None = None) -> Self:
        """Return the centred values and their running sums.

        Args:
            values: (n,) ascending.
            masses: (n,) non-negative, at least one positive; all 1 if None.
        """
        centred = values.astype(np.float64)
        p = np.ones_like(centred) if masses is None else masses.astype(np.float64)
        mean = float((p * centred).sum() / p.sum())
        centred -= mean  # large sums would otherwise cancel the digits of small differences
        return cls(centred, _running(p), _running(p * centred), _running(p * centred**2), mean)

    def bounds(self, centroids: Array) -> Array:
        """Return the index where each cluster starts, and n, (k + 1,), for ascending centroids (k,)."""
        inner = np.searchsorted(self.values, (centroids[1:] + centroids[:-1]) / 2)
        return np.concatenate([[0], inner, [len(self.values)]])

    def errors(self, begin: Array | int, end: Array | int, centroids: Array) -> Array:
        """Return the sums of p·(v − c)² over slices begin:end of the values, (k,); all arguments are (k,)."""
        mass, first, second = (sums[end] - sums[begin] for sums in (self.mass, self.first, self.second))
        return np.asarray(np.maximum(second - 2 * centroids * first + centroids**2 * mass, 0))

    def error(self, centroids: Array) -> float:
        """Return the sum of p·(v − c)² where c is the nearest of the ascending centroids, (k,)."""
        bounds = self.bounds(centroids)
        return float(self.errors(bounds[:-1], bounds[1:], centroids).sum())


def kmeans(values: Tensor, clusters: int, *, init: Initialization, seed: int, masses: Tensor | None = None) -> Tensor:
    """Return centroids that are the weighted means of their nearest values, by Lloyd's algorithm.

    Args:
        values: (n,) any float dtype.
        clusters: number of centroids; the result has fewer if there are fewer distinct values.
        init: how the initial centroids are chosen.
        seed: seed of k-means++.
        masses: (n,) non-negative weight of each value; equal weights if None or all zero.

    Returns:
        (k,) float64, ascending; a cluster that loses all its values keeps its centroid.
    """
    array = values.detach().cpu().numpy()
    if masses is not None and bool(masses.any()):
        order = np.argsort(array, kind="stable")
        ordered, ordered_masses = array[order], masses.detach().cpu().numpy()[order]
    else:
        ordered, ordered_masses = np.sort(array), None
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    if first.sum() <= clusters:
        return torch.from_numpy(ordered[first].astype(np.float64)).to(values.device)
    numbers = SortedValues.of(ordered, ordered_masses)
    ends = [_lloyd(numbers, begin) for begin in _starts(numbers, clusters, init, seed=seed)]
    return torch.from_numpy(min(ends, key=numbers.error) + numbers.mean).to(values.device)


def quantize_to_centroids(
    values: Tensor, clusters: int, *, init: Initialization, seed: int, masses: Tensor | None = None
) -> Tensor:
    """Return every value replaced by its nearest centroid; the arguments are those of `kmeans`.

    Returns:
        (n,) in the dtype of `values`, with at most `clusters` distinct values.
    """
    centroids = kmeans(values, clusters, init=init, seed=seed, masses=masses).to(values)
    return centroids[nearest_centroid(values, centroids)]


def nearest_centroid(values: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the centroid nearest to each value, int64, in the shape of `values`.

    Args:
        values: any shape.
        centroids: (k,) ascending.
    """
    midpoints = (centroids[1:].double() + centroids[:-1].double()) / 2
    assignments: Tensor = torch.bucketize(values.double(), midpoints)
    return assignments


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


def _starts(numbers: SortedValues, clusters: int, init: Initialization, *, seed: int) -> list[Array]:
    if init == "linear":
        return [np.linspace(numbers.values[0], numbers.values[-1], clusters)]
    if init == "density":
        return [_by_density(numbers, clusters)]
    random = np.random.default_rng(seed)
    return [_drawn(numbers, clusters, random) for _ in range(DRAWS)]


def _by_density(numbers: SortedValues, clusters: int) -> Array:
    """Return the middle value of each of `clusters` slices of equal mass."""
    shares = (np.arange(clusters) + 0.5) / clusters
    return np.asarray(numbers.values[_index_at_mass(numbers, shares * numbers.mass[-1])])


def _drawn(numbers: SortedValues, clusters: int, random: np.random.Generator) -> Array:
    """Return centroids drawn by k-means++: in proportion to mass times squared distance to the nearest earlier one."""
    chosen = numbers.values[_index_at_mass(numbers, random.random(1) * numbers.mass[-1])]
    while len(chosen) < clusters:
        bounds = numbers.bounds(chosen)
        sums = numbers.errors(bounds[:-1], bounds[1:], chosen).cumsum()
        target = random.random() * sums[-1]
        cluster = min(int(np.searchsorted(sums, target, side="right")), len(chosen) - 1)
        rest = target - (sums[cluster - 1] if cluster else 0)
        index = _index_at_error(numbers, bounds[cluster], bounds[cluster + 1], chosen[cluster], rest)
        chosen = np.sort(np.append(chosen, numbers.values[index]))
    return np.asarray(chosen)


def _index_at_mass(numbers: SortedValues, targets: Array) -> Array:
    """Return the index of the first value at which the running mass exceeds each target."""
    return np.minimum(np.searchsorted(numbers.mass[1:], targets, side="right"), len(numbers.values) - 1)


def _index_at_error(numbers: SortedValues, begin: int, end: int, centroid: Array, target: float) -> int:
    """Return the first index in begin:end at which the running squared error exceeds the target, by bisection."""
    low, high = begin, end - 1
    while low < high:
        middle = (low + high) // 2
        if numbers.errors(begin, middle + 1, centroid) > target:
            high = middle
        else:
            low = middle + 1
    return low

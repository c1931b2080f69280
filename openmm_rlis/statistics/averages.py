"""Averages over weighted paths, with error bars from the spread of batches.

For a number f of each path, and for a number f(t) of each of its frames,

    <f> = sum_i w_i f_i / sum_i w_i,          <f> = sum_i w_i int f_i dt / sum_i w_i int dt

over the paths i at hand, w_i their weights: the mean over transition paths (or failures, or both), and the mean over
the time that they take. The integral is the trapezoidal rule: a frame stands for half of the time to either neighbour.
A histogram is the same with f the indicator of each bin.

Paths of one root share frames, roots of one batch share the run in A. So the numerator N_b and the denominator D_b are
summed over a batch, over all its rounds, and the error is that of a ratio over batches (`estimators.ratio`):

    s^2 = B/(B-1) sum_b (N_b - <f> D_b)^2 / (sum_b D_b)^2

Batches without a path count in B. The estimate is consistent, with a bias of order 1/B. Stored failures carry weights
that make up for those not stored, so sums over them are unbiased, and the draw adds to the spread of batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import bad_input
from . import estimators
from .estimators import Estimate

Array = NDArray[np.float64]
Values = Iterable[tuple[int, Array, Array]]
"""Of each path: the index of its batch, its number or numbers (n,), and their weights (n,)."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """A weighted distribution.

    Parameters
    ----------
    edges : (n_bins + 1,)
    shares : (n_bins,)
        Share of the weight in each bin; they sum to 1 unless values lie beyond the edges.
    standard_errors : (n_bins,)
        Of the shares, over batches; inf where nothing was seen, since no spread is not a small error.
    n_batches : int
    """

    edges: Array
    shares: Array
    standard_errors: Array
    n_batches: int

    @property
    def centers(self) -> Array:
        """The middles of the bins, (n_bins,)."""
        return np.asarray(0.5 * (self.edges[1:] + self.edges[:-1]))

    @property
    def density(self) -> Array:
        """Shares over the widths of bins, (n_bins,)."""
        return np.asarray(self.shares / np.diff(self.edges))

    @property
    def density_errors(self) -> Array:
        """Standard errors of `density`, (n_bins,)."""
        return np.asarray(self.standard_errors / np.diff(self.edges))


def average(found: Values, n_batches: int) -> Estimate:
    """Return the weighted mean of f; the first equation of this module, or the second if paths have arrays."""
    totals = np.zeros((2, n_batches))
    for batch, values, weights in found:
        totals[:, batch] += values @ weights, weights.sum()
    return estimators.ratio(*totals)


def histogram(
    found: Values,
    n_batches: int,
    bins: int | ArrayLike = 50,
    range: tuple[float, float] | None = None,
) -> Histogram:
    """Return the distribution of f, of paths or of their time as in `average`."""
    found = list(found)
    values = np.concatenate([np.empty(0), *(values for _, values, _ in found)])
    try:
        edges = np.histogram_bin_edges(values, bins, range)
    except (TypeError, ValueError) as error:
        raise bad_input("bins, range", "those of numpy.histogram", f"{bins!r}, {range!r}", str(error)) from None
    inside, total = np.zeros((len(edges) - 1, n_batches)), np.zeros(n_batches)
    for batch, values, weights in found:
        inside[:, batch] += np.histogram(values, edges, weights=weights)[0]
        total[batch] += weights.sum()
    estimates = [estimators.ratio(row, total) for row in inside]
    shares, errors = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "standard_error"))
    return Histogram(edges, shares, errors, n_batches)

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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import bad_input
from . import estimators
from .estimators import Estimate

if TYPE_CHECKING:
    from ..paths.ensemble import PathEnsemble

Array = NDArray[np.float64]
Function = Callable[[Any], Any]


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


def average(paths: PathEnsemble, f: Function, trajectory: bool = False) -> Estimate:
    """Return the weighted mean of `f`; the first equation of this module, or the second if `f` gives arrays."""
    totals = np.zeros((2, paths.n_batches))
    for batch, values, weights in _values(paths, f, trajectory):
        totals[:, batch] += values @ weights, weights.sum()
    return estimators.ratio(*totals)


def histogram(
    paths: PathEnsemble,
    f: Function,
    bins: int | ArrayLike = 50,
    range: tuple[float, float] | None = None,
    trajectory: bool = False,
) -> Histogram:
    """Return the distribution of `f`, of paths or of their time as in `average`."""
    found = list(_values(paths, f, trajectory))
    values = np.concatenate([np.empty(0), *(values for _, values, _ in found)])
    try:
        edges = np.histogram_bin_edges(values, bins, range)
    except (TypeError, ValueError) as error:
        raise bad_input("bins, range", "those of numpy.histogram", f"{bins!r}, {range!r}", str(error)) from None
    inside, total = np.zeros((len(edges) - 1, paths.n_batches)), np.zeros(paths.n_batches)
    for batch, values, weights in found:
        inside[:, batch] += np.histogram(values, edges, weights=weights)[0]
        total[batch] += weights.sum()
    estimates = [estimators.ratio(row, total) for row in inside]
    shares, errors = (np.array([getattr(e, name) for e in estimates]) for name in ("value", "standard_error"))
    return Histogram(edges, shares, errors, paths.n_batches)


def _values(paths: PathEnsemble, f: Function, trajectory: bool) -> Iterator[tuple[int, Array, Array]]:
    """Yield the batch of each path, its value or values, and the weight of each."""
    # A ratio does not know a common factor, so the largest weight may be 1, however small it is.
    largest = paths.log_weights.max(initial=-np.inf)
    scaled = np.exp(paths.log_weights - (largest if largest > -np.inf else 0.0))
    per_frame: bool | None = None
    for i, (batch, weight) in enumerate(zip(paths.batches.tolist(), scaled, strict=True)):
        if not weight > 0.0:
            continue
        values = _checked(f(paths.to_mdtraj(i) if trajectory else paths.positions(i)), i)
        if per_frame is not None and per_frame != bool(values.ndim):
            raise bad_input("f", "a number for every path or an array for every path", "now one and then the other")
        per_frame = bool(values.ndim)
        times = paths.times(i)
        if per_frame and len(values) != len(times):
            expected = f"a number, or one for each of the {len(times)} frames of path {i}"
            raise bad_input("f", expected, f"shape {values.shape}")
        yield batch, np.atleast_1d(values), weight * (_spans(times) if per_frame else np.ones(1))


def _checked(found: Any, i: int) -> Array:
    values = np.asarray(found, dtype=np.float64)
    if values.ndim == 2 and values.shape[1] == 1:  # what mdtraj returns for one distance or one torsion
        values = values[:, 0]
    if values.ndim > 1:
        raise bad_input("f", "a number, or one for each frame", f"shape {values.shape}", "return one column of it")
    if not np.isfinite(values).all():
        raise bad_input("f", "finite numbers", f"nan or infinity on path {i}")
    return values


def _spans(times: Array) -> Array:
    """Return the time (n_frames,) that each frame stands for by the trapezoidal rule; their sum is the duration."""
    steps = np.diff(times)
    return 0.5 * (np.append(steps, 0.0) + np.append(0.0, steps))

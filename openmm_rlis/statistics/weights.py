"""Sums over weights that are too small to write down.

Every walker carries ``log_weight = ln dP/dQ``, the log ratio of the probability of its path under the true
dynamics to that under the dynamics that made it.  Averages of ``n`` such weights are

    ln (1/n) sum_i w_i  =  max_j ln w_j  +  ln (1/n) sum_i exp(ln w_i - max_j ln w_j),

and nothing in this module ever leaves log space unless it divides by the largest weight first.

Three numbers say how far such an average can be trusted: the effective sample size (how many equal weights would be as
good), the share of the largest weight, and the tail index (how fast the largest weights thin out; above 0.7 an average
of the size at hand is not to be believed).  They are alarms, not proofs: a channel that no walker has found yet is
seen by none of them.

A log-weight of ``-inf`` is a weight of zero, and legal.  NaN and ``+inf`` are mistakes made upstream, and raise.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import bad_input

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

FEWEST_FOR_TAIL = 25
FEWEST_IN_TAIL = 5


def checked_log_weights(log_weights: ArrayLike, argument: str = "log_weights") -> FloatArray:
    """Return the log-weights as a float64 array (n,), or say which of them is not one.

    Raises
    ------
    InputError
        Not one-dimensional, or some entry is NaN or ``+inf``.
    """
    array = np.asarray(log_weights, dtype=np.float64)
    if array.ndim != 1:
        raise bad_input(argument, "an array of shape (n,)", f"shape {array.shape}", "pass one number per walker")
    bad = np.flatnonzero(np.isnan(array) | np.isposinf(array))
    if bad.size:
        raise bad_input(
            argument,
            "finite numbers or -inf",
            f"{array[bad[0]]} at index {bad[0]} ({bad.size} such of {array.size})",
            "find the walker that diverged; weights are never repaired here",
        )
    return array


def log_sum(log_weights: ArrayLike) -> float:
    """Return ``ln sum_i w_i``; ``-inf`` when there is no positive weight.

    Parameters
    ----------
    log_weights : (n,)
        ``ln w_i``, dimensionless.

    Raises
    ------
    InputError
        Some entry is NaN or ``+inf``.

    Examples
    --------
    Two weights of e^-1000, which no double can hold, and a zero:

    >>> round(log_sum([-1000.0, -1000.0, -np.inf]), 4)
    -999.3069
    """
    array = checked_log_weights(log_weights)
    largest = array.max(initial=-np.inf)
    if largest == -np.inf:
        return -np.inf
    return float(largest + np.log(np.exp(array - largest).sum()))


def log_mean(log_weights: ArrayLike) -> float:
    """Return ``ln (1/n) sum_i w_i``; zero weights count in n.

    Raises
    ------
    InputError
        No entries, or some entry is NaN or ``+inf``.
    """
    array = checked_log_weights(log_weights)
    if array.size == 0:
        raise bad_input("log_weights", "at least one weight", "none", "the mean of no weights is not defined")
    return log_sum(array) - float(np.log(array.size))


def effective_sample_size(log_weights: ArrayLike) -> float:
    """Return ``(sum w)^2 / sum w^2``, between 1 and n; 0 when there is no positive weight.

    Raises
    ------
    InputError
        Some entry is NaN or ``+inf``.

    References
    ----------
    Kong, Liu and Wong, J. Am. Stat. Assoc. 89, 278 (1994), doi:10.1080/01621459.1994.10476469.

    Examples
    --------
    >>> round(effective_sample_size(np.log([1.0, 1.0, 1.0, 0.0001])), 2)
    3.0
    """
    array = checked_log_weights(log_weights)
    total = log_sum(array)
    return 0.0 if total == -np.inf else float(np.exp(2.0 * total - log_sum(2.0 * array)))


def largest_share(log_weights: ArrayLike) -> float:
    """Return ``max w / sum w``, between 1/n and 1; nan when there is no positive weight.

    Raises
    ------
    InputError
        Some entry is NaN or ``+inf``.

    Examples
    --------
    >>> round(largest_share(np.log([3.0, 1.0])), 2)
    0.75
    """
    array = checked_log_weights(log_weights)
    total = log_sum(array)
    return float("nan") if total == -np.inf else float(np.exp(array.max() - total))


def tail_index(log_weights: ArrayLike) -> float:
    """Return the index k of a generalised Pareto law fitted to the largest weights.

    Moments of the weights exist only up to order ``1/k``: ``k < 1/2`` finite variance, ``k > 0.7`` alarm, ``k > 1`` not
    even a mean.  The tail is the largest ``min(n/5, 3 sqrt n)`` of the n positive weights, and k is drawn towards 1/2
    with the strength of ten observations, as in Pareto-smoothed importance sampling.

    Parameters
    ----------
    log_weights : (n,)
        ``ln w_i``, dimensionless; any common factor is allowed.

    Returns
    -------
    float
        k, or nan when fewer than 25 weights are positive or the largest ones tie (there is no tail to fit).

    Raises
    ------
    InputError
        Some entry is NaN or ``+inf``.

    References
    ----------
    Zhang and Stephens, Technometrics 51, 316 (2009), doi:10.1198/tech.2009.08017; Vehtari, Simpson, Gelman, Yao and
    Gabry, "Pareto smoothed importance sampling", arXiv:1507.02646.

    Examples
    --------
    Weights u^-2 with u uniform have moments up to order 1/2 only:

    >>> u = (np.arange(10_000) + 0.5) / 10_000
    >>> tail_index(-2.0 * np.log(u)) > 0.7
    True
    >>> tail_index(-0.1 * np.log(u)) > 0.7
    False
    """
    array = checked_log_weights(log_weights)
    log_w = np.sort(array[array > -np.inf])
    if log_w.size < FEWEST_FOR_TAIL:
        return float("nan")
    n_tail = int(np.ceil(min(0.2 * log_w.size, 3.0 * np.sqrt(log_w.size))))
    log_cut = log_w[-n_tail - 1]
    tail = log_w[log_w > log_cut]
    if tail.size < FEWEST_IN_TAIL:
        return float("nan")
    log_excess = tail + np.log(-np.expm1(log_cut - tail))
    # The floor only matters for weights that differ by e^600, where any answer is "far too heavy".
    excess = np.exp(np.maximum(log_excess - log_excess.max(), -600.0))
    return float((excess.size * _pareto_shape(excess) + 5.0) / (excess.size + 10.0))


def _pareto_shape(excess: FloatArray) -> float:
    """Return Zhang and Stephens' posterior-mean shape for ascending, positive excesses (n,)."""
    n = excess.size
    n_grid = 30 + int(np.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    grid = 1.0 / excess[-1] + (1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))) / (3.0 * quartile)
    grid[grid == 0.0] = np.finfo(float).eps / excess[-1]  # k = 0, where the likelihood below reads 0/0
    shape = np.log1p(-grid[:, None] * excess).mean(axis=1)
    log_likelihood = n * (np.log(-grid / shape) - shape - 1.0)
    posterior = np.exp(log_likelihood - log_sum(log_likelihood))
    return float(np.log1p(-(posterior @ grid) * excess).mean())

"""Split walkers that matter, play roulette with those that do not, and never change an expectation.

A walker of weight w at x contributes ``w q(x)`` to the answer, where q is the unknown probability of success from x.
Replace it by N copies of weight w', with N random but drawn from the past only.  The answer keeps its expectation, for
*any* q, as long as

    E[ sum over copies of w' ]  =  E[N w'|past]  =  w.

That one line is the whole module.  `branch` applies it walker by walker, `resample` to a population at once (to bring
it to a given size), and `draw_roots` to a pool of starting points (weights of a mean instead of a sum).  How much is
gained depends on how well the importance ``G = w V(x)/V(x_0)`` follows ``w q(x)``; *whether the answer is right does
not*.

Zero importance is a statement.  ``log_g = -inf`` kills the walker with certainty, and ``E[N w'] = 0`` equals w only
if w itself is zero, or the walker sits where q is exactly 0 (inside A or another failing region).  So V must be
evaluated in log space: a ln V that underflowed to ``-inf`` would kill live walkers, and no test downstream could tell.

What this module does not do: it moves no walker, and it does not know what V is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import bad_input
from .weights import FloatArray, IntArray, checked_log_weights, log_sum

MOST_COPIES = 100
"""Copies one walker may get in one step; the rest follows a lag later.  Any number of copies is unbiased."""


@dataclass(frozen=True)
class Window:
    """The range of importance ``low <= G <= high`` in which a walker is left alone.

    Parameters
    ----------
    low, high
        Thresholds on G, dimensionless, ``0 <= low < 1 < high``.  ``low = 0`` turns roulette off, ``high = inf``
        splitting.

    Raises
    ------
    InputError
        The thresholds are not in that order.
    """

    low: float = 0.1
    high: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < 1.0 < self.high:
            got = f"low={self.low}, high={self.high}"
            raise bad_input("window", "0 <= low < 1 < high", got, "the default is low=0.1, high=2.0")


@dataclass(frozen=True)
class Offspring:
    """Who descends from whom: ``log_weight[child] = log_weight[parents[child]] + log_factors[child]``.

    Parameters
    ----------
    parents : (n_children,) int64
        Index of each child's parent, ascending.
    log_factors : (n_children,)
        What to add to the parent's log-weight.
    """

    parents: IntArray
    log_factors: FloatArray


def branch(log_g: ArrayLike, window: Window, rng: np.random.Generator) -> Offspring:
    """Bring every walker's importance back into the window.

    ``G > high``: ``n = ceil(G/high)`` copies (at most `MOST_COPIES`) of weight ``w/n``.
    ``G < low``: survival with probability ``p = G/low``, then of weight ``w/p``.  Else: nothing.

    Parameters
    ----------
    log_g : (n_walkers,)
        ``ln G = ln w + ln V(x) - ln V(x_0)``; ``-inf`` kills (see the top of the module).
    window
        The thresholds.
    rng
        One exponential variate is drawn per walker, whatever its fate.

    Returns
    -------
    Offspring
        Children in the order of their parents.

    Raises
    ------
    InputError
        Some entry is NaN or ``+inf``.

    Examples
    --------
    The first walker becomes three, the second stays, the last dies for certain:

    >>> children = branch(np.log([5.0, 1.0, 1e-300]), Window(0.1, 2.0), np.random.default_rng(1))
    >>> children.parents
    array([0, 0, 0, 1])
    >>> np.exp(children.log_factors).round(3)
    array([0.333, 0.333, 0.333, 1.   ])
    """
    log_g = checked_log_weights(log_g, "log_g")
    log_p = np.minimum(log_g - math.log(window.low), 0.0) if window.low > 0.0 else np.zeros_like(log_g)
    log_p[log_g == -np.inf] = -np.inf
    # P(exponential >= -ln p) = p; a uniform variate could not resolve p < 2^-53.
    survives = rng.standard_exponential(log_g.size) >= -log_p
    crowding = np.minimum(log_g - math.log(window.high), math.log(MOST_COPIES))
    copies = np.clip(np.ceil(np.exp(crowding)), 1, MOST_COPIES).astype(np.int64) * survives
    parents = np.repeat(np.arange(log_g.size), copies)
    return Offspring(parents, 0.0 - log_p[parents] - np.log(copies[parents]))


def resample(log_weights: ArrayLike, n: int, rng: np.random.Generator) -> Offspring:
    """Resample a population to exactly n walkers, systematically.

    Walker i gets ``n g_i / sum g`` copies on average, each with its weight divided by that number, which may be less
    or more than 1.  With ``g = w`` all children weigh the same; any positive importance such as ``G`` does as well.

    Parameters
    ----------
    log_weights : (n_walkers,)
        ``ln g_i``; ``-inf`` is never chosen.
    n
        The size wanted.
    rng
        One uniform variate is drawn.

    Raises
    ------
    InputError
        ``n < 1``, no positive weight, or some entry is NaN or ``+inf``.

    References
    ----------
    Kitagawa, J. Comput. Graph. Stat. 5, 1 (1996), doi:10.1080/10618600.1996.10474692, appendix.

    Examples
    --------
    Four walkers become two, and the sum of the weights stays what it was:

    >>> log_w = np.log([0.1, 0.2, 0.3, 0.4])
    >>> kept = resample(log_w, 2, np.random.default_rng(1))
    >>> np.exp(log_w[kept.parents] + kept.log_factors).round(3)
    array([0.5, 0.5])
    """
    log_weights = checked_log_weights(log_weights)
    _check_count("n", n)
    log_total = log_sum(log_weights)
    if log_total == -np.inf:
        raise bad_input("log_weights", "a positive weight", "none", "an extinct population cannot be resampled")
    log_share = log_weights - log_total
    parents = _systematic(np.exp(log_share), n, rng)
    return Offspring(parents, -math.log(n) - log_share[parents])


def draw_roots(
    log_values: ArrayLike, n_roots: int, uniform_share: float, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Draw starting points from a pool, likelier where V is large, with weights that undo the choice.

    V stands for whatever steers the branching that follows, V itself or another importance.

    ``p_i = (1 - u) V_i / sum_k V_k + u / n`` and ``w_j = 1 / (n_roots n p_j)``, so that for any h

        E[ sum_j w_j h(x_j) ]  =  (1/n) sum_i h(x_i).

    With V the true one this removes its spread over the pool from the answer, but not the spread between pools.

    Parameters
    ----------
    log_values : (n,)
        ``ln V`` of every point of the pool.  With ``u = 0`` a point of V = 0 is never drawn, which is right only if
        success is impossible from it.
    n_roots
        How many to draw (with repetition, systematically).
    uniform_share
        The share u, ``0 <= u <= 1``, drawn without regard to V.  No weight exceeds ``1/(n_roots u)``.
    rng
        One uniform variate is drawn.

    Returns
    -------
    indices : (n_roots,) int64
        Into the pool, ascending.
    log_weights : (n_roots,)
        ``ln w_j``.

    Raises
    ------
    InputError
        ``n_roots < 1``, u outside [0, 1], an empty pool, all V zero, or some entry NaN or ``+inf``.

    Examples
    --------
    Two exits, the second 99 times as promising; half of the roots are drawn without regard to V:

    >>> indices, log_weights = draw_roots(np.log([0.01, 0.99]), 100, 0.5, np.random.default_rng(1))
    >>> np.bincount(indices)
    array([25, 75])
    >>> round(float(np.exp(log_weights).sum()), 3)  # 1 on average
    0.994
    """
    log_values = checked_log_weights(log_values, "log_values")
    _check_count("n_roots", n_roots)
    if not 0.0 <= uniform_share <= 1.0:
        raise bad_input("uniform_share", "a number between 0 and 1", uniform_share, "0.2 is a cautious choice")
    log_total = log_sum(log_values)
    if log_total == -np.inf:
        got = f"{log_values.size} points, none with V > 0"
        raise bad_input("log_values", "a pool with a positive V", got, "collect exits first; compute V in log space")
    p = (1.0 - uniform_share) * np.exp(log_values - log_total) + uniform_share / log_values.size
    indices = _systematic(p, n_roots, rng)
    return indices, -np.log(float(n_roots) * log_values.size * p[indices])


def _systematic(shares: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Return n ascending indices, i on average ``n shares[i] / sum shares`` times and within one of it."""
    ends = np.cumsum(shares)
    teeth = (np.arange(n) + rng.random()) * (ends[-1] / n)
    # side="right" passes over empty intervals; the clip catches a tooth that rounding put on the very end.
    indices: IntArray = np.minimum(np.searchsorted(ends, teeth, side="right"), np.flatnonzero(shares)[-1])
    return indices


def _check_count(argument: str, n: int) -> None:
    if n < 1:
        raise bad_input(argument, "a positive whole number", n, "ask for at least 1")

"""Importance: how many walkers a place deserves, given ln V there.

With V right, a walker of weight W at x adds W^2 V^2 Q(x) to the variance of the answer at every lag and 1 to its cost,

    Q(x) = E[ (W' V(y) / (W V(x)) - 1)^2 | x ],

so a population in which W ~ 1 / u(x) has the smallest product of the two where

    u(x) = V(x) sqrt(Q(x)).

W V = const, which is u = V, would be best if all places were equally uncertain. They are not: on a plateau and close
to B nearly nothing is decided in a lag, and walkers there are worth less than their V. Here Q is taken as a function
of ln V alone, measured while walking (`tally`) and smoothed (`fit`). Any positive u leaves every estimate unbiased, so
nothing depends on how well Q is known but cost; u is frozen wherever anything is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .weights import FloatArray

BIN_WIDTH = 0.5
N_BINS = 400
FEWEST = 30
SMOOTHING = 0.7
STEEPEST = 1.3


@dataclass(frozen=True)
class Importance:
    """ln u as a function of ln V: straight between knots, and of slope 1, u proportional to V, beyond them.

    Parameters
    ----------
    log_values, log_importances : (n_knots,)
        ln V, ascending, and ln u there; without knots u = V.
    """

    log_values: FloatArray
    log_importances: FloatArray

    def __call__(self, log_v: FloatArray) -> FloatArray:
        """Return ln u (n,) for ln V (n,)."""
        if len(self.log_values) == 0:
            return log_v
        lowest, highest = self.log_values[0], self.log_values[-1]
        beyond = np.minimum(log_v - lowest, 0.0) + np.maximum(log_v - highest, 0.0)
        return np.interp(log_v, self.log_values, self.log_importances) + beyond


UNTEMPERED = Importance(np.empty(0), np.empty(0))
"""u = V."""


def tally(log_weights: FloatArray, log_v: FloatArray, log_change: FloatArray) -> FloatArray:
    """Return what one lag says about Q, (3, N_BINS): in each bin of -ln V the walkers, sum W V, and sum W V Q.

    Parameters
    ----------
    log_weights, log_v
        (n,) ln W and ln V before the lag.
    log_change
        (n,) ln of W' V(y) / (W V(x)), with V = 1 in B and 0 in A and D.
    """
    bins = np.clip(-log_v / BIN_WIDTH, 0, N_BINS - 1).astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # a wild V; `fit` leaves such bins out
        mass = np.exp(log_weights + log_v)
        columns = (np.ones(len(mass)), mass, mass * np.expm1(log_change) ** 2)
    return np.stack([np.bincount(bins, column, N_BINS) for column in columns])


def fit(tallies: FloatArray) -> Importance:
    """Return the importance that sums of `tally`, (3, N_BINS), ask for.

    ln Q is averaged over neighbours within about 0.7 in ln V. ln u is the least curve above ln V + ln Q / 2 that never
    falls and nowhere rises faster than 1.3 ln V. With fewer than two bins that were visited often enough u = V.
    """
    visits, mass, spread = tallies
    usable = (mass > 0.0) & np.isfinite(mass) & (spread > 0.0) & np.isfinite(spread)
    seen = np.flatnonzero(usable & (visits >= FEWEST))[::-1]
    if len(seen) < 2:
        return UNTEMPERED
    middle: FloatArray = -(seen.astype(np.float64) + 0.5) * BIN_WIDTH
    near = np.exp(-0.5 * ((middle[:, None] - middle) / SMOOTHING) ** 2) * np.minimum(visits[seen], 10 * FEWEST)
    log_spread = (near * np.log(spread[seen] / mass[seen])).sum(1) / near.sum(1)
    log_u = middle + 0.5 * log_spread
    ahead = np.maximum(middle - middle[:, None], 0.0)
    return Importance(middle, (log_u - STEEPEST * ahead).max(1))

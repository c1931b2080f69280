"""Control variate: take from the arrivals what chance did to V on the way, which is zero on average.

Along an unbiased walk the noise of a lag, the sum s xi of the displacements that the gaussians made, is independent of
all that came before.  So with any frozen V, and any branching that looks at the past only,

    M  =  sum over lags and walkers of  W V(x) grad ln V(x) . (s xi),        E[M] = 0,

and W_B - c M has the expectation of the arrived weight W_B for every frozen number c.  If V is the committor then V(x)
is a martingale too, and to first order in the noise M is all that W_B does besides V(x_0): c = 1 removes most of the
variance.  The less V is right the less W_B and M have in common; the best c is

    c  =  cov(W_B, M) / var(M),

measured while learning and frozen with V.  A wrong c or V costs variance and never changes an expectation.

What this module does not do: it moves nothing; M is summed up in `branching_walk`. NumPy only.

References
----------
Newton, Variance reduction for simulated diffusions, SIAM J. Appl. Math. 54, 1780 (1994).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .weights import FloatArray

LARGEST = 2.0
FEWEST_ARRIVALS = 10
"""Roots that arrive in the target, of all rounds together, below which no coefficient is measured."""
Moments = tuple[float, float, int]
NONE: Moments = (0.0, 0.0, 0)


def moments(arrivals: FloatArray, martingales: FloatArray) -> Moments:
    """Return cov(W_B, M) and var(M) over roots, both (n_roots,), and how many arrived; zeros where V is wild."""
    if not np.isfinite(martingales).all():
        return NONE
    with np.errstate(over="ignore", invalid="ignore"):
        covariance = float(((arrivals - arrivals.mean()) * martingales).mean())
        variance = float(((martingales - martingales.mean()) ** 2).mean())
    return (covariance, variance, int(np.count_nonzero(arrivals))) if np.isfinite(covariance + variance) else NONE


def coefficient(measured: Iterable[Moments]) -> float:
    """Return c, from 0 to 2, from the `moments` of several rounds; 0 where too few roots arrived."""
    covariance, variance, n_arrivals = np.array([*measured, NONE], dtype=float).sum(0)
    if n_arrivals < FEWEST_ARRIVALS or variance <= 0.0:
        return 0.0
    return float(np.clip(covariance / variance, 0.0, LARGEST))

"""Inner region: the part of A that the unbiased run leaves often, from which walks start when exits from A are rare.

    core = { x in A:  |(f(x) - c) / s| <= r },      r: replicas leave the core once in 20 lags

where they leave A itself less than once in 40; otherwise A is its own core. Deep in a basin exits from A are rare, and
the few that can lead to B rarer still: a run in A spends its time waiting for them. So the walk, which branches,
begins further in. Every B that the unbiased run comes to, it comes to after the last of these events: it left the
core, or it was put back in A outside the core after it had ended in B or D. If f(y) is the probability that a walk
from there reaches B before the core and D, then

    E[transitions]  =  E[ sum over these events of f(y) ],

so the rate of A -> B transitions is what it is without a core, whatever the core: a walk just goes on when it comes
back to A, until it is in the core. Paths still start at the last exit from A and end at the first return to it.

For a ball f, c and s = 1 are those of the ball; for other regions f are the features of the problem, c and s their
means and spreads in A.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..features import evaluate
from ..geometry.finite import require_finite
from ..problem import Problem
from ..regions import Region
from ..value_function import spread

Array = NDArray[np.float64]
LAGS_PER_EXIT = 20.0
RARE = 40.0
"""Lags of a replica between two exits from A, from which on A gets a core."""
SHARES = np.linspace(0.995, 0.3, 140)
"""Of the time in A that is spent in the core: which radii are tried, from the largest."""


@dataclass(frozen=True)
class Core:
    """What a core is made of: c and s, both (k,), and r."""

    center: Array
    scale: Array
    radius: float

    def region(self, problem: Problem) -> Region:
        """Return the core of the problem's A."""
        return problem.whole_source.part(problem.features, self.center, self.scale, self.radius)

    def arrays(self) -> dict[str, Array]:
        """Return it as named arrays, for storage."""
        return {"center": self.center, "scale": self.scale, "radius": np.array(self.radius)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Core:
        """Return the core that `arrays` was called on."""
        return cls(arrays["center"], arrays["scale"], float(arrays["radius"]))


class RadiusRecorder:
    """Watches an unbiased run, from a lag on, and says how large a core is left often enough.

    `center` and `scale` (k,) are known after that lag.
    """

    def __init__(self, problem: Problem, first_lag: int) -> None:
        self.problem, self.first_lag, self.lag = problem, first_lag, 0
        whole = problem.whole_source
        self.features = whole.feature or problem.features
        self.center = self.scale = np.zeros(0)
        self.rows: list[Array] = []

    def __call__(self, positions: Array, inside: NDArray[np.bool_]) -> None:
        """Note how far everyone is from the centre; infinitely far outside A."""
        self.lag += 1
        if self.lag < self.first_lag:
            return
        f = evaluate(self.features, positions)
        require_finite(f[inside], f"features in region {self.problem.whole_source.name}", positions[inside])
        if len(self.center) == 0:
            self.center, self.scale = self._middle(f[inside] if inside.any() else f)
        self.rows.append(np.where(inside, np.linalg.norm((f - self.center) / self.scale, axis=1), np.inf))

    def _middle(self, f: Array) -> tuple[Array, Array]:
        center = self.problem.whole_source.center
        if center is not None:
            return center.numpy(), np.ones(center.numel())
        return f.mean(0), spread(f)

    def core(self) -> Core | None:
        """Return the largest core that is left once in `LAGS_PER_EXIT` lags, or None if A is left often.

        If none is left so often, that which is left the oftenest.
        """
        d = np.array(self.rows)
        if not np.isfinite(d).any() or exit_rate(d, np.inf) >= 1.0 / RARE:
            return None
        radii = np.quantile(d[np.isfinite(d)], SHARES)
        rates = np.array([exit_rate(d, r) for r in radii])
        often = np.flatnonzero(rates >= 1.0 / LAGS_PER_EXIT)
        return Core(self.center, self.scale, float(radii[often[0] if len(often) else int(rates.argmax())]))


def exit_rate(distances: Array, radius: float) -> float:
    """Return how often a replica leaves the core of a radius in a lag; `distances` (n_lags, n), infinite outside A."""
    within = (distances <= radius) & np.isfinite(distances)
    return float((within[:-1] & ~within[1:]).mean()) if len(within) > 1 else 0.0

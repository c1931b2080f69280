"""Traps: where walkers rest that are outside all regions for long, in the space of the problem's features.

    center = mean of the densest cloud of their feature values,      radius = what holds nine tenths of the cloud

A hidden intermediate makes walks long, and the rate is then not of the form that regions A and B alone describe well;
as one of `others` it ends paths. The watcher sees positions and moves nothing: a walk does the same with it or without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi

from ..features import evaluate
from ..problem import Problem

Array = NDArray[np.float64]
Watch = Callable[[int, Array, NDArray[np.bool_]], None]
FIRST_WORD, BETWEEN_SAMPLES = 20.0, 0.5
"""Seconds with walkers outside all regions until traps are named for the first time, and between two looks."""
LONG, FEWEST_SAMPLES = 100, 5
"""Lags outside all regions from which on a walker may rest, and looks that are needed to tell where."""
MOST_WALKERS, MOST_SAMPLES, MOST_POINTS = 200, 400, 400
DENSEST = 0.2
"""Share of the values whose closest cloud is the middle of a trap."""
FEWEST = 0.2
"""Share of the walkers' time from which on a cloud is a trap."""
HELD, APART = 0.9, 0.95


@dataclass(frozen=True)
class Trap:
    """A cloud of feature values: `values` (m, k) of its members, `center` (k,), `radius` of the ball proposed.

    `walkers` and `time` are its shares of the walkers now and of the time watched; `structure` (n_atoms, 3), in nm, is
    that of the walker nearest to the centre.
    """

    values: Array
    center: Array
    radius: float
    walkers: float
    time: float
    structure: Array


def cloud(values: Array) -> NDArray[np.bool_]:
    """Return which of the values (m, k) belong to the densest cloud.

    The middle is the value with the closest neighbours, a fifth of all; the size follows from their distance as in a
    normal distribution.
    """
    scale = values.std(0)
    z = values / np.where(scale > 0.0, scale, 1.0)
    some = z[np.linspace(0, len(z) - 1, min(len(z), MOST_POINTS)).astype(int)]
    distances = np.sort(np.linalg.norm(some[:, None] - some[None], axis=2), axis=1)
    near = distances[:, min(max(int(DENSEST * len(some)), 1), len(some) - 1)]
    center, n_moving = some[near.argmin()], max(int((scale > 0.0).sum()), 1)
    reach = float(near.min() * chi.ppf(APART, n_moving) / chi.ppf(DENSEST, n_moving))
    inside = np.ones(len(z), dtype=bool)
    for _ in range(5):
        inside = np.linalg.norm(z - center, axis=1) <= reach
        center = z[inside].mean(0) if inside.any() else center
    return inside


@dataclass
class Clock:
    """Seconds of a run in which walkers were outside all regions for long, and at which traps are named next."""

    rested: float = 0.0
    next_word: float = FIRST_WORD


class Watcher:
    """Watches the walkers of a walk, and says where they rest when it takes long.

    Parameters
    ----------
    problem
        Whose features and regions count.
    say
        Told of the traps, as a list that is not empty, and for how many lags and seconds walkers have been outside.
    clock
        Goes on from walk to walk.
    """

    def __init__(
        self, problem: Problem, say: Callable[[Sequence[Trap], int, float], None], clock: Clock | None = None
    ) -> None:
        self._problem, self._say, self._clock = problem, say, clock or Clock()
        self._looked = time.monotonic()
        self._samples: list[Array] = []
        self._positions = np.zeros((0, problem.n_atoms, 3))
        self._in_regions: list[Array] = []

    def __call__(self, lag: int, positions: Array, resting: NDArray[np.bool_]) -> None:
        """Look at positions (n, n_atoms, 3) after a lag; `resting` (n,), who is outside all regions, A included."""
        now = time.monotonic()
        if lag < LONG or not resting.any():
            self._looked = now
            return
        clock, since = self._clock, now - self._looked
        if since < BETWEEN_SAMPLES:
            return
        self._looked = now
        clock.rested += since
        rows = np.flatnonzero(resting)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_WALKERS)).astype(int)]
        self._positions = positions[rows]
        self._samples.append(evaluate(self._problem.features, self._positions))
        if len(self._samples) > MOST_SAMPLES:
            self._samples = self._samples[1::2]
        if not resting.all():
            self._in_regions.append(evaluate(self._problem.features, positions[~resting][:MOST_WALKERS]))
            self._in_regions = self._in_regions[-MOST_SAMPLES:]
        if clock.rested >= clock.next_word and len(self._samples) >= FEWEST_SAMPLES:
            clock.next_word = 2.0 * clock.rested
            traps = self.traps()
            if traps:
                self._say(traps, lag, clock.rested)

    def traps(self) -> list[Trap]:
        """Return the clouds in which the walkers rest, that with most of them first."""
        rest = np.concatenate(self._samples) if self._samples else np.zeros((0, 0))
        last, n, found = self._samples[-1] if self._samples else rest, len(rest), []
        while len(rest) > FEWEST * n:
            inside = cloud(rest)
            if inside.sum() < FEWEST * n:
                break
            found.append(self._trap(rest[inside], float(inside.sum() / n), last))
            rest = rest[~inside]
        return sorted(found, key=lambda trap: -trap.time)

    def _trap(self, values: Array, share: float, last: Array) -> Trap:
        center = values.mean(0)
        radius = float(np.quantile(np.linalg.norm(values - center, axis=1), HELD))
        distances = np.linalg.norm(last - center, axis=1)
        reach = np.linalg.norm(values - center, axis=1).max()
        walkers, nearest = float((distances <= reach).mean()), self._positions[int(distances.argmin())]
        return Trap(
            values, center, min(radius, APART * gap(self._problem, center, self._in_regions)), walkers, share, nearest
        )


def gap(problem: Problem, center: Array, in_regions: Sequence[Array]) -> float:
    """Return how far it is from a centre (k,) to what is known of the regions.

    `in_regions` are feature values (n, k) that were seen in them.
    """
    gaps = [np.inf]
    known = [problem.positions[None], *(x[None] for x in problem.references.values())]
    inside = [evaluate(problem.features, x) for x in known] + [x for x in in_regions if len(x)]
    gaps += [float(np.linalg.norm(values - center, axis=1).min()) for values in inside]
    for region in (problem.whole_source, problem.target, *problem.others):
        if region.feature is problem.features and region.center is not None:
            gaps.append(float(np.linalg.norm(region.center.numpy() - center)) - region.radius)
    return max(min(gaps), 0.0)

"""Metastable: whether walkers that have been outside all regions for long are in a trap, by a simulation of its own.

    at L lags:  a cloud of the walkers that are left;      at 1.25 L:  it has mixed;      at 2 L:  half of it is there

Copies of the walkers go on unbiased and unbranched, those that enter a region leave the test. A trap holds a share of
them in one cloud of feature values for L lags, and each of them forgets where it stood in it long before: on a
transition state, or while they cross a plain, they leave, or stay where they stood. L is 1000 lags, and doubles while
they have not mixed, thrice at most. Nothing depends on the clock, so the same seed finds the same traps; the walk that
is watched is the same to the last bit with and without it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine
from ..errors import TrapFound
from ..features import evaluate
from ..problem import OUTSIDE, Problem
from ..storage.cost_meter import Search
from .traps import APART, HELD, Trap, cloud, gap

Array = NDArray[np.float64]
N_COPIES = 64
MOST_TESTS = 5
"""Of one walk."""
DOUBLINGS = 3
LOOKS = 20
"""In L lags, whose feature values make the region."""
FEWEST = 0.2
"""Share of the copies in a cloud from which on it is looked at."""
WIDER = 1.25
"""How far a trap goes, over the walkers that the densest cloud is sure to hold."""
STAYS, MIXED, EARLY = 0.5, 0.3, 4
"""Share that stays in a trap for L lags, and the correlation below which they have forgotten in a quarter of that where
they stood. Diffusion on a plain keeps half for as long as it takes to forget three times, so this is no plain."""


class Searcher:
    """Watches the walkers of a walk as `traps.Watcher` does, and raises `TrapFound` when they are in a trap."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self._problem, self._search = problem, search
        self._next, self._last, self._tests = search.first, 0, 0

    def __call__(self, lag: int, positions: Array, resting: NDArray[np.bool_]) -> None:
        """Look at positions (n, n_atoms, 3) after a lag; `resting` (n,), who is outside all regions, A included."""
        if lag <= self._last:  # another walk
            self._next = self._search.first
        self._last = lag
        if lag < self._next or not resting.any() or self._tests >= MOST_TESTS:
            return
        self._next, self._tests = 2 * lag, self._tests + 1
        starts = positions[resting]
        trap = find(self._problem, starts, self._search.lags, zlib.crc32(starts.tobytes()))
        if trap is not None:
            raise TrapFound(trap)


@dataclass
class _Copies:
    """Copies that are still outside all regions, and feature values seen in regions."""

    problem: Problem
    engine: Engine
    positions: Array
    arrived: list[Array]

    def go_on(self, lags: int, stride: int = 0) -> tuple[list[Array], NDArray[np.intp]]:
        """Move by some lags; return feature values every `stride` lags, and which of them are still outside."""
        rows, looks = np.arange(len(self.positions)), []
        for lag in range(1, lags + 1):
            if not len(rows):
                break
            self.positions, _ = self.engine.propagate(self.positions)
            codes, inside = self.problem.classify(self.positions)
            out = (codes == OUTSIDE) & ~inside
            if not out.all():
                self.arrived.append(self.values(~out))
                self.positions, rows = self.positions[out], rows[out]
            if stride and lag % stride == 0 and len(rows):
                looks.append(self.values())
        return looks, rows

    def values(self, rows: NDArray[np.bool_] | slice = slice(None)) -> Array:
        return evaluate(self.problem.features, self.positions[rows])


def find(problem: Problem, starts: Array, lags: int, seed: int = 0) -> Trap | None:
    """Return the trap that structures (n, n_atoms, 3) are in, or None; L is `lags` at first.

    `seed` is that of the noise.
    """
    rng = np.random.default_rng(seed)
    engine = Engine(problem, N_COPIES)
    engine.reseed(rng)
    chosen = np.resize(rng.permutation(len(starts)), N_COPIES)
    copies = _Copies(problem, engine, starts[chosen], [])
    looks, _ = copies.go_on(lags, max(lags // LOOKS, 1))
    for doubling in range(DOUBLINGS + 1):
        trap, mixed, looks = _test(copies, looks, lags << doubling)
        if trap is None or mixed:
            return trap
    return None


def _test(copies: _Copies, before: list[Array], lags: int) -> tuple[Trap | None, bool, list[Array]]:
    """Return what may be a trap, whether its walkers mixed in it, and their feature values in `lags` lags.

    `before` are feature values of the lags before; the later half of them makes the cloud, which from one moment alone
    would be uncertain.
    """
    none: tuple[None, bool, list[Array]] = (None, False, [])
    n_before = len(copies.positions)
    if n_before < FEWEST * N_COPIES:
        return none
    start, known = copies.values(), np.concatenate(before[len(before) // 2 :])
    inside = cloud(known)
    scale = np.where((spread := known.std(0)) > 0.0, spread, 1.0)
    center = known[inside].mean(0)
    reach = WIDER * float(np.linalg.norm((known[inside] - center) / scale, axis=1).max())

    def near(values: Array) -> NDArray[np.bool_]:
        return np.asarray(np.linalg.norm((values - center) / scale, axis=1) <= reach)

    members = near(start)
    if members.sum() < FEWEST * N_COPIES:
        return none
    quarter, stride = max(lags // EARLY, 1), max(lags // LOOKS, 1)
    early, rows = copies.go_on(quarter, stride)
    if not len(rows):
        return none
    soon = copies.values()
    both = members[rows] & near(soon)
    mixed = _correlation(start[rows][both], soon[both]) < MIXED
    late, left = copies.go_on(lags - quarter, stride)
    if not len(left):
        return none
    stays = members[rows][left] & near(copies.values())
    if stays.sum() < max(STAYS * members.sum(), FEWEST * N_COPIES / 2.0):
        return none
    looks = [*early, *late]
    seen = np.concatenate(looks)
    seen = seen[near(seen)]
    share = float(len(seen) / (len(looks) * n_before))
    return _trap(copies, seen, float(stays.sum() / n_before), share), mixed, looks


def _correlation(before: Array, after: Array) -> float:
    """Return the mean correlation of what two arrays (n, k) say of the same walkers; of what does not vary, none."""
    before, after = before - before.mean(0), after - after.mean(0)
    size = np.sqrt(np.square(before).sum(0) * np.square(after).sum(0))
    varies = size > 0.0
    return float(((before * after).sum(0)[varies] / size[varies]).mean()) if varies.any() else 0.0


def _trap(copies: _Copies, values: Array, walkers: float, time: float) -> Trap:
    center = values.mean(0)
    radius = float(np.quantile(np.linalg.norm(values - center, axis=1), HELD))
    nearest = copies.positions[int(np.linalg.norm(copies.values() - center, axis=1).argmin())]
    return Trap(
        values, center, min(radius, APART * gap(copies.problem, center, copies.arrived)), walkers, time, nearest
    )

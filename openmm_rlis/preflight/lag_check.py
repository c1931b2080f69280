"""Lag check: whether walkers jump over regions between two tests, measured before a run starts.

    ratio = rms move in one lag / width            of each region, in its own features
                                / gap              between A and B, in those of B

Regions are tested once a lag, so a walker that crosses one in a lag is not seen in it, and a lag in which A forgets
where it was, or that reaches from A to B, leaves nothing to branch on. Unbiased walkers are moved for a few lags from
the start structure; one that leaves A is put back. The width of a ball is its diameter, as that of an interval is the
distance of its ends; a box is as wide as its shortest interval with two ends; a predicate has no width. A is also as
wide as the spread of the slowest feature that the value function sees. The gap to a predicate is that to a known
structure in it. The random numbers are of no stream of the run, and the few thousand force evaluations are not in its
cost.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine
from ..errors import RlisError
from ..features import evaluate
from ..problem import Problem
from ..regions import Box, Region
from ..storage.cost_meter import LimitError

Array = NDArray[np.float64]
LIMIT = 1.0 / 3.0
"""Largest ratio that is not warned of."""
WALKERS, FEW_WALKERS, LAGS = 32, 4, 8
"""Walkers in one Context, or one after another, and lags of each."""
SECONDS = 20.0
"""Wall time after which no further lag is begun."""
SPREAD = 4.15
"""Width over standard deviation: a walker that forgets where it was within a lag moves sqrt(2) standard deviations, a
little more than a third of this; after three relaxation times nearly that."""


@dataclass(frozen=True)
class Ratio:
    """How far walkers move in a lag, and the width that this is compared with."""

    move: float
    width: float
    what: str

    @property
    def value(self) -> float:
        """Move over width; 0 where nothing moves."""
        return 0.0 if self.move == 0.0 else self.move / self.width if self.width > 0.0 else math.inf


def warn_of_long_lag(problem: Problem, platform: str | None, deadline: float = math.inf) -> str:
    """Warn if walkers move further in a lag than a third of a region's width, and return the warning, or nothing.

    Parameters
    ----------
    problem
        What is to be run.
    platform
        OpenMM platform, as for the run.
    deadline
        Of time.monotonic, when the run has to end.
    """
    deadline = min(deadline, time.monotonic() + SECONDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            before, after = _moves(problem, platform, deadline)
            spread = _spread(problem, after)
            found = list(ratios(problem, before, after, spread))
        except (RlisError, LimitError):  # the run comes to the same place and says it in full
            return ""
    worst = max(found, key=lambda one: one.value)
    if not LIMIT < worst.value < math.inf:  # what is not finite the run says in full
        return ""
    advice = _advice(problem, platform, deadline, spread)
    text = (
        f"lag_steps={problem.lag_steps}: in one lag of {problem.lag_time:.3g} ps walkers in {problem.source.name} move "
        f"{worst.move:.3g} (rms), {_percent(worst.value)} of {worst.what} ({worst.width:.3g}): events between "
        f"two tests are missed, expected at most a third; {advice}"
    )
    warnings.warn(text, stacklevel=2)
    return text


def ratios(problem: Problem, before: Array, after: Array, spread: Array) -> Iterator[Ratio]:
    """Yield the ratios of every region that has a width, and of the gap between A and B.

    Parameters
    ----------
    problem
        Whose regions.
    before, after
        (n, n_atoms, 3) in nm, walkers in A and where they are a lag later.
    spread
        (k,), standard deviations in A of the features that the value function sees.
    """
    for region in problem.regions:
        if isinstance(region.feature, Box):
            yield from _of_box(region.feature, region.name, before, after)
        elif region.feature is not None:
            moved = evaluate(region.feature, after) - evaluate(region.feature, before)
            yield Ratio(_length(moved), 2.0 * region.radius, f"the width of {region.name}")
    moves = _rms(evaluate(problem.features, after) - evaluate(problem.features, before))
    yield _slowest(moves, SPREAD * spread, f"the spread of the slowest feature in {problem.source.name}")
    yield _gap(problem, before, after)


def _of_box(box: Box, name: str, before: Array, after: Array) -> Iterator[Ratio]:
    """Yield the ratio of the interval with two ends that is the shortest for the move in it, if there is one."""
    moves, widths = _rms(_box_moves(box, before, after)), (box.high - box.low).numpy()
    closed = np.flatnonzero(np.isfinite(widths))
    if len(closed):
        j = closed[np.argmax(moves[closed] / widths[closed])]
        yield Ratio(float(moves[j]), float(widths[j]), f"the width of {name}")


def _box_moves(box: Box, before: Array, after: Array) -> Array:
    moved, periods = evaluate(box.values, after) - evaluate(box.values, before), box.periods.numpy()
    turns: Array = moved - periods * np.round(moved / np.where(periods > 0.0, periods, 1.0))
    return turns


def _gap(problem: Problem, before: Array, after: Array) -> Ratio:
    """Return the ratio of the distance from A to B, from where walkers in A come nearest to B if they are no balls."""
    source, target = problem.source, problem.target
    what = f"the gap between {source.name} and {target.name}"
    if isinstance(target.feature, Box):
        box = target.feature
        f, periods, middle = evaluate(box.values, before), box.periods.numpy(), box.middle.numpy()
        f = f - periods * np.round((f - middle) / np.where(periods > 0.0, periods, 1.0))
        outside = np.maximum(np.maximum(box.low.numpy() - f, f - box.high.numpy()), 0.0).min(axis=0)
        return _slowest(_rms(_box_moves(box, before, after)), outside, what)
    if target.feature is not None:
        moved = evaluate(target.feature, after) - evaluate(target.feature, before)
        away = np.linalg.norm(evaluate(target.feature, before) - np.asarray(target.center), axis=1) - target.radius
        return Ratio(_length(moved), _between(source, target) or float(away.min()), what)
    if target.name not in problem.references:
        return Ratio(0.0, 1.0, what)  # not known
    f = evaluate(problem.features, before)
    there = evaluate(problem.features, problem.references[target.name][None])[0]
    return _slowest(_rms(evaluate(problem.features, after) - f), np.abs(f - there).min(axis=0), what)


def _between(source: Region, target: Region) -> float:
    """Return the distance between two balls on one feature; 0 for other regions."""
    if source.feature is not target.feature or source.center is None or target.center is None:
        return 0.0
    apart = np.linalg.norm(np.asarray(target.center) - np.asarray(source.center))
    return max(float(apart) - source.radius - target.radius, 0.0)


def _slowest(moves: Array, widths: Array, what: str) -> Ratio:
    """Return the ratio of the feature that resolves a width best; features that are at rest say nothing."""
    told = np.flatnonzero((moves > 0.0) & (widths > 0.0))
    if not len(told):
        return Ratio(float(moves.max()), 0.0 if (moves > 0.0).any() else 1.0, what)
    j = told[np.argmin(moves[told] / widths[told])]
    return Ratio(float(moves[j]), float(widths[j]), what)


def _moves(problem: Problem, platform: str | None, deadline: float) -> tuple[Array, Array]:
    """Return where unbiased walkers in A are before and after a lag, both (n, n_atoms, 3)."""
    engine = Engine(problem, WALKERS, platform)
    engine.deadline = deadline
    engine.reseed(np.random.default_rng(0))
    x = np.repeat(problem.positions[None], WALKERS if engine.packed else FEW_WALKERS, axis=0)
    before: list[Array] = []
    after: list[Array] = []
    for _ in range(LAGS):
        try:
            moved, _weights = engine.propagate(x)
        except LimitError:
            if not before:
                raise
            break
        before.append(x)
        after.append(moved)
        x = np.where(problem.classify(moved)[1][:, None, None], moved, x)
    return np.concatenate(before), np.concatenate(after)


def _spread(problem: Problem, after: Array) -> Array:
    """Return the standard deviations (k,) of the features that the value function sees, of walkers in A."""
    inside = after[problem.classify(after)[1]]
    return evaluate(problem.features, inside if len(inside) > 1 else after).std(axis=0)


def _advice(problem: Problem, platform: str | None, deadline: float, spread: Array) -> str:
    """Return what to do: to take the largest of half of `lag_steps`, half of that and so on that needs no warning."""
    shorter = copy.copy(problem)
    while shorter.lag_steps > 1:
        shorter.lag_steps //= 2
        try:
            found = ratios(shorter, *_moves(shorter, platform, deadline), spread)
            if max(one.value for one in found) <= LIMIT:
                return f"lag_steps={shorter.lag_steps} would do"
        except (RlisError, LimitError):
            return f"try lag_steps={shorter.lag_steps} or less"
    return "make the regions larger or the gap between A and B wider"


def _rms(values: Array) -> Array:
    found: Array = np.sqrt((values**2).mean(axis=0))
    return found


def _length(moved: Array) -> float:
    """Return the root mean square of the norms of (n, k)."""
    return float(np.sqrt((moved**2).sum(axis=1).mean()))


def _percent(ratio: float) -> str:
    return f"{100.0 * ratio:.0f} %" if ratio < 10.0 else f"{ratio:.3g} times" if math.isfinite(ratio) else "all"

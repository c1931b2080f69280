"""Adaptive splitting: the cold start, adaptive multilevel splitting from A to B without any V.

    P(B) = prod_levels (1 - k/n) * (share that arrives),      score = a / (a + b)

a and b are the distances to A and B in feature space. Paths from A's exits run until they end; those whose highest
score is lowest are cut and restarted from the survivors' first frame above that level; and so on until paths reach B.
The levels and survival probabilities give a first ln V as a function of the score, from which the networks start.
Nothing found here enters an estimate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine
from ..errors import DivergedError, UnreachableError
from ..features import Feature, evaluate
from ..geometry.finite import require_finite
from ..problem import FIRST_OTHER, OUTSIDE, SOURCE, TARGET, Problem
from ..regions import Region
from .traps import Watch

Array = NDArray[np.float64]
Score = Callable[[Array], Array]
MOST_PER_BIN = 1000
STALL = 20
"""Levels in which the score must gain 0.01, or else the target is taken to be out of reach (a chance of 2e-4)."""


@dataclass(frozen=True)
class Splitting:
    """Result: scores and ln V at the levels, frames spread evenly over ln V, arrivals in B, and ln P.

    `dead_ends` are the arrivals in other regions, one (m, n_atoms, 3) for each that any path came to.
    """

    level_scores: Array
    level_log_values: Array
    frames: Array
    frame_log_values: Array
    arrivals: Array
    dead_ends: list[Array]
    log_probability: float
    n_levels: int


@dataclass
class SplittingPath:
    """A path on its way: its frames and their scores, and the code of the region that it ended in."""

    frames: list[Array]
    scores: list[float]
    code: int = OUTSIDE

    def best(self) -> float:
        """Return the largest score of the path, infinite once it ended in the target."""
        return np.inf if self.code == TARGET else max(self.scores)


def make_score(problem: Problem, source_samples: Array, target_samples: Array | None) -> Score:
    """Return the progress score a/(a + b), in [0, 1], positions (n, n_atoms, 3) -> (n,)."""
    of_a, center_a = _center(problem, problem.source, source_samples)
    of_b, center_b = _center(problem, problem.target, target_samples)

    def score(x: Array) -> Array:
        f = evaluate(of_a, x)
        g = f if of_b is of_a else evaluate(of_b, x)
        a, b = np.linalg.norm(f - center_a, axis=1), np.linalg.norm(g - center_b, axis=1)
        progress: Array = a / (a + b + 1e-12)
        require_finite(progress, "features", x)
        return progress

    return score


def _center(problem: Problem, region: Region, samples: Array | None) -> tuple[Feature, Array]:
    """Return a feature and where in it a region is."""
    if region.feature is not None and region.center is not None:
        return region.feature, region.center.numpy()
    if samples is None:
        raise ValueError(f"region {region.name} has no distance: samples are needed")
    return problem.features, evaluate(problem.features, samples).mean(0)


def find_target(problem: Problem, engine: Engine, rng: np.random.Generator, max_lags: int = 4000) -> Array:
    """Return structures in B, (m, n_atoms, 3): a given reference, or what runs at rising temperature come across.

    Raises
    ------
    UnreachableError
        Nothing found up to 64 times the temperature.
    DivergedError
        Walkers were lost at the temperature itself.
    """
    if problem.target.name in problem.references:
        return problem.references[problem.target.name][None]
    lost = ""
    for factor in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        hot = copy.copy(problem)
        hot.kT = problem.kT * factor
        explorer = Engine(hot, 64)
        explorer.reseed(rng)
        x = np.repeat(problem.positions[None], 64, axis=0)
        try:
            for _ in range(max_lags):
                x, _ = explorer.propagate(x)
                found = problem.label(x) == TARGET
                if found.any():
                    return x[found]
        except DivergedError as error:
            if factor == 1.0:
                raise
            lost = f" (at higher temperature: {error})"
            break
        finally:
            engine.cost.force_evaluations += explorer.cost.force_evaluations
    name = problem.target.name
    raise UnreachableError(
        f"target: expected a region that can be reached, got no structure in {name} up to {factor:g} times the "
        f"temperature{lost}; check the region, or give a structure of it in references={{{name!r}: ...}}"
    )


def split(
    engine: Engine,
    score: Score,
    exits: Array,
    rng: np.random.Generator,
    *,
    n_paths: int = 200,
    kill_share: float = 0.35,
    max_levels: int = 150,
    max_lags: int = 500,
    straggler_share: float = 0.05,
    report: Callable[[str], None] = lambda _: None,
    watch: Watch | None = None,
) -> Splitting:
    """Run adaptive multilevel splitting from exits of A, (m, n_atoms, 3).

    After a cut, a path that has not ended within `max_lags` lags sits in a trap, or is slow, and counts as a failure;
    its best score stands, so that the next cut can start from it. Up to `straggler_share` of the paths may go on with
    the next level instead of being waited for. Both are for speed, and bias P: with a share of 0 and no limit on the
    lags it is unbiased. `report` is told of every level; `watch` is shown the paths that take long, as by `walk`.

    Raises
    ------
    UnreachableError
        B was not reached in `max_levels` levels, the score stopped growing, or all paths came to the same dead end.
    """
    paths = [SplittingPath([x], [float(score(x[None])[0])]) for x in exits[rng.integers(0, len(exits), n_paths)]]
    stragglers = int(straggler_share * n_paths)
    run_until_ended(engine, score, paths, max_lags, stragglers, watch)
    levels: list[float] = []
    log_survival = [0.0]
    # Of the paths that were cut, the frames above the level before: the survivors all descend from a few.
    seen: list[tuple[Array, float]] = []
    lost: list[tuple[int, Array]] = []
    while True:
        best = np.array([path.best() for path in paths])
        n_arrived = int(np.isinf(best).sum())
        if n_arrived >= (1.0 - kill_share) * n_paths:
            break
        level = float(np.sort(best)[int(kill_share * n_paths)])
        dead, alive = np.flatnonzero(best <= level), np.flatnonzero(best > level)
        stuck = len(levels) >= STALL and level - levels[-STALL] < 0.01
        if len(alive) == 0 or stuck or len(levels) >= max_levels:
            raise UnreachableError(
                f"target: expected a region that paths from {engine.problem.source.name} can reach, got none in "
                f"{engine.problem.target.name} after {len(levels)} levels (best score {best.max():.4f} of 1); "
                "check the region, or shorten the lag: paths that return to A within one lag make no progress"
            )
        floor = levels[-1] if levels else -np.inf
        lost += _ended_elsewhere([paths[i] for i in dead])
        fell = [(x, s) for i in dead for x, s in zip(paths[i].frames, paths[i].scores, strict=True) if s > floor]
        seen += [fell[i] for i in rng.permutation(len(fell))[:MOST_PER_BIN]]
        levels.append(level)
        report(f"level {len(levels)}: score {level:.3f} of 1, {n_arrived} of {n_paths} paths arrived")
        log_survival.append(log_survival[-1] + float(np.log(len(alive) / n_paths)))
        for i, j in zip(dead, rng.choice(alive, len(dead)), strict=True):
            paths[i] = cut(paths[j], level)
        run_until_ended(engine, score, paths, max_lags, stragglers, watch)
    log_p = log_survival[-1] + float(np.log(n_arrived / n_paths))
    return _collect(paths, lost, np.array(levels), np.array(log_survival), log_p, seen, rng)


def cut(path: SplittingPath, level: float) -> SplittingPath:
    """Return the path up to its first frame above a level."""
    stop = next((i for i, s in enumerate(path.scores) if s > level), len(path.scores) - 1) + 1
    finished = path.code if stop == len(path.scores) else OUTSIDE
    return SplittingPath(path.frames[:stop], path.scores[:stop], finished)


def run_until_ended(
    engine: Engine, score: Score, paths: list[SplittingPath], max_lags: int, stragglers: int, watch: Watch | None
) -> None:
    """Run paths until all but a few have ended in a region; the stragglers go on with the next call."""
    alive = [path for path in paths if path.code == OUTSIDE]
    if alive:
        codes = engine.problem.label(np.stack([path.frames[-1] for path in alive]))
        for path, code in zip(alive, codes.tolist(), strict=True):
            path.code = code
        alive = [path for path in alive if path.code == OUTSIDE]
    for lag in range(max_lags):
        if len(alive) <= stragglers:
            return
        moved, _ = engine.propagate(np.stack([path.frames[-1] for path in alive]))
        (codes, inside), scores = engine.problem.classify(moved), score(moved)
        if watch is not None:
            watch(lag, moved, (codes == OUTSIDE) & ~inside)
        for path, x, code, s in zip(alive, moved, codes.tolist(), scores.tolist(), strict=True):
            path.frames.append(x)
            path.scores.append(s)
            path.code = code
        if codes.any():
            alive = [path for path in alive if path.code == OUTSIDE]
    for path in alive:
        path.code = SOURCE


def _collect(
    paths: list[SplittingPath],
    lost: list[tuple[int, Array]],
    levels: Array,
    log_survival: Array,
    log_p: float,
    seen: list[tuple[Array, float]],
    rng: np.random.Generator,
) -> Splitting:
    seen = [*seen, *[frame for path in paths for frame in zip(path.frames, path.scores, strict=True)]]
    frame_scores = np.array([score for _, score in seen])
    # V at the first frame above level m is P(B) / P(level m): what is left of the product.
    scores = np.concatenate([levels, [max(1.0, float(levels.max(initial=0.0)) + 1e-9)]])
    log_values = np.concatenate([log_p - log_survival[1:], [0.0]])
    if len(levels):
        scores = np.concatenate([[min(float(frame_scores.min()), levels[0] - 1e-9)], scores])
        log_values = np.concatenate([[log_p], log_values])
    frame_log_values = np.interp(frame_scores, scores, log_values)
    chosen = _spread(frame_log_values, rng)
    frames = np.stack([seen[i][0] for i in chosen])
    arrivals = np.stack([path.frames[-1] for path in paths if path.code == TARGET])
    lost = [*lost, *_ended_elsewhere(paths)]
    dead_ends = [np.stack([x for at, x in lost if at == code]) for code in sorted({at for at, _ in lost})]
    return Splitting(scores, log_values, frames, frame_log_values[chosen], arrivals, dead_ends, log_p, len(levels))


def _ended_elsewhere(paths: list[SplittingPath]) -> list[tuple[int, Array]]:
    """Return code and last frame of the paths that ended in other regions."""
    return [(path.code, path.frames[-1].copy()) for path in paths if path.code >= FIRST_OTHER]


def _spread(log_values: Array, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which frames to learn from: at most MOST_PER_BIN for each stretch of 0.5 in ln V.

    A climb of a few frames counts as much as the long stay in a trap that follows it.
    """
    bins = np.floor(2.0 * log_values)
    chosen = [np.flatnonzero(bins == b) for b in np.unique(bins)]
    return np.sort(np.concatenate([rng.permutation(rows)[:MOST_PER_BIN] for rows in chosen]))

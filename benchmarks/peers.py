"""The peers: forward flux sampling, adaptive multilevel splitting and weighted ensemble, on the same engine.

Each works on many repeats side by side, so that its walkers fill the Contexts as ours do, and gets what its users
would wish for: a progress score (any function that grows from A to B), interfaces or bins spaced evenly in the
logarithm of the probability to come so far, and replicas in A that are in equilibrium.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.problem import OUTSIDE, SOURCE, TARGET
from openmm_rlis.statistics.branching import resample
from openmm_rlis.walks.adaptive_splitting import SplittingPath, cut, run_until_ended

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Score = Callable[[Array], Array]
LONGEST = 10_000_000
"""Lags, more than any path takes."""


def forward_flux(
    engine: Engine, score: Score, interfaces: Array, exits: Array, owner: Indices, n_repeats: int, n_trials: int,
    rng: np.random.Generator,
) -> Array:  # fmt: skip
    """Return P(B | exit) of every repeat (n_repeats,) by direct forward flux sampling.

    From each interface `n_trials` trials of a repeat start at configurations stored there, drawn with replacement,
    and go on until the score is above the next interface, or in A, B or another region; B lies beyond all
    interfaces. P is the product of the shares that succeed; a repeat of whose trials none does has P = 0.
    Allen, Warren, ten Wolde, Phys. Rev. Lett. 94, 018104 (2005).
    """
    probability = np.ones(n_repeats)
    stored, stored_owner, arrived = exits, owner, np.zeros(len(exits), bool)
    for level in [*interfaces, np.inf]:
        starts = []
        for repeat in range(n_repeats):
            mine = np.flatnonzero(stored_owner == repeat)
            if len(mine):
                starts.append(rng.choice(mine, n_trials))
        if not starts:
            return np.zeros(n_repeats)
        rows = np.concatenate(starts)
        x, who, done = stored[rows], stored_owner[rows], arrived[rows]
        success = done | (score(x) > level)
        alive = np.flatnonzero(~success)
        while len(alive):
            x[alive], _ = engine.propagate(x[alive])
            codes = engine.problem.label(x[alive])
            beyond = (codes == OUTSIDE) & (score(x[alive]) > level)
            done[alive[codes == TARGET]] = True
            success[alive[beyond | (codes == TARGET)]] = True
            alive = alive[(codes == OUTSIDE) & ~beyond]
        probability *= np.bincount(who[success], minlength=n_repeats) / n_trials
        stored, stored_owner, arrived = x[success], who[success], done[success]
    return probability


def multilevel_splitting(
    engine: Engine, score: Score, exits: Array, owner: Indices, n_repeats: int, n_paths: int, rng: np.random.Generator,
    kill_share: float = 0.35,
) -> Array:  # fmt: skip
    """Return P(B | exit) of every repeat (n_repeats,) by adaptive multilevel splitting.

    The steps are those of our cold start, but every path is waited for, which makes P unbiased: the `kill_share` of a
    repeat's paths with the lowest highest score are cut and go on from the first frame of another one above that level.
    Brehier, Gazeau, Goudenege, Lelievre, Rousset, Ann. Appl. Probab. 26, 3559 (2016).
    """
    log_p, climbing, groups = np.full(n_repeats, -np.inf), [], []
    for repeat in range(n_repeats):
        mine = np.flatnonzero(owner == repeat)
        starts = exits[rng.choice(mine, n_paths)] if len(mine) else exits[:0]
        groups.append([SplittingPath([x], [s]) for x, s in zip(starts, score(starts).tolist(), strict=True)])
        if groups[-1]:
            climbing.append(repeat)
            log_p[repeat] = 0.0
    while climbing:
        run_until_ended(engine, score, [path for repeat in climbing for path in groups[repeat]], LONGEST, 0)
        for repeat in list(climbing):
            paths = groups[repeat]
            best = np.array([path.best() for path in paths])
            level = np.sort(best)[int(kill_share * n_paths)]
            if level == np.inf:
                log_p[repeat] += np.log(np.isinf(best).mean())
                climbing.remove(repeat)
                continue
            dead, alive = np.flatnonzero(best <= level), np.flatnonzero(best > level)
            if len(alive) == 0:
                log_p[repeat] = -np.inf
                climbing.remove(repeat)
                continue
            log_p[repeat] += np.log(len(alive) / n_paths)
            for i, j in zip(dead, rng.choice(alive, len(dead)), strict=True):
                paths[i] = cut(paths[j], float(level))
    return np.exp(log_p)


def weighted_ensemble(
    engine: Engine, score: Score, edges: Array, sources: Array, owner: Indices, n_repeats: int, per_bin: int,
    n_blocks: tuple[int, int], block: int, rng: np.random.Generator,
) -> tuple[Array, int]:  # fmt: skip
    """Return the rate of every repeat (n_repeats,) in 1/lag, and its force evaluations, by weighted ensemble.

    A repeat is a steady state of total weight 1 in which whoever comes to B or another region goes back to its last
    structure in A. Every `block` lags the walkers of each bin (A, and the stretches of the score between `edges`) are
    brought to `per_bin` by systematic resampling. The first n_blocks[0] blocks let it settle and are not counted, nor
    is their cost; the weight that arrives in B in the following n_blocks[1] is the rate.
    Huber and Kim, Biophys. J. 70, 97 (1996); Zhang, Jasnow, Zuckerman, J. Chem. Phys. 132, 054107 (2010).
    """
    x, last, who = sources.copy(), sources.copy(), owner.copy()
    log_w = -np.log(np.bincount(who, minlength=n_repeats)[who].astype(float))
    bins = np.zeros(len(x), np.intp)
    arrived, cost = np.zeros(n_repeats), 0
    for index in range(sum(n_blocks)):
        counts, before = index >= n_blocks[0], engine.cost.force_evaluations
        for _ in range(block):
            y, _ = engine.propagate(x)
            codes = engine.problem.label(y)
            leaving = (codes != SOURCE) & (bins == 0)
            last[leaving] = x[leaving]
            ended = codes >= TARGET
            if counts:
                hit = codes == TARGET
                np.add.at(arrived, who[hit], np.exp(log_w[hit]))
            y[ended] = last[ended]
            outside = codes == OUTSIDE
            bins = np.zeros(len(y), np.intp)
            bins[outside] = 1
            x = y
        if counts:
            cost += engine.cost.force_evaluations - before
        outside = np.flatnonzero(bins)
        bins[outside] = 1 + np.searchsorted(edges, score(x[outside]))
        kept, log_factors = _fill(who * (len(edges) + 2) + bins, log_w, per_bin, rng)
        x, last, who, bins, log_w = x[kept], last[kept], who[kept], bins[kept], log_w[kept] + log_factors
    return arrived / (n_blocks[1] * block), cost


def _fill(cell: Indices, log_w: Array, per_bin: int, rng: np.random.Generator) -> tuple[Indices, Array]:
    """Return the walkers kept, and ln of the factors of their weights, with `per_bin` in each cell that has any."""
    order = np.argsort(cell, kind="stable")
    rows, factors = [], []
    for mine in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        children = resample(log_w[mine], per_bin, rng)
        rows.append(mine[children.parents])
        factors.append(children.log_factors)
    return np.concatenate(rows), np.concatenate(factors)

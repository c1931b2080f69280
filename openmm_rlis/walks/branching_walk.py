"""Branching walk: the branching random walk that carries roots to A, B or D.

    G = W u(x) / (W_0 u(x_0))        G > high: split,   G < low: roulette,   both keep the expected weight

u is the importance, V itself or a function of it. W is the exact path weight of everything that happened to a walker
(bias, splitting, roulette, the draw of its root). For any positive u, and thresholds fixed by the past alone, the sum
of the weights that arrive in B is an unbiased estimate of the expected number of A -> B transitions among the exits.
Every frame is stored once; branches share their prefix.

A walk is an excursion as `basin_simulation` has it: it ends in the core of A (A itself where there is none, see
`inner_region`). Where there is a core, walkers that come back to A walk on until they are in the core, and a walker
that has come to B or D, which counts, goes on from its last structure in A, whose law is that of the first one after B
or D by time reversal; the paths from each exit from A to the next return are cut out of the tree afterwards.
`Excursions` are the times that walkers spend on the way, of which the time in state A is made.

With `control` the walk also sums up the martingale M of `control_variate` for each root. grad V . (s xi) is taken as

    ( V(x + h s xi) - V(x - h s xi) ) / 2h,        h = 0.1,

which needs no gradient, and is odd in xi: its mean is zero to the last digit, whatever h is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine
from ..errors import RlisError
from ..paths.tree import PathTree
from ..problem import OUTSIDE, TARGET
from ..statistics.branching import Offspring, Window, branch, resample
from ..statistics.importance import N_BINS, UNTEMPERED, tally
from ..statistics.weights import log_sum
from .traps import Watch
from .walkers import Excursions, Frames, Population, Recorder

Array = NDArray[np.float64]
LogValue = Callable[[Array], Array]
LogImportance = Callable[[Array], Array]
STEP = 0.1
IN_A = "; if it is a part of A, set settings.core=false, or make A smaller"
LONG = (50_000, 500_000)
"""Lags after which a person is told that a walk is not over; one of LJ7 takes some 5000."""


@dataclass(frozen=True)
class Roots:
    """Exits to start from.

    positions (n, n_atoms, 3) outside A, or its core; priors, the structures before them; log_weights (n,); biased (n,),
    who feels the bias; defensive (n,), whose walkers never play roulette, so that a V that is far too small in a live
    channel cannot hide it; batches (n,), whose root it is: batches walk side by side and never meet.
    """

    positions: Array
    priors: Array
    log_weights: Array
    biased: NDArray[np.bool_]
    defensive: NDArray[np.bool_]
    batches: NDArray[np.int32]


@dataclass(frozen=True)
class Walk:
    """The outcome: paths as a tree, per-root sums, and what a person wants to know.

    `tree` are the walks, `paths` those from A to A, B or D: the same without a core. `success` and `ended` (n_roots,)
    are the sums over a root's walks of the weight relative to the root's own weight that came to B, and that ended:
    E[success] is the number of times that an excursion comes to B, E[ended] = 1. `hidden` (n_roots,) is the part of
    `success` that came by where G was below a third of the window: u had all but given it up. `martingale` (n_roots,)
    is M of `control_variate` relative to the root's own weight, E[martingale] = 0; all zero if it was not asked for,
    and biased walkers add nothing. `n_thinned` (n_roots,) says how often a root's walkers had to be thinned to the cap,
    `walker_lags` (n_roots,) how many lags they took together. `tallies` is the sum of `importance.tally` over all lags.
    """

    tree: PathTree
    paths: PathTree
    frames: Frames
    success: Array
    ended: Array
    hidden: Array
    martingale: Array
    excursions: Excursions
    n_thinned: NDArray[np.int64]
    walker_lags: NDArray[np.int64]
    tallies: Array
    n_lags: int
    peak: int


def walk(
    engine: Engine,
    log_value: LogValue,
    roots: Roots,
    window: Window,
    rng: np.random.Generator,
    *,
    importance: LogImportance = UNTEMPERED,
    control: bool = False,
    longest: int = 0,
    frame_stride: int = 5,
    max_walkers: int = 200,
    max_lags: int = 5_000_000,
    watch: Watch | None = None,
) -> Walk:
    """Carry every root to its end.

    Parameters
    ----------
    engine
        Moves the walkers; its random stream should have been reset for this batch.
    log_value
        Positions (n, n_atoms, 3) -> ln V (n,).
    importance
        ln V (n,) -> ln u (n,), what G is made of.
    control
        Sum up `Walk.martingale`.
    longest
        Lags for which a basin simulation follows an excursion: what is `early` in `Excursions`.
    window
        Thresholds on G.
    frame_stride
        A frame is recorded every this many lags, and at the start and end of a path.
    max_walkers
        More walkers of one root than this are thinned to this number by systematic resampling, which keeps expected
        weights: a V that is far too large somewhere costs time, and hurts only the roots that go there.
    max_lags
        A walk that is not over by then is an error: an unseen trap between A and B.
    watch
        Shown the lag, everyone's positions (n, n_atoms, 3) after it, and who is outside all regions, (n,); changes
        nothing.

    Raises
    ------
    RlisError
        The walk did not end.
    DivergedError
        A walker's coordinates are not finite.
    """
    record, n = Recorder(), len(roots.positions)
    codes, inside = engine.problem.classify(roots.positions)
    nowhere, everywhere = np.full(n, -1, np.int32), np.ones(n, dtype=bool)
    first = record.add(roots.priors, nowhere, roots.log_weights, np.ones(n, np.int8), everywhere, 0)
    frame = record.add(roots.positions, first, roots.log_weights, codes, inside, 1)
    log_v = log_value(roots.positions) if n else np.zeros(0)
    everyone = Population(
        roots.positions,
        np.where(inside[:, None, None], roots.positions, roots.priors),
        roots.log_weights.copy(),
        log_v,
        roots.log_weights + importance(log_v),
        np.zeros(n),
        np.arange(n, dtype=np.int32),
        roots.biased.copy(),
        inside,
        inside.copy(),
        np.zeros(n, dtype=bool),
        frame,
    )
    alive = _retire(record, everyone, codes, log_value, 1)
    excursions = Excursions.none(n)
    n_thinned, walker_lags, martingale = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n)
    tallies, n_lags, peak = np.zeros((3, N_BINS)), 0, 0
    while len(alive.root):
        if n_lags >= max_lags:
            raise RlisError(
                f"{len(alive.root)} walkers did not reach any region in {max_lags} lags; "
                "define the metastable state as a region in `others`" + (IN_A if engine.problem.has_core else "")
            )
        if n_lags in LONG:
            warnings.warn(
                f"{len(alive.root)} walkers have been outside all regions for {n_lags} lags; if they are in a "
                "metastable state, stop the run and define it as a region in `others`"
                + (IN_A if engine.problem.has_core else ""),
                stacklevel=2,
            )
        n_lags += 1
        peak = max(peak, len(alive.root))
        walker_lags += np.bincount(alive.root, minlength=n)
        before = replace(alive, log_weights=alive.log_weights.copy())
        codes, visits, pushes = _lag(engine, log_value, before, alive, control)
        if watch is not None:
            watch(n_lags, alive.positions, (codes == OUTSIDE) & ~alive.inside)
        tallies += visits
        martingale += np.bincount(alive.root, pushes, minlength=n)
        _record_frames(record, before, alive, codes, n_lags, frame_stride)
        weights = np.exp(alive.log_weights - roots.log_weights[alive.root])
        excursions.add(alive.anew | (n_lags > longest), before, alive, weights)
        alive = _retire(record, alive, codes, log_value, n_lags + 1)
        if len(alive.root):
            log_g = alive.log_weights + importance(alive.log_values) - alive.log_reference
            alive.log_lowest = np.minimum(alive.log_lowest, log_g)
            children = branch(_without_roulette(log_g, roots.defensive[alive.root], window), window, rng)
            alive = _thin(alive.offspring(children), importance, max_walkers, n_thinned, rng)
    sums = _sums(record, roots, window)
    with np.errstate(over="ignore", invalid="ignore"):  # a wild V, of which no coefficient will be made
        martingale = martingale * np.exp(-roots.log_weights)
    trees = record.trees(whole=not engine.problem.has_core)
    return Walk(*trees, record.frames(), *sums, martingale, excursions, n_thinned, walker_lags, tallies, n_lags, peak)


def walk_unbranched(
    engine: Engine, positions: Array, priors: Array, rng: np.random.Generator, frame_stride: int = 1_000_000
) -> Walk:
    """Carry structures (n, n_atoms, 3) to their ends without branching or bias; by default only these are kept."""
    n, no = len(positions), np.zeros(len(positions), dtype=bool)
    roots = Roots(positions, priors, np.zeros(n), no, no, np.zeros(n, np.int32))
    return walk(engine, lambda x: np.zeros(len(x)), roots, Window(0.0, np.inf), rng, frame_stride=frame_stride)


def _lag(
    engine: Engine, log_value: LogValue, before: Population, alive: Population, control: bool
) -> tuple[NDArray[np.int8], Array, Array]:
    """Move everyone, who was as `before`, by a lag.

    Return the region codes, what the lag says about the importance, and what it adds to the martingale.
    """
    log_weights, start = before.log_weights, before.positions
    noise = _move(engine, alive, control)
    codes, alive.inside = engine.problem.classify(alive.positions)
    if engine.problem.has_core:
        rows = alive.inside & (codes == OUTSIDE)
        alive.last = np.where(rows[:, None, None], alive.positions, alive.last)
        alive.returned = alive.returned | rows
    outside, pushed = codes == OUTSIDE, ~alive.biased if control else np.zeros(len(codes), dtype=bool)
    # One call of the network: for few walkers it takes as long as for many.
    kicks = STEP * noise[pushed]
    places = np.concatenate([alive.positions[outside], start[pushed] + kicks, start[pushed] - kicks])
    looks = log_value(places) if len(places) else np.zeros(0)
    alive.log_values = np.where(codes == TARGET, 0.0, -np.inf)
    alive.log_values[outside] = looks[: outside.sum()]
    pushes = np.zeros(len(codes))
    pushes[pushed] = _push(looks[outside.sum() :].reshape(2, -1), log_weights[pushed])
    change = alive.log_weights + alive.log_values - log_weights - before.log_values
    return codes, tally(log_weights, before.log_values, change), pushes


def _move(engine: Engine, alive: Population, control: bool) -> Array:
    """Move everyone and return the sum of the noise, (n, n_atoms, 3), where `control` asks for it, and 0 elsewhere."""
    x, moved, noise = alive.positions, np.empty_like(alive.positions), np.zeros_like(alive.positions)
    for biased in (False, True):
        rows = alive.biased == biased
        if not rows.any():
            continue
        if biased or not control:
            moved[rows], log_weights = engine.propagate(x[rows], biased)
            alive.log_weights[rows] += log_weights
        else:
            moved[rows], noise[rows] = engine.propagate_with_noise(x[rows])
    alive.positions = moved
    return noise


def _push(there: Array, log_weights: Array) -> Array:
    """Return W grad V . (s xi), (n,), from ln V ahead and behind, (2, n)."""
    with np.errstate(over="ignore", invalid="ignore"):  # a wild V
        ahead, behind = np.exp(there + log_weights)
        pushes: Array = (ahead - behind) / (2.0 * STEP)
    return pushes


def _record_frames(
    record: Recorder, before: Population, alive: Population, codes: NDArray[np.int8], n_lags: int, stride: int
) -> None:
    """Record everyone now and then, and who ended, left A or came back to it; of who left, also the last place in A."""
    left, returned = before.inside & ~alive.inside, ~before.inside & alive.inside
    if left.any():
        last = before.take(left)
        outside = np.full(len(last.root), OUTSIDE, np.int8)
        alive.frame[left] = record.add(last.positions, last.frame, last.log_weights, outside, last.inside, n_lags)
    rows = np.ones(len(codes), dtype=bool) if n_lags % stride == 0 else (codes != OUTSIDE) | left | returned
    if rows.any():
        alive.frame[rows] = record.add(
            alive.positions[rows], alive.frame[rows], alive.log_weights[rows], codes[rows], alive.inside[rows],
            n_lags + 1,
        )  # fmt: skip
    if returned.any():
        record.back(alive.take(returned))


def _retire(record: Recorder, alive: Population, codes: NDArray[np.int8], log_value: LogValue, lag: int) -> Population:
    """Return who goes on: those in no region, and those in B or D that have been in A outside its core, from there."""
    over = codes != OUTSIDE
    if not over.any() and len(over):
        return alive
    gone, rest = alive.take(over), alive.take(~over)
    again = gone.returned & (codes[over] >= TARGET)
    record.end(gone, codes[over], ~again)  # a walk without roots has an empty tree
    if not again.any():
        return rest
    anew = gone.take(again)
    everywhere, n = np.ones(len(anew.root), dtype=bool), len(anew.root)
    anew.positions, anew.log_values = anew.last.copy(), log_value(anew.last)
    anew.inside, anew.anew = everywhere, everywhere.copy()
    outside, nowhere = np.full(n, OUTSIDE, np.int8), np.full(n, -1, np.int32)
    anew.frame = record.add(anew.positions, nowhere, anew.log_weights, outside, anew.inside, lag)
    return rest.and_also(anew)


def _without_roulette(log_g: Array, defensive: NDArray[np.bool_], window: Window) -> Array:
    """Return ln G, raised to the window's lower end for defensive walkers."""
    return np.where(defensive, np.maximum(log_g, np.log(window.low)), log_g) if window.low > 0.0 else log_g


def _thin(
    alive: Population,
    importance: LogImportance,
    max_walkers: int,
    n_thinned: NDArray[np.int64],
    rng: np.random.Generator,
) -> Population:
    counts = np.bincount(alive.root, minlength=len(n_thinned))
    crowded = np.flatnonzero(counts > max_walkers)
    if len(crowded) == 0:
        return alive
    n_thinned[crowded] += 1
    rest = np.flatnonzero(counts[alive.root] <= max_walkers)
    rows, factors = [rest], [np.zeros(len(rest))]
    for root in crowded:
        mine = np.flatnonzero(alive.root == root)
        log_w = alive.log_weights[mine]
        log_g = log_w + importance(alive.log_values[mine])
        # Half by importance and half by weight, so that no weight grows much where V is far too small beside the rest.
        kept = resample(np.logaddexp(log_g - log_sum(log_g), log_w - log_sum(log_w)), max_walkers, rng)
        rows.append(mine[kept.parents])
        factors.append(kept.log_factors)
    return alive.offspring(Offspring(np.concatenate(rows), np.concatenate(factors)))


def _sums(record: Recorder, roots: Roots, window: Window) -> tuple[Array, Array, Array]:
    """Return `success`, `ended` and `hidden` of `Walk`."""
    n = len(roots.positions)
    success, ended, hidden = np.zeros(n), np.zeros(n), np.zeros(n)
    given_up = np.log(window.low / 3.0) if window.low > 0.0 else -np.inf
    for _, codes, log_weights, root, log_lowest, last in record.leaves:
        weight = np.exp(log_weights - roots.log_weights[root])
        arrived = codes == TARGET
        np.add.at(ended, root, np.where(last, weight, 0.0))
        np.add.at(success, root, np.where(arrived, weight, 0.0))
        np.add.at(hidden, root, np.where(arrived & (log_lowest < given_up), weight, 0.0))
    return success, ended, hidden

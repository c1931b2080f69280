"""Walk: the branching random walk that carries roots to A, B or D.

    G = W u(x) / (W_0 u(x_0))        G > high: split,   G < low: roulette,   both keep the expected weight

u is the importance, V itself or a function of it. W is the exact path weight of everything that happened to a walker
(bias, splitting, roulette, the draw of its root). For any positive u, and thresholds fixed by the past alone, the sum
of the weights that arrive in B is an unbiased estimate of the expected number of A -> B transitions among the exits.
Every frame is stored once; branches share their prefix.

Where A has a core (see `core`), walkers that come back to A walk on until they are in the core, and the paths from
each exit from A to the next return are cut out of the tree afterwards.

With `control` the walk also sums up the martingale M of `control` for each root. grad V . (s xi) is taken as

    ( V(x + h s xi) - V(x - h s xi) ) / 2h,        h = 0.1,

which needs no gradient, and is odd in xi: its mean is zero to the last digit, whatever h is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .branching import Offspring, Window, branch, comb
from .engine import Engine
from .errors import RlisError
from .importance import N_BINS, UNTEMPERED, tally
from .problem import OUTSIDE, TARGET
from .traps import Watch
from .trees import PathTree, TreeBuilder, excursions
from .weights import log_sum

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
class Frames:
    """What the tree does not hold of its frames, in the same order, for learning.

    log_weights (n_frames,) on arrival, before branching; codes (n_frames,) region codes; blocks: offsets of the
    frames that were recorded at the same time.
    """

    log_weights: Array
    codes: NDArray[np.int8]
    blocks: NDArray[np.int64]


@dataclass(frozen=True)
class Walk:
    """The outcome: paths as a tree, per-root sums, and what a person wants to know.

    `tree` are the walks, `paths` those from A to A, B or D: the same without a core. `success` and `ended` (n_roots,)
    are the sums over a root's walks of the weight relative to the root's own weight that ended in B, and anywhere:
    E[success] is the committor of the root, E[ended] = 1. `hidden` (n_roots,) is the part of `success` that came by
    where G was below a third of the window: u had all but given it up. `martingale` (n_roots,) is M of `control`
    relative to the root's own weight, E[martingale] = 0; all zero if it was not asked for, and biased walkers add
    nothing. `n_thinned` (n_roots,) says how often a root's walkers had to be thinned to the cap, `walker_lags`
    (n_roots,) how many lags they took together.
    `tallies` is the sum of `importance.tally` over all lags.
    """

    tree: PathTree
    paths: PathTree
    frames: Frames
    success: Array
    ended: Array
    hidden: Array
    martingale: Array
    n_thinned: NDArray[np.int64]
    walker_lags: NDArray[np.int64]
    tallies: Array
    n_lags: int
    peak: int


@dataclass
class _Population:
    positions: Array
    log_weights: Array
    log_values: Array
    log_reference: Array
    log_lowest: Array
    root: NDArray[np.int32]
    biased: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    frame: NDArray[np.int32]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> _Population:
        return _Population(*(column[rows] for column in vars(self).values()))

    def offspring(self, children: Offspring) -> _Population:
        born = self.take(children.parents)
        born.log_weights = born.log_weights + children.log_factors
        return born


class _Recorder:
    """Collects frames, leaves, and returns to A."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.log_weights: list[Array] = []
        self.codes: list[NDArray[np.int8]] = []
        self.inside: list[NDArray[np.bool_]] = []
        self.leaves: list[tuple[NDArray[np.int32], NDArray[np.int8], Array, NDArray[np.int32], Array]] = []
        self.returns: list[tuple[NDArray[np.int32], Array, NDArray[np.int32]]] = []

    def add(
        self,
        x: Array,
        parents: NDArray[np.int32],
        log_weights: Array,
        codes: NDArray[np.int8],
        inside: NDArray[np.bool_],
        lag: int,
    ) -> NDArray[np.int32]:
        ids = self.builder.add(x, parents, lag)
        self.log_weights.append(log_weights)
        self.codes.append(codes)
        self.inside.append(inside)
        return ids

    def end(self, gone: _Population, codes: NDArray[np.int8]) -> None:
        self.leaves.append((gone.frame, codes, gone.log_weights, gone.root, gone.log_lowest))

    def back(self, who: _Population) -> None:
        self.returns.append((who.frame, who.log_weights, who.root))

    def frames(self) -> Frames:
        blocks = np.cumsum([0] + [len(c) for c in self.codes])
        return Frames(np.concatenate(self.log_weights), np.concatenate(self.codes), blocks)

    def trees(self, whole: bool) -> tuple[PathTree, PathTree]:
        """Return the walks and, unless they are the `whole` paths, those which they contain."""
        ids, codes, log_weights, root, _ = (np.concatenate(column) for column in zip(*self.leaves, strict=True))
        tree = self.builder.finish(ids, codes, log_weights, root, 0, 0)
        if whole:
            return tree, tree
        none = np.zeros(0, np.int32)
        columns = zip((none, np.zeros(0), none), *self.returns, strict=True)
        return tree, excursions(tree, np.concatenate(self.inside), *(np.concatenate(column) for column in columns))


def walk(
    engine: Engine,
    log_value: LogValue,
    roots: Roots,
    window: Window,
    rng: np.random.Generator,
    *,
    importance: LogImportance = UNTEMPERED,
    control: bool = False,
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
    record, n = _Recorder(), len(roots.positions)
    codes, inside = engine.problem.places(roots.positions)
    nowhere, everywhere = np.full(n, -1, np.int32), np.ones(n, dtype=bool)
    first = record.add(roots.priors, nowhere, roots.log_weights, np.ones(n, np.int8), everywhere, 0)
    frame = record.add(roots.positions, first, roots.log_weights, codes, inside, 1)
    log_v = log_value(roots.positions) if n else np.zeros(0)
    everyone = _Population(
        roots.positions,
        roots.log_weights.copy(),
        log_v,
        roots.log_weights + importance(log_v),
        np.zeros(n),
        np.arange(n, dtype=np.int32),
        roots.biased.copy(),
        inside,
        frame,
    )
    alive = _retire(record, everyone, codes)
    n_thinned, walker_lags, martingale = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n)
    tallies, n_lags, peak = np.zeros((3, N_BINS)), 0, 0
    while len(alive.root):
        if n_lags >= max_lags:
            raise RlisError(
                f"{len(alive.root)} walkers did not reach any region in {max_lags} lags; "
                "give the trap as a region in `others`" + (IN_A if engine.problem.has_core else "")
            )
        if n_lags in LONG:
            warnings.warn(
                f"{len(alive.root)} walkers have been outside all regions for {n_lags} lags; if they rest in a trap, "
                "stop the run and give the trap as a region in `others`" + (IN_A if engine.problem.has_core else ""),
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
        alive = _retire(record, alive, codes)
        if len(alive.root):
            log_g = alive.log_weights + importance(alive.log_values) - alive.log_reference
            alive.log_lowest = np.minimum(alive.log_lowest, log_g)
            children = branch(_without_roulette(log_g, roots.defensive[alive.root], window), window, rng)
            alive = _thin(alive.offspring(children), importance, max_walkers, n_thinned, rng)
    sums = _sums(record, roots, window)
    with np.errstate(over="ignore", invalid="ignore"):  # a wild V, of which no coefficient will be made
        martingale = martingale * np.exp(-roots.log_weights)
    trees = record.trees(whole=not engine.problem.has_core)
    return Walk(*trees, record.frames(), *sums, martingale, n_thinned, walker_lags, tallies, n_lags, peak)


def walk_unbranched(
    engine: Engine, positions: Array, priors: Array, rng: np.random.Generator, frame_stride: int = 1_000_000
) -> Walk:
    """Carry structures (n, n_atoms, 3) to their ends without branching or bias; by default only these are kept."""
    n, no = len(positions), np.zeros(len(positions), dtype=bool)
    roots = Roots(positions, priors, np.zeros(n), no, no, np.zeros(n, np.int32))
    return walk(engine, lambda x: np.zeros(len(x)), roots, Window(0.0, np.inf), rng, frame_stride=frame_stride)


def _lag(
    engine: Engine, log_value: LogValue, before: _Population, alive: _Population, control: bool
) -> tuple[NDArray[np.int8], Array, Array]:
    """Move everyone, who was as `before`, by a lag.

    Return the region codes, what the lag says about the importance, and what it adds to the martingale.
    """
    log_weights, start = before.log_weights, before.positions
    noise = _move(engine, alive, control)
    codes, alive.inside = engine.problem.places(alive.positions)
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


def _move(engine: Engine, alive: _Population, control: bool) -> Array:
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
    record: _Recorder, before: _Population, alive: _Population, codes: NDArray[np.int8], n_lags: int, stride: int
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


def _retire(record: _Recorder, alive: _Population, codes: NDArray[np.int8]) -> _Population:
    over = codes != OUTSIDE
    if over.any() or len(over) == 0:  # a walk without roots has an empty tree
        record.end(alive.take(over), codes[over])
    return alive.take(~over)


def _without_roulette(log_g: Array, defensive: NDArray[np.bool_], window: Window) -> Array:
    """Return ln G, raised to the window's lower end for defensive walkers."""
    return np.where(defensive, np.maximum(log_g, np.log(window.low)), log_g) if window.low > 0.0 else log_g


def _thin(
    alive: _Population,
    importance: LogImportance,
    max_walkers: int,
    n_thinned: NDArray[np.int64],
    rng: np.random.Generator,
) -> _Population:
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
        kept = comb(np.logaddexp(log_g - log_sum(log_g), log_w - log_sum(log_w)), max_walkers, rng)
        rows.append(mine[kept.parents])
        factors.append(kept.log_factors)
    return alive.offspring(Offspring(np.concatenate(rows), np.concatenate(factors)))


def _sums(record: _Recorder, roots: Roots, window: Window) -> tuple[Array, Array, Array]:
    """Return `success`, `ended` and `hidden` of `Walk`."""
    n = len(roots.positions)
    success, ended, hidden = np.zeros(n), np.zeros(n), np.zeros(n)
    given_up = np.log(window.low / 3.0) if window.low > 0.0 else -np.inf
    for _, codes, log_weights, root, log_lowest in record.leaves:
        weight = np.exp(log_weights - roots.log_weights[root])
        arrived = codes == TARGET
        np.add.at(ended, root, weight)
        np.add.at(success, root, np.where(arrived, weight, 0.0))
        np.add.at(hidden, root, np.where(arrived & (log_lowest < given_up), weight, 0.0))
    return success, ended, hidden

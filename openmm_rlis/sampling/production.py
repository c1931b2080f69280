"""Production: what one batch does in one round, with V frozen.

    transitions = sum_roots w_root (W_B - c M),      time = stretch + tau sum_roots w_root L,

    k = sum_rounds transitions / sum_rounds time

The root weights w_root sum to n on average, the exits from A, or from its core if it has one (`inner_region`), of a
stretch of basin simulation (`basin_simulation`). W_B is the weight that arrives in B, M the control variate
(`control_variate`), which is 0 on average, and c its coefficient; L are the lags of a root's walkers that the basin
simulation does not see, with their weights (`walkers.Excursions.late`).

The first stretches may be cut from the run that brought A to equilibrium: given its exits, transitions and time are
right on average for any V, also one that was learned from these exits. Batches share nothing: each has its own replicas
in A, its own exits, its own roots and its own walkers. A root that finds an intermediate adds to both sums, and the
error of their ratio over batches (`estimators.ratio`) holds the correlation between the two.
For speed, the batches of a group are moved in the same Contexts, and so are the walkers of several rounds in a row, a
block, that are made before anybody looks at the error: walkers never meet, so nothing changes but the time it takes. A
group draws from one random stream, that of (first round of the block, group). `produce` is a pure function of the
group's state, its stream and V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..basin.basin_simulation import run_basin
from ..basin.exit_flux import FluxState, Pool
from ..config.settings import Settings
from ..dynamics.engine import Engine, one_thread
from ..learning.pilot import choose_roots, make_engine, walk_roots
from ..learning.planning import Plan
from ..paths.tree import PathTree
from ..problem import TARGET, Problem
from ..statistics.importance import Importance
from ..value_function import ValueFunction
from ..walks.branching_walk import Roots, Walk
from ..walks.walkers import Excursions

Array = NDArray[np.float64]
PRODUCTION = 4
TIMES = ("time", "inside", "away_basin", "away_walks", "late")
"""Fields of a record that are times, ps."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of a seed and a place in the run (stage, round, batch)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class Record:
    """What one batch produced in one round.

    `n_exits` are the exits from A, `time` the time in state A and `inside` its part inside A, in ps; `away_basin` and
    `away_walks` are the time outside the core in the first lags of excursions as the basin simulation and as the walks
    have it, `late` the time that the walks add. `transitions` may be negative, by chance. `root_weights` (n_roots,) is
    what arrived of each root, `root_control` what the control variate took from it: `transitions` is the sum of the
    differences. `defensive` (n_roots,) says
    which roots played no roulette; `ended` is the total weight that ended anywhere over that of all starts, 1 on
    average, NaN without; `hidden` is the part of what arrived of defensive roots that V had all but given up;
    `n_thinned` counts the roots whose walkers came to the cap.
    """

    n_exits: float
    transitions: float
    time: float
    inside: float
    away_basin: float
    away_walks: float
    late: float
    ended: float
    root_weights: Array
    root_control: Array
    hidden: float
    defensive: NDArray[np.bool_]
    n_thinned: int
    tree: PathTree | None


@dataclass(frozen=True)
class GroupRecord:
    """One group of batches in one round: a record a batch, the replicas' state, and the cost."""

    batches: tuple[Record, ...]
    state: FluxState
    flux_evaluations: int
    walk_evaluations: int
    network_calls: int


@dataclass(frozen=True)
class Task:
    """Everything that one process needs for some groups of batches of a block of rounds."""

    problem: Problem
    value: dict[str, NDArray[Any]]
    importance: Importance
    settings: Settings
    plan: Plan
    state: FluxState
    ready: tuple[Pool, ...]
    groups: tuple[tuple[int, ...], ...]
    seed: int
    rounds: range
    platform: str | None

    def __call__(self, groups: Sequence[int]) -> list[list[GroupRecord]]:
        """Return the records of groups, in order, each a list over rounds."""
        with one_thread():
            value = ValueFunction.from_arrays(self.problem.features, self.value)
            engine = make_engine(self.problem, self.settings, self.platform, value)
            return [self._one(engine, value, group) for group in groups]

    def _one(self, engine: Engine, value: ValueFunction, group: int) -> list[GroupRecord]:
        batches, replicas = self.groups[group], self.settings.replicas
        rows = np.concatenate([np.arange(b * replicas, (b + 1) * replicas) for b in batches])
        rng = stream(self.seed, PRODUCTION, self.rounds.start, group)
        guide = (value, self.importance)
        ready = [pool.part(rows, len(self.state.positions)) for pool in self.ready]
        state = self.state.part(rows)
        return produce(engine, guide, state, self.settings, self.plan, rng, batches, self.rounds, ready)


def produce(
    engine: Engine,
    guide: tuple[ValueFunction, Importance],
    state: FluxState,
    settings: Settings,
    plan: Plan,
    rng: np.random.Generator,
    batches: Sequence[int],
    rounds: range,
    ready: Sequence[Pool] = (),
) -> list[GroupRecord]:
    """Extend each batch of a group by some rounds: in each a stretch in A and roots from its own exits; then one walk.

    The batches of a group, and the roots of all rounds, ride in the same Contexts, which keeps the slots full; nothing
    else is shared. `ready` are the stretches in A of the first rounds, where they were made before.
    """
    value, importance = guide
    settings = settings.model_copy(update={"control": plan.control > 0.0})
    engine.reseed(rng)
    pools, states, parts = list(ready), [], []
    for i in range(len(rounds)):
        if i >= len(ready):
            run = run_basin(engine, state, plan.flux_lags, settings.excursion_lags)
            pools.append(run.pool)
            state = run.state
        states.append(state)
        parts += _roots_of_round(pools[i], guide, settings, plan, rng, range(i * len(batches), (i + 1) * len(batches)))
    roots = join_roots(parts, engine.problem.n_atoms)
    done = walk_roots(engine, value, importance, roots, settings, rng)
    kept = kept_paths(done, settings.failure_share, rng)
    groups = []
    for i, (index, pool) in enumerate(zip(rounds, pools, strict=True)):
        lag_time = engine.problem.lag_time
        records = tuple(
            _record(roots, done, kept, i * len(batches) + j, found, batch, index, plan.control)
            for j, (batch, found) in enumerate(zip(batches, _stretches(pool, len(batches), lag_time), strict=True))
        )
        mine = roots.batches // len(batches) == i
        lags, biased_lags = int(done.walker_lags[mine].sum()), int(done.walker_lags[mine & roots.biased].sum())
        flux_cost = 0 if i < len(ready) else len(state.positions) * plan.flux_lags * engine.problem.lag_steps
        walk_cost, calls = lags * engine.problem.lag_steps, biased_lags * engine.network_calls_per_lag
        groups.append(GroupRecord(records, states[i], flux_cost, walk_cost, calls))
    return groups


def _roots_of_round(
    pool: Pool,
    guide: tuple[ValueFunction, Importance],
    settings: Settings,
    plan: Plan,
    rng: np.random.Generator,
    numbers: range,
) -> list[Roots]:
    """Return the roots that each batch draws from its own exits, for batches that are numbered so in `Roots`."""
    value, importance = guide
    owner, parts = pool.replica // settings.replicas, []
    for i, number in enumerate(numbers):
        mine = owner == i
        if mine.any():
            exits = pool.exits[mine]
            log_u = importance(value.log_value(exits))
            roots = choose_roots(log_u, exits, pool.priors[mine], plan.n_roots, settings, rng, number)
            parts.append(replace(roots, log_weights=roots.log_weights + np.log(mine.sum())))
    return parts


def contents(
    groups: Sequence[GroupRecord],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], list[PathTree]]:
    """Return what is stored of all batches in one round, but for the replicas: arrays, numbers and kept paths."""
    records = [record for group in groups for record in group.batches]
    arrays = {
        "transitions": np.array([r.transitions for r in records]),
        "exits": np.array([r.n_exits for r in records], dtype=float),
        **{name: np.array([getattr(r, name) for r in records]) for name in TIMES},
        "ended": np.array([r.ended for r in records]),
        "root_weights": np.concatenate([r.root_weights for r in records]),
        "root_control": np.concatenate([r.root_control for r in records]),
        "root_batches": np.repeat(np.arange(len(records)), [len(r.root_weights) for r in records]),
        "root_defensive": np.concatenate([r.defensive for r in records]),
    }
    info = {
        "flux_evaluations": sum(group.flux_evaluations for group in groups),
        "production_evaluations": sum(group.walk_evaluations for group in groups),
        "network_calls": sum(group.network_calls for group in groups),
        "n_thinned": sum(r.n_thinned for r in records),
        "hidden": float(sum(r.hidden for r in records)),
    }
    return arrays, info, [r.tree for r in records if r.tree is not None]


def join_roots(parts: Sequence[Roots], n_atoms: int) -> Roots:
    """Return the roots of several batches one after the other."""
    if not parts:
        none = np.zeros((0, n_atoms, 3))
        no = np.zeros(0, dtype=bool)
        return Roots(none, none, np.zeros(0), no, no, np.zeros(0, np.int32))
    return Roots(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Roots)))


@dataclass(frozen=True)
class _Stretch:
    """A stretch of the basin simulation of one batch: counts, and times in ps."""

    n_exits: int
    n_starts: int
    time: float
    away: float
    inside: float
    lag_time: float


def _stretches(pool: Pool, n_batches: int, lag_time: float) -> list[_Stretch]:
    owner = np.arange(len(pool.n_exits)) * n_batches // len(pool.n_exits)
    n_starts = np.bincount(owner[pool.replica], minlength=n_batches)
    n_exits, away, outside = (np.bincount(owner, n, n_batches) for n in (pool.n_exits, pool.away, pool.outside))
    time = pool.time / n_batches
    return [
        _Stretch(int(exits), int(starts), time, lag_time * far, time - lag_time * out, lag_time)
        for exits, starts, far, out in zip(n_exits, n_starts, away, outside, strict=True)
    ]


def _record(
    roots: Roots, done: Walk, kept: PathTree, index: int, found: _Stretch, batch: int, round_index: int, control: float
) -> Record:
    mine = np.flatnonzero(roots.batches == index)
    if len(mine) == 0:
        times = (found.time, found.inside, found.away, 0.0, 0.0)
        none = np.zeros(0)
        return Record(found.n_exits, 0.0, *times, np.nan, none, none, 0.0, np.zeros(0, dtype=bool), 0, None)
    weights = np.exp(roots.log_weights[mine])
    shares = weights * done.success[mine]
    tree = kept.prune(roots.batches[kept.roots] == index)
    tree = replace(tree, roots=(tree.roots - mine[0]).astype(np.int32), batch=batch, round=round_index)
    ended = float((weights * done.ended[mine]).sum() / found.n_starts)
    n_thinned = int((done.n_thinned[mine] > 0).sum())
    defensive = roots.defensive[mine]
    hidden = float((weights * done.hidden[mine])[defensive].sum())
    taken = control * weights * done.martingale[mine]
    early, late, late_inside, late_exits = (
        float((weights * getattr(done.excursions, field.name)[mine]).sum()) for field in fields(Excursions)
    )
    tau = found.lag_time
    times = (found.time + tau * late, found.inside + tau * late_inside, found.away, tau * early, tau * late)
    return Record(
        found.n_exits + late_exits, float(shares.sum() - taken.sum()), *times, ended, shares, taken, hidden, defensive,
        n_thinned, tree,
    )  # fmt: skip


def kept_paths(done: Walk, failure_share: float, rng: np.random.Generator) -> PathTree:
    """Return every success path and a share of the failures, whose weights are raised to make up for the others."""
    success = done.paths.labels == TARGET
    keep = success | (rng.random(len(success)) < failure_share)
    kept = done.paths.prune(keep)
    log_weights = np.where(success[keep], kept.log_weights, kept.log_weights - np.log(max(failure_share, 1e-300)))
    return replace(kept, log_weights=log_weights)

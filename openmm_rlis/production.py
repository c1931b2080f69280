"""Production: what one batch does in one round, with V frozen.

    transitions = n_exits * sum_roots w_root W_B,      k_batch = sum_rounds transitions / sum_rounds time

The time of a stretch is fixed beforehand, so k_batch is unbiased, and batches share nothing: each has its own replicas in A, its own
exits, its own roots and its own random stream. `produce` is a pure function of the batch's state, its stream and V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .branching import Window
from .config import Settings
from .engine import Engine
from .flux import FluxState, run_flux
from .learning import Plan, choose_roots, make_engine
from .paths import PathTree
from .problem import TARGET, Problem
from .value import ValueFunction
from .walk import Roots, Walk, walk

Array = NDArray[np.float64]
PRODUCTION = 4


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random stream of a seed and a place in the run (stage, round, batch)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True)
class Record:
    """What one batch produced in one round.

    `root_weights` (n_roots,) is each root's share of `transitions`; `ended` the total weight that ended anywhere over the
    weight of all exits, 1 on average.
    """

    state: FluxState
    n_exits: int
    transitions: float
    time: float
    ended: float
    root_weights: Array
    tree: PathTree | None
    flux_evaluations: int
    walk_evaluations: int
    network_calls: int


@dataclass(frozen=True)
class Task:
    """Everything that a share of one round's batches needs, in this process or another."""

    problem: Problem
    value: dict[str, NDArray[Any]]
    settings: Settings
    plan: Plan
    state: FluxState
    seed: int
    round_index: int
    platform: str | None

    def __call__(self, batches: Sequence[int]) -> list[Record]:
        """Return the records of `batches`, in order."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            value = ValueFunction.from_arrays(self.problem.features, self.value)
            engine = make_engine(self.problem, self.settings, self.platform, value)
            return [self._one(engine, value, batch) for batch in batches]
        finally:
            torch.set_num_threads(threads)

    def _one(self, engine: Engine, value: ValueFunction, batch: int) -> Record:
        rows = slice(batch * self.settings.replicas, (batch + 1) * self.settings.replicas)
        rng = stream(self.seed, PRODUCTION, self.round_index, batch)
        return produce(engine, value, self.state.part(rows), self.settings, self.plan, rng, batch, self.round_index)


def produce(
    engine: Engine, value: ValueFunction, state: FluxState, settings: Settings, plan: Plan, rng: np.random.Generator,
    batch: int, round_index: int,
) -> Record:
    """Extend one batch by one round: a stretch in A, roots from its exits, and their walk."""
    engine.reseed(rng)
    before = engine.cost.force_evaluations, engine.cost.network_calls
    run = run_flux(engine, state, plan.flux_lags)
    flux_cost = engine.cost.force_evaluations - before[0]
    n_exits = len(run.exits)
    if n_exits == 0:
        return Record(run.state, 0, 0.0, run.time, np.nan, np.zeros(0), None, flux_cost, 0, 0)
    roots = choose_roots(value, run.exits, run.priors, plan.n_roots, settings, rng)
    roots = Roots(roots.positions, roots.priors, roots.log_weights + np.log(n_exits), roots.biased)
    window = Window(settings.window_low, settings.window_high)
    done = walk(
        engine, value.log_value, roots, window, rng, frame_stride=settings.frame_stride, max_walkers=settings.max_walkers,
        batch=batch, round_index=round_index,
    )
    weights = np.exp(roots.log_weights)
    shares = weights * done.success
    cost = engine.cost
    return Record(
        run.state, n_exits, float(shares.sum()), run.time, float((weights * done.ended).sum() / n_exits), shares,
        kept_paths(done, settings.failure_share, rng), flux_cost, cost.force_evaluations - before[0] - flux_cost,
        cost.network_calls - before[1],
    )


def kept_paths(done: Walk, failure_share: float, rng: np.random.Generator) -> PathTree:
    """Return every success path and a share of the failures, whose weights are raised to make up for the others."""
    tree = done.tree
    success = tree.labels == TARGET
    keep = success | (rng.random(len(success)) < failure_share)
    kept = tree.prune(keep)
    log_weights = np.where(success[keep], kept.log_weights, kept.log_weights - np.log(max(failure_share, 1e-300)))
    return replace(kept, log_weights=log_weights)

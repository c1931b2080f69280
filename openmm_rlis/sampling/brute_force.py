"""Brute force: brute force. Unbiased replicas in state A go on, and transitions are counted.

    k = transitions / T_A

after a `transient`, with the same regions and the same tests as the sampling, and nothing learned, biased or branched.
Copies that run side by side are grouped into batches, whose spread is the error, and batches into groups, one for each
worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..basin.exit_flux import FluxRun, FluxState, run_flux
from ..dynamics.engine import Engine, one_thread
from ..problem import TARGET, Problem
from ..statistics.initial_transient import LAGS_OF_BRUTE_FORCE
from ..storage.array_names import prefixed
from .production import PRODUCTION, stream

N_BATCHES, REPLICAS, N_LAGS = 64, 8, LAGS_OF_BRUTE_FORCE
"""Batches, replicas of each, and lags of a round."""


def evaluations(problem: Problem) -> int:
    """Return the force evaluations of a round."""
    return N_BATCHES * REPLICAS * N_LAGS * problem.lag_steps


@dataclass(frozen=True)
class CountTask:
    """Everything that one process needs for some groups of batches of a round."""

    problem: Problem
    state: FluxState
    groups: tuple[tuple[int, ...], ...]
    seed: int
    index: int
    platform: str | None

    def __call__(self, groups: Sequence[int]) -> list[FluxRun]:
        """Return what the replicas of each group did."""
        with one_thread():
            return [self._one(group) for group in groups]

    def _one(self, group: int) -> FluxRun:
        batches = self.groups[group]
        rows = slice(batches[0] * REPLICAS, (batches[-1] + 1) * REPLICAS)
        key = (self.index, group) if len(self.groups) > 1 else (self.index,)
        engine = Engine(self.problem, platform=self.platform)
        engine.reseed(stream(self.seed, PRODUCTION, *key))
        return run_flux(engine, self.state.part(rows), N_LAGS, keep_exits=False)


def contents(found: Sequence[FluxRun]) -> dict[str, NDArray[Any]]:
    """Return what is stored of a round: as of any other, without roots, and the replicas."""
    hits, n_exits = (np.concatenate([getattr(run, name) for run in found]) for name in ("hits", "n_exits"))
    time, none = np.full(N_BATCHES, sum(run.time for run in found) / N_BATCHES), np.full(N_BATCHES, np.nan)
    outside = np.concatenate([run.outside.mean(0) for run in found]).reshape(N_BATCHES, REPLICAS).mean(1)
    states = [[getattr(run.state, field.name) for run in found] for field in fields(FluxState)]
    away = np.concatenate([run.state.away for run in found])
    return {
        "spells": np.array([sum(run.spells for run in found), (away.sum(), np.square(away).sum())]),
        "transitions": hits[:, TARGET].reshape(N_BATCHES, REPLICAS).sum(1).astype(float),
        "exits": n_exits.reshape(N_BATCHES, REPLICAS).sum(1).astype(float),
        "time": time,
        "inside": time * (1.0 - outside),
        "away_basin": none,
        "away_walks": none,
        "late": none,
        "ended": none,
        "root_weights": np.empty(0),
        "root_control": np.empty(0),
        "root_batches": np.empty(0, np.int64),
        "root_defensive": np.empty(0, bool),
        **prefixed("state", FluxState(*map(np.concatenate, states)).arrays()),
    }

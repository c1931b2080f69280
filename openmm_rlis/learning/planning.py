"""Planning: how production divides its effort between the unbiased run in A and the walks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..basin.exit_flux import FluxRun
from ..config.settings import Settings
from ..problem import Problem
from ..statistics.control_variate import coefficient
from ..statistics.interim_analyses import FIRST_ANALYSIS, SECOND_ANALYSIS
from ..value_function import ValueFunction

LATE_ROUNDS = 3
MOST_READY = 2.0
ROOTS_OF_A_BATCH = 50
"""In a round, at least, unless a limit forbids it."""
FEWEST_IN_A_ROUND = 4
"""Roots of a batch, whatever the limit: from fewer nothing is learned of the error."""


def learned_control(infos: Sequence[Mapping[str, Any]]) -> float:
    """Return the coefficient of the control variate that the last rounds ask for; 0 if they measured none."""
    return coefficient(info["control_moments"] for info in infos[-LATE_ROUNDS:] if "control_moments" in info)


def walk_product(infos: Sequence[dict[str, Any]]) -> float:
    """Return the relative variance times force evaluations of the walks, as the last rounds measured it."""
    late = infos[-LATE_ROUNDS:]
    seen = [i for i in late if np.isfinite(i["relative_variance_per_root"])]
    variance = _mean_over_roots(seen, "relative_variance_per_root") if seen else 100.0
    return variance * _mean_over_roots(late, "evaluations_per_root")


def _mean_over_roots(infos: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.average([i[name] for i in infos], weights=[i.get("roots", 1) for i in infos]))


@dataclass(frozen=True)
class Plan:
    """How one production round of every batch is made: lags of the run in A, and roots; and what a root takes.

    `control` is the coefficient c of the control variate, 0 without. The first `ready_rounds` rounds take their lags in
    A from the run that brought A to equilibrium.
    """

    flux_lags: int
    n_roots: int
    frames_per_root: float
    evaluations_per_root: float
    control: float = 0.0
    ready_rounds: int = 0

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> Plan:
        """Return the plan among the numbers that are stored with it."""
        return cls(**{field.name: info[field.name] for field in fields(cls) if field.name in info})

    def evaluations(self, settings: Settings, lag_steps: int, rounds: range) -> float:
        """Return the force evaluations of all batches in some rounds, as foreseen."""
        in_source = sum(i >= self.ready_rounds for i in rounds) * settings.replicas * self.flux_lags * lag_steps
        return settings.n_batches * (in_source + len(rounds) * self.n_roots * self.evaluations_per_root)

    def fitting(self, settings: Settings, lag_steps: int, left: float) -> Plan | None:
        """Return the plan with so many roots that the first round fits into the evaluations `left`; None: too few."""
        of_roots = settings.n_batches * self.evaluations_per_root
        rest = left - self.evaluations(settings, lag_steps, range(1)) + self.n_roots * of_roots
        if self.n_roots * of_roots <= rest:
            return self
        n_roots = int(rest / max(of_roots, 1.0))
        return replace(self, n_roots=n_roots) if n_roots >= FEWEST_IN_A_ROUND else None


def make_plan(
    problem: Problem,
    value: ValueFunction,
    run: FluxRun,
    infos: Sequence[dict[str, Any]],
    settings: Settings,
    target_relative_error: float,
    budget: float,
) -> Plan:
    """Divide the effort between the run in A and the walks by their measured variances.

    With relative variance v_f / E_f from E_f evaluations of flux run (spread of V summed over the exits of a replica)
    and v_w / E_w from walking, the best division is E_f : E_w = sqrt(v_f) : sqrt(v_w). One round gets a
    FIRST_LOOK-th of what the target needs, at most `budget` evaluations. The stretches of `run` cost nothing any more:
    where they would last beyond the second look, rounds take more of it, at most twice as much, and walk less.
    """
    late = infos[-LATE_ROUNDS:]
    per_root = _mean_over_roots(late, "evaluations_per_root")
    v_walk = walk_product(infos)
    n_replicas = len(run.n_exits)
    sums = np.bincount(run.replica, np.exp(value.log_value(run.exits)), minlength=n_replicas)
    v_flux = float(sums.var() / sums.mean() ** 2) * run.n_lags * problem.lag_steps
    total = (np.sqrt(v_flux) + np.sqrt(v_walk)) ** 2 / target_relative_error**2 / FIRST_ANALYSIS
    total = max(min(total, budget), 1.0)
    share = np.sqrt(v_flux) / (np.sqrt(v_flux) + np.sqrt(v_walk))
    lags = total * share / (settings.n_batches * settings.replicas * problem.lag_steps)
    there = run.n_lags if len(run.lags) == len(run.exits) else 0  # runs made before exits had lags cannot be cut
    more = np.clip(there / SECOND_ANALYSIS / max(lags, 1.0), 1.0, MOST_READY)
    # The variance of the best division, of which less is left to the walks: 1 = share / more + (1 - share) / less.
    less = (1.0 - share) / (1.0 - share / more)
    lags, roots = lags * more, total * (1.0 - share) * less / (settings.n_batches * per_root)
    frames = float(
        np.mean([i["success_frames_per_root"] + settings.failure_share * i["frames_per_root"] for i in late])
    )
    # Heavy tails show in many roots only, and few are hardly cheaper than this many.
    fewest = np.clip(budget / (settings.n_batches * per_root), 16, ROOTS_OF_A_BATCH)
    n_roots = int(np.clip(roots, fewest, 20_000))
    n_lags = int(np.clip(lags, 20, 20_000))
    return Plan(n_lags, n_roots, frames, per_root, learned_control(infos), there // n_lags)

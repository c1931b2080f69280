"""Pilot: walk some roots from the exits of A, to learn from them and to see what a root takes.

    roots -> one share for each worker -> trials, what the walks say -> samples and numbers

The shares of a round are walked apart, each from a random stream of its own; what is learned from is drawn evenly from
the frames of all. Nothing measured here enters an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..basin.exit_flux import FluxRun
from ..config.settings import Settings
from ..dynamics.bias import Bias
from ..dynamics.engine import Engine, one_thread
from ..problem import OUTSIDE, TARGET, Problem
from ..statistics.branching import Window, draw_roots
from ..statistics.control_variate import coefficient, moments
from ..statistics.importance import Importance
from ..value_function import ValueFunction
from ..walks.branching_walk import Roots, Walk, walk
from ..walks.trap_text import watcher
from ..walks.workers import Executor
from .training import Samples, samples_of

Array = NDArray[np.float64]
MOST_SAMPLES = 30_000


def make_engine(problem: Problem, settings: Settings, platform: str | None, value: ValueFunction | None) -> Engine:
    """Return the engine that the settings ask for; without value, or with bias_scale 0, it never biases."""
    bias = None
    if value is not None and settings.bias_scale > 0.0:
        bias = Bias(value, settings.bias_scale, settings.hold_steps, settings.backend)
    return Engine(problem, settings.n_slots, platform, bias)


def choose_roots(
    log_importances: Array,
    exits: Array,
    priors: Array,
    n_roots: int,
    settings: Settings,
    rng: np.random.Generator,
    batch: int = 0,
) -> Roots:
    """Return roots drawn by importance from a pool of exits (m, n_atoms, 3); their weights sum to 1 on average."""
    index, log_weights = draw_roots(log_importances, n_roots, settings.uniform_share, rng)
    defensive = rng.permutation(n_roots) < round(settings.defensive_share * n_roots)
    biased = np.zeros(n_roots, dtype=bool)
    if settings.bias_scale > 0.0:
        biased = rng.random(n_roots) >= settings.unbiased_share
    return Roots(exits[index], priors[index], log_weights, biased, defensive, np.full(n_roots, batch, np.int32))


def walk_roots(
    engine: Engine, value: ValueFunction, importance: Importance, roots: Roots, settings: Settings,
    rng: np.random.Generator,
) -> Walk:  # fmt: skip
    """Carry roots to their ends as the settings say."""
    window = Window(settings.window_low, settings.window_high)
    stride, most = settings.frame_stride, settings.max_walkers
    return walk(
        engine, value.log_value, roots, window, rng, importance=importance, control=settings.control,
        longest=settings.excursion_lags, frame_stride=stride, max_walkers=most,
        watch=watcher(engine.problem, engine.meter),
    )  # fmt: skip


@dataclass(frozen=True)
class WalkStatistics:
    """What the walks of some roots say.

    `shares`, `martingale` and `late` (n,) are what arrived of each root, its martingale and the lags that a basin
    simulation does not see (`walkers.Excursions`), times the root's weight; `ended` is the total weight that ended.
    `samples` are at most `MOST_SAMPLES`, drawn evenly from `n_samples` frames.
    """

    shares: Array
    martingale: Array
    late: Array
    ended: float
    tallies: Array
    samples: Samples
    n_samples: int
    n_frames: int
    n_success_frames: int
    n_lags: int
    peak: int
    evaluations: int
    network_calls: int


def try_roots(
    engine: Engine, value: ValueFunction, importance: Importance, roots: Roots, settings: Settings,
    rng: np.random.Generator,
) -> WalkStatistics:  # fmt: skip
    """Walk roots and return what the walk says; the engine draws from where its random stream is."""
    cost = engine.cost
    before, calls = cost.force_evaluations, cost.network_calls
    done = walk_roots(engine, value, importance, roots, settings, rng)
    samples = samples_of(done, value, settings.decay, MOST_SAMPLES, rng)
    n_samples = int((done.frames.codes == OUTSIDE).sum())
    weights, paths = np.exp(roots.log_weights), done.paths
    success_frames = int(paths.prune(paths.labels == TARGET).n_frames)
    return WalkStatistics(
        weights * done.success, weights * done.martingale, weights * done.excursions.late,
        float((weights * done.ended).sum()), done.tallies, samples, n_samples, paths.n_frames, success_frames,
        done.n_lags, done.peak, cost.force_evaluations - before, cost.network_calls - calls,
    )  # fmt: skip


@dataclass(frozen=True)
class WalkStatisticsTask:
    """Everything that one process needs to walk some shares of the roots of a round."""

    problem: Problem
    value: dict[str, NDArray[Any]]
    importance: Importance
    settings: Settings
    platform: str | None
    deadline: float
    parts: tuple[Roots, ...]
    rngs: tuple[np.random.Generator, ...]

    def __call__(self, shares: Sequence[int]) -> list[WalkStatistics]:
        """Return the trials of shares, in order."""
        with one_thread():
            value = ValueFunction.from_arrays(self.problem.features, self.value)
            engine = make_engine(self.problem, self.settings, self.platform, value)
            engine.deadline = self.deadline
            return [self._one(engine, value, share) for share in shares]

    def _one(self, engine: Engine, value: ValueFunction, share: int) -> WalkStatistics:
        rng = self.rngs[share]
        engine.reseed(rng)
        return try_roots(engine, value, self.importance, self.parts[share], self.settings, rng)


@dataclass(frozen=True)
class WalkShares:
    """Who walks the roots of a pilot, and into how many shares they are divided."""

    executor: Executor = field(default_factory=Executor)
    n_shares: int = 1


ALONE = WalkShares()


def pilot(
    engine: Engine, value: ValueFunction, importance: Importance, run: FluxRun, settings: Settings,
    rng: np.random.Generator, crew: WalkShares = ALONE,
) -> tuple[Samples, Array, dict[str, Any]]:  # fmt: skip
    """Walk `learning_roots` roots from the exits of a run.

    The engine walks them itself, or is the pattern of those that the crew makes; it bears the cost.

    Returns
    -------
    samples
        To learn from, at most `MOST_SAMPLES`.
    tallies
        The sum of `importance.tally` over all walks.
    info
        What they say about cost and variance.
    """
    engine.reseed(rng)
    n = settings.learning_roots
    roots = choose_roots(importance(value.log_value(run.exits)), run.exits, run.priors, n, settings, rng)
    if crew.n_shares == 1:
        trials = [try_roots(engine, value, importance, roots, settings, rng)]
    else:
        trials = _shared(engine, value, importance, roots, settings, rng, crew)
    share, martingale, late = (
        n * np.concatenate([getattr(t, name) for t in trials]) for name in ("shares", "martingale", "late")
    )
    probability, measured = float(share.mean()), moments(share, martingale)
    # Of the ratio of transitions to time: a root that brings both in proportion changes nothing.
    per_lag = probability / (run.n_lags * len(run.n_exits) / max(len(run.exits), 1) + float(late.mean()))
    variance = float((share - coefficient([measured]) * martingale - per_lag * late).var())
    info = {
        "roots": n,
        "success_probability": probability,
        "relative_variance_per_root": variance / probability**2 if probability > 0 else float("nan"),
        "control_moments": measured,
        "evaluations_per_root": sum(trial.evaluations for trial in trials) / n,
        "late_lags_per_root": float(late.mean()),
        "ended": sum(trial.ended for trial in trials),
        "frames_per_root": sum(trial.n_frames for trial in trials) / n,
        "success_frames_per_root": sum(trial.n_success_frames for trial in trials) / n,
        "lags": max(trial.n_lags for trial in trials),
        "peak": sum(trial.peak for trial in trials),
    }
    return _pooled(trials, rng), np.sum([trial.tallies for trial in trials], axis=0), info


def _shared(
    engine: Engine, value: ValueFunction, importance: Importance, roots: Roots, settings: Settings,
    rng: np.random.Generator, crew: WalkShares,
) -> list[WalkStatistics]:  # fmt: skip
    """Return the trials of the crew. Neighbours among the roots are much alike, so the shares are dealt out in turn."""
    n_shares = min(crew.n_shares, len(roots.positions))
    parts = tuple(Roots(*(getattr(roots, f.name)[i::n_shares] for f in fields(Roots))) for i in range(n_shares))
    task = WalkStatisticsTask(
        engine.problem, value.arrays(), importance, settings, engine.platform_name, engine.deadline, parts,
        tuple(rng.spawn(n_shares)),
    )  # fmt: skip
    trials: list[WalkStatistics] = crew.executor.map(task, range(n_shares))
    engine.cost.force_evaluations += sum(trial.evaluations for trial in trials)
    engine.cost.network_calls += sum(trial.network_calls for trial in trials)
    return trials


def _pooled(trials: Sequence[WalkStatistics], rng: np.random.Generator) -> Samples:
    """Return samples drawn evenly from the frames of all trials."""
    if len(trials) == 1:
        return trials[0].samples
    seen = [trial.n_samples for trial in trials]
    wanted = rng.multivariate_hypergeometric(seen, MOST_SAMPLES) if sum(seen) > MOST_SAMPLES else seen
    rows = [np.sort(rng.permutation(len(t.samples))[:most]) for t, most in zip(trials, wanted, strict=True)]
    parts = [[getattr(t.samples, f.name)[r] for t, r in zip(trials, rows, strict=True)] for f in fields(Samples)]
    return Samples(*map(np.concatenate, parts))

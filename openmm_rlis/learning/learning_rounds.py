"""Learning: from exits of A to a frozen value function, with nothing asked of the user.

    start:   adaptive multilevel splitting on the distance to B against A  ->  first ln V
    rounds:  walk roots with the present V and importance (`pilot`), fit both networks to the returns, repeat,
             for as long as that is cheap beside what production will take

Each round is (lessons so far, rng) -> lesson. The exits are those of the unbiased run in A before
production; nothing measured here enters an estimate, but the last rounds say how production should divide its effort
(`plan`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..basin.exit_flux import FluxRun
from ..config.run_config import Settings
from ..dynamics.engine import Engine
from ..features import evaluate
from ..problem import Problem
from ..statistics.control_variate import FEWEST_ARRIVALS, NONE, coefficient
from ..statistics.importance import N_BINS, UNTEMPERED, Importance, fit
from ..storage.array_names import prefixed, unprefixed
from ..value_function import ValueFunction, feature_statistics
from ..walks.adaptive_splitting import find_target, make_score, split
from ..walks.trap_text import watcher
from .pilot import ALONE, Crew, pilot
from .training import Samples, train

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float64]
REPLAYED_ROUNDS = 4
LATE_ROUNDS = 3
MOST_LEARNING = 3
WORTHWHILE = 4.0
FEWEST_ROOTS = 10
FIRST_LOOK, SECOND_LOOK = 3, 4
MOST_READY = 2.0
ROOTS_OF_A_BATCH = 50
"""In a round, at least, unless a limit forbids it."""
FEWEST_IN_A_ROUND = 4
"""Roots of a batch, whatever the limit: from fewer nothing is learned of the error."""


@dataclass(frozen=True)
class Lesson:
    """What a round of learning leaves behind: the value after it, its samples and tallies, numbers for a person."""

    value: ValueFunction
    samples: Samples
    tallies: Array
    info: dict[str, Any]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all but `info` as named arrays, for storage."""
        samples = prefixed("samples", asdict(self.samples))
        return {**prefixed("value", self.value.arrays()), **samples, "tallies": self.tallies}

    @classmethod
    def from_arrays(cls, features: nn.Module, arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]) -> Lesson:
        """Return the lesson that `arrays` was called on; early ones kept no tallies."""
        value = ValueFunction.from_arrays(features, unprefixed("value", arrays))
        tallies = arrays.get("tallies", np.zeros((3, N_BINS)))
        return cls(value, Samples(**unprefixed("samples", arrays)), tallies, dict(info))

    @classmethod
    def given(cls, value: ValueFunction) -> Lesson:
        """Return a value function that was given, as a lesson without samples."""
        none = Samples(np.empty((0, len(value.mean))), np.empty(0))
        return cls(value, none, np.zeros((3, N_BINS)), {})


def cold_start(
    engine: Engine, run: FluxRun, settings: Settings, rng: np.random.Generator,
    report: Callable[[str], None] = lambda _: None,
) -> Lesson:  # fmt: skip
    """Return a first value function from adaptive multilevel splitting; `report` is told of every level."""
    problem = engine.problem
    engine.reseed(rng)
    source = run.state.last_in_source
    target = None if problem.target.feature is not None else find_target(problem, engine, rng)
    engine.reseed(rng)
    score, watch = make_score(problem, source, target), watcher(problem, engine.meter)
    found = split(engine, score, run.exits, rng, report=report, watch=watch)
    statistics = feature_statistics(problem, found.frames, source, found.arrivals, found.dead_ends)
    value = ValueFunction(problem.features, statistics, settings.coarse_share, rng=rng)
    samples = Samples(evaluate(problem.features, found.frames), found.frame_log_values)
    train(value, [samples], rng, loss=settings.loss, epochs=30, fewest_steps=1500, learning_rate=1e-2)
    info = {"levels": found.n_levels, "log_probability": found.log_probability, "arrivals": len(found.arrivals)}
    return Lesson(value.eval(), samples, np.zeros((3, N_BINS)), info)


def learned_importance(history: Sequence[Lesson]) -> Importance:
    """Return the importance that the last rounds ask for."""
    return fit(np.sum([lesson.tallies for lesson in history[-LATE_ROUNDS:]], axis=0))


def learned_control(infos: Sequence[Mapping[str, Any]]) -> float:
    """Return the coefficient of the control variate that the last rounds ask for; 0 if they measured none."""
    return coefficient(info["control_moments"] for info in infos[-LATE_ROUNDS:] if "control_moments" in info)


def roots_to_learn_from(
    history: Sequence[Lesson], n_rounds: int, settings: Settings, target_error: float, left: float = math.inf
) -> int:
    """Return how many roots the next round of learning should walk; 0 ends it.

    The planned rounds take `learning_roots` each; half of them are enough when the walks of production are foreseen to
    take less than learning has taken. Up to twice as many follow while nobody arrives, or while the walks of production
    are foreseen to take more than four times what the last three rounds took, or more than these took if too few roots
    arrived in them to tell what is foreseen (first rounds may be dear, and say nothing of what a later one takes). Each
    of these takes twice the roots of the round before, at most eight times those of a planned one; no more evaluations
    than all rounds before it, and no more than a quarter of those that are `left` before a limit, so that production
    gets its part.
    """
    planned, n_roots = settings.learning_rounds, settings.learning_roots
    if n_rounds < min(max(LATE_ROUNDS, planned / 2), planned):
        return n_roots
    if n_rounds >= MOST_LEARNING * planned:
        return 0
    spent = sum(float(lesson.info["learning_evaluations"]) for lesson in history)
    last = history[-1].info
    foreseen = min(walk_product([lesson.info for lesson in history]) / target_error**2, left)
    late = [lesson.info for lesson in history[-LATE_ROUNDS:]]
    known = sum(info.get("control_moments", NONE)[2] for info in late) >= FEWEST_ARRIVALS
    spent_late = sum(float(info["learning_evaluations"]) for info in late)
    enough = spent if n_rounds < planned else (WORTHWHILE if known else 1.0) * spent_late
    if last["success_probability"] > 0.0 and foreseen <= enough:
        return 0
    if n_rounds < planned:
        return n_roots
    affordable = min(spent, left / WORTHWHILE) / max(last["evaluations_per_root"], 1.0)
    n_more = int(min(2 * last.get("roots", n_roots), 8 * n_roots, affordable))
    return n_more if n_more >= FEWEST_ROOTS else 0


def walk_product(infos: Sequence[dict[str, Any]]) -> float:
    """Return the relative variance times force evaluations of the walks, as the last rounds measured it."""
    late = infos[-LATE_ROUNDS:]
    seen = [i for i in late if np.isfinite(i["relative_variance_per_root"])]
    variance = _mean_over_roots(seen, "relative_variance_per_root") if seen else 100.0
    return variance * _mean_over_roots(late, "evaluations_per_root")


def _mean_over_roots(infos: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.average([i[name] for i in infos], weights=[i.get("roots", 1) for i in infos]))


def learn_round(
    engine: Engine, history: Sequence[Lesson], run: FluxRun, settings: Settings, rng: np.random.Generator,
    crew: Crew = ALONE,
) -> Lesson:  # fmt: skip
    """Walk with the last lesson's V, take returns, and fit a copy of it to them and to those of earlier lessons.

    The cold start, the first of `history`, is learned from as well until a round before this one has reached B: returns
    that are all zero say nothing of where V grows.
    """
    value = history[-1].value
    samples, tallies, info = pilot(engine, value, learned_importance(history), run, settings, rng, crew)
    learner = ValueFunction.from_arrays(value.features, value.arrays())
    first, *rounds = history
    walked = [*[lesson.samples for lesson in rounds], samples][-REPLAYED_ROUNDS:]
    arrived = any(lesson.info["success_probability"] > 0.0 for lesson in rounds)
    loss = train(learner, walked if arrived else [first.samples, *walked], rng, loss=settings.loss)
    return Lesson(learner.eval(), samples, tallies, {**info, "loss": loss})


def pilot_lesson(
    engine: Engine, given: Lesson, run: FluxRun, settings: Settings, rng: np.random.Generator, crew: Crew = ALONE
) -> Lesson:
    """Return what a plan needs to know of a value function that is not trained: one given, or without rounds."""
    _, tallies, info = pilot(engine, given.value, UNTEMPERED, run, settings, rng, crew)
    return Lesson(given.value, given.samples, tallies, info)


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
    total = (np.sqrt(v_flux) + np.sqrt(v_walk)) ** 2 / target_relative_error**2 / FIRST_LOOK
    total = max(min(total, budget), 1.0)
    share = np.sqrt(v_flux) / (np.sqrt(v_flux) + np.sqrt(v_walk))
    lags = total * share / (settings.n_batches * settings.replicas * problem.lag_steps)
    there = run.n_lags if len(run.lags) == len(run.exits) else 0  # runs made before exits had lags cannot be cut
    more = np.clip(there / SECOND_LOOK / max(lags, 1.0), 1.0, MOST_READY)
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


def is_look(n_rounds: int) -> bool:
    """Whether a run may stop for its error after so many rounds: 3, 4, 6, 8, 12, 16, 24 ...

    An estimated error is low now and then by chance; the oftener it is looked at, the more surely a run stops when it
    is, above all while there is little to estimate it from.
    """
    while n_rounds > SECOND_LOOK and n_rounds % 2 == 0:
        n_rounds //= 2
    return n_rounds in (FIRST_LOOK, SECOND_LOOK)


def rounds_to_look(n_rounds: int, most: int) -> int:
    """Return how many rounds follow `n_rounds` until the next look, at most `most`."""
    return next(n for n in range(1, most + 1) if n == most or is_look(n_rounds + n))

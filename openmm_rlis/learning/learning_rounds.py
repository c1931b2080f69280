"""Learning rounds: from exits of A to a frozen value function, with nothing asked of the user.

    start:   adaptive multilevel splitting on the distance to B against A  ->  first ln V
    rounds:  walk roots with the present V and importance (`pilot`), fit both networks to the returns, repeat,
             for as long as that is cheap beside what production will take

Each round is (lessons so far, rng) -> lesson. The exits are those of the unbiased run in A before
production; nothing measured here enters an estimate, but the last rounds say how production should divide its effort
(`planning`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..basin.exit_flux import FluxRun
from ..config.settings import Settings
from ..dynamics.engine import Engine
from ..features import evaluate
from ..statistics.control_variate import FEWEST_ARRIVALS, NONE
from ..statistics.importance import N_BINS, UNTEMPERED, Importance, fit
from ..storage.array_names import prefixed, unprefixed
from ..value_function import ValueFunction, feature_statistics
from ..walks.adaptive_splitting import find_target, make_score, split
from ..walks.trap_text import watcher
from .pilot import ALONE, WalkShares, pilot
from .planning import LATE_ROUNDS, walk_product
from .training import Samples, train

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float64]
REPLAYED_ROUNDS = 4
MOST_LEARNING = 3
WORTHWHILE = 4.0
FEWEST_ROOTS = 10


@dataclass(frozen=True)
class LearningRound:
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
    def from_arrays(
        cls, features: nn.Module, arrays: Mapping[str, NDArray[Any]], info: Mapping[str, Any]
    ) -> LearningRound:
        """Return the lesson that `arrays` was called on; early ones kept no tallies."""
        value = ValueFunction.from_arrays(features, unprefixed("value", arrays))
        tallies = arrays.get("tallies", np.zeros((3, N_BINS)))
        return cls(value, Samples(**unprefixed("samples", arrays)), tallies, dict(info))

    @classmethod
    def given(cls, value: ValueFunction) -> LearningRound:
        """Return a value function that was given, as a lesson without samples."""
        none = Samples(np.empty((0, len(value.mean))), np.empty(0))
        return cls(value, none, np.zeros((3, N_BINS)), {})


def cold_start(
    engine: Engine, run: FluxRun, settings: Settings, rng: np.random.Generator,
    report: Callable[[str], None] = lambda _: None,
) -> LearningRound:  # fmt: skip
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
    return LearningRound(value.eval(), samples, np.zeros((3, N_BINS)), info)


def learned_importance(history: Sequence[LearningRound]) -> Importance:
    """Return the importance that the last rounds ask for."""
    return fit(np.sum([lesson.tallies for lesson in history[-LATE_ROUNDS:]], axis=0))


def roots_to_learn_from(
    history: Sequence[LearningRound], n_rounds: int, settings: Settings, target_error: float, left: float = math.inf
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


def learn_round(
    engine: Engine, history: Sequence[LearningRound], run: FluxRun, settings: Settings, rng: np.random.Generator,
    crew: WalkShares = ALONE,
) -> LearningRound:  # fmt: skip
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
    return LearningRound(learner.eval(), samples, tallies, {**info, "loss": loss})


def pilot_round(
    engine: Engine,
    given: LearningRound,
    run: FluxRun,
    settings: Settings,
    rng: np.random.Generator,
    crew: WalkShares = ALONE,
) -> LearningRound:
    """Return what a plan needs to know of a value function that is not trained: one given, or without rounds."""
    _, tallies, info = pilot(engine, given.value, UNTEMPERED, run, settings, rng, crew)
    return LearningRound(given.value, given.samples, tallies, info)

"""Learning: root weights, plans, and rounds that teach V what it should know.

Stochastic asserts: 64 replicas, Student |t| < 4.5 (false alarm 3e-5).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from seeds import with_offset
from systems_1d import double_well

from openmm_rlis.basin.exit_flux import FluxRun, initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.learning.learning_rounds import LearningRound, cold_start, learn_round, roots_to_learn_from
from openmm_rlis.learning.pilot import choose_roots, make_engine
from openmm_rlis.learning.planning import Plan, make_plan
from openmm_rlis.statistics.interim_analyses import is_interim_analysis, rounds_to_interim_analysis
from openmm_rlis.value_function import ValueFunction

LINE = double_well(6.0, 0.5)
SETTINGS = Settings(n_batches=8, replicas=8, learning_roots=200, n_slots=256)


@pytest.fixture(scope="module")
def start() -> tuple[Engine, FluxRun, LearningRound]:
    problem = LINE.problem()
    engine = Engine(problem, 256)
    engine.reseed(np.random.default_rng(with_offset(1)))
    run = run_flux(engine, run_flux(engine, initial_state(problem, 64), 100).state, 300)
    return engine, run, cold_start(engine, run, SETTINGS, np.random.default_rng(with_offset(2)))


def test_root_weights_undo_the_choice(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    """E[sum_j w_j h(x_j)] is the mean of h over the pool, here for h = q, V and 1."""
    _, run, lesson = start
    log_v = lesson.value.log_value(run.exits)
    q = LINE.committor(run.exits)
    sums = []
    for i in range(64):
        roots = choose_roots(log_v, run.exits, run.priors, 20, SETTINGS, np.random.default_rng(with_offset(i)), batch=3)
        weights = np.exp(roots.log_weights)
        sums.append([weights.sum(), weights @ LINE.committor(roots.positions)])
        assert (roots.batches == 3).all() and not roots.biased.any()
    for column, truth in zip(np.array(sums).T, (1.0, q.mean()), strict=True):
        assert abs(column.mean() - truth) < 4.5 * column.std(ddof=1) / 8.0
    assert np.isfinite(log_v).all()


def test_a_share_of_roots_feels_the_bias(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    _, run, lesson = start
    settings = SETTINGS.model_copy(update={"bias_scale": 0.5, "unbiased_share": 0.25})
    log_v = lesson.value.log_value(run.exits)
    roots = choose_roots(log_v, run.exits, run.priors, 4000, settings, np.random.default_rng(with_offset(1)))
    assert abs(roots.biased.mean() - 0.75) < 4.5 * math.sqrt(0.25 * 0.75 / 4000)  # false alarm 7e-6
    half = settings.model_copy(update={"defensive_share": 0.5})
    roots = choose_roots(log_v, run.exits, run.priors, 4001, half, np.random.default_rng(with_offset(1)))
    assert roots.defensive.sum() == 2000 and 0.7 < roots.biased[roots.defensive].mean() < 0.8


def test_engines_bias_only_when_asked(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    value = start[2].value
    assert make_engine(LINE.problem(), SETTINGS, None, value).bias is None
    assert make_engine(LINE.problem(), SETTINGS.model_copy(update={"bias_scale": 1.0}), None, None).bias is None
    assert make_engine(LINE.problem(), SETTINGS.model_copy(update={"bias_scale": 1.0}), None, value).bias is not None


def test_rounds_learn_and_keep_what_they_were_given(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    """After three rounds ln V is nearer to ln q than after the cold start; P is in sight.

    With 1000 roots a round: 200 leave P uncertain by a third, and ln V then wanders by as much as the start is off.
    """
    engine, run, first = start
    settings = SETTINGS.model_copy(update={"learning_roots": 1000})
    before = {k: v.copy() for k, v in first.value.arrays().items()}
    history = [first]
    for i in range(3):
        lesson = learn_round(engine, history, run, settings, np.random.default_rng([with_offset(3), i]))
        history = [*history, lesson]
    value, infos = lesson.value, [lesson.info for lesson in history[1:]]
    assert all(np.array_equal(before[k], v) for k, v in first.value.arrays().items())
    x = np.zeros((20, 1, 3))
    x[:, 0, 0] = np.linspace(-0.6, 0.7, 20)
    log_q = np.log(LINE.committor(x))
    assert np.abs(value.log_value(x) - log_q).mean() < np.abs(first.value.log_value(x) - log_q).mean()
    exact = LINE.committor(run.exits).mean()
    mean = np.mean([i["success_probability"] for i in infos])
    variances = [i["relative_variance_per_root"] * i["success_probability"] ** 2 for i in infos]
    spread = np.sqrt(np.sum(variances) / 1000) / 3
    assert abs(mean - exact) < 5.0 * spread
    numbers = {"ended", "evaluations_per_root", "frames_per_root", "success_frames_per_root", "lags", "peak", "loss"}
    assert numbers <= set(infos[0])


def test_the_cold_start_is_learned_from_until_a_round_arrives(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    """Rounds of ten roots that never arrive leave V as it is where no walker has been, and finite everywhere."""
    engine, run, first = start
    few = SETTINGS.model_copy(update={"learning_roots": 10})
    near = np.linspace(-0.9, 0.9, 50)[:, None, None] * np.array([1.0, 0.0, 0.0])
    history = [first]
    for i in range(12):
        lesson = learn_round(engine, history, run, few, np.random.default_rng([with_offset(5), i]))
        samples = replace(lesson.samples, log_targets=np.full(len(lesson.samples), -np.inf))
        lesson = replace(lesson, samples=samples, info={**lesson.info, "success_probability": 0.0})
        history = [*history, lesson]
    before, after = first.value.log_value(near), lesson.value.log_value(near)
    assert np.isfinite(after).all()
    assert after[-1] > -1.0 and after[-1] - after[0] > 0.5 * (before[-1] - before[0])


def test_plans_divide_the_effort(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    _, run, lesson = start
    problem = LINE.problem()

    def plan(variance: float, error: float = 0.1, budget: float = math.inf) -> tuple[int, int]:
        info = {
            "evaluations_per_root": 500.0, "relative_variance_per_root": variance,
            "success_frames_per_root": 2.0, "frames_per_root": 10.0,
        }  # fmt: skip
        made = make_plan(problem, lesson.value, run, [info], SETTINGS, error, budget)
        assert made.frames_per_root == pytest.approx(2.0 + SETTINGS.failure_share * 10.0)
        return made.flux_lags, made.n_roots

    assert plan(400.0)[1] > plan(40.0)[1]
    tight, loose = plan(40.0, 0.02), plan(40.0, 0.04)
    assert tight[0] == pytest.approx(4 * loose[0], rel=0.1) and tight[1] == pytest.approx(4 * loose[1], rel=0.1)
    assert plan(float("nan"))[1] > 16
    assert plan(40.0, budget=0.0) == (20, 16)
    info = {"evaluations_per_root": 500.0, "relative_variance_per_root": 4e4}
    info |= {"success_frames_per_root": 1.0, "frames_per_root": 1.0}
    made = make_plan(problem, lesson.value, run, [info], SETTINGS, 0.02, 4e6)
    foreseen = made.evaluations(SETTINGS, problem.lag_steps, range(made.ready_rounds, made.ready_rounds + 1))
    assert foreseen == pytest.approx(4e6, rel=0.05)


def test_a_run_in_the_source_that_is_there_is_planned_with(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    """A long run costs nothing any more: rounds take up to twice as much of it and walk less, for the same variance."""
    _, run, lesson = start
    variance, per_root, steps = 100.0, 500.0, LINE.lag_steps
    info = {"evaluations_per_root": per_root, "relative_variance_per_root": variance}
    info |= {"success_frames_per_root": 1.0, "frames_per_root": 1.0}

    def plan(n_lags: int, few: int, many: int, **changed: Any) -> tuple[Plan, float]:
        """Half of the replicas have few exits, half many; return the plan and the relative variance it foresees."""
        counts = np.array([few, many] * (len(run.n_exits) // 2))
        owner = np.repeat(np.arange(len(counts)), counts)
        exits = np.repeat(run.exits[:1], len(owner), axis=0)
        left = np.stack([owner, 0 * owner], axis=1)
        nowhere = np.zeros((1, len(counts)), bool)
        made = FluxRun(
            run.state, exits, exits, owner, 0 * owner, left, run.hits, counts, nowhere, nowhere, n_lags, 1.0
        )  # fmt: skip
        made = replace(made, **changed)
        best = make_plan(LINE.problem(), lesson.value, made, [info], SETTINGS, 0.02, math.inf)
        v_flux = ((many - few) / (many + few)) ** 2 * n_lags * steps
        of_flux = v_flux / (3 * SETTINGS.n_batches * SETTINGS.replicas * best.flux_lags * steps)
        return best, of_flux + variance / (3 * SETTINGS.n_batches * best.n_roots)

    (short, a), (long, b), (longest, c) = plan(250, 800, 1200), plan(20_000, 9776, 10_224), plan(100_000, 990, 1010)
    assert a == pytest.approx(0.02**2, rel=0.02) and b == pytest.approx(a, rel=0.02) and c == pytest.approx(a, rel=0.02)
    assert short.flux_lags < long.flux_lags < longest.flux_lags and short.n_roots > long.n_roots > longest.n_roots
    assert longest.flux_lags == pytest.approx(2 * short.flux_lags, rel=0.02)
    assert long.flux_lags == 20_000 // 4 and long.ready_rounds == 4
    assert longest.ready_rounds == 100_000 // longest.flux_lags and short.ready_rounds == 250 // short.flux_lags
    early, _ = plan(20_000, 9776, 10_224, lags=np.zeros(0, int))
    assert early.ready_rounds == 0 and early.flux_lags == pytest.approx(short.flux_lags, rel=0.02)
    free = long.evaluations(SETTINGS, steps, range(1))
    paid = long.evaluations(SETTINGS, steps, range(long.ready_rounds, long.ready_rounds + 1))
    assert paid - free == SETTINGS.n_batches * SETTINGS.replicas * long.flux_lags * steps


def test_the_same_stream_teaches_the_same(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    engine, run, first = start
    found = []
    for used in (engine, Engine(LINE.problem(), 256)):
        lesson = learn_round(used, [first], run, SETTINGS, np.random.default_rng(with_offset(8)))
        found.append(lesson.value.arrays())
    assert all(np.array_equal(found[0][k], found[1][k]) for k in found[0])
    assert isinstance(lesson.value, ValueFunction)


def test_learning_goes_on_while_it_is_cheap_beside_production(start: tuple[Engine, FluxRun, LearningRound]) -> None:
    def lessons(
        n: int, variance: float, cost: float = 1e5, roots: int = 200, p: float = 1e-3, arrived: int = 4
    ) -> list[LearningRound]:
        info = {"relative_variance_per_root": variance, "evaluations_per_root": cost / roots, "roots": roots}
        info |= {"success_probability": p, "learning_evaluations": cost, "control_moments": (0.0, 0.0, arrived)}
        return [replace(start[2], info=info)] * n

    planned = SETTINGS.learning_rounds
    assert roots_to_learn_from([start[2]], 0, SETTINGS, 0.1) == 200
    assert roots_to_learn_from(lessons(planned - 1, 1e9), planned - 1, SETTINGS, 0.1) == 200
    # 500 evaluations a root: the walks take 500 variance / 0.1^2, three rounds took 3e5; worth it from 4 times that.
    assert roots_to_learn_from(lessons(planned, 23.0), planned, SETTINGS, 0.1) == 0
    assert roots_to_learn_from(lessons(planned, 25.0), planned, SETTINGS, 0.1) == 400
    first_dear = lessons(planned - 3, 25.0, cost=1e7) + lessons(3, 25.0)
    assert roots_to_learn_from(first_dear, planned, SETTINGS, 0.1) == 400
    # With nine arrivals in the last three rounds little is known: worth it from what these took.
    assert roots_to_learn_from(lessons(planned, 7.0, arrived=3), planned, SETTINGS, 0.1) == 400
    assert roots_to_learn_from(lessons(planned, 5.0, arrived=3), planned, SETTINGS, 0.1) == 0
    assert roots_to_learn_from(lessons(planned, 47.0), planned, SETTINGS, 0.05) == 400
    assert roots_to_learn_from(lessons(planned, float("nan"), p=0.0), planned, SETTINGS, 0.1) == 400
    assert roots_to_learn_from(lessons(planned, 1e9, roots=400), planned, SETTINGS, 0.1) == 800
    assert roots_to_learn_from(lessons(planned, 1e9, roots=1600), planned, SETTINGS, 0.1) == 1600
    # What a limit leaves bounds production, and learning takes no more than a quarter of it.
    assert roots_to_learn_from(lessons(planned, 1e9), planned, SETTINGS, 0.1, left=1.1e6) == 0
    assert roots_to_learn_from(lessons(planned, 1e9, cost=1e4), planned, SETTINGS, 0.1, left=1e6) == 400
    assert roots_to_learn_from(lessons(planned, 1e9, cost=1e6), planned, SETTINGS, 0.1, left=2.5e7) == 400
    assert roots_to_learn_from(lessons(planned, 1e9), planned, SETTINGS, 0.1, left=0.0) == 0
    assert roots_to_learn_from(lessons(planned, 0.0, p=0.0), planned, SETTINGS, 0.1, left=1e5) == 50
    dear = lessons(planned - 1, 1e9) + lessons(1, 1e9, cost=4e6)  # no round takes more than all before it
    assert roots_to_learn_from(dear, planned, SETTINGS, 0.1) == 200 + 5 * 1e5 // (4e6 / 200)
    assert roots_to_learn_from(lessons(3 * planned, 1e9), 3 * planned, SETTINGS, 0.1) == 0


def test_rounds_made_together_never_pass_a_look() -> None:
    assert [n for n in range(1, 50) if is_interim_analysis(n)] == [3, 4, 6, 8, 12, 16, 24, 32, 48]
    after = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 20)
    assert [rounds_to_interim_analysis(n, 4) for n in after] == [3, 2, 1, 1, 2, 1, 2, 4, 4, 4, 4]
    assert {rounds_to_interim_analysis(n, 1) for n in range(20)} == {1}

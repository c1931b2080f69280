"""Splitting: B is reached, ln P agrees with the exact committor, and what cannot be reached is said to be so.

Stochastic assert: mean of P over 24 replicas with their own streams, Student |t| < 4.6 (false alarm 1e-4).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from seeds import with_offset
from systems_1d import Line, double_well

from openmm_rlis import Region
from openmm_rlis.basin.exit_flux import FluxRun, initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import UnreachableError
from openmm_rlis.features import evaluate
from openmm_rlis.learning.learning_rounds import cold_start
from openmm_rlis.problem import OUTSIDE, TARGET, Problem
from openmm_rlis.walks.adaptive_splitting import MOST_PER_BIN, Splitting, find_target, make_score, split

LINE = double_well(8.0, 0.5, balls=True)
PREDICATES = double_well(8.0, 0.5)


def prepared(problem: Problem, seed: int = 1) -> tuple[Engine, FluxRun]:
    engine = Engine(problem, 256)
    engine.reseed(np.random.default_rng(with_offset(seed)))
    state = run_flux(engine, initial_state(problem, 64), 100, keep_exits=False).state
    return engine, run_flux(engine, state, 200)


def repeated(line: Line, n: int, n_paths: int) -> tuple[list[Splitting], FluxRun]:
    problem = line.problem()
    engine, run = prepared(problem)
    rng = np.random.default_rng(with_offset(4))
    target = None if line.balls else np.array([[[1.0, 0.0, 0.0]]])
    score = make_score(problem, run.state.last_in_source, target)
    engine.reseed(rng)
    return [split(engine, score, run.exits, rng, n_paths=n_paths) for _ in range(n)], run


@pytest.fixture(scope="module", params=["balls", "predicates"])
def found(request: pytest.FixtureRequest) -> tuple[Line, list[Splitting], FluxRun]:
    line = LINE if request.param == "balls" else PREDICATES
    return line, *repeated(line, 24, 100)


def test_probability_agrees_with_the_exact_committor(found: tuple[Line, list[Splitting], FluxRun]) -> None:
    line, splits, run = found
    exact = line.committor(run.exits).mean()
    p = np.exp([s.log_probability for s in splits])
    assert exact < 2e-3
    assert abs(p.mean() - exact) < 4.6 * p.std(ddof=1) / np.sqrt(len(p)), (p.mean(), p.std(ddof=1), exact)
    assert p.std(ddof=1) < 1.5 * exact  # brute force with 100 paths would have 2.2 or more


def test_arrivals_and_levels(found: tuple[Line, list[Splitting], FluxRun]) -> None:
    line, splits, _ = found
    problem = line.problem()
    for s in splits[:4]:
        assert (problem.label(s.arrivals) == TARGET).all() and len(s.arrivals) >= 50
        assert (np.diff(s.level_scores) > 0).all()
        assert (np.diff(s.level_log_values) >= 0).all()
        assert s.level_log_values[0] == s.log_probability and s.level_log_values[-1] == 0.0
        assert len(s.frames) == len(s.frame_log_values)
        assert np.unique(np.floor(2.0 * s.frame_log_values), return_counts=True)[1].max() <= MOST_PER_BIN
        assert (s.frame_log_values <= 0.0).all() and (s.frame_log_values >= s.log_probability - 1e-9).all()


def test_every_level_is_told() -> None:
    engine, run = prepared(LINE.problem())
    told: list[str] = []
    score = make_score(engine.problem, run.state.last_in_source, None)
    found = split(engine, score, run.exits, np.random.default_rng(with_offset(3)), n_paths=40, report=told.append)
    assert len(told) == found.n_levels and told[0].startswith("level 1: score ")


def test_first_value_follows_the_committor(found: tuple[Line, list[Splitting], FluxRun]) -> None:
    """ln V over the frames, where 1e-3 < q < 1: within a factor of e^1.5 on average; it is only a start."""
    line, splits, _ = found
    s = splits[0]
    outside = line.problem().label(s.frames) == OUTSIDE
    log_q = np.log(line.committor(s.frames[outside]))
    error = (s.frame_log_values[outside] - log_q)[log_q > np.log(1e-3)]
    assert np.abs(error).mean() < 1.5


def test_both_parts_of_the_first_value_reach_down_to_the_exits() -> None:
    """P is about e^-13: a part that stops halfway down is a plateau on which no walker splits."""
    engine, run = prepared(double_well(16.0, 0.5, balls=True).problem())
    lesson = cold_start(engine, run, Settings(), np.random.default_rng(with_offset(6)))
    found = lesson.info["log_probability"]
    assert found < -9.0
    value = lesson.value
    with torch.no_grad():
        parts = value.log_parts(*value.inputs(torch.as_tensor(evaluate(value.features, run.exits))))
    assert [abs(float(part.mean()) - found) < 2.5 for part in parts] == [True, True]


@pytest.mark.parametrize("balls", [True, False])
def test_cold_start_makes_a_value_that_rises(balls: bool) -> None:
    line = LINE if balls else PREDICATES
    problem = line.problem()
    engine, run = prepared(problem)
    lesson = cold_start(engine, run, Settings(), np.random.default_rng(with_offset(6)))
    x = np.zeros((5, 1, 3))
    x[:, 0, 0] = np.linspace(-0.6, 0.7, 5)
    log_v = lesson.value.log_value(x)
    assert (np.diff(log_v) > 0).all()
    assert log_v[-1] - log_v[0] > 0.5
    assert lesson.info["arrivals"] > 0 and np.isfinite(lesson.info["log_probability"])


def test_a_predicate_target_is_found_by_heat() -> None:
    problem = PREDICATES.problem()
    engine = Engine(problem, 64)
    found = find_target(problem, engine, np.random.default_rng(with_offset(1)))
    assert (problem.label(found) == TARGET).all()
    assert engine.cost.force_evaluations > 0  # the search is paid for
    assert problem.kT == pytest.approx(1.0)  # and the problem is not left hot


def test_a_reference_of_the_target_saves_the_search() -> None:
    problem = PREDICATES.problem(references={"B": [[1.1, 0.0, 0.0]]})
    engine = Engine(problem, 64)
    assert find_target(problem, engine, np.random.default_rng(with_offset(1))) == pytest.approx(
        np.array([[[1.1, 0.0, 0.0]]])
    )
    assert engine.cost.force_evaluations == 0


def test_an_unreachable_predicate_is_said_to_be_so() -> None:
    line = double_well(8.0, 0.5)
    problem = line.problem()
    problem.target = Region.where(lambda x: x[:, 0, 0] > 50.0, "B")
    with pytest.raises(UnreachableError, match="no structure in B"):
        find_target(problem, Engine(problem, 64), np.random.default_rng(with_offset(1)), max_lags=20)


def test_an_unreachable_ball_is_said_to_be_so() -> None:
    """A wall that no path climbs: 3 kJ/mol nm^4 at x = 40 is 7e6 kT."""
    problem = double_well(8.0, 0.5, target=(40.0, 42.0), balls=True).problem()
    engine, run = prepared(problem)
    score = make_score(problem, run.state.last_in_source, None)
    with pytest.raises(UnreachableError, match=r"after [0-9]+ levels"):
        split(engine, score, run.exits, np.random.default_rng(with_offset(2)), n_paths=20, max_levels=15, max_lags=300)


def test_the_score_runs_from_a_to_b() -> None:
    problem = LINE.problem()
    score = make_score(problem, np.zeros((1, 1, 3)), None)
    x = np.zeros((3, 1, 3))
    x[:, 0, 0] = [LINE.source[0] * 0.5 + LINE.source[1] * 0.5, 0.0, 0.5 * (LINE.target[0] + LINE.target[1])]
    found = score(x)
    assert found[[0, 2]] == pytest.approx([0.0, 1.0], abs=1e-9) and 0.0 < found[1] < 1.0
    with torch.no_grad():
        assert (np.diff(score(np.linspace(x[0], x[2], 9))) > 0).all()

"""Basin simulation and walks together: rate, flux and time of the endless chain, however far excursions are followed.

Exact numbers come from the discretised chain of one lag (`oracles`). Stochastic asserts: replicas are independent,
errors come from their spread, |z| < 4.5 each (false alarm 7e-6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from seeds import with_offset
from systems_1d import Line
from test_exit_flux import LIVELY, z_score
from test_inner_region import CORE

from openmm_rlis.basin.basin_simulation import NOT_YET, correlation, equilibrate, run_basin, start_state
from openmm_rlis.basin.exit_flux import FluxRun, FluxState, initial_state
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.problem import SOURCE, Problem
from openmm_rlis.statistics.branching import Window
from openmm_rlis.walks.branching_walk import Roots, Walk, walk

Array = NDArray[np.float64]
SIGMAS, N_REPLICAS, N_LAGS = 4.5, 512, 500
# U = x^2 (x^2 - 1.2^2)^2 scaled: wells at -1.2, 0 and 1.2, barriers of 2.2 kT, M in the middle is no region.
C, H = 1.44, 5.0
HIDDEN = Line(
    (0.0, 0.1, H * C * C, 0.0, -2.0 * H * C, 0.0, H), start=-1.2, source=(-9.0, -0.95), target=(1.0, 9.0),
    timestep=0.002, lag_steps=5, reach=1.9,
)  # fmt: skip
HIDDEN_CORE = replace(HIDDEN, source=(-1.35, -1.1))


@dataclass(frozen=True)
class Case:
    line: Line
    core: Line | None
    longest: int

    @property
    def problem(self) -> Problem:
        problem = self.line.problem()
        return problem if self.core is None else problem.with_core(self.core.problem().source)


CASES = {
    f"{name}-{longest}": Case(line, core, longest)
    for name, line, core in (
        ("lively", LIVELY, None),
        ("lively-core", LIVELY, CORE),
        ("hidden", HIDDEN, None),
        ("hidden-core", HIDDEN, HIDDEN_CORE),
    )
    for longest in (0, 12)
}


@dataclass(frozen=True)
class Sampled:
    case: Case
    run: FluxRun
    done: Walk

    def sums(self, of_a_root: Array) -> Array:
        return np.bincount(self.run.replica, of_a_root, minlength=N_REPLICAS)

    @property
    def time(self) -> Array:
        """Time in state A of each replica."""
        return self.run.time / N_REPLICAS + self.case.line.chain.lag_time * self.sums(self.done.excursions.late)


@pytest.fixture(scope="module", params=CASES)
def sampled(request: pytest.FixtureRequest) -> Sampled:
    """Walks from all exits, by a V that knows nothing, so that they split and play roulette."""
    case = CASES[request.param]
    engine = Engine(case.problem, 512)
    engine.reseed(np.random.default_rng(with_offset(1)))
    relaxed = run_basin(engine, start_state(engine.problem, N_REPLICAS), 400, case.longest)
    run = run_basin(engine, relaxed.state, N_LAGS, case.longest)

    def log_value(x: Array) -> Array:
        return np.asarray(1.5 * np.sin(4.0 * x[:, 0, 0]))

    no = np.zeros(len(run.exits), dtype=bool)
    roots = Roots(run.exits, run.priors, np.zeros(len(no)), no, no, np.zeros(len(no), np.int32))
    window, rng = Window(0.3, 1.5), np.random.default_rng(with_offset(4))
    return Sampled(case, run, walk(engine, log_value, roots, window, rng, longest=case.longest, frame_stride=50))


def test_transitions_over_time_are_the_rate(sampled: Sampled) -> None:
    exact, transitions = sampled.case.line.chain.endless, sampled.sums(sampled.done.success)
    assert transitions.sum() > 100
    assert abs(z_score(transitions - exact.rate * sampled.time, 0.0)) < SIGMAS


def test_exits_over_time_are_the_flux(sampled: Sampled) -> None:
    exits = sampled.run.n_exits + sampled.sums(sampled.done.excursions.late_exits)
    assert abs(z_score(exits - sampled.case.line.chain.endless.flux * sampled.time, 0.0)) < SIGMAS


def test_time_inside_is_that_of_the_chain(sampled: Sampled) -> None:
    chain = sampled.case.line.chain
    mu_a = chain.stationary[chain.source].sum()
    share = mu_a / (chain.stationary[chain.source | chain.outside] @ committor_back(sampled.case.line))
    inside = (~sampled.run.outside).sum(0) + sampled.sums(sampled.done.excursions.late_inside)
    assert abs(z_score(chain.lag_time * inside - share * sampled.time, 0.0)) < SIGMAS


def committor_back(line: Line) -> Array:
    """The probability, for each node of A and outside, that A was the last region; by time reversal of the chain."""
    chain = line.chain
    mine, o = chain.source | chain.outside, chain.outside
    reverse = (chain.stationary[None] * chain.matrix.T) / np.maximum(chain.stationary[:, None], 1e-300)
    q = chain.source.astype(float)
    q[o] = np.linalg.solve(np.eye(int(o.sum())) - reverse[np.ix_(o, o)], reverse[np.ix_(o, chain.source)].sum(1))
    return q[mine]


def test_walks_see_the_first_lags_as_the_basin_simulation_does(sampled: Sampled) -> None:
    early = sampled.sums(sampled.done.excursions.early)
    if sampled.case.longest == 0:
        assert not early.any() and not sampled.run.away.any()
        return
    assert abs(z_score(sampled.run.away.sum(0) - early, 0.0)) < SIGMAS


def test_all_weight_ends(sampled: Sampled) -> None:
    assert abs(z_score(sampled.sums(sampled.done.ended - 1.0), 0.0)) < SIGMAS


def test_the_late_time_is_needed() -> None:
    """The power of these tests: without it the rate of the hidden intermediate is wrong by far."""
    line = HIDDEN
    engine = Engine(line.problem(), 512)
    engine.reseed(np.random.default_rng(with_offset(2)))
    relaxed = run_basin(engine, start_state(engine.problem, N_REPLICAS), 400, 3)
    run = run_basin(engine, relaxed.state, N_LAGS, 3)
    found = np.bincount(run.replica, line.committor(run.exits), minlength=N_REPLICAS)
    assert z_score(found - line.chain.endless.rate * run.time / N_REPLICAS, 0.0) > 4.0 * SIGMAS


def test_replicas_stay_near_the_core(sampled: Sampled) -> None:
    state, longest = sampled.run.state, sampled.case.longest
    assert state.away.min() >= 0 and state.away.max() <= longest
    problem = sampled.case.problem
    assert (problem.label(state.last_in_source) == SOURCE).all()
    assert np.array_equal(problem.label(state.positions) == SOURCE, state.away == 0)
    assert (problem.label(sampled.run.priors) == SOURCE).all() and (problem.label(sampled.run.exits) != SOURCE).all()


def test_a_start_outside_the_core_finds_it() -> None:
    problem = HIDDEN.problem().with_core(replace(HIDDEN, source=(-1.1, -1.0), start=-1.05).problem().source)
    engine = Engine(problem, 64)
    engine.reseed(np.random.default_rng(with_offset(3)))
    state = start_state(problem, 64)
    assert (state.away == NOT_YET).all()
    moved = run_basin(engine, state, 3000, 5).state
    assert (moved.away >= 0).all() and (problem.label(moved.last_in_source) == SOURCE).all()


def test_a_run_is_stored_and_cut() -> None:
    problem = CASES["lively-core-12"].problem
    engine = Engine(problem, 64)
    engine.reseed(np.random.default_rng(with_offset(3)))
    whole = run_basin(engine, start_state(problem, 16), 110, 12)
    again = FluxRun.from_arrays(whole.arrays(), 110, whole.time)
    engine.reseed(np.random.default_rng(with_offset(3)))
    state = start_state(problem, 16)
    for pool in again.stretches(50):
        run = run_basin(engine, state, 50, 12)
        state = run.state
        for name in ("exits", "priors", "replica", "n_exits", "away", "outside"):
            assert np.array_equal(getattr(pool, name), getattr(run.pool, name)), name
    assert len(again.stretches(50)) == 2


# Equilibrium


def test_correlation() -> None:
    rng = np.random.default_rng(with_offset(1))
    a, b = rng.normal(size=(2, 500))
    assert correlation(a, 0.6 * a + 0.8 * b) == pytest.approx(np.corrcoef(a, 0.6 * a + 0.8 * b)[0, 1])
    assert correlation(a, np.zeros(500)) == 0.0


@dataclass
class Trapped:
    """A run in which replicas fall into a trap every `every` lags, stay there for `stays`, and leave A 0.05 times a lag
    elsewhere: `rate` times a lag in equilibrium."""

    every: float
    stays: float
    rng: np.random.Generator

    @property
    def rate(self) -> float:
        return 0.05 * self.every / (self.every + self.stays)

    def __call__(self, engine: Engine, state: FluxState, n_lags: int, keep_exits: bool = True) -> FluxRun:
        n = len(state.positions)
        free, exits = state.away == 0, np.zeros(n, int)
        for _ in range(n_lags // 16):
            exits += self.rng.poisson(0.05 * 16 * free)
            free ^= self.rng.random(n) < np.where(free, 16 / self.every, 16 / self.stays)
        who, state = np.repeat(np.arange(n), exits), replace(state, away=np.where(free, 0, 1))
        x, none = np.zeros((len(who), 1, 3)), np.zeros((n_lags, 0), bool)
        left, hits = np.stack([who, 0 * who], axis=1), np.zeros((n, 3), int)
        return FluxRun(state, x, x, who, 0 * who, left, hits, exits, none, none, n_lags, float(n_lags * n))


@pytest.mark.parametrize(("every", "stays"), [(6000.0, 3000.0), (1500.0, 6000.0), (3000.0, 500.0)])
def test_a_trap_within_a_is_waited_for(monkeypatch: pytest.MonkeyPatch, every: float, stays: float) -> None:
    """Nobody is in the trap at first. 12 runs each settle, within 3 % of the rate on average (5 errors of the mean)."""
    found = []
    for seed in range(12):
        run = Trapped(every, stays, np.random.default_rng(with_offset(seed)))
        monkeypatch.setattr("openmm_rlis.basin.basin_simulation.run_flux", run)
        last, n_lags, settled = equilibrate(Engine(LIVELY.problem(), 4), 400)
        assert settled and n_lags > 2.0 * stays
        found.append(last.n_exits.mean() / n_lags / run.rate)
    assert abs(np.mean(found) - 1.0) < 0.03


def test_a_trap_that_is_not_left_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "openmm_rlis.basin.basin_simulation.run_flux", Trapped(20_000.0, 1e6, np.random.default_rng(with_offset(1)))
    )
    assert not equilibrate(Engine(LIVELY.problem(), 4), 200)[2]


def test_initial_states_agree_where_there_is_no_core() -> None:
    problem = LIVELY.problem()
    for a, b in zip(
        start_state(problem, 3).arrays().values(), initial_state(problem, 3).arrays().values(), strict=True
    ):
        assert np.array_equal(a, b)

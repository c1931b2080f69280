"""Core: a run and walks from a part of A give the rate and the paths of A itself.

Stochastic asserts: replicas are independent, errors come from their spread, |z| < 4.5 each (false alarm 7e-6). The
core is much smaller than A and transitions are not rare, so that most runs start anew outside the core: a walk that
were forgotten would show, and a test says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from seeds import with_offset
from short_training import shorten
from systems_1d import Line, double_well
from test_exit_flux import LIVELY, z_score

import openmm_rlis as rlis
from openmm_rlis.basin.basin_simulation import run_basin, start_state
from openmm_rlis.basin.exit_flux import FluxRun, first_exits, initial_state, run_flux
from openmm_rlis.basin.inner_region import LAGS_PER_EXIT, Core, RadiusRecorder, exit_rate
from openmm_rlis.basin.inner_region import RARE as RARELY
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError
from openmm_rlis.paths.tree import PathTree
from openmm_rlis.problem import OUTSIDE, SOURCE, TARGET, Problem
from openmm_rlis.report import plot_data
from openmm_rlis.results.result import Result
from openmm_rlis.statistics.branching import Window
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.walks.branching_walk import Roots, Walk, walk

SIGMAS, LONGEST = 4.5, 10
N_REPLICAS = 512
# Of (-0.75, 0.5): restarts are at its ends.
CORE = replace(LIVELY, source=(-0.25, 0.1))
RARE = double_well(5.0, 0.5, timestep=0.001, source=(-1.6, -0.4))
RARE_BALLS = replace(RARE, balls=True, target=(0.4, 1.6))


def inner(problem: Problem) -> Problem:
    return problem.with_core(CORE.problem().source)


@pytest.fixture(scope="module")
def run() -> FluxRun:
    problem = inner(LIVELY.problem())
    engine = Engine(problem, 512)
    engine.reseed(np.random.default_rng(with_offset(1)))
    relaxed = run_flux(engine, initial_state(problem, N_REPLICAS), 1500, keep_exits=False)
    return run_flux(engine, relaxed.state, 1500)


def replica_sums(run: FluxRun, what: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(run.replica, what, minlength=N_REPLICAS)


def test_the_run_is_the_one_without_a_core(run: FluxRun) -> None:
    engine = Engine(LIVELY.problem(), 512)
    engine.reseed(np.random.default_rng(with_offset(1)))
    relaxed = run_flux(engine, initial_state(engine.problem, N_REPLICAS), 1500, keep_exits=False)
    plain = run_flux(engine, relaxed.state, 1500)
    assert np.array_equal(plain.n_exits, run.n_exits) and np.array_equal(plain.hits, run.hits)
    assert np.array_equal(plain.left, run.left) and plain.time == run.time
    assert np.array_equal(plain.state.last_in_source, run.state.last_in_source)
    assert np.array_equal(plain.left, np.stack([plain.replica, plain.lags], axis=1))


def test_committors_of_the_exits_from_a_core_sum_to_the_transitions(run: FluxRun) -> None:
    """f(y) = P_y(B before the core and D), exact; per replica the sum of f has the hits of B as its expectation."""
    sums = replica_sums(run, CORE.committor(run.exits))
    time = run.time / N_REPLICAS
    assert abs(z_score(sums / time, LIVELY.chain.endless.rate)) < SIGMAS
    assert abs(z_score(sums - run.hits[:, TARGET], 0.0)) < SIGMAS
    starts_anew = (run.exits == run.priors).all(axis=(1, 2))
    assert starts_anew.sum() > 100
    forgetful = replica_sums(run, CORE.committor(run.exits) * ~starts_anew)
    assert abs(z_score(forgetful - run.hits[:, TARGET], 0.0)) > 2.0 * SIGMAS  # the test has the power to see it


def test_exits_lie_outside_the_core(run: FluxRun) -> None:
    problem = inner(LIVELY.problem())
    anew = (run.exits == run.priors).all(axis=(1, 2))
    assert (problem.label(run.exits) != SOURCE).all()
    assert (problem.label(run.priors[~anew]) == SOURCE).all()
    codes, inside = problem.classify(run.exits[anew])
    assert (codes == OUTSIDE).all() and inside.all()


@pytest.fixture(scope="module")
def walked() -> tuple[FluxRun, Walk]:
    """Walks from all exits of a basin simulation, by a V that knows nothing, so that they split and play roulette."""
    problem = inner(LIVELY.problem())
    engine = Engine(problem, 512)
    engine.reseed(np.random.default_rng(with_offset(2)))
    relaxed = run_basin(engine, start_state(problem, N_REPLICAS), 300, LONGEST)
    run = run_basin(engine, relaxed.state, 600, LONGEST)

    def log_value(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(2.0 * np.sin(4.0 * x[:, 0, 0]))

    n = len(run.exits)
    no = np.zeros(n, dtype=bool)
    roots = Roots(run.exits, run.priors, np.zeros(n), no, no, np.zeros(n, np.int32))
    return run, walk(
        engine,
        log_value,
        roots,
        Window(0.3, 1.5),
        np.random.default_rng(with_offset(4)),
        longest=LONGEST,
        frame_stride=7,
    )


def times(walked: tuple[FluxRun, Walk]) -> NDArray[np.float64]:
    """The time in state A of each replica, ps."""
    run, done = walked
    return run.time / N_REPLICAS + LIVELY.chain.lag_time * replica_sums(run, done.excursions.late)


def test_walks_bring_the_rate(walked: tuple[FluxRun, Walk]) -> None:
    run, done = walked
    expected = LIVELY.chain.endless.rate * times(walked)
    assert abs(z_score(replica_sums(run, done.success) - expected, 0.0)) < SIGMAS
    assert abs(z_score(replica_sums(run, done.ended - 1.0), 0.0)) < SIGMAS


def test_paths_are_those_of_the_whole_of_a(walked: tuple[FluxRun, Walk]) -> None:
    """As many of each kind as in the endless chain, from the last place in A to the first one back in a region."""
    run, done = walked
    paths, problem = done.paths, LIVELY.problem()
    codes = problem.label(np.asarray(paths.positions, dtype=float))
    first, last = paths.parents < 0, np.zeros(paths.n_frames, dtype=bool)
    last[paths.leaves] = True
    assert (codes[first] == SOURCE).all() and (codes[~first & ~last] == OUTSIDE).all()
    assert np.array_equal(codes[paths.leaves], paths.labels)
    assert (paths.lags[first] == 0).all() and (paths.lags[~first] > paths.lags[paths.parents[~first]]).all()
    second = ~first & (paths.parents >= 0) & first[paths.parents]
    assert (paths.lags[second] == 1).all()  # one lag from the last test in A to the exit
    weights, exact = np.exp(paths.log_weights), LIVELY.chain.endless
    failures = exact.flux - exact.rate - exact.rate_others
    for code, rate in ((1, failures), (2, exact.rate), (3, exact.rate_others)):
        mine = paths.labels == code
        brought = replica_sums(run, np.bincount(paths.roots[mine], weights[mine], minlength=len(run.exits)))
        assert brought.sum() > 300
        assert abs(z_score(brought - rate * times(walked), 0.0)) < SIGMAS, code


def test_without_a_core_walks_are_paths(run: FluxRun) -> None:
    engine = Engine(LIVELY.problem(), 64)
    engine.reseed(np.random.default_rng(with_offset(1)))
    plain = run_flux(engine, initial_state(engine.problem, 32), 100)
    no = np.zeros(len(plain.exits), dtype=bool)
    roots = Roots(plain.exits, plain.priors, np.zeros(len(no)), no, no, np.zeros(len(no), np.int32))
    done = walk(engine, lambda x: np.zeros(len(x)), roots, Window(0.0, np.inf), np.random.default_rng(with_offset(1)))
    assert isinstance(done.paths, PathTree) and done.paths is done.tree


def test_a_run_with_a_core_can_be_cut_into_stretches() -> None:
    problem = inner(LIVELY.problem())

    def engine() -> Engine:
        found = Engine(problem, 64)
        found.reseed(np.random.default_rng(with_offset(3)))
        return found

    whole = run_flux(engine(), initial_state(problem, 16), 110)
    again, moving, state = FluxRun.from_arrays(whole.arrays(), 110, whole.time), engine(), initial_state(problem, 16)
    for pool in again.stretches(50):
        run = run_flux(moving, state, 50)
        state = run.state
        for name in ("exits", "priors", "replica", "n_exits"):
            assert np.array_equal(getattr(pool, name), getattr(run.pool, name)), name
        assert 0 < pool.n_exits.sum() != len(pool.exits)
    part = whole.pool.part(np.arange(4, 12), 16)
    assert np.array_equal(part.n_exits, whole.n_exits[4:12])


def test_a_target_that_overlaps_with_a_outside_the_core_is_named() -> None:
    problem = LIVELY.problem()
    problem.target = LIVELY.region((0.4, 9.0), "B")  # A reaches to 0.5
    x = np.array([[[0.45, 0.0, 0.0]]])
    with pytest.raises(InputError, match=r"^regions: expected disjoint sets, got a structure in both A and B"):
        inner(problem).classify(x)
    assert inner(problem).classify(x + 0.5)[0][0] == TARGET


# Which core


def test_the_core_is_the_largest_that_is_left_often_enough() -> None:
    rng = np.random.default_rng(with_offset(1))
    d = np.abs(rng.normal(size=(4000, 50)))  # no memory: the core of share p is left p (1 - p) times a lag
    seen = RadiusRecorder(RARE.problem(), 0)
    seen.rows, seen.center, seen.scale = [np.where(row < 3.5, row, np.inf) for row in d], np.zeros(3), np.ones(3)
    core = seen.core()
    assert core is not None and exit_rate(d, core.radius) == pytest.approx(1.0 / LAGS_PER_EXIT, rel=0.1)
    share = float((d <= core.radius).mean())
    assert share * (1.0 - share) == pytest.approx(1.0 / LAGS_PER_EXIT, rel=0.1) and share > 0.9
    for edge, left in ((3.0, True), (2.0, False)):  # A itself is left every 370 lags, or every 22
        seen.rows = [np.where(row < edge, row, np.inf) for row in d]
        assert (exit_rate(np.array(seen.rows), np.inf) < 1.0 / RARELY) == left == (seen.core() is not None)
    seen.rows = [np.full(50, np.inf)] * 3
    assert seen.core() is None


@pytest.mark.parametrize("line", [RARE, RARE_BALLS], ids=["predicates", "balls"])
def test_where_exits_are_rare_there_is_a_core(line: Line) -> None:
    problem = line.problem()
    engine = Engine(problem, 256)
    engine.reseed(np.random.default_rng(with_offset(1)))
    found, core = first_exits(engine)
    assert core is not None and engine.problem.has_core and not problem.has_core
    x = np.zeros((400, 1, 3))
    x[:, 0, 0] = np.linspace(-2.0, 1.5, 400)
    in_core, in_a = engine.problem.label(x) == SOURCE, problem.label(x) == SOURCE
    assert 0 < in_core.sum() < in_a.sum() and in_a[in_core].all()
    assert np.array_equal(engine.problem.classify(x)[1], in_a)
    assert 0.5 / LAGS_PER_EXIT < len(found.exits) / (found.n_lags * 200) < 2.0 / LAGS_PER_EXIT
    again = Core.from_arrays(core.arrays()).region(problem)
    assert np.array_equal(again.contains(x), in_core)
    engine = Engine(problem, 256)
    engine.reseed(np.random.default_rng(with_offset(1)))
    assert first_exits(engine, may_have_core=False)[1] is None


TINY: dict[str, Any] = {
    "seed": 3, "target_relative_error": 0.4,
    "settings": Settings(n_batches=6, replicas=4, learning_rounds=2, learning_roots=40, n_slots=64),
}  # fmt: skip


def numbers(result: Result) -> dict[str, Any]:
    found = json.loads((result.directory / "result.json").read_text())
    del found["cost"]["seconds"]
    return found


def test_the_core_is_kept_when_a_run_is_resumed_or_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in learning and resumed: the same numbers. With two workers and a bias: another run, that works."""
    shorten(monkeypatch)
    whole = rlis.run(RARE.problem(), tmp_path / "whole", **TINY)
    told = 0

    def kill(progress: Any) -> None:
        nonlocal told
        told += progress.stage == "learning"
        if told == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rlis.run(RARE.problem(), tmp_path / "killed", **TINY, progress=kill)
    assert numbers(rlis.resume(tmp_path / "killed", RARE.problem())) == numbers(whole)
    settings = TINY["settings"].model_copy(update={"bias_scale": 0.3})
    spread = rlis.run(RARE_BALLS.problem(), tmp_path / "spread", **{**TINY, "settings": settings}, workers=2)
    assert spread.stopped == "target" and abs(spread.ended.value - 1.0) < 5.0 * spread.ended.standard_error
    assert "core/radius" in RunDirectory.open(spread.directory).read_round("start", 0).arrays


def test_learning_rounds_show_the_rate_of_the_whole_of_a(tmp_path: Path) -> None:
    result = rlis.run(RARE.problem(), tmp_path / "run", **TINY)
    lessons = plot_data.load(result.directory).lessons
    assert 0.2 < lessons[-1]["rate"] / result.rate.value < 5.0  # exits from A are ten times rarer than from the core


def test_whole_runs_agree_with_the_exact_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight seeds, the Student t of their mean at a false-alarm rate of 1e-4; and the core is in the run directory."""
    shorten(monkeypatch)
    settings = Settings(n_batches=8, replicas=8, learning_rounds=3, learning_roots=60, n_slots=128)
    options: dict[str, Any] = {"settings": settings, "target_relative_error": 0.2}
    problem, exact = RARE.problem(), RARE.chain.endless
    results = [rlis.run(problem, tmp_path / str(i), seed=with_offset(i), **options) for i in range(8)]
    k = np.array([r.rate.value for r in results]) / exact.rate
    assert abs(k.mean() - 1.0) < 7.9 * k.std(ddof=1) / np.sqrt(len(k)), k
    flux = np.array([r.flux.value for r in results]) / exact.flux
    assert abs(flux.mean() - 1.0) < 7.9 * flux.std(ddof=1) / np.sqrt(len(k)), flux
    for result in results:
        assert "core/radius" in RunDirectory.open(result.directory).read_round("start", 0).arrays
        paths = result.paths
        for i in range(len(paths)):
            codes = problem.label(paths.positions(i).astype(float))
            assert codes[0] == SOURCE and codes[-1] != OUTSIDE and (codes[1:-1] == OUTSIDE).all()

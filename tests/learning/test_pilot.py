"""Pilot: roots that several processes share say what those of one do, and what is learned from is drawn evenly.

Stochastic asserts: independent repeats, errors from their spread, Student |t| < 4.5 with 23 degrees of freedom (false
alarm 2e-4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from seeds import with_offset
from systems_1d import double_well

from openmm_rlis.basin.basin_simulation import SettleTask, equilibrate
from openmm_rlis.basin.exit_flux import FluxRun, initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.learning import pilot as module
from openmm_rlis.learning.learning_rounds import LearningRound, cold_start, learn_round
from openmm_rlis.learning.pilot import ALONE, WalkShares, WalkStatistics, pilot
from openmm_rlis.learning.training import Samples
from openmm_rlis.statistics.importance import UNTEMPERED
from openmm_rlis.storage.cost_meter import LimitError
from openmm_rlis.walks.workers import Executor

LINE = double_well(6.0, 0.5)
SETTINGS = Settings(n_batches=8, replicas=8, learning_roots=200, n_slots=256)
THREE = WalkShares(n_shares=3)
Start = tuple[Engine, FluxRun, LearningRound]


class OneByOne(Executor):
    """Does the last item first, each in a call of its own."""

    def map(self, function: Callable[[Sequence[int]], list[Any]], items: Sequence[int]) -> list[Any]:
        return [found for item in reversed(items) for found in function([item])][::-1]


@pytest.fixture(scope="module")
def start() -> Start:
    problem = LINE.problem()
    engine = Engine(problem, 256)
    engine.reseed(np.random.default_rng(with_offset(1)))
    run = run_flux(engine, run_flux(engine, initial_state(problem, 64), 100).state, 300)
    return engine, run, cold_start(engine, run, SETTINGS, np.random.default_rng(with_offset(2)))


def told(start: Start, crew: WalkShares, seed: int, **settings: Any) -> tuple[Samples, dict[str, Any]]:
    engine, run, first = start
    changed = SETTINGS.model_copy(update=settings)
    samples, _, info = pilot(
        engine, first.value, UNTEMPERED, run, changed, np.random.default_rng(with_offset(seed)), crew
    )
    return samples, info


def test_shared_roots_say_what_one_process_says(start: Start) -> None:
    exact = LINE.committor(start[1].exits).mean()
    found = {crew: [told(start, crew, seed)[1] for seed in range(24)] for crew in (ALONE, THREE)}
    for infos in found.values():
        p = np.array([info["success_probability"] for info in infos])
        assert abs(p.mean() - exact) < 4.5 * p.std(ddof=1) / math.sqrt(24)
        norm = np.array([info["ended"] for info in infos])
        assert abs(norm.mean() - 1.0) < 4.5 * norm.std(ddof=1) / math.sqrt(24)
    for name in ("evaluations_per_root", "frames_per_root"):
        alone, three = (np.array([info[name] for info in found[crew]]) for crew in (ALONE, THREE))
        z = (alone.mean() - three.mean()) / np.hypot(alone.std(ddof=1), three.std(ddof=1)) * math.sqrt(24)
        assert abs(z) < 4.5
    assert set(found[ALONE][0]) == set(found[THREE][0])


def test_the_engine_bears_the_cost_of_the_crew(start: Start) -> None:
    engine = start[0]
    before = engine.cost.force_evaluations
    _, info = told(start, THREE, 1)
    assert engine.cost.force_evaluations - before == round(info["evaluations_per_root"] * 200)


def test_shares_do_not_depend_on_who_walks_them(start: Start) -> None:
    one_by_one = WalkShares(OneByOne(), 3)
    engine, run, first = start
    lessons = [
        learn_round(engine, [first], run, SETTINGS, np.random.default_rng(with_offset(3)), c)
        for c in (THREE, one_by_one)
    ]
    a, b = (lesson.arrays() for lesson in lessons)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_more_shares_than_roots(start: Start) -> None:
    samples, info = told(start, WalkShares(n_shares=9), 1, learning_roots=4)
    assert info["roots"] == 4 and len(samples) > 0


def test_samples_are_drawn_evenly_from_the_frames_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred samples of 300 and 700 frames, of which the second trial kept but a hundred: 30 and 70 on average."""
    monkeypatch.setattr(module, "MOST_SAMPLES", 100)

    def trial(n: int, kept: int, mark: float) -> WalkStatistics:
        given = {f.name: np.zeros(0) for f in fields(WalkStatistics)}
        samples = Samples(np.full((kept, 2), mark), np.arange(kept, dtype=float))
        return replace(WalkStatistics(**given), samples=samples, n_samples=n)

    first, last = [], []
    for seed in range(400):
        pooled = module._pooled([trial(300, 100, 1.0), trial(700, 100, 2.0)], np.random.default_rng(with_offset(seed)))
        assert len(pooled) == 100 and pooled.features.shape == (100, 2)
        first.append((pooled.features[:, 0] == 1.0).sum())
        last.append(pooled.log_targets[pooled.features[:, 0] == 2.0].mean())
    # Hypergeometric: sd 4.35 of the count; the mean of 70 of 0 .. 99 has sd 1.9. False alarm 7e-6 each.
    assert abs(np.mean(first) - 30.0) < 4.5 * 4.35 / 20.0
    assert abs(np.mean(last) - 49.5) < 4.5 * 1.9 / 20.0
    few = module._pooled([trial(30, 30, 1.0), trial(60, 60, 2.0)], np.random.default_rng(with_offset(1)))
    assert len(few) == 90


def test_a_deadline_holds_for_the_crew(start: Start) -> None:
    engine = start[0]
    engine.deadline = 0.0
    try:
        with pytest.raises(LimitError):
            told(start, THREE, 1)
        with pytest.raises(LimitError):
            SettleTask(LINE.problem(), 8, 64, 16, None, np.random.default_rng(with_offset(1)), 0.0)()
    finally:
        engine.deadline = math.inf


def test_equilibrium_is_the_same_apart() -> None:
    windows: list[int] = []
    task = SettleTask(LINE.problem(), 16, 64, 12, None, np.random.default_rng(with_offset(1)), math.inf)
    run, n_lags, settled, cost = task(lambda window, rate, evaluations: windows.append(evaluations))
    engine = Engine(LINE.problem(), 64)
    engine.reseed(np.random.default_rng(with_offset(1)))
    there, n_there, settled_there = equilibrate(engine, 16, longest=12)
    assert (n_lags, settled, cost) == (n_there, settled_there, engine.cost.force_evaluations)
    assert np.array_equal(run.exits, there.exits) and windows == sorted(windows) and windows[-1] == cost

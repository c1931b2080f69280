"""Production: the expected transitions of a stretch, kept paths, and groups that change no expectation.

Stochastic asserts: every batch is a replica (64 of them), spread between batches, Student |t| < 4.5 (false alarm 3e-5).
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from seeds import with_offset
from systems_1d import Line, double_well, triple_well

from openmm_rlis.basin.exit_flux import FluxRun, FluxState, initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.learning.pilot import make_engine
from openmm_rlis.learning.planning import Plan
from openmm_rlis.sampling.production import GroupRecord, Task, join_roots, produce, stream
from openmm_rlis.statistics.importance import Importance
from openmm_rlis.value_function import ValueFunction

BATCHES = 64
DOUBLE, TRIPLE = double_well(4.0, 0.5), triple_well(8.0, 0.4)
TEMPERED = Importance(np.array([-6.0, -3.0, -1.0]), np.array([0.0, 2.5, 3.0]))
SETTINGS = Settings(n_batches=BATCHES, replicas=4, failure_share=0.3, n_slots=256)


def wrong_value(line: Line, seed: int = 1) -> ValueFunction:
    problem, rng = line.problem(), np.random.default_rng(with_offset(seed))
    ends = {"center_source": np.array([-1.0, 0.0, 0.0]), "center_target": np.array([1.0, 0.0, 0.0])}
    value = ValueFunction(problem.features, {"mean": np.zeros(3), "scale": np.ones(3), **ends}, rng=rng)
    arrays = value.arrays()
    for name in ("fine.4.weight", "coarse.4.weight"):
        arrays[name] = rng.normal(0.0, 1.0, arrays[name].shape)
    return ValueFunction.from_arrays(problem.features, arrays)


def a_run(line: Line, n: int, lags: int) -> FluxRun:
    """An unbiased run of some replicas after they have settled."""
    problem = line.problem()
    engine = make_engine(problem, SETTINGS, None, None)
    engine.reseed(np.random.default_rng(with_offset(1)))
    return run_flux(engine, run_flux(engine, initial_state(problem, n), 400, keep_exits=False).state, lags)


def settled(line: Line, n: int) -> FluxState:
    return a_run(line, n, 0).state


def produced(line: Line, settings: Settings = SETTINGS, lags: int = 250, control: float = 0.0) -> GroupRecord:
    value = wrong_value(line)
    engine = make_engine(line.problem(), settings, None, value)
    state = settled(line, BATCHES * settings.replicas)
    plan = Plan(lags, 24, 1.0, 1.0, control)
    rng = np.random.default_rng(with_offset(5))
    return produce(engine, (value, TEMPERED), state, settings, plan, rng, range(BATCHES), range(3, 4))[0]


def agree(samples: NDArray[np.float64], truth: float) -> bool:
    return bool(abs(samples.mean() - truth) < 4.5 * samples.std(ddof=1) / np.sqrt(len(samples)))


@pytest.mark.parametrize(
    ("line", "bias_scale"), [(DOUBLE, 0.0), (TRIPLE, 0.0), (DOUBLE, 1.0)], ids=["double", "triple", "double biased"]
)
def test_transitions_agree_with_the_exact_rate(line: Line, bias_scale: float) -> None:
    made = produced(line, SETTINGS.model_copy(update={"bias_scale": bias_scale, "hold_steps": 3}))
    time = np.array([r.time for r in made.batches])
    assert time == pytest.approx(SETTINGS.replicas * 250 * line.timestep * line.lag_steps)
    exact = line.chain.endless
    assert agree(np.array([r.transitions for r in made.batches]) / time, exact.rate)
    assert agree(np.array([r.n_exits for r in made.batches]) / time, exact.flux)
    ended = np.array([r.ended for r in made.batches])
    assert agree(ended[np.isfinite(ended)], 1.0)


@pytest.mark.parametrize("line", [DOUBLE, TRIPLE], ids=["double", "triple"])
def test_the_control_variate_of_a_wrong_value_changes_no_expectation(line: Line) -> None:
    """With the best coefficient of a right V, far too much for this wrong one; and what it takes is zero on average."""
    made = produced(line, control=1.0)
    found = np.array([r.transitions for r in made.batches])
    arrived = np.array([r.root_weights.sum() for r in made.batches])
    time = made.batches[0].time
    assert agree(found / time, line.chain.endless.rate)
    assert agree(found - arrived, 0.0) and np.abs(found - arrived).min() > 0.0


@pytest.fixture(scope="module")
def made() -> GroupRecord:
    return produced(DOUBLE)


def test_kept_paths_carry_the_weights(made: GroupRecord) -> None:
    for batch, record in enumerate(made.batches):
        assert record.tree is not None
        won = record.tree.labels == 2
        assert np.exp(record.tree.log_weights[won]).sum() == pytest.approx(record.root_weights.sum(), rel=1e-12)
        assert (record.tree.batch, record.tree.round) == (batch, 3)
        assert record.tree.roots.size == 0 or 0 <= record.tree.roots.min() <= record.tree.roots.max() < 24
        by_root = np.bincount(record.tree.roots[won], np.exp(record.tree.log_weights[won]), minlength=24)
        assert by_root == pytest.approx(record.root_weights, rel=1e-12)


def test_kept_failures_are_unbiased(made: GroupRecord) -> None:
    """Kept failures stand for all: their weight is n_exits ended - transitions on average; difference over batches."""
    difference = []
    for record in made.batches:
        assert record.tree is not None
        lost = np.exp(record.tree.log_weights[record.tree.labels != 2]).sum()
        difference.append((lost + record.root_weights.sum() - record.n_exits * record.ended) / record.n_exits)
    assert agree(np.array(difference), 0.0)
    assert np.std(difference) > 0.0


def test_all_or_no_failures_can_be_kept() -> None:
    for share in (0.0, 1.0):
        group = produced(DOUBLE, SETTINGS.model_copy(update={"failure_share": share}), lags=30)
        for record in group.batches:
            if record.tree is None:
                continue
            weight = np.exp(record.tree.log_weights).sum()
            expected = record.root_weights.sum() if share == 0.0 else record.n_exits * record.ended
            assert weight == pytest.approx(expected, rel=1e-9)


def test_costs_add_up(made: GroupRecord) -> None:
    assert made.flux_evaluations == BATCHES * SETTINGS.replicas * 250 * DOUBLE.lag_steps
    assert made.walk_evaluations > 0 and made.network_calls == 0
    assert len(made.state.positions) == BATCHES * SETTINGS.replicas


@pytest.mark.parametrize("bias_scale", [0.0, 1.0])
def test_rounds_that_are_walked_together_stay_apart(bias_scale: float) -> None:
    """Three rounds in one walk: each right by itself, with its own paths, state and costs, which add up."""
    settings = SETTINGS.model_copy(update={"bias_scale": bias_scale})
    value, plan = wrong_value(DOUBLE), Plan(120, 16, 1.0, 1.0, 0.5)
    engine = make_engine(DOUBLE.problem(), settings, None, value)
    state = settled(DOUBLE, BATCHES * settings.replicas)
    before = engine.cost.force_evaluations
    rounds = produce(
        engine,
        (value, TEMPERED),
        state,
        settings,
        plan,
        np.random.default_rng(with_offset(6)),
        range(BATCHES),
        range(4, 7),
    )
    exact, made = DOUBLE.chain.endless, [np.array([r.transitions for r in group.batches]) for group in rounds]
    for i, group in enumerate(rounds):
        assert agree(made[i] / group.batches[0].time, exact.rate)
        assert agree(np.array([r.n_exits for r in group.batches]) / group.batches[0].time, exact.flux)
        assert {(r.tree.batch, r.tree.round) for r in group.batches if r.tree} <= {(b, 4 + i) for b in range(BATCHES)}
        for record in group.batches:
            assert record.tree is not None
            won = record.tree.labels == 2
            assert np.exp(record.tree.log_weights[won]).sum() == pytest.approx(record.root_weights.sum(), rel=1e-12)
    assert abs(np.corrcoef(made)[np.triu_indices(3, 1)]).max() < 4.5 / np.sqrt(BATCHES)
    assert not np.array_equal(rounds[0].state.positions, rounds[1].state.positions)
    total = sum(group.flux_evaluations + group.walk_evaluations for group in rounds)
    assert total == engine.cost.force_evaluations - before
    assert sum(group.network_calls for group in rounds) == engine.cost.network_calls


def test_stretches_that_are_there_are_used_as_they_are() -> None:
    """Two stretches of 120 lags from one run, then a third that is made now; the first two cost no evaluations."""
    run, value = a_run(DOUBLE, BATCHES * SETTINGS.replicas, 250), wrong_value(DOUBLE)
    engine, plan = make_engine(DOUBLE.problem(), SETTINGS, None, value), Plan(120, 16, 1.0, 1.0, 0.5)
    rng = np.random.default_rng(with_offset(7))
    rounds = produce(
        engine, (value, TEMPERED), run.state, SETTINGS, plan, rng, range(BATCHES), range(3), run.stretches(120)
    )
    exact = DOUBLE.chain.endless
    for group in rounds:
        time = group.batches[0].time
        assert time == pytest.approx(SETTINGS.replicas * 120 * DOUBLE.timestep * DOUBLE.lag_steps)
        assert agree(np.array([r.transitions for r in group.batches]) / time, exact.rate)
        assert agree(np.array([r.n_exits for r in group.batches]) / time, exact.flux)
    n_exits = np.array([[r.n_exits for r in group.batches] for group in rounds[:2]])
    assert n_exits.sum() == (run.lags < 240).sum()
    first = np.bincount(run.replica[run.lags < 120] // SETTINGS.replicas, minlength=BATCHES)
    assert np.array_equal(n_exits[0], first)
    assert [group.flux_evaluations > 0 for group in rounds] == [False, False, True]
    assert np.array_equal(rounds[1].state.positions, run.state.positions)
    assert not np.array_equal(rounds[2].state.positions, run.state.positions)


def test_a_stretch_without_exits_counts_as_zero() -> None:
    line = double_well(30.0, 0.5, timestep=0.001)
    settings = SETTINGS.model_copy(update={"n_batches": 2, "replicas": 1})
    value = wrong_value(line)
    engine = make_engine(line.problem(), settings, None, value)
    state = initial_state(line.problem(), 2)
    (group,) = produce(
        engine,
        (value, TEMPERED),
        state,
        settings,
        Plan(2, 16, 1.0, 1.0),
        np.random.default_rng(with_offset(1)),
        (0, 1),
        range(0, 1),
    )
    for record in group.batches:
        assert (record.n_exits, record.transitions, record.tree) == (0, 0.0, None)
        assert np.isnan(record.ended) and record.time > 0 and len(record.root_weights) == 0


def test_tasks_do_their_groups_in_any_order() -> None:
    settings = SETTINGS.model_copy(update={"n_batches": 4, "replicas": 2})
    value = wrong_value(DOUBLE)
    task = Task(
        DOUBLE.problem(),
        value.arrays(),
        TEMPERED,
        settings,
        Plan(60, 16, 1.0, 1.0),
        settled(DOUBLE, 8),
        tuple(a_run(DOUBLE, 8, 60).stretches(60)),
        ((0, 1), (2, 3)),
        7,
        range(2, 4),
        None,
    )
    both, second = task([0, 1]), task([1])
    assert [g.flux_evaluations > 0 for g in both[0]] == [False, True]
    assert [r.transitions for r in both[1][0].batches] == [r.transitions for r in second[0][0].batches]
    assert np.array_equal(both[1][0].state.positions, second[0][0].state.positions)
    assert [r.tree.batch for g, _ in both for r in g.batches if r.tree is not None] == [0, 1, 2, 3]


def test_streams_differ_by_key() -> None:
    first = [stream(1, *key).random() for key in ((4, 0, 0), (4, 0, 1), (4, 1, 0), (3, 0, 0), (4, 0, 0))]
    assert first[0] == first[4] and len(set(first)) == 4
    assert stream(2, 4, 0, 0).random() != first[0]


def test_joining_no_roots() -> None:
    assert join_roots([], 5).positions.shape == (0, 5, 3)

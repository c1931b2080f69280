"""Walk: unbiased for any value function, bias, hold and population cap, against the exact committor of every root.

Stochastic asserts: 64 independent replicas of 16 roots of each kind, spread between replicas, Student's t at a
false-alarm rate of 1e-4 (there are some 250 of them: 2.5 % for the file; seeds are fixed).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from seeds import with_offset
from systems_1d import Line, double_well, triple_well

from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import RlisError
from openmm_rlis.problem import SOURCE, TARGET
from openmm_rlis.statistics.branching import Window
from openmm_rlis.statistics.control_variate import coefficient, moments
from openmm_rlis.statistics.importance import UNTEMPERED, Importance
from openmm_rlis.value_function import ValueFunction
from openmm_rlis.walks.branching_walk import Roots, Walk, walk

Array = NDArray[np.float64]
LogValue = Callable[[Array], Array]
REPLICAS, PER_REPLICA = 64, 64
FALSE_ALARM = 1e-4
DOUBLE = double_well(2.5, 0.5)
TRIPLE = triple_well(6.0, 0.4)
STARTS = np.array([-0.55, -0.3, 0.0, 0.35])


def roots_of(line: Line, starts: Array, n: int, biased: bool | Array = False, batches: int = 1) -> Roots:
    x = np.zeros((n, 1, 3))
    x[:, 0, 0] = np.resize(starts, n)
    prior = np.zeros_like(x)
    prior[:, 0, 0] = line.start
    rng = np.random.default_rng(with_offset(7))
    owner = np.sort(np.resize(np.arange(batches), n)).astype(np.int32)
    feels = np.broadcast_to(np.asarray(biased), n).copy()
    return Roots(x, prior, rng.normal(-1.0, 2.0, n), feels, np.zeros(n, bool), owner)


def constant(x: Array) -> Array:
    return np.zeros(len(x))


def reversed_slope(x: Array) -> Array:
    return -1.5 * x[:, 0, 0]


def slope(x: Array) -> Array:
    return 2.0 * x[:, 0, 0]


def too_steep(x: Array) -> Array:
    return 6.0 * x[:, 0, 0]


def wild(x: Array) -> Array:
    return 2.0 * np.sin(5.0 * x[:, 0, 0]) + 1.0 * x[:, 0, 0]


def random_value(line: Line, seed: int = 3, size: float = 4.0) -> ValueFunction:
    """A ValueFunction with random weights everywhere: wrong, smooth, with a force that matters."""
    problem, rng = line.problem(), np.random.default_rng(with_offset(seed))
    width = problem.features(torch.as_tensor(problem.positions[None])).shape[1]
    statistics = {
        "mean": np.zeros(width), "scale": np.ones(width),
        "center_source": np.full(width, -1.0), "center_target": np.full(width, 1.0),
    }  # fmt: skip
    value = ValueFunction(problem.features, statistics, rng=rng)
    arrays = value.arrays()
    for name in ("fine.4.weight", "coarse.4.weight"):
        arrays[name] = rng.normal(0.0, size, arrays[name].shape)
    return ValueFunction.from_arrays(problem.features, arrays)


def sampled(
    line: Line,
    engine: Engine,
    log_value: LogValue,
    window: Window,
    biased: bool | Array = False,
    starts: Array = STARTS,
    importance: Importance = UNTEMPERED,
) -> Walk:
    """One walk of all replicas side by side: roots share slots of Contexts and nothing else."""
    rng = np.random.default_rng(with_offset(11))
    engine.reseed(rng)
    roots = roots_of(line, starts, REPLICAS * PER_REPLICA, biased, REPLICAS)
    return walk(engine, log_value, roots, window, rng, importance=importance, frame_stride=50)


def agrees(samples: Array, truth: float) -> bool:
    """Student's t on replicas at the false-alarm rate of this file; equal to rounding where there is no spread.

    Roulette that hardly ever kills gains a little often and loses a whole root seldom: while no replica has lost
    anything, the gain may be what such a loss takes, at a rate that leaves it unseen in all roots of a kind once in
    1 / FALSE_ALARM.
    """
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    if error < 1e-12:
        return bool(abs(samples.mean() - truth) < 1e-9)
    if (samples >= truth).all():
        return bool(samples.mean() - truth < np.log(1.0 / FALSE_ALARM) / (len(samples) * PER_REPLICA / len(STARTS)))
    return bool(abs(samples.mean() - truth) / error < stats.t.ppf(1.0 - 0.5 * FALSE_ALARM, len(samples) - 1))


def check_unbiased(line: Line, done: Walk, starts: Array = STARTS) -> None:
    """E[success] = q at every kind of root, and E[ended] = 1."""
    exact = line.committor(roots_of(line, starts, len(starts)).positions)
    for name, truths in (("success", exact), ("ended", np.ones(len(starts)))):
        means = getattr(done, name).reshape(REPLICAS, -1, len(starts)).mean(1)
        for start, column, truth in zip(starts, means.T, truths, strict=True):
            error = column.std(ddof=1) / np.sqrt(REPLICAS)
            assert agrees(column, truth), f"{name} from {start}: {column.mean()} +- {error}, exact {truth}"


@pytest.fixture(scope="module")
def engines() -> dict[str, Engine]:
    return {"double": Engine(DOUBLE.problem(), 512), "triple": Engine(TRIPLE.problem(), 512)}


@pytest.mark.parametrize("log_value", [constant, reversed_slope, too_steep, wild], ids=lambda f: f.__name__)
@pytest.mark.parametrize("window", [Window(), Window(0.8, 1.2), Window(0.0, 2.0)], ids=["mild", "tight", "no roulette"])
def test_unbiased_with_a_wrong_value(engines: dict[str, Engine], log_value: LogValue, window: Window) -> None:
    check_unbiased(DOUBLE, sampled(DOUBLE, engines["double"], log_value, window))


@pytest.mark.parametrize("cap", [200, 3], ids=["free", "capped"])
@pytest.mark.parametrize(("seed", "size"), [(3, 4.0), (4, 1.0)], ids=["uphill", "downhill"])
def test_the_martingale_of_a_wrong_value_is_zero_on_average(
    engines: dict[str, Engine], seed: int, size: float, cap: int
) -> None:
    """At every kind of root, with branching, thinning and roulette by another wrong V; and the walk is the same."""
    value, rng = random_value(DOUBLE, seed, size), np.random.default_rng(with_offset(13))
    engines["double"].reseed(rng)
    roots = roots_of(DOUBLE, STARTS, REPLICAS * PER_REPLICA, batches=REPLICAS)
    done = walk(
        engines["double"], value.log_value, roots, Window(0.5, 1.2), rng, frame_stride=50, max_walkers=cap,
        control=True,
    )  # fmt: skip
    check_unbiased(DOUBLE, done)
    for start, column in zip(STARTS, done.martingale.reshape(REPLICAS, -1, 4).mean(1).T, strict=True):
        assert column.std() > 0.0 and agrees(column, 0.0), f"from {start}: {column.mean()}"


def test_the_exact_value_takes_most_of_the_variance(engines: dict[str, Engine]) -> None:
    """With V the committor c is about 1, and less than a third of the variance is left (seen: a sixth)."""

    grid = np.zeros((400, 1, 3))
    grid[:, 0, 0] = np.linspace(-2.0, 2.0, 400)
    log_q = np.log(np.maximum(DOUBLE.committor(grid), 1e-12))
    rng = np.random.default_rng(with_offset(14))
    engines["double"].reseed(rng)
    roots = roots_of(DOUBLE, np.array([-0.3]), 2000)

    def smooth(x: Array) -> Array:
        return np.interp(x[:, 0, 0], grid[:, 0, 0], log_q)

    done = walk(engines["double"], smooth, roots, Window(), rng, control=True, frame_stride=50)
    c = coefficient([moments(done.success, done.martingale)])
    assert 0.8 < c < 1.2
    assert (done.success - c * done.martingale).var() < done.success.var() / 3.0


@pytest.mark.parametrize("log_value", [reversed_slope, too_steep], ids=lambda f: f.__name__)
@pytest.mark.parametrize("rises", [[0.0, 0.4, 0.1], [0.0, -3.0, 5.0]], ids=["tempered", "absurd"])
def test_unbiased_with_any_importance(engines: dict[str, Engine], log_value: LogValue, rises: list[float]) -> None:
    importance = Importance(np.array([-3.0, 0.0, 2.0]), np.array(rises))
    check_unbiased(DOUBLE, sampled(DOUBLE, engines["double"], log_value, Window(), importance=importance))


@pytest.mark.parametrize("log_value", [constant, too_steep], ids=lambda f: f.__name__)
def test_unbiased_with_others(engines: dict[str, Engine], log_value: LogValue) -> None:
    starts = np.array([0.3, 0.45, 0.6, 0.8])
    check_unbiased(TRIPLE, sampled(TRIPLE, engines["triple"], log_value, Window(), starts=starts), starts)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("hold", [1, 5, 20])
@pytest.mark.parametrize(("seed", "size"), [(3, 4.0), (4, 1.0)], ids=["uphill", "downhill"])
def test_unbiased_with_a_wrong_bias(scale: float, hold: int, seed: int, size: float) -> None:
    value = random_value(DOUBLE, seed, size)
    engine = Engine(DOUBLE.problem(), 512, bias=Bias(value, scale, hold))
    done = sampled(DOUBLE, engine, slope, Window(), biased=True)
    check_unbiased(DOUBLE, done)
    assert engine.cost.network_calls > 0
    # branching multiplies weights by few numbers; the noise of the bias makes every one different
    roots = roots_of(DOUBLE, STARTS, REPLICAS * PER_REPLICA)
    relative = done.tree.log_weights - roots.log_weights[done.tree.roots]
    assert len(np.unique(np.round(relative, 9))) > 0.8 * done.tree.n_paths


def test_biased_and_unbiased_roots_mix() -> None:
    value = random_value(DOUBLE, seed=4, size=1.0)
    engine = Engine(DOUBLE.problem(), 512, bias=Bias(value, 1.0, 5))
    biased = np.arange(REPLICAS * PER_REPLICA) % 8 < 4
    done = sampled(DOUBLE, engine, slope, Window(), biased)
    check_unbiased(DOUBLE, done)


@pytest.mark.parametrize("log_value", [constant, slope], ids=lambda f: f.__name__)
def test_the_population_cap_does_not_bias(engines: dict[str, Engine], log_value: LogValue) -> None:
    """At most 3 walkers of one root, where a window this narrow would make many more."""
    n_batches, cap = 256, 3
    rng = np.random.default_rng(with_offset(12))
    engines["double"].reseed(rng)
    roots = roots_of(DOUBLE, STARTS, 16 * n_batches, batches=n_batches)
    done = walk(engines["double"], log_value, roots, Window(0.5, 1.1), rng, frame_stride=50, max_walkers=cap)
    assert done.peak <= 16 * n_batches * cap
    assert (done.n_thinned > 0).any() == (log_value is slope)
    exact = DOUBLE.committor(roots_of(DOUBLE, STARTS, 4).positions)
    for name, truths in (("success", exact), ("ended", np.ones(4))):
        for column, truth in zip(getattr(done, name).reshape(n_batches, -1, 4).mean(1).T, truths, strict=True):
            assert agrees(column, truth), (name, column.mean(), truth)


def test_defensive_roots_see_what_a_blind_value_hides(engines: dict[str, Engine]) -> None:
    """V is 1e-9 beyond the barrier: roulette would hide B from all but one walker in 1e8."""

    def blind(x: Array) -> Array:
        return np.where(x[:, 0, 0] > 0.2, -20.0, 0.0)

    rng = np.random.default_rng(with_offset(21))
    engines["double"].reseed(rng)
    starts = STARTS[STARTS < 0.2]
    roots = roots_of(DOUBLE, starts, len(starts) * 16 * REPLICAS)
    hidden = walk(engines["double"], blind, roots, Window(), rng)
    seen = walk(engines["double"], blind, replace(roots, defensive=np.ones_like(roots.defensive)), Window(), rng)
    assert set(np.unique(seen.success)) <= {0.0, 1.0}
    exact = DOUBLE.committor(roots.positions[: len(starts)])
    for column, truth in zip(seen.success.reshape(REPLICAS, -1, len(starts)).mean(1).T, exact, strict=True):
        assert agrees(column, truth), (column.mean(), truth)
    assert hidden.success.mean() < 0.05 * seen.success.mean()  # a lag can jump the gap


def test_a_constant_value_never_branches(engines: dict[str, Engine]) -> None:
    roots = roots_of(DOUBLE, STARTS, 64)
    rng = np.random.default_rng(with_offset(2))
    engines["double"].reseed(rng)
    done = walk(engines["double"], constant, roots, Window(), rng)
    assert done.peak == done.tree.n_paths == 64
    assert np.array_equal(np.sort(done.tree.roots), np.arange(64))
    assert np.array_equal(done.ended, np.ones(64))
    assert set(np.unique(done.success)) <= {0.0, 1.0}
    assert np.array_equal(done.tree.log_weights, roots.log_weights[done.tree.roots])


@pytest.mark.parametrize("stride", [1, 5])
def test_the_tree_is_made_of_paths(engines: dict[str, Engine], stride: int) -> None:
    roots = roots_of(DOUBLE, STARTS, 40)
    rng = np.random.default_rng(with_offset(3))
    engines["double"].reseed(rng)
    done = walk(engines["double"], too_steep, roots, Window(), rng, frame_stride=stride)
    tree, frames = done.tree, done.frames
    assert len(frames.log_weights) == len(frames.codes) == tree.n_frames == frames.blocks[-1]
    assert tree.n_paths > 40
    for i in range(tree.n_paths):
        path = tree.path(i)
        lags = tree.lags[path]
        assert (np.diff(lags) > 0).all() and lags[0] == 0 and lags[1] == 1
        assert (np.diff(lags[1:-1]) == stride).all() if stride == 1 else (np.diff(lags[1:]) <= stride).all()
        codes = frames.codes[path]
        assert codes[0] == SOURCE and codes[-1] == tree.labels[i] and (codes[1:-1] == 0).all()
        assert np.allclose(tree.positions[path[1]], roots.positions[tree.roots[i]], atol=1e-6)
    label = DOUBLE.problem().label(np.asarray(tree.positions[tree.leaves], dtype=float))
    assert np.array_equal(label, tree.labels)
    success = np.zeros(40)
    won = tree.labels == TARGET
    np.add.at(success, tree.roots[won], np.exp(tree.log_weights - roots.log_weights[tree.roots])[won])
    assert success == pytest.approx(done.success, rel=1e-12)


def test_roots_that_start_in_a_region_end_there(engines: dict[str, Engine]) -> None:
    """An exit may land in B at once: it counts 1 without a move."""
    roots = roots_of(DOUBLE, np.array([0.9, 1.3]), 6)
    done = walk(engines["double"], wild, roots, Window(), np.random.default_rng(with_offset(1)))
    assert done.n_lags == 0
    assert np.array_equal(done.success, np.ones(6))
    assert done.tree.n_paths == 6 and done.tree.n_frames == 12


def test_no_roots_make_an_empty_walk(engines: dict[str, Engine]) -> None:
    done = walk(
        engines["double"], constant, roots_of(DOUBLE, STARTS, 0), Window(), np.random.default_rng(with_offset(1))
    )
    assert (done.tree.n_paths, done.tree.n_frames, len(done.success), done.n_lags) == (0, 0, 0, 0)


def test_a_walk_without_end_is_an_error() -> None:
    engine = Engine(DOUBLE.problem(), 16)
    with pytest.raises(RlisError, match="define the metastable state as a region in `others`"):
        walk(
            engine,
            constant,
            roots_of(DOUBLE, np.array([0.0]), 64),
            Window(),
            np.random.default_rng(with_offset(1)),
            max_lags=2,
        )


def test_a_person_is_told_of_a_walk_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, starts = Engine(DOUBLE.problem(), 16), roots_of(DOUBLE, np.array([0.0]), 64)
    monkeypatch.setattr("openmm_rlis.walks.branching_walk.LONG", (2,))
    with pytest.warns(UserWarning, match=r"walkers have been outside all regions for 2 lags"):
        walk(engine, constant, starts, Window(), np.random.default_rng(with_offset(1)))


def test_the_same_stream_gives_the_same_walk(engines: dict[str, Engine]) -> None:
    found = []
    for engine in (engines["double"], engines["double"], Engine(DOUBLE.problem(), 512)):
        rng = np.random.default_rng(with_offset(9))
        engine.reseed(rng)
        found.append(walk(engine, too_steep, roots_of(DOUBLE, STARTS, 30), Window(), rng))
    for other in found[1:]:
        assert np.array_equal(found[0].success, other.success)
        assert np.array_equal(found[0].tree.positions, other.tree.positions)

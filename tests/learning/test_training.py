"""Training: targets against a direct recursion on hand-made trees, and both losses on data that is mostly T = 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from systems_1d import double_well

from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError
from openmm_rlis.learning.training import LOSSES, Samples, loss_function, samples_of, td_returns, train
from openmm_rlis.paths.ensemble import PathTree
from openmm_rlis.statistics.branching import Window
from openmm_rlis.value_function import ValueFunction
from openmm_rlis.walks.branching_walk import Frames, Roots, Walk, walk
from openmm_rlis.walks.walkers import Excursions

Array = NDArray[np.float64]
LINE = double_well(2.5, 0.5)


def tree_walk(
    parents: Sequence[int], codes: Sequence[int], log_weights: Sequence[float], blocks: Sequence[int]
) -> Walk:
    """A Walk by hand; leaves are the frames that lie in a region and have a parent."""
    parent, code, weight = np.array(parents, np.int32), np.array(codes, np.int8), np.array(log_weights)
    leaves = np.flatnonzero((code != 0) & (parent >= 0)).astype(np.int32)
    tree = PathTree(
        np.zeros((len(parent), 1, 3), np.float32), parent, leaves, code[leaves], weight[leaves],
        np.zeros(len(leaves), np.int32), 0, 0,
    )  # fmt: skip
    frames = Frames(weight, code, np.array(blocks))
    sums, counts = np.zeros((4, 1)), np.zeros((2, 1), int)
    return Walk(tree, tree, frames, *sums, Excursions.none(1), *counts, np.zeros((3, 1)), len(blocks), 1)


def recursive(done: Walk, log_values: Array, decay: float, frame: int) -> float:
    """T(x) by the definition, children one by one."""
    codes, weights = done.frames.codes, np.exp(done.frames.log_weights)
    if codes[frame] != 0 and done.tree.parents[frame] >= 0:
        return float(codes[frame] == 2)
    total = 0.0
    for child in np.flatnonzero(done.tree.parents == frame):
        after = recursive(done, log_values, decay, int(child))
        ahead = after if codes[child] != 0 else (1.0 - decay) * np.exp(log_values[child]) + decay * after
        total += weights[child] / weights[frame] * ahead
    return total


# Priors 0 and 1 of roots 2 and 3; 2 splits; of its lines one ends in B, one in D and one dies; 3 ends in A.
PARENTS = [-1, -1, 0, 1, 2, 2, 3, 4, 4, 5, 8]
CODES = [1, 1, 0, 0, 0, 0, 1, 2, 0, 0, 3]
WEIGHTS = [0.0, -1.0, 0.0, -1.0, -0.7, -0.5, -1.2, -1.4, -0.3, -0.9, -2.0]
BLOCKS = [0, 2, 4, 7, 10, 11]


def by_hand() -> Walk:
    return tree_walk(PARENTS, CODES, WEIGHTS, BLOCKS)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.95, 1.0])
def test_td_returns_equal_the_recursion(decay: float) -> None:
    done = by_hand()
    log_values = np.log(np.random.default_rng(1).uniform(0.01, 0.9, len(PARENTS)))
    found = np.exp(td_returns(done, log_values, decay))
    outside = done.frames.codes == 0
    expected = np.array([recursive(done, log_values, decay, i) for i in range(len(PARENTS))])
    assert found[outside] == pytest.approx(expected[outside], rel=1e-12, abs=1e-300)


def test_decay_one_is_the_tree_return() -> None:
    done = by_hand()
    found = np.exp(td_returns(done, np.full(len(PARENTS), 7.7), 1.0))  # V is not asked for
    weights = np.exp(done.frames.log_weights)
    for frame in np.flatnonzero(done.frames.codes == 0):
        arrived = [
            weights[leaf]
            for i, leaf in enumerate(done.tree.leaves)
            if done.tree.labels[i] == 2 and frame in done.tree.path(i)
        ]
        assert found[frame] == pytest.approx(sum(arrived) / weights[frame], rel=1e-12)
    assert 0.0 in found[done.frames.codes == 0]


@st.composite
def random_walks(draw: st.DrawFn) -> tuple[Walk, Array]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = int(rng.integers(1, 5))
    parents, codes, blocks = [-1] * n + list(range(n)), [1] * n + [0] * n, [0, n, 2 * n]
    alive = list(range(n, 2 * n))
    for _ in range(int(rng.integers(0, 6))):
        new = [frame for frame in alive for _ in range(int(rng.integers(0, 4)))]
        if not new:
            break
        ids = range(len(parents), len(parents) + len(new))
        parents += new
        labels = [int(rng.choice([0, 0, 0, 1, 2, 3])) for _ in new]
        codes += labels
        blocks.append(len(parents))
        alive = [i for i, code in zip(ids, labels, strict=True) if code == 0]
    return tree_walk(parents, codes, rng.normal(-30, 5, len(parents)).tolist(), blocks), rng.normal(-3, 2, len(parents))


@given(random_walks(), st.floats(0.0, 1.0))
@settings(max_examples=100, deadline=None)
def test_td_returns_equal_the_recursion_on_random_trees(made: tuple[Walk, Array], decay: float) -> None:
    done, log_values = made
    found = np.exp(td_returns(done, log_values, decay))
    for frame in np.flatnonzero(done.frames.codes == 0):
        assert found[frame] == pytest.approx(recursive(done, log_values, decay, int(frame)), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("decay", [0.0, 0.8, 1.0])
def test_returns_are_unbiased_for_the_committor(decay: float) -> None:
    """With V = q the mean of T at the roots is q, whatever branching did: 64 replicas, |t| < 4.5 (3e-5 each)."""
    problem = LINE.problem()
    x = np.zeros((64 * 32, 1, 3))
    x[:, 0, 0] = np.resize([-0.3, 0.1], len(x))
    prior = np.full_like(x, 0.0)
    prior[:, 0, 0] = -1.0
    no = np.zeros(len(x), bool)
    roots = Roots(x, prior, np.zeros(len(x)), no, no, np.zeros(len(x), np.int32))
    engine, rng = Engine(problem), np.random.default_rng(3)
    engine.reseed(rng)
    done = walk(engine, lambda y: 3.0 * y[:, 0, 0], roots, Window(0.5, 1.5), rng, frame_stride=4)
    exact = LINE.committor(np.asarray(done.tree.positions, dtype=float))
    with np.errstate(divide="ignore"):
        returns = np.exp(td_returns(done, np.log(exact), decay))[len(x) : 2 * len(x)]
    for i in (0, 1):
        means = returns.reshape(64, -1, 2)[:, :, i].mean(1)
        assert abs(means.mean() - LINE.committor(x[i : i + 1])[0]) < 4.5 * means.std(ddof=1) / 8.0


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_least_at_the_mean(loss: str) -> None:
    """T is 0 nine times of ten, and 10 m else; the best constant f is ln m."""
    m = 1e-7
    targets = torch.tensor([-np.inf] * 9 + [np.log(10 * m)], dtype=torch.float64)
    f = torch.full((), np.log(m), dtype=torch.float64, requires_grad=True)
    value = loss_function(loss, f.expand(10), targets, torch.full((10,), np.log(m) + 1.0, dtype=torch.float64))
    value.backward()
    assert f.grad is not None and abs(float(f.grad)) < 1e-12
    frozen = torch.full((10,), np.log(m) + 1.0, dtype=torch.float64)
    for shift in (-0.1, 0.1):
        other = loss_function(loss, (f + shift).expand(10), targets, frozen)
        assert float(other.detach()) > float(value.detach())


def blank(seed: int = 0) -> ValueFunction:
    statistics = {
        "mean": np.zeros(1), "scale": np.ones(1), "center_source": np.array([-1.5]), "center_target": np.array([1.5]),
    }  # fmt: skip
    return ValueFunction(torch.nn.Identity(), statistics, rng=np.random.default_rng(seed))


def synthetic(rng: np.random.Generator, n: int = 20_000) -> tuple[Samples, Array]:
    """T is 0 in nine samples of ten, and V = exp(f) from 1e-4 to 0.1 on average."""
    x = rng.uniform(-1.5, 1.5, (n, 1))
    log_v = np.log(1e-4) + (x[:, 0] + 1.5) / 3.0 * np.log(1e3)
    hit = rng.random(n) < 0.1
    return Samples(x, np.where(hit, log_v + np.log(10.0), -np.inf)), log_v


@pytest.mark.parametrize("loss", LOSSES)
def test_training_recovers_a_known_value(loss: str) -> None:
    """Most T are 0; with 1e4 x 0.1 hits a tenth of the range holds 200: 7 % of noise; 0.25 is asked in ln V."""
    rng = np.random.default_rng(2)
    data, log_v = synthetic(rng)
    value = blank()
    first = train(value, [data], rng, loss=loss, epochs=5)
    last = train(value, [data], rng, loss=loss, epochs=40)
    assert np.isfinite([first, last]).all()
    with torch.no_grad():
        parts = value.log_parts(*value.inputs(torch.as_tensor(data.features)))
    for part in parts:
        error = part.numpy() - log_v
        assert abs(np.mean(error)) < 0.15
        assert np.sqrt(np.mean(error**2)) < 0.25


def test_a_few_hundred_frames_are_enough_to_begin_with() -> None:
    # What splitting leaves of a rare transition on a line: ln V rises by 15.
    x = np.random.default_rng(2).uniform(-1.5, 1.5, (500, 1))
    value = blank()
    train(value, [Samples(x, -8.0 + 5.0 * x[:, 0])], np.random.default_rng(3), fewest_steps=400)
    grid = np.linspace(-1.4, 1.4, 50)
    with torch.no_grad():
        for part in value.log_parts(*value.inputs(torch.as_tensor(grid[:, None]))):
            assert np.abs(part.numpy() - (-8.0 + 5.0 * grid)).max() < 1.0


def test_training_is_deterministic() -> None:
    found = []
    for _ in range(2):
        value = blank()
        train(value, [synthetic(np.random.default_rng(1), 3000)[0]], np.random.default_rng(5), epochs=3)
        found.append(value.arrays())
    assert all(np.array_equal(found[0][k], found[1][k]) for k in found[0])


def test_an_unknown_loss_is_an_input_error() -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(InputError, match="loss: expected one of poisson, itakura-saito"):
        loss_function("squared", zero, zero, zero)


def test_samples_are_outside_and_mix_both_returns() -> None:
    problem = LINE.problem()
    x = np.zeros((40, 1, 3))
    roots = Roots(x, x - 1.0, np.zeros(40), np.zeros(40, bool), np.zeros(40, bool), np.zeros(40, np.int32))
    engine, rng = Engine(problem), np.random.default_rng(3)
    engine.reseed(rng)
    done = walk(engine, lambda y: y[:, 0, 0], roots, Window(), rng, frame_stride=2)
    statistics = {"mean": np.zeros(3), "scale": np.ones(3), "center_source": -np.ones(3), "center_target": np.ones(3)}
    value = ValueFunction(problem.features, statistics)
    rows = done.frames.codes == 0
    every = samples_of(done, value, 0.5, 10**9, rng)
    assert every.features == pytest.approx(np.asarray(done.tree.positions, dtype=float)[rows, 0], abs=1e-12)
    log_values = value.log_value(np.asarray(done.tree.positions, dtype=float))
    half = 0.5 * (np.exp(td_returns(done, log_values, 1.0)) + np.exp(td_returns(done, log_values, 0.5)))
    assert np.exp(every.log_targets) == pytest.approx(half[rows], rel=1e-12)
    assert len(samples_of(done, value, 0.5, 7, rng)) == 7
    assert np.exp(samples_of(done, value, 1.0, 10**9, rng).log_targets) == pytest.approx(
        np.exp(td_returns(done, log_values, 1.0))[rows]
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_value_that_is_far_too_small_comes_back(loss: str) -> None:
    """ln V = -200 where the targets are -5, and most of them 0: every step is finite and V rises."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2000, 2))
    statistics = {"mean": np.zeros(2), "scale": np.ones(2), "center_source": -np.ones(2), "center_target": np.ones(2)}
    value = ValueFunction(torch.nn.Identity(), statistics, rng=rng)
    with torch.no_grad():
        for part in (value.fine, value.coarse):
            part[-1].bias.fill_(-200.0)
    targets = np.where(rng.random(2000) < 0.1, -5.0, -np.inf)
    train(value, [Samples(x, targets)], rng, loss=loss, epochs=20)
    found = value.log_mixture(torch.as_tensor(x)).detach().numpy()
    assert np.isfinite(found).all() and found.min() > -199.0

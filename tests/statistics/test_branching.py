"""Branching: expected weight is conserved exactly, and the answer survives a wrong value function.

Exact parts script the random numbers: roulette is enumerated over all fates, and the one uniform variate behind a
systematic draw is integrated exactly (the counts are piecewise constant in it).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from seeds import with_offset

from openmm_rlis.statistics.branching import MOST_COPIES, Offspring, Window, branch, draw_roots, resample
from openmm_rlis.statistics.estimators import mean
from openmm_rlis.statistics.weights import FloatArray, IntArray

log_gs = st.lists(st.floats(-40.0, 8.0) | st.just(-np.inf), min_size=1, max_size=30)
windows = st.builds(Window, st.just(0.0) | st.floats(1e-3, 0.99), st.floats(1.01, 50.0) | st.just(math.inf))


class Scripted(np.random.Generator):
    """A generator that returns what it is told."""

    def __init__(self, uniform: float = 0.5, exponentials: FloatArray | None = None) -> None:
        super().__init__(np.random.PCG64(0))
        self.scripted_uniform, self.scripted_exponentials = uniform, exponentials

    def random(self, *args: Any, **kwargs: Any) -> Any:
        return self.scripted_uniform

    def standard_exponential(self, *args: Any, **kwargs: Any) -> Any:
        return self.scripted_exponentials


def child_weight(offspring: Offspring, n_parents: int, g: FloatArray | float = 1.0) -> FloatArray:
    """Return the summed weight of each parent's children, for parents of weight g."""
    factors = np.bincount(offspring.parents, np.exp(offspring.log_factors), n_parents)
    return np.asarray(factors * g)


# --- branch ---------------------------------------------------------------------------------------------------------


@given(log_gs, windows)
def test_each_walker_keeps_its_expected_weight(log_g: list[float], window: Window) -> None:
    """P(survival) times the survivors' weight is 1, where P(exponential >= a) = exp(-a) is the scripted threshold."""
    g = np.exp(np.array(log_g))
    p = np.where(g == 0.0, 0.0, np.minimum(g / window.low, 1.0) if window.low > 0.0 else 1.0)
    threshold = np.where(p > 0.0, -np.log(np.where(p > 0.0, p, 1.0)), np.inf)
    alive = branch(log_g, window, Scripted(exponentials=np.minimum(threshold * (1 + 1e-9) + 1e-12, 1e300)))
    np.testing.assert_allclose(p * child_weight(alive, len(g)), np.where(g > 0.0, 1.0, 0.0), rtol=1e-9)
    dead = branch(log_g, window, Scripted(exponentials=np.clip(threshold * (1 - 1e-9) - 1e-12, 0.0, 1e300)))
    assert not np.any(p[dead.parents] < 1.0 - 1e-9)


@given(log_gs, windows)
def test_children_lie_in_the_window_and_in_order(log_g: list[float], window: Window) -> None:
    children = branch(log_g, window, np.random.default_rng(with_offset(1)))
    after = np.array(log_g)[children.parents] + children.log_factors
    assert np.all(after <= math.log(window.high) + 1e-9) or np.max(log_g) > math.log(MOST_COPIES * window.high)
    if window.low > 0.0:
        assert np.all(after >= math.log(min(window.low, window.high / 2.0)) - 1e-9)
    assert np.all(np.diff(children.parents) >= 0)
    assert children.parents.dtype == np.int64 and children.log_factors.shape == children.parents.shape


def test_all_fates_of_a_small_population_enumerated() -> None:
    """Sum over the 2^3 outcomes of roulette: expected weight of every walker, and of any test function, to 1e-13."""
    window, w = Window(0.4, 1.5), np.array([0.3, 0.02, 0.11, 1.0, 4.7])
    p = np.minimum(w / window.low, 1.0)
    expected = np.zeros(5)
    for fate in itertools.product([True, False], repeat=3):
        survives = np.array([*fate, True, True])
        children = branch(np.log(w), window, Scripted(exponentials=np.where(survives, 50.0, 0.0)))
        expected += np.prod(np.where(survives, p, 1.0 - p)[:3]) * child_weight(children, 5, w)
    np.testing.assert_allclose(expected, w, rtol=1e-13)


def test_splitting_rule() -> None:
    children = branch(np.log([1.0, 2.0, 2.1, 9.0]), Window(0.1, 2.0), np.random.default_rng(with_offset(0)))
    assert np.bincount(children.parents).tolist() == [1, 1, 2, 5]
    np.testing.assert_allclose(np.exp(children.log_factors), np.repeat([1, 1, 1 / 2, 1 / 5], [1, 1, 2, 5]))


def test_inside_the_window_nothing_happens() -> None:
    """A constant V and no bias leave G = 1: the run is then an unbiased one, walker by walker."""
    children = branch(np.zeros(50), Window(), np.random.default_rng(with_offset(0)))
    assert np.array_equal(children.parents, np.arange(50)) and not children.log_factors.any()


def test_roulette_conserves_weight_on_average() -> None:
    """Mean surviving weight of 1e5 walkers at G = low/20: standard error sqrt(19/1e5); 5 of them: false alarm 6e-7."""
    children = branch(np.full(100_000, math.log(0.005)), Window(), np.random.default_rng(with_offset(5)))
    assert abs(np.exp(children.log_factors).sum() / 1e5 - 1.0) < 5.0 * math.sqrt(19 / 1e5)


def test_an_explosion_is_spread_over_several_lags() -> None:
    """A huge G gets MOST_COPIES copies per step, no overflow and no lost weight."""
    children = branch([5000.0, 0.0], Window(), np.random.default_rng(with_offset(0)))
    assert np.bincount(children.parents).tolist() == [MOST_COPIES, 1]
    np.testing.assert_allclose(child_weight(children, 2), 1.0, rtol=1e-12)


@pytest.mark.parametrize("window", [Window(), Window(low=0.0)])
def test_weight_zero_dies_for_certain_and_silently(window: Window) -> None:
    children = branch([-np.inf, 0.0, -np.inf], window, np.random.default_rng(with_offset(0)))
    assert children.parents.tolist() == [1]
    assert branch(np.full(4, -np.inf), window, np.random.default_rng(with_offset(0))).parents.size == 0
    assert branch([], window, np.random.default_rng(with_offset(0))).parents.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_walkers_are_named(bad: float) -> None:
    rng = np.random.default_rng(with_offset(0))
    with pytest.raises(ValueError, match=r"log_g: .* at index 1 \(1 such of 3\)"):
        branch([0.0, bad, 0.0], Window(), rng)
    with pytest.raises(ValueError, match="log_weights"):
        resample([0.0, bad], 2, rng)
    with pytest.raises(ValueError, match="log_values"):
        draw_roots([0.0, bad], 2, 0.5, rng)


@pytest.mark.parametrize("low, high", [(-0.1, 2.0), (1.0, 2.0), (0.1, 1.0), (2.0, 0.1), (math.nan, 2.0)])
def test_window_thresholds_are_checked(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="0 <= low < 1 < high"):
        Window(low, high)


# --- resample and roots -----------------------------------------------------------------------------


def average_over_uniform(shares: FloatArray, n: int, draw: Callable[[Scripted], FloatArray]) -> FloatArray:
    """Integrate draw(rng) exactly over its one uniform variate: it is constant between the cuts n * cumsum(p) mod 1."""
    cuts = np.unique(np.concatenate([[0.0, 1.0], np.mod(n * np.cumsum(shares / shares.sum()), 1.0)]))
    middles = 0.5 * (cuts[1:] + cuts[:-1])
    return np.asarray(np.diff(cuts) @ np.array([draw(Scripted(uniform)) for uniform in middles]))


positive = st.lists(st.floats(-6.0, 6.0) | st.just(-np.inf), min_size=1, max_size=15).filter(lambda x: max(x) > -6.1)


@settings(deadline=None)
@given(positive, st.integers(1, 12))
def test_comb_conserves_expected_weight_exactly(log_w: list[float], n: int) -> None:
    w = np.exp(np.array(log_w))

    def weights(rng: Scripted) -> FloatArray:
        children = resample(log_w, n, rng)
        assert children.parents.size == n
        assert np.all(w[children.parents] > 0.0)
        after = w[children.parents] * np.exp(children.log_factors)
        np.testing.assert_allclose(after, w.sum() / n, rtol=1e-12)
        return child_weight(children, len(w), w)

    np.testing.assert_allclose(average_over_uniform(w, n, weights), w, rtol=1e-9, atol=1e-12 * w.sum())


@settings(deadline=None)
@given(positive, st.integers(1, 12), st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_roots_are_unbiased_for_the_pool_mean_exactly(log_v: list[float], n_roots: int, share: float) -> None:
    v = np.exp(np.array(log_v))
    p = (1.0 - share) * v / v.sum() + share / v.size

    def weights(rng: Scripted) -> FloatArray:
        indices, log_w = draw_roots(log_v, n_roots, share, rng)
        assert indices.shape == log_w.shape == (n_roots,)
        if share > 0.0:
            assert np.all(np.exp(log_w) <= (1.0 + 1e-9) / (n_roots * share))
        return np.bincount(indices, np.exp(log_w), v.size).astype(np.float64)

    expected = np.where(p > 0.0, 1.0 / v.size, 0.0)
    np.testing.assert_allclose(average_over_uniform(p, n_roots, weights), expected, rtol=1e-9, atol=1e-12)


def test_roots_drawn_by_the_exact_value_have_no_spread() -> None:
    """h = V, no uniform share: sum_j w_j V(x_j) is the pool mean of V whatever the draw."""
    log_v = np.random.default_rng(with_offset(7)).normal(-20.0, 3.0, 200)
    for seed in range(5):
        indices, log_w = draw_roots(log_v, 17, 0.0, np.random.default_rng(with_offset(seed)))
        assert np.exp(log_w + log_v[indices]).sum() == pytest.approx(np.exp(log_v).mean(), rel=1e-12)


def test_systematic_draw_stays_within_one_of_its_expectation() -> None:
    log_v = np.random.default_rng(with_offset(8)).normal(0.0, 1.0, 40)
    counts = np.bincount(draw_roots(log_v, 500, 0.2, np.random.default_rng(with_offset(9)))[0], minlength=40)
    p = 0.8 * np.exp(log_v) / np.exp(log_v).sum() + 0.2 / 40
    assert np.all(np.abs(counts - 500 * p) < 1.0)


def test_the_last_tooth_never_falls_off_the_end() -> None:
    log_w = np.log(np.array([0.1, 0.2, 0.7, 1e-320]))
    log_w[3] = -np.inf
    children = resample(log_w, 7, Scripted(uniform=np.nextafter(1.0, 0.0)))
    assert children.parents.max() == 2


def test_a_tooth_on_an_edge_never_picks_a_weight_of_zero() -> None:
    assert resample([-np.inf, 0.0, -np.inf, 0.0], 2, Scripted(uniform=0.0)).parents.tolist() == [1, 3]


def test_bad_draws_are_refused() -> None:
    rng = np.random.default_rng(with_offset(0))
    with pytest.raises(ValueError, match="n: expected a positive"):
        resample([0.0], 0, rng)
    with pytest.raises(ValueError, match="extinct"):
        resample([-np.inf], 3, rng)
    with pytest.raises(ValueError, match="n_roots"):
        draw_roots([0.0], 0, 0.1, rng)
    with pytest.raises(ValueError, match="uniform_share"):
        draw_roots([0.0], 3, 1.1, rng)
    with pytest.raises(ValueError, match="none with V > 0"):
        draw_roots([-np.inf, -np.inf], 3, 0.5, rng)
    with pytest.raises(ValueError, match="0 points"):
        draw_roots([], 3, 0.5, rng)


# --- the whole game on a chain whose answer is a linear system ------------------------------------------------------

N_SITES = 14
SITES = np.arange(N_SITES + 1)
SLOPE: FloatArray = SITES.astype(np.float64)
# Drift back to A, uneven on purpose: a symmetric chain would hide a sign error.
UP = 0.34 + 0.09 * np.sin(1.3 * SITES) - 0.06 * (SITES > 8)
POOL = np.array([1, 1, 1, 2, 1, 3, 2, 1, 1, 2])


def committor() -> FloatArray:
    """Solve q(x) = up q(x+1) + (1-up) q(x-1), q(0) = 0, q(N) = 1."""
    matrix = np.eye(N_SITES + 1)
    for x in range(1, N_SITES):
        matrix[x, x + 1], matrix[x, x - 1] = -UP[x], UP[x] - 1.0
    return np.linalg.solve(matrix, (SITES == N_SITES).astype(float))


LOG_V: dict[str, FloatArray] = {
    "right": np.log(np.maximum(committor(), 1e-300)),
    "too flat": 0.6 * SLOPE,
    "too steep": 1.0 * SLOPE,
    "uneven": 0.7 * SLOPE + 1.5 * np.cos(2.0 * SITES),
}


def walk(
    log_v: FloatArray,
    n_replicas: int,
    n_roots: int,
    rng: np.random.Generator,
    tilt: float = 0.0,
    cap: int = 0,
    step: Callable[..., Offspring] = branch,
) -> FloatArray:
    """Return n_replicas independent estimates of the pool's mean committor by a branching random walk.

    `tilt` is added to the chance of a step up (an importance-sampling bias, paid back in the weight); a population
    above `cap` is combed back to it.  All replicas move in one array; each has its own roots, and its own comb.
    """
    draws = [draw_roots(log_v[POOL], n_roots, 0.1, rng) for _ in range(n_replicas)]
    lane = np.repeat(np.arange(n_replicas), n_roots)
    x = POOL[np.concatenate([indices for indices, _ in draws])]
    log_w = np.concatenate([log_w for _, log_w in draws])
    # The reference of G is the drawing density, so that G = 1 at every root.
    log_reference = log_v[x] + log_w
    arrived = np.zeros(n_replicas)
    while x.size:
        up = rng.random(x.size) < UP[x] + tilt
        log_w += np.where(up, np.log(UP[x] / (UP[x] + tilt)), np.log((1.0 - UP[x]) / (1.0 - UP[x] - tilt)))
        x = x + np.where(up, 1, -1)
        home = x == N_SITES
        arrived += np.bincount(lane[home], np.exp(log_w[home]), n_replicas)
        x, log_w, lane, log_reference = (a[(x > 0) & ~home] for a in (x, log_w, lane, log_reference))
        log_g = log_w + log_v[x] - log_reference
        children = step(log_g, Window(), rng)
        children = _capped(children, lane, log_g, cap, rng) if cap else children
        x, lane, log_reference = (a[children.parents] for a in (x, lane, log_reference))
        log_w = log_w[children.parents] + children.log_factors
    return arrived


def _capped(children: Offspring, lane: IntArray, log_g: FloatArray, cap: int, rng: np.random.Generator) -> Offspring:
    parents, factors = [], []
    for one in np.unique(lane[children.parents]):
        mine = np.flatnonzero(lane[children.parents] == one)
        if mine.size > cap:
            again = resample(log_g[children.parents[mine]] + children.log_factors[mine], cap, rng)
            parents.append(children.parents[mine[again.parents]])
            factors.append(children.log_factors[mine[again.parents]] + again.log_factors)
        else:
            parents.append(children.parents[mine])
            factors.append(children.log_factors[mine])
    return Offspring(np.concatenate([[], *parents]).astype(np.int64), np.concatenate([[], *factors]))


@pytest.mark.parametrize("tilt", [0.0, 0.15])
@pytest.mark.parametrize("name", LOG_V)
def test_a_wrong_value_function_gives_the_right_answer(name: str, tilt: float) -> None:
    """64 replicas, t-test at 5 standard errors: false alarm 5e-6 each.  It must also be sharp: error below 5 %."""
    truth = committor()[POOL].mean()
    estimates = walk(LOG_V[name], 64, 1000, np.random.default_rng(with_offset(100)), tilt)
    error = estimates.std(ddof=1) / 8.0
    assert truth < 1e-3
    assert error < 0.05 * truth
    assert abs(estimates.mean() - truth) < 5.0 * error


def test_a_capped_population_gives_the_right_answer() -> None:
    """As above, each replica combed to 150 walkers hundreds of times over; error below 8 %."""
    truth = committor()[POOL].mean()
    estimates = walk(LOG_V["too steep"], 64, 100, np.random.default_rng(with_offset(101)), 0.15, cap=150)
    error = estimates.std(ddof=1) / 8.0
    assert error < 0.08 * truth
    assert abs(estimates.mean() - truth) < 5.0 * error


def test_the_test_above_would_see_a_lost_weight() -> None:
    """The same test must fail when survivors of roulette keep their old weight."""

    def forgetful(log_g: FloatArray, window: Window, rng: np.random.Generator) -> Offspring:
        children = branch(log_g, window, rng)
        return Offspring(children.parents, np.minimum(children.log_factors, 0.0))

    truth = committor()[POOL].mean()
    estimates = walk(LOG_V["uneven"], 64, 300, np.random.default_rng(with_offset(102)), step=forgetful)
    assert abs(estimates.mean() - truth) > 5.0 * estimates.std(ddof=1) / 8.0


def test_the_interval_of_branching_batches_covers_the_truth() -> None:
    """Coverage over 300 repeats of 20 batches of 50 roots, with an uneven V and a bias; false alarm 1e-6 at 0.90."""
    truth = committor()[POOL].mean()
    batches = walk(LOG_V["uneven"], 300 * 20, 50, np.random.default_rng(with_offset(103)), tilt=0.15).reshape(300, 20)
    intervals = [mean(repeat, log_interval=True).interval for repeat in batches]
    hits = sum(low <= truth <= high for low, high in intervals)
    assert hits >= stats.binom.ppf(1e-6, 300, 0.90)

"""Estimators: closed forms, honest ignorance, and the coverage of the 95 % interval over many seeds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from seeds import with_offset

from openmm_rlis.statistics.estimators import (
    BatchTotals,
    Estimate,
    channel_shares,
    flux,
    mean,
    rate,
    ratio,
    reciprocal,
    success_probability,
)

values = st.lists(st.floats(0.01, 100.0), min_size=2, max_size=30).filter(lambda x: np.ptp(x) > 1e-3)


def covered(estimate: Estimate, truth: float) -> bool:
    return estimate.interval[0] <= truth <= estimate.interval[1]


# --- identities -----------------------------------------------------------------------------------------------------


@given(values)
def test_mean_is_the_textbook_mean(x: list[float]) -> None:
    estimate, error = mean(x), float(stats.sem(x))
    low, high = stats.t.interval(0.95, len(x) - 1, np.mean(x), error)
    assert estimate.value == pytest.approx(np.mean(x), rel=1e-12)
    assert estimate.standard_error == pytest.approx(error, rel=1e-9)
    assert estimate.interval == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert estimate.n_batches == len(x)


@given(values)
def test_log_interval_is_positive_and_symmetric_in_the_logarithm(x: list[float]) -> None:
    plain, estimate = mean(x), mean(x, log_interval=True)
    low, high = estimate.interval
    assert (estimate.value, estimate.standard_error) == (plain.value, plain.standard_error)
    assert 0.0 < low < estimate.value < high
    assert math.log(high / estimate.value) == pytest.approx(math.log(estimate.value / low), rel=1e-6)


@given(values, st.floats(0.1, 10.0))
def test_equal_times_make_the_rate_the_mean_of_batch_rates(n: list[float], time: float) -> None:
    totals = BatchTotals(np.array(n), np.array(n), np.full(len(n), time))
    k, m = rate(totals), mean(np.array(n) / time, log_interval=True)
    assert k.value == pytest.approx(m.value, rel=1e-12)
    assert k.standard_error == pytest.approx(m.standard_error, rel=1e-9)
    assert k.interval == pytest.approx(m.interval, rel=1e-6)


@given(values, st.floats(1e-6, 1e6))
def test_ratio_error_scales_with_the_unit(n: list[float], unit: float) -> None:
    d = np.linspace(1.0, 2.0, len(n))
    one, other = ratio(n, d), ratio(np.array(n) * unit, d)
    assert other.value == pytest.approx(one.value * unit, rel=1e-9)
    assert other.relative_error == pytest.approx(one.relative_error, rel=1e-6)


def test_rate_is_flux_times_success_probability() -> None:
    rng = np.random.default_rng(with_offset(1))
    totals = BatchTotals(rng.gamma(2.0, 1e-3, 20), rng.poisson(50, 20).astype(float), rng.uniform(90, 110, 20))
    assert rate(totals).value == pytest.approx(flux(totals).value * success_probability(totals).value, rel=1e-12)


def test_reciprocal_keeps_relative_error_and_coverage() -> None:
    k = mean([1.0, 2.0, 4.0], log_interval=True)
    t = reciprocal(k)
    assert t.value == 1.0 / k.value
    assert t.relative_error == pytest.approx(k.relative_error, rel=1e-12)
    assert t.interval == (1.0 / k.interval[1], 1.0 / k.interval[0])
    back = reciprocal(t)
    assert back.interval == pytest.approx(k.interval, rel=1e-12)
    assert reciprocal(mean([0.1, 5.0])).interval[1] == math.inf


# --- ignorance is not precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [[3.0], [0.0], [0.0, 0.0, 0.0], [2.0, 2.0], [0.1, 0.1, 0.1]])
@pytest.mark.parametrize("log_interval", [False, True])
def test_no_spread_means_no_error_bar(x: list[float], log_interval: bool) -> None:
    estimate = mean(x, log_interval)
    assert estimate.value == pytest.approx(x[0])
    assert estimate.standard_error == math.inf == estimate.relative_error
    assert estimate.interval == (0.0, math.inf)


def test_nothing_over_nothing_is_nan_with_an_open_interval() -> None:
    zero = np.zeros(4)
    p = success_probability(BatchTotals(zero, zero, np.ones(4)))
    assert math.isnan(p.value) and p.relative_error == math.inf and p.interval == (0.0, math.inf)


def test_reciprocal_of_no_transition() -> None:
    t = reciprocal(mean([0.0, 0.0]))
    assert math.isnan(t.value) and t.standard_error == math.inf and t.interval == (0.0, math.inf)
    with pytest.raises(ValueError, match="not negative"):
        reciprocal(Estimate(-1.0, 0.1, (-1.2, -0.8), 3))


def test_one_transition_in_all_batches_has_a_wide_but_finite_interval() -> None:
    estimate = mean([0.0] * 19 + [1.0], log_interval=True)
    assert estimate.relative_error == pytest.approx(1.0)
    assert 0.0 < estimate.interval[0] < estimate.interval[1] < math.inf


def test_two_wild_batches_do_not_overflow() -> None:
    low, high = mean([1e-300, 1.0], log_interval=True).interval
    assert 0.0 <= low < high


def test_json_round_trip_is_strict_json() -> None:
    for estimate in [mean([1.0, 2.0]), mean([1.0]), mean([0.0, 0.0])]:
        text = json.dumps(estimate.to_dict(), allow_nan=False)
        assert Estimate.from_dict(json.loads(text)) == estimate
    unseen = ratio([0.0, 0.0], [0.0, 0.0])
    back = Estimate.from_dict(json.loads(json.dumps(unseen.to_dict(), allow_nan=False)))
    assert math.isnan(back.value) and back.interval == unseen.interval


def test_bad_batches_are_named() -> None:
    with pytest.raises(ValueError, match=r"batch_values: .* nan in batch 1 \(1 such of 3\)"):
        mean([1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        mean([])
    with pytest.raises(ValueError, match="as many as numerators, got 2 and 1"):
        ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="denominators: expected no negative value"):
        ratio([1.0, 2.0], [1.0, -1.0])


def test_what_is_not_positive_has_an_interval_from_zero() -> None:
    """A control variate can make the mean of few batches negative by chance."""
    found = mean([-1.0, 0.5], log_interval=True)
    half_width = stats.t.ppf(0.975, 1) * found.standard_error
    assert found.value == -0.25 and found.interval == (0.0, pytest.approx(half_width))


# --- channels -------------------------------------------------------------------------------------------------------


def test_channel_shares_by_hand() -> None:
    """Two batches and an empty third: 'up' carries 1 + 3 of 6, 'down' 2 of 6; errors are those of the ratio."""
    shares = channel_shares([0, 0, 1], ["up", ("down", 1), "up"], [1.0, 2.0, 3.0], 3)
    assert list(shares) == ["up", ("down", 1)]
    assert shares["up"].value == pytest.approx(4 / 6) and shares["up"].n_batches == 3
    assert shares["up"].standard_error == pytest.approx(ratio([1.0, 3.0, 0.0], [3.0, 3.0, 0.0]).standard_error)
    assert sum(share.value for share in shares.values()) == pytest.approx(1.0)
    assert shares["up"].standard_error == pytest.approx(shares[("down", 1)].standard_error)
    assert all(0.0 <= share.interval[0] <= share.interval[1] <= 1.0 for share in shares.values())


def test_a_single_channel_proves_nothing_about_others() -> None:
    shares = channel_shares([0, 1], [1, 1], [1.0, 2.0], 2)
    assert shares[1] == Estimate(1.0, math.inf, (0.0, 1.0), 2)


def test_channels_without_paths_or_weight() -> None:
    assert channel_shares([], [], [], 5) == {}
    share = channel_shares([0], ["a"], [0.0], 2)["a"]
    assert math.isnan(share.value) and share.interval == (0.0, 1.0)


def test_bad_channel_input() -> None:
    with pytest.raises(ValueError, match="one label, batch and weight per path"):
        channel_shares([0, 1], ["a"], [1.0, 1.0], 2)
    with pytest.raises(ValueError, match=r"batch_index: expected 0..1, got 0..2"):
        channel_shares([0, 2], ["a", "b"], [1.0, 1.0], 2)
    with pytest.raises(ValueError, match="weights"):
        channel_shares([0, 1], ["a", "b"], [1.0, -1.0], 2)


# --- coverage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_batches", [2, 5, 20])
def test_coverage_is_exact_for_gaussian_batches(n_batches: int) -> None:
    """2000 seeds; hits are binomial(2000, 0.95).  Two-sided false alarm 1e-6."""
    hits = sum(
        covered(mean(np.random.default_rng(with_offset(s)).normal(3.0, 1.0, n_batches)), 3.0) for s in range(2000)
    )
    low, high = stats.binom.interval(1.0 - 1e-6, 2000, 0.95)
    assert low <= hits <= high


@pytest.mark.parametrize("sigma, least", [(0.5, 0.93), (1.0, 0.885), (1.5, 0.79)])
def test_coverage_of_skewed_batches(sigma: float, least: float) -> None:
    """Log-normal batch rates (relative spread 0.5, 1.3, 2.9), 20 batches, 2000 seeds.

    No interval built from 20 such numbers can reach 95 % when one of them may carry the sum.  What is promised: the
    logarithmic interval loses at most what `least` says and never does worse than the plain one.  False alarm 1e-6 if
    the true coverage is `least`.
    """
    truth = math.exp(0.5 * sigma**2)
    batches = [np.random.default_rng(with_offset(s)).lognormal(0.0, sigma, 20) for s in range(2000)]
    plain = sum(covered(mean(x), truth) for x in batches)
    logarithmic = sum(covered(mean(x, log_interval=True), truth) for x in batches)
    assert logarithmic >= stats.binom.ppf(1e-6, 2000, least)
    assert logarithmic >= plain


def test_coverage_of_a_rate_from_counts() -> None:
    """Poisson counts in unequal, fixed stretches: the ratio's interval; 2000 seeds, false alarm 1e-6 at 0.93..0.97."""
    time = np.linspace(50.0, 150.0, 20)

    def one(seed: int) -> bool:
        count = np.random.default_rng(with_offset(seed)).poisson(0.04 * time).astype(float)
        return covered(flux(BatchTotals(count, count, time)), 0.04)

    hits = sum(one(seed) for seed in range(2000))
    assert stats.binom.ppf(1e-6, 2000, 0.93) <= hits <= stats.binom.ppf(1.0 - 1e-6, 2000, 0.97)

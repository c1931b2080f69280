"""Weights: identities against plain arithmetic, and the tail index against laws whose tail is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from seeds import with_offset

from openmm_rlis.statistics import weights
from openmm_rlis.statistics.weights import effective_sample_size, largest_share, log_mean, log_sum, tail_index

log_weight_lists = st.lists(st.floats(-30.0, 30.0) | st.just(-np.inf), min_size=1, max_size=40)


@given(log_weight_lists)
def test_sums_agree_with_plain_arithmetic(log_w: list[float]) -> None:
    w = np.exp(np.array(log_w))
    if w.sum() == 0.0:
        assert log_sum(log_w) == log_mean(log_w) == -np.inf
        assert effective_sample_size(log_w) == 0.0
        assert math.isnan(largest_share(log_w))
        return
    assert log_sum(log_w) == pytest.approx(float(logsumexp(log_w)), abs=1e-12)
    assert log_mean(log_w) == pytest.approx(math.log(w.mean()), abs=1e-12)
    assert effective_sample_size(log_w) == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-9)
    assert largest_share(log_w) == pytest.approx(w.max() / w.sum(), rel=1e-9)


@given(log_weight_lists, st.floats(-1e4, 1e4))
def test_a_common_factor_changes_no_diagnostic(log_w: list[float], shift: float) -> None:
    moved = np.array(log_w) + shift
    assert effective_sample_size(moved) == pytest.approx(effective_sample_size(log_w), rel=1e-8)
    assert largest_share(moved) == pytest.approx(largest_share(log_w), rel=1e-8, nan_ok=True)


def test_equal_and_single_weights_are_the_two_extremes() -> None:
    assert effective_sample_size(np.full(7, -800.0)) == pytest.approx(7.0, rel=1e-12)
    assert effective_sample_size([0.0, -np.inf, -np.inf]) == pytest.approx(1.0, rel=1e-12)
    assert largest_share([0.0, -np.inf]) == 1.0


def test_empty_input() -> None:
    assert log_sum([]) == -np.inf
    assert effective_sample_size([]) == 0.0
    with pytest.raises(ValueError, match="at least one weight"):
        log_mean([])


@pytest.mark.parametrize("function", [log_sum, log_mean, effective_sample_size, largest_share, tail_index])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_plus_infinity_are_named_and_counted(function: Callable[..., float], bad: float) -> None:
    log_w = np.zeros(40)
    log_w[[3, 9]] = bad
    with pytest.raises(ValueError, match=rf"log_weights: .* {bad} at index 3 \(2 such of 40\)"):
        function(log_w)


def test_two_dimensional_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        log_sum(np.zeros((2, 2)))


@pytest.mark.parametrize("k", [0.25, 0.5, 1.0, 2.0])
def test_tail_index_of_a_power_law(k: float) -> None:
    """w = U^-k has a generalised Pareto tail of index exactly k.

    The mean of 64 fits to 190 tail points has a standard error of about (1 + k)/sqrt(64 * 190); the prior pulls by
    (k - 1/2) * 10/200.  Five standard errors of the observed spread: false alarm 5e-6.
    """
    rng = np.random.default_rng(with_offset(20))
    fits = np.array([tail_index(-k * np.log1p(-rng.random(4000))) for _ in range(64)])
    n_tail = math.ceil(3.0 * math.sqrt(4000))
    expected = (n_tail * k + 5.0) / (n_tail + 10.0)
    # Zhang and Stephens' fit itself is biased by some 1/n_tail.
    assert abs(fits.mean() - expected) < 5.0 * fits.std(ddof=1) / 8.0 + 1.0 / n_tail
    assert fits.std(ddof=1) < 1.5 * (1.0 + k) / math.sqrt(n_tail)


def test_tail_index_separates_light_from_heavy_tails() -> None:
    """Uniform weights have k = -1, log-normal ones of width 4 an effective k near 1 and above: tens of sigma apart."""
    rng = np.random.default_rng(with_offset(21))
    assert tail_index(np.log(rng.random(4000))) < 0.0
    assert tail_index(4.0 * rng.standard_normal(4000)) > 0.7


def test_tail_index_sees_only_positive_weights_and_no_scale() -> None:
    log_w = np.random.default_rng(with_offset(22)).standard_normal(500)
    padded = np.concatenate([log_w, np.full(300, -np.inf)])
    assert tail_index(padded) == tail_index(log_w)
    assert tail_index(log_w - 1000.0) == pytest.approx(tail_index(log_w), abs=1e-9)


def test_tail_index_without_a_tail_is_nan() -> None:
    assert math.isnan(tail_index(np.random.default_rng(with_offset(23)).standard_normal(24)))
    assert math.isnan(tail_index(np.zeros(100)))
    assert math.isnan(tail_index(np.concatenate([np.zeros(25), np.full(100, -np.inf)])))


def test_one_crushing_weight_is_the_heaviest_of_tails() -> None:
    log_w = np.random.default_rng(with_offset(24)).standard_normal(100)
    log_w[50] = 5000.0
    assert tail_index(log_w) > 1.0


@pytest.mark.parametrize("n", range(1000, 1700, 50))
def test_tied_excesses_still_give_a_number(n: int) -> None:
    """With two-valued weights the fitting grid can hit k = 0, where the likelihood reads 0/0."""
    log_w = np.zeros(n)
    log_w[: math.ceil(3.0 * math.sqrt(n))] = 1.0
    assert tail_index(log_w) < 0.5


def test_fitting_grid_point_at_zero_is_harmless() -> None:
    assert math.isfinite(weights._pareto_shape(np.ones(100)))

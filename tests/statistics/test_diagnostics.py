"""Diagnostics on crafted records: quiet ones stay quiet, and each fault that is put in is named.

The quiet records are drawn 400 times; 0.2 % of false alarms is asked of each of six scores: 15 or more among the
6 x 400 have probability 2e-4 if that is true.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from seeds import with_offset

from openmm_rlis.statistics import estimators
from openmm_rlis.statistics.diagnostics import Production, alarms, measure
from openmm_rlis.statistics.estimators import BatchTotals

Array = NDArray[np.float64]
N_BATCHES, N_ROUNDS, N_ROOTS = 20, 4, 30
SCORES = (
    "defence_score",
    "batch_halves_score",
    "round_halves_score",
    "exits_score",
    "inside_halves_score",
    "excursions_score",
)


class Times(NamedTuple):
    """Times of `Production`, (n_rounds, n_batches), ps."""

    time: Array
    inside: Array
    away_basin: Array
    away_walks: Array
    late: Array


def production(rng: np.random.Generator, defensive_factor: float = 1.0, drift: float = 0.0) -> Production:
    """Roots of exponential weight; roots that play no roulette may see more, and later rounds less."""
    shape = (N_ROUNDS, N_BATCHES, N_ROOTS)
    defensive = rng.permuted(np.broadcast_to(np.arange(N_ROOTS) < N_ROOTS // 2, shape), axis=2)
    weights = rng.exponential(1.0, shape) * np.where(defensive, defensive_factor, 1.0)
    weights *= (1.0 - drift * np.arange(N_ROUNDS) / N_ROUNDS)[:, None, None]
    transitions, exits = weights.sum(2), rng.poisson(100, (N_ROUNDS, N_BATCHES)).astype(float)
    totals = BatchTotals(transitions.sum(0), exits.sum(0), np.full(N_BATCHES, 10.0))
    batches = np.broadcast_to(np.arange(N_BATCHES)[None, :, None], shape).ravel()
    ended = 1.0 + 0.05 * rng.standard_normal((N_ROUNDS, N_BATCHES))
    nothing = np.zeros(weights.size)
    time = np.full(transitions.shape, 10.0 / N_ROUNDS)
    noise = 0.01 * rng.spawn(2)[0].standard_normal((2, *time.shape))  # a stream of its own
    times = Times(time, 0.7 * time + noise[0], 0.2 * time, 0.2 * time + noise[1], 0.05 * time)
    return Production(
        totals, transitions, exits, ended, weights.ravel(), nothing, batches, defensive.ravel(), 0.0, 0, *times
    )


def lines(found: Production, settled: bool = True) -> list[str]:
    norm = estimators.mean(found.ended.mean(0))
    return alarms(found, measure(found), estimators.rate(found.totals), norm, settled)


def test_quiet_records_are_quiet() -> None:
    rng = np.random.default_rng(with_offset(1))
    count = sum(len(lines(production(rng))) for _ in range(400))
    assert count < 15


def test_scores_are_standard() -> None:
    """Their spread over 400 records is that of Student's t with 19 degrees of freedom or fewer, 1.06 to 1.2."""
    rng = np.random.default_rng(with_offset(2))
    found = [measure(production(rng)) for _ in range(400)]
    for name in SCORES[:3]:
        values = np.array([numbers[name] for numbers in found])
        assert abs(values.mean()) < 4.0 * values.std() / 20.0 and 0.9 < values.std() < 1.3, name


def test_a_channel_that_roulette_hides_is_named() -> None:
    found = lines(production(np.random.default_rng(with_offset(3)), defensive_factor=1.6))
    assert len(found) == 1 and "no roulette" in found[0] and "defensive_share" in found[0]


def test_a_control_variate_that_is_not_zero_on_average_is_named() -> None:
    rng = np.random.default_rng(with_offset(5))
    found = production(rng)
    assert np.isnan(measure(found)["control_score"])
    for shift, expected in ((0.0, False), (0.1, True)):
        control = rng.normal(shift, 0.3, len(found.root_weights))
        named = [line for line in lines(replace(found, root_control=control)) if "control variate" in line]
        assert bool(named) is expected


@pytest.mark.parametrize(("exponent", "expected"), [(0.3, False), (1.5, True)])
def test_small_control_variates_are_no_tail(exponent: float, expected: bool) -> None:
    """Few of many roots arrive: how heavy the arrivals are is asked, not how far they stand above the rest."""
    found, rng = production(np.random.default_rng(with_offset(8))), np.random.default_rng(with_offset(9))
    n, n_arrived = 40_000, 200
    weights = np.zeros(n)
    weights[:n_arrived] = rng.uniform(size=n_arrived) ** -exponent
    few = replace(
        found, root_weights=weights, root_control=rng.normal(0.0, 1e-3, n), root_defensive=np.ones(n, dtype=bool),
        root_batches=np.arange(n) % N_BATCHES,
    )  # fmt: skip
    assert (measure(few)["tail_index"] > 0.7) is expected
    assert any("tail index" in line for line in lines(few)) is expected


def test_one_root_counts_by_what_it_adds() -> None:
    """A root whose arrival the control variate had foreseen carries nothing; one that was taken far too much does."""
    found = production(np.random.default_rng(with_offset(7)))
    weights, control = found.root_weights.copy(), found.root_control.copy()
    weights[5] = control[5] = 0.5 * weights.sum()
    assert not lines(replace(found, root_weights=weights, root_control=control))
    weights[5] = 0.0
    numbers = measure(replace(found, root_weights=weights, root_control=control))
    assert numbers["largest_root_share"] == pytest.approx(1.0, rel=0.01)


def test_nothing_arrived_is_said_whatever_the_control_variate_did() -> None:
    found = production(np.random.default_rng(with_offset(6)))
    found = replace(found, root_weights=np.zeros_like(found.root_weights))
    assert any("no transition was observed" in line for line in lines(found))


def test_drift_between_rounds_is_named() -> None:
    found = lines(production(np.random.default_rng(with_offset(4)), drift=0.8))
    assert any("early and late rounds differ" in line for line in found)


def test_a_stuck_batch_is_named() -> None:
    quiet = production(np.random.default_rng(with_offset(5)))
    exits = quiet.totals.exits.copy()
    exits[7] *= 2.0
    found = lines(replace(quiet, totals=replace(quiet.totals, exits=exits)))
    assert len(found) == 1 and "the exit rate of one batch" in found[0]


def test_batches_that_differ_by_halves_are_named() -> None:
    quiet = production(np.random.default_rng(with_offset(6)))
    transitions = quiet.totals.transitions * np.where(np.arange(N_BATCHES) % 2, 1.0, 1.8)
    found = lines(replace(quiet, totals=replace(quiet.totals, transitions=transitions)))
    assert any("odd and even batches differ" in line for line in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"hidden": 500.0}, "in a reactive channel"), ({"n_thinned": 900}, "far too large in some configurations")],
)
def test_a_bad_value_function_is_named(change: dict[str, float], words: str) -> None:
    found = lines(replace(production(np.random.default_rng(with_offset(7))), **change))
    assert len(found) == 1 and words in found[0]


def test_settling_is_named_first() -> None:
    assert "did not equilibrate" in lines(production(np.random.default_rng(with_offset(8))), settled=False)[0]


def test_a_slow_place_that_is_no_region_is_told() -> None:
    found = production(np.random.default_rng(with_offset(9)))
    assert not lines(found)
    slow = replace(found, late=0.4 * found.time)
    assert ["40% of the time in state A is spent in excursions longer" in line for line in lines(slow)] == [True]


def test_walks_and_basin_simulation_that_disagree_are_told() -> None:
    """About the time outside the core in the first lags of an excursion, by 5 %: 0.01 of 0.2."""
    found = production(np.random.default_rng(with_offset(10)))
    off = replace(found, away_walks=found.away_walks + 0.01)
    assert any("from walks and from the basin simulation differ" in line for line in lines(off))


def test_a_drift_of_the_time_inside_is_told() -> None:
    found = production(np.random.default_rng(with_offset(11)))
    noise = np.random.default_rng(with_offset(12)).normal(0.0, 0.02, found.time.shape)
    for drift, told in ((0.0, False), (0.1, True)):
        inside = (0.7 + noise - drift * np.arange(N_ROUNDS)[:, None]) * found.time
        expected = "early and late rounds differ by"
        assert any(expected in line and "inside A" in line for line in lines(replace(found, inside=inside))) == told


def test_too_little_says_nothing() -> None:
    """One round, two batches and three roots with success: no score, and no warning from NumPy."""
    totals = BatchTotals(np.array([1.0, 2.0]), np.array([5.0, 5.0]), np.ones(2))
    weights, batches = np.array([1.0, 0.0, 1.5, 0.5]), np.array([0, 0, 1, 1])
    short = Production(
        totals, totals.transitions[None], totals.exits[None], np.ones((1, 2)), weights, np.zeros(4), batches,
        np.array([True, False, True, False]), 0.0, 0, *[np.ones((1, 2))] * 5,
    )  # fmt: skip
    numbers = measure(short)
    assert all(np.isnan(numbers[name]) for name in SCORES)
    assert numbers["hidden_share"] == 0.0 and numbers["ess"] > 1.0

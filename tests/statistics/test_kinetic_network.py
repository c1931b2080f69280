"""Network: populations, first-passage times and errors against linear algebra, simulation and quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import null_space
from scipy.stats import t as student_t

from openmm_rlis.errors import InputError
from openmm_rlis.statistics.estimators import Estimate
from openmm_rlis.statistics.kinetic_network import Network, Networks, passage_times, stationary

NAMES = ("A", "B", "C", "D")


def leg(value: float, relative_error: float = 0.1, n: int = 20) -> Estimate:
    """An Estimate as `estimators.rate` makes it."""
    factor = math.exp(float(student_t.ppf(0.975, n - 1)) * relative_error)
    return Estimate(value, value * relative_error, (value / factor, value * factor), n)


def table(rng: np.random.Generator, n: int, decades: float = 2.0) -> np.ndarray:
    rates = 10.0 ** rng.uniform(-decades, 0.0, (n, n))
    np.fill_diagonal(rates, 0.0)
    return rates


def network(rates: np.ndarray, relative_error: float = 0.1) -> Network:
    names = NAMES[: len(rates)]
    pairs = [(i, j) for i in range(len(rates)) for j in range(len(rates)) if i != j]
    return Network(names, {(names[i], names[j]): leg(rates[i, j], relative_error) for i, j in pairs})


@pytest.mark.parametrize("n", [2, 3, 4])
def test_populations_and_times_are_those_of_linear_algebra(n: int) -> None:
    rates = table(np.random.default_rng(n), n)
    generator = rates - np.diag(rates.sum(1))
    pi = null_space(generator.T)[:, 0]
    np.testing.assert_allclose(stationary(rates[None])[0], pi / pi.sum(), rtol=1e-12)
    for b in range(n):
        rows = [i for i in range(n) if i != b]
        tau = np.linalg.solve(generator[np.ix_(rows, rows)], -np.ones(n - 1))
        np.testing.assert_allclose(passage_times(rates[None], b)[0][rows], tau, rtol=1e-12)
        spent = -np.linalg.inv(generator[np.ix_(rows, rows)])
        for column, m in enumerate(rows):
            np.testing.assert_allclose(passage_times(rates[None], b, m)[0][rows], spent[:, column], rtol=1e-12)


@given(st.lists(st.floats(-30.0, 0.0), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_detailed_balance_gives_the_boltzmann_distribution(energies: list[float], seed: int) -> None:
    """k_ij = S_ij / pi_i with S symmetric, over thirteen decades: populations and their flux balance to 1e-12."""
    pi = np.exp(np.array(energies) - max(energies))
    pi /= pi.sum()
    barrier = table(np.random.default_rng(seed), 4, 6.0)
    rates = (barrier + barrier.T) / pi[:, None]
    found = stationary(rates[None])[0]
    np.testing.assert_allclose(found, pi, rtol=1e-12)
    flux = found[:, None] * rates
    np.testing.assert_allclose(flux.sum(0), flux.sum(1), rtol=1e-12)
    # Two states: there and back take 1/k each; and for any chain the round trip i -> j -> i is one cycle.
    i, j = 0, 1
    cycle = passage_times(rates[None], j)[0][i] + passage_times(rates[None], i)[0][j]
    assert cycle > 0.0


def test_two_states_are_their_own_rates() -> None:
    found = Network(("A", "B"), {("A", "B"): leg(2.0, 0.05), ("B", "A"): leg(0.5, 0.2)})
    assert found.rate("A", "B").value == pytest.approx(2.0)
    assert found.rate("B", "A").relative_error == pytest.approx(0.2)
    low, high = found.rate("B", "A").interval
    own = leg(0.5, 0.2).interval
    assert np.log([low / own[0], high / own[1]]) == pytest.approx(0.0, abs=0.03)
    assert found.stationary["B"].value == pytest.approx(0.8)
    assert found.stationary["A"].standard_error == pytest.approx(0.16 * math.hypot(0.05, 0.2))


@pytest.mark.parametrize("n", [3, 4])
def test_errors_are_the_derivatives(n: int) -> None:
    rates, step = table(np.random.default_rng(10 + n), n), 1e-6
    found = network(rates)
    mfpt, share = 0.0, 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                up, down = rates.copy(), rates.copy()
                up[i, j] *= 1.0 + step
                down[i, j] *= 1.0 - step
                d_tau = (passage_times(up[None], 1) - passage_times(down[None], 1))[0][0] / (2.0 * step)
                d_pi = (stationary(up[None]) - stationary(down[None]))[0][2] / (2.0 * step)
                mfpt, share = mfpt + (0.1 * d_tau) ** 2, share + (0.1 * d_pi) ** 2
    assert found.mfpt["A", "B"].standard_error == pytest.approx(math.sqrt(mfpt), rel=1e-6)
    assert found.stationary["C"].standard_error == pytest.approx(math.sqrt(share), rel=1e-6)


def test_errors_cover_the_spread_of_networks_that_are_measured() -> None:
    """300 networks with legs of 20 batches: spread over claim within 10 %, and 95 % of intervals hold the truth.

    By chance fewer than 92 % would hold it about once in 100.
    """
    rng, rates = np.random.default_rng(5), table(np.random.default_rng(4), 3)
    truth, n, spread = network(rates).rate("A", "B").value, 20, 0.15
    rows = []
    for _ in range(300):
        batches = np.exp(rng.normal(0.0, 1e-9, 1)) * (1.0 + spread * math.sqrt(n) * rng.normal(size=(n, 3, 3)))
        means, errors = batches.mean(0), batches.std(0, ddof=1) / math.sqrt(n)
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        legs = {(NAMES[i], NAMES[j]): leg(rates[i, j] * means[i, j], errors[i, j] / means[i, j]) for i, j in pairs}
        k = Network(NAMES[:3], legs).rate("A", "B")
        rows.append((k.value, k.standard_error, k.interval[0] <= truth <= k.interval[1]))
    values, claims, held = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    assert values.std() / np.sqrt((claims**2).mean()) == pytest.approx(1.0, abs=0.15)
    assert held.mean() >= 0.92


def test_what_is_not_measured_is_left_out() -> None:
    """Rates out of A and M say A -> B and M -> B, and nothing of the way back."""
    found = Network(
        ("A", "M", "B"),
        {("A", "M"): leg(2.0), ("A", "B"): leg(0.5), ("M", "A"): leg(1.0), ("M", "B"): leg(1.0)},
    )
    assert set(found.mfpt) == {("A", "B"), ("M", "B")}
    assert found.stationary == {}
    assert found.mfpt["A", "B"].value == pytest.approx(4.0 / 3.0)
    with pytest.raises(InputError, match="states whose rates are all there"):
        found.rate("B", "A")
    with pytest.raises(InputError, match="pairs of different states"):
        Network(("A", "B"), {("A", "C"): leg(1.0)})


def test_a_bound_widens_the_interval_on_its_side() -> None:
    legs = {("A", "M"): leg(2.0, 0.05), ("M", "A"): leg(1.0, 0.05), ("M", "B"): leg(1.0, 0.05)}
    bounds = [Estimate(0.0, math.inf, (0.0, upper), 20) for upper in (1e-9, 1.0)]
    none, some = (Network(("A", "M", "B"), {**legs, ("A", "B"): bound}) for bound in bounds)
    assert none.rate("A", "B").value == some.rate("A", "B").value == pytest.approx(0.5)
    assert some.rate("A", "B").interval[1] > 1.3 * none.rate("A", "B").interval[1]
    assert some.rate("A", "B").interval[0] <= 0.5
    assert some.rate("A", "B").standard_error > none.rate("A", "B").standard_error


def test_unknown_errors_and_rates_stay_unknown() -> None:
    nothing = Estimate(math.nan, math.inf, (0.0, math.inf), 20)
    legs = {("A", "B"): leg(1.0), ("B", "A"): nothing}
    found = Network(("A", "B"), legs)
    assert found.mfpt["A", "B"].value == pytest.approx(1.0)
    assert math.isfinite(found.mfpt["A", "B"].standard_error)
    assert math.isnan(found.stationary["A"].value)
    assert math.isnan(found.rate("B", "A").value)
    shut = Network(("A", "M", "B"), {(i, j): leg(1.0) for i, j in (("A", "M"), ("M", "A"))}
                   | {(i, "B"): Estimate(0.0, math.inf, (0.0, math.inf), 20) for i in ("A", "M")})  # fmt: skip
    assert math.isnan(shut.rate("A", "B").value)
    assert shut.rate("A", "B").interval == (0.0, math.inf)


def test_an_intermediate_well_against_quadrature() -> None:
    """Milestones on a line: rates between neighbours by quadrature give the time from A to B by quadrature.

    tau(a -> b) = int_a^b e^U int_-inf^x e^-U, and k_AM = 1 / (int_A^M e^U * weight that belongs to A).
    """
    x = np.linspace(-1.8, 1.8, 36001)
    dx = x[1] - x[0]
    u = 4.0 * (1.0 - np.cos(2.0 * np.pi * x)) - 3.0 * np.exp(-((x / 0.2) ** 2))
    u += 40.0 * np.where(np.abs(x) > 1.0, (np.abs(x) - 1.0) ** 2, 0.0)
    ends = (-0.9, 0.0, 0.9)  # regions as points: the exact relation of one dimension
    barrier = [(np.exp(u) * ((x >= a) & (x < b))).sum() * dx for a, b in itertools.pairwise(ends)]
    hitting = []
    for a, b in itertools.pairwise(ends):
        between = (x >= a) & (x <= b)
        c = np.cumsum(np.where(between, np.exp(u), 0.0))
        hitting.append(np.where(x < a, 0.0, np.where(x > b, 1.0, c / c[-1])))
    shares = [1.0 - hitting[0], hitting[0] * (1.0 - hitting[1]), hitting[1]]
    z = [(np.exp(-u) * share).sum() * dx for share in shares]
    k = {("A", "M"): 1 / (barrier[0] * z[0]), ("M", "A"): 1 / (barrier[0] * z[1]),
         ("M", "B"): 1 / (barrier[1] * z[1]), ("B", "M"): 1 / (barrier[1] * z[2])}  # fmt: skip
    zero = Estimate(0.0, 0.0, (0.0, 0.0), 20)
    legs = {pair: leg(rate) for pair, rate in k.items()}
    found = Network(("A", "M", "B"), {**legs, ("A", "B"): zero, ("B", "A"): zero})
    between = (x >= ends[0]) & (x <= ends[2])
    exact = (np.where(between, np.exp(u), 0.0) * np.cumsum(np.exp(-u))).sum() * dx**2
    assert found.mfpt["A", "B"].value == pytest.approx(exact, rel=2e-3)
    assert found.stationary["M"].value == pytest.approx(z[1] / sum(z), rel=1e-3)


def test_rates_of_several_temperatures_lie_on_a_line() -> None:
    betas, barrier, log_prefactor = (5.0, 7.0, 9.0), 1.2, 3.0
    rates = {beta: math.exp(log_prefactor - beta * barrier) for beta in betas}
    many = Networks({beta: Network(("A", "B"), {("A", "B"): leg(k)}) for beta, k in rates.items()})
    line = many.arrhenius["A", "B"]
    assert (line.barrier.value, line.log_prefactor.value) == pytest.approx((barrier, log_prefactor))
    assert line.barrier.standard_error == pytest.approx(0.1 / math.sqrt(8.0))  # sum of (beta - 7)^2
    assert line.chi_squared == pytest.approx(0.0, abs=1e-20)
    assert many.rates[7.0]["A", "B"].value == rates[7.0]
    assert len(many) == 3

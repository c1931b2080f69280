"""The finite volumes themselves: convergence in the mesh, and a problem with a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from oracles_2d import Plane, finite_volume
from scipy.integrate import quad

from openmm_rlis.systems import mueller_brown, triple_well

BOX = (-1.8, 1.4, -0.7, 2.3)
WELLS = (-2.4, 2.4, -7.0 / 3.0, 3.0)  # the hill's y = 1/3 is an edge of cells


def mueller(beta: float, n: int) -> Plane:
    minima = mueller_brown.MINIMA
    return finite_volume(mueller_brown.energy, beta, BOX, (n, n), [(minima["MA"], 0.2), (minima["MB"], 0.2)])


def wells(beta: float, tilt: float, n: int) -> Plane:
    m = triple_well.minima(tilt)
    return finite_volume(
        lambda x, y: triple_well.energy(x, y, tilt), beta, WELLS, (n, n), [(m["L"], 0.3), (m["R"], 0.3)]
    )


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_rates_converge_with_the_mesh(beta: float) -> None:
    rates = [mueller(beta, n).rate for n in (90, 180, 360)]
    assert rates[2] == pytest.approx(rates[1], rel=4e-3)
    assert abs(rates[2] - rates[1]) < abs(rates[1] - rates[0])


def test_the_coldest_rate_of_mueller_brown() -> None:
    # Eyring-Kramers from the stationary points, good to O(1/beta) of the barrier
    assert mueller(3.0, 240).rate == pytest.approx(3.7e-13, rel=0.02)


@pytest.mark.parametrize("tilt", [0.0, 0.5])
@pytest.mark.parametrize("beta", [1.67, 4.0, 6.67])
def test_shares_converge_with_the_mesh(beta: float, tilt: float) -> None:
    shares = [wells(beta, tilt, n).share(0.0, triple_well.HILL) for n in (96, 192, 384)]
    assert shares[2] == pytest.approx(shares[1], abs=3e-3)


def test_the_upper_channel_wins_when_it_is_cold() -> None:
    assert wells(1.67, 0.0, 96).share(0.0, triple_well.HILL) < 0.4
    assert wells(6.67, 0.0, 96).share(0.0, triple_well.HILL) > 0.6


def test_current_is_the_rate_on_every_line() -> None:
    plane = wells(4.0, 0.5, 96)
    assert plane.share(0.0, -9.0) == pytest.approx(1.0)
    a, q, pi = plane.from_source, plane.committor, plane.weights
    assert np.all(a + q <= 1.0 + 1e-9)  # nowhere else to go, so a + q = 1 outside the regions
    assert (a + q)[plane.codes == 0] == pytest.approx(1.0, abs=1e-9)
    # rate times time in A is the capacity, sum over pairs of pi L (q_i - q_j)^2 / 2
    coo = plane.generator.tocoo()
    i, j, off = coo.row, coo.col, coo.row != coo.col
    capacity = 0.5 * float((pi[i] * coo.data * (q[i] - q[j]) ** 2)[off].sum())
    assert plane.rate * float(pi @ a) == pytest.approx(capacity, rel=1e-9)


def test_a_strip_is_one_dimensional() -> None:
    """V = x^4 - 2 x^2, no y: k = [int_A..B e^V int e^-V a]^-1 with regions that reach across the strip."""
    beta, n = 2.0, 800

    def v(x: float) -> float:
        return beta * (x**4 - 2.0 * x * x)

    plane = finite_volume(lambda x, y: x**4 - 2 * x * x + 0.0 * y, beta, (-2.0, 2.0, 0.0, 0.01), (n, 2), [])
    codes = np.where(plane.x < -0.7, 1, np.where(plane.x > 0.7, 2, 0)).astype(np.int8)
    plane = Plane(plane.x, plane.y, plane.shape, plane.generator, plane.weights, codes)
    resistance = quad(lambda x: np.exp(v(x)), -0.7, 0.7)[0]
    a = quad(lambda x: np.exp(-v(x)), -2.0, -0.7)[0]
    between = quad(lambda x: np.exp(-v(x)) * quad(lambda z: np.exp(v(z)), x, 0.7)[0] / resistance, -0.7, 0.7)[0]
    assert plane.rate == pytest.approx(1.0 / (beta * resistance * (a + between)), rel=3e-3)

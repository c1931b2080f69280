"""Units: quantities against the exact SI values, and every bad one refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
import scipy.constants
from openmm import unit

from openmm_rlis.errors import InputError
from openmm_rlis.units import BOLTZMANN, as_float, as_positions, thermal_energy


def test_thermal_energy_is_the_gas_constant_times_temperature() -> None:
    assert pytest.approx(scipy.constants.R / 1000.0, rel=1e-9) == BOLTZMANN
    assert thermal_energy(300.0) == pytest.approx(scipy.constants.R * 0.3, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "argument", "expected"),
    [
        (250.0 * unit.kelvin, "temperature", 250.0),
        (250, "temperature", 250.0),
        (np.float32(2.5), "friction", 2.5),
        (5.0 / unit.nanosecond, "friction", 0.005),
        (2.0 * unit.femtosecond, "timestep", 0.002),
        (3.0 * unit.angstrom, "length", 0.3),
    ],
)
def test_quantities_and_plain_numbers(value: Any, argument: str, expected: float) -> None:
    assert as_float(value, argument) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("argument", ["temperature", "friction", "timestep", "length"])
@pytest.mark.parametrize(
    "value",
    [0.0, -1.0, float("nan"), float("inf"), None, "fast", [1.0, 2.0], True, 1.0 * unit.mole, -2.0 * unit.gram],
    ids=str,
)
def test_bad_numbers_are_refused_in_one_line(value: Any, argument: str) -> None:
    with pytest.raises(InputError, match=rf"^{argument}: expected .*, got ") as caught:
        as_float(value, argument)
    assert "\n" not in str(caught.value)


def test_positions_in_every_usual_form() -> None:
    expected = np.array([[0.1, 0.2, 0.3], [-0.4, 0.5, 0.0]])
    vectors = [openmm.Vec3(*row) for row in expected]
    for value in (
        expected,
        expected.tolist(),
        vectors,
        vectors * unit.nanometer,
        expected * unit.nanometer,
        (10.0 * expected) * unit.angstrom,
        unit.Quantity((10.0 * expected).tolist(), unit.angstrom),
        expected.astype(np.float32),
    ):
        np.testing.assert_allclose(as_positions(value, 2), expected, rtol=1e-6)
    assert as_positions(expected, 2).dtype == np.float64


@pytest.mark.parametrize(
    "value",
    [
        None,
        3.0,
        [1.0, 2.0, 3.0],
        [[1.0, 2.0]],
        [[1.0, 2.0, 3.0], [1.0, 2.0]],
        [["a", 0.0, 0.0]],
        "positions",
        [[0.0, 0.0, 0.0]] * 2,
        np.zeros((1, 3)) * unit.kelvin,
        [[np.nan, 0.0, 0.0]],
        [[0.0, np.inf, 0.0]],
        np.zeros((1, 1, 3)),
    ],
    ids=str,
)
def test_bad_positions_are_refused_in_one_line(value: Any) -> None:
    with pytest.raises(InputError, match=r"^positions: expected .*, got ") as caught:
        as_positions(value, 1)
    assert "\n" not in str(caught.value)

"""OpenMM quantities in, floats out.

Inside the package every number is a float in OpenMM's own units: nm, ps, kJ/mol, kelvin, amu.
Quantities are accepted at the edge and converted here, once; a bare float is taken to be in these units already.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from .errors import bad_input

BOLTZMANN = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)

_UNITS = {
    "temperature": (unit.kelvin, "K"),
    "friction": (unit.picosecond**-1, "1/ps"),
    "timestep": (unit.picosecond, "ps"),
    "length": (unit.nanometer, "nm"),
}


def as_float(value: Any, argument: str) -> float:
    """Return `value` as a positive, finite float in the package's unit for `argument`.

    Parameters
    ----------
    value
        A float or an `openmm.unit.Quantity`.
    argument
        One of ``temperature`` (K), ``friction`` (1/ps), ``timestep`` (ps), ``length`` (nm).

    Raises
    ------
    InputError
        Wrong dimension, not a number, not finite, zero or negative.

    Examples
    --------
    >>> as_float(0.5 * unit.femtosecond, "timestep")
    0.0005
    >>> as_float(300, "temperature")
    300.0
    >>> as_float(1 * unit.picosecond, "temperature")
    Traceback (most recent call last):
    ...
    openmm_rlis.errors.InputError: temperature: expected a quantity in K, got 1 ps; convert it to K
    """
    target, name = _UNITS[argument]
    if unit.is_quantity(value):
        if not value.unit.is_compatible(target):
            raise bad_input(argument, f"a quantity in {name}", f"{value}", f"convert it to {name}")
        value = value.value_in_unit(target)
    if isinstance(value, bool):
        raise bad_input(argument, f"a number in {name}", value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise bad_input(argument, f"a number in {name}", repr(value)) from None
    if not math.isfinite(number) or number <= 0.0:
        raise bad_input(argument, "a positive, finite number", number, f"give it in {name}")
    return number


def as_positions(value: Any, n_atoms: int) -> NDArray[np.float64]:
    """Return positions, a Quantity or numbers in nm, as floats in nm, shape (n_atoms, 3).

    Raises
    ------
    InputError
        Wrong dimension or shape, not numbers, or not finite.

    Examples
    --------
    >>> as_positions([[1.0, 2.0, 3.0]] * unit.angstrom, 1)
    array([[0.1, 0.2, 0.3]])
    """
    if unit.is_quantity(value):
        if not value.unit.is_compatible(unit.nanometer):
            raise bad_input("positions", "a quantity in nanometer", f"one in {value.unit}", "convert it to nanometer")
        value = value.value_in_unit(unit.nanometer)
    try:
        array = np.asarray([tuple(row) for row in value], dtype=np.float64)
    except (TypeError, ValueError):
        got = type(value).__name__
        raise bad_input(
            "positions", f"numbers of shape ({n_atoms}, 3), one row a particle", f"a {got} that is not"
        ) from None
    if array.shape != (n_atoms, 3):
        raise bad_input("positions", f"shape ({n_atoms}, 3), one row a particle", array.shape)
    if not np.isfinite(array).all():
        raise bad_input("positions", "finite coordinates", "NaN or infinity")
    return array


def thermal_energy(temperature: float) -> float:
    """Return kT in kJ/mol for a temperature in kelvin.

    Examples
    --------
    >>> round(thermal_energy(300.0), 4)
    2.4943
    """
    return float(BOLTZMANN * temperature)

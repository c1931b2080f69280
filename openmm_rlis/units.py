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
    """Return positions as floats in nm, shape (n_atoms, 3)."""
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
    """Return kT in kJ/mol for a temperature in kelvin."""
    return float(BOLTZMANN * temperature)

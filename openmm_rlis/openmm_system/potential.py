"""Potential: what a System computes on some structures, by which a force that is a program is known again.

The XML of a program does not tell programs apart: a PythonForce is stored as the name of its function, whatever that
does now, and a TorchForce as an archive whose bytes change with every tracing and every copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..safe_readers.xml_text import PLAIN, kinds_of, objection, parsed
from .system_differences import Difference

if TYPE_CHECKING:
    import openmm

Array = NDArray[np.float64]


def holds_programs(system: openmm.System, xml: str) -> bool:
    """Return whether a force of a System, whose XML is given, is a program, or may be."""
    return any(type(f).__name__ not in PLAIN for f in system.getForces()) and bool(objection(kinds_of(parsed(xml))))


def potential(system: openmm.System, structures: Array) -> Array:
    """Return the energy, kJ/mol, and a sum of forces with fixed factors, kJ/mol/nm, of (n, n_atoms, 3) in nm: (n, 2).

    NaN where the System cannot be evaluated.
    """
    import openmm  # not needed by who only reads results

    reference = openmm.Platform.getPlatformByName("Reference")
    found = np.full((len(structures), 2), np.nan)
    factors = np.random.default_rng(20260101).standard_normal(structures.shape[1:])
    try:
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    except openmm.OpenMMException:
        return found
    for row, x in zip(found, structures, strict=True):
        try:
            context.setPositions(x)
            state = context.getState(getEnergy=True, getForces=True)
        except Exception:  # a user's function on a structure that it was not written for
            continue
        row[:] = state.getPotentialEnergy()._value, float((factors * state.getForces(asNumpy=True)._value).sum())
    return found


def potential_difference(system: openmm.System, structures: Array, table: Array, kT: float) -> Difference | None:
    """Return the first difference of more than 1e-4 from a `table` of the potential, or None.

    Networks compute in single precision, and not alike on all machines. What is not finite is not compared.
    """
    now = potential(system, structures)
    size = np.maximum(np.abs(table), [kT, 10.0 * kT])
    off = np.argwhere(np.isfinite(table) & np.isfinite(now) & (np.abs(now - table) > 1e-4 * size))
    if len(off) == 0:
        return None
    row, column = off[0]
    what, unit = (("energy", "kJ/mol"), ("sum of forces", "kJ/mol/nm"))[column]
    first, second = (f"{x[row, column]:.8g} {unit}" for x in (table, now))
    return f"{what} of reference structure {row}", first, second

"""Periodic box: that of a System, and whether a structure tells of the same one."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm

from ..errors import bad_input

DUMMY = 0.11
"""Nanometres: a PDB file of a molecule without a box has one of 1 Angstrom."""


def unit_cell(system: openmm.System) -> list[list[float]] | None:
    """Return the box vectors of a System in nm, (3, 3), or None if no force is periodic."""
    if not system.usesPeriodicBoundaryConditions():
        return None
    return [[float(x) for x in vector._value] for vector in system.getDefaultPeriodicBoxVectors()]


def check_box(system: openmm.System, topology: Any, argument: str, where: str = "") -> None:
    """Raise `InputError` if a System is periodic and its topology, of OpenMM, has another box, by more than 0.1 %.

    Walkers move in the default box of the System. `where` is the file of the topology, for the message.
    """
    cell = unit_cell(system)
    vectors = topology.getPeriodicBoxVectors() if topology is not None else None
    if cell is None or vectors is None:
        return
    box = np.array([[float(x) for x in vector._value] for vector in vectors])
    off = np.abs(box - cell).max()
    if np.abs(box).max() > DUMMY and off > 1e-3 * np.abs(cell).max():
        got = f"{np.round(box, 4).tolist()} nm{f' in {where}' if where else ''}"
        fix = "give the System the box of the structure (setDefaultPeriodicBoxVectors), or the other way round"
        raise bad_input(argument, f"the box of the System, {np.round(cell, 4).tolist()} nm", got, fix)

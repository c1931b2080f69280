"""Atom order: whether a topology and positions list the atoms in the order of the System.

Three signs of another order, each of which a model System, whose masses and springs are numbers of its own, does not
show:

    masses      the masses are those of elements of the topology, but of other atoms of it
    distances   atoms joined by a stiff bond of the System are more than 1.6 of its lengths apart
    bonds       atoms joined in the topology are far apart, and joined to others in the System

A hydrogen may weigh up to 4.1 amu, its excess taken from the atom that carries it. Particles without a mass and atoms
without an element are passed over. Not checked: the order of atoms that are alike and not joined, such as two solvent
molecules; exchanging these changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from ..errors import bad_input

Array = NDArray[np.float64]
Pairs = NDArray[np.int64]
HEAVIEST_HYDROGEN = 4.1
COMMON = frozenset(("H", "C", "N", "O", "F", "Na", "Mg", "Si", "P", "S", "Cl", "K", "Ca", "Fe", "Zn", "Br", "I"))
STIFF, STRETCHED, STRAINED = 0.1, 1.6, 100.0
"""Thermal width of a stiff bond over its length; length over rest length, and energy over kT, of one that is broken."""
FIX = "write it again from the topology that the System was made of"


@dataclass(frozen=True)
class _Bonds:
    """The bonds of a System: pairs (n, 2), lengths (n,) in nm and strengths (n,) in kJ/mol/nm^2, infinite if fixed."""

    pairs: Pairs
    lengths: Array
    strengths: Array

    def part(self, rows: NDArray[np.bool_]) -> _Bonds:
        return _Bonds(self.pairs[rows], self.lengths[rows], self.strengths[rows])


def check_order(
    system: openmm.System, topology: Any, positions: Array, kT: float, argument: tuple[str, str], where: str = ""
) -> None:
    """Raise `InputError` if atoms stand in another order than in the System.

    Parameters
    ----------
    system
        Its masses, bonds and constraints count.
    topology : openmm.app.Topology, optional
        Its elements and bonds are compared with them.
    positions
        (n_atoms, 3) in nm.
    kT
        In kJ/mol; tells a broken bond from a stretched one.
    argument
        What the topology and what the positions are called in a message.
    where
        The file that they come from, for the message.

    Raises
    ------
    InputError
        The topology has another number of atoms or is none of OpenMM, or one of the three signs is there.
    """
    n = system.getNumParticles()
    names = [f"atom {i}" for i in range(n)]
    of_topology, of_positions = argument
    where = f" in {where}" if where else ""
    if topology is not None:
        if not isinstance(topology, app.Topology):
            raise bad_input(of_topology, "an openmm.app.Topology", type(topology).__name__)
        if topology.getNumAtoms() != n:
            raise bad_input(of_topology, f"{n} atoms, as the System has", f"{topology.getNumAtoms()}{where}")
        names = [f"atom {a.index} ({a.residue.name} {a.residue.id} {a.name})" for a in topology.atoms()]
        _check_elements(system, topology, names, of_topology, where)
    bonds = _stiff_bonds(system, kT)
    _check_lengths(system, bonds, positions, kT, (names, of_positions, where))
    if topology is not None:
        _check_topology_bonds(system, bonds, topology, positions, (names, of_topology, where))


def check_same_order(first: Any, other: Any, argument: str, where: str) -> None:
    """Raise `InputError` if two topologies name the same atoms in another order."""
    one, two = ([(a.residue.id, a.residue.name, a.name) for a in topology.atoms()] for topology in (first, other))
    if one != two and Counter(one) == Counter(two):
        i = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        names = [" ".join((a[1], a[0], a[2])) for a in (one[i], two[i])]
        expected = f"the atoms in the order of system.structure, whose atom {i} is {names[0]}"
        raise bad_input(argument, expected, f"{names[1]} in {where}", "write both in the order of the System")


# Masses


def _check_elements(
    system: openmm.System, topology: app.Topology, names: Sequence[str], argument: str, where: str
) -> None:
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles())]
    symbols = [atom.element.symbol if atom.element is not None else "" for atom in topology.atoms()]
    known = [i for i, (symbol, mass) in enumerate(zip(symbols, masses, strict=True)) if symbol and mass > 0]
    present = {symbols[i] for i in known}
    shifts = _shifts([masses[i] for i in known], present)
    kinds = {(symbols[i], masses[i]) for i in known}
    looks = {mass: _looks_like(mass, present, shifts) for _, mass in kinds}
    like_elements = [looks[masses[i]] for i in known if looks[masses[i]]]
    if 2 * len(like_elements) < len(known) or len(set(like_elements)) < 2:
        return  # a model, or atoms all alike: its masses say nothing of an order
    all_looks = {mass: looks[mass] or _looks_like(mass, COMMON, ()) for _, mass in kinds}
    bad = {(s, m) for s, m in kinds if all_looks[m] and not _fits(s, m, shifts)}
    wrong = [i for i in known if (symbols[i], masses[i]) in bad]
    if wrong:
        i = wrong[0]
        expected = (
            f"the atoms in the order of the System, whose atom {i} has mass {masses[i]:.5g} ({all_looks[masses[i]]})"
        )
        more = f", and {len(wrong) - 1} more that do not fit" if len(wrong) > 1 else ""
        raise bad_input(argument, expected, f"element {symbols[i]}, {names[i]}{where}{more}", FIX)


def _shifts(masses: Sequence[float], present: set[str]) -> tuple[float, ...]:
    """Return what heavy hydrogens took from the atoms that carry them, in amu."""
    hydrogen = _mass("H")
    heavy = {round(mass - hydrogen, 3) for mass in masses if hydrogen + 0.1 < mass <= HEAVIEST_HYDROGEN}
    return tuple(sorted(heavy)[:6]) if "H" in present else ()


def _mass(symbol: str) -> float:
    return float(app.Element.getBySymbol(symbol).mass._value)


def _fits(symbol: str, mass: float, shifts: Sequence[float], tolerance: float = 0.06) -> bool:
    """Return whether an atom of this element may have this mass, less what up to four heavy hydrogens took."""
    if symbol == "H":
        return 0.9 <= mass <= HEAVIEST_HYDROGEN
    whole = _mass(symbol)
    return any(abs(whole - n * shift - mass) < tolerance for shift in (0.0, *shifts) for n in range(5))


def _looks_like(mass: float, symbols: AbstractSet[str], shifts: Sequence[float]) -> str:
    """Return the element that this mass is that of, and of nothing that a model would choose; or nothing."""
    hydrogen = _mass("H")
    if "H" in symbols and (abs(mass - hydrogen) < 0.004 or any(abs(mass - hydrogen - s) < 0.004 for s in shifts)):
        return "H"
    return next((s for s in sorted(symbols - {"H"}) if _fits(s, mass, shifts, tolerance=0.012)), "")


# Bonds


def _stiff_bonds(system: openmm.System, kT: float) -> _Bonds:
    """Return the constraints, and the harmonic bonds that are narrow beside their length."""
    rows = [(*system.getConstraintParameters(i), np.inf) for i in range(system.getNumConstraints())]
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            rows += [force.getBondParameters(i) for i in range(force.getNumBonds())]
    plain = [(i, j, getattr(r, "_value", r), getattr(k, "_value", k)) for i, j, r, k in rows]
    pairs = np.array([row[:2] for row in plain], dtype=np.int64).reshape(-1, 2)
    lengths, strengths = np.array([row[2:] for row in plain], dtype=float).reshape(-1, 2).T
    stiff = (lengths > 0) & (strengths > 0) & (strengths * (STIFF * lengths) ** 2 > kT)
    return _Bonds(pairs, lengths, strengths).part(stiff)


def _check_lengths(
    system: openmm.System, bonds: _Bonds, positions: Array, kT: float, said: tuple[Sequence[str], str, str]
) -> None:
    distances = _distances(system, positions, bonds.pairs)
    energies = 0.5 * bonds.strengths * (distances - bonds.lengths) ** 2
    long = np.flatnonzero((distances > STRETCHED * bonds.lengths) & (energies > STRAINED * kT))
    if len(long):
        names, argument, where = said
        (i, j), length = bonds.pairs[long[0]], bonds.lengths[long[0]]
        expected = (
            f"the atoms in the order of the System, which has a bond of {length:.3g} nm from atom {i} to atom {j}"
        )
        more = f", and {len(long) - 1} more like it" if len(long) > 1 else ""
        got = f"{distances[long[0]]:.3g} nm between {names[i]} and {names[j]}{where}{more}"
        raise bad_input(argument, expected, got, "check the order of the atoms, and that molecules are whole")


def _check_topology_bonds(
    system: openmm.System, bonds: _Bonds, topology: app.Topology, positions: Array, said: tuple[Sequence[str], str, str]
) -> None:
    longest: dict[int, float] = {}
    for (i, j), length in zip(bonds.pairs.tolist(), bonds.lengths.tolist(), strict=True):
        longest[i], longest[j] = max(longest.get(i, 0.0), length), max(longest.get(j, 0.0), length)
    named = [(a.index, b.index) for a, b in topology.bonds()]
    if not longest or not named:
        return
    joined = _joined(system) | {(min(i, j), max(i, j)) for i, j in bonds.pairs.tolist()}
    distances = _distances(system, positions, np.array(named, dtype=np.int64))
    wrong = [
        (i, j, d)
        for (i, j), d in zip(named, distances.tolist(), strict=True)
        if (min(i, j), max(i, j)) not in joined and _far(i, j, d, longest)
    ]
    if wrong:
        names, argument, where = said
        i, j, distance = wrong[0]
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        got = f"a bond from {names[i]} to {names[j]}{where}, which the System has not, and {distance:.3g} nm long{more}"
        raise bad_input(argument, "the atoms in the order of the System, and its bonds", got, FIX)


def _far(i: int, j: int, distance: float, longest: Mapping[int, float]) -> bool:
    return i in longest and j in longest and distance > 2.0 * max(longest[i], longest[j])


def _joined(system: openmm.System) -> set[tuple[int, int]]:
    """Return the pairs that a bond of any kind joins, or that do not see each other as bonded ones do not."""
    found: list[tuple[int, int]] = []
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce | openmm.CustomBondForce):
            found += [tuple(force.getBondParameters(i)[:2]) for i in range(force.getNumBonds())]
        elif isinstance(force, openmm.NonbondedForce):
            found += [tuple(force.getExceptionParameters(i)[:2]) for i in range(force.getNumExceptions())]
        elif isinstance(force, openmm.CustomNonbondedForce):
            found += [tuple(force.getExclusionParticles(i)) for i in range(force.getNumExclusions())]
    return {(min(i, j), max(i, j)) for i, j in found}


def _distances(system: openmm.System, positions: Array, pairs: Pairs) -> Array:
    """Return the distances (n,) of pairs (n, 2) in nm, of the nearest images if a bond sees these."""
    d = positions[pairs[:, 1]] - positions[pairs[:, 0]]
    bonded = [f for f in system.getForces() if isinstance(f, openmm.HarmonicBondForce)]
    if any(force.usesPeriodicBoundaryConditions() for force in bonded):
        for vector in reversed(system.getDefaultPeriodicBoxVectors()):  # the third has all three components
            v = np.array(vector._value)
            axis = int(np.flatnonzero(v)[-1])
            d -= np.round(d[:, axis] / v[axis])[:, None] * v
    distances: Array = np.linalg.norm(d, axis=1)
    return distances

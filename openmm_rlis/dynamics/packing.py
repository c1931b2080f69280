"""Packing: many non-interacting copies of one System in one System.

Copy r of atom i is particle r * n_atoms + i. Bonded forces are copied with shifted indices and all-pairs forces become
explicit pairs, so copies never see each other and no neighbour list is built. For a small System one Context with a
thousand copies runs a hundred times as fast as a thousand Contexts. A System with a force that cannot be copied this
way is not packed (`can_pack` is false) and its walkers are moved one after another in one Context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import openmm

from ..errors import bad_input
from ..openmm_system.system_xml import copied

MAX_PACKED_ATOMS = 200


def can_pack(system: openmm.System) -> bool:
    """Return whether many copies of `system` can share one Context."""
    small = system.getNumParticles() <= MAX_PACKED_ATOMS
    return small and all(type(f) in _COPIERS and _has_no_cutoff(f) for f in system.getForces())


def pack(system: openmm.System, n_copies: int) -> openmm.System:
    """Return a System of `n_copies` non-interacting copies of `system`.

    Raises
    ------
    InputError
        A force of the System cannot be packed, or n_copies < 1.
    """
    if n_copies < 1:
        raise bad_input("n_copies", "1 or more", n_copies)
    if n_copies == 1:
        return copied(system)
    packed = openmm.System()
    n = system.getNumParticles()
    masses = [system.getParticleMass(i) for i in range(n)]
    for _ in range(n_copies):
        for mass in masses:
            packed.addParticle(mass)
    for force in system.getForces():
        if type(force) not in _COPIERS or not _has_no_cutoff(force):
            raise bad_input(
                "system", "forces without cutoff that can be packed", type(force).__name__, "run one walker a Context"
            )
        packed.addForce(_COPIERS[type(force)](force, n, n_copies))
    return packed


def in_groups(system: openmm.System, groups: Sequence[int]) -> list[openmm.Force]:
    """Put each force of a System into a group, the last of `groups` if there are more forces, and return the forces."""
    forces = list(system.getForces())
    for i, force in enumerate(forces):
        force.setForceGroup(groups[min(i, len(groups) - 1)])
        if isinstance(force, openmm.NonbondedForce):
            force.setReciprocalSpaceForceGroup(-1)  # the group of the force
    return forces


def _has_no_cutoff(force: openmm.Force) -> bool:
    if isinstance(force, openmm.NonbondedForce | openmm.CustomNonbondedForce):
        return force.getNonbondedMethod() == 0 and not _uses_offsets(force)
    return not force.usesPeriodicBoundaryConditions()


def _uses_offsets(force: openmm.Force) -> bool:
    if isinstance(force, openmm.NonbondedForce):
        return bool(force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets())
    return bool(force.getNumTabulatedFunctions() or force.getNumComputedValues() or force.getNumInteractionGroups())


def _empty_like(force: openmm.Force, *arguments: Any) -> Any:
    """Return a force of the same class, expression and parameters, with no terms."""
    new = type(force)(*arguments)
    for i in range(force.getNumGlobalParameters()):
        new.addGlobalParameter(force.getGlobalParameterName(i), force.getGlobalParameterDefaultValue(i))
    return new


def _terms(new: Any, force: Any, add: str, get: str, count: int, n_atoms: int, n_copies: int, n_indices: int) -> Any:
    """Add every term of `force` once a copy, its first `n_indices` entries shifted."""
    terms = [getattr(force, get)(i) for i in range(count)]
    for copy in range(n_copies):
        shift = copy * n_atoms
        for term in terms:
            getattr(new, add)(*[index + shift for index in term[:n_indices]], *term[n_indices:])
    new.setForceGroup(force.getForceGroup())
    return new


def _plain(kind: str, n_indices: int) -> Callable[..., Any]:
    def copy(force: Any, n_atoms: int, n_copies: int) -> Any:
        count = getattr(force, f"getNum{kind}s")()
        return _terms(type(force)(), force, f"add{kind}", f"get{kind}Parameters", count, n_atoms, n_copies, n_indices)

    return copy


def _custom(kind: str, n_indices: int) -> Callable[..., Any]:
    def copy(force: Any, n_atoms: int, n_copies: int) -> Any:
        new = _empty_like(force, force.getEnergyFunction())
        for i in range(getattr(force, f"getNumPer{kind}Parameters")()):
            getattr(new, f"addPer{kind}Parameter")(getattr(force, f"getPer{kind}ParameterName")(i))
        count = getattr(force, f"getNum{kind}s")()
        return _terms(new, force, f"add{kind}", f"get{kind}Parameters", count, n_atoms, n_copies, n_indices)

    return copy


def _many_body(force: Any, n_atoms: int, n_copies: int) -> Any:
    """Copy a CustomCompoundBondForce or CustomCentroidBondForce."""
    centroid = isinstance(force, openmm.CustomCentroidBondForce)
    size = force.getNumGroupsPerBond() if centroid else force.getNumParticlesPerBond()
    new = _empty_like(force, size, force.getEnergyFunction())
    for i in range(force.getNumPerBondParameters()):
        new.addPerBondParameter(force.getPerBondParameterName(i))
    for i in range(force.getNumTabulatedFunctions()):
        # function.Copy() would be owned by C++, which addTabulatedFunction does not accept.
        function = openmm.XmlSerializer.clone(force.getTabulatedFunction(i))
        new.addTabulatedFunction(force.getTabulatedFunctionName(i), function)
    for copy in range(n_copies):
        shift = copy * n_atoms
        if centroid:
            for i in range(force.getNumGroups()):
                members, weights = force.getGroupParameters(i)
                new.addGroup([m + shift for m in members], weights)
            shift = copy * force.getNumGroups()
        for i in range(force.getNumBonds()):
            members, parameters = force.getBondParameters(i)
            new.addBond([m + shift for m in members], parameters)
    new.setForceGroup(force.getForceGroup())
    return new


def _custom_nonbonded(force: Any, n_atoms: int, n_copies: int) -> Any:
    new = _empty_like(force, force.getEnergyFunction())
    for i in range(force.getNumPerParticleParameters()):
        new.addPerParticleParameter(force.getPerParticleParameterName(i))
    for copy in range(n_copies):
        members = range(copy * n_atoms, (copy + 1) * n_atoms)
        for i in range(n_atoms):
            new.addParticle(force.getParticleParameters(i))
        for i in range(force.getNumExclusions()):
            a, b = force.getExclusionParticles(i)
            new.addExclusion(a + members[0], b + members[0])
        new.addInteractionGroup(members, members)
    new.setForceGroup(force.getForceGroup())
    return new


def _nonbonded(force: Any, n_atoms: int, n_copies: int) -> Any:
    """Copy a NonbondedForce without cutoff as explicit Coulomb and Lennard-Jones pairs."""
    new = openmm.CustomBondForce("138.935456*qq/r + 4*epsilon*((sigma/r)^12 - (sigma/r)^6)")
    for name in ("qq", "sigma", "epsilon"):
        new.addPerBondParameter(name)
    pairs = {}
    parameters = [[p._value for p in force.getParticleParameters(i)] for i in range(n_atoms)]
    for i in range(n_atoms):
        for j in range(i):
            (q1, s1, e1), (q2, s2, e2) = parameters[i], parameters[j]
            pairs[j, i] = (q1 * q2, 0.5 * (s1 + s2), (e1 * e2) ** 0.5)
    for k in range(force.getNumExceptions()):
        i, j, *values = force.getExceptionParameters(k)
        pairs[min(i, j), max(i, j)] = tuple(v._value for v in values)
    for copy in range(n_copies):
        for (i, j), values in pairs.items():
            if values[0] != 0.0 or values[2] != 0.0:
                new.addBond(i + copy * n_atoms, j + copy * n_atoms, values)
    new.setForceGroup(force.getForceGroup())
    return new


_COPIERS: dict[type, Callable[..., Any]] = {
    openmm.HarmonicBondForce: _plain("Bond", 2),
    openmm.HarmonicAngleForce: _plain("Angle", 3),
    openmm.PeriodicTorsionForce: _plain("Torsion", 4),
    openmm.RBTorsionForce: _plain("Torsion", 4),
    openmm.CustomBondForce: _custom("Bond", 2),
    openmm.CustomAngleForce: _custom("Angle", 3),
    openmm.CustomTorsionForce: _custom("Torsion", 4),
    openmm.CustomExternalForce: _custom("Particle", 1),
    openmm.CustomCompoundBondForce: _many_body,
    openmm.CustomCentroidBondForce: _many_body,
    openmm.CustomNonbondedForce: _custom_nonbonded,
    openmm.NonbondedForce: _nonbonded,
}

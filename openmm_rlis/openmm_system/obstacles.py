"""Obstacles: parts of a System under which Brownian dynamics would be something else; all of them in one message.

A CMMotionRemover is no obstacle: it acts on velocities, which Brownian dynamics does not have. It is left out, in a
copy of the System, with a note.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import openmm

from ..errors import InputError, StartNote, bad_input

CENTRE = "CMMotionRemover"
_NOT_A_POTENTIAL = {
    "AndersenThermostat": "remove it: the Brownian integrator is the thermostat",
    "DrudeForce": "use a force field without Drude particles: theirs must be kept cold by an integrator of their own",
}


def brownian_system(system: openmm.System) -> openmm.System:
    """Return the System for Brownian dynamics: the given one, or a copy without its CMMotionRemover.

    Raises
    ------
    InputError
        Not a System, or one with parts that change the transition kernel; the message names all of them.
    """
    if not isinstance(system, openmm.System):
        raise bad_input("system", "an openmm.System", type(system).__name__)
    found = list(_obstacles(system))
    centre = [i for i, force in enumerate(system.getForces()) if _kind(force) == CENTRE]
    foreign = sorted({_kind(force) for force in system.getForces() if not _can_be_copied(force)})
    if centre and foreign:  # a copy is made by way of XML, which these forces do not survive
        fix = f"remove it: system.removeForce({centre[0]})"
        found.append(("forces without centre-of-mass removal", f"a {CENTRE} beside a {foreign[0]}", fix))
    if len(found) == 1:
        raise bad_input("system", *found[0])
    if found:
        listed = [f"({i}) {bad_input('', *parts)!s}".replace(": ", "", 1) for i, parts in enumerate(found, 1)]
        raise InputError(f"system: {len(found)} parts that Brownian dynamics cannot have: {' '.join(listed)}")
    return _without(system, centre) if centre else system


def _obstacles(system: openmm.System) -> Iterator[tuple[str, str, str]]:
    """Yield what is expected, what is there and the way out, of every part that changes the transition kernel."""
    n = system.getNumParticles()
    if n == 0:
        yield "at least one particle", "none", ""
        return
    for kind in sorted({_kind(force) for force in system.getForces()}):
        if "Barostat" in kind:
            yield "constant volume", f"a {kind}", "remove it"
        if kind in _NOT_A_POTENTIAL:
            article = "an" if kind[0] == "A" else "a"
            yield "forces that derive from a potential", f"{article} {kind}", _NOT_A_POTENTIAL[kind]
    sites = [i for i in range(n) if system.isVirtualSite(i)]
    if sites:
        yield "no virtual sites", f"virtual sites ({len(sites)})", "use a model without them"
    if system.getNumConstraints():
        fix = "build it with constraints=None and rigidWater=False"
        yield "no constraints", str(system.getNumConstraints()), fix
    masses = [system.getParticleMass(i)._value for i in range(n)]
    bad = [i for i, mass in enumerate(masses) if not (math.isfinite(mass) and mass >= 0.0)]
    if bad:
        more = f" and of {len(bad) - 1} more" if bad[1:] else ""
        fix = "give a positive mass, or 0 for a particle that does not move"
        yield "masses that are finite and not negative", f"{masses[bad[0]]} of particle {bad[0]}{more}", fix
    elif all(mass == 0.0 for mass in masses):
        yield "at least one particle with a mass", "none", ""


def _kind(force: openmm.Force) -> str:
    return type(force).__name__


def _can_be_copied(force: openmm.Force) -> bool:
    """Return whether a force comes through XML: one of OpenMM's own that holds no program."""
    if isinstance(force, openmm.CustomCVForce):
        variables = (force.getCollectiveVariable(i) for i in range(force.getNumCollectiveVariables()))
        return all(_can_be_copied(variable) for variable in variables)
    known = type(force) is not openmm.Force and type(force).__module__.partition(".")[0] == "openmm"
    return known and _kind(force) != "PythonForce"


def _without(system: openmm.System, forces: list[int]) -> openmm.System:
    copy: openmm.System = openmm.XmlSerializer.clone(system)
    for i in reversed(forces):
        copy.removeForce(i)
    said = f"system: its {CENTRE} is left out: Brownian dynamics has no velocities to remove"
    warnings.warn(said, StartNote, stacklevel=4)
    return copy

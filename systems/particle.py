"""One particle in a potential of x and y, with round regions about named points: what the model systems share.

kT = 1/beta kJ/mol, mass 1 amu, friction 1/ps: the diffusion constant is 1/beta nm^2/ps. z is frozen. Not a system by
itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from openmm_rlis.features import positions
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.units import BOLTZMANN

from .arguments import checked_beta, checked_ends

plane_labels = ("x (nm)", "y (nm)")


def particle_problem(
    name: str,
    energy: str,
    points: Mapping[str, tuple[float, float]],
    options: Mapping[str, Any],
    dimensions: int = 2,
) -> Problem:
    """Return the Problem of one particle.

    Parameters
    ----------
    name
        Of the system, for the recipe.
    energy
        OpenMM expression of x and y, kJ/mol and nm.
    points
        Centres of regions by name, (x, y) in nm.
    options
        Arguments of `build`: source, target, others (names of points), beta, timestep, lag_steps, radius, and any
        others, which are kept for the recipe.

    Raises
    ------
    InputError
        Unknown or repeated point, or a number out of range.
    """
    used = checked_ends(options["source"], options["target"], options.get("others", ()), tuple(points))
    others, beta = used[2:], checked_beta(options["beta"])
    structures = {point: _structure(*points[point]) for point in used}
    feature = positions().double()
    regions = {point: Region.ball(feature, structures[point][0], options["radius"], point) for point in used}
    return Problem(
        particle_system(energy),
        structures[options["source"]],
        _topology(),
        source=regions[options["source"]],
        target=regions[options["target"]],
        others=[regions[point] for point in others],
        temperature=1.0 / (beta * BOLTZMANN),
        friction=1.0,
        timestep=options["timestep"],
        lag_steps=options["lag_steps"],
        dimensions=dimensions,
        references=structures,
        recipe={"system": name, "options": {**options, "others": others} if "others" in options else dict(options)},
    )


def particle_system(energy: str) -> openmm.System:
    """Return one particle of mass 1 amu in an external potential, kJ/mol."""
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce(energy)
    force.addParticle(0, [])
    system.addForce(force)
    return system


def plane(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (x, y) in nm, (n, 2), of positions (n, 1, 3)."""
    return np.asarray(positions, dtype=np.float64)[:, 0, :2]


def _structure(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[x, y, 0.0]])


def _topology() -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("PRT", topology.addChain())
    topology.addAtom("Ar", app.Element.getBySymbol("Ar"), residue)
    return topology

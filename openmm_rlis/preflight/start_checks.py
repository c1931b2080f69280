"""Start checks: what can be known of a run before it starts, on one Context of one copy of the System.

OpenMM takes the System; energy and forces at the start structure are finite; the time step is stable for the stiffest
mode there (`stiffness`); the regions depend on something that moves; there is room on the disk for the state of one
round. Whatever fails is an `InputError`, and nothing has been written.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .. import contacts, features
from ..dynamics.propagators import open_context
from ..errors import InputError, StartNote, bad_input
from ..features import CallableFeature, evaluate
from ..problem import Problem
from ..regions import Box, Region
from ..storage.atomic_files import size_text
from .stiffness import Forces, Mode, comes_to_rest, relaxed, stiffest_mode

Array = NDArray[np.float64]
UNSTABLE, CAUTION, ADVISED = 2.0, 1.0, 1.6
"""Eigenvalues of the scaled curvature: steps diverge above the first, are noted above the second; the time step that a
message proposes has the third."""
LIGHT = 1.5
"""Atoms of less mass than this, in Da, are hydrogens that can be made heavier."""
_OURS = (contacts.__name__, features.__name__, Box.__module__, "torch.nn.modules.container")
TOO_CLOSE = 0.05
"""Two atoms nearer than this, in nm, are named where forces are not finite or the step cannot bring them apart."""
_FIXES = (
    ("different default value", "give the parameter one default value in all forces"),
    ("half the periodic box", "enlarge the box, or shorten the cutoff"),
    ("exactly as many particles", "add each particle of the System to that force"),
    ("wrong number of parameters", "give each term as many values as the force has parameters"),
    ("support all the necessary kernels", "take another platform: `rlis doctor` lists them"),
    ("does not support", "take another platform: `rlis doctor` lists them"),
    ("No compatible", "take another platform: `rlis doctor` lists them"),
    ("no CUDA", "take another platform: `rlis doctor` lists them"),
    ("no OpenCL", "take another platform: `rlis doctor` lists them"),
)


def check_start(problem: Problem, platform: openmm.Platform | None) -> None:
    """Raise `InputError` if a run of this problem cannot start, or its time step diverges.

    Parameters
    ----------
    problem
        What is to be run.
    platform
        That of the run; None for OpenMM's choice.
    """
    forces = _forces(problem, platform)
    _check_regions_move(problem)
    if problem.unit_cell is not None:
        _note_images(problem, np.array(problem.unit_cell))
    try:
        _check_timestep(problem, forces)
    except openmm.OpenMMException as error:
        raise _refused(error) from None


def check_room(directory: Path, n_walkers: int, n_atoms: int) -> None:
    """Raise `InputError` if the disk of a new directory has no room for the state of one round."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    needed, free = n_walkers * n_atoms * 49, shutil.disk_usage(there).free
    if free < needed:
        raise bad_input(
            "directory", f"{size_text(needed)} of room for a round", f"{size_text(free)} free", "choose another disk"
        )


def _forces(problem: Problem, platform: openmm.Platform | None) -> Forces:
    """Return the forces of the System on one Context, which gives finite ones at the start."""
    try:
        # The time step of this integrator is never used, and it draws no random numbers.
        context = open_context(problem.system, openmm.VerletIntegrator(0.001), platform)
        context.setPositions(problem.positions)
        state = context.getState(getEnergy=True, getForces=True)
    except openmm.OpenMMException as error:
        raise _refused(error) from None
    energy, found = state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad) or not math.isfinite(energy):
        what = f"forces that are not finite on {_names(problem, bad[:2])}" if len(bad) else f"{energy} kJ/mol"
        raise bad_input("positions", "a start structure of finite energy and forces", what + _near(problem), _MINIMIZE)

    def forces(positions: Array) -> Array:
        context.setPositions(positions)
        array: Array = context.getState(getForces=True).getForces(asNumpy=True)._value
        return array

    return forces


_MINIMIZE = "minimise the structure, or give another"


def _refused(error: Exception) -> InputError:
    said = str(error).strip().rstrip(".")
    fix = next((fix for mark, fix in _FIXES if mark in said), "")
    return bad_input("system", "one that OpenMM can compute", f"its message: {said}", fix)


def _check_timestep(problem: Problem, forces: Forces) -> None:
    """Refuse or note a time step that the stiffest mode where the start relaxes to does not bear."""
    mobility, start = problem.mobility(), problem.positions
    mode = stiffest_mode(forces, start, mobility, problem.kT)
    if mode.eigenvalue <= CAUTION:
        return
    # Strained structures are stiffer than those that a run visits, so the verdict is that of the relaxed one.
    there = relaxed(forces, start, mobility, mode.eigenvalue)
    rested = stiffest_mode(forces, there, mobility, problem.kT)
    k, where, given = rested.eigenvalue, _where(problem, rested), _time(problem.timestep)
    if k > UNSTABLE:
        longest = _time(_rounded_down(problem.timestep * ADVISED / k))
        expected = f"at most {longest} at friction {problem.friction:.4g}/ps (stiffest {where})"
        raise bad_input("timestep", expected, given, _longer_steps(problem, rested))
    if mode.eigenvalue > UNSTABLE and not comes_to_rest(forces, start, mobility, float(np.abs(there - start).max())):
        got = f"one where steps of {given} diverge at {_where(problem, mode)}"
        raise bad_input("positions", "a start structure near a minimum", got + _near(problem), _MINIMIZE)
    if k > CAUTION:
        shorter = _time(_rounded_down(0.2 * problem.timestep / k))
        said = (
            f"the variance of the stiffest mode ({where}) is {1.0 / max(1.0 - k / 2.0, 1e-3):.2g} times the exact one"
        )
        warnings.warn(f"timestep: with {given} {said}; with {shorter} 1.1 times", StartNote, stacklevel=4)


def _longer_steps(problem: Problem, mode: Mode) -> str:
    atom = int((mode.displacements**2).sum(axis=1).argmax())
    light = problem.system.getParticleMass(atom)._value < LIGHT
    more = " and heavier hydrogens (hydrogenMass) allow" if light else " allows"
    return f"a larger friction{more} longer steps"


def _check_regions_move(problem: Problem) -> None:
    """Refuse a region whose features no free coordinate changes: walkers never enter or never leave it."""
    free = problem.mobility() > 0.0
    moved = problem.positions + 0.01 * np.random.default_rng(0).standard_normal((4, *free.shape)) * free
    for region in problem.regions:
        # Functions of users may be flat by intent.
        smooth = region.feature is not None and all(map(_is_ours, region.feature.modules()))
        if smooth and bool((np.diff(_values(region)(moved), axis=0) == 0.0).all()):
            expected, got = "features of atoms that move", "only such as no free coordinate changes"
            fix = "choose other atoms, or check masses of 0 and `dimensions`"
            raise bad_input(f"region {region.name}", expected, got, fix)


def _note_images(problem: Problem, cell: Array) -> None:
    """Say so if regions or features tell the images of a molecule apart, on the structures that are known."""
    molecules, moving = _molecules(problem.system), np.arange(3) < problem.dimensions
    steps = np.random.default_rng(0).integers(-2, 3, (8, molecules.max() + 1, 3)) * moving
    moves = steps[:, molecules].astype(np.float64) @ np.where(moving, cell, 0.0)
    known = np.array([problem.positions, *problem.references.values()])
    images: Array = (known[:, None] + moves).reshape(-1, *known.shape[1:])

    def tells(values: Callable[[Array], Array]) -> bool:
        return not np.allclose(values(known).repeat(len(moves), axis=0), values(images), rtol=1e-6, atol=1e-6)

    told = [f"region {region.name}" for region in problem.regions if tells(_values(region))]
    if tells(partial(evaluate, problem.features)):
        told.append("the features of the value function")
    if told:
        said = f"periodic System: {', '.join(told)} changed when molecules were moved by box vectors"
        fix = "take features of this package, or the nearest image in yours, unless this is what you want"
        warnings.warn(f"{said}. Walkers are never wrapped: {fix}", StartNote, stacklevel=4)


def _values(region: Region) -> Callable[[Array], Array]:
    """Return what a region is made of, as a function of positions (n, n_atoms, 3): features, or who is inside."""
    if region.feature is None:
        return lambda x: region.contains(x).astype(np.float64)
    # A box is flat inside its intervals, so what it is made of is asked.
    return partial(evaluate, region.feature.values if isinstance(region.feature, Box) else region.feature)


def _molecules(system: openmm.System) -> NDArray[np.int_]:
    """Return the number of the molecule of each atom, (n_atoms,): bonds that do not cross the box hold it together."""
    pairs = np.array(_bonds(system, whole=True), dtype=int).reshape(-1, 2)
    n = system.getNumParticles()
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    numbers: NDArray[np.int_] = connected_components(graph, directed=False)[1]
    return numbers


def _is_ours(part: object) -> bool:
    return type(part).__module__ in _OURS and not isinstance(part, CallableFeature)


def _where(problem: Problem, mode: Mode) -> str:
    """Return the bond that a mode stretches most, or the atom that moves most, in words."""
    u, x = mode.displacements, problem.positions
    first = int((u * u).sum(axis=1).argmax())
    bonded = [j for pair in _bonds(problem.system) if first in pair for j in pair if j != first]
    others = bonded or [j for j in range(len(x)) if j != first]
    if not others:
        return f"at {_names(problem, [first])}"
    apart = x[others] - x[first]
    length = np.maximum(np.linalg.norm(apart, axis=1), 1e-9)
    if bonded:
        other = others[int(np.abs(((u[others] - u[first]) * apart).sum(axis=1) / length).argmax())]
    else:
        other = others[int(length.argmin())]
    return f"{'bond' if bonded else 'pair'} {_pair(problem, first, other)}"


def _bonds(system: openmm.System, whole: bool = False) -> list[tuple[int, int]]:
    """Return pairs of bonded atoms; with `whole`, without bonds that may cross the box."""
    kinds = openmm.HarmonicBondForce | openmm.CustomBondForce
    forces = [force for force in system.getForces() if isinstance(force, kinds)]
    forces = [force for force in forces if not (whole and force.usesPeriodicBoundaryConditions())]
    return [tuple(force.getBondParameters(i)[:2]) for force in forces for i in range(force.getNumBonds())]


def _pair(problem: Problem, i: int, j: int) -> str:
    """Return two atoms as `C-H (atoms 0 and 1)`, the heavier first."""
    masses = [problem.system.getParticleMass(k)._value for k in (i, j)]
    i, j = (i, j) if masses[0] > masses[1] or (masses[0] == masses[1] and i < j) else (j, i)
    if problem.topology is None:
        return f"of atoms {i} and {j}"
    symbols = [_symbol(atom) for atom in problem.topology.atoms()]
    return f"{symbols[i]}-{symbols[j]}, atoms {i} and {j}"


def _symbol(atom: object) -> str:
    element = getattr(atom, "element", None)
    return str(element.symbol if element is not None else getattr(atom, "name", "?"))


def _names(problem: Problem, atoms: NDArray[np.int_] | list[int]) -> str:
    symbols = [_symbol(a) for a in problem.topology.atoms()] if problem.topology is not None else None
    return " and ".join(f"atom {i}" + (f" ({symbols[i]})" if symbols else "") for i in atoms)


def _near(problem: Problem) -> str:
    """Return a remark on the two nearest atoms, if they are closer than atoms can be."""
    if problem.n_atoms < 2:
        return ""
    distance, index = cKDTree(problem.positions).query(problem.positions, 2)
    i = int(distance[:, 1].argmin())
    if distance[i, 1] > TOO_CLOSE:
        return ""
    pair = sorted((i, int(index[i, 1] if index[i, 1] != i else index[i, 0])))
    return f" ({_names(problem, pair)} are {distance[i, 1]:.2g} nm apart)"


def _time(ps: float) -> str:
    return f"{ps:.3g} ps" if ps >= 1.0 else f"{ps * 1000.0:.3g} fs"


def _rounded_down(x: float) -> float:
    """Return x with one significant digit, not larger."""
    power = 10.0 ** math.floor(math.log10(x))
    return math.floor(x / power * (1.0 + 1e-9)) * power

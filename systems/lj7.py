"""Seven Lennard-Jones particles in the plane: the C3 <-> C2 rearrangement of Kim and Cai.

    V = 4 sum_{i<j} (r_ij^-12 - r_ij^-6)  +  50 sum_i max(0, |x_i - x_cm| - 2)^2

Reduced units, epsilon = sigma = m = gamma = 1, are OpenMM's own: one reduced energy is 1 kJ/mol, one length 1 nm, one
mass 1 amu and one time 1 ps, so kT = 1/beta kJ/mol. z is frozen. The wall keeps an atom that boils off from leaving.

There are four minima, C0 .. C3 in order of energy, and each region is a ball around the sorted coordination
numbers of one of them. C3 -> C2 has two competing channels (saddles at -10.798 and -10.771). From C2, paths fall into
C0 or C1 long before C3: with C0 and C1 as `others` (the default) the rate C2 -> C3 is that of paths which do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app
from scipy.optimize import minimize
from torch import Tensor

from openmm_rlis.contacts import Coordination
from openmm_rlis.features import sorted_coordination
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.units import BOLTZMANN

from .arguments import checked_beta, checked_ends

N_ATOMS = 7
NAMES = ("C0", "C1", "C2", "C3")
COORDINATION_RADIUS = 1.5
plane_labels = ("$\\mu_2$", "$\\mu_3$")


def build(
    source: str = "C3",
    target: str = "C2",
    others: Sequence[str] = ("C0", "C1"),
    beta: float = 9.0,
    timestep: float = 5e-5,
    lag_steps: int = 20,
    radius: float = 0.35,
) -> Problem:
    """Return the rearrangement `source` -> `target` of the planar LJ7 cluster.

    Parameters
    ----------
    source, target, others
        Names of minima, C0 .. C3, all different.
    beta
        Inverse temperature, 1/epsilon.
    timestep, lag_steps
        Euler-Maruyama step in ps (reduced time) and the number of steps between tests of the regions.
    radius
        Radius of each region in the space of sorted coordination numbers.

    Raises
    ------
    InputError
        Unknown or repeated minimum, or a number out of range.
    """
    used = checked_ends(source, target, others, NAMES)
    others, beta = used[2:], checked_beta(beta)
    feature = coordination_feature()
    structures = minima()
    regions = {name: Region.ball(feature, _feature_of(structures[name]), radius, name) for name in used}
    options = {
        "source": source,
        "target": target,
        "others": list(others),
        "beta": float(beta),
        "timestep": timestep,
        "lag_steps": lag_steps,
        "radius": radius,
    }
    return Problem(
        make_system(),
        structures[source],
        make_topology(),
        source=regions[source],
        target=regions[target],
        others=[regions[name] for name in others],
        temperature=1.0 / (beta * BOLTZMANN),
        friction=1.0,
        timestep=timestep,
        lag_steps=lag_steps,
        dimensions=2,
        references={name: structures[name] for name in used},
        recipe={"system": "lj7", "options": options},
    )


def describe() -> str:
    """Return one line for `rlis systems`."""
    return (
        "7 Lennard-Jones particles in the plane, minima C0..C3; brute force (others C0,C1 absorbing): "
        "k(C3->C2) = 0.0300(4) at beta 9, 0.0049(1) at beta 12; k(C2->C3) = 0.0075(2), 0.00096(4)"
    )


def make_system() -> openmm.System:
    """Return the OpenMM System: 21 Lennard-Jones pairs and the wall."""
    system = openmm.System()
    for _ in range(N_ATOMS):
        system.addParticle(1.0)
    pairs = openmm.CustomBondForce("4*(r^(-12)-r^(-6))")
    for i in range(N_ATOMS):
        for j in range(i):
            pairs.addBond(i, j, [])
    # One term of all particles and their centre, written with coordinates: on the Reference platform a term of each
    # takes half as long again, and `distance(g1, g2)` three times as long.
    centre = N_ATOMS + 1
    walls = (f"max(0, sqrt((x{i}-x{centre})^2 + (y{i}-y{centre})^2) - 2)^2" for i in range(1, centre))
    wall = openmm.CustomCentroidBondForce(centre, f"50*({' + '.join(walls)})")
    groups = [wall.addGroup([i]) for i in range(N_ATOMS)] + [wall.addGroup(list(range(N_ATOMS)))]
    wall.addBond(groups, [])
    system.addForce(pairs)
    system.addForce(wall)
    return system


def make_topology() -> app.Topology:
    """Return seven argon atoms in one residue."""
    topology = app.Topology()
    residue = topology.addResidue("LJ7", topology.addChain())
    for i in range(N_ATOMS):
        topology.addAtom(f"Ar{i + 1}", app.Element.getBySymbol("Ar"), residue)
    return topology


def coordination_feature() -> Coordination:
    """Return the sorted coordination numbers, c_i = sum_j 1/(1 + (r_ij/1.5)^8), (n, 7)."""
    return sorted_coordination(range(N_ATOMS), COORDINATION_RADIUS).double()


def _feature_of(structure: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = coordination_feature()(torch.as_tensor(structure[None]))[0].numpy()
    return values


def energy_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the Lennard-Jones energy and its gradient (14,) for planar coordinates (14,), wall left out."""
    x = flat.reshape(N_ATOMS, 2)
    d = x[:, None] - x[None]
    r2 = (d * d).sum(-1) + np.eye(N_ATOMS)
    q = r2**-3 * (1.0 - np.eye(N_ATOMS))
    gradient = (-24.0 * (2.0 * q * q - q) / r2)[:, :, None] * d
    return float(2.0 * (q * q - q).sum()), gradient.sum(1).reshape(-1)


@lru_cache(maxsize=1)
def _minima() -> tuple[NDArray[np.float64], ...]:
    rng = np.random.default_rng(7)
    found: list[tuple[float, NDArray[np.float64]]] = []
    for _ in range(1000):
        if len(found) == len(NAMES):
            break
        start = rng.uniform(-1.3, 1.3, size=2 * N_ATOMS)
        fit = minimize(
            energy_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000},
        )
        if fit.fun > -11.0 or any(abs(fit.fun - energy) < 1e-6 for energy, _ in found):
            continue
        structure = np.zeros((N_ATOMS, 3))
        structure[:, :2] = fit.x.reshape(N_ATOMS, 2)
        found.append((float(fit.fun), structure - structure.mean(0)))
    found.sort(key=lambda item: item[0])
    if len(found) != len(NAMES):
        raise RuntimeError(f"expected {len(NAMES)} minima of LJ7, found {len(found)}: {[e for e, _ in found]}")
    return tuple(structure for _, structure in found)


def minima() -> dict[str, NDArray[np.float64]]:
    """Return the four minima, (7, 3) in nm, by name in order of energy, found by minimising random starts."""
    return {name: structure.copy() for name, structure in zip(NAMES, _minima(), strict=True)}


def plane(positions: NDArray[np.float64] | Tensor) -> NDArray[np.float64]:
    """Return (mu2, mu3), the second and third central moments of the coordination numbers, (n, 2).

    Good for drawing only: the map is not injective, so regions are never defined on it.
    """
    c = coordination_feature()(torch.as_tensor(positions, dtype=torch.float64)).numpy()
    deviation = c - c.mean(1, keepdims=True)
    return np.stack([(deviation**2).mean(1), (deviation**3).mean(1)], axis=1)


def landmarks() -> dict[str, NDArray[np.float64]]:
    """Return (mu2, mu3) of the four minima."""
    return {name: plane(structure[None])[0] for name, structure in minima().items()}

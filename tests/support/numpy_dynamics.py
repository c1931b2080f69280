"""Plain NumPy Euler-Maruyama beside the OpenMM one: forces written by hand, path log-ratios from positions alone.

Three particles of masses 1, 0 and 2.5 in the plane, in a potential without any symmetry, biased by another one. z has
forces too, which must not move anything: it is frozen, and so is the particle of mass zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import nn

from openmm_rlis.features import check_feature
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.units import BOLTZMANN
from openmm_rlis.value_function import ValueFunction

Array = NDArray[np.float64]

MASSES = np.array([1.0, 0.0, 2.5])
TIMESTEP, FRICTION, KT = 0.004, 2.0, 1.3
START = np.array([[-0.9, 0.2, 0.1], [0.4, -0.3, 0.2], [0.5, 0.6, -0.1]])
BIAS_SHARES = np.array([1.0, 2.0, -0.7])


def external_forces(x: Array) -> Array:
    """Return -dU/dx of 3 (x^2-1)^2 + 0.9 x + 1.5 y^2 + 0.8 x y + 2 z, for (..., 3)."""
    f = np.empty_like(x)
    f[..., 0] = -(12.0 * x[..., 0] * (x[..., 0] ** 2 - 1.0) + 0.9 + 0.8 * x[..., 1])
    f[..., 1] = -(3.0 * x[..., 1] + 0.8 * x[..., 0])
    f[..., 2] = -2.0
    return f


def forces(x: Array) -> Array:
    """Return the forces of `make_system` on (..., 3 atoms, 3): the external ones and a bond 4 (r_02 - 0.7)^2."""
    f = external_forces(x)
    d = x[..., 0, :] - x[..., 2, :]
    r = np.linalg.norm(d, axis=-1, keepdims=True)
    pull = -8.0 * (r - 0.7) * d / r
    f[..., 0, :] += pull
    f[..., 2, :] -= pull
    return f


def bias_forces(x: Array) -> Array:
    """Return the forces of `add_bias`: -share_i grad(0.8 x + 0.5 sin(2 y + 1) + 0.3 x y + 1.1 z)."""
    f = np.empty_like(x)
    f[..., 0] = -(0.8 + 0.3 * x[..., 1])
    f[..., 1] = -(np.cos(2.0 * x[..., 1] + 1.0) + 0.3 * x[..., 0])
    f[..., 2] = -1.1
    return f * BIAS_SHARES[:, None]


def make_system() -> openmm.System:
    system = openmm.System()
    external = openmm.CustomExternalForce("3*(x^2-1)^2 + 0.9*x + 1.5*y^2 + 0.8*x*y + 2*z")
    for i, mass in enumerate(MASSES):
        system.addParticle(mass)
        external.addParticle(i, [])
    bond = openmm.CustomBondForce("4*(r-0.7)^2")
    bond.addBond(0, 2, [])
    system.addForce(external)
    system.addForce(bond)
    return system


def add_bias(system: openmm.System, group: int, strength: float = 1.0) -> None:
    force = openmm.CustomExternalForce("strength*share*(0.8*x + 0.5*sin(2*y+1) + 0.3*x*y + 1.1*z)")
    force.addGlobalParameter("strength", strength)
    force.addPerParticleParameter("share")
    for i, share in enumerate(BIAS_SHARES):
        force.addParticle(i, [share])
    force.setForceGroup(group)
    system.addForce(force)


def mobility() -> Array:
    """Return dt / (m gamma), (3, 3), zero in z and for the particle of mass zero."""
    table = np.zeros((3, 3))
    table[MASSES > 0, :2] = TIMESTEP / (FRICTION * MASSES[MASSES > 0, None])
    return table


def make_problem(lag_steps: int) -> Problem:
    return Problem(
        make_system(),
        START,
        source=Region.where(lambda x: x[:, 0, 0] < -0.5),
        target=Region.where(lambda x: x[:, 0, 0] > 0.9),
        temperature=KT / BOLTZMANN,
        friction=FRICTION,
        timestep=TIMESTEP,
        lag_steps=lag_steps,
        dimensions=2,
    )


def random_value(problem: Problem, seed: int, steepness: float = 1.0) -> ValueFunction:
    """Return a value function of the problem's features with random, smooth and asymmetric values."""
    rng = np.random.default_rng(seed)
    width = check_feature(problem.features, problem.positions)
    statistics = {
        "mean": rng.normal(size=width),
        "scale": rng.uniform(0.5, 1.0, width),
        "center_source": rng.normal(size=width),
        "center_target": rng.normal(size=width),
    }
    value = ValueFunction(problem.features, statistics, coarse_share=0.3, hidden=8, rng=rng)
    with torch.no_grad():
        for network in (value.fine, value.coarse):
            last = network[4]
            assert isinstance(last, nn.Linear)
            last.weight.copy_(torch.as_tensor(steepness * rng.normal(size=tuple(last.weight.shape))))
            last.bias.fill_(-1.0)
    return value.eval()


def numerical_gradient(function: Callable[[Array], float], x: Array, step: float = 1e-5) -> Array:
    """Return df/dx by central differences, shaped as x."""
    gradient = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        shift = np.zeros_like(x)
        shift[index] = step
        gradient[index] = (function(x + shift) - function(x - shift)) / (2.0 * step)
    return gradient


def log_normal_density(x: Array, mean: Array, deviation: Array) -> float:
    """Return ln N(x | mean, deviation^2) summed over the degrees of freedom that move."""
    free = deviation > 0
    z = (x[free] - mean[free]) / deviation[free]
    return float((-0.5 * z * z - np.log(deviation[free])).sum() - 0.5 * free.sum() * np.log(2.0 * np.pi))


def path_log_weight(
    path: Array, step: tuple[Array, float], force: Callable[[Array], Array], bias: Callable[[Array], Array], hold: int
) -> float:
    """Return ln dP/dQ of recorded positions (n_steps + 1, n_atoms, 3), from the two transition densities.

    `step` is (mobility, kT); the bias is evaluated every `hold` steps and kept in between.
    """
    a, kT = step
    deviation = np.sqrt(2.0 * kT * a)
    total, held = 0.0, np.zeros_like(path[0])
    for k in range(len(path) - 1):
        if k % hold == 0:
            held = a * bias(path[k])
        mean = path[k] + a * force(path[k])
        total += log_normal_density(path[k + 1], mean, deviation)
        total -= log_normal_density(path[k + 1], mean + held, deviation)
    return total

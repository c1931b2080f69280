"""Detailed balance: the rates of both directions against the free energy of the two cores.

In equilibrium as many paths go from A to B as from B to A, whatever other regions they must avoid:

    pi_A k_AB / c_A  =  pi_B k_BA / c_B         c: share of the time since A (B) was left last that is spent inside it

so that ln(k_AB c_B) - ln(k_BA c_A) is -(F_B - F_A) / kT, with F = -kT ln pi of the core. Nothing of the sampler enters
the right side: for one particle in a line or a plane it is an integral, done here; for anything else a person must
know it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import potential_energies
from ..problem import SOURCE, TARGET, Problem
from ..results.result import Result

Array = NDArray[np.float64]
N_GRID = 161
RIM = 1e-4
"""Share of a core's weight that may lie at the rim of the grid; the grid grows until it does not."""


def free_energy_of_rates(forward: Result, backward: Result) -> tuple[float, float]:
    """Return (F_B - F_A) / kT of the cores as the two rates have it, and its standard error."""
    a, b, c_a, c_b = forward.rate, backward.rate, forward.core_share, backward.core_share
    value = math.log(b.value * c_a.value / (a.value * c_b.value))
    return value, math.hypot(*(factor.relative_error for factor in (a, b, c_a, c_b)))


def free_energy_by_quadrature(problem: Problem, starts: Array, ends: Array) -> float | None:
    """Return (F_B - F_A) / kT of the cores of one particle in one or two dimensions; None for other systems.

    Parameters
    ----------
    problem
        What moves.
    starts, ends
        Structures in A and in B, (n, 1, 3) in nm, two or more each, from which the grids grow.
    """
    if problem.n_atoms != 1 or problem.dimensions > 2 or min(len(starts), len(ends)) < 2:
        return None
    a, b = (_log_weight(problem, code, x) for code, x in ((SOURCE, starts), (TARGET, ends)))
    return a - b


def _log_weight(problem: Problem, code: int, samples: Array) -> float:
    """Return ln of the integral of exp(-U/kT) over a core."""
    d = problem.dimensions
    low, high = samples[:, 0, :d].min(0), samples[:, 0, :d].max(0)
    for _ in range(20):
        centre, half = (low + high) / 2.0, 0.75 * np.maximum(high - low, 1e-6)
        low, high = centre - half, centre + half
        axes = [np.linspace(a, b, N_GRID) for a, b in zip(low, high, strict=True)]
        mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        x = np.repeat(problem.positions[None], N_GRID**d, axis=0)
        x[:, 0, :d] = mesh.reshape(-1, d)
        inside = np.flatnonzero(problem.label(x) == code)
        energies = np.full(len(x), np.inf)
        energies[inside] = potential_energies(problem, x[inside])
        log_w = (-energies / problem.kT).reshape((N_GRID,) * d)
        largest = float(log_w.max())
        if largest > -np.inf:
            w = np.exp(log_w - largest)
            rim = w.sum() - w[(slice(2, -2),) * d].sum()
            if rim < RIM * w.sum():
                cell = math.prod((b - a) / (N_GRID - 1) for a, b in zip(low, high, strict=True))
                return largest + math.log(float(w.sum()) * cell)
    return float("nan")


def ends_of(result: Result, most: int = 400) -> tuple[Array, Array]:
    """Return the first structures of success paths, in A, and the last ones, in B, (n, n_atoms, 3) in nm."""
    success = result.paths.success()
    frames = [success.positions(i) for i in range(min(len(success), most))]
    if not frames:
        none = np.zeros((0, 1, 3))
        return none, none
    return np.stack([f[0] for f in frames]).astype(float), np.stack([f[-1] for f in frames]).astype(float)

"""Stiffness: the largest eigenvalue of the curvature of the potential, scaled as the Euler-Maruyama step scales forces.

    x' = x - a grad U(x) + noise,      a = dt / (m gamma)
    K = sqrt(a) (d2U/dx2) sqrt(a)      a mode of eigenvalue k is multiplied by 1 - k in each step

A mode with k > 2 grows without bound; one with k < 2 has the variance kT/kappa times 1 / (1 - k/2). The eigenvalue is
found by Lanczos iteration on differences of forces, so it is never above the true one but for the error of the
differences. No random stream of a run is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Forces = Callable[[Array], Array]
"""Positions (n_atoms, 3) in nm to forces (n_atoms, 3) in kJ/mol/nm."""

ITERATIONS, FEWER, LARGE = 40, 15, 3000
"""Lanczos iterations, two evaluations of forces each, and those of Systems with more atoms than the third number."""
STEP = 1e-4
"""Largest displacement of an atom in the shortest difference of forces, nm: enough in single precision."""
REFINEMENTS = 12
RELAX_STEPS = 200


@dataclass(frozen=True)
class Mode:
    """The stiffest mode: its eigenvalue k, and the displacements (n_atoms, 3) of the atoms in it, of any length."""

    eigenvalue: float
    displacements: Array


def stiffest_mode(forces: Forces, positions: Array, mobility: Array, kT: float) -> Mode:
    """Return the stiffest mode at a structure.

    Parameters
    ----------
    forces
        Of the potential.
    positions, mobility
        The structure in nm, and a = dt / (m gamma), both (n_atoms, 3); a is 0 where nothing moves.
    kT
        In kJ/mol. The curvature is taken on the scale of the thermal motion in the mode, so that a kink of the
        potential does not count as infinitely stiff.
    """
    free = mobility > 0.0
    root = np.sqrt(mobility[free])
    n_iterations = min(len(root), ITERATIONS if len(positions) <= LARGE else FEWER)

    def product(v: Array, length: float) -> Array:
        """Return K v from forces at displacements of `length` along v to both sides."""
        x = np.zeros_like(positions)
        x[free] = root * v * length
        difference = forces(positions - x) - forces(positions + x)
        return root * difference[free] / (2.0 * length)

    def step(v: Array) -> float:
        return STEP / float(np.abs(root * v).max())

    _, v = _lanczos(lambda v: product(v, step(v)), len(root), n_iterations)
    eigenvalue, length = 0.0, step(v)
    for _ in range(REFINEMENTS):
        eigenvalue = float(v @ product(v, length))
        # In these coordinates a step's noise is sqrt(2 kT), and the thermal amplitude of the mode sqrt(kT / k).
        wanted = np.sqrt(kT / eigenvalue) if eigenvalue > 0.0 else length
        wanted = max(wanted, step(v))
        if not np.isfinite(eigenvalue) or 0.9 < wanted / length < 1.1:
            break
        length = wanted
    displacements = np.zeros_like(positions)
    displacements[free] = root * v
    return Mode(eigenvalue if np.isfinite(eigenvalue) else 0.0, displacements)


def _lanczos(product: Callable[[Array], Array], n: int, n_iterations: int) -> tuple[float, Array]:
    """Return the largest eigenvalue of a symmetric operator on vectors (n,), from below, and its vector."""
    v = np.random.default_rng(0).standard_normal(n)
    v /= np.linalg.norm(v)
    basis, value, vector = [v], 0.0, v
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        w = product(basis[-1])
        if not np.isfinite(w).all():
            return value, vector
        diagonal.append(float(basis[-1] @ w))
        for _ in range(2):  # against all before, twice: rounding would bring the largest eigenvalue back as a copy
            for b in basis:
                w = w - (b @ w) * b
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        value = float(values[-1])
        vector = np.einsum("i,ij->j", vectors[:, -1], np.array(basis))
        vector /= np.linalg.norm(vector)
        size = float(np.linalg.norm(w))
        if len(basis) == n_iterations or size <= 1e-6 * np.abs(diagonal).max():
            return value, vector
        beside.append(size)
        basis.append(w / size)


def relaxed(forces: Forces, positions: Array, mobility: Array, eigenvalue: float) -> Array:
    """Return the structure (n_atoms, 3) some steps down the potential; stiff modes relax first, frozen ones stay.

    `eigenvalue` is that of the stiffest mode at the start; steps begin as long as it bears, and grow up to one of the
    dynamics.
    """
    x, f, share = positions, forces(positions), min(1.0 / eigenvalue, 1.0)
    for _ in range(RELAX_STEPS):
        move = share * mobility * f
        f_next = forces(x + move)
        if not np.isfinite(f_next).all() or float((f_next * move).sum()) < -0.5 * float((f * move).sum()):
            share *= 0.5  # far beyond the minimum along the line
            continue
        share = min(1.3 * share, 1.0)
        x, f = x + move, f_next
    return x


def comes_to_rest(forces: Forces, positions: Array, mobility: Array, distance: float) -> bool:
    """Return whether steps of the dynamics without noise come to rest from a structure and not apart.

    No atom may move by more than ten times `distance` in one step, which is how far it is to a structure at rest, nm.
    """
    x, moves = positions, []
    for _ in range(RELAX_STEPS):
        move = mobility * forces(x)
        moves.append(float(np.abs(move).max()))
        if not moves[-1] <= 10.0 * distance:  # nor NaN
            return False
        x = x + move
    return moves[-1] <= moves[0]

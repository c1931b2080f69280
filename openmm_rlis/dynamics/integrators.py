"""Integrators: one OpenMM step is one lag of Euler-Maruyama steps, with the log-weight inside.

Per degree of freedom, with mobility a = dt/(m gamma), noise s = sqrt(2 kT a), force F and bias force F_b:

    x' = x + a F + s (xi + u),      u = a F_b / s,      ln dP/dQ = - u sum xi - n |u|^2 / 2

Without a bias the sum of the forces can be left in the velocity instead. It tells the sum of the noise, what
`control_variate` needs:

    s sum xi = x_n - x_0 - a sum F

The bias is evaluated at the start of a block of `hold` steps and kept for the block; the gaussians that moved the
particle are the ones summed, so the weight is exact for the discrete chain, whatever the bias. The log-weight of each
degree of freedom is left in the velocity, which overdamped dynamics has no use for, because that is the per-DOF array
that OpenMM hands over as NumPy. A frozen degree of freedom has a = s = 0.

An integrator shares its names with the global parameters of the forces, so a, s and the others have a prefix here.
"""

from __future__ import annotations

import numpy as np
import openmm
from numpy.typing import NDArray

from ..errors import bad_input

BIAS_GROUP = 31
PREFIX = "rlis_"
"""Of the names of the integrator's variables."""
A, S, U, EVEN, ODD = (PREFIX + name for name in ("a", "s", "u", "sum_even", "sum_odd"))


def brownian(
    timestep: float, lag_steps: int, hold_steps: int = 1, biased: bool = False, sum_forces: bool = False
) -> openmm.CustomIntegrator:
    """Return an integrator whose one step is `lag_steps` Euler-Maruyama steps.

    Parameters
    ----------
    timestep
        dt in ps.
    lag_steps
        Steps per call of `step(1)`.
    hold_steps
        The bias force (force group 31) is evaluated once for this many steps; the last block may be shorter.
    biased
        Without a bias the program has neither bias nor weight, and the velocities stay as they are.
    sum_forces
        Without a bias: leave the forces of all steps of the lag, summed, in kJ/mol/nm, in the velocities.
    """
    if lag_steps < 1 or hold_steps < 1:
        raise bad_input("lag_steps, hold_steps", "1 or more", (lag_steps, hold_steps))
    integrator = openmm.CustomIntegrator(timestep * lag_steps)
    integrator.addPerDofVariable(A, 0.0)
    integrator.addPerDofVariable(S, 0.0)
    integrator.setIntegrationForceGroups(set(range(32)) if biased else set(range(31)))
    if not biased:
        if sum_forces:
            integrator.addComputePerDof("v", "0")
        for _ in range(lag_steps):
            if sum_forces:
                integrator.addComputePerDof("v", "v + f0")
            integrator.addComputePerDof("x", f"x + {A}*f0 + {S}*gaussian")
        return integrator
    for name in (EVEN, ODD):
        integrator.addPerDofVariable(name, 0.0)
    integrator.addPerDofVariable(U, 0.0)
    integrator.addComputePerDof("v", "0")
    for start in range(0, lag_steps, hold_steps):
        _held_block(integrator, min(hold_steps, lag_steps - start))
    return integrator


def _held_block(integrator: openmm.CustomIntegrator, n_steps: int) -> None:
    # Group 31 alone: OpenMM does not allow two force groups in one expression.
    integrator.addComputePerDof(U, f"select({S}, {A}*f{BIAS_GROUP}/({S} + 1 - step(abs({S})-1e-300)), 0)")
    integrator.addComputePerDof(EVEN, "0")
    old, new = EVEN, ODD
    for _ in range(n_steps):
        # The running sum of the noise goes back and forth between two variables: their difference is this step's
        # gaussian, and a third pass over all degrees of freedom is saved.
        integrator.addComputePerDof(new, f"{old} + gaussian")
        integrator.addComputePerDof("x", f"x + {A}*f0 + {S}*({new} - {old} + {U})")
        old, new = new, old
    integrator.addComputePerDof("v", f"v - {U}*{old} - {n_steps}*{U}*{U}/2")


def set_coefficients(integrator: openmm.CustomIntegrator, mobility: NDArray[np.float64], kT: float) -> None:
    """Set a and s from the mobility dt/(m gamma), (n_particles, 3); needs a Context."""
    for name, table in ((A, mobility), (S, np.sqrt(2.0 * kT * mobility))):
        integrator.setPerDofVariableByName(name, [openmm.Vec3(*row) for row in table.tolist()])

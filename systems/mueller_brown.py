"""The Mueller-Brown potential divided by ten: one particle, three minima, a curved path past a shallow one.

    V(x, y) = (1/10) sum_i A_i exp(a_i (x - x_i)^2 + b_i (x - x_i)(y - y_i) + c_i (y - y_i)^2)

Minima: MA (-0.558, 1.442) at -14.67 kJ/mol, MB (0.623, 0.028) at -10.82, and MC (-0.050, 0.467) at -8.08 between them.
The saddle that decides MA -> MB lies at (-0.822, 0.624), -4.07: 10.6 kT at beta 1, 31.8 at beta 3.

Reference: K. Mueller and L. D. Brown, Theor. Chim. Acta 53, 75 (1979), doi:10.1007/BF00547608, table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openmm_rlis.problem import Problem

from .particle import particle_problem, plane, plane_labels

SCALE = 0.1
TERMS = (
    # A, a, b, c, x, y
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
MINIMA = {"MA": (-0.55822, 1.44173), "MB": (0.62350, 0.02804), "MC": (-0.05001, 0.46669)}
__all__ = ["build", "describe", "landmarks", "plane", "plane_labels"]


def build(
    source: str = "MA",
    target: str = "MB",
    others: Sequence[str] = (),
    beta: float = 1.0,
    timestep: float = 1e-4,
    lag_steps: int = 10,
    radius: float = 0.2,
) -> Problem:
    """Return the transition `source` -> `target` between minima MA, MB, MC.

    Parameters
    ----------
    source, target, others
        Names of minima, all different.
    beta
        Inverse temperature in mol/kJ.
    timestep, lag_steps
        Euler-Maruyama step in ps and the number of steps between tests of the regions. The stiffest well has a
        curvature of 407 kJ/mol/nm^2, so the default step is 0.04 of its relaxation time.
    radius
        Radius of each region in nm.

    Raises
    ------
    InputError
        Unknown or repeated minimum, or a number out of range.
    """
    options = {
        "source": source, "target": target, "others": others, "beta": float(beta), "timestep": timestep,
        "lag_steps": lag_steps, "radius": radius,
    }  # fmt: skip
    return particle_problem("mueller_brown", energy_expression(), MINIMA, options)


def describe() -> str:
    """Return one line for `rlis systems`."""
    return "Mueller-Brown potential / 10, minima MA, MB, MC; k(MA->MB) spans 6e-4 to 4e-13 /ps from beta 1 to beta 3"


def energy_expression() -> str:
    """Return the potential as an OpenMM expression, kJ/mol."""
    terms = [
        f"({SCALE * height})*exp(({a})*(x-({x0}))^2 + ({b})*(x-({x0}))*(y-({y0})) + ({c})*(y-({y0}))^2)"
        for height, a, b, c, x0, y0 in TERMS
    ]
    return " + ".join(terms)


def energy(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return V in kJ/mol at x and y in nm, any shape."""
    total = np.zeros(np.broadcast(x, y).shape)
    for height, a, b, c, x0, y0 in TERMS:
        total += SCALE * height * np.exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
    return total


def landmarks() -> dict[str, NDArray[np.float64]]:
    """Return (x, y) of the minima."""
    return {name: np.array(point) for name, point in MINIMA.items()}

"""Two deep wells joined by two channels: a direct one below a hill, and one above it through a shallow third well.

    V(x, y) = 3 exp(-x^2 - (y - 1/3)^2) - 3 exp(-x^2 - (y - 5/3)^2) - 5 exp(-(x - 1)^2 - y^2) - 5 exp(-(x + 1)^2 - y^2)
              + 0.2 x^4 + 0.2 (y - 1/3)^4 + tilt x

Without tilt: wells L and R at (-+1.048, -0.042), -3.995 kJ/mol, and T at (0, 1.537), -2.172. The upper channel has the
lower saddles, (-+0.617, 1.103) at -1.647; the lower one a single saddle, (0, -0.316) at -1.385, but a shorter way. So
the lower channel carries most of the current when it is hot and the upper one when it is cold.

Reference: P. Metzner, C. Schuette and E. Vanden-Eijnden, J. Chem. Phys. 125, 084110 (2006), doi:10.1063/1.2335447,
eq. (24), where beta is 1.67 and 6.67.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from openmm_rlis.problem import Problem

from .particle import particle_problem, plane, plane_labels

STARTS = {"L": (-1.048, -0.042), "R": (1.048, -0.042), "T": (0.0, 1.537)}
HILL = 1.0 / 3.0
__all__ = ["build", "describe", "landmarks", "plane", "plane_labels"]


def build(
    source: str = "L",
    target: str = "R",
    others: Sequence[str] = (),
    beta: float = 4.0,
    tilt: float = 0.0,
    timestep: float = 1e-3,
    lag_steps: int = 10,
    radius: float = 0.3,
) -> Problem:
    """Return the transition `source` -> `target` between wells L, R and T.

    Parameters
    ----------
    source, target, others
        Names of wells, all different.
    beta
        Inverse temperature in mol/kJ.
    tilt
        Slope along x in kJ/mol/nm; 0 is the symmetric potential.
    timestep, lag_steps
        Euler-Maruyama step in ps and the number of steps between tests of the regions.
    radius
        Radius of each region in nm.

    Raises
    ------
    InputError
        Unknown or repeated well, or a number out of range.
    """
    options = {
        "source": source, "target": target, "others": others, "beta": float(beta), "tilt": float(tilt),
        "timestep": timestep, "lag_steps": lag_steps, "radius": radius,
    }  # fmt: skip
    return particle_problem("triple_well", energy_expression(tilt), minima(tilt), options)


def describe() -> str:
    """Return one line for `rlis systems`."""
    return "triple well, L and R joined by an upper channel (through T) and a lower one; `tilt` makes it asymmetric"


def energy_expression(tilt: float = 0.0) -> str:
    """Return the potential as an OpenMM expression, kJ/mol."""
    return (
        "3*exp(-x^2-(y-1/3)^2) - 3*exp(-x^2-(y-5/3)^2) - 5*exp(-(x-1)^2-y^2) - 5*exp(-(x+1)^2-y^2)"
        f" + 0.2*x^4 + 0.2*(y-1/3)^4 + ({tilt})*x"
    )


def energy(x: NDArray[np.float64], y: NDArray[np.float64], tilt: float = 0.0) -> NDArray[np.float64]:
    """Return V in kJ/mol at x and y in nm, any shape."""
    return (
        3.0 * np.exp(-(x**2) - (y - 1 / 3) ** 2)
        - 3.0 * np.exp(-(x**2) - (y - 5 / 3) ** 2)
        - 5.0 * np.exp(-((x - 1) ** 2) - y**2)
        - 5.0 * np.exp(-((x + 1) ** 2) - y**2)
        + 0.2 * x**4
        + 0.2 * (y - 1 / 3) ** 4
        + tilt * x
    )


def minima(tilt: float = 0.0) -> dict[str, tuple[float, float]]:
    """Return the bottoms of the wells, (x, y) in nm, by minimisation."""
    found = {}
    for name, start in STARTS.items():
        fit = minimize(lambda p: float(energy(np.array(p[0]), np.array(p[1]), tilt)), start, tol=1e-12)
        found[name] = (float(fit.x[0]), float(fit.x[1]))
    return found


def channel(frames: NDArray[np.float32]) -> str:
    """Return `upper` or `lower`: on which side of the hill a path (n_frames, 1, 3) crossed x = 0, on the whole."""
    x, y = np.asarray(frames, dtype=np.float64)[:, 0, :2].T
    before, after = x[:-1] < 0.0, x[1:] < 0.0
    rows = np.flatnonzero(before != after)
    at = y[rows] - x[rows] * (y[rows + 1] - y[rows]) / (x[rows + 1] - x[rows])
    sign = np.where(before[rows], 1, -1)
    return "upper" if abs(int(sign[at > HILL].sum())) > 0 else "lower"


def landmarks() -> dict[str, NDArray[np.float64]]:
    """Return (x, y) of the wells without tilt."""
    return {name: np.array(point) for name, point in minima().items()}

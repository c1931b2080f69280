"""One particle on a line between two wells, `L` near x = -1 and `R` near x = 1.

    V(x) = height (x^2 - 1)^2 + tilt x

With `tilt` above 0 the left well is the deeper one. y and z are frozen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from openmm_rlis.errors import bad_input
from openmm_rlis.problem import Problem

from .particle import particle_problem, plane, plane_labels

__all__ = ["build", "describe", "landmarks", "plane", "plane_labels"]


def build(
    source: str = "L",
    target: str = "R",
    beta: float = 1.0,
    height: float = 8.0,
    tilt: float = 1.0,
    timestep: float = 5e-4,
    lag_steps: int = 10,
    radius: float = 0.2,
) -> Problem:
    """Return the transition `source` -> `target` of the double well.

    Parameters
    ----------
    source, target
        `L` and `R`, in either order.
    beta
        Inverse temperature in mol/kJ.
    height, tilt
        Barrier in kJ/mol and slope in kJ/mol/nm.
    timestep, lag_steps
        Euler-Maruyama step in ps and the number of steps between tests of the regions.
    radius
        Half width of each region about its minimum, in nm.

    Raises
    ------
    InputError
        Unknown well, or a number out of range.
    """
    options = {
        "source": source, "target": target, "beta": float(beta), "height": float(height), "tilt": float(tilt),
        "timestep": timestep, "lag_steps": lag_steps, "radius": radius,
    }  # fmt: skip
    energy = f"({height})*(x^2-1)^2 + ({tilt})*x"
    return particle_problem("double_well", energy, minima(height, tilt), options, dimensions=1)


def describe() -> str:
    """Return one line for `rlis systems`."""
    return "one particle on a line, height (x^2-1)^2 + tilt x, wells L and R; exact rates in the tests"


def minima(height: float = 8.0, tilt: float = 1.0) -> dict[str, tuple[float, float]]:
    """Return the bottoms of the wells, (x, 0) in nm: the outer roots of V' = 4 height (x^3 - x) + tilt.

    Raises
    ------
    InputError
        There are not two wells.
    """
    roots = np.roots([4.0 * height, 0.0, -4.0 * height, tilt]) if np.isfinite([height, tilt]).all() else np.empty(0)
    real = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    if not height > 0.0 or len(real) < 3:
        raise bad_input("height, tilt", "numbers that make two wells", (height, tilt), "raise height, or lower tilt")
    return {"L": (float(real[0]), 0.0), "R": (float(real[-1]), 0.0)}


def landmarks() -> dict[str, NDArray[np.float64]]:
    """Return (x, y) of the wells."""
    return {name: np.array(point) for name, point in minima().items()}

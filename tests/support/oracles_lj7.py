"""Eyring-Kramers rates of planar LJ7, from its own stationary points.

    k = sum_s n_s |l_s| / (2 pi) sqrt( prod' l_m I_s / (prod' |l|_s I_m) ) exp(-beta (E_s - E_m))        (unit mobility)

over the saddles s that join the two minima; l are Hessian eigenvalues without the three of rigid motions, I = sum |x -
x_cm|^2 is the square of the length of the rotation orbit over 2 pi, and n_s is how many saddles of that shape one
labelled minimum has (the ratio of the orders of the symmetry groups). Right to O(1/beta).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from openmm_rlis.features import evaluate
from openmm_rlis.systems import lj7

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Saddle:
    """A first-order saddle: planar coordinates (14,), energy, and the names of the minima on its two sides."""

    x: Array
    energy: float
    ends: frozenset[str]


def gradient(x: Array) -> Array:
    """Return the gradient (14,) of the energy."""
    return lj7.energy_and_gradient(x)[1]


def hessian(x: Array, h: float = 1e-5) -> Array:
    """Return the Hessian (14, 14) by central differences of the gradient."""
    steps = h * np.eye(len(x))
    table = np.array([(gradient(x + d) - gradient(x - d)) / (2 * h) for d in steps])
    return (table + table.T) / 2


def vibrations(x: Array) -> Array:
    """Return the 11 Hessian eigenvalues that do not belong to rigid motions, in ascending order."""
    values = np.linalg.eigvalsh(hessian(x))
    return np.sort(values[np.argsort(np.abs(values))[3:]])


def inertia(x: Array) -> float:
    """Return sum |x_i - x_cm|^2."""
    r = x.reshape(-1, 2)
    return float(((r - r.mean(0)) ** 2).sum())


def coordinations(x: Array) -> Array:
    """Return the sorted coordination numbers (7,)."""
    return evaluate(lj7.coordination_feature(), np.pad(x.reshape(1, -1, 2), ((0, 0), (0, 0), (0, 1))))[0]


def symmetry(x: Array) -> int:
    """Return how many permutations with a rotation or reflection leave the structure as it is.

    They leave the atom of some unlike pair of coordination numbers where it is, so images are tried by matching two
    atoms and each handedness.
    """
    r = x.reshape(-1, 2) - x.reshape(-1, 2).mean(0)
    z = r[:, 0] + 1j * r[:, 1]
    a = int(np.argmax(np.abs(z)))
    count = 0
    for image in (z, z.conj()):
        for target in z:
            turned = image * (target / image[a]) if abs(abs(target) - abs(image[a])) < 1e-5 else None
            if turned is not None and (np.abs(turned[:, None] - z).min(1) < 1e-4).all():
                count += 1
    return count


def nearest_minimum(x: Array) -> str:
    """Return the name of the minimum that steepest descent from x leads to."""
    end = solve_ivp(lambda _, y: -gradient(y), (0.0, 20.0), x, method="LSODA", rtol=1e-6, atol=1e-8).y[:, -1]
    here = coordinations(end)
    found = {name: coordinations(m[:, :2].ravel()) for name, m in lj7.minima().items()}
    return min(found, key=lambda name: float(np.linalg.norm(found[name] - here)))


def climb(x: Array, most_steps: int = 300) -> Array | None:
    """Follow the lowest vibration uphill and all others downhill to a first-order saddle (Newton in the eigenbasis)."""
    for _ in range(most_steps):
        values, vectors = np.linalg.eigh(hessian(x))
        along = vectors.T @ gradient(x)
        real = np.abs(values) > 1e-3
        lowest = int(np.flatnonzero(real)[0])
        sign = np.where(np.arange(len(x)) == lowest, 1.0, -1.0)
        step = np.where(real, sign * along / np.maximum(np.abs(values), 1.0), 0.0)
        x = x + vectors @ step * min(1.0, 0.1 / max(float(np.linalg.norm(step)), 1e-12))
        if np.abs(gradient(x)).max() < 1e-8:
            return x if values[lowest] < 0.0 else None
    return None


@lru_cache(maxsize=4)
def saddles(source: str, target: str, highest: float = -10.6, n_starts: int = 40) -> tuple[Saddle, ...]:
    """Return the saddles between two minima up to an energy, one of each shape, lowest first."""
    rng, found = np.random.default_rng(3), {}
    ends = [lj7.minima()[name][:, :2].ravel() for name in (source, target)]
    for _ in range(n_starts):
        x = climb(ends[rng.integers(2)] + 0.15 * rng.standard_normal(14))
        key = round(lj7.energy_and_gradient(x)[0], 4) if x is not None else np.inf
        if x is None or key > highest or key in found:
            continue
        vectors = np.linalg.eigh(hessian(x))[1]
        sides = frozenset(nearest_minimum(x + sign * 0.01 * vectors[:, 0]) for sign in (1, -1))
        found[key] = Saddle(x, key, sides)
    return tuple(sorted((s for s in found.values() if s.ends == {source, target}), key=lambda s: s.energy))


def eyring_kramers(source: str, target: str, beta: float) -> tuple[float, Array]:
    """Return the rate in 1/ps and the share of each saddle."""
    m = lj7.minima()[source][:, :2].ravel()
    floor = lj7.energy_and_gradient(m)[0]
    rates = []
    for s in saddles(*sorted((source, target))):
        values = vibrations(s.x)
        shape = np.prod(vibrations(m)) * inertia(s.x) / (np.prod(np.abs(values)) * inertia(m))
        copies = symmetry(m) / symmetry(s.x)
        rates.append(copies * -values[0] / (2 * np.pi) * np.sqrt(shape) * np.exp(-beta * (s.energy - floor)))
    total = float(np.sum(rates))
    return total, np.array(rates) / total

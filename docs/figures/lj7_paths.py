"""Success paths of LJ7 over the free energy in the plane of mu2 and mu3, the figure of the README.

make lj7                                     (both directions at beta 9, into runs/lj7)
python docs/figures/lj7_paths.py [RUN] [PNG]    runs/lj7 and docs/figures/lj7_paths.png by default, about 4 minutes

The free energy needs a sample that crosses all barriers often, which no run at beta 9 gives: replica-exchange Monte
Carlo between beta 3 and 9, reweighted to beta 9 (MBAR, Shirts and Chodera, doi:10.1063/1.2978177). It is kept beside
the figure's data in RUN/free_energy.npz. The saddles are stationary points with one negative curvature, found from
frames of the success paths and from disturbed minima.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize, root
from scipy.special import logsumexp

import openmm_rlis as rlis
from openmm_rlis.systems import lj7

matplotlib.use("Agg")
from matplotlib import patheffects, pyplot

BETAS = np.array([3.0, 4.0, 5.0, 6.0, 7.5, 9.0])
LADDERS, SWEEPS = 300, 6000
EDGES = [np.linspace(0.3, 1.2, 181), np.linspace(-0.4, 1.45, 247)]
BLUE, RED = "#0072B2", "#D55E00"
OUTLINE = [patheffects.withStroke(linewidth=2.5, foreground="white")]


def wall(x: np.ndarray) -> np.ndarray:
    """Return the energy of the wall for planar structures (n, 7, 2)."""
    radii = np.linalg.norm(x - x.mean(1, keepdims=True), axis=-1)
    return 50.0 * np.square(np.maximum(0.0, radii - 2.0)).sum(-1)


def pairs_of(x: np.ndarray, atom: int) -> np.ndarray:
    """Return the Lennard-Jones energy of one atom with all others, for structures (n, 7, 2)."""
    r2 = np.square(x - x[:, [atom]]).sum(-1)
    r2[:, atom] = np.inf
    s = r2**-3
    return 4.0 * (s * s - s).sum(-1)


def exchange(x: np.ndarray, energy: np.ndarray, first: int, rng: np.random.Generator) -> None:
    """Exchange structures between neighbouring temperatures, in place; axes (ladder, temperature, ...)."""
    for k in range(first, len(BETAS) - 1, 2):
        gain = (BETAS[k] - BETAS[k + 1]) * (energy[:, k] - energy[:, k + 1])
        swap = np.flatnonzero(np.log(rng.random(len(x))) < gain)
        for values in (x, energy):
            values[swap, k], values[swap, k + 1] = values[swap, k + 1].copy(), values[swap, k].copy()


def sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (m, 2) of the plane and their weights at beta 9, from replica exchange."""
    minima = [structure[:, :2] for structure in lj7.minima().values()]
    n = LADDERS * len(BETAS)
    x = np.stack([minima[i % len(minima)] for i in range(n)])
    beta = np.tile(BETAS, LADDERS)
    energy = sum(pairs_of(x, atom) for atom in range(lj7.N_ATOMS)) / 2.0 + wall(x)
    points, energies = [], []
    for sweep in range(SWEEPS):
        for atom in range(lj7.N_ATOMS):
            y = x.copy()
            y[:, atom] += rng.normal(size=(n, 2)) * (0.25 / np.sqrt(beta))[:, None]
            change = pairs_of(y, atom) - pairs_of(x, atom) + wall(y) - wall(x)
            accepted = np.log(rng.random(n)) < -beta * change
            x[accepted] = y[accepted]
            energy[accepted] += change[accepted]
        if sweep % 5 == 0:
            shape = (LADDERS, len(BETAS))
            exchange(x.reshape(*shape, lj7.N_ATOMS, 2), energy.reshape(shape), sweep // 5 % 2, rng)
        if sweep >= SWEEPS // 5 and sweep % 10 == 0:
            points.append(lj7.plane(np.concatenate([x, np.zeros((n, lj7.N_ATOMS, 1))], axis=-1)))
            energies.append(energy.copy())
    log_weights = reweight(np.concatenate(energies).reshape(-1, len(BETAS)))
    return np.concatenate(points), np.exp(log_weights - log_weights.max()).ravel()


def reweight(energies: np.ndarray) -> np.ndarray:
    """Return ln weight at the last temperature of samples whose energies are (n, temperatures)."""
    u, f = energies.ravel(), np.zeros(len(BETAS))
    mixture = np.zeros_like(u)
    for _ in range(500):
        mixture = logsumexp(f + np.log(len(energies)) - u[:, None] * BETAS, axis=1)
        new = -logsumexp(-u[:, None] * BETAS - mixture[:, None], axis=0)
        done, f = np.abs(new - new[0] - f).max() < 1e-6, new - new[0]
        if done:
            break
    return (-BETAS[-1] * u - mixture).reshape(energies.shape)


def free_energy(file: Path) -> np.ndarray:
    """Return the free energy in kT on the cells of EDGES, 0 at its minimum."""
    if not file.exists():
        print("replica-exchange Monte Carlo, some minutes ...", flush=True)
        points, weights = sample(np.random.default_rng(1))
        density = gaussian_filter(np.histogram2d(*points.T, bins=EDGES, weights=weights)[0], 1.5)
        np.savez(file, density=density)
    density = np.load(file)["density"]
    with np.errstate(divide="ignore"):
        return -np.log(density / density.max())


def saddles(starts: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Return where in the plane the saddles between two different minima are; starts are structures (7, 3)."""
    minima = lj7.minima()
    starts = starts + [
        m + rng.normal(size=m.shape) * size for m in minima.values() for size in (0.1, 0.2, 0.3) for _ in range(300)
    ]
    depths = [lj7.energy_and_gradient(m[:, :2].ravel())[0] for m in minima.values()]
    found: dict[float, np.ndarray] = {}
    for start in starts:
        point = stationary(start[:, :2].ravel())
        if point is None:
            continue
        flat, energy, downhill = point
        ends = {nearest(depths, flat + sign * 0.02 * downhill) for sign in (1.0, -1.0)}
        if len(ends) == 2 and -1 not in ends:
            structure = np.zeros((1, lj7.N_ATOMS, 3))
            structure[0, :, :2] = flat.reshape(-1, 2)
            found[round(energy, 4)] = lj7.plane(structure)[0]
    for energy, place in sorted(found.items()):
        print(f"saddle at energy {energy}, mu2 {place[0]:.3f}, mu3 {place[1]:.3f}")
    return list(found.values())


def stationary(flat: np.ndarray) -> tuple[np.ndarray, float, np.ndarray] | None:
    """Return coordinates, energy and unstable direction of a first-order saddle near a structure, or None."""
    with np.errstate(all="ignore"):
        solution = root(lambda z: lj7.energy_and_gradient(z)[1], flat, tol=1e-10)
        energy, gradient = lj7.energy_and_gradient(solution.x)
    if not solution.success or np.abs(gradient).max() > 1e-6 or energy > -10.5:
        return None
    steps = 1e-5 * np.eye(len(flat))
    ahead, back = ([lj7.energy_and_gradient(solution.x + sign * s)[1] for s in steps] for sign in (1.0, -1.0))
    curvature, direction = np.linalg.eigh((np.array(ahead) - np.array(back)) / 2e-5)
    return (solution.x, energy, direction[:, 0]) if (curvature < -1e-3).sum() == 1 else None


def nearest(depths: list[float], flat: np.ndarray) -> int:
    """Return which minimum is reached downhill; -1 if none."""
    depth = minimize(lj7.energy_and_gradient, flat, jac=True, tol=1e-10).fun
    which = int(np.argmin(np.abs(np.array(depths) - depth)))
    return which if abs(depths[which] - depth) < 1e-3 else -1


def draw_direction(axis: pyplot.Axes, result: rlis.Result, colour: str) -> list[np.ndarray]:
    """Draw where the weighted success paths spend their time, and three of them; return some frames."""
    paths = result.paths.success()
    weights = paths.weights / paths.weights.sum()
    frames = [paths.to_mdtraj(i).xyz.astype(float) for i in range(len(paths))]
    points = [lj7.plane(x) for x in frames]
    times = np.concatenate([np.full(len(p), w) for p, w in zip(points, weights, strict=True)])
    density = gaussian_filter(np.histogram2d(*np.concatenate(points).T, bins=EDGES, weights=times)[0], 2.0)
    levels = density.max() * np.array([0.05, 0.15, 0.3, 0.5, 0.7, 1.01])
    centers = [(edges[1:] + edges[:-1]) / 2.0 for edges in EDGES]
    for k, (low, high) in enumerate(pairwise(levels)):
        axis.contourf(*centers, density.T, levels=[low, high], colors=[colour], alpha=0.15 + 0.13 * k)
    drawn = np.random.default_rng(2).choice(len(paths), 3, replace=False, p=weights)
    for i in drawn:
        width = max(3, len(points[i]) // 12)
        smooth = np.stack([np.convolve(c, np.ones(width) / width, "valid") for c in points[i].T])
        axis.plot(*smooth, color=colour, linewidth=1.1, path_effects=OUTLINE)
    axis.set_title(f"{result.to_dict()['source']} $\\to$ {result.to_dict()['target']}, {len(paths)} success paths")
    return [x[k] for x in frames[:60] for k in (len(x) // 4, len(x) // 2, 3 * len(x) // 4)]


def main() -> None:
    """Draw the figure."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lj7")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "docs/figures/lj7_paths.png")
    if not (run / "forward").is_dir():
        sys.exit(f"{run}: expected a run of both directions, found none; make it with: make lj7")
    energy = free_energy(run / "free_energy.npz")
    pyplot.rcParams.update({"font.size": 9, "savefig.dpi": 200})
    figure, axes = pyplot.subplots(1, 2, figsize=(8.2, 4.3), sharex=True, sharey=True, layout="constrained")
    centers, frames = [(edges[1:] + edges[:-1]) / 2.0 for edges in EDGES], []
    for axis, direction, colour in zip(axes, ("forward", "backward"), (BLUE, RED), strict=True):
        ground = axis.contourf(*centers, energy.T, levels=np.arange(0, 16, 1), cmap="Greys_r", alpha=0.55, extend="max")
        axis.contour(*centers, energy.T, levels=np.arange(1, 16, 2), colors="black", linewidths=0.35, alpha=0.6)
        frames += draw_direction(axis, rlis.load(run / direction), colour)
    places = saddles(frames, np.random.default_rng(3))
    for axis in axes:
        for place in places:
            axis.plot(*place, "x", color="black", markersize=6, markeredgewidth=1.6, zorder=5, path_effects=OUTLINE)
        for name, place in lj7.landmarks().items():
            axis.plot(*place, "o", color="#F0E442", markeredgecolor="black", markersize=7, zorder=6)
            axis.annotate(
                name, place, xytext=(7, 4), textcoords="offset points", fontweight="bold", path_effects=OUTLINE,
                zorder=7,
            )  # fmt: skip
        axis.set(xlabel=lj7.plane_labels[0], xlim=(0.35, 1.12), ylim=(-0.3, 1.42))
    axes[0].set_ylabel(lj7.plane_labels[1])
    figure.colorbar(ground, ax=list(axes), label="free energy / kT", pad=0.02)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    print(f"{out} written")


if __name__ == "__main__":
    main()

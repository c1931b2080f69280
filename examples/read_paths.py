"""Paths in mdtraj: run, export each success path as a trajectory, load it, and watch the RMSD to the target fall."""

from pathlib import Path

import mdtraj
import numpy as np
from scipy.optimize import linear_sum_assignment

import openmm_rlis as rlis
from openmm_rlis.export import export_paths
from openmm_rlis.systems import lj7


def distance_to(structure: np.ndarray, trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Return the RMSD in nm of every frame to a structure, best over rotation, reflection and exchange of atoms."""
    target = mdtraj.Trajectory(structure[None], trajectory.topology)
    best = np.full(trajectory.n_frames, np.inf)
    for mirror in (1.0, -1.0):
        frames = mdtraj.Trajectory(trajectory.xyz * [1.0, mirror, 1.0], trajectory.topology)
        for frame in range(frames.n_frames):
            best[frame] = min(best[frame], _matched(frames[frame], target))
    return best


def _matched(frame: mdtraj.Trajectory, target: mdtraj.Trajectory) -> float:
    """Return the least RMSD over starting angles, atoms matched by distance after each superposition."""
    a = frame.xyz[0] - frame.xyz[0].mean(0)
    b = target.xyz[0] - target.xyz[0].mean(0)
    best = np.inf
    for angle in np.arange(0.0, 2.0 * np.pi, np.pi / 18.0):
        c, s = np.cos(angle), np.sin(angle)
        turned = a @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        _, order = linear_sum_assignment(((turned[:, None] - b[None]) ** 2).sum(-1))
        matched = mdtraj.Trajectory(b[order][None], target.topology)
        best = min(best, float(mdtraj.rmsd(mdtraj.Trajectory(turned[None], target.topology), matched)[0]))
    return best


if __name__ == "__main__":
    problem = lj7.build(source="C3", target="C2", beta=7.0)
    rlis.run(problem, directory="run", seed=2, target_relative_error=0.3)
    export_paths(Path("run"), Path("paths"))
    first = sorted(Path("paths").glob("**/path-*.dcd"))[0]
    path = mdtraj.load(str(first), top=str(first.with_name("topology.pdb")))
    distance = distance_to(lj7.minima()["C2"], path)
    print(f"{first}: {path.n_frames} frames, RMSD to C2 falls from {distance[0]:.3f} to {distance[-1]:.3f} nm")
    print(distance[:: max(1, path.n_frames // 10)].round(3))
    assert distance[-1] < distance[0]

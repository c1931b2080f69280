"""Paths in mdtraj: run, export each success path as a trajectory, load it, and watch the RMSD to the target fall."""

from pathlib import Path

import mdtraj
import numpy as np

import openmm_rlis as rlis
from openmm_rlis.export import export_paths
from openmm_rlis.systems import lj7


def rmsd_to(structure: np.ndarray, trajectory: mdtraj.Trajectory) -> np.ndarray:
    """Return the RMSD in nm of every frame to a structure, over its relabellings by order of coordination."""
    feature = lj7.coordination_feature()

    def ordered(xyz: np.ndarray) -> np.ndarray:
        return np.asarray(rlis.features.evaluate(feature, xyz))

    return np.sqrt(((ordered(trajectory.xyz) - ordered(structure[None])) ** 2).mean(axis=1))


if __name__ == "__main__":
    problem = lj7.build(source="C3", target="C2", beta=5.0)
    rlis.run(problem, directory="run", seed=2, max_force_evaluations=30_000_000, target_relative_error=0.2)
    export_paths(Path("run"), Path("paths"))
    first = sorted(Path("paths").glob("**/path-*.dcd"))[0]
    path = mdtraj.load(str(first), top=str(first.with_name("topology.pdb")))
    distance = rmsd_to(lj7.minima()["C2"], path)
    print(f"{first}: {path.n_frames} frames, from {distance[0]:.3f} to {distance[-1]:.3f} in coordination numbers of C2")
    assert distance[-1] < distance[0]

"""Go on with mdtraj and deeptime: butane turns its torsion over; averages, an export, and a model of the paths.

Needs `pip install -e ".[analysis]"` (pyarrow, tables and deeptime).
"""

from pathlib import Path

import mdtraj
import numpy as np
import openmm
from deeptime.decomposition import TICA
from deeptime.markov import TransitionCountEstimator
from deeptime.markov.msm import MaximumLikelihoodMSM
from openmm import app, unit
from pyarrow import parquet

import openmm_rlis as rlis
from openmm_rlis.export import export_paths

ATOMS = [[0, 1, 2, 3]]


def make_problem() -> rlis.Problem:
    """Return butane of united atoms, from gauche (torsion near 60 degrees) to trans (180)."""
    system, topology = openmm.System(), app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    atoms = [topology.addAtom(f"C{i + 1}", app.element.carbon, residue) for i in range(4)]
    for _ in atoms:
        system.addParticle(14.5)
    bonds, angles, torsion = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.RBTorsionForce()
    for i in range(3):
        bonds.addBond(i, i + 1, 0.153, 20_000.0)
        topology.addBond(atoms[i], atoms[i + 1])
    for i in range(2):
        angles.addAngle(i, i + 1, i + 2, np.radians(112.0), 400.0)
    torsion.addTorsion(0, 1, 2, 3, 9.279, 12.156, -13.120, -3.060, 26.240, -31.495)  # Ryckaert and Bellemans
    for force in (bonds, angles, torsion):
        system.addForce(force)
    feature = rlis.features.dihedrals(ATOMS)  # sine and cosine
    ends = {name: [np.sin(a), np.cos(a)] for name, a in (("gauche", np.pi / 3), ("trans", np.pi), ("back", -np.pi / 3))}
    source, target, other = (rlis.Region.ball(feature, center, 0.3, name) for name, center in ends.items())
    return rlis.Problem(
        system, structure(60.0) * unit.nanometer, topology, source=source, target=target, others=[other],
        temperature=300 * unit.kelvin, friction=20 / unit.picosecond, timestep=2 * unit.femtosecond, lag_steps=10,
    )  # fmt: skip


def structure(degrees: float) -> np.ndarray:
    """Return the four beads, (4, 3) in nm, with a given torsion."""
    tilt, turn = np.radians(180.0 - 112.0), np.radians(degrees)
    first = [-np.cos(tilt), np.sin(tilt), 0.0]
    last = [1.0 + np.cos(tilt), np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn)]
    return 0.153 * np.array([first, [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], last])


def torsion_of(path: mdtraj.Trajectory) -> np.ndarray:
    """Return the torsion of every frame in degrees, from 0 to 360."""
    return np.degrees(mdtraj.compute_dihedrals(path, ATOMS)[:, 0]) % 360.0


if __name__ == "__main__":
    settings = rlis.Settings(frame_stride=1)  # every lag, since these paths are short
    result = rlis.run(make_problem(), "run", seed=1, target_relative_error=0.15, settings=settings)
    print("rate", result.rate, "per ps")

    # Weighted averages with error bars, straight from the run.
    success = result.paths.success()
    print("duration of a transition path", success.average(lambda path: path.time[-1], trajectory=True), "ps")
    drawn = success.histogram(torsion_of, bins=np.arange(60.0, 200.0, 20.0), trajectory=True)
    for center, share, error in zip(drawn.centers, drawn.shares, drawn.standard_errors, strict=True):
        print(f"share of the time near {center:3.0f} degrees: {share:.3f} +- {error:.3f}")

    # Ordinary trajectories and a table, for any other program.
    export_paths(Path("run"), Path("paths"), form="hdf5", weights="parquet")
    rows = parquet.read_table("paths/weights.parquet").to_pydict()
    paths = [mdtraj.load(f"paths/{name}") for name in rows["file"]]  # with times, atoms and all
    weights = np.array(rows["weight"])
    trans = mdtraj.Trajectory(structure(180.0)[None], paths[0].topology)
    distances = [mdtraj.rmsd(path, trans)[[0, -1]] for path in paths]
    first, last = np.average(distances, axis=0, weights=weights)
    print(f"RMSD to trans: {first:.4f} nm at the start of a path, {last:.4f} nm at its end")
    assert last < first

    # TICA and Markov models know no weights: draw paths by weight, no more than there are effective ones.
    rng, n = np.random.default_rng(0), int(result.diagnostics["ess"])
    chosen = [paths[i] for i in rng.choice(len(paths), size=n, p=weights / weights.sum())]
    angles = [np.radians(torsion_of(path)) for path in chosen]
    features = [np.stack([np.cos(a), np.sin(a)], axis=1) for a in angles]
    tica = TICA(lagtime=1, dim=1).fit_from_timeseries(features).fetch_model()
    print("slowest coordinate of the transition paths, in (cos, sin):", tica.singular_vectors_left[:, 0].round(2))
    states = [np.digitize(a, np.radians([90.0, 120.0, 150.0])) for a in angles]
    counts = TransitionCountEstimator(lagtime=1, count_mode="sliding").fit_fetch(states).submodel_largest()
    model = MaximumLikelihoodMSM(reversible=False).fit_fetch(counts)
    print(f"Markov model of {model.n_states} states from {n} paths:", *model.transition_matrix.round(3), sep="\n  ")

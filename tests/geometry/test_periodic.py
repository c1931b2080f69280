"""Features in periodic boxes: the nearest image, against a search over images, mdtraj and OpenMM; and exact rates."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit

from openmm_rlis import features
from openmm_rlis.errors import InputError
from openmm_rlis.features import evaluate
from openmm_rlis.geometry.periodic import nearest_image, set_box
from openmm_rlis.openmm_system.periodic_box import check_box
from openmm_rlis.preflight import start_checks
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.sampling import run as sampler

REFERENCE = openmm.Platform.getPlatformByName("Reference")
BOXES = {
    "cube": [[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]],
    "brick": [[2.0, 0, 0], [0, 3.0, 0], [0, 0, 1.5]],
    "skewed": [[2.0, 0, 0], [0.7, 2.2, 0], [-0.9, 0.8, 1.9]],
    "octahedron": [
        [2.0, 0, 0],
        [2.0 / 3, 4 * math.sqrt(2) / 3, 0],
        [-2.0 / 3, 2 * math.sqrt(2) / 3, 2 * math.sqrt(6) / 3],
    ],
    "dodecahedron": [[2.0, 0, 0], [0, 2.0, 0], [1.0, 1.0, math.sqrt(2.0)]],
}
MADE = {
    "distances": features.distances([(0, 1), (2, 4), (1, 3)]),
    "sorted_distances": features.sorted_distances([(0, 1), (2, 4), (1, 3)]),
    "coordination": features.coordination([0, 1, 2, 3, 4], 0.7),
    "sorted_coordination": features.sorted_coordination([0, 1, 2, 3, 4], 0.7),
    "contact_spectrum": features.contact_spectrum([0, 1, 2, 3, 4], 0.7),
    "angles": features.angles([(0, 1, 2), (3, 1, 4)]),
    "dihedrals": features.dihedrals([(0, 1, 2, 3), (4, 2, 0, 1)]),
}
Array = NDArray[np.float64]


def scattered(n: int = 200, n_atoms: int = 5, spread: float = 6.0) -> Array:
    """Return structures (n, n_atoms, 3) of atoms many boxes apart."""
    return spread * np.random.default_rng(7).standard_normal((n, n_atoms, 3))


def shifts(cell: Any, n: int, n_atoms: int) -> Array:
    """Return lattice vectors (n, n_atoms, 3)."""
    return np.random.default_rng(8).integers(-3, 4, (n, n_atoms, 3)) @ np.array(cell)


@pytest.mark.parametrize("box", BOXES)
def test_the_nearest_image_is_the_shortest_of_many(box: str) -> None:
    cell = np.array(BOXES[box])
    d = np.random.default_rng(1).uniform(-9, 9, (2000, 3))
    pair = set_box(features.distances([(0, 1)]), BOXES[box])
    found = nearest_image(torch.as_tensor(d.T), pair.box).numpy().T
    steps = (d - found) @ np.linalg.inv(cell)
    assert np.abs(steps - np.round(steps)).max() < 1e-9
    near = d - np.round(d @ np.linalg.inv(cell)) @ cell
    images = near[:, None] + np.array(list(itertools.product(range(-3, 4), repeat=3))) @ cell
    shortest = np.linalg.norm(images, axis=-1).min(axis=1)
    assert np.abs(np.linalg.norm(found, axis=1) - shortest).max() < 1e-9


@pytest.mark.parametrize("box", BOXES)
def test_distances_angles_and_dihedrals_are_those_of_mdtraj(box: str) -> None:
    x = scattered(50, 4, 1.0)
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in range(4):
        topology.add_atom("X", mdtraj.element.argon, residue)
    frames = mdtraj.Trajectory(x.astype(np.float32), topology)
    frames.unitcell_vectors = np.repeat(np.array(BOXES[box], dtype=np.float32)[None], 50, axis=0)
    pairs, quadruples = [(0, 1), (1, 3), (0, 3)], [(0, 1, 2, 3)]
    ours = evaluate(set_box(features.distances(pairs), BOXES[box]), x)
    assert np.abs(ours - mdtraj.compute_distances(frames, pairs)).max() < 1e-5
    # All atoms are less than half a box apart here: beyond it mdtraj may take other images for a dihedral.
    chain = np.random.default_rng(3).uniform(-0.2, 0.2, (50, 4, 3))
    moved = chain + shifts(BOXES[box], 50, 4)
    frames.xyz = chain.astype(np.float32)
    angle = evaluate(set_box(features.Dihedrals(quadruples, True), BOXES[box]), moved)
    assert np.abs(np.angle(np.exp(1j * (angle - mdtraj.compute_dihedrals(frames, quadruples))))).max() < 1e-3
    bend = evaluate(set_box(features.Angles([(0, 1, 2)], True), BOXES[box]), moved)
    assert np.abs(bend - mdtraj.compute_angles(frames, [(0, 1, 2)])).max() < 1e-3


@pytest.mark.parametrize("box", ["cube", "brick", "skewed", "dodecahedron"])
def test_distances_are_those_that_openmm_computes_with(box: str) -> None:
    """The energy of a periodic bond r, and the positions that OpenMM wraps; within the reach of a cutoff."""
    system, bond = openmm.System(), openmm.CustomBondForce("r")
    system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*v) for v in BOXES[box]])
    for _ in range(2):
        system.addParticle(1.0)
    bond.addBond(0, 1, [])
    bond.setUsesPeriodicBoundaryConditions(True)
    system.addForce(bond)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), REFERENCE)
    pair = set_box(features.distances([(0, 1)]), BOXES[box])
    half = min(np.diag(BOXES[box])) / 2
    n_near = 0
    for x in scattered(60, 2, 1.5):
        context.setPositions(x)
        state = context.getState(getEnergy=True, getPositions=True, enforcePeriodicBox=True)
        r = evaluate(pair, x[None])[0, 0]
        if r < half:
            assert r == pytest.approx(state.getPotentialEnergy()._value, abs=1e-9)
            n_near += 1
        assert evaluate(pair, state.getPositions(asNumpy=True)._value[None])[0, 0] == pytest.approx(r, abs=1e-9)
    assert n_near > 5


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", MADE)
def test_features_do_not_change_when_atoms_are_moved_by_box_vectors(name: str, box: str) -> None:
    feature = set_box(MADE[name], BOXES[box])
    x = scattered()
    moved = x + shifts(BOXES[box], *x.shape[:2])
    assert np.abs(evaluate(feature, x) - evaluate(feature, moved)).max() < 1e-6
    scripted = torch.jit.script(feature)
    assert np.array_equal(scripted(torch.as_tensor(x)).detach().numpy(), evaluate(feature, x))


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", MADE)
def test_small_molecules_have_the_same_bits_with_and_without_a_box(name: str, box: str) -> None:
    feature = MADE[name]
    x = 0.1 * scattered(spread=1.0)
    with_box = evaluate(set_box(feature, BOXES[box]), x)
    for part in feature.modules():
        if hasattr(part, "box"):
            part.box = [0.0] * 6
    assert with_box.tobytes() == evaluate(feature, x).tobytes()


LENGTH, DEPTH, WIDTH = 2.0, 5.0, 0.25
FAR, NEAR = 0.8, 0.15


def ring() -> openmm.System:
    """Return a particle on a ring and a partner that is held; they attract each other."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*(LENGTH * v)) for v in np.eye(3)])
    system.addParticle(0.0)
    system.addParticle(1.0)
    force = openmm.CustomBondForce(f"-{DEPTH}*exp(-(r/{WIDTH})^2)")
    force.addBond(0, 1, [])
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    return system


def association(bind: bool = True, feature: Any = None, **changes: Any) -> Problem:
    """Return binding, or unbinding, at kT = 1 kJ/mol and a diffusion coefficient of 1 nm^2/ps."""
    d = feature or features.distances([(0, 1)])
    unbound = Region.ball(d, [10.0], 10.0 - FAR, "unbound")
    bound = Region.ball(d, [0.0], NEAR, "bound")
    source, target = (unbound, bound) if bind else (bound, unbound)
    options: dict[str, Any] = {
        "source": source, "target": target, "temperature": 120.2724, "friction": 1.0, "timestep": 1e-4,
        "lag_steps": 10, "dimensions": 1,
    }  # fmt: skip
    start = [[0, 0, 0], [0.9 if bind else 0.05, 0, 0]]
    return Problem(**{"system": ring(), "positions": start, **options, **changes})


def exact_rates() -> tuple[float, float]:
    """Return the rates of binding and unbinding by quadrature: nu over the share of time since last in the source.

    nu = 1 / (Z int exp(U) dr) between the regions, of one of the two sides, Z of the whole of that side.
    """
    r = np.linspace(0.0, LENGTH / 2, 40001)
    step = r[1] - r[0]
    energy = -DEPTH * np.exp(-((r / WIDTH) ** 2))
    resistance = np.cumsum(np.where((r >= NEAR) & (r <= FAR), np.exp(energy), 0.0)) * step
    density = np.exp(-energy) / (np.exp(-energy).sum() * step)
    flux = 1.0 / (np.exp(-energy).sum() * step * resistance[-1])
    from_far = (density * resistance / resistance[-1]).sum() * step
    return flux / from_far, flux / (1.0 - from_far)


@pytest.mark.slow
@pytest.mark.parametrize("bind", [True, False], ids=["on", "off"])
def test_rates_of_association_on_a_ring_are_exact(tmp_path: Path, bind: bool) -> None:
    """Within 3.5 standard errors and 2 % for the lag: one false alarm in 2000."""
    exact = exact_rates()[0 if bind else 1]
    rate = sampler.run(association(bind), tmp_path / "run", 1, 0.1, platform="Reference").rate
    assert abs(rate.value - exact) < 3.5 * rate.standard_error + 0.02 * exact


def test_a_problem_takes_nearest_images_and_leaves_the_callers_features_alone() -> None:
    d = features.distances([(0, 1)])
    region = Region.ball(d, [10.0], 10.0 - FAR)
    problem = association(feature=d, source=region)
    x = np.array([[[0.0, 0, 0], [2.9, 0, 0]], [[0.0, 0, 0], [4.1, 0, 0]]])
    assert problem.label(x).tolist() == [1, 2]
    assert evaluate(problem.features, x)[:, 0] == pytest.approx([0.9, 0.1])
    assert problem.source.feature is problem.target.feature is problem.features
    assert evaluate(d, x)[:, 0] == pytest.approx([2.9, 4.1]) and region.feature is d


def test_the_default_features_of_predicates_take_nearest_images() -> None:
    regions = {
        "source": Region.where(lambda x: torch.cos(math.pi * x[:, 1, 0]) < -0.5),
        "target": Region.where(lambda x: torch.cos(math.pi * x[:, 1, 0]) > 0.9),
    }
    problem = association(**regions)
    assert evaluate(problem.features, np.array([[[0.0, 0, 0], [2.9, 0, 0]]]))[0, 0] == pytest.approx(0.9)


def of_user(nearest: bool) -> Any:
    def distance(x: torch.Tensor) -> torch.Tensor:
        d = x[:, 1] - x[:, 0]
        if nearest:
            d = d - LENGTH * torch.round(d / LENGTH)
        return torch.sqrt((d * d).sum(-1, keepdim=True) + 1e-24)

    return distance


def test_functions_of_users_are_told_when_they_miss_the_nearest_image() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_checks.check_start(association(), REFERENCE)
        start_checks.check_start(association(feature=of_user(nearest=True)), REFERENCE)
        predicate = Region.where(lambda x: of_user(True)(x)[:, 0] > FAR)
        start_checks.check_start(association(source=predicate), REFERENCE)
    for changes in (
        {"feature": of_user(nearest=False)},
        {"source": Region.where(lambda x: of_user(False)(x)[:, 0].abs() < 1.0)},
        {"features": features.positions()},
        {"features": features.Coordinates([(1, 0)])},
    ):
        with pytest.warns(UserWarning, match="box vector") as notes:
            start_checks.check_start(association(**changes), REFERENCE)
        assert len(notes) == 1


def test_one_molecule_in_a_box_is_left_in_peace() -> None:
    """Its features do not change when it is moved as a whole, of whatever kind they are."""
    system = ring()
    force = openmm.HarmonicBondForce()
    force.addBond(0, 1, 0.3, 1000.0)
    system.addForce(force)
    d = of_user(nearest=False)
    problem = Problem(
        system, [[0, 0, 0], [0.3, 0, 0]], source=Region.ball(d, [0.3], 0.1), target=Region.ball(d, [0.7], 0.1),
        temperature=300.0, friction=1.0, timestep=1e-4,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_checks.check_start(problem, REFERENCE)


@pytest.mark.parametrize("box", BOXES)
def test_a_structure_of_another_box_is_refused(box: str) -> None:
    """Walkers move in that of the System, which is a cube of 2 nm unless it is told."""
    system, topology = ring(), app.Topology()
    chain = topology.addChain()
    for _ in range(2):
        topology.addAtom("Ar", None, topology.addResidue("Ar", chain))
    cell = np.array(BOXES[box])
    system.setDefaultPeriodicBoxVectors(*cell)
    for scale, right in ((1.0, True), (1.0004, True), (1.01, False), (1.5, False)):
        topology.setPeriodicBoxVectors(scale * cell * unit.nanometer)
        if right:
            check_box(system, topology, "topology")
            continue
        with pytest.raises(InputError, match=r"topology: expected the box of the System, \[\["):
            association(system=system, topology=topology)
    topology.setPeriodicBoxVectors(0.1 * np.eye(3) * unit.nanometer)  # as files of molecules without a box have it
    check_box(system, topology, "topology")
    check_box(openmm.System(), topology, "topology")

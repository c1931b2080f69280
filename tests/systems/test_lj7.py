"""LJ7: minima against a closed form and every compact lattice cluster relaxed by another method; plain energies."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy_dynamics import Array, numerical_gradient
from oracles_lj7 import eyring_kramers, inertia, saddles, symmetry, vibrations
from scipy.optimize import root

from openmm_rlis.errors import InputError
from openmm_rlis.systems import lj7


def plain_energy(x: Array) -> float:
    """Return the energy of planar or spatial coordinates (7, 2 or 3), wall included, written out pair by pair."""
    total = 0.0
    for i, j in itertools.combinations(range(len(x)), 2):
        r = float(np.linalg.norm(x[i] - x[j]))
        total += 4.0 * (r**-12 - r**-6)
    out = np.linalg.norm((x - x.mean(axis=0))[:, :2], axis=1)
    return float(total + 50.0 * (np.maximum(0.0, out - 2.0) ** 2).sum())


def plain_gradient(flat: Array) -> Array:
    """Return the gradient of the Lennard-Jones part, (14,), pair by pair."""
    x = flat.reshape(7, 2)
    gradient = np.zeros((7, 2))
    for i, j in itertools.combinations(range(7), 2):
        d = x[i] - x[j]
        r = np.linalg.norm(d)
        push = 4.0 * (-12.0 * r**-14 + 6.0 * r**-8) * d
        gradient[i] += push
        gradient[j] -= push
    return gradient.reshape(-1)


def hessian(flat: Array) -> Array:
    return np.stack([(plain_gradient(flat + h) - plain_gradient(flat - h)) / 2e-5 for h in 1e-5 * np.eye(14)])


def compact_clusters() -> list[Array]:
    """Return all clusters of 7 sites of the triangular lattice with at least 11 neighbour pairs, (7, 2) each."""
    steps = [(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)]
    clusters = {frozenset([(0, 0)])}
    for _ in range(6):
        grown = {c | {(a + i, b + j)} for c in clusters for a, b in c for i, j in steps if (a + i, b + j) not in c}
        clusters = {frozenset((a - min(c)[0], b - min(c)[1]) for a, b in c) for c in grown}
    found = []
    for c in clusters:
        if sum((a + da, b + db) in c for a, b in c for da, db in steps[:3]) >= 11:
            found.append(np.array([(a + 0.5 * b, np.sqrt(0.75) * b) for a, b in sorted(c)]))
    return found


@pytest.fixture(scope="module")
def relaxed_energies() -> list[float]:
    """Return the distinct energies of the compact clusters, relaxed by root finding on the forces."""
    energies: list[float] = []
    for x in compact_clusters():
        r = np.linalg.norm(x[:, None] - x[None], axis=-1)
        kind = np.sort(r[np.triu_indices(7, 1)]).round(6)
        energies.append(float((4.0 * (kind**-12 - kind**-6)).sum()))
    unique: dict[float, Array] = {}
    for energy, x in zip(energies, compact_clusters(), strict=True):
        unique.setdefault(round(energy, 6), x)
    relaxed = []
    for x in unique.values():
        fit = root(plain_gradient, 1.11 * x.reshape(-1), jac=hessian, method="lm", tol=1e-14)
        assert np.abs(fit.fun).max() < 1e-9
        relaxed.append(plain_energy(fit.x.reshape(7, 2)))
    return sorted(relaxed)


def test_the_four_minima_are_those_of_an_independent_search(relaxed_energies: list[float]) -> None:
    assert len(relaxed_energies) == 4
    energies = [plain_energy(x) for x in lj7.minima().values()]
    np.testing.assert_allclose(energies, relaxed_energies, rtol=0, atol=1e-9)


def test_the_hexagon_has_its_energy_in_closed_form() -> None:
    # 12 pairs at r, 6 at sqrt(3) r, 3 at 2 r: E = 4 (A r^-12 - B r^-6), least at r^6 = 2 A / B, where it is -B^2 / A.
    a = 12 + 6 * 3.0**-6 + 3 * 2.0**-12
    b = 12 + 6 * 3.0**-3 + 3 * 2.0**-6
    x = lj7.minima()["C0"]
    assert plain_energy(x) == pytest.approx(-b * b / a, abs=1e-9)
    distances = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(7, 1)])
    r = (2 * a / b) ** (1 / 6)
    np.testing.assert_allclose(distances, np.repeat([r, np.sqrt(3) * r, 2 * r], [12, 6, 3]), atol=1e-6)


@pytest.mark.parametrize("name", lj7.NAMES)
def test_minima_are_stationary_stable_and_planar(name: str) -> None:
    x = lj7.minima()[name]
    assert (x[:, 2] == 0.0).all()
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-12)
    flat = x[:, :2].reshape(-1)
    assert np.abs(plain_gradient(flat)).max() < 1e-4
    curvatures = np.linalg.eigvalsh(hessian(flat))
    np.testing.assert_allclose(curvatures[:3], 0.0, atol=1e-3)  # two translations and one rotation
    assert curvatures[3] > 1.0


def test_energy_and_gradient_of_the_module() -> None:
    rng = np.random.default_rng(1)
    for x in lj7.minima().values():
        flat = (x[:, :2] + 0.05 * rng.standard_normal((7, 2))).reshape(-1)
        energy, gradient = lj7.energy_and_gradient(flat)
        assert energy == pytest.approx(plain_energy(flat.reshape(7, 2)), rel=1e-12)
        np.testing.assert_allclose(gradient, plain_gradient(flat), rtol=1e-10, atol=1e-9)


def test_openmm_has_the_same_energy_and_forces_wall_included() -> None:
    context = openmm.Context(
        lj7.make_system(), openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference")
    )
    rng = np.random.default_rng(2)
    for k, x in enumerate(lj7.minima().values()):
        x = x + 0.05 * rng.standard_normal((7, 3)) * [1, 1, 0]
        x[k, :2] *= 2.6  # drive one atom towards or through the wall
        context.setPositions(x)
        state = context.getState(getEnergy=True, getForces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(plain_energy(x), rel=1e-9)
        forces = state.getForces(asNumpy=True)._value
        np.testing.assert_allclose(forces, -numerical_gradient(plain_energy, x), rtol=1e-5, atol=1e-4)
    far = x.copy()
    far[0] = [5.0, 0.0, 0.0]
    assert plain_energy(far) - plain_energy(x) > 100.0


def test_regions_are_disjoint_and_each_minimum_lies_in_its_own() -> None:
    problem = lj7.build(source="C3", target="C2", others=("C0", "C1"))
    centers = [region.center.numpy() for region in problem.regions if region.center is not None]
    assert len(centers) == 4
    for a, b in itertools.combinations(centers, 2):
        assert np.linalg.norm(a - b) > 2 * 0.35
    structures = lj7.minima()
    labels = problem.label(np.stack([structures[name] for name in ("C3", "C2", "C0", "C1")]))
    assert labels.tolist() == [1, 2, 3, 4]
    assert [region.name for region in problem.regions] == ["C3", "C2", "C0", "C1"]


def test_labels_do_not_depend_on_numbering_orientation_or_mirror_image() -> None:
    problem = lj7.build()
    rng = np.random.default_rng(3)
    for name in lj7.NAMES:
        x = lj7.minima()[name]
        code = problem.label(x[None])[0]
        assert problem.regions[code - 1].name == name
        moved = []
        for _ in range(10):
            angle = rng.uniform(0.0, 2 * np.pi)
            turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
            moved.append(x[rng.permutation(7)] @ turn.T * [rng.choice([-1, 1]), 1, 1] + [*rng.uniform(-3, 3, 2), 0])
        assert (problem.label(np.stack(moved)) == code).all()
        np.testing.assert_allclose(lj7.plane(np.stack(moved)), np.tile(lj7.landmarks()[name], (10, 1)), atol=1e-9)


def test_what_is_far_from_every_minimum_lies_in_no_region() -> None:
    line = np.zeros((1, 7, 3))
    line[0, :, 0] = 1.1 * (np.arange(7) - 3)
    assert lj7.build().label(line).tolist() == [0]


def test_plane_is_the_central_moments_of_the_coordination_numbers() -> None:
    for name, x in lj7.minima().items():
        r = np.linalg.norm(x[:, None] - x[None], axis=-1)
        c = (1.0 / (1.0 + (r / 1.5) ** 8)).sum(axis=1) - 1.0
        expected = [((c - c.mean()) ** 2).mean(), ((c - c.mean()) ** 3).mean()]
        np.testing.assert_allclose(lj7.landmarks()[name], expected, atol=1e-10)
        np.testing.assert_allclose(
            lj7.coordination_feature()(torch.as_tensor(x[None]))[0].numpy(), np.sort(c), atol=1e-12
        )


def test_the_problem_is_planar_in_reduced_units() -> None:
    problem = lj7.build(beta=4.0, timestep=1e-4, lag_steps=5)
    assert problem.kT == pytest.approx(0.25, rel=1e-12)
    assert problem.lag_time == pytest.approx(5e-4, rel=1e-12)
    np.testing.assert_allclose(problem.mobility(), np.tile([1e-4, 1e-4, 0.0], (7, 1)), rtol=1e-12)
    assert problem.topology.getNumAtoms() == lj7.N_ATOMS == 7
    assert problem.recipe is not None
    again = lj7.build(**problem.recipe["options"])
    assert again.recipe == problem.recipe


def test_minima_are_the_callers_own_copies() -> None:
    lj7.minima()["C0"][:] = 99.0
    assert np.abs(lj7.minima()["C0"]).max() < 3.0


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"source": "C4"}, "source, target, others"),
        ({"target": "c2"}, "source, target, others"),
        ({"others": ("C0", "C9")}, "source, target, others"),
        ({"others": "C0,D1"}, "source, target, others"),
        ({"source": "C2"}, "source, target, others"),
        ({"others": ("C3",)}, "source, target, others"),
        ({"others": ("C0", "C0")}, "source, target, others"),
        ({"beta": 0.0}, "beta"),
        ({"beta": -1.0}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"radius": 0.0}, "radius"),
        ({"radius": 2.0}, "regions"),
        ({"timestep": -1e-5}, "timestep"),
        ({"lag_steps": 0}, "lag_steps"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InputError, match=rf"^{argument}: expected .*, got ") as caught:
        lj7.build(**options)
    assert "\n" not in str(caught.value)


def test_others_by_one_text_as_on_the_command_line() -> None:
    assert [region.name for region in lj7.build(others="C0,C1").others] == ["C0", "C1"]
    assert lj7.build(others="").others == ()


def test_two_saddles_join_c3_and_c2() -> None:
    # Energies and shares as published for this cluster (Eyring-Kramers 54 and 46 % at beta 9).
    low, high = saddles("C2", "C3")[:2]
    assert (low.energy, high.energy) == pytest.approx((-10.79804, -10.77140), abs=1e-4)
    assert np.abs([plain_gradient(s.x) for s in (low, high)]).max() < 1e-6
    forward, shares = eyring_kramers("C3", "C2", 9.0)
    backward, _ = eyring_kramers("C2", "C3", 9.0)
    assert shares == pytest.approx([0.54, 0.46], abs=0.01)
    # Detailed balance in the harmonic approximation: the ratio knows the two minima only.
    c3, c2 = (lj7.minima()[name][:, :2].ravel() for name in ("C3", "C2"))
    free = [np.prod(vibrations(m)) ** -0.5 * inertia(m) ** 0.5 / symmetry(m) for m in (c3, c2)]
    gap = lj7.energy_and_gradient(c2)[0] - lj7.energy_and_gradient(c3)[0]
    assert forward / backward == pytest.approx(free[1] / free[0] * np.exp(-9.0 * gap), rel=1e-6)
    assert (symmetry(c3), symmetry(c2), symmetry(lj7.minima()["C0"][:, :2].ravel())) == (2, 1, 12)

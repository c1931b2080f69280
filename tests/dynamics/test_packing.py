"""Replicas: packed copies against the same copies one by one, for every force class that can be packed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
from numpy_dynamics import Array, numerical_gradient

from openmm_rlis.dynamics import packing
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.packing import can_pack, pack
from openmm_rlis.errors import InputError
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region

N_ATOMS, N_COPIES = 6, 3
SHAPE = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.15, 0], [0.35, 0.17, 0.05], [0.4, 0.3, 0.1], [0.5, 0.25, 0.25]])
PLATFORM = openmm.Platform.getPlatformByName("Reference")


def harmonic_bond() -> openmm.Force:
    force = openmm.HarmonicBondForce()
    force.addBond(0, 1, 0.14, 500.0)
    force.addBond(3, 1, 0.2, 300.0)
    return force


def harmonic_angle() -> openmm.Force:
    force = openmm.HarmonicAngleForce()
    force.addAngle(0, 1, 2, 1.8, 40.0)
    force.addAngle(5, 3, 4, 2.1, 20.0)
    return force


def periodic_torsion() -> openmm.Force:
    force = openmm.PeriodicTorsionForce()
    force.addTorsion(0, 1, 2, 3, 3, 0.4, 5.0)
    force.addTorsion(5, 4, 2, 1, 1, 1.1, 7.0)
    return force


def rb_torsion() -> openmm.Force:
    force = openmm.RBTorsionForce()
    force.addTorsion(0, 1, 2, 3, 1.0, -2.0, 0.5, 3.0, -0.7, 0.2)
    return force


def custom_bond() -> openmm.Force:
    force = openmm.CustomBondForce("strength*k*(r-0.2)^3")
    force.addGlobalParameter("strength", 1.7)
    force.addPerBondParameter("k")
    force.addBond(0, 5, [40.0])
    force.addBond(2, 4, [-30.0])
    return force


def custom_angle() -> openmm.Force:
    force = openmm.CustomAngleForce("k*(cos(theta)-0.3)^2")
    force.addPerAngleParameter("k")
    force.addAngle(1, 2, 3, [11.0])
    return force


def custom_torsion() -> openmm.Force:
    force = openmm.CustomTorsionForce("k*sin(theta-t0)")
    for name in ("k", "t0"):
        force.addPerTorsionParameter(name)
    force.addTorsion(1, 2, 3, 4, [6.0, 0.7])
    return force


def custom_external() -> openmm.Force:
    force = openmm.CustomExternalForce("w*(x^2 + 2*y + x*z)")
    force.addPerParticleParameter("w")
    force.addParticle(1, [3.0])
    force.addParticle(5, [-2.0])
    return force


def custom_compound_bond() -> openmm.Force:
    force = openmm.CustomCompoundBondForce(3, "table(k*distance(p1,p2)*distance(p2,p3)) + x1*y3")
    force.addPerBondParameter("k")
    force.addTabulatedFunction("table", openmm.Continuous1DFunction([0.0, 1.0, -1.0, 2.0, 0.5], 0.0, 2.0))
    force.addBond([0, 2, 5], [3.0])
    force.addBond([4, 1, 3], [5.0])
    return force


def custom_centroid_bond() -> openmm.Force:
    force = openmm.CustomCentroidBondForce(2, "k*(distance(g1,g2)-0.1)^2 + x1*z2")
    force.addPerBondParameter("k")
    force.addGroup([0, 1, 4])
    force.addGroup([2, 3], [0.3, 1.5])
    force.addGroup([5])
    force.addBond([0, 1], [80.0])
    force.addBond([2, 0], [20.0])
    return force


def custom_nonbonded() -> openmm.Force:
    force = openmm.CustomNonbondedForce("screening*q1*q2*exp(-r/0.3)*(1 + (s1+s2)*r)")
    force.addGlobalParameter("screening", 2.5)
    for name in ("q", "s"):
        force.addPerParticleParameter(name)
    for i in range(N_ATOMS):
        force.addParticle([1.0 + 0.3 * i, 0.1 * i])
    force.addExclusion(0, 1)
    force.addExclusion(4, 2)
    return force


def nonbonded() -> openmm.Force:
    force = openmm.NonbondedForce()
    for i in range(N_ATOMS):
        force.addParticle((-1) ** i * 0.2 * (i + 1), 0.15 + 0.02 * i, 0.3 * (i % 3))
    force.addException(0, 1, 0.0, 0.1, 0.0)
    force.addException(4, 2, 0.07, 0.18, 0.4)
    return force


FORCES: dict[str, Callable[[], openmm.Force]] = {
    make().__class__.__name__: make
    for make in (
        harmonic_bond,
        harmonic_angle,
        periodic_torsion,
        rb_torsion,
        custom_bond,
        custom_angle,
        custom_torsion,
        custom_external,
        custom_compound_bond,
        custom_centroid_bond,
        custom_nonbonded,
        nonbonded,
    )
}


def system_of(*forces: openmm.Force) -> openmm.System:
    system = openmm.System()
    for i in range(N_ATOMS):
        system.addParticle([12.0, 1.0, 0.0, 14.0, 16.0, 2.0][i])
    for force in forces:
        system.addForce(force)
    return system


def everything() -> openmm.System:
    return system_of(*[make() for make in FORCES.values()])


def copies(n: int, seed: int = 3) -> Array:
    return SHAPE + 0.03 * np.random.default_rng(seed).standard_normal((n, N_ATOMS, 3))


def energy_and_forces(system: openmm.System, x: Array) -> tuple[float, Array]:
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), PLATFORM)
    context.setPositions(x.reshape(-1, 3))
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value.reshape(x.shape)


def test_every_force_class_that_can_be_packed_is_tested_here() -> None:
    assert {kind.__name__ for kind in packing._COPIERS} == set(FORCES)


@pytest.mark.parametrize("name", [*FORCES, "everything"])
def test_packed_copies_have_the_energies_and_forces_of_single_ones(name: str) -> None:
    system = everything() if name == "everything" else system_of(FORCES[name]())
    assert can_pack(system)
    x = copies(N_COPIES)
    singles = [energy_and_forces(system, row) for row in x]
    energy, forces = energy_and_forces(pack(system, N_COPIES), x)
    assert min(abs(e) for e, _ in singles) > 1e-3
    assert energy == pytest.approx(sum(e for e, _ in singles), rel=1e-7)
    # OpenMM's NonbondedForce has one digit more of the Coulomb constant than its pairwise copy.
    scale = max(float(np.abs(f).max()) for _, f in singles)
    np.testing.assert_allclose(forces, np.stack([f for _, f in singles]), rtol=1e-6, atol=1e-7 * scale)


@pytest.mark.parametrize("name", list(FORCES))
def test_packed_forces_are_minus_the_gradient_of_the_packed_energy(name: str) -> None:
    context = openmm.Context(pack(system_of(FORCES[name]()), 2), openmm.VerletIntegrator(1.0), PLATFORM)

    def energy(x: Array) -> float:
        context.setPositions(x.reshape(-1, 3))
        return float(context.getState(getEnergy=True).getPotentialEnergy()._value)

    x = copies(2)
    context.setPositions(x.reshape(-1, 3))
    forces = context.getState(getForces=True).getForces(asNumpy=True)._value.reshape(x.shape)
    scale = float(np.abs(forces).max())
    np.testing.assert_allclose(-numerical_gradient(energy, x, 1e-6), forces, rtol=1e-6, atol=1e-6 * scale)


def test_copies_do_not_see_each_other() -> None:
    packed = pack(everything(), 2)
    x = copies(2)
    _, forces = energy_and_forces(packed, x)
    moved = x.copy()
    moved[1] += 0.04 * np.random.default_rng(5).standard_normal((N_ATOMS, 3))
    _, after = energy_and_forces(packed, moved)
    np.testing.assert_allclose(after[0], forces[0], rtol=0, atol=1e-9)
    assert np.abs(after[1] - forces[1]).max() > 1.0


def test_masses_and_particle_order_are_those_of_the_copies() -> None:
    system = everything()
    masses = [system.getParticleMass(i) for i in range(N_ATOMS)]
    packed = pack(system, 4)
    assert [packed.getParticleMass(i) for i in range(packed.getNumParticles())] == masses * 4


def test_one_copy_is_a_copy_and_not_the_system_itself() -> None:
    system = everything()
    single = pack(system, 1)
    assert energy_and_forces(single, SHAPE)[0] == pytest.approx(energy_and_forces(system, SHAPE)[0], rel=1e-12)
    single.setParticleMass(0, 99.0)
    assert system.getParticleMass(0)._value == 12.0


def cutoff_nonbonded(method: int) -> openmm.Force:
    force = nonbonded()
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.9)
    return force


def cutoff_custom_nonbonded() -> openmm.Force:
    force = custom_nonbonded()
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    return force


def interaction_group() -> openmm.Force:
    force = custom_nonbonded()
    force.addInteractionGroup([0, 1], [2, 3])
    return force


def parameter_offset() -> openmm.Force:
    force = nonbonded()
    force.addGlobalParameter("charging", 0.5)
    force.addParticleParameterOffset("charging", 0, 0.3, 0.0, 0.0)
    return force


def periodic_bond() -> openmm.Force:
    force = harmonic_bond()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def implicit_solvent() -> openmm.Force:
    force = openmm.GBSAOBCForce()
    for i in range(N_ATOMS):
        force.addParticle(0.1 * (-1) ** i, 0.15, 0.8)
    return force


UNPACKABLE: dict[str, Callable[[], openmm.Force]] = {
    "cutoff": lambda: cutoff_nonbonded(openmm.NonbondedForce.CutoffNonPeriodic),
    "PME": lambda: cutoff_nonbonded(openmm.NonbondedForce.PME),
    "custom cutoff": cutoff_custom_nonbonded,
    "interaction group": interaction_group,
    "parameter offset": parameter_offset,
    "periodic bond": periodic_bond,
    "implicit solvent": implicit_solvent,
}


@pytest.mark.parametrize("name", list(UNPACKABLE))
def test_what_cannot_be_packed_says_so_and_runs_one_walker_a_context(name: str) -> None:
    system = system_of(harmonic_bond(), UNPACKABLE[name]())
    assert not can_pack(system)
    with pytest.raises(InputError, match=r"^system: expected forces without cutoff that can be packed, got \w+; run"):
        pack(system, 2)
    problem = Problem(
        system,
        SHAPE,
        source=Region.where(lambda x: x[:, 0, 0] < 5.0),
        target=Region.where(lambda x: x[:, 0, 0] > 9.0),
        temperature=1e-12,
        friction=1.0,
        timestep=1e-6,
        lag_steps=1,
    )
    engine = Engine(problem, platform="Reference")
    assert not engine.packed
    x = copies(3)
    moved, log_weights = engine.propagate(x)
    assert (log_weights == 0.0).all()
    # Without noise a step is the drift alone, a F, with the force of each walker on its own.
    drift = np.stack([energy_and_forces(system, row)[1] for row in x]) * problem.mobility()
    assert np.abs(drift).max() > 1e-6
    np.testing.assert_allclose(moved - x, drift, rtol=1e-6, atol=1e-8)


def test_large_systems_are_not_packed() -> None:
    system = openmm.System()
    for _ in range(packing.MAX_PACKED_ATOMS + 1):
        system.addParticle(1.0)
    assert not can_pack(system)


@pytest.mark.parametrize("n_copies", [0, -2])
def test_no_copies_are_refused(n_copies: int) -> None:
    with pytest.raises(InputError, match="n_copies: expected 1 or more, got"):
        pack(everything(), n_copies)

"""Parts of a System that Brownian dynamics cannot have: all in one line; and the one that is left out."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import openmm
import pytest

from openmm_rlis.errors import InputError
from openmm_rlis.openmm_system.obstacles import brownian_system


def system_of(*masses: float) -> openmm.System:
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    return system


def with_forces(*forces: openmm.Force) -> openmm.System:
    system = system_of(1.0, 2.0)
    for force in forces:
        system.addForce(force)
    return system


def refused(system: openmm.System) -> str:
    with pytest.raises(InputError) as caught:
        brownian_system(system)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_system_without_obstacles_is_itself() -> None:
    system = with_forces(openmm.HarmonicBondForce())
    assert brownian_system(system) is system


def test_the_centre_of_mass_remover_is_left_out_of_a_copy_with_a_note() -> None:
    bond, inside = openmm.HarmonicBondForce(), openmm.CustomCVForce("2*d")
    bond.addBond(0, 1, 0.2, 30.0)
    distance = openmm.CustomBondForce("r")
    distance.addBond(0, 1, [])
    inside.addCollectiveVariable("d", distance)
    system = with_forces(*map(copy.copy, (openmm.CMMotionRemover(), bond, openmm.CMMotionRemover(10), inside)))
    before = openmm.XmlSerializer.serialize(system)
    with pytest.warns(UserWarning, match="its CMMotionRemover is left out") as notes:
        clean = brownian_system(system)
    assert len(notes) == 1 and openmm.XmlSerializer.serialize(system) == before
    plain = with_forces(bond, inside)
    assert openmm.XmlSerializer.serialize(clean) == openmm.XmlSerializer.serialize(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert brownian_system(clean) is clean


def test_beside_a_program_the_remover_is_refused() -> None:
    """Such forces do not come through XML, so there would be no faithful copy."""

    def compute(state: openmm.State) -> tuple[float, object]:
        raise AssertionError("nothing is computed here")

    if not hasattr(openmm, "PythonForce"):
        pytest.skip("this OpenMM has no PythonForce")

    def nested() -> openmm.Force:
        force = openmm.CustomCVForce("c")
        force.addCollectiveVariable("c", openmm.PythonForce(compute))
        return force

    for make in (lambda: openmm.PythonForce(compute), nested):
        said = refused(with_forces(openmm.HarmonicBondForce(), make(), openmm.CMMotionRemover()))
        assert said.endswith("remove it: system.removeForce(2)") and "CMMotionRemover beside a" in said
        brownian_system(with_forces(make()))


def test_all_obstacles_are_in_one_message() -> None:
    system = system_of(1.0, math.nan, 2.0, 0.0, -3.0)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 2, 0.5, 0.5))
    system.addConstraint(0, 2, 0.1)
    for force in (openmm.MonteCarloBarostat(1.0, 300.0), openmm.AndersenThermostat(300.0, 1.0), openmm.DrudeForce()):
        system.addForce(force)
    said = refused(system)
    parts = ("MonteCarloBarostat", "AndersenThermostat", "DrudeForce", "virtual sites (1)", "constraints=", "masses")
    assert said.startswith("system: 6 parts that Brownian dynamics cannot have: (1) expected ")
    assert all(part in said for part in parts) and all(f"({i}) expected" in said for i in range(1, 7))


@pytest.mark.parametrize("mass", [math.nan, math.inf, -math.inf, -1.0])
def test_masses_that_are_none_are_refused(mass: float) -> None:
    said = refused(system_of(1.0, mass, mass))
    assert f"masses that are finite and not negative, got {mass} of particle 1 and of 1 more" in said


def drude() -> openmm.System:
    system, force = system_of(1.0, 0.4), openmm.DrudeForce()
    force.addParticle(1, 0, -1, -1, -1, 1.0, 1e-3, 1.0, 1.0)
    system.addForce(force)
    return system


def rpmd() -> openmm.System:
    return with_forces(openmm.RPMDMonteCarloBarostat(1.0))


@pytest.mark.parametrize(("system", "named"), [(drude, "a DrudeForce"), (rpmd, "constant volume"), (system_of, "none")])
def test_others_that_are_refused(system: Callable[[], openmm.System], named: str) -> None:
    assert named in refused(system())

"""Parameters: a user's global parameters are the user's, whatever their names and those of the integrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from numpy_dynamics import random_value
from systems_1d import ONE_KT

from openmm_rlis import Problem, Region
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics import propagators
from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.propagators import IntegratorPropagator, StepwisePropagator, make_mover
from openmm_rlis.errors import InputError
from openmm_rlis.openmm_system.global_parameters import check_defaults, global_parameters, shadow_integrator
from openmm_rlis.sampling import run as sampler

REFERENCE = openmm.Platform.getPlatformByName("Reference")
OWN = ("a", "s", "u", "sum_even", "sum_odd")
"""Names that the integrator's variables once had."""
OPENMM_HAS = ("x", "v", "f", "m", "f0", "f31", "energy", "energy0", "gaussian", "uniform", "kT", "step", "pi")


def system_of(name: str, second: float | None = None) -> openmm.System:
    """Return a particle about a fixed one, at a distance r with two wells of height `name`."""
    system = openmm.System()
    system.addParticle(1.0)
    system.addParticle(0.0)
    for energy, value in ((f"{name}*((r-2)^2-1)^2", 3.0), (f"0.1*{name}*r", second)):
        if value is not None:
            force = openmm.CustomBondForce(energy)
            force.addGlobalParameter(name, value)
            force.addBond(0, 1, [])
            system.addForce(force)
    return system


def problem_of(system: openmm.System, **options: Any) -> Problem:
    return Problem(
        system, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], source=Region.where(lambda x: x[:, 0, 0] < 1.3, "A"),
        target=Region.where(lambda x: x[:, 0, 0] > 2.7, "B"), temperature=ONE_KT, friction=1.0, timestep=0.005,
        lag_steps=5, dimensions=1, **options,
    )  # fmt: skip


def walked(name: str, n: int, platform: str | None = "Reference") -> list[np.ndarray[Any, Any]]:
    problem = problem_of(system_of(name))
    engine = Engine(problem, platform=platform, bias=Bias(random_value(problem, 1), hold_steps=2, backend="python"))
    engine.reseed(np.random.default_rng(1))
    x = np.repeat(problem.positions[None], n, axis=0)
    found = [*engine.propagate(x), *engine.propagate_with_noise(x), *engine.propagate(x, biased=True)]
    assert all(np.isfinite(array).all() for array in found)
    return found


@pytest.mark.parametrize("n", [4, 500])
@pytest.mark.parametrize("name", [*OWN, *OPENMM_HAS])
def test_a_walk_does_not_depend_on_the_name_of_a_parameter(name: str, n: int) -> None:
    """To the digit, biased or not, in a program and in a stepper."""
    for got, expected in zip(walked(name, n), walked("k", n), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["dt", "rlis_a", "rlis_sum_odd"])
def test_names_that_an_integrator_would_take_for_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMM puts the length of a lag into a force's `dt`, without a word: such Systems get a stepper."""
    assert isinstance(make_mover(problem_of(system_of(name)), 4, "plain", REFERENCE, None), StepwisePropagator)
    assert isinstance(make_mover(problem_of(system_of("k")), 4, "plain", REFERENCE, None), IntegratorPropagator)
    got = walked(name, 20)
    monkeypatch.setattr(propagators, "STEPPER_FROM", dict.fromkeys(propagators.KINDS, 0))
    for mine, expected in zip(got, walked("k", 20), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_on_a_gpu_more_names_are_kept_apart() -> None:
    for name in OPENMM_HAS[:10]:
        assert shadow_integrator(system_of(name), on_gpu=True) and not shadow_integrator(system_of(name), on_gpu=False)
    assert not any(shadow_integrator(system_of(name), on_gpu=True) for name in (*OWN, "kT", "x1", "fx", "lambda"))


def test_two_defaults_of_one_parameter_are_refused() -> None:
    check_defaults(system_of("k", 3.0))
    wanted = (
        r"^system: expected one default value of a global parameter, which all forces share, got 3 \(CustomBondForce\) "
        r"and 8 \(CustomBondForce\) for 'k'; give both the same, or rename one$"
    )
    with pytest.raises(InputError, match=wanted):
        problem_of(system_of("k", 8.0))


def test_parameters_of_every_kind_of_force_are_seen() -> None:
    system, inner = openmm.System(), openmm.CustomExternalForce("q*x")
    system.addParticle(1.0)
    inner.addGlobalParameter("q", 2.0)
    inner.addParticle(0, [])
    outer, charges = openmm.CustomCVForce("p*c"), openmm.NonbondedForce()
    outer.addGlobalParameter("p", 1.0)
    outer.addCollectiveVariable("c", inner)
    charges.addParticle(0.0, 1.0, 0.0)
    charges.addGlobalParameter("scale", 0.5)
    for force in (outer, charges):
        system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), REFERENCE)
    assert {name: value for name, value, _ in global_parameters(system)} == dict(context.getParameters())


def test_the_reciprocal_part_of_a_force_in_another_group_acts() -> None:
    """A System made for multiple time steps: the mesh part of the electrostatics stands in a group of its own."""
    moved = []
    for group in (-1, 1, 31):
        system, force = openmm.System(), openmm.NonbondedForce()
        system.setDefaultPeriodicBoxVectors([2, 0, 0], [0, 2, 0], [0, 0, 2])
        for charge in (1.0, -1.0):
            system.addParticle(1.0)
            force.addParticle(charge, 0.2, 0.0)
        force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
        force.setCutoffDistance(0.9)
        force.setForceGroup(2)
        force.setReciprocalSpaceForceGroup(group)
        system.addForce(force)
        problem = Problem(
            system, [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0]], source=Region.where(lambda x: x[:, 0, 0] < 1.0, "A"),
            target=Region.where(lambda x: x[:, 0, 0] > 1.5, "B"), temperature=1e-9, friction=1.0, timestep=1e-3,
            lag_steps=1, dimensions=1,
        )  # fmt: skip
        moved.append(Engine(problem, platform="Reference").propagate(problem.positions[None])[0])
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), REFERENCE)
    context.setPositions(problem.positions)
    expected = 1e-3 * context.getState(getForces=True).getForces(asNumpy=True)._value[:, 0]
    for x in moved:
        np.testing.assert_allclose(x[0, :, 0] - problem.positions[:, 0], expected, rtol=1e-3)


@pytest.mark.slow
def test_the_rate_does_not_depend_on_the_name_of_a_parameter(tmp_path: Path) -> None:
    """To the digit; brute force."""
    rates = set()
    for name in ("k", "a", "s"):
        result = sampler.brute(problem_of(system_of(name)), tmp_path / name, seed=1, target_relative_error=0.5)
        rates.add((result.rate.value, result.rate.standard_error))
    assert len(rates) == 1 and min(rates)[0] > 0.0


@pytest.mark.slow
def test_the_biased_rate_does_not_depend_on_the_name_of_a_parameter(tmp_path: Path) -> None:
    """To the digit."""
    settings, rates = Settings(bias_scale=0.5, learning_rounds=1), set()
    for name in ("k", "a", "u"):
        problem = problem_of(system_of(name))
        result = sampler.run(problem, tmp_path / name, seed=1, target_relative_error=0.5, settings=settings)
        rates.add((result.rate.value, result.rate.standard_error))
    assert len(rates) == 1 and min(rates)[0] > 0.0

"""Integrators: recorded steps against Euler-Maruyama by hand, log-weights against the two transition densities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
import pytest
from numpy_dynamics import (
    KT,
    MASSES,
    START,
    TIMESTEP,
    Array,
    add_bias,
    bias_forces,
    forces,
    make_system,
    mobility,
    numerical_gradient,
    path_log_weight,
)

from openmm_rlis.dynamics.integrators import BIAS_GROUP, brownian, set_coefficients
from openmm_rlis.errors import InputError

PLATFORM = openmm.Platform.getPlatformByName("Reference")


@dataclass
class Recorded:
    """One lag: positions (n_steps + 1, 3, 3), the gaussians that moved them, and ln dP/dQ per degree of freedom."""

    path: Array
    noise: Array
    log_weights: Array


def instrumented(program: openmm.CustomIntegrator) -> openmm.CustomIntegrator:
    """Return the same program with every position and every gaussian written down."""
    copy = openmm.CustomIntegrator(program.getStepSize())
    copy.setIntegrationForceGroups(program.getIntegrationForceGroups())
    for i in range(program.getNumPerDofVariables()):
        copy.addPerDofVariable(program.getPerDofVariableName(i), 0.0)
    n_positions = n_gaussians = 0
    for i in range(program.getNumComputations()):
        kind, variable, expression = program.getComputationStep(i)
        assert kind == openmm.CustomIntegrator.ComputePerDof
        copy.addComputePerDof(variable, expression)
        if expression.endswith("+ gaussian"):
            copy.addPerDofVariable(f"noise{n_gaussians}", 0.0)
            copy.addComputePerDof(f"noise{n_gaussians}", f"{variable} - {expression.split()[0]}")
            n_gaussians += 1
        if variable == "x":
            copy.addPerDofVariable(f"path{n_positions}", 0.0)
            copy.addComputePerDof(f"path{n_positions}", "x")
            n_positions += 1
    return copy


def record(lag_steps: int, hold_steps: int, strength: float, seed: int) -> Recorded:
    system = make_system()
    add_bias(system, BIAS_GROUP, strength)
    integrator = instrumented(brownian(TIMESTEP, lag_steps, hold_steps, biased=True))
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, PLATFORM)
    set_coefficients(integrator, mobility(), KT)
    context.setPositions(START)
    integrator.step(1)
    state = context.getState(getPositions=True, getVelocities=True)

    def series(name: str) -> Array:
        tables = [integrator.getPerDofVariableByName(f"{name}{k}") for k in range(lag_steps)]
        return np.array([[tuple(row) for row in table] for table in tables])

    path = series("path")
    np.testing.assert_array_equal(path[-1][MASSES > 0], state.getPositions(asNumpy=True)._value[MASSES > 0])
    # OpenMM keeps no per-DOF variable of a particle without mass.
    path[:, MASSES == 0] = START[MASSES == 0]
    return Recorded(np.concatenate([START[None], path]), series("noise"), state.getVelocities(asNumpy=True)._value)


def test_the_forces_written_by_hand_are_those_of_openmm() -> None:
    system = make_system()
    add_bias(system, BIAS_GROUP)
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), PLATFORM)
    context.setPositions(START)
    for groups, by_hand in ((1 << 0, forces), (1 << BIAS_GROUP, bias_forces)):
        found = context.getState(getForces=True, groups=groups).getForces(asNumpy=True)._value
        np.testing.assert_allclose(found, by_hand(START), rtol=1e-10, atol=1e-12)

        def energy(x: Array, groups: int = groups) -> float:
            context.setPositions(x)
            return float(context.getState(getEnergy=True, groups=groups).getPotentialEnergy()._value)

        np.testing.assert_allclose(by_hand(START), -numerical_gradient(energy, START), atol=1e-7)
        context.setPositions(START)


@pytest.mark.parametrize(("lag_steps", "hold_steps"), [(1, 1), (20, 1), (20, 5), (20, 20), (23, 5), (7, 20)])
def test_log_weight_is_the_ratio_of_the_two_path_densities(lag_steps: int, hold_steps: int) -> None:
    for seed in (1, 2, 3):
        run = record(lag_steps, hold_steps, 1.0, seed)
        expected = path_log_weight(run.path, (mobility(), KT), forces, bias_forces, hold_steps)
        assert abs(expected) > 1e-4
        assert run.log_weights.sum() == pytest.approx(expected, abs=1e-9)


def test_holding_is_told_apart_from_not_holding() -> None:
    run = record(20, 5, 1.0, seed=4)
    fresh = path_log_weight(run.path, (mobility(), KT), forces, bias_forces, 1)
    assert abs(run.log_weights.sum() - fresh) > 1e-4


@pytest.mark.parametrize("hold_steps", [1, 5, 20])
def test_zero_bias_has_weight_exactly_one_and_walks_as_without_bias(hold_steps: int) -> None:
    run = record(23, hold_steps, 0.0, seed=5)
    assert (run.log_weights == 0.0).all()
    a = mobility()
    unbiased = run.path[:-1] + a * forces(run.path[:-1]) + np.sqrt(2.0 * KT * a) * run.noise
    np.testing.assert_allclose(run.path[1:], unbiased, rtol=0, atol=1e-13)


def test_what_is_frozen_neither_moves_nor_weighs() -> None:
    run = record(20, 5, 1.0, seed=6)
    assert (run.path[:, :, 2] == START[:, 2]).all()
    assert (run.log_weights[:, 2] == 0.0).all()
    assert (run.log_weights[MASSES == 0] == 0.0).all()
    assert (run.log_weights[MASSES > 0, :2] != 0.0).all()


def test_without_bias_force_group_31_is_not_evaluated() -> None:
    system = make_system()
    add_bias(system, BIAS_GROUP, strength=1e6)
    integrator = brownian(TIMESTEP, 5)
    context = openmm.Context(system, integrator, PLATFORM)
    set_coefficients(integrator, mobility(), 0.0)
    context.setPositions(START)
    integrator.step(1)
    x = START
    for _ in range(5):
        x = x + mobility() * forces(x)
    np.testing.assert_allclose(context.getState(getPositions=True).getPositions(asNumpy=True)._value, x, atol=1e-12)


def test_one_call_advances_the_clock_by_one_lag() -> None:
    assert brownian(TIMESTEP, 23, 5, biased=True).getStepSize()._value == pytest.approx(23 * TIMESTEP, rel=1e-12)


@pytest.mark.parametrize(("lag_steps", "hold_steps"), [(0, 1), (1, 0), (-3, 1)])
def test_lag_and_hold_below_one_are_refused(lag_steps: int, hold_steps: int) -> None:
    with pytest.raises(InputError, match="lag_steps, hold_steps: expected 1 or more"):
        brownian(TIMESTEP, lag_steps, hold_steps, biased=True)

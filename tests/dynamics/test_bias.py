"""Bias: every backend against the value function by finite differences, and the backends against each other."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import openmm
import pytest
import torch
from numpy_dynamics import Array, make_problem, numerical_gradient, random_value
from torch import Tensor

from openmm_rlis import features
from openmm_rlis.dynamics import bias
from openmm_rlis.dynamics.bias import BACKENDS, Bias, backend_status, bias_force, default_backend, scriptable
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.integrators import BIAS_GROUP
from openmm_rlis.errors import BackendError, InputError
from openmm_rlis.problem import Problem
from openmm_rlis.systems import lj7
from openmm_rlis.value_function import ValueFunction

KT, SCALE, N_COPIES = 1.7, 0.6, 3
STATUS = backend_status()
WORKING = [name for name in BACKENDS if not STATUS[name]]
BACKEND_CASES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(why), reason=f"backend {name}: {why}"))
    for name, why in STATUS.items()
]


def value_for(kind: str) -> tuple[ValueFunction, Array]:
    """Return a value function on one kind of feature and structures (n_copies, n_atoms, 3)."""
    problem = lj7.build() if kind == "coordination" else make_problem(1)
    if kind == "dihedrals":
        problem = lj7.build()
        problem.features = features.dihedrals([(0, 1, 2, 3), (6, 5, 4, 2)]).double()
    noise = np.random.default_rng(11).standard_normal((N_COPIES, *problem.positions.shape))
    return random_value(problem, seed=8), problem.positions + 0.1 * noise


def context_of(value: ValueFunction, x: Array, backend: str, scale: float = SCALE) -> openmm.Context:
    system = openmm.System()
    for _ in range(x.shape[0] * x.shape[1]):
        system.addParticle(1.0)
    system.addForce(bias_force(value, x.shape[1], x.shape[0], KT, scale, backend))
    context = openmm.Context(system, openmm.VerletIntegrator(1.0), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(x.reshape(-1, 3))
    return context


def energy_and_forces(context: openmm.Context, shape: tuple[int, ...]) -> tuple[float, Array]:
    state = context.getState(getEnergy=True, getForces=True, groups=1 << BIAS_GROUP)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value.reshape(shape)


@pytest.mark.parametrize("backend", BACKEND_CASES)
@pytest.mark.parametrize("kind", ["distances", "coordination", "dihedrals"])
def test_force_is_twice_the_thermal_energy_times_the_gradient_of_log_value(backend: str, kind: str) -> None:
    value, x = value_for(kind)
    energy, forces = energy_and_forces(context_of(value, x, backend), x.shape)
    assert energy == pytest.approx(-2.0 * SCALE * KT * value.log_value(x).sum(), rel=1e-12)
    for copy in range(N_COPIES):
        gradient = numerical_gradient(lambda y: float(value.log_value(y[None])[0]), x[copy])
        assert np.abs(gradient).max() > 1e-2
        np.testing.assert_allclose(forces[copy], 2.0 * SCALE * KT * gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKEND_CASES)
def test_force_is_minus_the_gradient_of_the_energy_openmm_reports(backend: str) -> None:
    value, x = value_for("distances")
    context = context_of(value, x, backend)

    def energy(y: Array) -> float:
        context.setPositions(y.reshape(-1, 3))
        return float(context.getState(getEnergy=True).getPotentialEnergy()._value)

    forces = energy_and_forces(context, x.shape)[1]
    np.testing.assert_allclose(forces, -numerical_gradient(energy, x), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(len(WORKING) < 2, reason=f"only one backend works here: {STATUS}")
@pytest.mark.parametrize("kind", ["distances", "coordination", "dihedrals"])
def test_backends_agree(kind: str) -> None:
    value, x = value_for(kind)
    found = [energy_and_forces(context_of(value, x, backend), x.shape) for backend in WORKING]
    for (energy, forces), (other_energy, other_forces) in itertools.combinations(found, 2):
        assert energy == pytest.approx(other_energy, rel=1e-9)
        np.testing.assert_allclose(forces, other_forces, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKEND_CASES)
def test_scale_zero_is_no_force(backend: str) -> None:
    value, x = value_for("distances")
    assert (energy_and_forces(context_of(value, x, backend, scale=0.0), x.shape)[1] == 0.0).all()


def test_copies_are_biased_one_by_one() -> None:
    value, x = value_for("coordination")
    packed = energy_and_forces(context_of(value, x, WORKING[0]), x.shape)[1]
    singles = [energy_and_forces(context_of(value, row[None], WORKING[0]), (1, *row.shape))[1][0] for row in x]
    np.testing.assert_allclose(packed, np.stack(singles), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", [-0.1, 1.0001, float("nan")])
def test_scale_outside_zero_to_one_is_refused(scale: float) -> None:
    value, x = value_for("distances")
    with pytest.raises(InputError, match="bias_scale: expected a number from 0 to 1, got"):
        bias_force(value, x.shape[1], 1, KT, scale, "python")


def test_unknown_backend_is_refused() -> None:
    value, x = value_for("distances")
    with pytest.raises(InputError, match="backend: expected one of torch, python-torch, python, got 'jax'"):
        bias_force(value, x.shape[1], 1, KT, 1.0, "jax")


@pytest.mark.parametrize("backend", [name for name in BACKENDS if STATUS[name]])
def test_backend_that_does_not_work_says_why(backend: str) -> None:
    value, x = value_for("distances")
    with pytest.raises(BackendError, match=f"backend '{backend}' does not"):
        bias_force(value, x.shape[1], 1, KT, 1.0, backend)


def test_default_is_the_first_backend_that_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert default_backend() == WORKING[0]
    monkeypatch.setattr(bias, "backend_status", lambda: {"torch": "no library", "python-torch": "none", "python": ""})
    assert default_backend() == "python"
    assert "openmm-torch does not load (no library): using the python backend" in caplog.text
    monkeypatch.setattr(bias, "backend_status", lambda: dict.fromkeys(BACKENDS, "broken"))
    with pytest.raises(BackendError, match="torch: broken; python-torch: broken; python: broken"):
        default_backend()


@pytest.mark.parametrize("kind", ["distances", "coordination", "dihedrals"])
def test_the_features_of_this_package_travel_into_torch_force(kind: str) -> None:
    value, x = value_for(kind)
    assert scriptable(value, x.shape[1])


def callable_problem() -> Problem:
    def first_x(x: Tensor) -> Tensor:
        return torch.stack(list(map(operator.itemgetter((slice(None), 0)), x)))

    problem = make_problem(2)
    problem.features = features.as_feature(first_x)
    return problem


@pytest.mark.skipif(bool(STATUS["torch"]), reason=f"backend torch: {STATUS['torch']}")
def test_a_callable_that_cannot_travel_into_torch_force_is_run_by_the_python_backend() -> None:
    problem = callable_problem()
    value = random_value(problem, seed=2)
    assert not scriptable(value, problem.n_atoms)
    assert scriptable(*(random_value(make_problem(1), seed=2), 3))
    with pytest.raises(BackendError, match="features that TorchScript can compile"):
        bias_force(value, problem.n_atoms, 1, KT, 1.0, "torch")
    engine = Engine(problem, n_slots=4, bias=Bias(value))
    assert engine.bias is not None and engine.bias.backend == "python"
    assert (engine.propagate(np.stack([problem.positions] * 2), biased=True)[1] != 0.0).all()

"""Movers: the stepper against Euler-Maruyama by hand with the same gaussians, and against the two path densities.

The laws of both movers, in closed form, are in test_engine.
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from numpy_dynamics import KT, MASSES, START, Array, forces, make_problem, mobility, path_log_weight, random_value

from openmm_rlis.dynamics import propagators
from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.propagators import IntegratorPropagator, Kind, StepwisePropagator, make_mover

REFERENCE = openmm.Platform.getPlatformByName("Reference")
N, SLOTS = 3, 5


def starts() -> Array:
    return START + 0.1 * np.random.default_rng(1).standard_normal((N, 3, 3))


def bias_of(lag_steps: int, hold_steps: int) -> tuple[Bias, StepwisePropagator]:
    problem = make_problem(lag_steps)
    bias = Bias(random_value(problem, seed=25, steepness=1.4), 0.8, hold_steps, "python")
    return bias, StepwisePropagator(problem, SLOTS, "biased", REFERENCE, bias)


def by_hand(lag_steps: int, seed: int, held: Array | None = None) -> tuple[Array, Array]:
    """Return positions of all steps (lag_steps + 1, N, 3, 3) and s sum xi, with a displacement `held` in each step."""
    rng = np.random.Generator(np.random.SFC64(seed))
    a, path, noise = mobility(), [starts()], np.zeros((N, 3, 3))
    for _ in range(lag_steps):
        xi = np.zeros((N, 3, 3))
        for coordinate in (0, 1):
            xi[..., coordinate] = rng.standard_normal((N, 3))
        step = np.sqrt(2.0 * KT * a) * xi
        noise += step
        path.append(path[-1] + a * forces(path[-1]) + step + (0.0 if held is None else held))
    return np.stack(path), noise


@pytest.mark.parametrize("kind", ["plain", "noise"])
def test_steps_without_bias_are_those_made_by_hand(kind: Kind) -> None:
    mover = StepwisePropagator(make_problem(7), SLOTS, kind, REFERENCE, None)
    for seed in (3, 4, 3):
        mover.seed(seed)
        moved, told = mover.move(starts())
        path, noise = by_hand(7, seed)
        np.testing.assert_allclose(moved, path[-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(told, noise if kind == "noise" else 0.0, rtol=0, atol=1e-12)


def test_the_bias_is_held_and_weighed() -> None:
    """A bias held for the whole lag displaces each step by the same vector: path and ln dP/dQ can be made by hand."""
    mover = bias_of(7, hold_steps=20)[1]
    probe = bias_of(1, hold_steps=1)[1]
    probe._slots[:N] = starts()
    probe._slots[N:] = starts()[:1]
    held = probe._a[:N] * probe._forces(31, N)
    assert (np.abs(held[:, MASSES > 0, :2]) > 1e-6).all()
    mover.seed(5)
    moved, told = mover.move(starts())
    path, _ = by_hand(7, 5, held)
    np.testing.assert_allclose(moved, path[-1], rtol=0, atol=1e-12)
    for walker in range(N):
        push = held[walker] / np.where(mobility() > 0, mobility(), 1.0)
        expected = path_log_weight(path[:, walker], (mobility(), KT), forces, lambda x, f=push: f, hold=20)
        assert abs(expected) > 1e-3
        assert np.asarray(told)[walker] == pytest.approx(expected, abs=1e-9)


def test_a_lag_is_its_blocks_one_after_another() -> None:
    """Lags of 5, 5 and 3 steps with the bias held throughout are one lag of 13 with the bias held 5."""
    _, whole = bias_of(13, hold_steps=5)
    whole.seed(6)
    moved, told = whole.move(starts())
    x, total = starts(), np.zeros(N)
    rng = np.random.Generator(np.random.SFC64(6))
    for n_steps in (5, 5, 3):
        _, part = bias_of(n_steps, hold_steps=5)
        part._rng = rng
        x, log_w = part.move(x)
        total += log_w
    np.testing.assert_allclose(moved, x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(told, total, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "noise", "biased"])
def test_what_is_frozen_does_not_move_and_walkers_given_are_left_alone(kind: Kind) -> None:
    bias, _ = bias_of(6, 4)
    mover = StepwisePropagator(make_problem(6), SLOTS, kind, REFERENCE, bias if kind == "biased" else None)
    mover.seed(7)
    x = starts()
    given = x.copy()
    first, told = mover.move(x)
    kept = first.copy()
    second, _ = mover.move(x)
    np.testing.assert_array_equal(x, given)
    np.testing.assert_array_equal(first, kept)
    assert (first[:, MASSES > 0, :2] != second[:, MASSES > 0, :2]).all()
    assert (first[:, :, 2] == x[:, :, 2]).all() and (first[:, MASSES == 0] == x[:, MASSES == 0]).all()
    if kind == "noise":
        noise = np.asarray(told)
        assert (noise[:, :, 2] == 0.0).all() and (noise[:, MASSES == 0] == 0.0).all()


def test_a_stepper_where_a_context_is_large_and_on_a_cpu() -> None:
    problem = make_problem(2)
    for kind, least in propagators.STEPPER_FROM.items():
        enough = -(-least // 9)
        bias, _ = bias_of(2, 2)
        assert isinstance(make_mover(problem, enough, kind, REFERENCE, bias), StepwisePropagator)
        assert isinstance(make_mover(problem, enough - 1, kind, REFERENCE, bias), IntegratorPropagator)
    assert isinstance(make_mover(problem, 1000, "plain", None, None), IntegratorPropagator)


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("kind", ["plain", "biased", "noise"])
def test_a_seed_starts_the_same_stream_in_a_program_that_has_run(platform: str, kind: Kind) -> None:
    """Whatever ran before, beside it or in it, a mover walks as a new one does that was given the seed first."""
    bias = bias_of(5, 2)[0] if kind == "biased" else None
    where = openmm.Platform.getPlatformByName(platform)

    def new() -> IntegratorPropagator:
        return IntegratorPropagator(make_problem(5), SLOTS, kind, where, bias)

    first, used, other = new(), new(), new()
    first.seed(3)
    expected = first.move(starts())
    other.seed(9)
    used.seed(4)
    for _ in range(3):
        assert (used.move(starts())[0] != expected[0]).any()
        other.move(starts())
    used.seed(3)
    for got, wanted in zip(used.move(starts()), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)

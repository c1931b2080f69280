"""Engine: laws in closed form, log-weights recomputed from positions, any number of walkers, one seed one walk.

Statistical tests have fixed seeds and at least 16 replicas; FALSE_ALARM is per test, for a correct engine.
"""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import torch
from numpy_dynamics import (
    KT,
    START,
    Array,
    forces,
    make_problem,
    mobility,
    numerical_gradient,
    path_log_weight,
    random_value,
)
from scipy import stats
from seeds import with_offset

from openmm_rlis.dynamics import propagators
from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import DivergedError, InputError
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.units import BOLTZMANN
from openmm_rlis.value_function import ValueFunction

FALSE_ALARM = 1e-4


@pytest.fixture(params=["program", "stepper"], autouse=True)
def mover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Move by one kind of mover alone, whatever the size of the Context."""
    name: str = request.param
    most = 0 if name == "stepper" else 10**9
    monkeypatch.setattr(propagators, "STEPPER_FROM", dict.fromkeys(propagators.KINDS, most))
    return name


def biased_engine(
    lag_steps: int, hold_steps: int, n_slots: int = 64, backend: str | None = "python"
) -> tuple[Engine, ValueFunction]:
    problem = make_problem(lag_steps)
    value = random_value(problem, seed=25, steepness=1.4)
    return Engine(problem, n_slots=n_slots, bias=Bias(value, scale=0.8, hold_steps=hold_steps, backend=backend)), value


def starts(n: int, seed: int = 0) -> Array:
    return START + 0.1 * np.random.default_rng(with_offset(seed)).standard_normal((n, 3, 3))


STIFFNESS = np.array([50.0, 120.0, 400.0])


def harmonic_problem(lag_steps: int = 25) -> Problem:
    """Return one particle of mass 2 in an anisotropic well, with a time step that matters: a k = 0.0625, 0.15, 0.5."""
    system = openmm.System()
    system.addParticle(2.0)
    well = openmm.CustomExternalForce("0.5*(50*x^2 + 120*y^2 + 400*z^2)")
    well.addParticle(0, [])
    system.addForce(well)
    return Problem(
        system,
        [[0.0, 0.0, 0.0]],
        source=Region.where(lambda x: x[:, 0, 0] < 1.0),
        target=Region.where(lambda x: x[:, 0, 0] > 2.0),
        temperature=KT / BOLTZMANN,
        friction=4.0,
        timestep=0.01,
        lag_steps=lag_steps,
    )


def test_stationary_variance_is_that_of_euler_maruyama() -> None:
    # x' = (1 - a k) x + sqrt(2 kT a) xi is stationary with variance kT / (k (1 - a k / 2)).
    problem = harmonic_problem()
    engine = Engine(problem, n_slots=500)
    engine.reseed(np.random.default_rng(with_offset(1)))
    x = np.zeros((2000, 1, 3))
    for _ in range(8):  # from 0 the variance is stationary up to (1 - a k)^(2 * 200) < 1e-10
        x, _ = engine.propagate(x)
    a = problem.mobility()[0]
    assert a == pytest.approx(0.01 / (2.0 * 4.0), rel=1e-12)
    variance = KT / (STIFFNESS * (1.0 - a * STIFFNESS / 2.0))
    low, high = stats.chi2.ppf([FALSE_ALARM / 6, 1.0 - FALSE_ALARM / 6], df=len(x))
    statistic = (x[:, 0] ** 2).sum(axis=0) / variance
    assert ((low < statistic) & (statistic < high)).all()
    # The test can tell Euler-Maruyama from the Boltzmann law, whose z variance is 25 % smaller.
    assert (x[:, 0, 2] ** 2).sum() / (KT / STIFFNESS[2]) > high


def test_one_lag_has_the_mean_and_spread_of_its_closed_form() -> None:
    problem = harmonic_problem(lag_steps=7)
    engine = Engine(problem, n_slots=512)
    engine.reseed(np.random.default_rng(with_offset(2)))
    start = np.array([0.3, -0.2, 0.1])
    x, log_weights = engine.propagate(np.tile(start, (4000, 1, 1)))
    assert (log_weights == 0.0).all()
    shrink = 1.0 - problem.mobility()[0] * STIFFNESS
    deviation = np.sqrt(2.0 * KT * problem.mobility()[0] * (1.0 - shrink**14) / (1.0 - shrink**2))
    z = ((x[:, 0] - start * shrink**7) / deviation).reshape(-1)
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM


def test_noise_is_what_moves_free_particles_and_is_gaussian() -> None:
    """Without a force x' = x + s sum xi; in the well, it is what one lag of the linear map cannot explain."""
    problem = harmonic_problem(lag_steps=1)
    engine = Engine(problem, n_slots=512)
    engine.reseed(np.random.default_rng(with_offset(6)))
    start = np.tile([0.3, -0.2, 0.1], (3000, 1, 1))
    moved, noise = engine.propagate_with_noise(start)
    drift = start * (1.0 - problem.mobility()[0] * STIFFNESS)
    np.testing.assert_allclose(moved, drift + noise, atol=1e-12)
    problem = harmonic_problem(lag_steps=7)
    engine = Engine(problem, n_slots=512)
    engine.reseed(np.random.default_rng(with_offset(6)))
    moved, noise = engine.propagate_with_noise(start)
    z = noise.reshape(-1) / np.sqrt(7 * 2.0 * KT * problem.mobility()[0, 0])
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM
    engine.reseed(np.random.default_rng(with_offset(6)))
    assert (engine.propagate(start)[1] == 0.0).all()


def test_two_calls_where_one_would_leave_many_slots_idle(mover: str) -> None:
    """A Context is entered with idle slots only where these cost less than another call."""
    engine = Engine(harmonic_problem(lag_steps=667), n_slots=512)  # to a program a call costs as much as a walker
    sizes, worth = engine._sizes["noise"], 1 if mover == "program" else propagators.STEP_CALL / 3
    for n in (1, 4, 5, sizes[-2] + 1, sizes[-2] + 40, 511, 512, 513, 3000):
        left, calls = n, []
        while left > 0:
            calls.append(engine._size_for(left, "noise"))
            left -= calls[-1]
        assert -left <= max(worth, 3), f"{n} walkers in {calls}"
        assert len(calls) <= n // 512 + 6, f"{n} walkers in {calls}"
    engine = Engine(harmonic_problem(lag_steps=1), n_slots=512)
    assert engine._size_for(sizes[-2] + 1, "noise") == 512  # a walker costs next to nothing: one call
    assert Engine(harmonic_problem(lag_steps=667), n_slots=512, bias=None)._size_for(130, "biased") == 512


def test_log_weight_of_a_chain_is_the_ratio_of_transition_densities() -> None:
    engine, value = biased_engine(lag_steps=1, hold_steps=1, n_slots=8)
    engine.reseed(np.random.default_rng(with_offset(3)))
    x = starts(5)
    path, log_weights = [x], []
    for _ in range(12):
        x, log_w = engine.propagate(x, biased=True)
        path.append(x)
        log_weights.append(log_w)

    def bias_forces(y: Array) -> Array:
        return 2.0 * 0.8 * KT * numerical_gradient(lambda u: float(value.log_value(u[None])[0]), y)

    for walker in range(5):
        walk = np.stack([frame[walker] for frame in path])
        expected = path_log_weight(walk, (mobility(), KT), forces, bias_forces, hold=1)
        assert abs(expected) > 1e-3
        assert sum(log_w[walker] for log_w in log_weights) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("hold_steps", [1, 5, 20])
def test_expectations_under_the_bias_are_those_without(hold_steps: int) -> None:
    """E_Q[W] = 1 and E_Q[W f] = E_P[f], by Student's t over 32 replicas; the lag of 23 is not a multiple of hold."""
    n_replicas, n_walkers = 32, 64
    backend = None if hold_steps == 5 else "python"
    engine, _ = biased_engine(23, hold_steps, n_replicas * n_walkers, backend)
    engine.reseed(np.random.default_rng(with_offset(100 + hold_steps)))

    def walk(biased: bool) -> tuple[Array, Array]:
        x, total = np.tile(START, (n_replicas * n_walkers, 1, 1)), np.zeros(n_replicas * n_walkers)
        for _ in range(3):
            x, log_w = engine.propagate(x, biased)
            total += log_w
        first, last = x[:, 0], x[:, 2]
        functions = [np.ones(len(x)), first[:, 0], first[:, 1] ** 3, last[:, 0] * first[:, 1], last[:, 1] > 0.3]
        observed = np.stack(functions, axis=1)
        means = (np.exp(total)[:, None] * observed).reshape(n_replicas, n_walkers, -1).mean(axis=1)
        return means, observed.mean(axis=0)

    q, shifted = walk(biased=True)
    p, plain = walk(biased=False)
    assert (p[:, 0] == 1.0).all()
    difference = (q - p).mean(axis=0)
    t = difference / np.sqrt((q.var(axis=0, ddof=1) + p.var(axis=0, ddof=1)) / n_replicas)
    limit = stats.t.ppf(1.0 - FALSE_ALARM / 2 / q.shape[1], df=n_replicas - 1)
    assert (np.abs(t) < limit).all()
    # Without the weights the two laws do differ: the bias is not too weak for this test to see.
    assert abs(shifted[1] - plain[1]) / p[:, 1].std(ddof=1) * np.sqrt(n_replicas) > 2 * limit


def test_a_flat_value_function_has_weight_exactly_one_and_the_unbiased_law() -> None:
    problem = harmonic_problem(lag_steps=7)
    value = random_value(problem, seed=4, steepness=0.0)
    engine = Engine(problem, n_slots=512, bias=Bias(value, hold_steps=3))
    engine.reseed(np.random.default_rng(with_offset(4)))
    x = np.zeros((3000, 1, 3))
    biased, log_weights = engine.propagate(x, biased=True)
    assert (log_weights == 0.0).all()
    shrink = 1.0 - problem.mobility()[0] * STIFFNESS
    deviation = np.sqrt(2.0 * KT * problem.mobility()[0] * (1.0 - shrink**14) / (1.0 - shrink**2))
    assert stats.kstest((biased[:, 0] / deviation).reshape(-1), "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 16, 17, 45])
def test_any_number_of_walkers_in_the_order_given(n: int, biased: bool) -> None:
    # Walkers far apart along y, in a System of free particles where noise is small, come back in their own rows.
    system = openmm.System()
    for _ in range(2):
        system.addParticle(1.0)
    problem = Problem(
        system,
        np.zeros((2, 3)),
        source=Region.where(lambda x: x[:, 0, 0] < 1.0),
        target=Region.where(lambda x: x[:, 0, 0] > 2.0),
        temperature=1e-6,
        friction=1.0,
        timestep=1e-4,
        lag_steps=3,
    )
    engine = Engine(problem, n_slots=16, bias=Bias(random_value(problem, 5), backend="python"))
    x = np.random.default_rng(with_offset(6)).uniform(-0.5, 0.5, (n, 2, 3))
    x[:, :, 1] += 10.0 * np.arange(n)[:, None]
    given = x.copy()
    moved, log_weights = engine.propagate(x, biased)
    assert moved.shape == x.shape and log_weights.shape == (n,)
    assert (x == given).all()
    np.testing.assert_allclose(moved, x, atol=1e-2)
    assert (moved != x).all()
    assert engine.cost.force_evaluations == 3 * n
    assert engine.cost.network_calls == (n if biased else 0)


@pytest.mark.parametrize("biased", [False, True])
def test_the_same_seed_gives_the_same_walk_with_a_fresh_and_a_used_engine(biased: bool) -> None:
    def walk(engine: Engine, seed: int) -> list[Array]:
        engine.reseed(np.random.default_rng(with_offset(seed)))
        x, out = starts(9), []
        for n in (9, 4, 7):
            x, log_w = engine.propagate(x[:n], biased)
            out += [x, log_w]
        return out

    fresh, used = (biased_engine(6, 4, n_slots=8)[0] for _ in range(2))
    for n in (3, 30, 1):
        used.propagate(starts(n, seed=n), not biased)
        used.propagate(starts(n, seed=n), biased)
    first, second, other = walk(fresh, 7), walk(used, 7), walk(used, 8)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first[0][:, 0, :2] != other[0][:, 0, :2]).all()
    for a, b in zip(first, walk(fresh, 7), strict=True):
        np.testing.assert_array_equal(a, b)


def test_walkers_and_calls_are_independent() -> None:
    engine = Engine(harmonic_problem(lag_steps=1), n_slots=64)
    engine.reseed(np.random.default_rng(with_offset(9)))
    x = np.zeros((150, 1, 3))
    rows = np.concatenate([engine.propagate(x)[0].reshape(150, 3) for _ in range(2)])
    assert len(np.unique(rows[:, 0])) == len(rows)


@pytest.mark.parametrize("biased", [False, True])
def test_walkers_that_are_not_finite_are_counted_and_named(biased: bool) -> None:
    engine, _ = biased_engine(3, 2, n_slots=8)
    x = starts(30)
    x[[13, 22], 0, 1] = np.nan
    x[27, 2, 0] = np.inf
    message = r"^3 of 30 walkers have coordinates that are not finite \(first: walker 13\)"
    with pytest.raises(DivergedError, match=message):
        engine.propagate(x, biased)
    with pytest.raises(DivergedError, match=message):
        engine.problem.label(x)
    moved, _ = engine.propagate(starts(30), biased)
    assert np.isfinite(moved).all()


@pytest.mark.parametrize("group", [0, 3, 31])
def test_forces_of_every_force_group_act_biased_or_not(group: int) -> None:
    problem = make_problem(1)
    for force in problem.system.getForces():
        force.setForceGroup(group)
    problem.kT = 1e-20
    value = random_value(problem, seed=3, steepness=0.0)
    engine = Engine(problem, n_slots=4, bias=Bias(value, backend="python"))
    x = starts(2)
    for biased in (False, True):
        moved, log_weights = engine.propagate(x, biased)
        np.testing.assert_allclose(moved, x + mobility() * forces(x), rtol=0, atol=1e-8)
        assert (log_weights == 0.0).all()
    assert [force.getForceGroup() for force in problem.system.getForces()] == [group] * 2


def test_the_engine_leaves_the_system_as_it_was() -> None:
    problem = make_problem(2)
    before = openmm.XmlSerializer.serialize(problem.system)
    engine = Engine(problem, n_slots=1, bias=Bias(random_value(problem, 1), backend="python"))
    engine.propagate(starts(2), biased=True)
    engine.propagate(starts(2))
    assert openmm.XmlSerializer.serialize(problem.system) == before


def test_bad_arguments_are_refused_in_one_line() -> None:
    problem = make_problem(2)
    with pytest.raises(InputError, match=r"^n_slots: expected 1 or more, got 0$"):
        Engine(problem, n_slots=0)
    with pytest.raises(InputError, match=r"^platform: expected one of .*Reference.*, got 'Abacus'$"):
        Engine(problem, platform="Abacus")
    with pytest.raises(InputError, match=r"^biased: expected an engine made with a bias, got one without$"):
        Engine(problem).propagate(starts(2), biased=True)


@pytest.mark.gpu
def test_cuda_weights_average_to_one() -> None:
    # Mixed or single precision on the device must not show in E_Q[W]; false-alarm rate as above.
    if "CUDA" not in [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]:
        pytest.skip("this OpenMM has no CUDA platform")
    assert torch.cuda.is_available()
    problem = make_problem(23)
    engine = Engine(problem, n_slots=2048, platform="CUDA", bias=Bias(random_value(problem, 21), 0.8, 5))
    engine.reseed(np.random.default_rng(with_offset(10)))
    weights = np.exp(engine.propagate(np.tile(START, (2048, 1, 1)), biased=True)[1]).reshape(32, 64).mean(axis=1)
    t = (weights.mean() - 1.0) / (weights.std(ddof=1) / np.sqrt(32))
    assert abs(t) < stats.t.ppf(1.0 - FALSE_ALARM / 2, df=31)

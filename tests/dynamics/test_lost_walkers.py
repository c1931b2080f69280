"""Losses: walkers in a part of space where the potential, the bias or a feature is not finite; how many, where, why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from numpy_dynamics import random_value
from systems_1d import ONE_KT

import openmm_rlis as rlis
from openmm_rlis import Problem, Region
from openmm_rlis.basin.inner_region import RadiusRecorder
from openmm_rlis.dynamics import engine
from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.lost_walkers import energy_may_fail
from openmm_rlis.errors import DivergedError, NotFiniteError, UnreachableError
from openmm_rlis.sampling import run as sampler
from openmm_rlis.walks import adaptive_splitting

Array = NDArray[np.float64]
WELL = "3*(x^2-1)^2"
EDGE = -1.35
"""Beyond it the potentials here are NaN; A reaches up to -0.7."""
NAN_FORCE, NAN_ENERGY = f"{WELL} + sqrt(x-({EDGE}))", f"{WELL} - 0.01*log(x-({EDGE}))"
UNDEFINED = "the potential is not defined there; fix it, or exclude these configurations"


def particles(energy: str, n_atoms: int = 1, packed: bool = True) -> openmm.System:
    """Return a System whose last particle feels `energy`, in a CustomCVForce if not packed."""
    system = openmm.System()
    wells, last = openmm.CustomExternalForce("5*(x^2 + y^2)"), openmm.CustomExternalForce(energy)
    for i in range(n_atoms):
        system.addParticle(1.0)
        (wells if i < n_atoms - 1 else last).addParticle(i, [])
    system.addForce(wells)
    if packed:
        system.addForce(last)
        return system
    outer = openmm.CustomCVForce("energy_of_last")
    outer.addCollectiveVariable("energy_of_last", last)
    system.addForce(outer)
    return system


def problem_of(system: openmm.System, **options: Any) -> Problem:
    n = system.getNumParticles()
    positions = np.zeros((n, 3))
    positions[-1, 0] = -1.0
    given: dict[str, Any] = {
        "source": Region.where(lambda x: x[:, -1, 0] < -0.7, "A"),
        "target": Region.where(lambda x: x[:, -1, 0] > 0.8, "B"),
        "temperature": ONE_KT, "friction": 1.0, "timestep": 0.005, "lag_steps": 5, "dimensions": 1,
    }  # fmt: skip
    return Problem(system, positions, **{**given, **options})


def lost(problem: Problem, platform: str | None = None, bias: Bias | None = None, n: int = 300, seed: int = 1) -> str:
    """Walk until walkers are lost and return what is said."""
    walks = Engine(problem, platform=platform, bias=bias)
    walks.reseed(np.random.default_rng(seed))
    x = np.repeat(problem.positions[None], n, axis=0)
    with pytest.raises(DivergedError) as caught:
        for _ in range(200):
            x, _ = walks.propagate(x, bias is not None)
    return str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("n_atoms", [1, 3])
@pytest.mark.parametrize("energy", [NAN_FORCE, NAN_ENERGY])
def test_a_potential_that_is_nan_somewhere_ends_the_walk(
    energy: str, n_atoms: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is that of walkers that are NaN, or stand beyond the edge, in the same walk where nobody looks."""
    n, problem = 300 if packed else 60, problem_of(particles(energy, n_atoms, packed))
    said = lost(problem, "Reference", n=n)
    match = re.match(r"(\d+) of (\d+) walkers have .* not finite \(first: walker (\d+)\); ", said)
    assert match is not None and int(match[2]) == n
    assert UNDEFINED in said and "time step" not in said and f"particle {n_atoms - 1} at (-1." in said
    assert ("CustomExternalForce" if packed else "CustomCVForce") in said
    assert ("have energies" in said) or energy == NAN_FORCE
    x_there = re.search(r"at \((-[\d.]+),", said)
    assert x_there is not None and float(x_there[1]) < EDGE
    monkeypatch.setattr(engine, "lost_walkers", lambda *_: None)
    walks = Engine(problem, platform="Reference")
    walks.reseed(np.random.default_rng(1))
    x = np.repeat(problem.positions[None], n, axis=0)
    while not (bad := ~(x[:, -1, 0] > EDGE)).any():
        x, _ = walks.propagate(x)
    assert (int(match[1]), int(match[3])) == (bad.sum(), np.flatnonzero(bad)[0])


@pytest.mark.parametrize("platform", ["CPU", None])
@pytest.mark.parametrize("packed", [True, False])
def test_platforms_that_raise_where_a_coordinate_is_nan_lose_nobody_in_silence(
    platform: str | None, packed: bool
) -> None:
    said = lost(problem_of(particles(NAN_FORCE, packed=packed)), platform, n=30)
    assert re.match(r"\d+ of 30 walkers have coordinates", said) and UNDEFINED in said


def test_infinite_forces_and_energies_are_named() -> None:
    said = lost(problem_of(particles(f"{WELL} + 1e-3*x/step(x-({EDGE}))")))
    assert re.search(r"the force of CustomExternalForce is \S+ on .* 0 at \(-1\.[3-9]", said) and UNDEFINED in said
    assert "the energy of CustomExternalForce is inf" in lost(
        problem_of(particles(f"{WELL} - floor(log(step(x+1.3)))"))
    )


@pytest.mark.parametrize("wall", ["0.001/step(x+1.35)", "exp(1000*step(-1.35-x))", "0.001/select(step(x+1.35),1,0)"])
def test_a_wall_without_a_force_is_no_way_through(wall: str) -> None:
    """The energy is infinite by a jump, and the derivative that OpenMM makes of it is 0."""
    said = lost(problem_of(particles(f"{WELL} + {wall}")), "Reference")
    assert "the energy of CustomExternalForce is inf with particle 0 at (-1.4" in said


def test_a_time_step_that_is_too_long_is_told_from_a_potential_with_holes() -> None:
    for packed in (True, False):
        said = lost(problem_of(particles("0.5*900*(x+1)^2", packed=packed)), n=20)
        assert "the time step of 0.005 ps is too long" in said and "potential" not in said
    # Both: the steps grow, and come to where the potential is NaN.
    said = lost(problem_of(particles(f"450*(x+1)^2 + sqrt(x-({EDGE}))", packed=False), timestep=0.01), n=20)
    assert "time step of 0.01 ps is too long" in said or UNDEFINED in said


def test_a_bias_that_is_nan_is_named() -> None:
    """The feature is finite everywhere; its gradient by torch is 0 times NaN beyond the edge."""

    def rooted(x: torch.Tensor) -> torch.Tensor:
        y = x[:, 0, :1] - EDGE
        return torch.where(y > 0.0, torch.sqrt(y), 0.0 * y)

    problem = problem_of(particles(WELL), features=rooted)
    value = random_value(problem, seed=1)
    said = lost(problem, "Reference", Bias(value, backend="python"))
    assert re.search(r"the bias force is nan on particle 0 at \(-1\.\d+, 0, 0\) nm: a feature has no finite", said)
    assert lost(problem_of(particles(NAN_FORCE)), "Reference", Bias(value, backend="python")).endswith(UNDEFINED)


@pytest.mark.parametrize(
    ("energy", "expected"),
    [
        ("8*(x^2-1)^2 + x^-12 + (x+2)^(-6) + x^ 3", False),
        ("max(0, sqrt((x-y)^2 + z^2) - 2)^2 + sqrt( x^2)", False),
        ("sqrt((x-1)^2 - y^2)", True),
        ("sqrt(x^2+y)", True),
        ("exp(logic*x)/x", False),
        ("x*a; a=log(x)", True),
        ("ceil (x)", True),
        ("sqrt(x)", True),
        ("x^0.5", True),
        ("x^(3/2)", True),
        ("(x+1)^x", True),
        ("x^2.5", True),
        ("step(x-1)*(x-1)^2/2 + select(x, 1, 2)", False),
        ("0.001/step(x+1)", True),
        ("exp(1000*s); s=step(-1-x)", True),
        ("1/select(step(x), 1, 0)", True),
        ("step(x)^(-2)", True),
    ],
)
def test_energies_are_looked_at_where_forces_do_not_tell(energy: str, expected: bool) -> None:
    assert energy_may_fail(particles(energy)) == expected
    assert energy_may_fail(particles(energy, packed=False))


def test_no_other_function_of_openmm_hides_that_it_is_nan() -> None:
    """Each is evaluated where it is NaN or infinite; where all forces are finite, energies are looked at."""
    arguments = {"sqrt": -1.0, "log": -1.0, "asin": 2.0, "acos": 2.0, "floor": 0.0, "ceil": 0.0, "exp": 800.0,
                 "sinh": 800.0, "cosh": 800.0, "recip": 0.0}  # fmt: skip
    hidden = set()
    for name, x in arguments.items():
        inner = "x" if name not in ("floor", "ceil") else "sqrt(x-1)"
        reference = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(particles(f"{name}({inner}) + x"), openmm.VerletIntegrator(1.0), reference)
        context.setPositions([[x, 0.0, 0.0]])
        state = context.getState(getForces=True, getEnergy=True)
        assert not np.isfinite(state.getPotentialEnergy()._value), name
        if np.isfinite(state.getForces(asNumpy=True)._value).all():
            hidden.add(name)
            assert energy_may_fail(particles(f"{name}(x)")), name
    assert hidden == {"log", "floor", "ceil"}


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("n", [10, 300, 2500])
def test_looking_at_energies_changes_no_bit(n: int, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program and in a stepper: a Context that is asked for its energy may draw random numbers."""
    problem, walks = problem_of(particles(f"{WELL} - 0.01*log(x+50)")), []
    for looks in (True, False):
        monkeypatch.setattr(engine, "energy_may_fail", lambda _, looks=looks: looks)
        walker = Engine(problem, platform=platform)
        walker.reseed(np.random.default_rng(1))
        x = np.repeat(problem.positions[None], n, axis=0)
        for _ in range(3):
            x, _ = walker.propagate(x)
            x, _ = walker.propagate_with_noise(x)
        walks.append(x)
    np.testing.assert_array_equal(*walks)


def test_one_step_into_the_void_is_no_arrival() -> None:
    """With a lag of one step a walker beyond the edge is finite, and would count as having arrived there."""
    problem = problem_of(
        particles(NAN_FORCE), source=Region.where(lambda x: x[:, 0, 0] > -1.1, "A"), lag_steps=1,
        target=Region.where(lambda x: x[:, 0, 0] < EDGE, "B"),
    )  # fmt: skip
    assert "have energies that are not finite" in lost(problem)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", ["run", "brute"])
def test_a_run_that_loses_walkers_ends_without_a_rate(
    method: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(particles(NAN_ENERGY))
    problem.source = problem.whole_source = Region.ball(rlis.features.positions(), [-1.0, 0.0, 0.0], 0.3, "A")
    problem.target = Region.ball(problem.source.feature, [1.0, 0.0, 0.0], 0.3, "B")
    start = {"run": sampler.run, "brute": sampler.brute}[method]
    stage = "start" if method == "run" else "flux"
    with pytest.raises(DivergedError) as caught:
        start(problem, tmp_path / "run", seed=1, workers=workers, max_seconds=60.0)
    said = str(caught.value)
    assert re.match(rf"{stage}: \d+ of \d+ walkers have energies that are not finite", said) and "\n" not in said
    assert "ends without a rate, and resuming it fails in the same way" in said
    assert not (tmp_path / "run" / "result.json").exists()
    assert '"lost"' in (tmp_path / "run" / "log.jsonl").read_text()
    with pytest.raises(DivergedError, match=re.escape(said.split(" (first")[0])):
        sampler.resume(tmp_path / "run", problem)


def test_a_run_that_loses_walkers_in_production_says_so_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(particles(WELL))
    whole = sampler.brute(problem, tmp_path / "run", seed=1, max_force_evaluations=10_000_000, max_seconds=60.0)
    assert whole.n_rounds > 0

    def fail(self: Any, positions: Any, biased: bool = False) -> Any:
        raise DivergedError("1 of 512 walkers have coordinates that are not finite")

    monkeypatch.setattr(engine.Engine, "propagate", fail)
    with pytest.raises(DivergedError):
        sampler.resume(tmp_path / "run", problem, max_force_evaluations=100_000_000, target_relative_error=0.001)
    found = sampler.load(tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    for alarms in (found.diagnostics["alarms"], stored["diagnostics"]["alarms"]):
        assert "its rate must not be used: production" in alarms[0]
    assert found.stopped == stored["stopped"] == "lost"


def hollow(x: torch.Tensor) -> torch.Tensor:
    """Return a feature that is NaN beyond the edge."""
    return torch.sqrt(x[:, 0, :1] - EDGE)


def test_a_feature_that_is_nan_somewhere_ends_the_run(tmp_path: Path) -> None:
    ball = Region.ball(hollow, [np.sqrt(-1.0 - EDGE)], 0.2, "A")
    with pytest.raises(DivergedError, match=r"flux: feature of region A: expected .*, got NaN .* for \d+ of"):
        sampler.brute(problem_of(particles(WELL), source=ball), tmp_path / "run", max_seconds=60.0)
    with pytest.raises(DivergedError, match=r"start: features in region A: expected .*, got NaN .* for \d+ of"):
        sampler.run(problem_of(particles(WELL), features=hollow), tmp_path / "other", max_seconds=60.0)


def test_a_core_does_not_take_nan_for_outside() -> None:
    problem = problem_of(particles(WELL), features=hollow)
    x = np.array([[[-1.0, 0.0, 0.0]], [[EDGE - 0.1, 0.0, 0.0]], [[0.0, 0.0, 0.0]]])
    core = problem.source.part(problem.features, np.zeros(1), np.ones(1), 1.0)
    assert core.contains(x[[0, 2]]).tolist() == [True, False]
    for look in (lambda: core.contains(x), lambda: RadiusRecorder(problem, 1)(x, np.array([True, True, False]))):
        with pytest.raises(NotFiniteError, match=r"1 of 2 walkers \(first: walker 1, particle 0 at \(-1.45, 0, 0\)"):
            look()


def test_heating_says_what_stopped_it() -> None:
    """At the temperature itself lost walkers are an error; above it a reason why B was not found."""
    for energy, error in ((NAN_ENERGY, DivergedError), (f"{WELL} + sqrt(x+3.5)", UnreachableError)):
        problem = problem_of(particles(energy), target=Region.where(lambda x: x[:, 0, 0] > 90.0, "B"))
        with pytest.raises(error, match="not finite"):
            adaptive_splitting.find_target(problem, Engine(problem), np.random.default_rng(1), max_lags=300)

"""Verify: a good run passes, faults that are put in are found, and too little data is said to be too little.

A good run fails a comparison about once in 500; there are seven here, and seeds are fixed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from systems_1d import double_well

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.statistics.estimators import Estimate
from openmm_rlis.units import BOLTZMANN
from openmm_rlis.validation.checks import check_balance, check_records, check_simulations, compared, varied
from openmm_rlis.validation.detailed_balance import free_energy_by_quadrature

LINE = double_well(4.0, 0.5)
SETTINGS = Settings(n_batches=12, replicas=8, learning_rounds=6, learning_roots=800, n_slots=128)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> rlis.Result:
    directory = tmp_path_factory.mktemp("verify") / "run"
    rlis.run(LINE.problem(), directory, seed=4, settings=SETTINGS)
    return rlis.load(directory, LINE.problem())


def test_a_good_run_passes(result: rlis.Result, tmp_path: Path) -> None:
    checks = [*check_records(result), *check_simulations(result, tmp_path, LINE.problem())]
    assert [c.name for c in checks if c.verdict == "fail"] == []
    assert sum(c.verdict == "pass" for c in checks) >= 7
    assert {p.name for p in tmp_path.iterdir()} == {"half-timestep", "half-lag", "warm-run", "warm-brute"}
    again = list(check_simulations(result, tmp_path, LINE.problem()))  # finished runs are not made again
    assert [c.detail for c in again] == [c.detail for c in checks[-4:]]


def test_a_damaged_file_fails(result: rlis.Result, tmp_path: Path) -> None:
    rlis.run(LINE.problem(), tmp_path / "run", seed=5, target_relative_error=0.5, settings=SETTINGS)
    found = rlis.load(tmp_path / "run")
    file = next((tmp_path / "run" / "rounds" / "production").glob("*/arrays.npz"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    first = next(iter(check_records(found)))
    assert first.verdict == "fail" and "arrays.npz" in first.detail


def estimate(value: float, error: float) -> Estimate:
    return Estimate(value, error, (value - 2 * error, value + 2 * error), 20)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (estimate(1.0, 0.1), estimate(1.2, 0.1), "pass"),
        (estimate(1.0, 0.05), estimate(2.0, 0.1), "fail"),
        (estimate(1.0, 0.3), estimate(1.5, 0.5), "could not tell"),
        (estimate(1.0, 0.1), estimate(1.0, math.inf), "could not tell"),
        (estimate(math.nan, math.inf), estimate(1.0, 0.1), "could not tell"),
    ],
)
def test_verdicts_on_rates(a: Estimate, b: Estimate, verdict: str) -> None:
    assert compared("x", a, b).verdict == verdict


def test_a_varied_problem_is_another_one() -> None:
    problem = LINE.problem()
    other = varied(problem, timestep=0.001)
    assert other.timestep == 0.001 and problem.timestep == LINE.timestep and other.recipe is None


def test_the_free_energy_of_a_harmonic_well_beside_another_is_in_closed_form() -> None:
    # Cores wide enough to hold all of the weight: Z = 2 pi kT / sqrt(kx ky) e^(-depth / kT).
    problem = particle(1.0)
    rng = np.random.default_rng(1)
    near, shift = 0.3 * rng.standard_normal((20, 1, 3)) * [1, 1, 0], np.array([3.0, 0.0, 0.0])
    found = free_energy_by_quadrature(problem, near - shift, near + shift)
    assert found == pytest.approx(0.5 * math.log(4.0) - 1.0, abs=1e-3)
    assert free_energy_by_quadrature(problem, near[:1], near) is None


def particle(kT: float) -> rlis.Problem:
    """Two harmonic wells in the plane, far apart: stiffness 30 and 30 at -3, 120 and 30 and 1 kT deeper at 3."""
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce("select(step(x), 60*(x-3)^2 + 15*y^2 - depth, 15*(x+3)^2 + 15*y^2)")
    force.addGlobalParameter("depth", kT)
    force.addParticle(0)
    system.addForce(force)
    feature = rlis.features.positions()
    a, b = (rlis.Region.ball(feature, [x, 0, 0], 2.0, n) for x, n in ((-3, "A"), (3, "B")))
    return rlis.Problem(
        system, [[-3.0, 0, 0]], source=a, target=b, temperature=kT / BOLTZMANN, friction=1.0, timestep=1e-3,
        dimensions=2,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:lag_steps=5. in one lag:UserWarning")  # 34 %, a third would be right
def test_both_directions_agree_with_the_free_energy(result: rlis.Result, tmp_path: Path) -> None:
    back = replace(LINE, start=1.0, source=LINE.target, target=LINE.source).problem()
    rlis.run(back, tmp_path / "run", seed=6, settings=SETTINGS)
    backward = rlis.load(tmp_path / "run", back)
    check = check_balance(result, backward, LINE.problem())
    assert check.verdict == "pass" and "quadrature" in check.detail, check.detail
    assert check_balance(result, backward, LINE.problem(), 20.0).verdict == "fail"

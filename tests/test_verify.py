"""Verify: a good run passes, faults that are put in are found, and too little data is said to be too little.

A good run meets z beyond 3.5 about once in 1000 comparisons; there are six here, and seeds are fixed.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from systems_1d import double_well

import openmm_rlis as rlis
from openmm_rlis.config import Settings
from openmm_rlis.estimators import Estimate
from openmm_rlis.verify import check_records, check_simulations, compared, varied

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

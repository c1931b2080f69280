"""A lag that jumps over regions is told before the run, with a lag that would do, and changes no random number."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from systems_1d import ONE_KT, double_well

import openmm_rlis as rlis
from openmm_rlis import Problem, Region, features
from openmm_rlis.config.settings import Settings
from openmm_rlis.preflight import lag_check
from openmm_rlis.preflight.lag_check import LIMIT, ratios, warn_of_long_lag
from openmm_rlis.regions import Box
from openmm_rlis.sampling import driver
from openmm_rlis.systems import available, build

STIFFNESS = 25.0
PLACE = features.positions()
FEW = Settings(n_batches=2, replicas=4, learning_rounds=0, core=False)


def harmonic(source: Region, target: Region, lag_steps: int = 10, **more: Any) -> Problem:
    """Return a particle in a harmonic well, U = k x^2 / 2, kT = 1: it forgets in 0.04 ps and spreads by 0.2 nm."""
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce(f"{STIFFNESS / 2}*x^2")
    force.addParticle(0, [])
    system.addForce(force)
    return Problem(
        system, [[0.0, 0.0, 0.0]], source=source, target=target, temperature=ONE_KT, friction=1.0, timestep=2e-4,
        lag_steps=lag_steps, dimensions=1, **more,
    )  # fmt: skip


def interval(low: float, high: float, name: str) -> Region:
    return Region.within(Box([features.Coordinates([(0, 0)])], [low], [high], [0.0], [0.1]), name)


def ball(low: float, high: float, name: str) -> Region:
    centre = [(low + high) / 2, 0.0, 0.0]
    return Region.ball(PLACE, centre, (high - low) / 2, name)


def measured(problem: Problem) -> dict[str, float]:
    before, after = lag_check._moves(problem, None, math.inf)
    return {one.what: one.value for one in ratios(problem, before, after, lag_check._spread(problem, after))}


@pytest.mark.parametrize("lag_steps", [5, 40, 400])
@pytest.mark.parametrize("region", [interval, ball])
def test_the_move_is_that_of_an_ornstein_uhlenbeck_process(region: Any, lag_steps: int) -> None:
    """From x: x (e^-kt - 1) + noise of variance (1 - e^-2kt)/k; x spreads from 0 over the 8 lags. 256 moves: 4.4 %."""
    problem = harmonic(region(-0.9, 0.9, "A"), region(2.0, 2.8, "B"), lag_steps)
    decay = math.exp(-STIFFNESS * problem.lag_time)
    spread = sum(1.0 - decay ** (2 * i) for i in range(8)) / 8 / STIFFNESS
    move = math.sqrt(spread * (1.0 - decay) ** 2 + (1.0 - decay**2) / STIFFNESS)
    found = measured(problem)
    assert found["the width of A"] == pytest.approx(move / 1.8, rel=0.18)
    assert found["the width of B"] == pytest.approx(move / 0.8, rel=0.18)
    gap = 1.1 if region is ball else 2.0 - 0.5  # an interval from where walkers come nearest
    assert found["the gap between A and B"] == pytest.approx(move / gap, rel=0.3)


def test_angles_go_round_and_open_intervals_have_the_gap_alone() -> None:
    turn = 2.0 * math.pi
    box = Box([features.Dihedrals([(0, 1, 2, 3)], True)], [math.pi - 0.5], [math.pi + 0.5], [turn], [0.35])
    near = np.array([[0.1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0]], dtype=float)

    def at(angle: float) -> np.ndarray:
        x = near.copy()
        x[0], x[3] = (0.0, 1.0, 0.0), (1.0, math.cos(angle), math.sin(angle))
        return x[None]

    (one,) = lag_check._of_box(box, "A", at(math.pi - 0.1), at(-math.pi + 0.1))
    assert one.move == pytest.approx(0.2) and one.width == pytest.approx(1.0)
    found = measured(harmonic(interval(-math.inf, 0.4, "A"), interval(2.0, math.inf, "B"), 5))
    assert "the width of A" not in found and 0.02 < found["the gap between A and B"] < 0.2


def test_predicates_are_measured_by_the_spread_and_by_a_structure_in_b() -> None:
    inside, beyond = Region.where(lambda x: x[:, 0, 0] < 0.9, "A"), Region.where(lambda x: x[:, 0, 0] > 2.0, "B")
    for steps, forgets in ((20, False), (2000, True)):
        spread = measured(harmonic(inside, beyond, steps))["the spread of the slowest feature in A"]
        assert (spread > LIMIT) == forgets
    known = harmonic(inside, beyond, 2000, references={"B": [[2.1, 0.0, 0.0]]})
    assert measured(known)["the gap between A and B"] == pytest.approx(math.sqrt(2.0) * 0.2 / 1.5, rel=0.25)


def test_a_fast_feature_beside_a_slow_one_is_no_reason_to_warn() -> None:
    """Only when all features that the value function sees are forgotten within a lag is nothing left to branch on."""

    def seen(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, 0, :1], torch.frac(1e4 * x[:, 0, :1])], dim=1)

    problem = harmonic(interval(-0.9, 0.9, "A"), interval(2.0, 2.8, "B"), 10, features=seen)
    assert warn_of_long_lag(problem, None) == ""


@pytest.mark.parametrize("balls", [False, True])
def test_a_long_lag_is_told_with_one_that_would_do(balls: bool) -> None:
    problem = double_well(balls=balls, lag_steps=400).problem()
    with pytest.warns(UserWarning, match=r"lag_steps=400: in one lag of 2 ps walkers in A move") as caught:
        text = warn_of_long_lag(problem, None)
    assert len(caught) == 1 and str(caught[0].message) == text and "\n" not in text
    advice = re.search(r"lag_steps=(\d+) would do$", text)
    assert advice and 2 <= int(advice[1]) <= 100
    assert warn_of_long_lag(double_well(balls=balls, lag_steps=int(advice[1])).problem(), None) == ""


def test_regions_that_touch_are_told_to_stand_apart() -> None:
    problem = harmonic(interval(-5.0, 0.1, "A"), interval(0.1001, 5.0, "B"))
    with pytest.warns(UserWarning, match=r"gap between A and B .* make the regions larger or the gap"):
        warn_of_long_lag(problem, None)


@pytest.mark.parametrize("system", available())
def test_no_packaged_system_is_warned_of(system: str) -> None:
    assert warn_of_long_lag(build(system, {}), None) == ""


class EnoughError(Exception):
    """Ends a run."""


def test_the_warning_is_in_the_log_and_changes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[np.ndarray] = []

    def after_the_first_exits(engine: Any, run: Any, *_: Any) -> None:
        exits.append(run.exits)
        raise EnoughError

    monkeypatch.setattr(driver, "cold_start", after_the_first_exits)
    problem = double_well(3.0, 0.0, balls=True, lag_steps=50).problem()
    with pytest.warns(UserWarning, match="lag_steps=50") as caught, pytest.raises(EnoughError):
        rlis.run(problem, tmp_path / "told", settings=FEW)
    assert len(caught) == 1
    entries = [json.loads(line) for line in (tmp_path / "told" / "log.jsonl").read_text().splitlines()]
    assert [str(caught[0].message)] == [entry["warning"] for entry in entries if "warning" in entry]
    monkeypatch.setattr(driver, "warn_of_long_lag", lambda *_: "")
    with pytest.raises(EnoughError):
        rlis.run(problem, tmp_path / "silent", settings=FEW)
    assert len(exits[0]) > 20 and np.array_equal(exits[0], exits[1])


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    words = ["brute", "double_well", "--set", "height=3", "--set", "lag_steps=400", "--max-time", "0.1", "--out"]
    command = [sys.executable, "-m", "openmm_rlis.cli", *words, str(tmp_path / "run")]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    assert len(told) == 1 and told[0].startswith("warning: lag_steps=400: in one lag")

"""Traps: named where they are, proposed off the regions and ready to paste, and watched without changing a walk.

Clouds are drawn with fixed seeds; bounds on their middles are six standard errors (false alarm 2e-9).
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hidden_well import REGIONS, hidden
from numpy.typing import NDArray
from seeds import with_offset
from systems_1d import Line, triple_well

import openmm_rlis as rlis
from openmm_rlis.config import build_problem
from openmm_rlis.config.run_config import RunConfig
from openmm_rlis.config.settings import Settings
from openmm_rlis.config.user_system import OwnSystem
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.learning.pilot import choose_roots
from openmm_rlis.problem import OUTSIDE, Problem
from openmm_rlis.sampling.progress import Progress
from openmm_rlis.statistics.branching import Window
from openmm_rlis.walks import trap_text, traps
from openmm_rlis.walks.branching_walk import Walk, walk
from openmm_rlis.walks.trap_text import Scalar, box, message, scalars
from openmm_rlis.walks.traps import Clock, Trap, Watcher, cloud

Array = NDArray[np.float64]
EXAMPLE = Path(__file__).parents[2] / "examples" / "own_system"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at every lag, and speak at once."""
    monkeypatch.setattr(traps, "BETWEEN_SAMPLES", 0.0)
    monkeypatch.setattr(traps, "LONG", 0)
    monkeypatch.setattr(traps, "FIRST_WORD", 0.0)


def watched(problem: Problem, positions: Array, looks: int = 8) -> list[Trap]:
    said: list[list[Trap]] = []
    watch = Watcher(problem, lambda found, lag, seconds: said.append(list(found)), Clock(next_word=0.0))
    for part in np.array_split(positions, looks):
        watch(1000, part, np.ones(len(part), dtype=bool))
    return watch.traps()


def on_the_line(x: Array) -> Array:
    return np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=-1)[:, None]


# --- clouds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 6])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_densest_cloud_is_found_among_scattered_values(k: int, share: float) -> None:
    rng = np.random.default_rng(with_offset(k))
    n = int(2000 * share)
    middle = rng.normal(size=k)
    values = np.concatenate([middle + 0.1 * rng.normal(size=(n, k)), 3.0 * rng.normal(size=(2000 - n, k))])
    inside = cloud(values)
    assert inside[:n].mean() > 0.7 and inside[n:].mean() < 0.1
    # The scattered values inside pull the mean by less than their share of the width.
    assert np.abs(values[inside].mean(0) - middle).max() < 0.03


def test_a_cloud_of_equal_values_is_all_of_them() -> None:
    assert cloud(np.ones((50, 3))).all() and cloud(np.ones((1, 1))).all()


def test_two_traps_are_both_named_the_larger_first(at_once: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(with_offset(1))
    x = np.concatenate([rng.normal(0.0, 0.03, 1200), rng.normal(0.5, 0.03, 700), rng.uniform(-0.8, 0.8, 100)])
    problem = build_problem.build(RunConfig.from_yaml(hidden(tmp_path, 3.0)))
    first, second = watched(problem, on_the_line(rng.permutation(x)))
    assert abs(first.center[0]) < 0.01 and abs(second.center[0] - 0.5) < 0.01
    assert 0.5 < first.time < 0.7 and 0.25 < second.time < 0.42
    for trap in (first, second):
        assert 0.03 < trap.radius < 0.075  # 0.9 of a normal distribution lie within 1.64 of its widths


def test_the_ball_stays_off_the_regions(at_once: None) -> None:
    """A cloud that begins where A ends: the ball ends before."""
    line = Line((0.0,), -1.0, (-2.0, 0.0), (1.0, 2.0), balls=True)
    rng = np.random.default_rng(with_offset(1))
    (trap,) = watched(line.problem(), on_the_line(np.abs(rng.normal(0.0, 0.3, 1000)) + 1e-6))
    assert 0.0 < trap.radius < trap.center[0]
    points = on_the_line(np.linspace(trap.center[0] - trap.radius, trap.center[0] + trap.radius, 100))
    assert (line.problem().label(points) == OUTSIDE).all()


def test_nothing_is_said_of_walkers_that_are_scattered_or_new() -> None:
    said: list[object] = []
    problem = triple_well(8.0, 0.4, balls=True).problem()
    watch = Watcher(problem, lambda *told: said.append(told), Clock())
    x = on_the_line(np.linspace(0.3, 0.9, 100))
    for lag in range(1, 200):
        watch(lag, x, np.ones(100, dtype=bool))
        watch(lag, x, np.zeros(100, dtype=bool))
    assert said == []


# --- the same walk ----------------------------------------------------------------------------------------------------


def test_a_walk_that_is_watched_is_the_same_to_the_last_bit(at_once: None) -> None:
    line = triple_well(6.0, 0.4, balls=True)
    problem, settings = line.problem(), Settings(n_slots=64)
    said: list[object] = []

    def done(watch: Any) -> Walk:
        engine, rng = Engine(problem, 64), np.random.default_rng(with_offset(5))
        engine.reseed(rng)
        exits = on_the_line(np.full(40, 0.3))
        roots = choose_roots(np.zeros(40), exits, exits, 40, settings, rng)
        return walk(engine, lambda x: np.zeros(len(x)), roots, Window(), rng, control=True, watch=watch)

    plain, seen = done(None), done(Watcher(problem, lambda *told: said.append(told), Clock(next_word=0.0)))
    assert said and plain.n_lags == seen.n_lags
    for name in ("success", "ended", "hidden", "martingale", "walker_lags", "tallies"):
        assert getattr(plain, name).tobytes() == getattr(seen, name).tobytes(), name
    assert plain.frames.log_weights.tobytes() == seen.frames.log_weights.tobytes()
    assert np.asarray(plain.tree.positions).tobytes() == np.asarray(seen.tree.positions).tobytes()


# --- words and regions to paste ---------------------------------------------------------------------------------------


def pasted(path: Path, text: str) -> Problem:
    """Return the problem of a configuration to which the proposal in a message was added as it stands."""
    added = yaml.safe_load(text[text.index("  regions:") :])
    content = yaml.safe_load(path.read_text())
    content["system"]["regions"] |= added["regions"]
    content["system"]["others"] = added["others"]
    path.write_text(yaml.safe_dump(content))
    made = build_problem.build(RunConfig.from_yaml(path))
    assert isinstance(made, Problem)
    return made


def test_a_trap_of_an_own_system_can_be_pasted(at_once: None, tmp_path: Path) -> None:
    path = hidden(tmp_path, 3.0)
    problem = build_problem.build(RunConfig.from_yaml(path))
    x = on_the_line(np.random.default_rng(with_offset(1)).normal(0.01, 0.05, 2000))
    found = watched(problem, x)
    text = message(problem, found, 1950, 31.0, tmp_path)
    assert text.startswith("walkers have been outside all regions for 3.9 ps, 31 s of this run:")
    spread = float(text.split(" +- ")[1].split(" nm")[0])
    assert "of their time, at x = 0.0" in text and 0.035 < spread < 0.055
    again = pasted(path, text)
    assert [region.name for region in again.others] == ["D0"]
    share = again.others[0].contains(x).mean()
    assert 0.75 < share < 0.99


def test_a_region_that_is_described_and_not_used_is_named(at_once: None, tmp_path: Path) -> None:
    path = hidden(tmp_path, 3.0, {**REGIONS, "M": {"within": {"x": ["-0.1 nm", "0.1 nm"]}}})
    problem = build_problem.build(RunConfig.from_yaml(path))
    found = watched(problem, on_the_line(np.random.default_rng(with_offset(1)).normal(0.0, 0.05, 2000)))
    text = message(problem, found, 1000, 31.0, tmp_path)
    assert "That is region M of the configuration: stop the run and use it:\n  others: [M]" in text


def test_a_box_stays_off_the_intervals_of_the_regions(at_once: None, tmp_path: Path) -> None:
    path = hidden(tmp_path, 3.0)
    problem = build_problem.build(RunConfig.from_yaml(path))
    x = -0.85 + np.abs(np.random.default_rng(with_offset(1)).normal(0.0, 0.2, 2000))
    text = message(problem, watched(problem, on_the_line(x)), 1000, 31.0, tmp_path)
    again = pasted(path, text)  # which refuses regions that overlap
    assert again.others[0].contains(on_the_line(np.array([float(np.median(x))])))[0]


def test_a_trap_of_a_problem_from_python_is_a_line_of_python(at_once: None, tmp_path: Path) -> None:
    problem = triple_well(8.0, 0.4, balls=True).problem()
    x = on_the_line(np.random.default_rng(with_offset(1)).normal(0.6, 0.03, 1000))
    text = message(problem, watched(problem, x), 100, 31.0, tmp_path)
    line = text.splitlines()[-1].strip()
    assert line.startswith("others=[*others, rlis.Region.ball(problem.features, [0.")
    (region,) = eval(line.removeprefix("others="), {"rlis": rlis, "problem": problem, "others": []})
    assert region.name == "D1" and 0.7 < region.contains(x).mean() < 0.95


def test_angles_go_round_the_circle() -> None:
    """A cloud about 180 degrees: its middle, its spread, and an interval that goes through it."""
    values = np.random.default_rng(with_offset(1)).normal(math.pi, 0.2, 4000)
    one = Scalar("phi", np.remainder(values + math.pi, 2 * math.pi) - math.pi, "angle", 2 * math.pi)
    assert abs(one.off(math.pi).mean()) < 0.02 and abs(abs(one.middle) - math.pi) < 0.02
    content = yaml.safe_load((EXAMPLE / "config.yaml").read_text())["system"]
    own = OwnSystem(**content)
    low, high = box(own, [one])["phi"]
    assert high - low < 4.0 * 0.2
    (name,) = [key for key in own.regions if key == "trans"]
    assert name == own.source  # which is about 180 degrees: nothing but its own middle is left


def test_features_of_several_numbers_make_a_ball_about_a_structure(at_once: None, tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLE / "make_files.py"))["main"](tmp_path)
    content = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    content["system"]["features"]["r"] = {"distances": "all"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    problem = build_problem.build(RunConfig.from_yaml(tmp_path / "config.yaml"))
    rng = np.random.default_rng(with_offset(1))
    x = problem.positions * 1.2 + 0.002 * rng.normal(size=(400, *problem.positions.shape))  # stretched: not in use
    (trap,) = watched(problem, x)
    own = trap_text.own_section(problem)
    assert own is not None and [one.name for one in scalars(own, problem, trap)] == ["ends", "phi"]
    text = message(problem, [trap], 100, 31.0, tmp_path)
    assert (tmp_path / "traps" / "D1.pdb").is_file() or "D0.pdb" in text
    assert "ball: {around: " in text and "features: [ends, phi, r]" in text


# --- a whole run ------------------------------------------------------------------------------------------------------


class SeenError(Exception):
    """Ends a run that has said enough."""


@pytest.mark.slow
def test_a_hidden_intermediate_is_named_and_proposed(tmp_path: Path) -> None:
    path = hidden(tmp_path, 3.0)
    problem = build_problem.build(RunConfig.from_yaml(path))
    told: list[Progress] = []

    def listen(one: Progress) -> None:
        told.append(one)
        if "regions" in one.message:
            raise SeenError

    with pytest.raises(SeenError):
        rlis.run(problem, tmp_path / "run", target_relative_error=0.2, max_seconds=200.0, progress=listen)
    times = [one.seconds for one in told]
    assert max(np.diff(times)) < 12.0
    again = pasted(path, told[-1].message)
    assert again.others[0].contains(on_the_line(np.zeros(1)))[0]
    assert not again.others[0].contains(on_the_line(np.array([0.4, -0.4]))).any()
    assert "outside all regions" in (tmp_path / "run" / "log.jsonl").read_text()

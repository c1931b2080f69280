"""Platforms: the fastest one for a System that is not packed, found once, kept for the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from test_lost_walkers import WELL, particles, problem_of

from openmm_rlis.dynamics import platforms
from openmm_rlis.dynamics.bias import platform_names
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.platforms import choose_platform, platform_text, step_seconds
from openmm_rlis.errors import BackendError
from openmm_rlis.sampling import run as sampler
from openmm_rlis.storage.run_directory import RunDirectory


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "MOMENT", 0.01)


def test_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(particles(WELL, packed=False))
    for slow, fast in (("CPU", "Reference"), ("Reference", "CPU")):
        times = {slow: 2e-3, fast: 1e-3}
        monkeypatch.setattr(platforms, "platform_names", lambda: ["Reference", "CPU"])
        monkeypatch.setattr(platforms, "step_seconds", lambda _, name, times=times: times[name])
        assert choose_platform(problem, None) == (fast, times)
        assert list(choose_platform(problem, None)[1]) == [fast, slow]
    assert choose_platform(problem, "CPU") == ("CPU", {})
    assert choose_platform(problem_of(particles(WELL)), None) == (None, {})


def test_a_platform_that_takes_no_such_system_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(particles(WELL, packed=False))

    def fails(_: object, name: str) -> float:
        if name == "CPU":
            raise BackendError("no memory")
        return 1.0

    monkeypatch.setattr(platforms, "platform_names", lambda: ["Reference", "CPU"])
    monkeypatch.setattr(platforms, "step_seconds", fails)
    assert choose_platform(problem, None) == ("Reference", {"Reference": 1.0})
    monkeypatch.setattr(platforms, "platform_names", lambda: ["CPU"])
    with pytest.raises(BackendError, match="no platform of OpenMM takes this System; CPU: no memory"):
        choose_platform(problem, None)


def test_the_times_are_those_of_steps(quick: None) -> None:
    """Of one particle and of 300 that all see each other, on the Reference platform."""
    few = problem_of(particles(WELL, packed=False))
    system = particles(WELL, 300, packed=False)
    force = openmm.CustomNonbondedForce("0*r")
    for _ in range(300):
        force.addParticle([])
    system.addForce(force)
    many = problem_of(system, features=lambda x: x[:, -1])
    assert 5.0 * step_seconds(few, "Reference") < step_seconds(many, "Reference") < 1.0


def test_timing_leaves_random_streams_alone(quick: None) -> None:
    """On the Reference platform all Contexts of a process draw from one stream."""
    problem, walks = problem_of(particles(WELL, packed=False)), []
    for timed in (False, True):
        engine = Engine(problem, platform="Reference")
        engine.reseed(np.random.default_rng(1))
        x, _ = engine.propagate(problem.positions[None])
        if timed:
            for name in platform_names():
                step_seconds(problem, name)
        walks.append(engine.propagate(x)[0])
    np.testing.assert_array_equal(*walks)


def test_a_run_keeps_its_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is resumed where another one would be faster, and in its workers; it says what it took."""
    monkeypatch.setattr(platforms, "step_seconds", lambda _, name: 1e-3 if name == "Reference" else 5e-3)
    problem, told = problem_of(particles(WELL, packed=False)), []
    sampler.brute(problem, tmp_path / "run", max_seconds=1e-3, progress=lambda p: told.append(p.message))
    assert "platform Reference (a step on Reference 1 ms, CPU 5 ms" in told[0]
    with RunDirectory.open(tmp_path / "run") as store:
        assert store.config["platform"] == "Reference" and store.config["platform_seconds"]["Reference"] == 1e-3
    monkeypatch.setattr(platforms, "step_seconds", lambda _, name: 1e-3 if name == "CPU" else 5e-3)
    made = []
    monkeypatch.setattr(sampler, "Engine", lambda *given: made.append(given[2]) or Engine(*given))
    sampler.resume(tmp_path / "run", problem, max_seconds=2e-3)
    assert made == ["Reference"]


def test_packed_systems_are_as_before(tmp_path: Path) -> None:
    sampler.brute(problem_of(particles(WELL)), tmp_path / "run", max_seconds=1e-3)
    with RunDirectory.open(tmp_path / "run") as store:
        assert store.config["platform"] is None and "platform_seconds" not in store.config
    assert platform_text({}) == ""

"""One particle in the plane: energies, and rates and channel shares through the public API against finite volumes.

Each stochastic assert is |estimate - truth| < 3 % + 4.6 standard errors of a Student t with 19 degrees of freedom, a
false-alarm rate of 2e-4; the 3 % are for the finite time step and lag.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import openmm
import pytest
from scipy.optimize import root
from seeds import with_offset
from systems_1d import ONE_KT, packaged_double_well
from test_oracles_2d import mueller, wells

import openmm_rlis as rlis
from openmm_rlis.errors import InputError
from openmm_rlis.report import report
from openmm_rlis.systems import double_well, mueller_brown, triple_well

SYSTEMS = [double_well, mueller_brown, triple_well]


def openmm_energies(problem: rlis.Problem, points: np.ndarray) -> np.ndarray:
    context = openmm.Context(
        problem.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    found = []
    for x, y in points:
        context.setPositions([openmm.Vec3(x, y, 0.0)])
        found.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    return np.array(found)


@pytest.mark.parametrize("options", [{}, {"tilt": 0.5}])
def test_energies_of_the_planes(options: dict[str, float]) -> None:
    points = np.random.default_rng(with_offset(1)).uniform((-1.5, -0.5), (1.2, 2.0), size=(40, 2))
    x, y = points.T
    assert openmm_energies(triple_well.build(**options), points) == pytest.approx(
        triple_well.energy(x, y, **options), rel=1e-5
    )
    assert openmm_energies(mueller_brown.build(), points) == pytest.approx(mueller_brown.energy(x, y), rel=1e-5)


@pytest.mark.parametrize("system", SYSTEMS)
def test_named_points_are_minima(system: ModuleType) -> None:
    problem = system.build()
    for name, (x, y) in system.landmarks().items():
        around = [(x + 1e-3 * a, y + 1e-3 * b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        energies = openmm_energies(problem, np.array(around))
        assert energies[4] <= energies.min() + 1e-6, name


def test_saddles_of_mueller_brown() -> None:
    def slope(p: np.ndarray) -> np.ndarray:
        h = 1e-6
        return np.array([
            (mueller_brown.energy(*(p + d)) - mueller_brown.energy(*(p - d))) / (2 * h) for d in h * np.eye(2)
        ])  # fmt: skip

    top = root(slope, [-0.82, 0.62]).x
    assert top == pytest.approx([-0.822, 0.624], abs=1e-3)
    assert float(mueller_brown.energy(*top)) == pytest.approx(-4.0665, abs=1e-3)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "options",
    [{"source": "Q"}, {"target": "L", "source": "L"}, {"beta": -1.0}, {"beta": float("nan")}, {"timestep": 0.0}],
)
def test_bad_options(system: ModuleType, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected .*, got"):
        system.build(**options)


def test_temperature_is_one_over_beta() -> None:
    assert mueller_brown.build(beta=2.0).temperature == pytest.approx(0.5 * ONE_KT)


def test_channels_of_drawn_paths() -> None:
    def path(*points: tuple[float, float]) -> np.ndarray:
        return np.array([[[x, y, 0.0]] for x, y in points], dtype=np.float32)

    assert triple_well.channel(path((-1, 0), (-0.1, 1.5), (0.1, 1.5), (1, 0))) == "upper"
    assert triple_well.channel(path((-1, 0), (-0.1, -0.3), (0.1, -0.3), (1, 0))) == "lower"
    # over the top, back again over the top, then below
    assert triple_well.channel(path((-1, 1), (1, 1), (-1, 1), (-1, -1), (1, -1))) == "lower"


def near(found: rlis.Estimate, truth: float) -> bool:
    return abs(found.value - truth) < 0.03 * truth + 4.6 * found.standard_error


@pytest.mark.slow
def test_rate_of_mueller_brown(tmp_path: Path) -> None:
    result = rlis.run(mueller_brown.build(beta=1.0), tmp_path / "run", seed=with_offset(1))
    assert near(result.rate, mueller(1.0, 360).rate)


@pytest.mark.slow
def test_a_rate_of_one_in_a_million(tmp_path: Path) -> None:
    # Only some hundred frames to learn from: exits of L fall back at once.
    exact = packaged_double_well(16.0).chain.endless.rate
    result = rlis.run(double_well.build(height=16.0), tmp_path / "run", seed=with_offset(1), target_relative_error=0.2)
    assert exact < 1e-6 and near(result.rate, exact)
    assert result.cost["force_evaluations"]["total"] < 1e8  # brute force: some 1e12


@pytest.mark.parametrize("tilt", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_rate_and_shares_of_the_triple_well(tmp_path: Path, tilt: float) -> None:
    result = rlis.run(triple_well.build(beta=3.0, tilt=tilt), tmp_path / "run", seed=with_offset(1))
    exact = wells(3.0, tilt, 384)
    assert near(result.rate, exact.rate)
    assert near(result.channels(triple_well.channel)["upper"], exact.share(0.0, triple_well.HILL))
    figures = {path.name for path in report(tmp_path / "run")}
    assert "paths_on_plane.png" in figures and "structures.png" not in figures


@pytest.mark.slow
def test_rate_of_mueller_brown_in_the_cold(tmp_path: Path) -> None:
    result = rlis.run(mueller_brown.build(beta=3.0), tmp_path / "run", seed=with_offset(1))
    assert near(result.rate, mueller(3.0, 360).rate)

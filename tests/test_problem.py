"""Problem: what it derives, how it labels, and every refused input by the argument its one line names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_rlis import features
from openmm_rlis.errors import DivergedError, InputError
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.units import BOLTZMANN

START = np.array([[-1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.3, 0.0, 0.4]])


def plain_system() -> openmm.System:
    system = openmm.System()
    for mass in (12.0, 1.0, 16.0):
        system.addParticle(mass)
    return system


def left() -> Region:
    return Region.where(lambda x: x[:, 0, 0] < -0.5)


def right() -> Region:
    return Region.where(lambda x: x[:, 0, 0] > 0.5)


def make(**changes: Any) -> Problem:
    options: dict[str, Any] = {
        "system": plain_system(),
        "positions": START,
        "source": left(),
        "target": right(),
        "temperature": 300.0,
        "friction": 2.0,
        "timestep": 0.001,
    }
    options.update(changes)
    return Problem(options.pop("system"), options.pop("positions"), **options)


def refused(argument: str, **changes: Any) -> str:
    with pytest.raises(InputError, match=rf"^{re.escape(argument)}: expected ") as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def barostats() -> list[openmm.Force]:
    forces = [
        openmm.MonteCarloBarostat(1.0, 300.0),
        openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300.0),
        openmm.MonteCarloMembraneBarostat(1.0, 0.0, 300.0, 0, 0),
        openmm.MonteCarloFlexibleBarostat(1.0, 300.0),
        openmm.RPMDMonteCarloBarostat(1.0),
    ]
    known = {name for name in dir(openmm) if name.endswith("Barostat") and isinstance(getattr(openmm, name), type)}
    assert {type(force).__name__ for force in forces} == known
    return forces


def test_barostats_are_refused() -> None:
    for force in barostats():
        kind = type(force).__name__
        system = plain_system()
        system.addForce(force)
        assert f"constant volume, got a {kind}; remove it" in refused("system", system=system)


def with_force(force: openmm.Force) -> openmm.System:
    system = plain_system()
    system.addForce(force)
    return system


def with_virtual_site() -> openmm.System:
    system = plain_system()
    system.setParticleMass(1, 0.0)
    system.setVirtualSite(1, openmm.TwoParticleAverageSite(0, 2, 0.5, 0.5))
    return system


def with_constraint() -> openmm.System:
    system = plain_system()
    system.addConstraint(0, 1, 0.1)
    return system


def massless() -> openmm.System:
    system = plain_system()
    for i in range(3):
        system.setParticleMass(i, 0.0)
    return system


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (with_force(openmm.CMMotionRemover()), "a CMMotionRemover; remove it"),
        (with_force(openmm.AndersenThermostat(300.0, 1.0)), "an? AndersenThermostat; remove it"),
        (with_virtual_site(), "virtual sites"),
        (with_constraint(), "got 1; build it with constraints=None"),
        (massless(), "at least one particle with a mass"),
        (openmm.System(), "at least one particle"),
        ("system.xml", "an openmm.System, got str"),
        (None, "an openmm.System, got NoneType"),
    ],
    ids=["CMMotionRemover", "AndersenThermostat", "virtual site", "constraint", "no mass", "empty", "a name", "None"],
)
def test_systems_whose_kernel_is_another_are_refused(system: Any, said: str) -> None:
    assert re.search(said, refused("system", system=system))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("temperature", -300.0),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("temperature", 1.0 * unit.picosecond),
        ("temperature", "warm"),
        ("temperature", None),
        ("temperature", True),
        ("friction", -1.0),
        ("friction", 0.0),
        ("friction", 1.0 * unit.picosecond),
        ("friction", float("inf")),
        ("timestep", -0.001),
        ("timestep", 0.0),
        ("timestep", 1.0 / unit.picosecond),
        ("timestep", [0.001, 0.002]),
        ("lag_steps", 0),
        ("lag_steps", -5),
        ("lag_steps", True),
        ("lag_steps", 2.5),
        ("lag_steps", "20"),
        ("lag_steps", None),
        ("dynamics", "langevin"),
        ("dynamics", "Brownian"),
        ("dynamics", None),
        ("dimensions", 0),
        ("dimensions", 4),
        ("dimensions", True),
        ("dimensions", 2.5),
        ("dimensions", None),
        ("positions", START[:2]),
        ("positions", START[None]),
        ("positions", START[:, :2]),
        ("positions", START * unit.kelvin),
        ("positions", START * np.nan),
        ("positions", None),
        ("positions", 3.0),
    ],
    ids=str,
)
def test_bad_numbers_are_refused(argument: str, value: Any) -> None:
    refused(argument, **{argument: value})


def test_a_start_outside_the_source_is_refused() -> None:
    for x, where in ((0.0, "one in no region"), (0.9, "one in region B")):
        positions = START.copy()
        positions[0, 0] = x
        assert where in refused("positions", positions=positions)


def overlapping_balls() -> dict[str, Any]:
    feature = features.positions()
    return {
        "source": Region.ball(feature, START.reshape(-1), 0.6),
        "target": Region.ball(feature, START.reshape(-1) + 0.3, 0.6),
    }


def test_overlapping_balls_are_refused_at_once() -> None:
    assert "overlap by" in refused("regions", **overlapping_balls())


def test_overlapping_predicates_are_found_when_a_structure_lies_in_both() -> None:
    problem = make(others=[Region.where(lambda x: x[:, 0, 0] > 0.8, "trap")])
    x = np.stack([START, START, START])
    x[:, 0, 0] = [0.0, 0.7, 0.9]
    assert problem.label(x[:2]).tolist() == [0, 2]
    with pytest.raises(InputError, match=r"^regions: expected disjoint sets, got a structure in both B and trap;"):
        problem.label(x)
    refused("regions", target=Region.where(lambda x: x[:, 0, 0] < 0.0))


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("region A", {"source": 3}),
        ("region B", {"target": lambda x: x[:, 0, 0] > 0.5}),
        ("region D0", {"others": ["C0"]}),
        ("region A", {"source": Region.where(lambda x: x[:, 0, 0])}),
        ("region B", {"target": Region.where(lambda x: x[:, :, 0] > 0.5)}),
        ("region A", {"source": Region.ball(features.positions(), [0.0, 0.0], 1.0)}),
        (
            "regions",
            {
                "source": Region.where(lambda x: x[:, 0, 0] < -0.5, "C"),
                "target": Region.where(lambda x: x[:, 0, 0] > 0.5, "C"),
            },
        ),
        ("feature CallableFeature", {"source": Region.ball(lambda x: x[:, :, 0] / 0.0, [0.0], 1.0)}),
        ("feature CallableFeature", {"features": lambda x: x[:, :, 0] * float("nan")}),
        ("feature CallableFeature", {"features": lambda x: x}),
        ("feature CallableFeature", {"features": lambda x: x[:, 7]}),
        ("feature", {"features": 3}),
        ("references", {"references": {"B": START}}),
        ("positions", {"references": {"B": START[:2]}}),
    ],
)
def test_bad_regions_and_features_are_refused(argument: str, changes: dict[str, Any]) -> None:
    refused(argument, **changes)


def test_features_that_turn_nan_on_the_way_are_named() -> None:
    problem = make(source=Region.ball(lambda x: torch.log(-x[:, :1, 0]), [0.0], 0.5))
    x = np.stack([START, -START])
    where = r"NaN or infinity for 1 of 2 structures \(the first has atom 0 at [-0-9., ]* nm\)$"
    with pytest.raises(InputError, match=rf"^feature of region A: expected finite values, got {where}"):
        problem.label(x)


def test_walkers_that_are_not_finite_are_counted_and_named() -> None:
    x = np.tile(START, (20, 1, 1))
    x[[4, 9], 1, 2] = np.nan
    x[11, 0, 0] = -np.inf
    with pytest.raises(DivergedError, match=r"^3 of 20 walkers have coordinates .* not finite \(first: walker 4\)"):
        make().label(x)


def test_labels_are_those_of_the_regions_and_row_by_row() -> None:
    problem = make(others=[Region.where(lambda x: (x[:, 0, 0].abs() < 0.2) & (x[:, 0, 1] > 1.0))])
    x = np.random.default_rng(2).normal(size=(300, 3, 3))
    h, y = x[:, 0, 0], x[:, 0, 1]
    expected = np.select([h < -0.5, h > 0.5, (np.abs(h) < 0.2) & (y > 1.0)], [1, 2, 3], 0)
    assert set(expected) == {0, 1, 2, 3}
    codes = problem.label(x)
    assert codes.dtype == np.int8
    np.testing.assert_array_equal(codes, expected)
    assert problem.label(x[:0]).shape == (0,)
    assert [region.name for region in problem.regions] == ["A", "B", "D0"]


def test_balls_that_share_a_feature_evaluate_it_once() -> None:
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return x[:, :1, 0]

    feature = features.as_feature(counted)
    problem = make(source=Region.ball(feature, [-1.0], 0.5), target=Region.ball(feature, [1.0], 0.5))
    calls.clear()
    assert problem.label(np.stack([START, -START])).tolist() == [1, 2]
    assert calls == [2]


def test_quantities_and_floats_describe_the_same_problem() -> None:
    a = make()
    b = make(
        positions=START * 10.0 * unit.angstrom,
        temperature=300.0 * unit.kelvin,
        friction=0.002 / unit.femtosecond,
        timestep=1.0 * unit.femtosecond,
    )
    for name in ("temperature", "kT", "friction", "timestep", "lag_time", "beta"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-12)
    np.testing.assert_allclose(b.positions, a.positions, rtol=1e-12)
    assert a.kT == pytest.approx(300.0 * BOLTZMANN, rel=1e-12)
    assert a.beta * a.kT == pytest.approx(1.0, rel=1e-12)
    assert make(lag_steps=np.int64(7)).lag_time == pytest.approx(0.007, rel=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_mobility_is_dt_over_m_gamma_and_zero_where_frozen(dimensions: int) -> None:
    system = plain_system()
    system.setParticleMass(1, 0.0)
    table = make(system=system, dimensions=dimensions).mobility()
    expected = np.zeros((3, 3))
    expected[0, :dimensions], expected[2, :dimensions] = 0.001 / (12.0 * 2.0), 0.001 / (16.0 * 2.0)
    np.testing.assert_allclose(table, expected, rtol=1e-14)


def test_default_features() -> None:
    x = torch.as_tensor(START[None])
    pairs = sorted(np.linalg.norm(START[i] - START[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_allclose(make().features(x)[0].numpy(), pairs, rtol=1e-12)
    feature = features.coordination([0, 1, 2], 1.0)
    center = feature(x)[0].numpy()
    ball = make(source=Region.ball(feature, center, 0.01), target=Region.ball(feature, center + 1.0, 0.01))
    assert ball.features is feature
    own = make(features=lambda x: x[:, :1, 0])
    assert own.features(x).item() == -1.0
    single = openmm.System()
    single.addParticle(1.0)
    np.testing.assert_array_equal(make(system=single, positions=START[:1]).features(x[:, :1])[0].numpy(), START[0])


def test_large_systems_with_predicates_need_features() -> None:
    system = openmm.System()
    for _ in range(41):
        system.addParticle(1.0)
    positions = np.full((41, 3), -1.0)
    assert "41" not in refused("features", system=system, positions=positions)
    assert make(system=system, positions=positions, features=lambda x: x[:, 0]).n_atoms == 41


def test_a_single_region_in_place_of_a_list_is_refused() -> None:
    refused("others", others=right())


def test_a_unit_cell_is_that_of_a_periodic_system_only() -> None:
    system = plain_system()
    system.setDefaultPeriodicBoxVectors([3.0, 0, 0], [0.5, 4.0, 0], [0.25, 0.5, 5.0])
    assert make(system=system).unit_cell is None
    force = openmm.HarmonicBondForce()
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    assert make(system=system).unit_cell == [[3.0, 0, 0], [0.5, 4.0, 0], [0.25, 0.5, 5.0]]

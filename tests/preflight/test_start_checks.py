"""What is known before a run starts: refused in one line, and nothing is left on the disk."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import yaml
from openmm import app

from openmm_rlis import cli, features
from openmm_rlis.errors import InputError, StorageError
from openmm_rlis.preflight import start_checks
from openmm_rlis.preflight.stiffness import relaxed, stiffest_mode
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.sampling import run as sampler
from openmm_rlis.systems import available, build

REFERENCE = openmm.Platform.getPlatformByName("Reference")
KAPPA, LENGTH = 2.8e5, 0.109
"""Of a C-H bond: kJ/mol/nm^2, nm."""


def topology(symbols: str) -> app.Topology:
    made = app.Topology()
    residue = made.addResidue("MOL", made.addChain())
    for i, symbol in enumerate(symbols):
        made.addAtom(f"{symbol}{i}", app.Element.getBySymbol(symbol), residue)
    return made


def molecule(kappa: float = KAPPA, masses: tuple[float, ...] = (12.0, 1.0, 16.0)) -> openmm.System:
    """Return H-C-O with a stiff bond 0-1 and a soft one 0-2."""
    system, bonds = openmm.System(), openmm.HarmonicBondForce()
    for mass in masses:
        system.addParticle(mass)
    bonds.addBond(0, 1, LENGTH, kappa)
    bonds.addBond(0, 2, 0.3, 1e3)
    system.addForce(bonds)
    return system


START = np.array([[0.0, 0.0, 0.0], [LENGTH, 0.0, 0.0], [0.0, 0.3, 0.0]])


def make(system: openmm.System | None = None, **changes: Any) -> Problem:
    pair = features.distances([(0, 2)])
    options: dict[str, Any] = {
        "topology": topology("CHO"), "source": Region.ball(pair, [0.3], 0.05), "target": Region.ball(pair, [0.5], 0.05),
        "temperature": 300.0, "friction": 1.0, "timestep": 1e-6,
    }  # fmt: skip
    positions = changes.pop("positions", START)
    return Problem(molecule() if system is None else system, positions, **{**options, **changes})


def refused(directory: Path, problem: Problem, start: Callable[..., Any] = sampler.run) -> str:
    """Return the one line of a start that is refused; nothing is left, not even folders above."""
    with pytest.raises(InputError) as caught:
        start(problem, directory / "a" / "run")
    assert "\n" not in str(caught.value) and list(directory.iterdir()) == []
    return str(caught.value)


def scaled_curvature(problem: Problem) -> float:
    """Return the largest eigenvalue of the whole matrix, from differences of forces coordinate by coordinate."""
    context = openmm.Context(problem.system, openmm.VerletIntegrator(0.001), REFERENCE)

    def forces(x: Any) -> Any:
        context.setPositions(x.reshape(-1, 3))
        return context.getState(getForces=True).getForces(asNumpy=True)._value.reshape(-1)

    x, h = problem.positions.reshape(-1), 1e-5
    hessian = np.array([(forces(x - h * e) - forces(x + h * e)) / (2 * h) for e in np.eye(len(x))])
    root = np.sqrt(problem.mobility().reshape(-1))
    return float(np.linalg.eigvalsh(root[:, None] * (hessian + hessian.T) / 2 * root)[-1])


def forces_of(problem: Problem) -> Callable[[Any], Any]:
    return start_checks._forces(problem, REFERENCE)


@pytest.mark.parametrize("name", [*available(), "molecule"])
def test_the_stiffest_mode_is_that_of_the_whole_matrix(name: str) -> None:
    problem = make() if name == "molecule" else build(name, {})
    for platform in (REFERENCE, None):
        forces = start_checks._forces(problem, platform)
        mode = stiffest_mode(forces, problem.positions, problem.mobility(), problem.kT)
        assert mode.eigenvalue == pytest.approx(scaled_curvature(problem), rel=0.05)
    cold = stiffest_mode(forces_of(problem), problem.positions, problem.mobility(), 1e-9)
    assert cold.eigenvalue == pytest.approx(scaled_curvature(problem), rel=1e-4)


@pytest.mark.parametrize("name", available())
def test_packaged_systems_start_without_a_word(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_checks.check_start(build(name, {}), None)


def test_a_time_step_that_diverges_is_refused_with_the_longest_and_the_bond(tmp_path: Path) -> None:
    # k = dt kappa / (mu gamma) with the reduced mass mu of C and H; steps diverge above 2, and 1.6 is proposed.
    per_step = KAPPA * (1.0 / 12.0 + 1.0) / 1.0
    for start in (sampler.run, sampler.brute):
        said = refused(tmp_path, make(timestep=0.002), start)
        found = re.match(
            r"timestep: expected at most ([\d.]+) fs at friction 1/ps \(stiffest bond C-H, atoms 0 and 1\)", said
        )
        assert found is not None and said.endswith("allow longer steps") and "got 2 fs" in said
        assert 0.5 * 1.6 / per_step < float(found[1]) / 1000 <= 1.61 / per_step
    just_stable, just_not = 1.95 / per_step, 2.05 / per_step
    with pytest.warns(UserWarning, match="variance of the stiffest mode"):
        start_checks.check_start(make(timestep=just_stable), REFERENCE)
    assert "timestep" in refused(tmp_path, make(timestep=just_not))
    start_checks.check_start(make(timestep=just_not, friction=100.0), REFERENCE)
    start_checks.check_start(make(molecule(masses=(12.0, 0.0, 16.0)), timestep=1e-6), REFERENCE)


def test_the_proposed_time_step_is_taken_and_runs(tmp_path: Path) -> None:
    said = refused(tmp_path, make(timestep=0.002))
    longest = float(re.search(r"at most ([\d.]+) fs", said)[1]) / 1000  # type: ignore[index]
    context = openmm.Context(molecule(), openmm.BrownianIntegrator(300.0, 1.0, longest), REFERENCE)
    context.setPositions(START)
    context.getIntegrator().step(2000)
    assert np.isfinite(context.getState(getPositions=True).getPositions(asNumpy=True)._value).all()
    with pytest.warns(UserWarning, match="exact one"):
        start_checks.check_start(make(timestep=longest), REFERENCE)


def test_without_a_topology_atoms_are_numbers(tmp_path: Path) -> None:
    assert "stiffest bond of atoms 0 and 1" in refused(tmp_path, make(timestep=0.002, topology=None))


def external(expression: str) -> openmm.System:
    system, force = openmm.System(), openmm.CustomExternalForce(expression)
    system.addParticle(1.0)
    force.addParticle(0, [])
    system.addForce(force)
    return system


def particle(expression: str, x: float = 0.0, **changes: Any) -> Problem:
    place = features.Coordinates([(0, 0)])
    regions = {"source": Region.ball(place, [x], 0.1), "target": Region.ball(place, [x + 1.0], 0.1)}
    return make(external(expression), positions=[[x, 0, 0]], topology=None, **{**regions, "timestep": 1e-4, **changes})


@pytest.mark.parametrize(
    "problem",
    [
        particle("100*abs(x)"),  # a kink: infinitely stiff in a point, and not on the scale of kT
        particle("-1e6*x^2", 0.2),  # a hill
        particle("0*x"),
        particle("1e9*y^2", dimensions=1),  # stiff, but frozen
        particle("1e3*step(x-0.5)*(x-0.5)^2"),  # a wall somewhere else
        particle("1e-3/(x-0.3)^12", x=1.0),  # a repulsion that lets go
    ],
    ids=["kink", "hill", "free", "frozen", "wall", "repulsion"],
)
def test_what_is_not_stiff_is_not_refused(problem: Problem) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start_checks.check_start(problem, REFERENCE)


def test_a_strained_start_counts_as_what_it_relaxes_to() -> None:
    # Lennard-Jones, 20 % inside the minimum: 40 times as stiff as there, and the step relaxes it all the same.
    system, force = openmm.System(), openmm.CustomBondForce("4*((0.3/r)^12-(0.3/r)^6)")
    system.addParticle(0.0)
    system.addParticle(1.0)
    force.addBond(0, 1, [])
    system.addForce(force)
    pair = features.distances([(0, 1)])
    problem = make(
        system, positions=[[0, 0, 0], [0.27, 0, 0]], topology=None, timestep=5e-4,
        source=Region.ball(pair, [0.3], 0.05), target=Region.ball(pair, [0.6], 0.05),
    )  # fmt: skip
    forces, mobility = forces_of(problem), problem.mobility()
    mode = stiffest_mode(forces, problem.positions, mobility, problem.kT)
    assert mode.eigenvalue > 2.0
    rested = relaxed(forces, problem.positions, mobility, mode.eigenvalue)
    assert np.linalg.norm(rested[1] - rested[0]) == pytest.approx(0.3 * 2 ** (1 / 6), rel=1e-2)
    start_checks.check_start(problem, REFERENCE)


def lennard_jones(distance: float) -> Problem:
    system, force = openmm.System(), openmm.NonbondedForce()
    for _ in range(2):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    pair = features.distances([(0, 1)])
    regions = {"source": Region.ball(pair, [distance], 0.1), "target": Region.ball(pair, [1.0], 0.1)}
    return make(system, positions=[[0, 0, 0], [distance, 0, 0]], topology=topology("OH"), timestep=1e-4, **regions)


@pytest.mark.parametrize("distance", [0.0, 1e-30, 0.01, 0.03])
@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_overlaps_are_refused_with_the_atoms(tmp_path: Path, distance: float, platform: str) -> None:
    said = refused(tmp_path, lennard_jones(distance), partial(sampler.run, platform=platform))
    assert said.startswith("positions: expected a start structure ") and "minimise" in said
    assert "atom 0 (O) and atom 1 (H) are " in said


def test_energies_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    assert "positions: expected a start structure of finite energy" in refused(tmp_path, particle("sqrt(x-1)"))
    assert "positions: expected a start structure of finite energy" in refused(tmp_path, particle("log(x)"))


def parameters_that_differ() -> openmm.System:
    system = external("k*x^2")
    for value in (1.0, 2.0):
        force = openmm.CustomExternalForce("k*x^2")
        force.addGlobalParameter("k", value)
        force.addParticle(0, [])
        system.addForce(force)
    system.removeForce(0)
    return system


def missing_parameters() -> openmm.System:
    system = external("x^2")
    force = openmm.CustomNonbondedForce("c*r")
    force.addPerParticleParameter("c")
    system.addForce(force)
    return system


def long_cutoff() -> openmm.System:
    system = external("x^2")
    system.setDefaultPeriodicBoxVectors(openmm.Vec3(2, 0, 0), openmm.Vec3(0, 2, 0), openmm.Vec3(0, 0, 2))
    force = openmm.NonbondedForce()
    force.addParticle(0.0, 0.3, 1.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(1.1)
    system.addForce(force)
    return system


def atom_out_of_range() -> openmm.System:
    system, force = external("x^2"), openmm.HarmonicBondForce()
    force.addBond(0, 5, 0.1, 1.0)
    system.addForce(force)
    return system


@pytest.mark.parametrize(
    ("system", "named"),
    [
        (missing_parameters(), "exactly as many particles.*; add each particle"),
        (long_cutoff(), "half the periodic box.*; enlarge the box, or shorten the cutoff"),
        (external("x^2+q"), "[Uu]nknown variable.*q"),
        (atom_out_of_range(), "5"),
    ],
    ids=["no parameters", "cutoff", "unknown variable", "atom out of range"],
)
def test_what_openmm_refuses_is_one_line_before_the_start(tmp_path: Path, system: openmm.System, named: str) -> None:
    place = features.Coordinates([(0, 0)])
    regions = {"source": Region.ball(place, [0.0], 0.1), "target": Region.ball(place, [1.0], 0.1)}
    said = refused(tmp_path, make(system, positions=[[0, 0, 0]], topology=None, **regions))
    assert re.match(rf"system: expected one that OpenMM can compute, got its message: .*{named}", said)


def test_two_defaults_of_one_parameter_are_refused_by_the_problem() -> None:
    with pytest.raises(InputError, match="system: expected one default value of a global parameter"):
        make(parameters_that_differ(), positions=[[0, 0, 0]], topology=None)


def test_regions_that_nothing_can_enter_or_leave(tmp_path: Path) -> None:
    place = features.Coordinates([(0, 2)])
    flat = {"source": Region.ball(place, [0.0], 0.1), "target": Region.ball(place, [1.0], 0.1), "dimensions": 2}
    assert "region A: expected features of atoms that move" in refused(tmp_path, particle("x^2", **flat))
    both_fixed = molecule(masses=(0.0, 1.0, 0.0))
    assert "region A: expected features of atoms that move" in refused(tmp_path, make(both_fixed))


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert "directory: expected " in refused(tmp_path, particle("x^2"))


def test_a_start_that_fails_later_leaves_no_directory(tmp_path: Path) -> None:
    """B is out of reach, which takes some steps to find; and the same command comes to the same end."""
    place = features.Coordinates([(0, 0)])
    shut = particle("1e3*x^2", target=Region.ball(place, [9.0], 1.0), lag_steps=1)
    empty = tmp_path / "empty"
    for directory in (tmp_path / "new" / "run", tmp_path / "new" / "run", empty, empty):
        empty.mkdir(exist_ok=True)
        with pytest.raises(InputError, match="target: expected a region that paths from A can reach"):
            sampler.run(shut, directory, platform="Reference")
        assert [path.name for path in tmp_path.iterdir()] == ["empty"] and list(empty.iterdir()) == []


def test_another_run_in_the_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "rounds").mkdir()
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(InputError, match="directory"):
        sampler.run(particle("x^2"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "rounds"]


def test_a_directory_that_cannot_be_made_leaves_no_folders_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("openmm_rlis.storage.run_directory.write_root", full)
    with pytest.raises(StorageError, match="No space left"):
        sampler.run(build("double_well", {}), tmp_path / "a" / "b" / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--both"], ["--both", "--workers", "2"]], ids=["one", "both", "at once"])
def test_the_command_line_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    (folder / "m.xml").write_text(openmm.XmlSerializer.serialize(molecule()))
    for name, x in (("near", START), ("far", START * [1, 2, 1])):
        with open(folder / f"{name}.pdb", "w") as file:
            app.PDBFile.writeFile(topology("CHO"), x * openmm.unit.nanometer, file)
    near, far = {"within": {"d": [0.2, 0.4]}}, {"within": {"d": [0.5, 0.7]}, "structure": "far.pdb"}
    system = {
        "name": "m", "xml": "m.xml", "structure": "near.pdb", "temperature": 300, "friction": 1, "timestep": "2 fs",
        "lag_steps": 10, "features": {"d": {"distance": [0, 2]}}, "regions": {"near": near, "far": far},
        "source": "near", "target": "far",
    }  # fmt: skip
    (folder / "m.yaml").write_text(yaml.safe_dump({"system": system}))
    before = sorted(path.name for path in folder.iterdir())
    status = cli.execute(["run", str(folder / "m.yaml"), "--out", str(tmp_path / "x" / "out"), *words])
    err = capsys.readouterr().err
    assert status == 2 and err.startswith("error: timestep: expected at most") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["inputs"]
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("begun", [False, True])
def test_both_directions_that_failed_leave_what_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """If neither direction has begun nothing is left, or else the command could not be given again."""

    def fail(config: Any, directory: Path, limits: Any, trusted: bool) -> int:
        if begun:
            (directory / "forward").mkdir()
        return 1

    monkeypatch.setattr("openmm_rlis.cli.commands._both", fail)
    assert cli.execute(["run", "double_well", "--both", "--out", str(tmp_path / "a" / "out")]) == 1
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == (["a", "a/out", "a/out/checksums.json", "a/out/config.yaml", "a/out/forward"] if begun else [])

"""Identity: a run directory opens with its own problem, and names all that differs in another one."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
import yaml

import openmm_rlis as rlis
from openmm_rlis import cli, systems
from openmm_rlis.config import build_problem, problem_identity
from openmm_rlis.config.build_problem import problem_of
from openmm_rlis.config.run_config import DIRECTIONS, RunConfig
from openmm_rlis.config.settings import Settings
from openmm_rlis.errors import InputError
from openmm_rlis.openmm_system import torch_plugin
from openmm_rlis.openmm_system.system_differences import system_differences
from openmm_rlis.results.result import Result
from openmm_rlis.sampling import run as sampler
from openmm_rlis.sampling.stopping import Goal
from openmm_rlis.storage.atomic_files import MANIFEST, seal, unseal
from openmm_rlis.storage.new_run import PROBLEM
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.value_function import ValueFunction

SETTINGS = Settings(n_batches=8, replicas=4, learning_rounds=1, learning_roots=40, n_slots=64)
OLD_ENTRIES = ("temperature", "friction", "timestep", "lag_steps", "dynamics", "dimensions")


def system(k: float = 3.0, mass: float = 1.0, box: bool = False) -> openmm.System:
    made = openmm.System()
    made.addParticle(mass)
    force = openmm.CustomExternalForce("k*(x^2-1)^2 + 0.3*x")
    force.addGlobalParameter("k", k)
    force.addParticle(0, [])
    made.addForce(force)
    if box:
        pairs = openmm.NonbondedForce()
        pairs.addParticle(0.0, 1.0, 0.0)
        pairs.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        pairs.setCutoffDistance(0.5)
        made.addForce(pairs)
    return made


class Scaled(torch.nn.Module):
    """x of the particle, times a number."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x[:, 0, :1]


def problem(
    made: openmm.System | None = None, left: float = -0.7, right: float = 0.7, scale: float = 1.0, **more: Any
) -> rlis.Problem:
    """One particle in a double well; k = 0.1 /ps."""
    arguments: dict[str, Any] = {"temperature": 120.2724, "friction": 1.0, "timestep": 0.004, "lag_steps": 5}
    return rlis.Problem(
        made or system(),
        [[-1.0, 0.0, 0.0]],
        source=rlis.Region.where(lambda x: x[:, 0, 0] < left, "L"),
        target=rlis.Region.where(lambda x: x[:, 0, 0] > right, "R"),
        **{**arguments, "dimensions": 1, "features": Scaled(scale), **more},
    )


def balls(radius: float = 0.3, center: float = 1.0, kind: str = "ball", turned: bool = False) -> rlis.Problem:
    feature = rlis.features.positions()
    a = rlis.Region.ball(feature, [-1.0, 0, 0], 0.3, "L")
    b = rlis.Region.ball(feature, [center, 0, 0], radius, "R")
    if kind != "ball":
        b = rlis.Region.where(lambda x: (x[:, 0] - torch.tensor([1.0, 0, 0])).norm(dim=1) < 0.3, "R")
    common: dict[str, Any] = {
        "temperature": 120.2724,
        "friction": 1.0,
        "timestep": 0.004,
        "lag_steps": 5,
        "dimensions": 1,
    }
    ends = {"source": b, "target": a} if turned else {"source": a, "target": b}
    x = {"L": [[-1.0, 0, 0]], "R": [[1.0, 0, 0]]}
    return rlis.Problem(system(), x["R" if turned else "L"], **ends, references=x, **common)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("identity")
    return rlis.run(problem(), folder / "run", seed=3, target_relative_error=0.9, settings=SETTINGS)


@pytest.fixture(scope="module")
def old(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as earlier releases wrote it."""
    return aged(finished.directory, tmp_path_factory.mktemp("identity") / "old")


def fresh(made: rlis.Problem, directory: Path) -> Path:
    """Return the directory of a run that has done nothing yet."""
    config = sampler._config("run", made, 1, Goal(0.5, None, None), 1, None, SETTINGS)
    sampler._create(made, directory, config).close()
    return directory


def aged(directory: Path, copy: Path) -> Path:
    shutil.copytree(directory, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    rewrite(copy, "config.yaml", yaml.safe_dump({k: v for k, v in config.items() if k not in OLD_ENTRIES}))
    (copy / PROBLEM).unlink()
    sums = unseal(copy / MANIFEST)["files"]
    (copy / MANIFEST).write_bytes(seal({"files": {name: text for name, text in sums.items() if name != PROBLEM}}))
    return copy


def rewrite(directory: Path, name: str, text: str) -> None:
    """Change a file of a run directory, and its checksum."""
    import hashlib

    (directory / name).write_text(text)
    sums = unseal(directory / MANIFEST)["files"]
    (directory / MANIFEST).write_bytes(seal({"files": {**sums, name: hashlib.sha256(text.encode()).hexdigest()}}))


def content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def refusal(directory: Path, other: rlis.Problem) -> str:
    """Return the message with which both ways to open a run refuse a problem, and see that nothing is written."""
    before, messages = content(directory), set()
    for way in (rlis.resume, rlis.load):
        with pytest.raises(InputError) as caught:
            way(directory, other)
        messages.add(str(caught.value))
    assert content(directory) == before
    (message,) = messages
    assert message.startswith("problem: expected that of the run (") and "\n" not in message
    assert message.endswith("; start a new run")
    return message


# --- one difference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "stored", "found"),
    [
        (lambda: problem(temperature=150.0), "temperature 120.27 K", "150 K"),
        (lambda: problem(temperature=120.2725), "temperature 120.272", "120.272"),
        (lambda: problem(friction=2.0), "friction 1 /ps", "2 /ps"),
        (lambda: problem(timestep=0.002, lag_steps=9), "time step 0.004 ps, lag 5 steps", "time step 0.002 ps, lag 9"),
        (lambda: problem(lag_steps=10), "lag 5 steps", "10 steps"),
        (lambda: problem(dimensions=2), "dimensions 1", "2"),
        (lambda: problem(system(k=2.0)), "CustomExternalForce GlobalParameters Parameter k default 3", "2"),
        (lambda: problem(system(mass=2.0)), "mass of atom 0 1", "2"),
        (lambda: problem(system(box=True)), "box none, forces CustomExternalForce", "box [[2.0,"),
        (lambda: problem(left=-0.6), "region L with", ""),
        (lambda: problem(left=-0.8), "region L with", ""),
        (lambda: problem(right=0.5), "region R with", ""),
        (lambda: problem(right=0.9), "region R with", ""),
        (lambda: problem(scale=2.0), "features of value -1 in column 0", "of value -2"),
        (lambda: problem(features=lambda x: x[:, 0, :2]), "features of 1 columns", "of 2 columns"),
        (lambda: problem(others=[rlis.Region.where(lambda x: x[:, 0, 0] > 3, "D")]), "regions L, R", "another set"),
        (lambda: problem(temperature=150.0, friction=3.0, right=0.2), "temperature 120.27 K, friction 1 /ps, region R",
         "temperature 150 K, friction 3 /ps, region R"),
    ],
)  # fmt: skip
def test_what_differs_is_named(make: Callable[[], rlis.Problem], stored: str, found: str, finished: Result) -> None:
    message = refusal(finished.directory, make())
    assert f"({stored}" in message and f"), got {found}" in message, message


def test_the_same_problem_opens_a_finished_run(finished: Result) -> None:
    """Also from other text for the same numbers, another start structure in A, and another group of the force."""
    again = system()
    again.getForce(0).setForceGroup(3)
    again.getForce(0).setName("mine")
    same = problem(again, temperature=120.2724 * openmm.unit.kelvin)
    moved = problem()
    moved.positions = moved.positions - [0.01, 0.0, 0.0]
    for one in (problem(), same, moved):
        assert rlis.load(finished.directory, one).rate == finished.rate
        assert rlis.resume(finished.directory, one).rate == finished.rate


def test_an_early_run_directory_is_compared_with_what_it_holds(old: Path, finished: Result) -> None:
    assert rlis.load(old, problem()).rate == finished.rate == rlis.resume(old, problem()).rate
    for other, text in (
        (problem(temperature=150.0), "(temperature 120.27 K), got 150 K"), (problem(left=-0.6), "region L with"),
        (problem(lag_steps=10), "(lag time 0.02 ps), got 0.04 ps"), (problem(system(mass=2.0)), "mass of atom 0"),
        (problem(system(k=2.0)), "k default 3), got 2"),
        (problem(right=0.2), "region R with"), (problem(scale=2.0), "features those of its value function"),
    ):  # fmt: skip
        assert text in refusal(old, other)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: balls(radius=0.31), "radius of region R 0.3), got 0.31"),
        (lambda: balls(center=1.01), "center of region R of value 1"),
        (lambda: balls(kind="predicate"), "region R a ball), got a predicate"),
    ],
)
def test_balls_are_compared_before_anything_but_the_start_is_stored(
    other: Callable[[], rlis.Problem], text: str, tmp_path: Path
) -> None:
    fresh(balls(), tmp_path / "run")
    assert text in refusal(tmp_path / "run", other())
    assert rlis.load(tmp_path / "run", balls()).n_rounds == 0


def walled(y: float = 0.0, wall: float = 0.0, **more: Any) -> rlis.Problem:
    """A particle that moves along x only, beside a wall of mass zero that it feels."""
    made = openmm.System()
    made.addParticle(1.0)
    made.addParticle(0.0)
    force = openmm.CustomCompoundBondForce(2, "(3-4*y1+x2)*(x1^2-1)^2")
    force.addBond([0, 1], [])
    made.addForce(force)
    there = rlis.Region.where(lambda x: x[:, 0, 0] > 0.7, "R")
    return rlis.Problem(
        made, [[-1.0, y, 0], [wall, 0, 0]], source=rlis.Region.where(lambda x: x[:, 0, 0] < -0.7, "L"), target=there,
        temperature=120.0, friction=1.0, timestep=0.004, dimensions=1, features=Scaled(1.0), **more,
    )  # fmt: skip


def test_what_does_not_move_is_compared_with_the_start_of_the_run(tmp_path: Path) -> None:
    fresh(walled(), tmp_path / "run")
    rlis.load(tmp_path / "run", walled(4e-5))
    assert "y of particle 0, which does not move, 0 nm), got 0.5 nm" in refusal(tmp_path / "run", walled(0.5))
    assert "x of particle 1, which does not move, 0 nm), got -1 nm" in refusal(tmp_path / "run", walled(wall=-1.0))


def test_known_structures_agree_about_what_does_not_move() -> None:
    walled(references={"R": [[1.0, 0.0, 0.0], [0.0, 1e-4, 0.0]]})
    for other, text in (([[1.0, 0.5, 0], [0, 0, 0]], "y of particle 0 at 0 nm, got 0.5 nm"),
                        ([[1.0, 0, 0], [0, 0, 2.0]], "z of particle 1 at 0 nm, got 2 nm")):  # fmt: skip
        with pytest.raises(InputError, match=f"references: expected what does not move .*{text} in that of R"):
            walled(references={"R": other})


K = 3.0


def energy_of_k(state: Any) -> Any:
    x = state.getPositions(asNumpy=True)._value
    if abs(x[0, 0]) > 2.5:
        raise ValueError("no data")
    forces = np.zeros_like(x)
    forces[:, 0] = -4.0 * K * x[:, 0] * (x[:, 0] ** 2 - 1.0)
    return float((K * (x[:, 0] ** 2 - 1.0) ** 2).sum()), forces


def programmed(force: Any) -> openmm.System:
    made = openmm.System()
    made.addParticle(1.0)
    made.addForce(force)
    return made


@pytest.mark.parametrize("nested", [False, True])
def test_a_program_is_known_by_what_it_computes(nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PythonForce is stored as the name of its function."""

    def made() -> rlis.Problem:
        force: Any = openmm.PythonForce(energy_of_k)
        if nested:
            around = openmm.CustomCVForce("e")
            around.addCollectiveVariable("e", force)
            force = around
        return problem(programmed(force))

    fresh(made(), tmp_path / "run")
    rlis.load(tmp_path / "run", made())
    monkeypatch.setattr(sys.modules[__name__], "K", 3.1)
    assert "energy of reference structure 1 " in refusal(tmp_path / "run", made())


class Stiff(torch.nn.Module):
    """A well of TorchForce."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.k * ((x[:, 0] ** 2 - 1.0) ** 2).sum()


def test_a_network_that_is_traced_again_is_the_same(tmp_path: Path) -> None:
    """The bytes of its archive are not; those of another network of the same shape are told by its energy."""
    openmmtorch = pytest.importorskip("openmmtorch")
    if torch_plugin.load_plugin():
        pytest.skip("openmm-torch does not load here")

    def made(k: float) -> rlis.Problem:
        script = torch.jit.trace(Stiff(k), torch.zeros(1, 3))
        return problem(programmed(openmmtorch.TorchForce(script)))

    one = made(3.0)
    fresh(one, tmp_path / "run")
    assert made(3.0).system_xml != one.system_xml
    rlis.load(tmp_path / "run", made(3.0))
    assert "energy of reference structure" in refusal(tmp_path / "run", made(3.01))


def test_edges_between_two_roundings_are_no_difference(finished: Result) -> None:
    """Frames are stored in single precision."""
    x = np.array([[[-0.7 - 1e-9, 0, 0]], [[-0.7 + 1e-9, 0, 0]], [[-1.0, 0, 0]]])
    region = problem().source
    assert problem_identity._members(region, x.astype(np.float32), np.array([1.0, 0.0, 1.0]), "frames") is None
    assert problem_identity._members(region, x, np.array([1.0, 0.0, 0.0]), "frames") is not None


def test_functions_that_fail_far_from_the_start_are_compared_where_they_do_not(tmp_path: Path) -> None:
    def picky(right: float) -> rlis.Problem:
        def inside(x: torch.Tensor) -> torch.Tensor:
            if bool((x.abs() > 1.6).any()):
                raise RuntimeError("too far")
            return x[:, 0, 0] > right

        return rlis.Problem(
            system(), [[-1.0, 0, 0]], source=rlis.Region.where(lambda x: x[:, 0, 0] < -0.7, "L"),
            target=rlis.Region.where(inside, "R"), temperature=120.0, friction=1.0, timestep=0.004, dimensions=1,
        )  # fmt: skip

    fresh(picky(0.7), tmp_path / "run")
    rlis.load(tmp_path / "run", picky(0.7))
    assert "region R with" in refusal(tmp_path / "run", picky(-0.6))


# --- recipes and both directions --------------------------------------------------------------------------------------


def test_a_system_that_has_changed_since_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "run"
    made = systems.build("double_well", {"height": 3.0})
    fresh(made, directory)
    rlis.load(directory).problem  # noqa: B018
    module = systems.available()["double_well"]
    build = module.build
    monkeypatch.setattr(
        module, "build", functools.wraps(build)(lambda **options: build(**{**options, "height": 2.0, "radius": 0.1}))
    )
    for act in (lambda: rlis.load(directory).problem, lambda: rlis.resume(directory)):
        with pytest.raises(InputError, match=r"^system double_well: expected that of the run \(") as caught:
            act()
        assert "CustomExternalForce" in str(caught.value) and "have changed" in str(caught.value)


def test_another_version_of_openmm_writes_the_same_system(tmp_path: Path) -> None:
    text = openmm.XmlSerializer.serialize(system(box=True))
    older = text.replace(f'openmmVersion="{openmm.version.short_version}"', 'openmmVersion="7.7"')
    older = older.replace('exceptionsUsePeriodic="0" ', "").replace('name="CustomExternalForce" ', "")
    assert older != text and system_differences(older, text) == [] == system_differences(text, older)
    assert system_differences(older, text.replace('default="3"', 'default="4"'))
    assert system_differences(text, text.replace('exceptionsUsePeriodic="0" ', "")) != []


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A directory of both directions that have done nothing yet."""
    directory = tmp_path / "both"
    directory.mkdir()
    config = RunConfig.from_mapping({"system": "double_well", "options": {"height": 2.0}, "both": True})
    config.to_yaml(directory / "config.yaml")
    for direction in DIRECTIONS:
        one_way = config.one_way(direction, build_problem.default_options("double_well"))
        fresh(build_problem.build(one_way), directory / direction)
    return directory


def test_directions_of_two_systems_are_not_joined(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forward, backward = (both / direction for direction in DIRECTIONS)
    problem_identity.check_directions(forward, backward)
    with pytest.raises(InputError, match=r"regions L, R"):
        problem_identity.check_directions(forward, forward)
    shutil.rmtree(backward)
    fresh(systems.build("double_well", {"height": 2.0, "beta": 2.0, "source": "R", "target": "L"}), backward)
    for command in ("verify", "report"):
        assert cli.execute([command, str(both)]) == 2
        error = capsys.readouterr().err
        assert "reverse of the other direction (temperature 120.27 K), got 60.136 K" in error, error
    assert cli.execute(["resume", str(both)]) == 2
    assert "config.yaml: expected that of backward (temperature 60.136 K), got 120.27 K" in capsys.readouterr().err


def test_a_config_of_both_that_was_edited_is_named(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (both / "config.yaml").read_text()
    (both / "config.yaml").write_text(text.replace("height: 2.0", "height: 3.0"))
    before = content(both)
    assert cli.execute(["resume", str(both)]) == 2
    assert "expected that of forward (CustomExternalForce" in capsys.readouterr().err
    assert content(both) == before


# --- value functions --------------------------------------------------------------------------------------------------


def test_a_value_function_of_the_way_back_is_refused(tmp_path: Path) -> None:
    statistics = {name: np.ones(3) for name in ("mean", "scale", "center_source", "center_target")}
    there, value = balls(), ValueFunction(rlis.features.positions(), statistics)
    value.save(tmp_path / "value.pt", there)
    value = ValueFunction.load(tmp_path / "value.pt", there)
    value.check_problem(balls(radius=0.25))
    with pytest.raises(
        InputError, match=r"value: expected a value function for paths from R to L, got one for .* L to R"
    ):
        rlis.run(balls(turned=True), tmp_path / "back", value=value)
    assert not (tmp_path / "back").exists()


def test_what_is_stored_is_small_and_plain(finished: Result) -> None:
    text = (finished.directory / PROBLEM).read_text()
    assert len(text) < 20_000 and set(json.loads(text)) == {"structures", "regions", "features"}
    assert PROBLEM in unseal(finished.directory / MANIFEST)["files"]
    many = problem_identity.reference_structures(systems.build("lj7", {}))
    assert many.shape == (64, 7, 3) and (many[:, :, 2] == 0).all()
    assert problem_of(finished.config, problem(), finished.directory).n_atoms == 1
    assert RunDirectory.open(finished.directory).verify() == []

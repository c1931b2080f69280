"""Own systems in config.yaml: what is accepted, what is refused in one line, and that the runs are right."""

import math
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
import torch
import yaml
from openmm import app, unit

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.cli import command_line, commands
from openmm_rlis.config import build_problem
from openmm_rlis.config import run_config as config_module
from openmm_rlis.config.base import in_units, validated
from openmm_rlis.config.build_problem import problem_of
from openmm_rlis.config.problem_from_files import build
from openmm_rlis.config.run_config import RunConfig
from openmm_rlis.config.user_system import OwnSystem, limits
from openmm_rlis.errors import InputError
from openmm_rlis.features import evaluate
from openmm_rlis.problem import OUTSIDE, SOURCE, TARGET
from openmm_rlis.regions import Box
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.value_function import ValueFunction, feature_statistics

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_system"
MAKE = runpy.run_path(str(EXAMPLE / "make_files.py"))
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the example with its files made."""
    MAKE["main"](tmp_path)
    shutil.copy(EXAMPLE / "config.yaml", tmp_path)
    return tmp_path


def edited(folder: Path, edit: Edit) -> OwnSystem:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    edit(content["system"])
    return validated(OwnSystem, content["system"], "system.").located(folder)


def torsions(degrees: Any) -> np.ndarray:
    return np.stack([MAKE["chain"](angle) for angle in degrees])


# Units and intervals


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("temperature", "300 K", 300.0), ("temperature", 300, 300.0), ("rate", "1/ps", 1.0), ("rate", "10 /ns", 0.01),
        ("rate", "5 1/ps", 5.0), ("time", "0.5 fs", 5e-4), ("time", "1e-3ps", 1e-3), ("time", "2", 2.0),
        ("length", "3.5 A", 0.35), ("angle", "180 deg", math.pi), ("angle", "-1.5 rad", -1.5),
    ],
)  # fmt: skip
def test_units_as_text(kind: str, text: object, value: float) -> None:
    assert in_units(kind, text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("text", ["fs", "1 K", "1 fs 2", "", "one fs", None, True, "1e999 fs", float("nan"), [1]])
def test_times_that_are_none(text: object) -> None:
    if text == "1e999 fs":
        assert in_units("time", text) == math.inf  # the models refuse it
        return
    with pytest.raises(ValueError, match="units ps, fs, ns"):
        in_units("time", text)


@pytest.mark.parametrize(
    ("ends", "inside", "outside"),
    [
        ([150, -150], [150.5, 180, -180, -150.5, 170], [149, -149, 0, 90]),
        ([150, 210], [150.5, 180, -151], [149, -149, 0]),
        ([-180, -30], [-179, -31, 181], [-29, 0, 179]),
        ([-30, 30], [-29, 0, 29], [31, -31, 180]),
        ([350, 370], [-9, 9], [11, -11, 180]),
        ([-170, 170], [-169, 0, 169], [171, 180, -171]),
    ],
)
@pytest.mark.parametrize("unit_name", ["deg", "rad"])
def test_intervals_of_dihedrals_are_arcs(
    folder: Path, ends: list[float], inside: list[float], outside: list[float], unit_name: str
) -> None:
    factor = 1.0 if unit_name == "deg" else math.pi / 180.0
    dihedral = edited(folder, lambda system: None).features["phi"]
    low, high = limits(dihedral, tuple(f"{end * factor} {unit_name}" for end in ends), "here")
    box = Box([rlis.features.Dihedrals([(0, 1, 2, 3)], radians=True)], [low], [high], [2 * math.pi], [0.35])
    region = rlis.Region.within(box)
    assert region.contains(torsions(inside)).all() and not region.contains(torsions(outside)).any()


def test_boxes_of_several_features_are_where_all_intervals_hold() -> None:
    """Against plain NumPy on random structures, open ends and shifts by whole turns included."""
    x = np.random.default_rng(3).normal(size=(4000, 5, 3))
    parts = [rlis.features.Distances([(0, 4)]), rlis.features.Dihedrals([(0, 1, 2, 3)], True),
             rlis.features.Angles([(1, 2, 3)], True)]  # fmt: skip
    low, high = [-math.inf, 2.0, 0.4], [2.5, 5.0, math.inf]
    box = Box(parts, low, high, [0.0, 2 * math.pi, 0.0], [0.1, 0.35, 0.35])
    d, phi, theta = (evaluate(part, x)[:, 0] for part in parts)
    bond, other = x[:, 1] - x[:, 2], x[:, 3] - x[:, 2]
    cosine = (bond * other).sum(1) / np.linalg.norm(bond, axis=1) / np.linalg.norm(other, axis=1)
    np.testing.assert_allclose(np.cos(theta), cosine, atol=1e-12)
    expected = (d <= 2.5) & ((phi >= 2.0) | (phi <= 5.0 - 2 * math.pi)) & (theta >= 0.4)
    found = rlis.Region.within(box).contains(x)
    assert 100 < expected.sum() < 3900 and np.array_equal(found, expected)
    np.testing.assert_array_equal(evaluate(box, x)[:, 0] <= 1.0, expected)
    scripted = torch.jit.script(box)(torch.as_tensor(x))
    np.testing.assert_allclose(scripted.numpy(), evaluate(box, x), rtol=1e-12)


def test_a_box_grows_with_the_distance_outside() -> None:
    box = Box([rlis.features.Dihedrals([(0, 1, 2, 3)], True)], [-0.5], [0.5], [2 * math.pi], [0.35])
    values = evaluate(box, torsions([0, 20, 40, 60, 90, 120, 150, 180, 210]))[:, 0]
    assert (np.diff(values[:-1])[1:] > 0).all() and values[-1] == pytest.approx(values[-3])


# From files to a Problem


def test_the_example_says_what_it_means(folder: Path) -> None:
    problem = build(edited(folder, lambda system: None))
    x = torsions([180.0, -155.0, 60.0, -60.0, 120.0])
    assert problem.label(x).tolist() == [SOURCE, SOURCE, TARGET, 3, OUTSIDE]
    assert problem.temperature == 300.0 and problem.friction == 10.0 and problem.timestep == 0.002
    assert problem.lag_steps == 5 and evaluate(problem.features, x).shape == (5, 3)
    seen = evaluate(problem.features, x)  # sine and cosine of phi, then the distance of the ends
    np.testing.assert_allclose(seen[2, :2], [math.sin(math.pi / 3), 0.5], atol=1e-9)
    np.testing.assert_allclose(seen[:, 2], np.linalg.norm(x[:, 3] - x[:, 0], axis=1), atol=1e-9)


def test_selections_and_indices_are_the_same_atoms(folder: Path) -> None:
    by_name = {"dihedral": ["name C1", 1, "name C3", "index 3"]}
    named = build(edited(folder, lambda system: system["features"].update(phi=by_name)))
    plain = build(edited(folder, lambda system: None))
    x = torsions([10.0, 77.0, -123.0])
    np.testing.assert_array_equal(evaluate(named.features, x), evaluate(plain.features, x))


def test_all_kinds_of_features(folder: Path) -> None:
    def more(system: dict[str, Any]) -> None:
        system["features"] |= {
            "bend": {"angle": [0, 1, 2]}, "x": {"coordinate": [2, "x"]}, "pairs": {"distances": "all"},
            "near": {"coordination": [0, 1, 2, 3], "radius": "2 A", "ascending": True},
            "linked": {"spectrum": "all", "radius": 0.2, "power": 6},
        }  # fmt: skip
        system["value_features"] = ["bend", "x", "pairs", "near", "linked"]

    problem = build(edited(folder, more))
    x = torsions([180.0, 33.0])
    seen = evaluate(problem.features, x)
    assert seen.shape == (2, 1 + 1 + 6 + 4 + 4)
    np.testing.assert_allclose(seen[:, 0], math.cos(math.radians(112.0)), atol=1e-9)
    np.testing.assert_allclose(seen[:, 1], x[:, 2, 0])
    np.testing.assert_allclose(np.sort(seen[0, 2:8])[:3], 0.153, atol=1e-9)
    assert (np.diff(seen[:, 8:12]) >= 0).all()
    np.testing.assert_array_equal(seen[:, 12:], evaluate(rlis.features.contact_spectrum(range(4), 0.2, 6), x))
    statistics = feature_statistics(problem, torsions(np.arange(0.0, 360.0, 7.0)), x[:1], x[1:])
    value = torch.jit.script(ValueFunction(problem.features, statistics))  # so that the bias can use it
    assert torch.isfinite(value(torch.as_tensor(x))).all()


def test_a_ball_about_a_structure(folder: Path) -> None:
    def ball(system: dict[str, Any]) -> None:
        system["regions"]["gauche+"] = {"ball": {"around": "gauche.pdb", "features": ["phi"], "radius": 0.5}}

    problem = build(edited(folder, ball))
    chord = 2.0 * math.degrees(math.asin(0.25))  # angle whose points on the circle are 0.5 apart
    x = torsions([60.0, 60.0 + 0.99 * chord, 60.0 + 1.01 * chord, 60.0 - 0.99 * chord])
    assert problem.label(x).tolist() == [TARGET, TARGET, OUTSIDE, TARGET]
    back = edited(folder, lambda system: (ball(system), system.update(source="gauche+", target="trans")))
    np.testing.assert_allclose(build(back).positions, MAKE["chain"](60.0), atol=1e-3)


def test_mmcif_and_minimum(folder: Path) -> None:
    with (folder / "chain.cif").open("w") as file:
        bent = torsions([165.0])[0] * 1.02
        app.PDBxFile.writeFile(MAKE["make_topology"](), bent * unit.nanometer, file)
    rough = build(edited(folder, lambda system: system.update(structure="chain.cif")))
    np.testing.assert_allclose(rough.positions, bent, atol=1e-4)
    problem = build(edited(folder, lambda system: system.update(structure="chain.cif", minimize=True)))
    x = problem.positions
    assert np.linalg.norm(x[1] - x[0]) == pytest.approx(0.153, abs=2e-4)  # a PDB keeps three decimals of an Angstrom
    assert abs(evaluate(rlis.features.Dihedrals([(0, 1, 2, 3)], True), x[None])[0, 0]) == pytest.approx(
        math.pi, abs=0.02
    )


def test_the_problem_comes_back_from_the_run_directory_alone(folder: Path) -> None:
    section = edited(folder, lambda system: system.update(minimize=True))
    problem = build(section)
    topology = mdtraj.Topology.from_openmm(problem.topology)
    config = {"recipe": problem.recipe}
    RunDirectory.create(folder / "run", config, problem.system_xml, topology, None, problem.files).close()
    for path in section.files().values():
        path.unlink()
    (folder / "run").rename(folder / "moved")
    again = problem_of(RunDirectory.open(folder / "moved").config, None, folder / "moved")
    assert np.array_equal(again.positions, problem.positions) and again.system_xml == problem.system_xml
    assert again.recipe == problem.recipe and again.files == problem.files
    x = torsions(np.arange(-180.0, 180.0, 5.0))
    assert np.array_equal(again.label(x), problem.label(x))
    assert np.array_equal(evaluate(again.features, x), evaluate(problem.features, x))


# The command line


@pytest.mark.filterwarnings("ignore:lag_steps")  # at 900 K half a region in a lag
def test_run_and_brute_agree_and_the_run_outlives_its_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """False alarm: two independent estimates 3 combined errors apart, about 1 in 300, at these seeds never."""

    def call(*words: object) -> tuple[int, str]:
        status = cli.execute([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out + err

    warm = ["--set", "temperature=900 K", "--set", "lag_steps=5", "--target-error", 0.08]
    quick = [*warm, "--set", "settings.replicas=8", "--set", "settings.learning_rounds=1"]
    learned, plain, config = folder / "learned", folder / "plain", folder / "config.yaml"
    assert call("run", config, "--out", learned, *quick, "--max-evals", 1e5)[0] == 3
    for path in [*folder.glob("*.pdb"), folder / "chain.xml"]:
        path.rename(path.with_name(f"away-{path.name}"))
    assert call("resume", learned, "--max-evals", 1e12)[0] == 0
    assert "own:chain" in call("report", learned, "--no-figures")[1] and "target" in call("status", learned)[1]
    status, out = call("verify", learned)
    assert "every checksum is right" in out and status in (0, 1)
    assert call("export", learned, folder / "paths")[0] == 0
    for path in folder.glob("away-*"):
        path.rename(path.with_name(path.name.removeprefix("away-")))
    assert call("brute", config, "--out", plain, *warm)[0] == 0
    a, b = rlis.load(learned).rate, rlis.load(plain).rate
    assert abs(a.value - b.value) < 3.0 * math.hypot(a.standard_error, b.standard_error)
    assert (
        rlis.load(learned).value.committor(torsions([180.0, 60.0, 0.0]), build(edited(folder, lambda _: None)))[1] == 1
    )


def test_both_ways_have_their_own_copies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the runs themselves: what they find after the user's files are gone."""
    monkeypatch.setattr(commands, "_both", lambda config, directory, limits, trusted: 0)
    assert cli.execute(["run", str(folder / "config.yaml"), "--out", str(folder / "both"), "--both"]) == 0
    for path in [*folder.glob("*.pdb"), folder / "chain.xml", folder / "config.yaml"]:
        path.unlink()
    (folder / "both").rename(folder / "moved")
    config = RunConfig.from_yaml(folder / "moved" / "config.yaml")
    ways = [config.one_way(way, build_problem.default_options(config.system)) for way in config_module.DIRECTIONS]
    problems = [build_problem.build(way) for way in ways]
    assert [p.source.name for p in problems] == ["trans", "gauche+"]
    np.testing.assert_allclose(problems[1].positions, MAKE["chain"](60.0), atol=1e-4)


def test_verify_takes_a_configuration_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(command_line, "_start", lambda *words: calls.append(words) or 1)
    assert cli.execute(["verify", str(folder / "config.yaml"), "--out", str(folder / "checked")]) == 1
    assert calls[0][:3] == (str(folder / "config.yaml"), "run", folder / "checked") and calls[0][-2]["both"]


def test_verify_refuses_a_file_of_brute_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "config.yaml").open("a") as file:
        file.write("method: brute\n")
    assert cli.execute(["verify", str(folder / "config.yaml"), "--out", str(folder / "checked")]) == 2
    err = capsys.readouterr().err
    assert "method: run" in err and "brute" in err and err.count("\n") == 1 and not (folder / "checked").exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.pop("xml"), ["system.xml", "a value", "nothing"]),
        (lambda s: s.update(strcture="a.pdb"), ["system:", "'strcture'", "did you mean 'structure'"]),
        (lambda s: s.update(temperature="300"), None),
        (lambda s: s.update(temperature="27 C"), ["system.temperature", "K, kelvin", "'27 C'"]),
        (lambda s: s.update(temperature=0), ["system.temperature", "greater than 0"]),
        (lambda s: s.update(timestep="-1 fs"), ["system.timestep", "greater than 0"]),
        (lambda s: s.update(timestep="1e999 fs"), ["system.timestep", "finite"]),
        (lambda s: s.update(timestep=float("nan")), ["system.timestep", "nan"]),
        (lambda s: s.update(lag_steps=0), ["system.lag_steps", "0"]),
        (lambda s: s.update(dimensions=4), ["system.dimensions", "1, 2 or 3"]),
        (lambda s: s.update(features={}), ["system.features", "at least 1"]),
        (lambda s: s.update(features=[]), ["system.features", "dictionary"]),
        (lambda s: s["features"].update(psi={"dihedrl": [0, 1, 2, 3]}), ["features.psi", "did you mean 'dihedral'"]),
        (lambda s: s["features"].update(psi={"foo": 1}), ["system.features.psi", "distance or angle"]),
        (lambda s: s["features"].update(psi=[1]), ["system.features.psi", "distance or angle"]),
        (lambda s: s["features"].update(psi={"dihedral": [0, 1, 2]}), ["features.psi.dihedral"]),
        (lambda s: s["features"].update(psi={"dihedral": [0, 1, 2, -1]}), ["psi.dihedral", "an atom", "-1"]),
        (lambda s: s["features"].update(psi={"dihedral": [0, 1, 2, 4]}), ["psi.dihedral", "0 to 3", "4"]),
        (lambda s: s["features"].update(psi={"dihedral": [0, 1, 2, 2]}), ["psi.dihedral", "different atoms"]),
        (lambda s: s["features"].update(psi={"distance": [0, "name Q"]}), ["psi.distance", "one atom", "0 atoms"]),
        (lambda s: s["features"].update(psi={"distance": [0, "all"]}), ["psi.distance", "one atom", "4 atoms"]),
        (lambda s: s["features"].update(psi={"distance": [0, "nmae Q ("]}), ["psi.distance", "mdtraj", "nmae"]),
        (lambda s: s["features"].update(psi={"distances": "name Q"}), ["psi.distances", "two or more", "0 from"]),
        (lambda s: s["features"].update(psi={"coordinate": [0, "w"]}), ["psi.coordinate", "'x', 'y' or 'z'"]),
        (lambda s: s["features"].update({"a b": {"distance": [0, 1]}}), ["system.features.a b"]),
        (lambda s: s["regions"].update(odd={"inside": {}}), ["system.regions.odd", "within or ball"]),
        (lambda s: s["regions"]["trans"].update(within={"psi": [0, 1]}), ["regions.trans.within", "'psi'", "phi"]),
        (lambda s: s["regions"]["trans"].update(within={"phi": [150, -150]}), ["within.phi", "deg, rad", "150"]),
        (lambda s: s["regions"]["trans"].update(within={"phi": [None, "9 deg"]}), ["within.phi", "circle"]),
        (lambda s: s["regions"]["trans"].update(within={"phi": ["0 deg", "360 deg"]}), ["less than the circle"]),
        (lambda s: s["regions"]["trans"].update(within={"phi": ["9 deg", "9 deg"]}), ["within.phi", "not empty"]),
        (lambda s: s["regions"]["trans"].update(within={"ends": [0.5, 0.2]}), ["within.ends", "not empty"]),
        (lambda s: s["regions"]["trans"].update(within={"ends": ["5 deg", 1]}), ["within.ends", "nm", "'5 deg'"]),
        (lambda s: s["regions"]["trans"].update(within={"ends": [None, None]}), ["within.ends", "not empty"]),
        (lambda s: s["regions"]["trans"].update(within={"ends": [True, 2]}), ["within.ends", "True"]),
        (lambda s: s["regions"]["trans"].update(within={}), ["within", "at least 1"]),
        (lambda s: s["regions"]["trans"].update(within={"phi": ["150 deg", "60 deg"]}), ["overlap", "trans"]),
        (lambda s: s["regions"].update(gauche={"ball": {"around": "gauche.pdb", "features": ["f"], "radius": 1}}),
         ["regions.gauche.ball.features", "'f'"]),
        (lambda s: s.update(source="tran"), ["system.source", "did you mean 'trans'"]),
        (lambda s: s.update(target="trans"), ["different regions"]),
        (lambda s: s.update(value_features=["ph"]), ["value_features", "'ph'"]),
        (lambda s: s.update(source="gauche-", others=[]), ["system.structure", "gauche-", "phi =", "180.0 deg"]),
        (lambda s: s["regions"]["gauche+"].update(structure="chain.pdb"), ["regions.gauche+", "phi =", "180.0 deg"]),
        (lambda s: s.update(xml="no.xml"), ["system.xml", "no.xml", "No such file"]),
        (lambda s: s.update(xml="."), ["system.xml", "directory"]),
        (lambda s: s.update(xml="chain.pdb"), ["system.xml", "chain.pdb"]),
        (lambda s: s.update(xml="integrator.xml"), ["system.xml", "Integrator"]),
        (lambda s: s.update(structure="chain.xml"), ["system.structure", ".pdb", "chain.xml"]),
        (lambda s: s.update(structure="five.pdb"), ["system.structure", "4 atoms", "5 in"]),
        (lambda s: s.update(structure="binary.pdb"), ["system.structure", "binary data"]),
        (lambda s: s.update(structure="garbage.pdb"), ["system.structure", "garbage.pdb"]),
        (lambda s: s.update(structure="garbage.cif"), ["system.structure", "garbage.cif"]),
        (lambda s: s.update(structure="nan.pdb"), ["system.structure", "nan.pdb"]),
        (lambda s: s.update(xml="constrained.xml"), ["system", "no constraints"]),
    ],
)  # fmt: skip
def test_bad_sections_are_one_line(folder: Path, edit: Edit, words: list[str] | None) -> None:
    (folder / "integrator.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    system = MAKE["make_system"]()
    system.addConstraint(0, 1, 0.15)
    (folder / "constrained.xml").write_text(openmm.XmlSerializer.serialize(system))
    lines = (folder / "chain.pdb").read_text().splitlines(keepends=True)
    (folder / "five.pdb").write_text("".join([*lines[:5], lines[4].replace("   4  C4", "   5  C5"), *lines[5:]]))
    (folder / "nan.pdb").write_text("".join(lines).replace("1.530", "  nan"))
    (folder / "binary.pdb").write_bytes(b"\xff\xfe\x00\x01" * 99)
    (folder / "garbage.pdb").write_text("ATOM  what is this\nHETATM\n" * 3)
    (folder / "garbage.cif").write_text("loop_ _atom nothing\n")
    if words is None:
        build(edited(folder, edit))
        return
    with pytest.raises(InputError) as excinfo:
        build(edited(folder, edit))
    text = str(excinfo.value)
    assert "\n" not in text and "expected" in text and all(word in text for word in words), text


def test_options_of_an_own_system(folder: Path) -> None:
    section = edited(folder, lambda system: None)
    warm = section.with_options({"temperature": "600 K", "source": "gauche+", "target": "gauche-", "others": []})
    assert warm.temperature == 600.0 and warm.source == "gauche+" and warm.features == section.features
    assert RunConfig(system=section).system == section
    with pytest.raises(InputError, match=r"option of an own system.*'temprature'.*did you mean 'temperature'"):
        section.with_options({"temprature": 1})

"""Nothing from a file executes: a System XML with a program is refused by every command unless it is trusted."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import openmm
import pytest
import torch

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError
from openmm_rlis.openmm_system import system_xml
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.safe_readers import xml_text, yaml_text

BOMB = '<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.fixture
def run(finished_well: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_well, tmp_path / "run"))


def booby_trapped(run: Path, mark: Path) -> Path:
    (run / "system.xml").write_text(hostile.in_forces(hostile.python_force(mark)))
    hostile.seal_anew(run)
    return run


Wrap = Callable[[str], str]
WRAPS: dict[str, Wrap] = {
    "plain": lambda force: force,
    "in a CustomCVForce": hostile.in_cv,
    "in an ATMForce": hostile.in_atm,
    "in both": lambda force: hostile.in_cv(hostile.in_atm(force)),
    "written with a character reference": lambda force: force.replace("PythonForce", "Pyth&#111;nForce"),
    "under another name": lambda force: (
        f"{force.replace('<Force', '<Particle', 1).removesuffix('</Force>')}</Particle>"
    ),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_a_program_in_a_system_xml_runs_only_if_trusted(
    wrap: Wrap, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "executed"
    xml = hostile.in_forces(wrap(hostile.python_force(mark)))
    config = hostile.write_well(tmp_path, xml)
    for command in ("run", "brute"):
        assert cli.execute([command, str(config), "--out", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert "forces that carry no code, got a PythonForce, which runs Python code from the file" in err
    assert "--trust" in err
    assert err.count("\n") == 2 and not mark.exists() and not (tmp_path / "new").exists()
    with suppress(InputError):  # what the mark unpickles to is no function
        system_xml.read(xml, "file", trusted=True)
    assert mark.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB + "<System/>", "document type"),
        ('<?xml version="1.0"?><!DOCTYPE s SYSTEM "file:///etc/passwd"><System/>', "document type"),
        ("<a>" * 100_000, "nested more than"),
        ("<System", "unclosed token"),
        ('<Force type="PythonForce"/>', "holds a PythonForce"),
        (hostile.in_forces('<Force type="PlumedForce" version="1" script="LOAD FILE=x.cpp"/>'), "none of the known"),
        (hostile.in_forces('<Force type="TorchForce" version="1" file="x.pt"/>'), "TorchScript program"),
        (hostile.in_forces('<Force type="HarmonicBondForce\x0b"/>'), "not well-formed"),
    ],
)
def test_other_xml_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        system_xml.read(text, "file")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_every_force_of_openmm_is_known_or_a_program() -> None:
    classes = {
        name for name, kind in vars(openmm).items() if isinstance(kind, type) and issubclass(kind, openmm.Force)
    } - {"Force"}
    assert classes - xml_text.PLAIN - xml_text.HOLDERS == {"PythonForce"}
    tables = {name for name in vars(openmm) if name.endswith("DFunction")}
    assert not xml_text.objection(tables) and len(tables) == 6


def test_numbers_as_types_and_tabulated_functions_pass() -> None:
    vdw = openmm.AmoebaVdwForce()
    vdw.addParticleType(0.3, 1.0)
    vdw.addParticle(0, 0, 1.0)
    compound = openmm.CustomCompoundBondForce(1, "f(x1)")
    compound.addTabulatedFunction("f", openmm.Continuous1DFunction([0.0, 1.0, 2.0], 0.0, 1.0))
    compound.addBond([0], [])
    for force in (vdw, compound):
        text = openmm.XmlSerializer.serialize(hostile.well_system(force))
        assert openmm.XmlSerializer.serialize(system_xml.read(text, "file")) == text


def test_what_is_read_is_what_was_written_to_the_bit() -> None:
    force = openmm.CustomExternalForce('k*x^2 + select(1 < x, "a" & 2, 0)'.replace('"a" & 2', "2"))
    force.setName("<a> & \"b\" 'c' é\t\n")
    force.addGlobalParameter("k", 0.1 + 0.2)
    force.addParticle(0, [])
    text = openmm.XmlSerializer.serialize(hostile.well_system(force))
    back = system_xml.read(text, "file")
    assert openmm.XmlSerializer.serialize(back) == text


@pytest.mark.parametrize("command", ["report", "resume", "verify", "export"])
def test_commands_on_a_changed_run_execute_nothing(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "executed"
    booby_trapped(run, mark)
    more = {"report": ["--no-figures"], "export": [str(tmp_path / "out")], "verify": ["--simulate"]}.get(command, [])
    status = cli.execute([command, str(run), *more])
    err = capsys.readouterr().err
    assert not mark.exists()
    if command in ("resume", "verify"):  # the others need no System for this
        assert status == 2 and "got a PythonForce" in err and "--trust" in err
    with pytest.raises(InputError, match="PythonForce"):
        _ = rlis.load(run).value
    with pytest.raises(InputError, match="PythonForce"):
        rlis.resume(run)
    assert not mark.exists()


def test_trust_is_not_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "trusted_force.py").write_text(
        "import numpy as np\n"
        "def well(state):\n"
        "    x = state.getPositions(asNumpy=True)._value\n"
        "    f = np.zeros_like(x)\n"
        "    f[:, 0] = -4.0 * x[:, 0] * (x[:, 0] ** 2 - 1.0)\n"
        "    return float(((x[:, 0] ** 2 - 1.0) ** 2).sum()), f\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        well = runpy.run_path(str(tmp_path / "trusted_force.py"), run_name="trusted_force")["well"]
        import trusted_force  # type: ignore[import-not-found]

        well = trusted_force.well
        config = hostile.write_well(
            tmp_path, openmm.XmlSerializer.serialize(hostile.well_system(openmm.PythonForce(well))),
            method="brute", max_seconds=0.5,
        )  # fmt: skip
        run = tmp_path / "run"
        assert cli.execute(["run", str(config), "--out", str(run), "--trust"]) in (0, 3)
        capsys.readouterr()
        assert "trust" not in (run / "config.yaml").read_text()
        assert cli.execute(["resume", str(run)]) == 2 and "got a PythonForce" in capsys.readouterr().err
        assert cli.execute(["resume", str(run), "--trust"]) in (0, 3)
        assert rlis.load(run, trusted=True).problem.n_atoms == 1
    finally:
        sys.path.remove(str(tmp_path))


# Systems from Python


def problem(force: Any) -> Problem:
    return Problem(
        hostile.well_system(force), [[-1.0, 0, 0]], source=Region.where(lambda x: x[:, 0, 0] < -0.8, "L"),
        target=Region.where(lambda x: x[:, 0, 0] > 0.8, "R"), temperature=120.2724, friction=1.0, timestep=5e-4,
        lag_steps=10, dimensions=1,
    )  # fmt: skip


def compute(state: Any) -> Any:
    x = state.getPositions(asNumpy=True)._value
    forces = np.zeros_like(x)
    forces[:, 0] = -4.0 * x[:, 0] * (x[:, 0] ** 2 - 1.0)
    return float(((x[:, 0] ** 2 - 1.0) ** 2).sum()), forces


class Well(torch.nn.Module):
    """The same as `compute` where the parameter is one half."""

    def forward(self, positions: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """Return the energy in kJ/mol."""
        return 2.0 * half * ((positions[:, 0] ** 2 - 1.0) ** 2).sum()


def torch_force() -> Any:
    openmmtorch = pytest.importorskip("openmmtorch")
    from openmm_rlis.openmm_system.torch_plugin import load_plugin

    if load_plugin():
        pytest.skip("openmm-torch does not load here")
    force = openmmtorch.TorchForce(torch.jit.trace(Well(), (torch.zeros(1, 3), torch.tensor(0.5))))
    force.addGlobalParameter("half", 0.5)
    force.addEnergyParameterDerivative("half")
    force.setProperty("useCUDAGraphs", "false")
    return force


def moved(of: Any) -> np.ndarray:
    engine = Engine(problem(of), platform="Reference")
    engine.reseed(np.random.default_rng(1))
    return engine.propagate(np.array([[[-1.0, 0, 0]], [[0.3, 0, 0]]]))[0]


def wrapped(force: Any) -> Any:
    around = openmm.CustomCVForce("e")
    around.addCollectiveVariable("e", force)
    return around


def test_a_python_force_runs_and_agrees_with_the_formula() -> None:
    formula = openmm.CustomExternalForce("(x^2-1)^2")
    formula.addParticle(0, [])
    expected = moved(wrapped(formula))  # not packed either, so the random numbers are the same
    assert np.allclose(moved(openmm.PythonForce(compute)), expected, rtol=1e-12, atol=0)
    assert np.allclose(moved(wrapped(openmm.PythonForce(compute))), expected, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match=r"forces that OpenMM can write as XML.*top level of a module"):
        problem(openmm.PythonForce(lambda state: compute(state)))


def test_a_torch_force_runs_and_agrees_with_python() -> None:
    assert np.allclose(moved(torch_force()), moved(openmm.PythonForce(compute)), rtol=1e-6, atol=1e-9)


def test_a_torch_force_in_a_run_and_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    force = torch_force()
    settings = Settings(n_batches=2, replicas=2, learning_rounds=1, learning_roots=10)
    limits: dict[str, Any] = {"target_relative_error": 0.5, "max_seconds": 0.5}
    rlis.run(problem(force), tmp_path / "run", settings=settings, **limits)
    with pytest.raises(InputError, match="problem: expected the Problem"):
        rlis.resume(tmp_path / "run")
    with pytest.raises(InputError, match="cannot send one to another process"):
        rlis.run(problem(torch_force()), tmp_path / "two", workers=2)
    text = (tmp_path / "run" / "system.xml").read_text()
    config = hostile.write_well(tmp_path, text, method="brute", max_seconds=0.5)
    assert cli.execute(["run", str(config), "--out", str(tmp_path / "new")]) == 2
    assert "got a TorchForce, which runs a TorchScript program" in capsys.readouterr().err
    assert cli.execute(["run", str(config), "--out", str(tmp_path / "new"), "--trust"]) in (0, 3)
    copy = system_xml.read(text, "file", trusted=True)
    assert openmm.XmlSerializer.serialize(copy).count("useCUDAGraphs") == 1
    broken = text.replace('encodedFileContents="504b', 'encodedFileContents="0000')
    with pytest.raises(InputError, match="a TorchForce that cannot be read"):
        system_xml.read(broken, "file", trusted=True)


def test_a_torch_force_inside_another_is_refused_where_it_would_end_the_process() -> None:
    from openmm_rlis.openmm_system.torch_plugin import survives_xml

    force = torch_force()
    if survives_xml():
        assert np.allclose(moved(wrapped(force)), moved(torch_force()))
        return
    with pytest.raises(InputError, match="a TorchForce directly in the System, got one inside another"):
        problem(wrapped(force))


def test_openmm_first_torch_later(tmp_path: Path) -> None:
    """The plugin fails to load when OpenMM is imported first; a Problem mends that."""
    torch_force()
    (tmp_path / "script.py").write_text(
        "import openmm, torch, numpy as np, openmmtorch, openmm_rlis as rlis\n"
        "from openmm_rlis.dynamics.engine import Engine\n"
        "class Well(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return (x[:, 0] ** 2).sum()\n"
        "system = openmm.System()\n"
        "system.addParticle(1.0)\n"
        "system.addForce(openmmtorch.TorchForce(torch.jit.trace(Well(), torch.zeros(1, 3))))\n"
        "A = rlis.Region.where(lambda x: x[:, 0, 0] < 0, 'A')\n"
        "B = rlis.Region.where(lambda x: x[:, 0, 0] > 1, 'B')\n"
        "p = rlis.Problem(system, [[-1.0, 0, 0]], source=A, target=B, temperature=300.0, friction=1.0, timestep=1e-3)\n"
        "e = Engine(p)\n"
        "e.reseed(np.random.default_rng(1))\n"
        "print(e.propagate(p.positions[None])[0].shape)\n"
    )
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "(1, 1, 3)" in done.stdout, done.stderr


# YAML


def test_yaml_aliases_and_tags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    cases = {
        "aliases": "\n".join(lines),
        "tag": "system: !!python/object/apply:os.system ['touch executed']",
        "deep": "system: " + "[" * 20_000,
        "date": "system: 2020-99-99",
        "digits": "seed: " + "9" * 10_000,
    }
    for name, text in cases.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        begun = time.process_time()  # another program may have the clock
        assert cli.execute(["run", str(file), "--out", str(tmp_path / "new")]) == 2, name
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and "unexpected" not in err, err
        assert time.process_time() - begun < 5.0
    assert not (tmp_path / "executed").exists() and not (tmp_path / "new").exists()
    shared = yaml_text.load("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}")
    assert shared == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}

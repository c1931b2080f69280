"""The doctor on this machine and on broken ones, and environment.yml beside pyproject.toml."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from openmm_rlis import cli
from openmm_rlis.cli import doctor
from openmm_rlis.dynamics import bias

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"openmmtorch": "openmm-torch", "torch": "pytorch", "matplotlib": "matplotlib-base", "tables": "pytables"}
PIP_ONLY = {"cuda12"}  # an extra: on conda-forge a matter of builds, not of names


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SPEED_SECONDS", 0.02)
    monkeypatch.setattr(doctor, "N_WALKERS", 20)


def named(findings: list[doctor.Finding], kind: str, name: str) -> doctor.Finding:
    return next(finding for finding in findings if (finding.kind, finding.name) == (kind, name))


def test_this_machine_is_fit_and_the_forces_of_every_backend_that_loads_are_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.execute(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] and {"python", "package", "platform", "backend", "bias", "speed", "storage"} <= {
        entry["kind"] for entry in found["findings"]
    }
    backends = {entry["name"]: entry for entry in found["findings"] if entry["kind"] == "backend"}
    assert set(backends) == set(bias.BACKENDS)
    for name, reason in bias.backend_status().items():
        entry = backends[name]
        assert entry["good"] == (not reason) and reason in entry["detail"]
        if entry["good"]:
            assert 0.0 < entry["numbers"]["force_error"] < 1e-6
            assert entry["numbers"]["walker_steps_per_second"] > 1000.0


def test_text_has_a_line_for_each_finding_and_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all required components work" and any(x.startswith("platform   Reference") for x in lines)
    assert any(line.startswith("speed      unbiased: ") and "walker-steps/s" in line for line in lines)


def test_wrong_forces_are_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = bias.bias_force

    def wrong(*words: Any, **more: Any) -> Any:
        return right(*words[:4], 0.5, words[5])  # half of the force that is asked for

    monkeypatch.setattr(bias, "bias_force", wrong)
    assert cli.execute(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "forces are off by 5.0e-01" in out and out.splitlines()[-1] == "a required component does not work"


def test_no_backend_is_a_failure_with_its_reasons_and_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bias, "backend_status", lambda: dict.fromkeys(bias.BACKENDS, "libnvrtc.so.12 is not there"))
    assert cli.execute(["doctor"]) == 1
    out = capsys.readouterr().out
    assert out.count("does not load: libnvrtc.so.12 is not there") == len(bias.BACKENDS)
    assert "to do      pip install 'openmmtorch==1.5.*' 'torch>=2.9,<2.10'" in out


def test_one_backend_that_does_not_load_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias, "_load_plugin", lambda: "libnvrtc.so.12 is not there")
    findings = list(doctor.examine())
    assert doctor.healthy(findings) and not named(findings, "backend", "torch").good
    assert named(findings, "backend", "python").good and "backend python" in named(findings, "bias", "").detail


def test_missing_and_outdated_packages_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch<2.10,>=2.9", 'pyarrow>=15; extra == "analysis"', "rich>=13", 'pytest>=8; extra == "test"']
    there = {"openmm_rlis": "1.0", "torch": "2.13.0", "rich": "14.0"}

    def version(name: str) -> str:
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor.metadata, "version", version)
    findings = list(doctor._packages())
    assert [finding.good for finding in findings] == [True, False, False, True]
    assert "2.13.0, outside <2.10,>=2.9" in findings[1].detail and "not installed" in findings[2].detail
    assert doctor.advice(findings) == ["pip install 'torch<2.10,>=2.9'", "pip install 'openmm_rlis[analysis]'"]
    assert doctor.healthy(findings)  # what counts is what works


def test_environment_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in extras if extra not in PIP_ONLY for line in extras[extra])]
    names = {Requirement(line).name.lower() for line in wanted} - {"openmm_rlis"}
    *entries, from_pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    entries += from_pip["pip"]
    listed = {Requirement(entry.replace("=", "==", 1) if "=" in entry and ">" not in entry else entry).name.lower()
              for entry in entries}  # fmt: skip
    assert {CONDA_NAMES.get(name, name) for name in names} <= listed
    assert listed - {CONDA_NAMES.get(name, name) for name in names} == {"python", "pip"}

"""The studies: all are in the list, all can be started, and they use what is public of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = [path for path in sorted((ROOT / "benchmarks").glob("*.py")) if "def main(" in path.read_text("utf-8")]
NAMES = [path.stem for path in STUDIES if path.stem != "__main__"]


def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_list_has_every_study_once() -> None:
    listed = [line.split()[0] for line in runner("list").stdout.splitlines() if line.startswith("  ")]
    assert sorted(listed) == NAMES and len(NAMES) > 20


def test_an_unknown_study_is_an_error() -> None:
    done = runner("nosuch")
    assert done.returncode == 2 and done.stderr.startswith("error: no study is named nosuch") and not done.stdout


def test_every_study_can_be_started() -> None:
    # They run for hours, so nothing else notices when one asks for what is no longer there.
    command = "; ".join(f"import {name}; {name}.main" for name in NAMES)
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def private_names(source: str) -> list[str]:
    """Return private names of the package that are imported, and private attributes of anything but OpenMM's units."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openmm_rlis"):
            found += [a.name for a in node.names if a.name.startswith("_")]
            found += [part for part in (node.module or "").split(".") if part.startswith("_")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            found += [node.attr] if node.attr != "_value" else []
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_studies_use_public_names_only(path: Path) -> None:
    assert private_names(path.read_text(encoding="utf-8")) == []


def test_private_names_are_found() -> None:
    source = "from openmm_rlis.walks import _a\nfrom openmm_rlis._b import c\nx._d\nx._value\n"
    source += "x.__name__\nfrom numpy import _e\n"
    assert private_names(source) == ["_a", "_b", "_d"]

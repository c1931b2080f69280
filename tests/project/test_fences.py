"""Who may import what inside the package, read from the syntax trees and the table of CONTRIBUTING.md: no code is run.

Imports inside functions, for type checkers only, and by `import_module` with a fixed name count as others do.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"openmm_rlis": ROOT / "openmm_rlis", "openmm_rlis.systems": ROOT / "systems"}
MOST_LINES, MOST_FILES = 400, 16


def table() -> dict[str, set[str]]:
    """Return the libraries that a package or module may import, by its name, in the order of CONTRIBUTING.md."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    return {name: set(re.findall(r"\w+", libraries)) for name, libraries in rows}


def modules() -> dict[str, Path]:
    """Return every module of the package by its full name; that of a package is its `__init__`."""
    found = {}
    for prefix, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([prefix, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()
ALLOWED = table()
LADDER = list(ALLOWED)


def import_nodes(tree: ast.AST, package: str) -> set[str]:
    """Return the full dotted names of all imports; `from a import b` gives a.b, `package` resolves relative ones."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if node.level else []
            base = ".".join([*parts[: len(parts) + 1 - node.level], *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return {f"{package}{name}" if name.startswith(".") else name for name in names}


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return import_nodes(ast.parse(path.read_text(encoding="utf-8")), package)


def inside(module: str) -> set[str]:
    """Return the modules of the package that this one imports, itself and the names of the package left out."""
    found = set()
    for name in imports_of(module):
        parts = name.split(".")
        longest = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
        found |= {next((part for part in longest if part in MODULES), "")}
    return found - {"", module}


def rung(module: str) -> str:
    return module.split(".")[1]


def members(name: str) -> list[str]:
    return [module for module in MODULES if module != "openmm_rlis" and rung(module) == name]


def test_the_table_names_what_there_is() -> None:
    assert {rung(module) for module in MODULES if module != "openmm_rlis"} == set(LADDER)


@pytest.mark.parametrize("name", LADDER)
def test_imports_go_up_the_table(name: str) -> None:
    above = {*LADDER[: LADDER.index(name)], name}
    edges = [(module, used) for module in members(name) for used in inside(module)]
    assert not [f"{module} imports {used}" for module, used in edges if rung(used) not in above]


@pytest.mark.parametrize("name", LADDER)
def test_libraries_stay_behind_their_fences(name: str) -> None:
    free = {*sys.stdlib_module_names, "numpy", "openmm_rlis"}
    wrong = {module: {n.split(".")[0] for n in imports_of(module)} - free - ALLOWED[name] for module in members(name)}
    assert not {module: found for module, found in wrong.items() if found}


@pytest.mark.parametrize("name", LADDER)
def test_no_library_is_allowed_in_vain(name: str) -> None:
    assert ALLOWED[name] <= {n.split(".")[0] for module in members(name) for n in imports_of(module)}


def test_no_import_cycle() -> None:
    graph = {module: inside(module) for module in MODULES if module != "openmm_rlis"}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


@pytest.mark.parametrize("module", MODULES)
def test_file_is_at_most_400_lines(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_folder_holds_at_most_16_files() -> None:
    folders = {path.parent for path in MODULES.values()}
    assert {folder for folder in folders if len(list(folder.glob("*.py"))) > MOST_FILES} == set()


def test_results_open_without_torch_openmm_pydantic_and_rich(finished_well: Path) -> None:
    """The real thing, in a process where they are not there."""
    code = f"""import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "openmm", "openmmtorch", "pydantic", "rich", "typer"): raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import openmm_rlis.cli, openmm_rlis.display.progress, openmm_rlis.storage.status
result = openmm_rlis.load({str(finished_well)!r})
print(result.rate, result.diagnostics["alarms"], len(result.paths), result.paths.average(len))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and "+-" in run.stdout, run.stderr


def test_the_reader_of_imports_sees_all_forms() -> None:
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom ..f import g\n"
        "def h():\n    import i\n    import_module('o.p')\n    importlib.import_module('.q', __package__)\n"
        "if TYPE_CHECKING:\n    import j\nelse:\n    import k\n"
    )
    expected = {"a.b", "c.d", "openmm_rlis.x.e", "openmm_rlis.f.g", "i", "o.p", "openmm_rlis.x.q", "j", "k"}
    assert import_nodes(ast.parse(source), "openmm_rlis.x") == expected

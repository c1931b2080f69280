"""Who may import what inside the package, read from the syntax trees: nothing here runs the code it judges."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "openmm_rlis"
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
WITHOUT_TORCH_OR_OPENMM = ("errors", "weights", "branching", "estimators", "diagnostics", "paths", "storage")
FENCES = {
    "openmm": {"units", "problem", "regions", "bias", "integrators", "replicas", "movers", "engine", "assembly",
               "atom_order", "system_xml", "torch_plugin", "losses", "platforms", "obstacles", "preflight"},
    "openmmtorch": {"bias", "torch_plugin"},
    "torch": {"periodic", "contacts", "features", "regions", "value", "bias", "engine", "training", "tensors",
              "torch_plugin"},
    "matplotlib": {"figures", "drawings"},
    "plotly": {"figures", "drawings"},
    "jinja2": {"page"},
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def import_nodes(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import that can run, in functions too; those for type checkers only are left out."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [node]
    children = node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node)
    return [found for child in children for found in import_nodes(child)]


def imported_names(tree: ast.AST) -> set[str]:
    """Full dotted names; `from a import b` gives a.b, and relative imports begin with openmm_rlis."""
    names: set[str] = set()
    for node in import_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = ".".join(part for part in ("openmm_rlis" if node.level else "", node.module or "") if part)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def imports_of(module: str) -> set[str]:
    return imported_names(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def inside(module: str) -> set[str]:
    """The modules of the package that this one imports; `__init__` for a name of the package itself."""
    names = [name.split(".") for name in imports_of(module)]
    return {
        (name[1] if len(name) > 1 and name[1] in MODULES else "__init__")
        for name in names
        if name[0] == "openmm_rlis" and name[1:2] != ["systems"]
    }


@pytest.mark.parametrize("library", FENCES)
def test_library_stays_behind_its_fence(library: str) -> None:
    users = {module for module in MODULES if library in {name.split(".")[0] for name in imports_of(module)}}
    assert users <= FENCES[library], f"{library} is imported by {sorted(users - FENCES[library])} too"


@pytest.mark.parametrize("module", WITHOUT_TORCH_OR_OPENMM)
def test_light_modules_reach_neither_torch_nor_openmm(module: str) -> None:
    reached, todo = set(), [module] if module in MODULES else []
    while todo:
        current = todo.pop()
        reached.add(current)
        todo += [name for name in inside(current) - reached if name != "__init__"]
    libraries = {name.split(".")[0] for current in reached for name in imports_of(current)}
    assert not libraries & {"torch", "openmm", "openmmtorch"}


def test_results_open_without_torch_and_openmm() -> None:
    """The real thing: the package's own __init__ must not pull them in either."""
    present = [module for module in WITHOUT_TORCH_OR_OPENMM if module in MODULES]
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'openmm', 'openmmtorch'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    code += "".join(f"import openmm_rlis.{module}\n" for module in present)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_no_import_cycle() -> None:
    graph = {module: inside(module) - {module} for module in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


@pytest.mark.parametrize("module", MODULES)
def test_file_is_at_most_400_lines(module: str) -> None:
    n_lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert n_lines <= 400


def test_the_reader_of_imports_sees_all_forms() -> None:
    source = (
        "import a.b\nfrom c import d\nfrom . import e\nfrom .f import g\n"
        "def h():\n    import i\n"
        "if TYPE_CHECKING:\n    import j\nelse:\n    import k\n"
    )
    expected = {"a.b", "c.d", "openmm_rlis.e", "openmm_rlis.f.g", "i", "k"}
    assert imported_names(ast.parse(source)) == expected

"""One command for all studies, from the root of the repository.

    python -m benchmarks list                    what there is, by the question that it answers
    python -m benchmarks NAME --help             what a study does, its arguments, and how long it takes
    python -m benchmarks NAME [ARGUMENTS]        run it; the table goes to benchmarks/results/NAME.md

A study is a file of this folder with a function `main(arguments: list[str])`; `python benchmarks/NAME.py` runs it too.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
STUDIES = {
    "Exact? Rates, channels and error bars against references": (
        "truth", "brute", "spread", "coverage", "limits", "intermediates", "channels", "agreement", "branching",
        "variants", "intervals",
    ),
    "Efficient? Relative variance x force evaluations": (
        "efficiency", "budget", "control", "importance", "better_value", "losses", "defences",
    ),
    "Fast? Walker-steps per second": ("speed", "scaling", "gpu"),
    "Robust? Misleading value functions, odd inputs, interruptions": ("adversarial", "inputs", "kill"),
}  # fmt: skip


def text_of(name: str) -> str:
    """Return the docstring of a study, without importing it."""
    return ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""


def table_of_studies() -> str:
    """Return one line for each study, under the question that it answers."""
    width = max(len(name) for names in STUDIES.values() for name in names)
    lines = []
    for question, names in STUDIES.items():
        lines += ["", question, *(f"  {name:{width}}  {text_of(name).splitlines()[0]}" for name in names)]
    return "\n".join(lines[1:])


def main(arguments: list[str]) -> int:
    """Run what the command line says; return its exit status."""
    if arguments in ([], ["list"], ["--help"], ["-h"]):
        print(table_of_studies() if arguments == ["list"] else f"{__doc__}\n{table_of_studies()}")
        return 0
    name, *others = arguments
    if not any(name in names for names in STUDIES.values()):
        print(f"error: no study is named {name}; `python -m benchmarks list` names them", file=sys.stderr)
        return 2
    if others in (["--help"], ["-h"]):
        print(text_of(name))
        return 0
    sys.path.insert(0, str(FOLDER))  # as when it is run as a file: studies import each other by name
    importlib.import_module(name).main(others)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

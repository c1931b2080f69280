"""Ready systems: one module each, with `build(**options) -> Problem`, `describe()` and reference numbers.

Add your own beside these: a module with a `build` function whose keyword arguments are its options appears in `rlis
systems` by itself.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from openmm_rlis.errors import bad_input
from openmm_rlis.problem import Problem


def available() -> dict[str, ModuleType]:
    """Return the modules of this folder that have a `build` function, by name."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "build")}


def build(name: str, options: Mapping[str, Any]) -> Problem:
    """Return the problem of a named system.

    Raises
    ------
    InputError
        Unknown system or unknown option.
    """
    systems = available()
    if name not in systems:
        raise bad_input("system", f"one of {', '.join(systems)}", repr(name))
    known = inspect.signature(systems[name].build).parameters
    for option in options:
        if option not in known:
            raise bad_input(f"option of {name}", f"one of {', '.join(known)}", repr(option))
    problem: Problem = systems[name].build(**options)
    return problem

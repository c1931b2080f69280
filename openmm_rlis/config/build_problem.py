"""Build the Problem of a configuration: of a packaged system by its options, of a user's system from its files."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from ..errors import bad_input
from .base import unknown_name
from .problem_identity import check_problem
from .run_config import RunConfig
from .user_system import PREFIX, OwnSystem

if TYPE_CHECKING:
    from ..problem import Problem


def build(config: RunConfig, trusted: bool = False) -> Any:
    """Return the `Problem` of a configuration; raises a one-line `InputError` for bad options.

    A `trusted` System XML may hold forces that run code. Nothing that is stored says so: whoever reads it is asked
    again.
    """
    if isinstance(config.system, OwnSystem):
        from .problem_from_files import build as assemble

        return assemble(config.system.with_options(config.options), trusted)
    from .. import systems

    modules = systems.available()
    if config.system not in modules:
        raise unknown_name("SYSTEM", config.system, list(modules))
    return systems.build(config.system, check_options(modules[config.system].build, config.system, config.options))


def check_options(function: Callable[..., Any], system: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their types checked against the annotations of a system's `build`."""
    known, hints = inspect.signature(function).parameters, get_type_hints(function)
    checked = dict(options)
    for name, value in options.items():
        if name not in known:
            raise unknown_name(f"option of {system}", name, list(known))
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints.get(name, Any))
        except PydanticSchemaGenerationError:  # an annotation that pydantic does not know; `build` checks it itself
            continue
        if isinstance(value, str) and hints.get(name) == Sequence[str]:
            value = [item.strip() for item in value.split(",") if item.strip()]
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            expected = error.errors()[0]["msg"].replace("Input should be ", "")
            raise bad_input(f"option {name} of {system}", expected[:1].lower() + expected[1:], repr(value)) from None
        if isinstance(checked[name], float) and not math.isfinite(checked[name]):
            raise bad_input(f"option {name} of {system}", "a finite number", checked[name])
    return checked


def default_options(system: str | OwnSystem) -> dict[str, Any]:
    """Return the options of a system with their default values; of an own one, its ends."""
    if isinstance(system, OwnSystem):
        return {"source": system.source, "target": system.target}
    from .. import systems

    modules = systems.available()
    if system not in modules:
        raise unknown_name("SYSTEM", system, list(modules))
    parameters = inspect.signature(modules[system].build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def problem_of(
    config: Mapping[str, Any], problem: Problem | None, directory: Path | None = None, trusted: bool = False
) -> Problem:
    """Return the given problem, or build it again from the stored recipe and the files in the run directory.

    Raises
    ------
    InputError
        The stored run has no recipe, and no problem is given; or the given one is another one, or what the recipe
        makes has changed since.
    """
    if problem is not None:
        check_problem(problem, config, directory)
        return problem
    if config["recipe"] is None:
        raise bad_input(
            "problem", "the Problem that the run was started with, since its regions are Python objects", "none"
        )
    if directory is not None and str(config["recipe"]["system"]).startswith(PREFIX):
        from .problem_from_files import rebuild

        found = rebuild(config["recipe"]["options"], directory, trusted)
    else:
        from ..systems import build

        found = build(config["recipe"]["system"], config["recipe"]["options"])
    check_problem(found, config, directory, given=False)
    return found

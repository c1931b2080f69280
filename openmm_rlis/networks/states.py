"""States: what makes the problem of each leg of a network, from i to j with all other states as `others`.

Three kinds: a function such as `systems.lj7.build`, an own system of config.yaml, and one Problem with a list of
regions. To the last two a trap that was found can be added as a further state.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..config.user_system import PREFIX, OwnSystem
from ..errors import bad_input
from ..problem import Problem
from ..regions import Region
from ..units import as_positions
from ..walks import trap_text
from ..walks.traps import Trap

Array = NDArray[np.float64]
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,40}")


class States(Protocol):
    """The states of a network."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def title(self) -> str:
        """The name of the system."""

    def problem(self, source: str, target: str, beta: float | None) -> Problem:
        """Return the problem of a leg; `beta` is None for the temperature that is given anyhow."""


@dataclass(frozen=True)
class BuiltStates:
    """States of a packaged system, or of any function that takes source, target, others and, if need be, beta."""

    build: Callable[..., Problem]
    names: tuple[str, ...]
    options: Mapping[str, Any]
    title: str

    def problem(self, source: str, target: str, beta: float | None) -> Problem:
        """See `States.problem`."""
        more: dict[str, Any] = {} if beta is None else {"beta": beta}
        others, known = _rest(self.names, source, target), inspect.signature(self.build).parameters
        if "others" in known or any(p.kind is p.VAR_KEYWORD for p in known.values()):
            more["others"] = others
        elif others:
            raise bad_input("states", f"two, as {self.title} has no option others", ", ".join(self.names))
        return self.build(source=source, target=target, **self.options, **more)


@dataclass(frozen=True)
class OwnStates:
    """States of an own system: regions of its section. A `trusted` System XML may hold code."""

    own: OwnSystem
    names: tuple[str, ...]
    trusted: bool = False

    @property
    def title(self) -> str:
        """The name of the system."""
        return PREFIX + self.own.name

    def problem(self, source: str, target: str, beta: float | None) -> Problem:
        """See `States.problem`."""
        from ..config.problem_from_files import build
        from ..units import thermal_energy

        ends: dict[str, Any] = {"source": source, "target": target, "others": _rest(self.names, source, target)}
        if beta is not None:
            ends["temperature"] = 1.0 / (beta * thermal_energy(1.0))
        return build(self.own.with_options(ends), self.trusted)

    def with_trap(self, problem: Problem, trap: Trap, directory: Path) -> tuple[OwnStates, str]:
        """Return the states and one more, and its name; the structure in the middle goes to `directory`/traps."""
        name, own = trap_text.with_region(self.own, problem, trap, directory)
        return replace(self, own=own, names=(*self.names, name)), name

    def described(self, name: str) -> dict[str, Any]:
        """Return a region as config.yaml takes it."""
        found: dict[str, Any] = self.own.to_mapping()["regions"][name]
        return found


@dataclass(frozen=True)
class RegionStates:
    """Regions of one Problem; `structures` (n_atoms, 3), in nm, by name, are where runs start."""

    base: Problem
    regions: tuple[Region, ...]
    structures: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(
        cls, problem: Problem, regions: Sequence[Region] = (), structures: Mapping[str, ArrayLike] | None = None
    ) -> RegionStates:
        """Return the states that a Problem has, or other regions; structures of them are looked for in it."""
        chosen = tuple(regions) or problem.regions
        known = dict(problem.references) | {k: as_positions(v, problem.n_atoms) for k, v in (structures or {}).items()}
        for region in chosen:
            if not isinstance(region, Region) or not region.name:
                raise bad_input("states", "regions with names", getattr(region, "name", None) or repr(region))
            if region.name not in known and bool(region.contains(problem.positions[None])[0]):
                known[region.name] = problem.positions
        return cls(problem, chosen, known)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the regions."""
        return tuple(region.name for region in self.regions)

    @property
    def title(self) -> str:
        """The name of the system."""
        return str(self.base.recipe["system"]) if self.base.recipe else "custom"

    def problem(self, source: str, target: str, beta: float | None) -> Problem:
        """See `States.problem`."""
        if beta is not None:
            fix = "give a function that builds the Problem, such as openmm_rlis.systems.lj7.build"
            raise bad_input("betas", "None for a Problem, which has a temperature", beta, fix)
        if source not in self.structures:
            fix = f"give one in references={{{source!r}: ...}} of the Problem"
            raise bad_input("states", f"a structure inside region {source} to start from", "none", fix)
        by_name = {region.name: region for region in self.regions}
        others = [by_name[name] for name in _rest(self.names, source, target)]
        return self.base.between(by_name[source], by_name[target], others, self.structures)

    def with_trap(self, problem: Problem, trap: Trap, directory: Path | None = None) -> tuple[RegionStates, str]:
        """Return the states and one more, a ball in the space of the problem's features, and its name."""
        name = next(f"D{i}" for i in range(len(self.names) + 1) if f"D{i}" not in self.names)
        ball = Region.ball(problem.features, trap.center, trap.radius, name)
        known = {**self.structures, name: trap.structure}
        return replace(self, regions=(*self.regions, ball), structures=known), name

    def described(self, name: str) -> dict[str, Any]:
        """Return a ball as numbers."""
        region = next(region for region in self.regions if region.name == name)
        center = [] if region.center is None else region.center.numpy().tolist()
        return {"center": center, "radius": region.radius}


def check_names(names: Sequence[str]) -> None:
    """Raise `InputError` unless these are names of two or more different states, fit for folders."""
    if len(names) < 2:
        raise bad_input("states", "two or more names", ", ".join(names) or "none")
    for name in names:
        if not _NAME.fullmatch(name):
            raise bad_input("states", "names of letters, digits and _ . + -", repr(name))
    if len(set(names)) != len(names):
        raise bad_input("states", "different names", ", ".join(names))


def _rest(names: Sequence[str], source: str, target: str) -> list[str]:
    return [name for name in names if name not in (source, target)]

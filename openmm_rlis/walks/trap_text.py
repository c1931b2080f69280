"""Trap text: where walkers rest, in words, and as a region that can be pasted.

For a system from config.yaml the features have names, and the region is a box of intervals, or a ball about a structure
that is written into the run directory; for any other it is a line of Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import mdtraj
import numpy as np
from numpy.typing import NDArray

from ..config.base import validated
from ..config.user_system import PREFIX, Angle, Ball, Dihedral, OwnSystem, limits
from ..features import Joined, evaluate
from ..problem import Problem
from ..storage.cost_meter import Meter
from .metastable import Searcher
from .traps import Clock, Trap, Watcher

Array = NDArray[np.float64]
STRUCTURES = "traps"
HELD = 0.95
MOST_NUMBERS = 8
TURN = 2.0 * math.pi
_CLOCKS: WeakKeyDictionary[Meter, Clock] = WeakKeyDictionary()
"""One for all walks of a run that are walked in this process."""


@dataclass(frozen=True)
class Scalar:
    """A named feature of one number in a trap: its values (m,), their middle, and whether it goes round in a circle."""

    name: str
    values: Array
    unit: str
    turn: float = 0.0

    @property
    def middle(self) -> float:
        """The mean, on the circle if it is one."""
        if not self.turn:
            return float(self.values.mean())
        return math.atan2(float(np.sin(self.values).mean()), float(np.cos(self.values).mean()))

    def off(self, other: float | Array) -> Array:
        """Return how far the values are from a number."""
        difference = self.values - other
        return np.remainder(difference + self.turn / 2, self.turn) - self.turn / 2 if self.turn else difference

    def text(self, number: float) -> str:
        """Return a number with the unit that a file takes."""
        return f"{number:.4g} nm" if self.unit == "length" else f"{math.degrees(number):.4g} deg"


def watcher(problem: Problem, meter: Meter | None) -> Watcher | Searcher | None:
    """Return what watches a walk of the run that a meter counts for; None without one: then nobody would hear of it."""
    if meter is None:
        return None
    if meter.search is not None:
        return Searcher(problem, meter.search)

    def say(traps: Sequence[Trap], lag: int, seconds: float) -> None:
        meter.note(message(problem, traps, lag, seconds, meter.run))

    return Watcher(problem, say, _CLOCKS.setdefault(meter, Clock()))


def message(problem: Problem, traps: Sequence[Trap], lag: int, seconds: float, run: Path) -> str:
    """Return where walkers rest and what to do.

    They have been outside all regions for `lag` lags, and for `seconds` of the run; `run` is the run directory.
    """
    own = own_section(problem)
    time = f"{lag * problem.lag_time:.3g} ps, {seconds:.0f} s of this run"
    lines = [f"walkers have been outside all regions for {time}:"]
    for number, trap in enumerate(traps, start=len(problem.others)):
        place = _place(own, problem, trap)
        lines.append(f"{trap.walkers:.0%} of them, and {trap.time:.0%} of their time, at {place}.")
        lines += _proposal(own, problem, trap, number, run)
    return "\n".join(lines)


def with_region(own: OwnSystem, problem: Problem, trap: Trap, run: Path) -> tuple[str, OwnSystem]:
    """Return the name of a region that a trap is, and the section of an own system with it.

    That is a region of the section that is not used, or a new one; its structure is written into `run`/traps.
    """
    used = own_section(problem) or own
    named = scalars(used, problem, trap)
    name = _unused(used, named) or next(f"D{i}" for i in range(len(own.regions) + 1) if f"D{i}" not in own.regions)
    content = own.to_mapping()
    if name not in own.regions:
        path = _written(problem, trap, run, name)
        if len(named) == len(own.value_features or own.features):
            ends = {one.name: [one.text(low), one.text(high)] for one, (low, high) in _named_box(used, named)}
            content["regions"][name] = {"within": ends, "structure": str(path)}
        else:
            ball = {"around": str(path), "features": list(own.value_features or own.features), "radius": trap.radius}
            content["regions"][name] = {"ball": ball}
    elif (spec := own.regions[name]) and not isinstance(spec, Ball) and spec.structure is None:
        content["regions"][name]["structure"] = str(_written(problem, trap, run, name))
    return name, validated(OwnSystem, content, "system.")


def own_section(problem: Problem) -> OwnSystem | None:
    """Return the description of a system from config.yaml; None of any other."""
    recipe = problem.recipe
    if recipe is None or not str(recipe["system"]).startswith(PREFIX):
        return None
    return validated(OwnSystem, recipe["options"], "system.")


def scalars(own: OwnSystem, problem: Problem, trap: Trap) -> list[Scalar]:
    """Return the features of one number that the value function sees, and their values in a trap."""
    names = own.value_features or list(own.features)
    parts = list(problem.features.parts) if isinstance(problem.features, Joined) else [problem.features]
    found, start = [], 0
    for name, part in zip(names, parts, strict=True):
        spec, columns = own.features[name], evaluate(part, problem.positions[None]).shape[1]
        values = trap.values[:, start : start + columns]
        start += columns
        if isinstance(spec, Dihedral):
            found.append(Scalar(name, np.arctan2(values[:, 0], values[:, 1]), spec.unit, TURN))
        elif isinstance(spec, Angle):
            found.append(Scalar(name, np.arccos(np.clip(values[:, 0], -1.0, 1.0)), spec.unit))
        elif spec.unit:
            found.append(Scalar(name, values[:, 0], spec.unit))
    return found


def box(own: OwnSystem, named: Sequence[Scalar]) -> dict[str, tuple[float, float]]:
    """Return an interval for each feature, which together hold most of a trap and stay off the regions in use."""
    share = HELD ** (1.0 / len(named))
    half = {one.name: float(np.quantile(np.abs(one.off(one.middle)), share)) for one in named}
    for region in (own.source, own.target, *own.others):
        gaps = {one.name: _gap(one, own, region) for one in named}
        known = {name: gap for name, gap in gaps.items() if gap is not None}
        if known and all(gap < half[name] for name, gap in known.items()):
            name = max(known, key=lambda key: known[key] / max(half[key], 1e-300))
            half[name] = 0.9 * max(known[name], 0.0)
    return {one.name: (one.middle - half[one.name], one.middle + half[one.name]) for one in named}


def _interval(own: OwnSystem, region: str, feature: str) -> tuple[float, float] | None:
    spec = own.regions[region]
    if isinstance(spec, Ball) or feature not in spec.within:
        return None
    return limits(own.features[feature], spec.within[feature], f"system.regions.{region}.within.{feature}")


def _gap(one: Scalar, own: OwnSystem, region: str) -> float | None:
    """Return how far the middle is outside the interval of a region; None if it has none."""
    ends = _interval(own, region, one.name)
    if ends is None:
        return None
    if one.turn:
        middle, half = sum(ends) / 2.0, (ends[1] - ends[0]) / 2.0
        return abs(math.remainder(one.middle - middle, TURN)) - half
    return max(ends[0] - one.middle, one.middle - ends[1])


def _place(own: OwnSystem | None, problem: Problem, trap: Trap) -> str:
    spread = trap.values.std(0)
    if own is not None and (named := scalars(own, problem, trap)):
        spreads = [float(np.sqrt(np.square(one.off(one.middle)).mean())) for one in named]
        return ", ".join(
            f"{one.name} = {_number(one, one.middle)} +- {one.text(s)}" for one, s in zip(named, spreads, strict=True)
        )
    pairs = [f"{c:.4g} +- {s:.2g}" for c, s in zip(trap.center, spread, strict=True)]
    more = ", ..." if len(pairs) > MOST_NUMBERS else ""
    return f"features ({', '.join(pairs[:MOST_NUMBERS])}{more})"


def _number(one: Scalar, number: float) -> str:
    return one.text(number).split(" ")[0]


def _proposal(own: OwnSystem | None, problem: Problem, trap: Trap, number: int, run: Path) -> list[str]:
    """Return what to paste."""
    taken = set(own.regions) if own is not None else {region.name for region in problem.regions}
    name = next(f"D{i}" for i in range(number, number + len(taken) + 1) if f"D{i}" not in taken)
    if own is None:
        numbers = ", ".join(f"{c:.6g}" for c in trap.center)
        line = f"rlis.Region.ball(problem.features, [{numbers}], {trap.radius:.4g}, {name!r})"
        return ["If it is a state, stop the run and give it as a region to Problem:", f"  others=[*others, {line}]"]
    named = scalars(own, problem, trap)
    there = _unused(own, named)
    if there:
        others = ", ".join([*own.others, there])
        return [f"That is region {there} of the configuration: stop the run and use it:", f"  others: [{others}]"]
    if len(named) == len(own.value_features or own.features):
        ends = {one.name: f"[{one.text(low)}, {one.text(high)}]" for one, (low, high) in _named_box(own, named)}
        region = f"within: {{{', '.join(f'{key}: {text}' for key, text in ends.items())}}}"
    else:
        path = _written(problem, trap, run, name)
        features = ", ".join(own.value_features or own.features)
        region = f"ball: {{around: {path}, features: [{features}], radius: {trap.radius:.4g}}}"
    others = ", ".join([*own.others, name])
    return [
        "If it is a state, stop the run and add it to `system` in config.yaml:",
        "  regions:",
        f"    {name}: {{{region}}}",
        f"  others: [{others}]",
    ]


def _named_box(own: OwnSystem, named: Sequence[Scalar]) -> list[tuple[Scalar, tuple[float, float]]]:
    found = box(own, named)
    return [(one, found[one.name]) for one in named]


def _unused(own: OwnSystem, named: Sequence[Scalar]) -> str:
    """Return the region of the configuration that most of a trap lies in and that is not used, or nothing."""
    by_name: Mapping[str, Scalar] = {one.name: one for one in named}
    for name, spec in own.regions.items():
        used = name in (own.source, own.target, *own.others)
        if used or isinstance(spec, Ball) or not set(spec.within) <= set(by_name):
            continue
        inside = np.ones(len(next(iter(by_name.values())).values), dtype=bool)
        for feature in spec.within:
            low, high = _interval(own, name, feature) or (-math.inf, math.inf)
            one = by_name[feature]
            off = one.off((low + high) / 2.0) if one.turn else one.values
            inside &= np.abs(off) <= (high - low) / 2.0 if one.turn else (low <= off) & (off <= high)
        if inside.mean() > 0.5:
            return name
    return ""


def _written(problem: Problem, trap: Trap, run: Path, name: str) -> Path:
    """Write the structure in the middle of a trap and return the path."""
    path: Any = run / STRUCTURES / f"{name}.pdb"
    path.parent.mkdir(exist_ok=True)
    mdtraj.Trajectory(trap.structure[None], mdtraj.Topology.from_openmm(problem.topology)).save_pdb(str(path))
    return Path(path)

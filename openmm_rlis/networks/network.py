"""Networks: rates between several states, and `others: auto`, which finds the states that are missing.

    network      a run for each pair of states -> populations, mean first-passage times, rates by any route
    find_traps   runs up to the end of learning, again with each trap that they find, until they find none
    auto         a run A -> B that looks for traps while it learns; with traps, all legs out of A and out of the traps

A run that finds no trap is the run that it would have been, to the last digit. One that finds a trap is put aside, as
rates with and without a further state are of other definitions; its cost counts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config.settings import Settings
from ..errors import TrapFound, bad_input
from ..preflight.arguments import check_whole
from ..problem import Problem
from ..regions import Region
from ..results.result import SCHEMA, load, versions
from ..statistics.estimators import Estimate, reciprocal
from ..statistics.kinetic_network import Network, Networks, Pair
from ..storage import checksums
from ..storage.atomic_files import json_bytes, write
from ..storage.cost_meter import Search
from . import legs
from .legs import Leg, Parent, Plan, Report, run_legs, unless_refused
from .states import BuiltStates, OwnStates, RegionStates, States, check_names

MOST_TRAPS = 8
PASSES = 5
"""Times that legs go on, at most, until the rate by any route has the error that is wanted."""
COARSE = 0.3
"""Error of the legs before it is known what each adds to the error of that rate: some hardly matter and are slow."""


def network(
    build: Callable[..., Problem] | Problem,
    states: Sequence[str] | Sequence[Region],
    betas: Sequence[float] | None = None,
    directory: str | Path = "network",
    seed: int = 1,
    target_relative_error: float = 0.1,
    max_force_evaluations: int | None = None,
    max_seconds: float | None = None,
    workers: int = 1,
    platform: str | None = None,
    *,
    settings: Settings | None = None,
    progress: Report | None = None,
    **options: Any,
) -> Network | Networks:
    """Measure the direct rates between all pairs of states, and return what follows from them.

    Populations are exact in equilibrium. Mean first-passage times, and rates over intermediates, assume that a state
    relaxes before it is left.

    Parameters
    ----------
    build
        Such as `systems.lj7.build`: called with `source`, `target`, `others`, `options` and, with `betas`, `beta`. Or a
        Problem, for states that are regions; it needs a structure of each, in its `references` or as its start.
    states
        Two or more names, or regions with names.
    betas
        Inverse temperatures; without them the one that `build` or the Problem has.
    directory
        A new directory, or that of the same network, which goes on: DIR/beta-9/C3-C2 and so on, and result.json.
    seed, target_relative_error, workers, platform, settings
        As for `run`; the error is that of each direct rate.
    max_force_evaluations, max_seconds
        Limits of the whole network, divided evenly among the legs that are to come.
    progress
        Called with the name of a leg and a `Progress` now and then.

    Returns
    -------
    Network or Networks
        With `betas`, a mapping of each to its network.

    Raises
    ------
    InputError
        Bad arguments, an occupied directory, or a state from which no other can be reached.
    """
    made = _states(build, states, options)
    plan = Plan(seed, target_relative_error, max_force_evaluations, max_seconds, workers, platform, settings)
    return run_network(made, betas, Path(directory), plan, progress or _silent)[0]


def run_network(
    states: States, betas: Sequence[float] | None, directory: Path, plan: Plan, report: Report
) -> tuple[Network | Networks, str]:
    """Do what `network` does; return why it stopped, too."""
    check_names(states.names)
    check_whole("seed", plan.seed, 0)
    each: list[float | None] = [None] if betas is None else [_beta(beta) for beta in betas]
    if not each or len(set(each)) != len(each):
        raise bad_input("betas", "different inverse temperatures, at least one", list(each))
    todo = [Leg(i, j, beta) for beta in each for i in states.names for j in states.names if i != j]
    if len({leg.name for leg in todo}) != len(todo):
        raise bad_input("states", "names whose pairs differ, such as without `-`", ", ".join(states.names))
    with unless_refused(directory):
        states.problem(*todo[0].pair, todo[0].beta)
        wanted: dict[str, Any] = {"system": states.title, "states": list(states.names), "auto": False}
        wanted |= {"betas": None if betas is None else each, "seed": plan.seed, "plan": plan.to_dict()}
        parent = Parent.open(directory, wanted)
        stopped = run_legs(parent, states, todo, plan, report)
    one = {
        beta: legs.network_of(parent, states.names, [leg for leg in todo if leg.beta == beta], plan.seed)
        for beta in each
    }
    several = {beta: found for beta, found in one.items() if beta is not None}
    found: Network | Networks = Networks(several) if several else one[None]
    _write(parent, {**_head(parent, states), "stopped": stopped, "network": found.to_dict()})
    return found, stopped


def find_traps(
    problem: Problem,
    directory: str | Path,
    seed: int = 1,
    max_force_evaluations: int | None = None,
    max_seconds: float | None = None,
    workers: int = 1,
    platform: str | None = None,
    *,
    settings: Settings | None = None,
    progress: Report | None = None,
) -> list[Region]:
    """Look for places outside all regions where walkers stay, and return them as regions for `others`.

    A run learns its first value function and stops before production; where it finds a trap, it begins again with that
    as a further region, until none is found, from A and from each trap. See `metastable` for what a trap is.

    Parameters
    ----------
    problem
        Whose regions are known. A trap is a ball in the space of its features.
    directory
        A new directory for the searches.
    seed, max_force_evaluations, max_seconds, workers, platform, settings
        As for `run`; limits are those of the whole search.
    progress
        Called with the name of a leg and a `Progress` now and then.

    Raises
    ------
    InputError
        Bad arguments or an occupied directory.
    """
    states = RegionStates.of(problem)
    plan = Plan(seed, 0.5, max_force_evaluations, max_seconds, workers, platform, settings)
    source, target = states.names[:2]
    parent = _open_auto(Path(directory), states, source, target, plan)
    found, stopped = _settled(parent, states, plan, progress or _silent, Search(stop=True))
    assert isinstance(found, RegionStates)
    if stopped != "target":
        warnings.warn(f"the search for traps was stopped by {stopped}: there may be more of them", stacklevel=2)
    return list(found.regions[len(states.regions) :])


def auto(states: OwnStates | RegionStates, directory: Path, plan: Plan, report: Report) -> tuple[Estimate, str]:
    """Run from the first state to the second, find traps on the way, and return the rate and why it stopped."""
    source, target = states.names[:2]
    with unless_refused(directory):
        parent = _open_auto(directory, states, source, target, plan)
        full, stopped = _settled(parent, states, plan, report, Search())
    passes, found = 0, _network(parent, full)
    while stopped == "target" and found and (finer := _finer(found, (source, target), plan)):
        passes += 1
        if passes > PASSES:
            stopped = "passes"
            break
        for leg in _legs(parent, full):
            if stopped == "target" and leg.name in finer:
                one = replace(plan, target_relative_error=finer[leg.name])
                stopped = run_legs(parent, full, [leg], one, report)
        found = _network(parent, full)
    rate = found.rate(source, target) if found else load(parent.path / Leg(source, target).name).rate
    _write(parent, {**_head(parent, full), **_composite(parent, rate, found), "stopped": stopped})
    return rate, stopped


def _settled(
    parent: Parent, states: OwnStates | RegionStates, plan: Plan, report: Report, search: Search
) -> tuple[OwnStates | RegionStates, str]:
    """Run all legs that the rate needs, again whenever a trap is found; return the states there are then."""
    for name in parent.record["traps"]:  # of before the network was resumed
        states = _restored(states, parent, name)
    while True:
        looks = search if len(parent.record["traps"]) < MOST_TRAPS else None
        try:
            error = max(plan.target_relative_error, COARSE if parent.record["traps"] else 0.0)
            one = replace(plan, target_relative_error=error)
            return states, run_legs(parent, states, _legs(parent, states), one, report, looks)
        except TrapFound as found:
            states = _added(parent, states, found)


def _added(parent: Parent, states: OwnStates | RegionStates, found: TrapFound) -> OwnStates | RegionStates:
    """Return the states and the trap that was found; the legs so far are put aside."""
    source, target = states.names[:2]
    more, name = states.with_trap(states.problem(source, target, None), found.trap, parent.path)
    entry = {"region": more.described(name), "walkers": found.trap.walkers, "structure": found.trap.structure.tolist()}
    parent.record["traps"][name] = entry
    parent.retire()
    return more


def _restored(states: OwnStates | RegionStates, parent: Parent, name: str) -> OwnStates | RegionStates:
    """Return the states and a trap that the record holds."""
    entry = parent.record["traps"][name]
    if isinstance(states, OwnStates):
        content = states.own.to_mapping()
        content["regions"][name] = entry["region"]
        return replace(states, own=type(states.own)(**content), names=(*states.names, name))
    ball = Region.ball(states.base.features, entry["region"]["center"], entry["region"]["radius"], name)
    known = {**states.structures, name: np.array(entry["structure"])}
    return replace(states, regions=(*states.regions, ball), structures=known)


def _open_auto(directory: Path, states: States, source: str, target: str, plan: Plan) -> Parent:
    check_names(states.names)
    check_whole("seed", plan.seed, 0)
    states.problem(source, target, None)
    wanted = {"system": states.title, "states": list(states.names), "betas": None, "seed": plan.seed, "auto": True}
    return Parent.open(directory, {**wanted, "source": source, "target": target, "plan": plan.to_dict()})


def _legs(parent: Parent, states: States) -> list[Leg]:
    """Return the legs that the rate needs: all out of the source and out of the traps, source to target first."""
    source, target = parent.record["source"], parent.record["target"]
    starts = [source, *parent.record["traps"]]
    ends = [target, *(name for name in states.names if name != target)]
    return [Leg(i, j) for i in starts for j in ends if i != j]


def _network(parent: Parent, states: States) -> Network | None:
    """Return the network of a run that found traps; None without any."""
    if not parent.record["traps"]:
        return None
    return legs.network_of(parent, states.names, _legs(parent, states), parent.record["seed"])


def _finer(found: Network, pair: Pair, plan: Plan) -> dict[str, float]:
    """Return the errors that legs should have for the rate to have the one that is wanted; nothing if it has it.

    What adds more than an even share is brought down to it. A bound, which goes as one over the arrivals that the other
    legs out of the same state saw, falls with the square of their error.
    """
    rate, wanted = found.rate(*pair), plan.target_relative_error
    if rate.relative_error <= wanted or not math.isfinite(rate.relative_error):
        return {}
    parts = found.contributions(*pair)
    share, finer = wanted / math.sqrt(sum(part > 0.0 for part in parts.values())), dict[str, float]()
    for direct, part in parts.items():
        factor = min(share / part, 1.0) if part > 0.0 else 1.0
        bounded = direct in found.bounds
        for other in found.rates:
            if factor < 1.0 and other not in found.bounds and (other[0] == direct[0] if bounded else other == direct):
                error = found.rates[other].relative_error * (math.sqrt(factor) if bounded else factor)
                finer[Leg(*other).name] = min(finer.get(Leg(*other).name, 1.0), _taken(error))
    return finer


def _taken(error: float) -> float:
    """Return a relative error that `run` takes."""
    return min(max(error, 1e-3), 0.9)


# Results


def _head(parent: Parent, states: States) -> dict[str, Any]:
    one = {}
    for name in parent.record["legs"]:
        if name not in parent.record["unreached"] and (parent.path / name).is_dir():
            result = load(parent.path / name)
            one[name] = {"rate": result.rate.to_dict(), "stopped": result.stopped, "seed": result.seed}
    one |= {name: {"unreached": entry["message"]} for name, entry in parent.record["unreached"].items()}
    return {
        "schema": SCHEMA, "system": parent.record["system"], "states": list(states.names), "units": {"time": "ps"},
        "legs": one, "cost": parent.cost(), "diagnostics": {"alarms": legs.alarms_of(parent)},
        "versions": versions(), "seed": parent.record["seed"],
    }  # fmt: skip


def _composite(parent: Parent, rate: Estimate, network: Network | None) -> dict[str, Any]:
    found = {
        "method": "run", "source": parent.record["source"], "target": parent.record["target"], "others": "auto",
        "rate": rate.to_dict(),
        "mean_first_passage_time": reciprocal(replace(rate, value=max(rate.value, 0.0))).to_dict(),
        "traps": {name: entry["region"] for name, entry in parent.record["traps"].items()},
    }  # fmt: skip
    if network:
        found["network"] = network.to_dict()
    return found


def _write(parent: Parent, content: dict[str, Any]) -> None:
    checksums.replace_covered(parent.path / "result.json", lambda path: write(path, [json_bytes(content, 2)]))


def _states(build: Any, states: Sequence[Any], options: dict[str, Any]) -> States:
    if isinstance(build, Problem):
        if options:
            raise bad_input("options", "none beside a Problem", ", ".join(options))
        return RegionStates.of(build, states)
    if not callable(build):
        raise bad_input("build", "a function that returns a Problem, or a Problem", type(build).__name__)
    if isinstance(states, str) or not all(isinstance(name, str) for name in states):
        raise bad_input("states", "a list of names", repr(states))
    module = getattr(build, "__module__", "")
    title = module.rsplit(".", 1)[-1] if ".systems." in f".{module}" else getattr(build, "__name__", "custom")
    return BuiltStates(build, tuple(states), options, title)


def _beta(beta: Any) -> float:
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not math.isfinite(beta) or beta <= 0:
        raise bad_input("betas", "positive inverse temperatures", repr(beta))
    return float(beta)


def _silent(_: str, __: Any) -> None:
    pass

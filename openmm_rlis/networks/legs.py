"""Legs: the runs of a network, one for each pair of states, in a directory that remembers them all.

Each leg is a run directory of its own; one that is there goes on where it was, and one that is finished is only read. A
leg whose target cannot be reached directly, since all paths come to another state first, is no error: nothing was seen
to arrive, and its rate is 0 with the upper end of its interval at

    3 / n * (rates out of the same state),     n = effective number of the arrivals that the other legs saw

(of events of which none was seen among n, at most 3/n are expected, with 95 % confidence). Limits hold for the whole
network: what is left is divided evenly among the legs to come. What legs, and searches for traps, have spent stays in
the cost.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config.settings import Settings
from ..errors import InputError, UnreachableError, bad_input
from ..results.result import Result, load
from ..sampling import run as sampler
from ..sampling.progress import Progress
from ..sampling.stopping import Goal
from ..statistics.estimators import Estimate
from ..statistics.kinetic_network import EXPONENTIAL, Network, Pair
from ..storage import checksums
from ..storage.atomic_files import MANIFEST, json_bytes, write
from ..storage.cost_meter import SPENT, Search, searching, spent
from ..storage.network_directory import RECORD, is_network, read_record
from ..storage.new_run import INPUTS, missing, remove_empty
from .states import States

Report = Callable[[str, Progress], None]
"""Told the name of a leg and where it stands."""
FEWEST_EVALUATIONS, FEWEST_SECONDS = 1000, 1.0
OF_THE_COMMAND = {"config.yaml", INPUTS, checksums.CHECKSUMS}
"""What the command line writes before."""
SAME = ("states", "betas", "seed", "source", "target", "system", "auto")
"""Entries of a record that may not change when a network goes on."""


@dataclass(frozen=True)
class Plan:
    """How the legs of a network are run; see `sampler.run`. Limits are those of the whole network."""

    seed: int = 1
    target_relative_error: float = 0.1
    max_force_evaluations: int | None = None
    max_seconds: float | None = None
    workers: int = 1
    platform: str | None = None
    settings: Settings | None = None

    def __post_init__(self) -> None:
        self.goal  # noqa: B018  which looks at the numbers

    @property
    def goal(self) -> Goal:
        """When the network should stop."""
        return Goal(self.target_relative_error, self.max_force_evaluations, self.max_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON."""
        settings = self.settings.model_dump(mode="json") if self.settings else None
        return {**asdict(replace(self, settings=None)), "settings": settings}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` wrote."""
        settings = Settings.from_mapping(values["settings"]) if values["settings"] else None
        return cls(**{**values, "settings": settings})


@dataclass(frozen=True)
class Leg:
    """One run of a network."""

    source: str
    target: str
    beta: float | None = None

    @property
    def name(self) -> str:
        """Its folder: C3-C2, or beta-9/C3-C2."""
        pair = f"{self.source}-{self.target}"
        return pair if self.beta is None else f"beta-{self.beta:g}/{pair}"

    @property
    def pair(self) -> Pair:
        """From, to."""
        return self.source, self.target


class Parent:
    """The directory of a network: its record `network.json`, its legs, and what they spent."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path, self.record = path, record

    @classmethod
    def open(cls, path: Path, wanted: dict[str, Any]) -> Parent:
        """Make the directory, or go on with one that holds the same network.

        Raises
        ------
        InputError
            The directory holds something else; nothing is written then.
        """
        if is_network(path):
            record = read_record(path)
            for key in SAME:
                if record.get(key) != (got := wanted.get(key)):
                    fix = "start a new network elsewhere"
                    raise bad_input("directory", f"the network in {path} ({key}: {record.get(key)})", got, fix)
            return cls(path, {**record, "plan": wanted["plan"]})
        if path.exists() and (not path.is_dir() or {entry.name for entry in path.iterdir()} - OF_THE_COMMAND):
            fix = "choose another path"
            raise bad_input("directory", "a new or empty directory, or one of this network", str(path), fix)
        path.mkdir(parents=True, exist_ok=True)
        parent = cls(path, {"schema": 1, **wanted, "legs": {}, "unreached": {}, "searches": [], "traps": {}})
        parent.save()
        return parent

    def save(self) -> None:
        """Write the record."""
        checksums.replace_covered(self.path / RECORD, lambda path: write(path, [json_bytes(self.record)]))

    def begin(self, legs: Sequence[Leg]) -> None:
        """Note legs."""
        for leg in legs:
            entry = {"from": leg.source, "to": leg.target, "beta": leg.beta}
            self.record["legs"].setdefault(leg.name, entry)
        self.save()

    def unreached(self, leg: Leg, error: UnreachableError) -> None:
        """Note that a leg cannot be reached directly, and what that took."""
        entry = {"message": str(error), "evaluations": error.spent[0], "seconds": error.spent[1]}
        self.record["unreached"][leg.name] = entry
        self.save()

    def retire(self) -> None:
        """Put all legs aside: there is a further state, so their rates are of other definitions. Their cost stays."""
        number = len(self.record["searches"])
        folder = self.path / f"search-{number}"
        folder.mkdir(exist_ok=True)
        for name in self.record["legs"]:
            if (self.path / name).exists():
                (self.path / name).rename(folder / name)
        lost = list(self.record["unreached"].values())
        entry = {"evaluations": sum(x["evaluations"] for x in lost), "seconds": sum(x["seconds"] for x in lost)}
        self.record["searches"].append({"folder": folder.name, **entry})
        self.record["legs"], self.record["unreached"] = {}, {}
        self.save()

    def cost(self) -> dict[str, Any]:
        """Return force evaluations by part, and seconds."""
        legs = [spent(self.path / name / SPENT) for name in self.record["legs"]]
        legs += [(int(x["evaluations"]), float(x["seconds"])) for x in self.record["unreached"].values()]
        past = [(int(x["evaluations"]), float(x["seconds"])) for x in self.record["searches"]]
        past += [spent(path) for x in self.record["searches"] for path in (self.path / x["folder"]).glob(f"*/{SPENT}")]
        parts = {"legs": sum(e for e, _ in legs), "search": sum(e for e, _ in past)}
        total = sum(parts.values())
        return {"force_evaluations": {**parts, "total": total}, "seconds": sum(s for _, s in [*legs, *past])}

    def limits(self, plan: Plan, leg: Leg, n_legs: int) -> dict[str, Any]:
        """Return the limits of a leg, of `n_legs` that are to come: an even share of what is left, and what it spent.

        None where nothing is left.
        """
        cost, own = self.cost(), spent(self.path / leg.name / SPENT)
        found: dict[str, Any] = {"max_force_evaluations": None, "max_seconds": None}
        if plan.max_force_evaluations is not None:
            share = (plan.max_force_evaluations - cost["force_evaluations"]["total"]) / n_legs
            found["max_force_evaluations"] = max(int(own[0] + share), 0)
        if plan.max_seconds is not None:
            found["max_seconds"] = max(own[1] + (plan.max_seconds - cost["seconds"]) / n_legs, 0.0)
        return found


def run_legs(
    parent: Parent, states: States, legs: Sequence[Leg], plan: Plan, report: Report, search: Search | None = None
) -> str:
    """Run legs, one after another, as far as the limits allow; return target, or the limit that stopped one.

    Raises
    ------
    TrapFound
        A run that looks for traps found one.
    UnreachableError
        No state can be reached from one of them.
    """
    parent.begin(legs)
    todo = [leg for leg in legs if leg.name not in parent.record["unreached"]]
    stopped = "target"
    for place, leg in enumerate(todo):
        try:
            found = _run(parent, states, leg, plan, (len(todo) - place, report, search))
        except UnreachableError as error:
            parent.unreached(leg, error)
            if all(parent.record["unreached"].get(other.name) for other in legs if other.source == leg.source):
                raise
            continue
        stopped = stopped if found in ("target", "search") else found
    return stopped


def _run(parent: Parent, states: States, leg: Leg, plan: Plan, more: tuple[int, Report, Search | None]) -> str:
    n_legs, report, search = more
    path, limits = parent.path / leg.name, parent.limits(plan, leg, n_legs)
    begun = (path / MANIFEST).is_file()
    if begun and (done := _finished(path, plan)):
        return done
    for name, fewest in (("max_force_evaluations", FEWEST_EVALUATIONS), ("max_seconds", FEWEST_SECONDS)):
        if limits[name] is not None and limits[name] < fewest:
            return name
    problem = states.problem(leg.source, leg.target, leg.beta)
    common = {"target_relative_error": plan.target_relative_error, "workers": plan.workers, **limits}
    with searching(search):
        if begun:
            return sampler.resume(path, problem, progress=lambda one: report(leg.name, one), **common).stopped
        seed = plan.seed if parent.record.get("auto") and not parent.record["traps"] else seed_of(plan.seed, leg.name)
        path.parent.mkdir(exist_ok=True)
        return sampler.run(
            problem, path, seed=seed, platform=plan.platform, settings=plan.settings,
            progress=lambda one: report(leg.name, one), **common,
        ).stopped  # fmt: skip


def _finished(path: Path, plan: Plan) -> str:
    """Return why a run ended if it need not go on, or nothing."""
    result = load(path)
    enough = result.n_rounds > 0 and result.rate.relative_error <= plan.target_relative_error
    return "target" if result.stopped == "target" and enough else ""


def seed_of(seed: int, name: str) -> int:
    """Return the seed of a leg: the same whichever other legs there are."""
    return int(np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(1)[0])


def network_of(parent: Parent, names: Sequence[str], legs: Sequence[Leg], seed: int) -> Network:
    """Return the network of the legs of one temperature, as far as they are."""
    results = {leg.pair: load(parent.path / leg.name) for leg in legs if _begun(parent, leg)}
    rates, bounds = {pair: result.rate for pair, result in results.items()}, {}
    for leg in legs:
        if leg.name in parent.record["unreached"]:
            rates[leg.pair], bounds[leg.pair] = bound(leg, results)
    nothing = Estimate(math.nan, math.inf, (0.0, math.inf), 0)
    ordered = {leg.pair: rates.get(leg.pair, nothing) for leg in legs}
    return Network(tuple(names), ordered, bounds, seed)


def _begun(parent: Parent, leg: Leg) -> bool:
    return (parent.path / leg.name / MANIFEST).is_file()


def bound(leg: Leg, results: Mapping[Pair, Result]) -> tuple[Estimate, str]:
    """Return the rate of a leg that cannot be reached directly, 0 with an upper bound, and the reason in words."""
    others = {pair: result for pair, result in results.items() if pair[0] == leg.source}
    seen = sum(x for result in others.values() if math.isfinite(x := result.diagnostics["ess"]))
    out, n = sum(result.rate.interval[1] for result in others.values()), 0
    if others:
        n = min(result.rate.n_batches for result in others.values())
    upper = EXPONENTIAL / seen * out if seen > 0.0 else math.inf
    text = (
        f"no path from {leg.source} came to {leg.target} before another state; none among {seen:.0f} independent "
        f"arrivals elsewhere, so that the rate is at most {upper:.2g} /ps with 95 % confidence"
    )
    return Estimate(0.0, math.inf, (0.0, upper), n), text


def alarms_of(parent: Parent) -> list[str]:
    """Return the alarms of all legs, with their names."""
    found = []
    for name in parent.record["legs"]:
        if (parent.path / name / MANIFEST).is_file():
            found += [f"{name}: {line}" for line in load(parent.path / name).diagnostics["alarms"]]
    return found


@contextmanager
def unless_refused(parent: Path) -> Iterator[None]:
    """Remove the record of a network that was just made if bad input shows before a leg has begun."""
    made, there = missing(parent), is_network(parent)
    try:
        yield
    except InputError:
        if not there and is_network(parent) and not any(parent.glob(f"**/{MANIFEST}")):
            for name in (RECORD, checksums.CHECKSUMS):
                (parent / name).unlink(missing_ok=True)
            remove_empty([*sorted((p for p in parent.glob("*") if p.is_dir()), reverse=True), *made])
        raise

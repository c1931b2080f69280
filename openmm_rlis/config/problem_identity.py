"""Problem identity: whether a Problem is the one that a run directory was made for.

    numbers       temperature, friction, time step, lag, dynamics, dimensions, box      config.yaml
    System        masses, constraints, forces                                           system.xml
    regions       centres, radii, and who of some reference structures is inside        problem.json
    features      their values on some reference structures                             problem.json
    programs      energies and forces on the reference structures, of Systems with some problem.json
    start         what does not move: particles of mass zero, frozen coordinates        problem.json
    regions       ends of stored paths, exits and replicas, which say where they were   rounds/

Else the start structure may be another one in A: the rate does not depend on it. What an early run did not store is not
compared. Two predicates that differ only where no structure of any of these lies pass for the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, bad_input
from ..openmm_system.potential import holds_programs, potential, potential_difference
from ..openmm_system.system_differences import Difference, system_differences
from ..storage.atomic_files import MANIFEST, checked_bytes, json_bytes, plain, restored, unseal
from ..storage.new_run import PROBLEM
from ..storage.run_directory import RunDirectory

if TYPE_CHECKING:
    from ..problem import Problem
    from ..regions import Region

Array = NDArray[np.float64]
Flags = NDArray[np.float64]
"""1 inside, 0 outside, NaN unknown; (n,)."""
NUMBERS = {
    "temperature": ("temperature", "K"), "friction": ("friction", "/ps"), "timestep": ("time step", "ps"),
    "lag_steps": ("lag", "steps"), "dynamics": ("dynamics", ""), "dimensions": ("dimensions", ""),
}  # fmt: skip
MOST_STRUCTURES, FEWEST_STRUCTURES, MOST_NUMBERS = 64, 8, 30_000
N_VALUES = 8
SAME_PLACE = 1e-3
"""Nanometres: structures from files are rounded."""
MOST_FRAMES, MOST_TREES = 400, 8
TOLERANCE = 1e-6


# ------------------------------------------------------------------------------------------------------ what is stored


def numbers(problem: Problem) -> dict[str, Any]:
    """Return the entries of config.yaml that a Problem is compared by, besides those that runs always had."""
    return {name: getattr(problem, name) for name in NUMBERS}


def tables(problem: Problem) -> str:
    """Return problem.json: reference structures, who is in which region, and the values of all features there."""
    structures = reference_structures(problem)
    modules: list[Any] = [problem.features]
    for region in _regions(problem):
        if region.feature is not None and not any(region.feature is module for module in modules):
            modules.append(region.feature)
    regions = [
        {
            "name": region.name,
            "center": None if region.center is None else region.center.tolist(),
            "radius": None if region.center is None else region.radius,
            "feature": next((i for i, module in enumerate(modules) if module is region.feature), None),
            "inside": _inside(region, structures),
        }
        for region in _regions(problem)
    ]
    values = [_values(module, structures[_valued(len(structures))]) for module in modules]
    content: dict[str, Any] = {"structures": structures, "regions": regions, "features": values}
    if holds_programs(problem.system, problem.system_xml):
        content["potential"] = potential(problem.system, structures)
    return json_bytes(plain(content, "problem"), indent=None).decode()


def reference_structures(problem: Problem) -> Array:
    """Return structures (n, n_atoms, 3) in nm about the start and the references, near and far, to 1e-4 nm.

    Frozen coordinates stay as they are. n is 64, or fewer of many atoms.
    """
    rng = np.random.default_rng(20260101)
    n = int(np.clip(MOST_NUMBERS // (3 * problem.n_atoms), FEWEST_STRUCTURES, MOST_STRUCTURES))
    known = [problem.positions, *problem.references.values()]
    found = [*known, *(a + s * (b - a) for a, b in pairwise(known) for s in (0.25, 0.5, 0.75))][: n // 2]
    free = problem.mobility() > 0
    near, far = (np.geomspace(*ends, n) for ends in ((0.05, 0.5), (0.3, 3.0)))  # of a bond, and of a molecule
    for i in range(len(found), n):
        width = (near, far)[i % 2][i]
        found.append(known[i % len(known)] + width * free * rng.standard_normal((problem.n_atoms, 3)))
    return np.round(found, 4)


def _regions(problem: Problem) -> list[Region]:
    return [problem.whole_source, problem.target, *problem.others]


def _valued(n: int) -> NDArray[np.int64]:
    """Return the structures (8,) on which features are compared: the first ones and some of the others."""
    return np.unique(np.linspace(0, n - 1, N_VALUES).astype(np.int64))


def _inside(region: Region, structures: Array) -> Flags:
    """Return who of (n, n_atoms, 3) is inside; unknown where the region cannot be evaluated."""
    try:
        return region.contains(structures).astype(float)
    except Exception:  # a user's function on a structure that it was not written for
        found = np.full(len(structures), np.nan)
        for i in range(len(structures) if len(structures) > 1 else 0):
            found[i : i + 1] = _inside(region, structures[i : i + 1])
        return found


def _values(feature: Any, structures: Array) -> Array:
    """Return the values (n, k) of a feature; NaN where it cannot be evaluated."""
    from ..features import evaluate

    try:
        return evaluate(feature, structures)
    except Exception:  # as above
        if len(structures) == 1:
            return np.full((1, 1), np.nan)
        rows = [_values(feature, structures[i : i + 1])[0] for i in range(len(structures))]
        width = max(len(row) for row in rows)
        return np.array([row if len(row) == width else np.full(width, np.nan) for row in rows])


# -------------------------------------------------------------------------------------------------------- comparisons


def check_problem(problem: Problem, config: Mapping[str, Any], directory: Path | None, given: bool = True) -> None:
    """Raise `InputError`, which names all that differs, unless a Problem is that of a run.

    Parameters
    ----------
    problem
        A Problem.
    config
        That of the run directory.
    directory
        The run directory; without it only `config` is compared.
    given
        By the caller; else it was made again from the recipe in `config`, of which parts have changed.
    """
    found = differences(problem, config, directory)
    if found:
        argument = "problem" if given else f"system {config.get('system', '')}".strip()
        fix = "start a new run" if given else "its files have changed: restore them, or start a new run"
        raise different(argument, "that of the run", found, fix)


def check_directions(forward: Path, backward: Path) -> None:
    """Raise `InputError` unless two run directories are those of both directions of one system.

    Temperature, friction, time step, lag, dynamics, dimensions, box, masses and forces are compared, and the names of
    the regions.
    """
    runs = [RunDirectory.open(path) for path in (forward, backward)]
    configs = [dict(run.config) for run in runs]
    for config in configs:
        names = list(config["region_names"])
        turned = config is configs[1] and names[:2] != ["A", "B"]  # which is what regions without a name are called
        config["region_names"] = [*(names[1::-1] if turned else names[:2]), *sorted(names[2:])]
    found = number_differences(*configs) + system_differences(runs[0].system_xml, runs[1].system_xml)
    if found:
        raise different(
            str(backward), "the reverse of the other direction", found, "run both directions of one system"
        )


def different(argument: str, expected: str, found: Sequence[Difference], fix: str) -> InputError:
    """Return the error that two descriptions differ, which names everything that does."""
    first = ", ".join(f"{what} {text}" for what, text, _ in found)
    second = found[0][2] if len(found) == 1 else ", ".join(f"{what} {text}" for what, _, text in found)
    return bad_input(argument, f"{expected} ({first})", second, fix)


def differences(
    problem: Problem, config: Mapping[str, Any], directory: Path | None, structures: bool = True
) -> list[Difference]:
    """Return what differs between a Problem and a run; `structures` false leaves out regions and features."""
    names = [region.name for region in _regions(problem)]
    own = {**numbers(problem), "beta": problem.beta, "lag_time": problem.lag_time, "unit_cell": problem.unit_cell}
    if "beta" in config:  # early runs stored no temperature
        config = {"temperature": problem.temperature * problem.beta / float(config["beta"]), **config}
    found = number_differences(config, {**own, "n_atoms": problem.n_atoms, "region_names": names})
    if directory is None:
        return found
    run = RunDirectory.open(directory)
    stored = _stored(directory)
    found += system_differences(run.system_xml, problem.system_xml, programs="potential" not in stored)
    if structures and not {"number of atoms", "regions"} & {what for what, _, _ in found}:
        found += _of_tables(problem, stored) if stored else _of_value(problem, directory)
        known = {
            region.name for region in _regions(problem) if any(d[0].endswith(f"region {region.name}") for d in found)
        }
        found += _of_rounds(problem, run, known)
    return found


def number_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between the numbers of two configs; what one of them lacks is not compared."""
    one, two = first, second
    found = [_unequal(what, one.get(name), two.get(name), unit) for name, (what, unit) in NUMBERS.items()]
    if found[0] is None:
        found.append(_unequal("beta", one.get("beta"), two.get("beta"), "mol/kJ"))
    if found[2] is None and found[3] is None:
        found.append(_unequal("lag time", one.get("lag_time"), two.get("lag_time"), "ps"))
    found.append(_unequal("number of atoms", one.get("n_atoms"), two.get("n_atoms"), ""))
    names = [", ".join(map(str, c["region_names"])) if "region_names" in c else None for c in (one, two)]
    if None not in names and names[0] != names[1]:
        found.append(("regions", str(names[0]), f"another set, {names[1]}"))
    if "unit_cell" in one and "unit_cell" in two:
        found.append(_unequal_boxes(one["unit_cell"], two["unit_cell"]))
    return [difference for difference in found if difference is not None]


def _unequal(what: str, first: Any, second: Any, unit: str) -> Difference | None:
    """Return the difference of two numbers or texts, to as many digits as show it; None: there is none."""
    if first is None or second is None or first == second:
        return None
    texts = [str(first), str(second)]
    if isinstance(first, float) or isinstance(second, float):
        if math.isclose(first, second, rel_tol=1e-9):
            return None
        digits = next(d for d in range(5, 18) if f"{first:.{d}g}" != f"{second:.{d}g}")
        texts = [f"{x:.{digits}g}" for x in (first, second)]
    return what, f"{texts[0]} {unit}".rstrip(), f"{texts[1]} {unit}".rstrip()


def _unequal_boxes(first: Any, second: Any) -> Difference | None:
    if first is not None and second is not None and np.allclose(first, second, rtol=TOLERANCE, atol=0.0):
        return None
    texts = ["none" if box is None else f"{np.round(box, 6).tolist()} nm" for box in (first, second)]
    return None if first is None and second is None else ("box", texts[0], texts[1])


def _stored(directory: Path) -> dict[str, Any]:
    """Return the content of problem.json; early runs have none."""
    sums = unseal(directory / MANIFEST)["files"]
    if PROBLEM not in sums:
        return {}
    return dict(restored(json.loads(checked_bytes(directory / PROBLEM, sums[PROBLEM]))))


def _of_tables(problem: Problem, stored: Mapping[str, Any]) -> list[Difference]:
    """Return what differs from problem.json."""
    structures = np.array(stored["structures"], dtype=float)
    some, wanted = structures[_valued(len(structures))], [np.array(v, dtype=float) for v in stored["features"]]
    found = [_of_frozen(problem, structures[0])]
    if "potential" in stored:
        table = np.array(stored["potential"], dtype=float)
        found.append(potential_difference(problem.system, structures, table, problem.kT))
    found.append(_unequal_values("features", wanted[0], _values(problem.features, some)))
    for region, table in zip(_regions(problem), stored["regions"], strict=True):
        found.append(
            _of_region(region, table, structures, None if table["feature"] is None else wanted[table["feature"]])
        )
    return [difference for difference in found if difference is not None]


def _of_frozen(problem: Problem, start: Array) -> Difference | None:
    """Return the first difference of what does not move from where it is in the start structure of the run."""
    off = np.argwhere((problem.mobility() == 0) & (np.abs(problem.positions - start) > SAME_PLACE))
    if len(off) == 0:
        return None
    i, axis = off[0]
    what, ends = f"{'xyz'[axis]} of particle {i}, which does not move,", (start, problem.positions)
    first, second = (f"{x[i, axis]:.6g} nm" for x in ends)
    return what, first, second


def _of_value(problem: Problem, directory: Path) -> list[Difference]:
    from ..value_function import ValueFunction

    path = RunDirectory.open(directory).value_path
    try:
        if path.exists():
            ValueFunction.load(path, problem)
    except InputError as error:
        return [("features", "those of its value function", str(error))]
    return []


def _of_region(region: Region, table: Mapping[str, Any], structures: Array, values: Array | None) -> Difference | None:
    """Return the first difference of a region from what is stored of it."""
    what, some = f"region {region.name}", structures[_valued(len(structures))]
    kinds = ["a predicate" if center is None else "a ball" for center in (table["center"], region.center)]
    if kinds[0] != kinds[1]:
        return what, kinds[0], kinds[1]
    if values is not None and region.center is not None:
        found = _unequal_values(f"feature of {what}", values, _values(region.feature, some))
        center = _unequal_values(f"center of {what}", np.array([table["center"]]), region.center.numpy()[None])
        radius = _unequal(f"radius of {what}", float(table["radius"]), region.radius, "")
        if found or center or radius:
            return found or center or radius
    return _members(region, structures, np.array(table["inside"], dtype=float), "reference structures")


def _unequal_values(what: str, first: Array, second: Array) -> Difference | None:
    """Return the first difference of two tables (n, k) of values, each column to 1e-6 of its size."""
    if first.shape != second.shape:
        return what, f"of {first.shape[1]} columns", f"of {second.shape[1]} columns"
    size = np.abs(np.where(np.isfinite(first), first, 0.0)).max(0)
    off = ~np.isclose(second, first, rtol=TOLERANCE, atol=TOLERANCE * size, equal_nan=True)
    if not off.any():
        return None
    row, column = np.argwhere(off)[0]
    where = f"in column {column} on structure {row}"
    return what, f"of value {first[row, column]:.6g} {where}", f"of value {second[row, column]:.6g} {where}"


def _members(region: Region, structures: Array, wanted: Flags, of: str) -> Difference | None:
    """Return the difference between who is inside and who should be; None: there is none beyond rounding."""
    rows = np.flatnonzero((wanted == 1) | (wanted == 0))
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_FRAMES)).astype(np.int64)]
    x, wanted = structures[rows].astype(float), wanted[rows]
    found = _inside(region, x)
    off = np.flatnonzero(np.isfinite(found) & (found != wanted))
    rng = np.random.default_rng(0)
    for _ in range(4 if len(off) else 0):  # frames are stored in single precision: an edge may lie in between
        moved = x[off] + 4.0 * TOLERANCE * (1.0 + np.abs(x[off])) * rng.uniform(-1.0, 1.0, x[off].shape)
        off = off[_inside(region, moved) == found[off]]
    if len(off) == 0:
        return None
    inside, now = (int(flags[np.isfinite(found)].sum()) for flags in (wanted, found))
    changed = f" ({len(off)} others)" if inside == now else ""
    return f"region {region.name}", f"with {inside} of {len(found)} {of} inside", f"{now} inside{changed}"


def _of_rounds(problem: Problem, run: RunDirectory, known: set[str]) -> list[Difference]:
    """Return the first difference of each region, but the known ones, from where stored structures are said to be."""
    found: dict[str, Difference] = {}
    regions = _regions(problem)
    for code, structures, wanted in _witnesses(run, len(regions)):
        region = regions[code - 1]
        difference = (
            None if region.name in {*found, *known} else _members(region, structures, wanted, "stored structures")
        )
        if difference is not None:
            found[region.name] = difference
    return list(found.values())


def _witnesses(run: RunDirectory, n_regions: int) -> Iterator[tuple[int, Array, Flags]]:
    """Yield a region's code, stored structures, and who of them is in it: of first and last rounds."""
    starts = run.rounds("start")
    has_core = bool(starts) and any(name.startswith("core/") for name in run.read_round("start", 0).arrays)
    for stage in ("flux", "production"):
        for index in sorted({*run.rounds(stage)[:1], *run.rounds(stage)[-1:]}):
            stored = run.read_round(stage, index)
            arrays = stored.arrays
            if "state/positions" in arrays:
                x = arrays["state/positions"]
                outside = np.nan if has_core else 0.0  # who is not in the core may be in A
                if "state/away" in arrays:
                    yield 1, x, np.where(arrays["state/away"] == 0, 1.0, outside)
                else:  # of early runs
                    yield 1, x, 1.0 - arrays["state/outside"]
                yield 1, arrays["state/last_in_source"], np.ones(len(x))
                for code in range(2, n_regions + 1):
                    yield code, x, np.zeros(len(x))
            if "exits" in arrays and "priors" in arrays:
                yield 1, arrays["priors"], np.ones(len(arrays["priors"]))
                if not has_core:
                    yield 1, arrays["exits"], np.zeros(len(arrays["exits"]))
            for tree in sorted(stored.trees, key=lambda one: -int((one.labels > 1).sum()))[:MOST_TREES]:
                yield from _of_tree(tree, n_regions, has_core)


def _of_tree(tree: Any, n_regions: int, has_core: bool) -> Iterator[tuple[int, Array, Flags]]:
    """Yield what `_witnesses` does of one tree: its ends have labels, and frames between are in no region."""
    codes = np.zeros(tree.n_frames, dtype=np.int64)
    codes[tree.parents < 0] = 1
    codes[tree.leaves] = tree.labels
    for code in range(1, n_regions + 1):
        wanted = (codes == code).astype(float)
        if code == 1 and has_core:
            wanted[codes == 0] = np.nan  # in A, outside its core
        ends = [part[:: max(1, len(part) // MOST_FRAMES)] for part in (np.flatnonzero(wanted == w) for w in (1.0, 0.0))]
        rows = np.sort(np.concatenate(ends))
        if len(rows):
            yield code, np.asarray(tree.positions[rows]), wanted[rows]

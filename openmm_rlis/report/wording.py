"""Wording: the text and tables of the report page.

The verdict on a run, its rate in plain words, definitions, every number with one line on what it is, cost, provenance:
each a function of `RunData`. What brute force would need for the same relative error e is stated as

    force evaluations  =  (mean first-passage time / dt)  x  1 / e^2,

1/e^2 transitions, since their number is Poisson, each of which takes MFPT/dt steps of one walker; the run to
equilibrium in A would come on top. Text is plain: `page` escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy.constants import R as GAS_CONSTANT

from ..config.run_config import DIRECTIONS
from ..errors import RlisError
from ..results.directions import holds_run, is_parent
from ..safe_readers.xml_text import parsed
from ..statistics.estimators import Estimate
from ..storage.run_directory import RunDirectory
from .check_titles import CHECKS, MORE
from .plot_data import RunData, obtain

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SPACE = "\N{NO-BREAK SPACE}"
MEASURES = {
    ("Distances", False): ("distance", "nm"), ("Coordinates", False): ("", "nm"), ("Angles", True): ("angle", "deg"),
    ("Dihedrals", True): ("dihedral", "deg"), ("Angles", False): ("cosine of the angle", ""),
}  # fmt: skip
"""What a feature in a box is called, and its unit, by its class and whether it is in radians."""
TIMES = (("ps", 1.0), ("ns", 1e3), ("µs", 1e6), ("ms", 1e9), ("s", 1e12))

NUMBERS = {
    "rate": ("rate k", "Direct transitions per time in the source state, k = J P.", "/ps"),
    "mean_first_passage_time": ("mean first-passage time", "1/k: mean time in the source state per transition.", "ps"),
    "flux": ("flux of exits J", "Exits from the source region per time in the source state.", "/ps"),
    "success_probability": ("success probability P", "Share of exits that reach the target first.", ""),
}
STOPPED = {
    "max_force_evaluations": ("was stopped by its limit on force evaluations", " --max-evals N"),
    "max_seconds": ("was stopped by its limit on time", " --max-time S"),
    "running": ("has not finished (it is still running, or was interrupted)", ""),
}


@dataclass(frozen=True)
class Verdict:
    """`kind`: good, part (valid, unfinished) or bad; a headline; more lines; alarms as (what, rest, measure)."""

    kind: str
    headline: str
    lines: list[str]
    alarms: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Row:
    """A line of a table: name, one line on what it is, and a cell for each run, each with a mark: "" or a verdict."""

    name: str
    note: str
    cells: list[tuple[str, str]]


# ------------------------------------------------------------------------------------------------------------- numbers


def number(value: float | None, digits: int = 3, like: float | None = None) -> str:
    """Return a number with some digits, 0.0317 or 2.72×10⁻⁴, with the exponent of `like`; `unknown` if not finite."""
    if value is None or not math.isfinite(value):
        return "unknown"
    # The ends of an interval share an exponent with its value: 8.8×10⁻⁴ and 0.0012 are hard to compare.
    size = abs(value if like is None else like)
    exponent = 0 if size == 0.0 or 1e-3 <= size < 1e4 else int(f"{size:.{digits - 1}e}".split("e")[1])
    text = f"{value / 10.0**exponent:.{digits}g}"
    text = f"{float(text):.0f}" if "e+" in text else text
    return f"{text}×10{str(exponent).translate(SUPERSCRIPTS)}" if exponent else text


def time_text(picoseconds: float, like: float | None = None) -> str:
    """Return a time in the unit that suits it, or that suits `like`."""
    if not math.isfinite(picoseconds):
        return "an unknown time"
    size = picoseconds if like is None else like
    name, unit = next(((n, s) for n, s in reversed(TIMES) if size >= s), TIMES[0])
    return f"{number(picoseconds / unit)}{SPACE}{name}"


def percent(share: float) -> str:
    """Return a share in per cent with two digits."""
    return f"{number(100 * share, 2)}{SPACE}%" if math.isfinite(share) else "unknown"


def estimate_of(run: RunData, name: str) -> Estimate:
    """Return an estimate by its name in result.json; nan if it is not there."""
    fields = run.result.get(name)
    return Estimate.from_dict(fields) if fields else Estimate(math.nan, math.inf, (0.0, math.inf), 0)


def estimate_text(estimate: Estimate, unit: str) -> str:
    """Return an estimate with its interval and relative error on one line."""
    if math.isnan(estimate.value):
        return "not known yet"
    tail = f"{SPACE}{unit}" if unit else ""
    if not math.isfinite(estimate.standard_error):
        return f"{number(estimate.value)}{tail}, error unknown"
    low, high = interval_text(estimate)
    return f"{number(estimate.value)}{tail} [{low}, {high}] ±{SPACE}{percent(estimate.relative_error)}"


def interval_text(estimate: Estimate) -> tuple[str, str]:
    """Return both ends of an interval in the notation of the value."""
    low, high = estimate.interval
    return number(low, like=estimate.value), number(high, like=estimate.value)


def number_rows(runs: Sequence[RunData]) -> list[Row]:
    """Return flux, success probability, rate and mean first-passage time of each run."""
    return [
        Row(title, note, [(estimate_text(estimate_of(run, name), unit), "") for run in runs])
        for name, (title, note, unit) in NUMBERS.items()
    ]


def check_rows(runs: Sequence[RunData]) -> list[Row]:
    """Return every check with its expected value, and the diagnostics without an alarm."""
    known = [{check.name: check for check in run.loaded.checks} for run in runs if run.loaded is not None]
    rows = []
    for name, (title, note) in CHECKS.items() if known else ():
        cells = []
        for found in known:
            value = found[name].value
            text = ("yes" if value else "no") if name == "settled" and math.isfinite(value) else number(value)
            mark = found[name].verdict
            cells.append((f"{text} ({mark})" if math.isfinite(value) else found[name].text, mark))
        rows.append(Row(title, f"{note} Should be: {known[0][name].expected}.", cells))
    for name, (title, note) in MORE.items():
        rows.append(Row(title, note, [(_diagnostic(run, name), "") for run in runs]))
    return rows


def _diagnostic(run: RunData, name: str) -> str:
    """Return a diagnostic as text, or `not applicable` with the reason."""
    value = run.result.get("diagnostics", {}).get(name)
    if isinstance(value, int | float) and math.isfinite(value):
        return number(value)
    why = run.loaded.not_applicable.get(name, "") if run.loaded is not None else ""
    return f"not applicable: {why}" if why else "not applicable"


# ------------------------------------------------------------------------------------------------------- first screen


def verdict(run: RunData) -> Verdict:
    """Return the verdict on a run, with its reasons."""
    alarms = [_alarm(run, str(line)) for line in run.result.get("diagnostics", {}).get("alarms", [])]
    rate, stopped = run.rate(), str(run.result.get("stopped", "running"))
    lines = [_ending(run, stopped)]
    if len(run.time) == 0:
        seen = [lesson["rate"] for lesson in run.lessons if lesson["rate"] > 0]
        if seen:
            lines.append(f"The last learning round gave about {number(seen[-1], 2)} /ps, without an error bar.")
        return Verdict("part", "No rate yet: production has not begun", lines, alarms)
    if alarms:
        count = "One alarm" if len(alarms) == 1 else f"{len(alarms)} alarms"
        return Verdict("bad", f"{count}: the interval may be too narrow", lines, alarms)
    if not math.isfinite(rate.standard_error):
        return Verdict("part", "No error bar yet: too few data", lines, alarms)
    if rate.relative_error > 0.3:
        lines.append("The error is large: the rate is an order of magnitude.")
    checks = run.loaded.checks if run.loaded is not None else []
    passed, unknown = (sum(check.verdict == word for check in checks) for word in ("passed", "not applicable"))
    headline = f"No alarm: {passed} checks passed" + (f", {unknown} not applicable" if unknown else "")
    # Printed in every case: a reader may stop here.
    lines.append("No check detects a channel that no walker has entered.")
    if stopped != "target":
        return Verdict("part", f"Not finished. {headline}", lines, alarms)
    return Verdict("good", headline, lines, alarms)


def _alarm(run: RunData, line: str) -> tuple[str, str, str]:
    what, _, rest = line.partition(": ")
    checks = run.loaded.checks if run.loaded is not None else []
    names = [check.name for check in checks if check.alarm == line]
    return what, rest, CHECKS[names[0]][1] if names else ""


def _ending(run: RunData, stopped: str) -> str:
    target = run.loaded.config.get("target_relative_error") if run.loaded is not None else None
    asked = f" (an error of {percent(float(target))})" if target is not None else ""
    if stopped == "target":
        return f"The run reached its target{asked}."
    if stopped == "lost":
        return "The run ended because walkers were lost: its rate must not be used."
    more = "the rate is valid, its error larger than the target" if len(run.time) else "there is no rate yet"
    where = stage(run)
    place = run.loaded.directory.name if run.loaded is not None else "DIR"
    how, option = STOPPED.get(stopped, (f"stopped ({stopped})", ""))
    how += f", in the stage {where}" if where else ""
    return f"The run {how}, before its target{asked}: {more}. To continue: rlis resume {place}{option}"


def stage(run: RunData) -> str:
    """Return the stage of the last whole round; empty if there is none."""
    if run.loaded is None:
        return ""
    store = RunDirectory.open(run.loaded.directory)
    order = ("given", "start", "flux", "learning", "plan", "production")
    done = [f"{name} (round {len(store.rounds(name))})" for name in order if store.rounds(name)]
    return done[-1] if done else ""


def rate_words(run: RunData) -> list[str]:
    """Return what the rate and its interval mean, in plain words."""
    rate, (source, target) = run.rate(), ends(run)
    if math.isnan(rate.value):
        return ["There is no rate before the first production round."]
    if rate.value == 0.0:
        return [f"No transition from {source} to {target} was observed: the rate is only bounded from above."]
    mean = 1.0 / rate.value
    every = f"One transition from {source} to {target} every {time_text(mean)} spent in state {source}"
    if not math.isfinite(rate.standard_error):
        return [f"{every}. The error is not known yet."]
    low, high = rate.interval
    longest = time_text(1.0 / low, mean) if low > 0 else "unbounded"
    return [
        f"{every} (95{SPACE}% interval: {time_text(1.0 / high, mean)} to {longest}).",
        "In repeated computations about 95 of 100 such intervals contain the true rate.",
    ]


def ends(run: RunData) -> tuple[str, str]:
    """Return the names of source and target."""
    return str(run.result.get("source", "A")), str(run.result.get("target", "B"))


def temperature(run: RunData) -> float:
    """Return the temperature in kelvin."""
    return 1.0 / (float(run.result["beta"]) * GAS_CONSTANT / 1000.0)


# --------------------------------------------------------------------------------------------------------- definitions


def timestep(run: RunData) -> float:
    """Return the time step in ps; nan if it cannot be told."""
    problem, _ = obtain(run, "problem")
    if problem is not None:
        return float(problem.timestep)
    recipe = run.loaded.config.get("recipe") if run.loaded is not None else None
    return float((recipe or {}).get("options", {}).get("timestep", math.nan))


def definition_rows(run: RunData) -> list[Row]:
    """Return the definitions behind the rate."""
    (source, target), problem = ends(run), obtain(run, "problem")[0]
    others = [str(name) for name in run.result.get("others") or ()]
    config: Mapping[str, Any] = run.loaded.config if run.loaded is not None else {}
    dt, lag = timestep(run), float(config.get("lag_time", math.nan))
    direct = f"A path that enters {', '.join(others)} first does not count." if others else "There is no other region."
    rows = [
        ("rate", f"Direct transitions {source} → {target} per time with {source} the last region visited. {direct}"),
        ("system", f"{run.result.get('system')}; particles: {config.get('n_atoms', 'unknown')}; {_forces(run)}"),
        ("dynamics", _dynamics(problem)),
        ("temperature", f"beta = {number(float(run.result['beta']), 4)} mol/kJ, T = {number(temperature(run), 4)} K"),
        ("time step dt", f"{number(dt)} ps"),
        ("lag", f"{number(lag)} ps between two tests of the regions; nothing is tested in between"),
    ]
    regions = {region.name: _region(region) for region in problem.regions} if problem is not None else {}
    parts = [(source, "source"), (target, "target"), *((name, "other") for name in others)]
    rows += [(f"region {name}", f"{role}: {regions.get(name, 'see config.yaml')}") for name, role in parts]
    return [Row(name, "", [(text, "")]) for name, text in rows]


def _dynamics(problem: Any) -> str:
    if problem is None:
        return "overdamped (Brownian), as stored in the run directory"
    kind = {"brownian": "overdamped (Brownian, Euler-Maruyama)"}.get(problem.dynamics, str(problem.dynamics))
    return f"{kind}, friction {number(problem.friction)} /ps, dimensions: {problem.dimensions}"


def _forces(run: RunData) -> str:
    if run.loaded is None:
        return "forces unknown"
    try:
        tree = parsed(RunDirectory.open(run.loaded.directory).system_xml)
    except (ValueError, RlisError):
        return "forces unknown"
    kinds = sorted({str(force.get("type")) for force in tree.iter("Force")})
    return f"forces: {', '.join(kinds) or 'none'}"


def _region(region: Any) -> str:
    if region.feature is None or region.center is None:
        return "where a condition written in Python holds"
    if hasattr(region.feature, "low"):  # a Box; its ball of radius 1 about 0 would say nothing
        box = region.feature
        parts = zip(box.values.parts, box.low.tolist(), box.high.tolist(), strict=True)
        return f"where {' and '.join(_interval(*part) for part in parts)}; atoms are counted from 0"
    centre = region.center.tolist()
    shown = ", ".join(number(x) for x in centre[:12]) + (", ..." if len(centre) > 12 else "")
    kind = type(region.feature).__name__
    return f"within {number(region.radius)} of ({shown}) in feature space ({kind}, {len(centre)} numbers)"


def _interval(part: Any, low: float, high: float) -> str:
    """Return a feature of one column and its interval, angles in degrees."""
    name, angle = type(part).__name__, bool(getattr(part, "radians", False))
    indices = [int(i) for table in part.buffers() for i in table.reshape(-1).tolist()]
    word, unit = MEASURES.get((name, angle), (name, ""))
    if name == "Coordinates":
        what = f"{'xyz'[indices[0] % 3]} of atom {indices[0] // 3}"
    else:
        what = f"{word} of atoms {', '.join(map(str, indices))}" if indices else word
    low, high = (math.degrees(end) if angle else end for end in (low, high))
    ends = f"at most {number(high, 6)}" if math.isinf(low) else f"at least {number(low, 6)}"
    if math.isfinite(low) and math.isfinite(high):
        ends = f"from {number(low, 6)} to {number(high, 6)}"
    return f"{what} {ends}{unit and SPACE + unit}"


# ---------------------------------------------------------------------------------------------------------------- cost


def costs(run: RunData) -> dict[str, float]:
    """Return force evaluations of each stage, of all, and of brute force for the same error where it can be told."""
    spent = {k: float(v) for k, v in run.result.get("cost", {}).get("force_evaluations", {}).items()}
    rate, dt = run.rate(), timestep(run)
    if run.result.get("method") != "brute" and rate.value > 0 and 0 < rate.relative_error < math.inf and dt > 0:
        spent["brute force, estimated"] = 1.0 / (rate.value * dt * rate.relative_error**2)
    return spent


def cost_words(run: RunData) -> list[str]:
    """Return the comparison with brute force with its formula, in words."""
    spent, rate = costs(run), run.rate()
    brute, total = spent.get("brute force, estimated"), spent.get("total", 0.0)
    if run.result.get("method") == "brute":
        return ["This run is brute force: unbiased, without branching."]
    if brute is None or total <= 0:
        return ["The cost of brute force is not known yet: it needs the rate, its error and the time step."]
    mfpt, dt, error = 1.0 / rate.value, timestep(run), rate.relative_error
    # The standard deviation of n normal values is itself known to 1/sqrt(2 (n - 1)); its square to twice that.
    doubt = 1.0 / math.sqrt(2.0 * max(rate.n_batches - 1, 1))
    ratio = brute / total
    compared = f"{number(ratio, 2)} times as many as" if ratio >= 1 else f"only {number(ratio, 2)} of"
    return [
        f"Brute force would need about (MFPT / dt) × 1 / error² = ({number(mfpt)} ps / {number(dt)} ps) × "
        f"1 / {number(error, 2)}² = {number(brute, 2)} force evaluations for the same relative error: {compared} "
        "this run.",
        "Each transition takes MFPT / dt steps of one walker, and 1 / error² of them are needed since their number is "
        f"Poisson. The error itself is known to about ±{percent(doubt)} from {rate.n_batches} batches, so this factor "
        f"to about ±{percent(2 * doubt)}. Equilibration is not included. The ratio of wall times differs, since "
        "branching and networks have their own overhead.",
    ]


def cost_notes(run: RunData) -> str:
    """Return the cost of a run, in words."""
    cost = run.result.get("cost", {})
    total, calls, seconds = (
        number(float(x or 0.0)) for x in (costs(run).get("total"), cost.get("network_calls"), cost.get("seconds"))
    )
    return f"This run took {total} force evaluations (forces of one walker), {calls} network calls and {seconds} s."


def not_begun(directory: Path) -> list[str]:
    """Return the directions that a directory of both does not hold yet."""
    if not is_parent(directory):
        return []
    return [name for name in DIRECTIONS if not holds_run(directory / name)]


def dates(run: RunData) -> str:
    """Return the day on which a run began, in UTC, from its log."""
    if run.loaded is None:
        return "unknown"
    lines = RunDirectory.open(run.loaded.directory).read_log()
    if not lines or not isinstance(lines[0].get("time"), float):
        return "unknown"
    return datetime.fromtimestamp(lines[0]["time"], UTC).strftime("%Y-%m-%d %H:%M UTC")

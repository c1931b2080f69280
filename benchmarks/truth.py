"""Rates and channel shares of every model system against exact references, by the public API with default settings.

python -m benchmarks truth [SEEDS]       4 seeds by default, some hours on one core, most of them for Mueller-Brown

Runs whose record is in results/runs.jsonl are not made again. Only systems of which all are recorded are put into the
table, if the last argument is `table`. The rates of the seeds are averaged, and so are the shares; an error is that of
the mean, from the errors that the runs claim.

Planes: finite volumes (continuous time and tests). Line: the transition matrix of the very chain that is run, which
also says how a rate depends on the time step and on the lag.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from common import RUNS, Row, evaluations, number, once, rate, record, recorded, save, without_table

import openmm_rlis as rlis
from openmm_rlis.systems import triple_well

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from systems_1d import packaged_double_well
from test_oracles_2d import mueller, wells


def line(height: float, tilt: float, timestep: float = 5e-4, lag_steps: int = 10, back: bool = False) -> float:
    """Return the exact rate of `systems/double_well.py` at beta 1 in 1/ps."""
    return packaged_double_well(height, tilt, timestep, lag_steps, back).chain.endless.rate


def trend() -> list[str]:
    """Return the table of exact rates against time step and lag."""
    limit = line(8.0, 1.0, 6.25e-5, 80) * 2.0 - line(8.0, 1.0, 1.25e-4, 40)
    lines = [
        "## Time step and lag", "", "Double well, height 8, tilt 1, beta 1: exact rate of the chain over its limit "
        f"for dt to 0 at a lag of 5e-3 ps ({limit:.5e} /ps).", "", "| dt (ps) | lag (ps) | rate / limit |",
        "|---|---|---|",
    ]  # fmt: skip
    pairs = [(2e-3, 1e-2), (1e-3, 1e-2), (5e-4, 1e-2), (2.5e-4, 1e-2), (5e-4, 4e-2), (5e-4, 5e-3), (5e-4, 5e-4)]
    for timestep, lag in pairs:
        steps = round(lag / timestep)
        lines.append(f"| {timestep:g} | {lag:g} | {line(8.0, 1.0, timestep, steps) / limit:.4f} |")
    return lines


def average(found: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean of (value, standard error) of the seeds, and its error."""
    values, errors = np.array(found).T
    return float(values.mean()), float(np.linalg.norm(errors)) / len(found)


def name_of(words: str, seed: int) -> str:
    """Return the name of a run."""
    return "truth-" + words.replace(" --set ", "-").replace(" --", "-").replace(" ", "") + f"-{seed}"


def made(words: str, seed: int) -> Row:
    """Return the record of a run, which is made if it is not there; of the triple well with shares of its channels."""
    name = name_of(words, seed)
    if found := recorded(name):
        return found
    result, shares = once(name, "run", *words.split(), "--seed", str(seed)), {}
    if words.startswith("triple"):
        loaded = rlis.load(RUNS / name)
        upper, groups = loaded.channels(triple_well.channel)["upper"], loaded.channels().values()
        shares = {
            "upper": (upper.value, upper.standard_error),
            "groups": [(group.value, group.standard_error) for group in groups],
        }
    return record(name, result, **shares)


def rates_line(words: str, exact: float, runs: list[Row]) -> str:
    """Return one line of the table of rates."""
    problem = import_module(f"openmm_rlis.systems.{words.split()[0]}").build()
    k, e = average([rate(run) for run in runs])
    cost, alarms = np.mean([evaluations(run) for run in runs]), sum(bool(run["diagnostics"]["alarms"]) for run in runs)
    held = sum(run["rate"]["interval"][0] <= exact <= run["rate"]["interval"][1] for run in runs)
    return (
        f"| `{words}` | {problem.timestep:g}, {problem.lag_time:g} | {exact:.4g} | {k:.4g} +- {e:.1g} | "
        f"{(k - exact) / (0.03 * exact + 2 * e):+.2f} | {held} of {len(runs)} | {alarms} | {cost:.1e} |"
    )


def shares_line(beta: float, tilt: float, runs: list[Row]) -> str:
    """Return one line of the table of shares."""
    exact = wells(beta, tilt, 384).share(0.0, triple_well.HILL)
    share, error = average([tuple(run["upper"]) for run in runs])
    z, groups = (share - exact) / error, ", ".join(f"{value:.3f} +- {e:.3f}" for value, e in runs[0]["groups"])
    return f"| {beta:g}, {tilt:g} | {exact:.3f} | {share:.3f} +- {error:.3f} | {z:+.2f} | {groups} |"


def main(arguments: list[str]) -> None:
    """Run everything and write results/truth.md."""
    words, only_table = without_table(arguments)
    seeds = range(1, 1 + number(words, 4))
    cases = [
        ("double_well --set tilt=0", line(8.0, 0.0)),
        ("double_well", line(8.0, 1.0)),
        ("double_well --from R --to L", line(8.0, 1.0, back=True)),
        ("double_well --set height=16", line(16.0, 1.0)),
        *[
            (f"triple_well --beta {b} --set tilt={t}", wells(b, t, 384).rate)
            for b in (1.67, 3.0, 5.0)
            for t in (0, 0.5)
        ],
        *[(f"mueller_brown --beta {b}", mueller(float(b), 360).rate) for b in (1, 2, 3)],
    ]
    lines = [
        f"{len(seeds)} seeds each, default settings, target 10 %. Command: `python -m benchmarks truth {len(seeds)}`.",
        "",
        "| system | dt, lag (ps) | exact (1/ps) | mean of the runs (1/ps) | difference / (3 % + 2 errors) | "
        "intervals that hold the exact rate | runs with an alarm | evaluations of a run |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    shares = [
        "## Channels", "", "Share of the upper channel of the triple well. By label: paths whose last "
        "crossing of x = 0 is above the hill. By grouping: all channels that the first run finds by itself.", "",
        "| beta, tilt | finite volumes | by label | difference / error | by grouping |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for words, exact in cases:
        if only_table and not all(recorded(name_of(words, seed)) for seed in seeds):
            continue
        runs = [made(words, seed) for seed in seeds]
        lines.append(rates_line(words, exact, runs))
        print(lines[-1], flush=True)
        if words.startswith("triple"):
            beta, tilt = float(words.split()[2]), float(words.split("=")[1])
            shares.append(shares_line(beta, tilt, runs))
            print(shares[-1], flush=True)
    save("truth", [*lines, "", *shares, "", *trend()])


if __name__ == "__main__":
    main(sys.argv[1:])

"""Rates and channel shares of every model system against exact references, by the public API with default settings.

python benchmarks/truth.py [quick]       30 minutes on one core; 10 with `quick`, which leaves out the coldest case

Finished runs are kept in runs/benchmarks.

Planes: finite volumes (continuous time and tests). Line: the transition matrix of the very chain that is run, which
also says how a rate depends on the time step and on the lag.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import RUNS, evaluations, once, rate, save

import openmm_rlis as rlis
from openmm_rlis.systems import triple_well

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
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


def main() -> None:
    """Run everything and write results/truth.md."""
    quick = "quick" in sys.argv
    cases = [
        ("double_well --set tilt=0", line(8.0, 0.0)),
        ("double_well", line(8.0, 1.0)),
        ("double_well --from R --to L", line(8.0, 1.0, back=True)),
        ("double_well --set height=16", line(16.0, 1.0)),
        *[(f"mueller_brown --beta {b}", mueller(float(b), 360).rate) for b in (1, 2) + (3,) * (not quick)],
        *[
            (f"triple_well --beta {b} --set tilt={t}", wells(b, t, 384).rate)
            for b in (1.67, 3.0, 5.0)
            for t in (0, 0.5)
        ],
    ]
    lines = [
        "Default settings, target 10 %, seed 1. Command: `python benchmarks/truth.py"
        f"{' quick' * quick}`.", "",
        "| system | dt, lag (ps) | exact (1/ps) | run (1/ps) | difference / (3 % + 2 errors) | alarms | evaluations |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    shares = [
        "## Channels", "", "Share of the upper channel of the triple well. By label: paths whose last "
        "crossing of x = 0 is above the hill. By grouping: all channels that the run finds by itself.", "",
        "| beta, tilt | finite volumes | by label | difference / error | by grouping |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for words, exact in cases:
        name = "truth-" + words.replace(" --set ", "-").replace(" --", "-").replace(" ", "")
        result = once(name, "run", *words.split(), "--seed", "1")
        k, e = rate(result)
        loaded = rlis.load(RUNS / name)
        options = loaded.config["recipe"]["options"]
        dt = options["timestep"]
        lines.append(
            f"| `{words}` | {dt:g}, {dt * options['lag_steps']:g} | {exact:.4g} | {k:.4g} +- {e:.1g} | "
            f"{(k - exact) / (0.03 * exact + 2 * e):+.2f} | {len(result['diagnostics']['alarms'])} | "
            f"{evaluations(result):.1e} |"
        )
        print(lines[-1], flush=True)
        if words.startswith("triple"):
            plane = wells(options["beta"], options["tilt"], 384).share(0.0, triple_well.HILL)
            found = loaded.channels(triple_well.channel)["upper"]
            z = (found.value - plane) / found.standard_error
            groups = ", ".join(f"{s.value:.3f} +- {s.standard_error:.3f}" for s in loaded.channels().values())
            shares.append(
                f"| {options['beta']:g}, {options['tilt']:g} | {plane:.3f} | {found.value:.3f} +- "
                f"{found.standard_error:.3f} | {z:+.2f} | {groups} |"
            )
            print(shares[-1], flush=True)
    save("truth", [*lines, "", *shares, "", *trend()])


if __name__ == "__main__":
    main()

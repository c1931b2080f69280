"""Places that are no region: rates with an intermediate between A and B, and with a trap within A, against the truth.

python -m benchmarks intermediates [SEEDS] [CASE ...]     16 seeds of every case by default, some hours on one core

A particle on a line, U = H (1 - cos 2 pi x) - D exp(-((x - x_M)/0.2)^2) in kT with walls beyond |x| = 1: wells at -1,
0 and 1. The truth is a quadrature, with the ends of the regions moved by 0.58 sqrt(2 D tau) for the tests at intervals.
For LJ7 from C2 to C3 with C0 and C1 as no region at beta 5 it is `rlis brute` of the same package. Runs that are
recorded in results/intermediates.jsonl are not made again; with `table` as the last argument none is made.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from common import RESULTS, mean_and_error, number, save, without_table

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.systems import lj7
from openmm_rlis.units import thermal_energy

RECORDS = RESULTS / "intermediates.jsonl"
KELVIN = 1.0 / thermal_energy(1.0)  # kT = 1 kJ/mol
TIMESTEP, LAG_STEPS = 2e-4, 10
DEFAULT = Settings()
SHIFT = 0.5826 * np.sqrt(2.0 * TIMESTEP * LAG_STEPS)


@dataclass(frozen=True)
class Wells:
    """Barriers of 2 `height` kT, the well at `place` deeper by `depth`; A is x < `low`, B is x > 0.85."""

    height: float
    depth: float
    place: float = 0.0
    low: float = -0.85
    start: float = -1.0
    settings: Settings = DEFAULT

    def exact(self) -> float:
        """The rate in 1/ps by quadrature."""
        x = np.linspace(-1.8, 1.8, 72001)
        dx = x[1] - x[0]
        wall = 40.0 * np.where(np.abs(x) > 1.0, (np.abs(x) - 1.0) ** 2, 0.0)
        dip = self.depth * np.exp(-(((x - self.place) / 0.2) ** 2))
        u = self.height * (1.0 - np.cos(2.0 * np.pi * x)) - dip + wall
        a, b = self.low - SHIFT, 0.85 + SHIFT
        between = (x >= a) & (x <= b)
        c = np.cumsum(np.where(between, np.exp(u), 0.0)) * dx
        q = np.where(x < a, 0.0, np.where(x > b, 1.0, c / c[-1]))
        return float(1.0 / (c[-1] * (np.exp(-u) * (1.0 - q)).sum() * dx))

    def problem(self) -> rlis.Problem:
        """The same as a Problem."""
        system = openmm.System()
        system.addParticle(1.0)
        force = openmm.CustomExternalForce(
            f"{self.height}*(1-cos({2.0 * np.pi!r}*x))-{self.depth}*exp(-((x-({self.place}))/0.2)^2)"
            "+40*step(abs(x)-1)*(abs(x)-1)^2"
        )
        force.addParticle(0, [])
        system.addForce(force)
        low = self.low
        return rlis.Problem(
            system, [[self.start, 0.0, 0.0]], source=rlis.Region.where(lambda x: x[:, 0, 0] < low, "A"),
            target=rlis.Region.where(lambda x: x[:, 0, 0] > 0.85, "B"), temperature=KELVIN, friction=1.0,
            timestep=TIMESTEP, lag_steps=LAG_STEPS, dimensions=1,
        )  # fmt: skip


FEW = Settings(learning_roots=50, learning_rounds=3)  # a visit to M takes 1e5 evaluations and more
CASES: dict[str, Wells] = {
    "three equal wells, barriers 6.2 kT": Wells(3.1, 0.0, settings=FEW),
    "barriers 4 kT, M 2 kT deeper": Wells(2.0, 2.0, settings=FEW),
    "barriers 7 kT, M 3 kT deeper": Wells(3.5, 3.0, settings=Settings(learning_roots=10, learning_rounds=2)),
    "a trap within A, 2 kT deeper, barrier 4 kT": Wells(2.0, 2.0, place=-1.0, low=0.15, start=0.0),
    "a trap within A, 2 kT deeper, barrier 6.2 kT": Wells(3.1, 2.0, place=-1.0, low=0.15, start=0.0),
}
LJ7 = "LJ7, C2 -> C3, beta 5, C0 and C1 no regions"


def recorded() -> list[dict[str, Any]]:
    """Return all records."""
    return [json.loads(row) for row in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def made(case: str, method: str, seed: int, only_table: bool) -> dict[str, Any] | None:
    """Return the record of a run, made now if need be."""
    for row in recorded():
        if (row["case"], row["method"], row["seed"]) == (case, method, seed):
            return row
    if only_table:
        return None
    problem = CASES[case].problem() if case in CASES else lj7.build(source="C2", target="C3", others=(), beta=5.0)
    with tempfile.TemporaryDirectory() as folder:
        if method == "brute":
            result = rlis.sampler.brute(problem, Path(folder) / "run", seed=seed, target_relative_error=0.1)
        else:
            settings = CASES[case].settings if case in CASES else FEW
            result = rlis.run(problem, Path(folder) / "run", seed=seed, settings=settings)
        found = result.to_dict()
    row = {"case": case, "method": method, "seed": seed, **{k: found[k] for k in ("rate", "cost", "diagnostics")}}
    with RECORDS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def line(case: str, method: str, rows: list[dict[str, Any]], truth: float | None) -> str:
    """Return one line of the table."""
    k, e = (np.array([row["rate"][name] for row in rows]) for name in ("value", "standard_error"))
    low, high = (np.array([row["rate"]["interval"][i] for row in rows]) for i in (0, 1))
    about = k.mean() if truth is None else truth
    mean, error = mean_and_error(list(k)) if len(k) > 1 else (k[0], e[0])
    held = int(((low <= about) & (about <= high)).sum())
    spread = f"{k.std(ddof=1) / np.sqrt((e**2).mean()):.2f}" if len(k) > 1 else "-"
    late = [row["diagnostics"].get("late_share") for row in rows]
    share = f"{np.mean([x for x in late if isinstance(x, float)]):.2f}" if method == "run" else "-"
    cost = np.mean([row["cost"]["force_evaluations"]["total"] for row in rows])
    told = sum(bool(row["diagnostics"]["alarms"]) for row in rows)
    exact = "-" if truth is None else f"{truth:.4g}"
    return (
        f"| {case} | {method} | {len(k)} | {exact} | {mean:.4g} +- {error:.2g} | {spread} | {held} of {len(k)} | "
        f"{share} | {told} | {cost:.1e} |"
    )


def main(arguments: list[str]) -> None:
    """Make the runs and write results/intermediates.md."""
    words, only_table = without_table(arguments)
    n = number(words, 16)
    lines = [
        f"Target 10 %. Command: `python -m benchmarks intermediates {n}`.", "",
        "| case | method | seeds | exact (1/ps) | mean | spread / claimed | intervals that hold the exact rate (the "
        "mean where there is none) | share of the time beyond `excursion_lags` | runs with an alarm | evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for case in words[1:] or [*CASES, LJ7]:
        truth = CASES[case].exact() if case in CASES else None
        for method in ("run", "brute"):
            seeds = range(1, 1 + (n if method == "run" else min(n, 2)))
            rows = [row for seed in seeds if (row := made(case, method, seed, only_table)) is not None]
            if rows:
                lines.append(line(case, method, rows, truth))
                print(lines[-1], flush=True)
    save("intermediates", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

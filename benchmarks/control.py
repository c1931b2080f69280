"""What the control variate saves: the same runs, with what arrived and with what is reported.

python -m benchmarks control      reads the runs of coverage.py and spread.py that are finished; makes none

A run stores what arrived of each root and the transitions of each batch, from which the control variate was taken.
Both estimate the same rate from the same walks, and their spread over seeds can be compared; so can the variance of
batches in a round, which needs no second seed. The variance of the run in A is part of both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from common import RUNS, coverage_name, finished, lj7_name, save
from numpy.typing import NDArray

from openmm_rlis.storage.run_directory import RunDirectory

Array = NDArray[np.float64]
MOST_SEEDS = 200
CASES: dict[str, Callable[[int], str]] = {
    "triple well, beta 3": partial(coverage_name, "triple_well, beta 3"),
    "Mueller-Brown, beta 1": partial(coverage_name, "mueller_brown, beta 1"),
} | {
    f"LJ7 {a} -> {b}, beta {beta:g}": lambda seed, a=a, b=b, beta=beta: lj7_name("run", a, b, beta, seed, 0.1)
    for beta in (9.0, 12.0)
    for a, b in (("C3", "C2"), ("C2", "C3"))
}


def records(run: RunDirectory) -> tuple[Array, Array, float, float]:
    """Return what arrived and what is reported, (n_rounds, n_batches); the time of all, ps; and the coefficient."""
    rounds = [run.read_round("production", i).arrays for i in run.rounds("production")]
    n = len(rounds[0]["transitions"])
    arrived = np.stack([np.bincount(r["root_batches"], r["root_weights"], n) for r in rounds])
    reported = np.stack([r["transitions"] for r in rounds])
    time = float(np.sum([r["time"].sum() for r in rounds]))
    return arrived, reported, time, float(run.read_round("plan", 0).info["control"])


def line(case: str, found: list[tuple[Array, Array, float, float]]) -> str:
    """Return one line of the table."""
    rates = np.array([[x.sum() / time for x in (arrived, reported)] for arrived, reported, time, _ in found])
    within = np.array([arrived.var(ddof=1) / reported.var(ddof=1) for arrived, reported, _, _ in found])
    c = [coefficient for *_, coefficient in found]
    means, spreads = rates.mean(0), rates.std(0, ddof=1)
    cells = [f"{m:.4g} +- {s / len(rates) ** 0.5:.1g} | {s / m:.1%}" for m, s in zip(means, spreads, strict=True)]
    low, high = np.quantile(within, [0.1, 0.9])
    return (
        f"| {case} | {len(rates)} | {np.mean(c):.2f} ({min(c):.2f} to {max(c):.2f}) | {cells[0]} | {cells[1]} | "
        f"{(spreads[0] / spreads[1]) ** 2:.1f} | {np.median(within):.1f} ({low:.1f} to {high:.1f}) |"
    )


def main(_: list[str]) -> None:
    """Write results/control.md."""
    lines = [
        "The same runs, target 10 %, with what arrived and with what is reported. Command: "
        "`python -m benchmarks control`, after coverage.py and spread.py.",
        "",
        "| case | seeds | c (range) | from arrivals (1/ps) | spread | as reported (1/ps) | spread | "
        "variance over seeds, arrivals / reported | variance of a batch in a round, the same: median (80 % of runs) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, name in CASES.items():
        names = [name(seed) for seed in range(1, 1 + MOST_SEEDS)]
        found = [records(RunDirectory.open(RUNS / one)) for one in names if finished(one)]
        if len(found) > 1:
            lines.append(line(case, found))
    save("control", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How often the 95 % interval holds the truth: many seeds with default settings, each learned from nothing.

python -m benchmarks coverage [SEEDS]     200 seeds of each model potential and 48 of LJ7 by default, or at most SEEDS:
                                          some 4 hours on one core

Runs whose record is in results/runs.jsonl are not made again. The truth is a finite volume rate; that of LJ7 is brute
force, and so not sharp: the mean of the seeds is. Only what is recorded is put into the table, if the last
argument is `table`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Row, coverage_name, evaluations, finder, lj7_brute, lj7_run, number, rate, save, without_table
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from test_oracles_2d import mueller, wells

POTENTIALS: dict[str, tuple[list[str], Callable[[], float]]] = {
    "mueller_brown, beta 1": (["mueller_brown", "--beta", "1"], lambda: mueller(1.0, 360).rate),
    "triple_well, beta 3": (["triple_well", "--beta", "3"], lambda: wells(3.0, 0.0, 384).rate),
}
LJ7 = ("C3", "C2", 9.0)


def line(case: str, runs: list[Row], truth: tuple[float, float]) -> str:
    """Return one line of the table."""
    exact, blur = truth
    k, e = np.array([rate(r) for r in runs]).T
    low, high = (np.array([r["rate"]["interval"][i] for r in runs]) for i in (0, 1))
    cells = []
    for about in (exact, k.mean()):
        held = int(((low <= about) & (about <= high)).sum())
        share = binomtest(held, len(runs)).proportion_ci(method="exact")
        cells.append(f"{held / len(runs):.1%} ({share.low:.0%} to {share.high:.0%})")
    known = f"{exact:.4g}" + (f" +- {blur:.1g}" if blur else "")
    error = np.hypot(k.std(ddof=1) / len(k) ** 0.5, blur) / exact
    alarms = sum(bool(r["diagnostics"]["alarms"]) for r in runs)
    return (
        f"| {case} | {len(runs)} | {known} | {k.mean() / exact:.3f} +- {error:.3f} | "
        f"{k.std(ddof=1) / np.sqrt((e**2).mean()):.2f} | {cells[0]} | {cells[1]} | "
        f"{np.abs((k - exact) / e).max():.1f} | {alarms} | {np.mean([evaluations(r) for r in runs]):.1e} |"
    )


def main(arguments: list[str]) -> None:
    """Run everything and write results/coverage.md."""
    words, only_table = without_table(arguments)
    most = number(words, 200)
    lines = [
        f"Default settings, target 10 %. Command: `python -m benchmarks coverage {most}`.", "",
        "| case | seeds | truth (1/ps) | mean / truth | spread / claimed | intervals that hold the truth (95 % range "
        "of the share) | that hold the mean | worst deviation, claimed errors | runs with an alarm | evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    find = finder(only_table)
    for case, (words, truth) in POTENTIALS.items():
        names = [(coverage_name(case, s), "run", *words, "--seed", str(s)) for s in range(1, 1 + most)]
        runs = [row for name in names if (row := find(*name))]
        if len(runs) > 1:
            lines.append(line(case, runs, (truth(), 0.0)))
            print(lines[-1], flush=True)
    source, target, beta = LJ7
    names = [lj7_run("run", source, target, beta, s, 0.1) for s in range(1, 1 + min(most, 48))]
    runs = [row for name in names if (row := find(*name))]
    brute = lj7_brute(source, target, beta)
    if len(runs) > 1 and brute:
        lines.append(line(f"lj7, {source} -> {target}, beta {beta:g}", runs, brute))
    save("coverage", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

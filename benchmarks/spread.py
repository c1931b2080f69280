"""Many seeds of LJ7, each learned from nothing: is the mean right, and does the spread agree with the claimed errors?

python -m benchmarks spread [SEEDS] [BETA ...]    16 seeds, beta 7 9 12 15 by default: some 10 hours on one core

Runs whose record is in results/runs.jsonl are not made again. Where there is brute force (brute.py) they are compared
with it, all with Eyring-Kramers. Only what is recorded is put into the table, if the last argument is `table`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import Row, evaluations, finder, lj7_brute, lj7_run, number, rate, save, without_table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from oracles_lj7 import eyring_kramers

WAYS = (("C3", "C2"), ("C2", "C3"))
HEAD = [
    "| beta | path | seeds | mean (1/ps) | brute force | mean / Eyring-Kramers | spread / claimed | intervals that "
    "hold the mean | worst deviation from the mean, claimed errors | alarms | evaluations | of these learning | "
    "relative variance x evaluations | the same without learning | seconds |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
]


def summary(beta: float, way: int, results: list[Row], brute: tuple[float, float] | None) -> str:
    """Return one line of the table."""
    source, target = WAYS[way]
    k, e = np.array([rate(r) for r in results]).T
    low, high = (np.array([r["rate"]["interval"][i] for r in results]) for i in (0, 1))
    mean, error = k.mean(), k.std(ddof=1) / np.sqrt(len(k))
    held = int(((low <= mean) & (mean <= high)).sum())
    expected = eyring_kramers(source, target, beta)[0]
    cost = np.mean([evaluations(r) for r in results])
    learning = np.mean([evaluations(r, "learning") for r in results])
    variance = k.var(ddof=1) / mean**2
    reference = "{:.4g} +- {:.1g}".format(*brute) if brute else "-"
    return (
        f"| {beta:g} | {source} -> {target} | {len(k)} | {mean:.4g} +- {error:.1g} | {reference} | "
        f"{mean / expected:.2f} | {k.std(ddof=1) / np.sqrt((e**2).mean()):.2f} | {held} | "
        f"{np.abs((k - mean) / e).max():.1f} | {sum(bool(r['diagnostics']['alarms']) for r in results)} | "
        f"{cost:.1e} | {learning:.1e} | {variance * cost:.1e} | {variance * (cost - learning):.1e} | "
        f"{np.mean([r['cost']['seconds'] for r in results]):.0f} |"
    )


def main(arguments: list[str]) -> None:
    """Run the seeds and write results/spread.md."""
    words, only_table = without_table(arguments)
    seeds = range(1, 1 + number(words, 16))
    betas = [float(b) for b in words[1:]] or [7.0, 9.0, 12.0, 15.0]
    command = " ".join(str(b) for b in (len(seeds), *[f"{b:g}" for b in betas]))
    about = f"LJ7, others C0 and C1, target 10 %, default settings. Command: `python -m benchmarks spread {command}`."
    lines = [about, "", *HEAD]
    find = finder(only_table)
    for beta in betas:
        for way, (source, target) in enumerate(WAYS):
            names = [lj7_run("run", source, target, beta, s, 0.1) for s in seeds]
            results = [row for name in names if (row := find(*name))]
            if len(results) > 1:
                lines.append(summary(beta, way, results, lj7_brute(source, target, beta)))
                print(lines[-1], flush=True)
    save("spread", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

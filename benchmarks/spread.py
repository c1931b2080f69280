"""Sixteen seeds, each learned from nothing: does the spread of the rates agree with the errors they claim?

python benchmarks/spread.py          about 20 minutes on one core; finished runs are kept in runs/benchmarks
"""

from __future__ import annotations

import numpy as np
from common import evaluations, lj7, rate, save

SEEDS = range(1, 17)
BETA = 7.0


def main() -> None:
    """Run the seeds and write results/spread.md."""
    results = [lj7("run", "C3", "C2", BETA, seed, 0.1) for seed in SEEDS]
    values, errors = np.array([rate(r) for r in results]).T
    spread, claim = values.std(ddof=1), float(np.sqrt(np.mean(errors**2)))
    low, high = (np.array([r["rate"]["interval"][i] for r in results]) for i in (0, 1))
    mean = values.mean()
    lines = [
        f"LJ7 C3 -> C2, beta {BETA:g}, others C0 and C1, target 10 %. Command: `python benchmarks/spread.py`.", "",
        "| seed | rate (1/ps) | claimed error | evaluations | ended | tail index |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for seed, r in zip(SEEDS, results, strict=True):
        k, e = rate(r)
        d = r["diagnostics"]
        lines.append(
            f"| {seed} | {k:.4f} | {e:.4f} | {evaluations(r):.2e} | {d['ended']['value']:.3f} | "
            f"{float(d['tail_index']):.2f} |"
        )
    covered = int(((low <= mean) & (mean <= high)).sum())
    lines += [
        "",
        f"Mean {mean:.5f} +- {spread / np.sqrt(len(values)):.5f}; spread over seeds {spread:.5f}; claimed (root mean "
        f"square) {claim:.5f}; ratio **{spread / claim:.2f}**. The 95 % intervals cover the mean {covered} times of "
        f"{len(values)}.",
    ]
    save("spread", lines)


if __name__ == "__main__":
    main()

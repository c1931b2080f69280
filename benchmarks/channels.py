"""The two saddles of LJ7, C3 -> C2 at beta 7: shares of the transitions by runs and by brute force.

python -m benchmarks channels [SEEDS]       16 seeds by default, some 40 minutes on one core, after
                                            `python -m benchmarks brute C3 7 1 1e9`

A path belongs to the saddle that it comes closest to on the plane of mu2 and mu3, as in examples/lj7_channels.py. Runs
whose record is in results/runs.jsonl are not made again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import RUNS, Row, brute_records, lj7_run, mean_and_error, number, once, record, recorded, save

import openmm_rlis as rlis

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from lj7_channels import channel

BETA = 7.0


def by_brute_force() -> tuple[float, float, int]:
    """Return the share of the upper saddle, its error from the spread of copies, and the number of transitions."""
    rows = brute_records("C3", BETA)
    if not rows:
        raise SystemExit("first: python -m benchmarks brute C3 7 1 1e9")
    n = np.concatenate([row["hits"]["C2"] for row in rows]).astype(float)
    upper = np.concatenate([row["C2_by_upper_saddle"] for row in rows]).astype(float)
    share = upper.sum() / n.sum()
    return float(share), float((upper - share * n).std(ddof=1) * len(n) ** 0.5 / n.sum()), int(n.sum())


def made(seed: int) -> Row:
    """Return the record of a run with the share of the upper saddle."""
    name, *arguments = lj7_run("run", "C3", "C2", BETA, seed, 0.1)
    if found := recorded(name):
        return found
    result = once(name, *arguments)
    share = rlis.load(RUNS / name).channels(channel)["upper"]
    return record(name, result, upper=(share.value, share.standard_error))


def main(arguments: list[str]) -> None:
    """Run everything and write results/channels.md."""
    n_seeds = number(arguments, 16)
    brute, blur, n = by_brute_force()
    lines = [
        f"Share of the upper saddle (mu2, mu3 = 0.5697, 0.1081). Command: `python -m benchmarks channels {n_seeds}`.",
        "", f"Brute force (brute.py), {n} transitions: {brute:.3f} +- {blur:.3f}", "",
        "| seed | share | difference / combined error |", "|---|---|---|",
    ]  # fmt: skip
    found = []
    for seed in range(1, 1 + n_seeds):
        value, error = made(seed)["upper"]
        found.append(value)
        lines.append(f"| {seed} | {value:.3f} +- {error:.3f} | {(value - brute) / np.hypot(error, blur):+.2f} |")
        print(lines[-1], flush=True)
    mean, error = mean_and_error(found)
    z = (mean - brute) / np.hypot(error, blur)
    lines += ["", f"Mean of the runs: {mean:.3f} +- {error:.3f}, {z:+.2f} combined errors from brute force."]
    save("channels", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Runs that a limit stops: how often does the 95 % interval hold the exact rate?

python -m benchmarks limits [SEEDS]     100 seeds of every case by default, about an hour on one core

The limit on force evaluations is one that a run meets soon after production has begun, so that its interval comes from
one or a few rounds. Only runs with a rate count; how many have none is told. The truth is a quadrature (double well)
and finite volumes (triple well). Records are in results/limits.jsonl; with `table` as the last argument no run is made.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, mean_and_error, number, save, without_table
from scipy.stats import binomtest

import openmm_rlis as rlis
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.systems import build

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from systems_1d import packaged_double_well
from test_oracles_2d import wells

RECORDS = RESULTS / "limits.jsonl"
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "double well": ("double_well", {}, 6_000_000),
    "triple well, beta 3": ("triple_well", {"beta": 3.0}, 9_000_000),
    "triple well, beta 4": ("triple_well", {"beta": 4.0}, 10_000_000),
}


def truth(case: str) -> float:
    """Return the exact rate in 1/ps."""
    name, options, _ = CASES[case]
    return packaged_double_well().chain.endless.rate if name == "double_well" else wells(options["beta"], 0.0, 384).rate


def arrivals(folder: Path) -> int:
    """Return how many roots of all production rounds of a run brought some weight to B."""
    run = RunDirectory.open(folder)
    rounds = [run.read_round("production", i) for i in run.rounds("production")]
    return sum(int(np.count_nonzero(stored.arrays["root_weights"])) for stored in rounds)


def made(case: str, seed: int, only_table: bool) -> dict[str, Any] | None:
    """Return the record of a run, made now if need be."""
    rows = [json.loads(row) for row in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    for row in rows:
        if (row["case"], row["seed"]) == (case, seed):
            return row
    if only_table:
        return None
    name, options, limit = CASES[case]
    with tempfile.TemporaryDirectory() as folder:
        result = rlis.run(
            build(name, options), Path(folder) / "run", seed=seed, target_relative_error=0.01,
            max_force_evaluations=limit,
        )  # fmt: skip
        found = result.to_dict()
        found["arrivals"] = arrivals(Path(folder) / "run")
    row = {"case": case, "seed": seed, **{k: found[k] for k in ("rate", "rounds", "cost", "diagnostics", "arrivals")}}
    with RECORDS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def line(case: str, rows: list[dict[str, Any]]) -> str:
    """Return one line of the table."""
    exact, none = truth(case), sum(row["rounds"] == 0 for row in rows)
    rows = [row for row in rows if row["rounds"] > 0]
    k = [row["rate"]["value"] for row in rows]
    low, high = (
        np.array([x if (x := row["rate"]["interval"][i]) is not None else np.inf for row in rows]) for i in (0, 1)
    )
    mean, error = mean_and_error(k)
    below, above = int((high < exact).sum()), int((low > exact).sum())
    share = binomtest(len(rows) - below - above, len(rows)).proportion_ci(method="exact")
    claimed = np.array([row["rate"]["standard_error"] or np.inf for row in rows])
    quiet = [not row["diagnostics"]["alarms"] for row in rows]
    held = ((low <= exact) & (exact <= high))[quiet]
    return (
        f"| {case} | {CASES[case][2]:.1e} | {len(rows)} | {none} | {np.mean([row['rounds'] for row in rows]):.1f} | "
        f"{np.mean([row['arrivals'] for row in rows]):.0f} | {mean / exact:.3f} +- {error / exact:.3f} | "
        f"{np.median(claimed / k):.2f} | {1.0 - (below + above) / len(rows):.1%} "
        f"({share.low:.0%} to {share.high:.0%}) | "
        f"{below} | {above} | {len(held)}: {held.mean() if len(held) else 1.0:.1%} |"
    )


def main(arguments: list[str]) -> None:
    """Make the runs and write results/limits.md."""
    words, only_table = without_table(arguments)
    n = number(words, 100)
    lines = [
        f"Runs stopped by `max_force_evaluations`, default settings. Command: `python -m benchmarks limits {n}`.", "",
        "| case | limit | runs with a rate | without | rounds | roots that arrived | mean / exact | median error "
        "claimed | intervals that hold the exact rate (95 % range) | below it | above it | without an alarm: hold |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for case in CASES:
        rows = [row for seed in range(1, 1 + n) if (row := made(case, seed, only_table)) is not None]
        if any(row["rounds"] for row in rows):
            lines.append(line(case, rows))
            print(lines[-1], flush=True)
    save("limits", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

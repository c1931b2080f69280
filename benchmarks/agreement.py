"""Rates by branching and by brute force, both directions, beta 5 and 7, four seeds each.

python -m benchmarks agreement       about 45 minutes on one core; finished runs are kept in runs/benchmarks
"""

from __future__ import annotations

import math
import sys

from common import evaluations, lj7, rate, save

CASES = [(5.0, "C3", "C2"), (5.0, "C2", "C3"), (7.0, "C3", "C2"), (7.0, "C2", "C3")]
SEEDS = range(1, 5)


def main(_: list[str]) -> None:
    """Run everything and write results/agreement.md."""
    lines = [
        "LJ7, others C0 and C1, `rlis run` at 10 % against `rlis brute` at 5 %.",
        "Command: `python -m benchmarks agreement`.", "",
        "| beta | path | seed | run (1/ps) | brute (1/ps) | difference / combined error | evaluations run | brute |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    worst = 0.0
    for i, (beta, source, target) in enumerate(CASES):
        reference = lj7("brute", source, target, beta, 101 + i, 0.05)
        b, eb = rate(reference)
        for seed in SEEDS:
            result = lj7("run", source, target, beta, seed, 0.1)
            k, e = rate(result)
            sigmas = (k - b) / math.hypot(e, eb)
            worst = max(worst, abs(sigmas))
            lines.append(
                f"| {beta:g} | {source} -> {target} | {seed} | {k:.4f} +- {e:.4f} | {b:.4f} +- {eb:.4f} | "
                f"{sigmas:+.2f} | {evaluations(result):.2e} | {evaluations(reference):.2e} |"
            )
    save("agreement", [*lines, "", f"Largest difference: {worst:.2f} combined standard errors."])


if __name__ == "__main__":
    main(sys.argv[1:])

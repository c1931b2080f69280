"""How often the 95 % interval holds the truth: model potentials with finite volume rates, default settings, many seeds.

python benchmarks/coverage.py [SEEDS]     40 seeds by default, about 30 minutes on one core
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import evaluations, once, rate, save
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_oracles_2d import mueller, wells

CASES = {
    "mueller_brown, beta 1": (["mueller_brown", "--beta", "1"], lambda: mueller(1.0, 360).rate),
    "triple_well, beta 3": (["triple_well", "--beta", "3"], lambda: wells(3.0, 0.0, 384).rate),
    "triple_well, beta 3, tilt 0.5": (
        ["triple_well", "--beta", "3", "--set", "tilt=0.5"], lambda: wells(3.0, 0.5, 384).rate
    ),
}  # fmt: skip


def main() -> None:
    """Run everything and write results/coverage.md."""
    seeds = range(1, 1 + int(sys.argv[1] if len(sys.argv) > 1 else 40))
    lines = [
        f"{len(seeds)} seeds each, default settings, target 10 %. Command: `python benchmarks/coverage.py "
        f"{len(seeds)}`.", "",
        "| case | finite volumes (1/ps) | mean / truth | spread / claimed | intervals that hold the truth (95 % "
        "range of the share) | that hold the mean | runs with an alarm | evaluations |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, (arguments, truth) in CASES.items():
        tag = name.replace(", ", "-").replace(" ", "")
        runs = [once(f"coverage-{tag}-{s}", "run", *arguments, "--seed", str(s)) for s in seeds]
        k, e = np.array([rate(r) for r in runs]).T
        low, high = (np.array([r["rate"]["interval"][i] for r in runs]) for i in (0, 1))
        exact = truth()
        held, about = (int(((low <= x) & (x <= high)).sum()) for x in (exact, k.mean()))
        share = binomtest(held, len(runs)).proportion_ci(method="exact")
        alarms = sum(bool(r["diagnostics"]["alarms"]) for r in runs)
        lines.append(
            f"| {name} | {exact:.4g} | {k.mean() / exact:.3f} +- {k.std(ddof=1) / exact / len(k) ** 0.5:.3f} | "
            f"{k.std(ddof=1) / np.sqrt((e**2).mean()):.2f} | {held} of {len(runs)} ({share.low:.0%} to "
            f"{share.high:.0%}) | {about} | {alarms} | {np.mean([evaluations(r) for r in runs]):.1e} |"
        )
        print(lines[-1], flush=True)
    save("coverage", lines)


if __name__ == "__main__":
    main()

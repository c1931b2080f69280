"""The same rate with the bias on and off, held 1, 5 and 20 steps, by TorchForce and by PythonForce.

    python -m benchmarks variants        about 20 minutes on one core; finished runs are kept in runs/benchmarks

One value function, learned once, serves all; every variant has its own seed, flux runs, exits and roots.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import common

import openmm_rlis as rlis
from openmm_rlis.systems import lj7

BETA = 7.0
VARIANTS: dict[str, dict[str, Any]] = {
    "branching only": {"bias_scale": 0.0},
    "bias s = 1, held 1, TorchForce": {"bias_scale": 1.0, "hold_steps": 1, "backend": "torch"},
    "bias s = 1, held 5, TorchForce": {"bias_scale": 1.0, "hold_steps": 5, "backend": "torch"},
    "bias s = 1, held 20, TorchForce": {"bias_scale": 1.0, "hold_steps": 20, "backend": "torch"},
    "bias s = 1, held 5, PythonForce": {"bias_scale": 1.0, "hold_steps": 5, "backend": "python"},
    "bias s = 0.5, held 10, TorchForce": {"bias_scale": 0.5, "hold_steps": 10, "backend": "torch"},
}  # fmt: skip


def main(_: list[str]) -> None:
    """Run the variants and write results/variants.md."""
    common.lj7("run", "C3", "C2", BETA, 1, 0.1)
    value = rlis.load(common.RUNS / f"run-C3-C2-{BETA:g}-0.1-1").value
    problem = lj7.build("C3", "C2", beta=BETA)
    lines = [
        f"LJ7 C3 -> C2, beta {BETA:g}, one learned V, all roots biased. Command: `python -m benchmarks variants`.", "",
        "| variant | rate (1/ps) | norm E[W] | evaluations | relative variance x evaluations | x seconds |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    rates = []
    for i, (name, options) in enumerate(VARIANTS.items()):
        out = common.RUNS / f"variant-{i}"
        settings = rlis.Settings(learning_rounds=0, unbiased_share=0.0, **options)
        if not (out / "result.json").exists():
            if out.exists():
                rlis.resume(out)
            else:
                rlis.run(problem, out, seed=200 + i, value=value, settings=settings, max_force_evaluations=60_000_000)
        result = json.loads((out / "result.json").read_text())
        k, e = common.rate(result)
        rates.append((k, e))
        cost = common.evaluations(result, "production")
        seconds = result["cost"]["seconds"]
        norm = result["diagnostics"]["ended"]
        lines.append(
            f"| {name} | {k:.4f} +- {e:.4f} | {norm['value']:.3f} +- {norm['standard_error']:.3f} | {cost:.2e} | "
            f"{(e / k) ** 2 * cost:.1e} | {(e / k) ** 2 * seconds:.2f} |"
        )
    mean = sum(k / e**2 for k, e in rates) / sum(1 / e**2 for _, e in rates)
    chi2 = sum(((k - mean) / e) ** 2 for k, e in rates)
    worst = max(abs(k - mean) / math.hypot(e, 0) for k, e in rates)
    lines += [
        "",
        f"chi^2 against the common mean {mean:.4f}: {chi2:.1f} for {len(rates) - 1} degrees of freedom; "
        f"largest deviation {worst:.2f} errors.",
    ]
    common.save("variants", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

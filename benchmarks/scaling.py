"""Walker-steps per second against the number of walkers, the platform and the size of the network.

python -m benchmarks scaling         about 4 minutes on one core

Measured as in speed.py, in turns, beside OpenMM's own integrator on the same packed System. CPU is OpenMM's platform of
that name, on one thread.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import numpy as np
import torch
from common import save
from numpy.typing import NDArray
from speed import Way, ours, speeds, stock, stock_context

from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.problem import Problem
from openmm_rlis.systems import lj7
from openmm_rlis.value_function import ValueFunction, feature_statistics

Array = NDArray[np.float64]
N_WALKERS = (4, 16, 64, 256, 1000, 4000)
ON_CPU = (16, 256, 1000)
HIDDEN = (16, 48, 128, 512)
DEFAULT_HIDDEN, MANY = 48, 1000
HELD = 10
Case = tuple[str, int, int, str]
"""Platform, walkers, hidden units and way."""


def ways_of(problem: Problem, value: ValueFunction, x: Array, platform: str) -> dict[str, Way]:
    """Return the ways to move these walkers, in Contexts as a run has them."""
    lag_steps, bias = problem.lag_steps, Bias(value, 1.0, HELD, "torch")
    return {
        "stock": partial(stock, stock_context(problem, len(x), platform), x, lag_steps),
        "noise told": partial(ours, Engine(problem, platform=platform), x, "noise"),
        "biased": partial(ours, Engine(problem, platform=platform, bias=bias), x, "biased"),
    }


def row(found: dict[Case, Array], key: tuple[str, int, int], name: str) -> str:
    """Return a line: the stock integrator, and without and with a bias as multiples of it, within a turn."""
    reference = found[(*key, "stock")]
    cells = [f"{np.median(reference):.1e}"]
    for way in ("noise told", "biased"):
        values = found[(*key, way)]
        cells.append(f"{np.median(values):.1e} | {np.median(values / reference):.2g}")
    return f"| {name} | {' | '.join(cells)} |"


def main(_: list[str]) -> None:
    """Measure everything and write results/scaling.md."""
    torch.set_num_threads(1)
    os.environ["OPENMM_CPU_THREADS"] = "1"
    problem = lj7.build("C3", "C2", beta=9.0)
    x = np.repeat(problem.positions[None], max(N_WALKERS), axis=0)
    warm = Engine(problem)
    for _ in range(20):
        x, _ = warm.propagate(x)
    statistics = feature_statistics(problem, x, x, problem.references["C2"][None])

    def value(hidden: int) -> ValueFunction:
        return ValueFunction(problem.features, statistics, hidden=hidden, rng=np.random.default_rng(1)).eval()

    usual = value(DEFAULT_HIDDEN)
    cases = [("Reference", n, DEFAULT_HIDDEN) for n in N_WALKERS] + [("CPU", n, DEFAULT_HIDDEN) for n in ON_CPU]
    ways = {
        (platform, n, hidden, way): move
        for platform, n, hidden in cases
        for way, move in ways_of(problem, usual, x[:n], platform).items()
    }
    for hidden in HIDDEN:
        if hidden != DEFAULT_HIDDEN:
            engine = Engine(problem, bias=Bias(value(hidden), 1.0, HELD, "torch"))
            ways["Reference", MANY, hidden, "biased"] = partial(ours, engine, x[:MANY], "biased")
    found = speeds(ways)
    columns = "stock | noise told | of stock | TorchForce held 10 steps | of stock |"
    lines = [
        "LJ7, one thread, Contexts of up to 512 walkers as in a run; stock is OpenMM's BrownianIntegrator on all "
        "walkers packed in one System. Walker-steps per second, medians. Command: `python -m benchmarks scaling`.", "",
        f"| walkers | {columns}", "|---|---|---|---|---|---|",
        *(row(found, ("Reference", n, DEFAULT_HIDDEN), str(n)) for n in N_WALKERS), "",
        f"| walkers, CPU platform | {columns}", "|---|---|---|---|---|---|",
        *(row(found, ("CPU", n, DEFAULT_HIDDEN), str(n)) for n in ON_CPU), "",
        f"| hidden units, {MANY} walkers | TorchForce held 10 steps | of stock |", "|---|---|---|",
    ]  # fmt: skip
    reference = found["Reference", MANY, DEFAULT_HIDDEN, "stock"]
    for hidden in HIDDEN:
        values = found["Reference", MANY, hidden, "biased"]
        lines.append(f"| {hidden} | {np.median(values):.1e} | {np.median(values / reference):.2g} |")
    save("scaling", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

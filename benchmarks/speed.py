"""Walker-steps per second: packed replicas with a held bias against one walker per Context, measured in one run.

python benchmarks/speed.py           about 2 minutes
"""

from __future__ import annotations

import time

import numpy as np
import torch
from common import save

from openmm_rlis.bias import Bias
from openmm_rlis.engine import Engine
from openmm_rlis.systems import lj7
from openmm_rlis.value import ValueFunction, feature_statistics

N_WALKERS = 1000
SECONDS = 8.0


def main() -> None:
    """Measure every way and write results/speed.md."""
    torch.set_num_threads(1)
    problem = lj7.build("C3", "C2", beta=9.0)
    rng = np.random.default_rng(1)
    x = np.repeat(problem.positions[None], N_WALKERS, axis=0)
    warm = Engine(problem, N_WALKERS)
    for _ in range(20):
        x, _ = warm.propagate(x)
    value = ValueFunction(problem.features, feature_statistics(problem, x, x, problem.references["C2"][None]), rng=rng)
    ways = {
        "one walker per Context, TorchForce every step": (
            Engine(problem, 1, bias=Bias(value, 1.0, 1, "torch")),
            4,
            True,
        ),
        "packed, TorchForce every step": (
            Engine(problem, N_WALKERS, bias=Bias(value, 1.0, 1, "torch")),
            N_WALKERS,
            True,
        ),
        "packed, TorchForce held 10 steps": (
            Engine(problem, N_WALKERS, bias=Bias(value, 1.0, 10, "torch")),
            N_WALKERS,
            True,
        ),
        "packed, TorchForce held 20 steps": (
            Engine(problem, N_WALKERS, bias=Bias(value, 1.0, 20, "torch")),
            N_WALKERS,
            True,
        ),
        "packed, PythonForce held 10 steps": (
            Engine(problem, N_WALKERS, bias=Bias(value, 1.0, 10, "python")),
            N_WALKERS,
            True,
        ),
        "packed, no bias": (Engine(problem, N_WALKERS), N_WALKERS, False),
    }
    speeds = {name: measure(engine, x[:n], biased) for name, (engine, n, biased) in ways.items()}
    slowest = speeds["one walker per Context, TorchForce every step"]
    lines = [
        f"LJ7, Reference platform, one thread, {N_WALKERS} walkers. Command: `python benchmarks/speed.py`.", "",
        "| way | walker-steps per second | ratio |", "|---|---|---|",
    ]  # fmt: skip
    save("speed", [*lines, *(f"| {name} | {speed:.2e} | {speed / slowest:.0f} |" for name, speed in speeds.items())])


def measure(engine: Engine, x: np.ndarray, biased: bool) -> float:
    """Return walker-steps per second of `propagate`, after a warm-up."""
    for _ in range(8):
        engine.propagate(x, biased)
    before, begun = engine.cost.force_evaluations, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        engine.propagate(x, biased)
    return (engine.cost.force_evaluations - before) / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()

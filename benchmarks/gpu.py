"""Walker-steps per second on a GPU: packed LJ7 on OpenMM's CUDA platform against the stock integrator and one CPU core.

python -m benchmarks gpu [PLATFORM]     some 4 minutes; CUDA by default

Every Context is made once and measured in turn, as in speed.py. "Positions in and out" is what setting and reading them
takes of a lag without a bias. TorchForce is measured where openmm-torch loads with the installed torch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import openmm
import torch
from common import save
from numpy.typing import NDArray
from speed import stock, stock_context

from openmm_rlis.dynamics.bias import Bias, backend_status, gpu_name
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.systems import lj7
from openmm_rlis.value_function import ValueFunction, feature_statistics

Array = NDArray[np.float64]
SIZES = (1_000, 10_000)
"""Slots of a Context."""
MANY = 100_000
"""Walkers that go through the largest in turn."""
N_TURNS, SECONDS = 5, 1.0


def exchange(context: openmm.Context, x: Array) -> None:
    """Set and read all positions."""
    context.setPositions(x.reshape(-1, 3))
    context.getState(getPositions=True).getPositions(asNumpy=True)


def main(arguments: list[str]) -> None:
    """Measure every way and write results/gpu.md."""
    torch.set_num_threads(1)
    name = arguments[0] if arguments else "CUDA"
    problem = lj7.build("C3", "C2", beta=9.0)
    rng = np.random.default_rng(1)
    start = np.repeat(problem.positions[None], 1000, axis=0)
    core = Engine(problem, 512)
    for _ in range(20):
        start, _ = core.propagate(start)
    value = ValueFunction(
        problem.features, feature_statistics(problem, start, start, problem.references["C2"][None]), rng=rng
    )
    backends = [backend for backend in ("torch", "python") if not backend_status()[backend]]
    lines = [
        f"LJ7, {name} platform in double precision on {gpu_name() or 'no GPU'}, torch {torch.__version__}, OpenMM "
        f"{openmm.version.version}: median of {N_TURNS} turns. Command: `python -m benchmarks gpu`.", "",
        "| walkers | way | walker-steps per second | ms a lag | Context made in (s) |", "|---|---|---|---|---|",
    ]  # fmt: skip

    def row(n: int, way: str, move: Callable[[], object], steps: int, made_in: float | None = None) -> None:
        begun = time.perf_counter()
        move()
        made = time.perf_counter() - begun if made_in is None else made_in
        move()
        found = []
        for _ in range(N_TURNS):
            count, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < SECONDS:
                move()
                count += 1
            found.append((time.perf_counter() - begun) / count)
        lag = float(np.median(found))
        speed = f"{n * steps / lag:.2e}" if steps else "-"
        lines.append(f"| {n} | {way} | {speed} | {1e3 * lag:.3g} | {f'{made:.1f}' if steps else '-'} |")
        print(lines[-1], flush=True)

    lag_steps = problem.lag_steps
    row(1000, "one CPU core, Reference, noise told (default)", partial(core.propagate_with_noise, start), lag_steps)
    for n in SIZES:
        x = start[np.arange(n) % len(start)]
        begun = time.perf_counter()
        context = stock_context(problem, n, name)
        made = time.perf_counter() - begun
        row(n, "stock BrownianIntegrator", partial(stock, context, x, lag_steps), lag_steps, made)
        row(n, "positions in and out", partial(exchange, context, x), 0)
        del context
        engine = Engine(problem, n, name)
        row(n, "no bias", partial(engine.propagate, x), lag_steps)
        row(n, "no bias, noise told (default)", partial(engine.propagate_with_noise, x), lag_steps)
        if n == SIZES[-1]:
            many = start[np.arange(MANY) % len(start)]
            row(MANY, f"no bias, noise told, {n} slots", partial(engine.propagate_with_noise, many), lag_steps)
        del engine
        for backend in backends:
            biased = Engine(problem, n, name, Bias(value, 1.0, 10, backend))
            row(n, f"bias of backend {backend}, held 10 steps", partial(biased.propagate, x, True), lag_steps)
            del biased
        row(n, "V of all walkers, on the CPU", partial(value.log_value, x), 0)
        save("gpu", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

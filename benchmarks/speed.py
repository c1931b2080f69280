"""Walker-steps per second: packed replicas with a held bias against OpenMM's own ways, measured in one run.

python -m benchmarks speed           about 8 minutes; wants both cores of the machine for itself

Every way is measured for a second in turn, so that what else the machine does falls on all of them. A default run has
no bias and tells the noise, for the control variate. The stock integrator moves the same packed System on its own.
Workers are those of `rlis run` to 5 %, by cost and clock of its rounds.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
import openmm
import torch
from common import RUNS, evaluations, once, save
from numpy.typing import NDArray

from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.dynamics.packing import pack
from openmm_rlis.dynamics.propagators import make_context
from openmm_rlis.problem import Problem
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.systems import lj7
from openmm_rlis.value_function import ValueFunction, feature_statistics

Array = NDArray[np.float64]
N_WALKERS, N_TURNS, SECONDS = 1000, 12, 1.0
STOCK = "packed, stock BrownianIntegrator"
PARTS = {
    "start and run in A": ("start", "flux"), "learning": ("learning",), "production": ("production",),
    "all": ("start", "flux", "learning", "plan", "production"),
}  # fmt: skip
Key = TypeVar("Key")
Way = Callable[[], int]
"""Moves all walkers of a way by a lag and returns the walker-steps."""


def ours(engine: Engine, x: Array, kind: str) -> int:
    """Move by the engine."""
    if kind == "noise":
        engine.propagate_with_noise(x)
    else:
        engine.propagate(x, kind == "biased")
    return len(x) * engine.problem.lag_steps


def stock(context: openmm.Context, x: Array, lag_steps: int) -> int:
    """Move the packed System by OpenMM's own integrator, positions set and read once a lag as the engine does."""
    context.setPositions(x.reshape(-1, 3))
    context.getIntegrator().step(lag_steps)
    context.getState(getPositions=True).getPositions(asNumpy=True)
    return len(x) * lag_steps


def stock_context(problem: Problem, n_walkers: int, platform: str = "Reference") -> openmm.Context:
    """Return the packed System with a BrownianIntegrator."""
    integrator = openmm.BrownianIntegrator(problem.temperature, problem.friction, problem.timestep)
    return make_context(pack(problem.system, n_walkers), integrator, openmm.Platform.getPlatformByName(platform))


def speeds(ways: dict[Key, Way]) -> dict[Key, Array]:
    """Return walker-steps per second of every way in every turn, (N_TURNS,)."""
    found: dict[Key, list[float]] = {name: [] for name in ways}
    for turn in range(-1, N_TURNS):  # the first makes Contexts and lets TorchScript settle
        for name, way in ways.items():
            for _ in range(4 if turn < 0 else 0):
                way()
            steps, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < SECONDS:
                steps += way()
            if turn >= 0:
                found[name].append(steps / (time.perf_counter() - begun))
    return {name: np.array(values) for name, values in found.items()}


def workers() -> list[str]:
    """Return lines of a run with one and with two workers: what each part of it does in a second, and its disk."""
    speeds: dict[str, list[float]] = {}
    disk = []
    for n in (1, 2):
        name = f"speed-workers-{n}"
        shutil.rmtree(RUNS / name, ignore_errors=True)
        result = once(name, "run", "lj7", "--beta", "9", "--seed", "1", "--target-error", "0.05", "--workers", str(n))
        store = RunDirectory.open(RUNS / name)
        rounds = {stage: [store.read_round(stage, i).info for i in store.rounds(stage)] for stage in store.stages()}
        for part, stages in PARTS.items():
            infos = [info for stage in stages for info in rounds[stage]]
            speed = sum(info["evaluations"] for info in infos) / sum(info["seconds"] for info in infos)
            speeds.setdefault(part, []).append(speed)
        size = sum(f.stat().st_size for f in (RUNS / name).rglob("*") if f.is_file())
        disk.append(f"{size / evaluations(result):.2g}")
    lines = [f"| {part} | {one:.2e} | {two:.2e} | {two / one:.2f} |" for part, (one, two) in speeds.items()]
    return [*lines, "", f"MB on disk per 1e6 walker-steps: {disk[0]} and {disk[1]}."]


def main(_: list[str]) -> None:
    """Measure every way and write results/speed.md."""
    torch.set_num_threads(1)
    problem = lj7.build("C3", "C2", beta=9.0)
    rng = np.random.default_rng(1)
    x = np.repeat(problem.positions[None], N_WALKERS, axis=0)
    warm = Engine(problem, N_WALKERS)
    for _ in range(20):
        x, _ = warm.propagate(x)
    value = ValueFunction(problem.features, feature_statistics(problem, x, x, problem.references["C2"][None]), rng=rng)

    def biased(hold: int, backend: str, n_slots: int = N_WALKERS) -> Way:
        walkers = x if n_slots > 1 else x[:4]
        return partial(ours, Engine(problem, n_slots, bias=Bias(value, 1.0, hold, backend)), walkers, "biased")

    ways: dict[str, Way] = {
        STOCK: partial(stock, stock_context(problem, N_WALKERS), x, problem.lag_steps),
        "packed, no bias": partial(ours, warm, x, "plain"),
        "packed, no bias, noise told (default)": partial(ours, warm, x, "noise"),
        "packed, no bias, noise told, 512 slots (default)": partial(ours, Engine(problem), x, "noise"),
        "packed, TorchForce held 20 steps": biased(20, "torch"),
        "packed, TorchForce held 10 steps (default bias)": biased(10, "torch"),
        "packed, PythonForce held 10 steps": biased(10, "python"),
        "packed, TorchForce every step": biased(1, "torch"),
        "one walker per Context, TorchForce every step": biased(1, "torch", 1),
    }
    found = speeds(ways)
    lines = [
        f"LJ7, Reference platform, one thread, {N_WALKERS} walkers: median of {N_TURNS} turns; ratios, within a turn, "
        "with their quartiles. Command: `python -m benchmarks speed`.", "",
        "| way | walker-steps per second | times the stock integrator |", "|---|---|---|",
    ]  # fmt: skip
    for name, values in found.items():
        low, middle, high = np.quantile(values / found[STOCK], [0.25, 0.5, 0.75])
        lines.append(f"| {name} | {np.median(values):.2e} | {middle:.2g} ({low:.2g} to {high:.2g}) |")
    lines += [
        "", "`rlis run lj7 --beta 9 --seed 1 --target-error 0.05`: walker-steps per second", "",
        "| part | with one worker | with two | ratio |", "|---|---|---|---|",
    ]  # fmt: skip
    save("speed", [*lines, *workers()])


if __name__ == "__main__":
    main(sys.argv[1:])

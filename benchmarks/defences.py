"""What each defence against a wrong value function costs when the value function is good.

python -m benchmarks defences [REPEATS]     12 repeats of 400 roots by default, about three hours on one core

Relative variance of the success probability times force evaluations, walks only, at fixed learned V and fixed exits:
from the contributions of all roots, which are independent, and from the spread of the repeats. The value functions are
those of three runs; an ensemble averages the three.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import RUNS, lj7, number, once, save
from numpy.typing import NDArray

import openmm_rlis as rlis
from openmm_rlis.basin.exit_flux import initial_state, run_flux
from openmm_rlis.config.build_problem import problem_of
from openmm_rlis.dynamics.engine import Engine, one_thread
from openmm_rlis.statistics.branching import Window, draw_roots
from openmm_rlis.value_function import ValueFunction
from openmm_rlis.walks.branching_walk import Roots, walk

Array = NDArray[np.float64]
N_ROOTS = 400
VARIANTS: dict[str, dict[str, Any]] = {
    "default (mixture with e = 0.2, no roulette, window up to 2, a fifth of the roots uniform)": {},
    "fine part alone": {"coarse": 1e-9},
    "e = 0.05": {"coarse": 0.05},
    "e = 0.5": {"coarse": 0.5},
    "ensemble of three": {"ensemble": True},
    "tempered, V^0.7": {"power": 0.7},
    "tempered, V^1.2": {"power": 1.2},
    "roulette below 0.1": {"roulette": 1.0},
    "roulette below 0.1 for half of the roots": {"roulette": 0.5},
    "window up to 1.5": {"high": 1.5},
    "window up to 4": {"high": 4.0},
    "all roots by V": {"uniform": 0.001},
    "half of the roots uniform": {"uniform": 0.5},
    "all roots uniform": {"uniform": 1.0},
    "60 walkers a root at most": {"most": 60},
}


def log_value_of(values: list[ValueFunction], coarse: float, power: float) -> Callable[[Array], Array]:
    """Return the mean over value functions of their mixture with another coarse share, to a power."""
    mixed = [ValueFunction.from_arrays(v.features, {**v.arrays(), "coarse_share": np.array(coarse)}) for v in values]
    return lambda x: power * (np.logaddexp.reduce([v.log_value(x) for v in mixed]) - np.log(len(mixed)))


def repeat(
    engine: Engine, values: list[ValueFunction], pool: Any, rng: np.random.Generator, *, coarse: float = 0.2,
    ensemble: bool = False, power: float = 1.0, roulette: float = 0.0, high: float = 2.0, uniform: float = 0.2,
    most: int = 200,
) -> tuple[Array, float]:  # fmt: skip
    """Return each root's share of the success probability by one walk (n_roots,), and its force evaluations."""
    log_value = log_value_of(values if ensemble else values[:1], coarse, power)
    before = engine.cost.force_evaluations
    index, log_weights = draw_roots(log_value(pool.exits), N_ROOTS, uniform, rng)
    defensive = rng.random(N_ROOTS) >= roulette
    no = np.zeros(N_ROOTS, bool)
    roots = Roots(pool.exits[index], pool.priors[index], log_weights, no, defensive, np.zeros(N_ROOTS, np.int32))
    done = walk(engine, log_value, roots, Window(0.1, high), rng, frame_stride=1_000_000, max_walkers=most)
    return np.exp(log_weights) * done.success, engine.cost.force_evaluations - before


def study(name: str, runs: list[str], n: int) -> list[str]:
    """Return the table of one system."""
    results = [rlis.load(RUNS / run) for run in runs]
    problem = problem_of(results[0].config, None)
    engine, rng = Engine(problem), np.random.default_rng(3)
    lines = [
        f"## {name}", "", "| variant | success probability | relative variance x evaluations, by roots | by repeats | "
        "relative variance of a root | its evaluations | seconds a repeat |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    with one_thread():
        engine.reseed(rng)
        state = run_flux(engine, initial_state(problem, 500), 1500, keep_exits=False).state
        pool = run_flux(engine, state, 500)
        for label, options in VARIANTS.items():
            begun = time.monotonic()
            engine.reseed(rng)
            values = [result.value for result in results]
            shares, costs = zip(*(repeat(engine, values, pool, rng, **options) for _ in range(n)), strict=True)
            p, cost = np.array(shares), float(np.mean(costs))
            mean, root = p.sum(1).mean(), float(p.var() / p.mean() ** 2)
            lines.append(
                f"| {label} | {mean:.3e} +- {p.sum(1).std(ddof=1) / n**0.5:.1e} | {root * cost / N_ROOTS:.2g} | "
                f"{p.sum(1).var(ddof=1) / mean**2 * cost:.2g} | {root:.1f} | {cost / N_ROOTS:.0f} | "
                f"{(time.monotonic() - begun) / n:.1f} |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def main(arguments: list[str]) -> None:
    """Run everything and write results/defences.md."""
    n = number(arguments, 12)
    lines = [f"{n} repeats of {N_ROOTS} roots each. Command: `python -m benchmarks defences`.", ""]
    wells = [f"defences-triple_well-{seed}" for seed in (1, 2, 3)]
    for seed, run in enumerate(wells, start=1):
        once(run, "run", "triple_well", "--beta", "4", "--set", "tilt=0.5", "--seed", str(seed))
    lines += study("Triple well, beta 4, tilt 0.5", wells, n)
    for seed in (1, 2, 3):
        lj7("run", "C3", "C2", 9.0, seed, 0.1)
    lines += study("LJ7 C3 -> C2, beta 9", [f"run-C3-C2-9-0.1-{seed}" for seed in (1, 2, 3)], n)
    save("defences", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

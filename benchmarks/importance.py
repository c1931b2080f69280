"""What the measured importance saves against branching by V itself, at fixed V and fixed exits.

python -m benchmarks importance [REPEATS]     6 repeats of 400 roots by default, about 15 minutes on one core

Relative variance of the success probability times force evaluations, walks only, from the contributions of all roots,
which are independent. The value function of each system is that of a run to 10 % with default settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from common import RUNS, number, once, save
from numpy.typing import NDArray

import openmm_rlis as rlis
from openmm_rlis.basin.exit_flux import FluxRun, initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine, one_thread
from openmm_rlis.learning.pilot import choose_roots, walk_roots
from openmm_rlis.statistics.importance import UNTEMPERED, fit
from openmm_rlis.walks.branching_walk import Roots, Walk

Array = NDArray[np.float64]
SYSTEMS = {
    "double well, 8 kT": ("double_well",),
    "double well, 16 kT": ("double_well", "--set", "height=16"),
    "Mueller-Brown, beta 1": ("mueller_brown", "--beta", "1"),
    "triple well, beta 3, tilt 0.5": ("triple_well", "--beta", "3", "--set", "tilt=0.5"),
    "triple well, beta 5": ("triple_well", "--beta", "5"),
    "LJ7 C3 -> C2, beta 9": ("lj7", "--from", "C3", "--to", "C2", "--beta", "9"),
    "LJ7 C2 -> C3, beta 9": ("lj7", "--from", "C2", "--to", "C3", "--beta", "9"),
}


def study(name: str, command: tuple[str, ...], n: int) -> list[str]:
    """Return the lines of one system."""
    run = f"importance-{'-'.join(part.strip('-') for part in command)}"
    once(run, "run", *command, "--seed", "1")
    value, problem = (found := rlis.load(RUNS / run)).value, found.problem
    engine, rng, settings = Engine(problem), np.random.default_rng(3), Settings(frame_stride=1_000_000)
    with one_thread():
        engine.reseed(rng)
        state = run_flux(engine, initial_state(problem, 500), 1500, keep_exits=False).state
        pool = run_flux(engine, state, 500)

        def walked(importance: Any) -> tuple[Roots, Walk, int]:
            return one_walk(engine, value, importance, pool, settings, rng)

        learned = fit(walked(UNTEMPERED)[1].tallies + walked(UNTEMPERED)[1].tallies)
        ways: dict[str, Callable[[Array], Array]] = {
            "u = V": UNTEMPERED, "u = V^0.8": lambda log_v: 0.8 * log_v, "u = V sqrt(Q)": learned,
        }  # fmt: skip
        lines, first = [], 0.0
        for way, importance in ways.items():
            roots, walks, costs = zip(*(walked(importance) for _ in range(n)), strict=True)
            shares = [np.exp(r.log_weights) * w.success for r, w in zip(roots, walks, strict=True)]
            p, cost = np.concatenate(shares), float(np.sum(costs))
            product = p.var() / p.mean() ** 2 * cost / len(p)
            first = first or product
            lines.append(
                f"| {name} | {way} | {p.mean() * settings.learning_roots:.3g} +- "
                f"{p.std() / p.mean() / len(p) ** 0.5:.0%} | {p.var() / p.mean() ** 2:.0f} | {cost / len(p):.0f} | "
                f"{product:.2g} | {product / first:.2f} |"
            )
            print(lines[-1], flush=True)
    return lines


def one_walk(
    engine: Engine, value: rlis.ValueFunction, importance: Any, pool: FluxRun, settings: Settings,
    rng: np.random.Generator,
) -> tuple[Roots, Walk, int]:  # fmt: skip
    """Return `settings.learning_roots` roots from a pool of exits, their walk, and its force evaluations."""
    before = engine.cost.force_evaluations
    log_u = importance(value.log_value(pool.exits))
    roots = choose_roots(log_u, pool.exits, pool.priors, settings.learning_roots, settings, rng)
    done = walk_roots(engine, value, importance, roots, settings, rng)
    return roots, done, engine.cost.force_evaluations - before


def main(arguments: list[str]) -> None:
    """Run everything and write results/importance.md."""
    n = number(arguments, 6)
    lines = [
        f"{n} repeats of 400 roots each, V and exits fixed. Command: `python -m benchmarks importance {n}`.", "",
        "| system | importance | success probability | relative variance of a root | its evaluations | product | "
        "against u = V |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, command in SYSTEMS.items():
        lines += study(name, command, n)
    save("importance", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

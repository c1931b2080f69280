"""Success probability of the same exits with and without branching: the two must agree, whatever V is.

python -m benchmarks branching [BETA] [SECONDS]      beta 5 and 1200 s each by default

LJ7 C2 -> C3 at a temperature where unbiased walkers succeed often enough to be counted. V is that of the first run of
`agreement`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from common import RUNS, lj7, number, save

import openmm_rlis as rlis
from openmm_rlis.basin.exit_flux import initial_state, run_flux
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine, one_thread
from openmm_rlis.learning.pilot import choose_roots, pilot, walk_roots
from openmm_rlis.statistics.importance import UNTEMPERED, fit
from openmm_rlis.systems import lj7 as system
from openmm_rlis.walks.branching_walk import walk_unbranched


def repeated(work: Callable[[], tuple[float, float]], seconds: float) -> np.ndarray:
    """Return the results (n, 2) of as many calls as fit into the time, three at least."""
    begun, found = time.monotonic(), []
    while time.monotonic() - begun < seconds or len(found) < 3:
        found.append(work())
    return np.array(found)


def main(arguments: list[str]) -> None:
    """Run both and write results/branching.md."""
    beta, seconds = number(arguments, 5.0), number(arguments[1:], 1200.0)
    lj7("run", "C2", "C3", beta, 1, 0.1)
    value = rlis.load(RUNS / f"run-C2-C3-{beta:g}-0.1-1").value
    problem = system.build("C2", "C3", beta=beta)
    engine, rng, settings = Engine(problem), np.random.default_rng(77), Settings(frame_stride=1_000_000)
    engine.reseed(rng)
    with one_thread():
        state = run_flux(engine, initial_state(problem, 1024), 3000, keep_exits=False).state
        pool = run_flux(engine, state, 3000)

        importance = fit(pilot(engine, value, UNTEMPERED, pool, Settings(), rng)[1])

        def plain() -> tuple[float, float]:
            rows = rng.integers(0, len(pool.exits), 10_000)
            done = walk_unbranched(engine, pool.exits[rows], pool.priors[rows], rng)
            return float(done.success.mean()), float(done.ended.mean())

        def branched() -> tuple[float, float]:
            log_u = importance(value.log_value(pool.exits))
            roots = choose_roots(log_u, pool.exits, pool.priors, 1500, settings, rng)
            weights, done = np.exp(roots.log_weights), walk_roots(engine, value, importance, roots, settings, rng)
            return float(weights @ done.success), float(weights @ done.ended)

        lines = [
            f"LJ7 C2 -> C3 at beta {beta:g}, one pool of {len(pool.exits)} exits. Command: `python -m "
            f"benchmarks branching {beta:g} {seconds:g}`.", "",
            "| | success probability | norm E[W] | repeats |", "|---|---|---|---|",
        ]  # fmt: skip
        means, errors = [], []
        for name, work in (("without branching", plain), ("with branching", branched)):
            engine.reseed(rng)
            found = repeated(work, seconds)
            mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))
            means.append(mean[0])
            errors.append(error[0])
            lines.append(
                f"| {name} | {mean[0]:.6f} +- {error[0]:.6f} | {mean[1]:.4f} +- {error[1]:.4f} | {len(found)} |"
            )
    difference, error = means[1] / means[0] - 1.0, np.hypot(*errors) / means[0]
    lines += ["", f"With branching / without - 1 = {difference:+.1%} +- {error:.1%}."]
    save("branching", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

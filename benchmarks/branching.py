"""Success probability of the same exits with and without branching: the two must agree whatever V is.

python benchmarks/branching.py [BETA] [SECONDS]      beta 3.5 and 600 s each by default

LJ7 C2 -> C3. V is that of the first run of benchmarks/agreement.py at beta 5: at another temperature it is wrong.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from common import RUNS, lj7, save

import openmm_rlis as rlis
from openmm_rlis.branching import Window
from openmm_rlis.config import Settings
from openmm_rlis.engine import Engine, one_thread
from openmm_rlis.flux import initial_state, run_flux
from openmm_rlis.learning import choose_roots, walk_roots
from openmm_rlis.systems import lj7 as system
from openmm_rlis.walk import Roots, walk


def repeated(work: Callable[[], float], seconds: float) -> np.ndarray:
    """Return the results of as many calls as fit into the time, three at least."""
    begun, found = time.monotonic(), []
    while time.monotonic() - begun < seconds or len(found) < 3:
        found.append(work())
    return np.array(found)


def main() -> None:
    """Run both and write results/branching.md."""
    beta, seconds = float(sys.argv[1] if len(sys.argv) > 1 else 3.5), float(sys.argv[2] if len(sys.argv) > 2 else 600)
    lj7("run", "C2", "C3", 5.0, 1, 0.1)
    value = rlis.load(RUNS / "run-C2-C3-5-0.1-1").value
    problem = system.build("C2", "C3", beta=beta)
    engine, rng, settings = Engine(problem), np.random.default_rng(77), Settings(frame_stride=1_000_000)
    engine.reseed(rng)
    with one_thread():
        state = run_flux(engine, initial_state(problem, 512), 2000, keep_exits=False).state
        pool = run_flux(engine, state, 1500)

        def plain() -> float:
            rows, no = rng.permutation(len(pool.exits))[:5000], np.zeros(5000, bool)
            roots = Roots(pool.exits[rows], pool.priors[rows], no * 0.0, no, no, np.zeros(5000, np.int32))
            window = Window(0.0, np.inf)
            done = walk(engine, lambda x: np.zeros(len(x)), roots, window, rng, frame_stride=1_000_000)
            return float(done.success.mean())

        def branched() -> float:
            roots = choose_roots(value, pool.exits, pool.priors, 1000, settings, rng)
            return float(np.exp(roots.log_weights) @ walk_roots(engine, value, roots, settings, rng).success)

        lines = [
            f"LJ7 C2 -> C3 at beta {beta:g}, V of beta 5, one pool of {len(pool.exits)} exits. Command: `python "
            f"benchmarks/branching.py {beta:g} {seconds:g}`.", "",
            "| | success probability | repeats |", "|---|---|---|",
        ]  # fmt: skip
        for name, work in (("without branching", plain), ("with branching", branched)):
            engine.reseed(rng)
            p = repeated(work, seconds)
            lines.append(f"| {name} | {p.mean():.5f} +- {p.std(ddof=1) / np.sqrt(len(p)):.5f} | {len(p)} |")
    save("branching", lines)


if __name__ == "__main__":
    main()

"""What V has to see: LJ7 with value functions on several sets of features, learned and walked in the same way.

python benchmarks/features.py [PATH ...]     about 10 minutes a path on one core; C2-C3 by default, beta 9

Every V is learned from scratch, first from the same walk and returns, made with the V of a run, then twice from walks
of its own.
The last column is relative variance of the success probability times force evaluations, walks only, with the control
variate; `left` is what the control variate leaves of the variance.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
from common import RUNS, lj7, lj7_name, save
from importance import one_walk
from numpy.typing import NDArray

import openmm_rlis as rlis
from openmm_rlis.config import Settings
from openmm_rlis.control import coefficient, moments
from openmm_rlis.engine import Engine, one_thread
from openmm_rlis.features import Joined, contact_spectrum, evaluate, sorted_coordination
from openmm_rlis.flux import FluxRun, initial_state, run_flux
from openmm_rlis.importance import UNTEMPERED, Importance, fit
from openmm_rlis.problem import OUTSIDE
from openmm_rlis.training import Samples, samples_of, td_returns, train
from openmm_rlis.value import ValueFunction, feature_statistics
from openmm_rlis.walk import Walk

Array = NDArray[np.float64]
BETA, MOST = 9.0, 60_000
FIRST, LATER, TESTED = 2000, 1000, 4
ATOMS = range(7)
NEAR, FAR, SPECTRUM = sorted_coordination(ATOMS, 1.5), sorted_coordination(ATOMS, 3.0), contact_spectrum(ATOMS, 1.5)
SETS = {
    "coordination numbers, radius 1.5": [NEAR],
    "radii 1.5 and 3": [NEAR, FAR],
    "radii 1.5 and 3 and contact spectrum": [NEAR, FAR, SPECTRUM],
}


class Study:
    """One path: a run with default settings, its replicas' exits, and the walk that all learn from first."""

    def __init__(self, source: str, target: str) -> None:
        lj7("run", source, target, BETA, 1, 0.1)
        found = rlis.load(RUNS / lj7_name("run", source, target, BETA, 1, 0.1))
        self.problem, self.target, value = found.problem, target, found.value
        self.engine, self.rng = Engine(self.problem), np.random.default_rng(3)
        self.engine.reseed(self.rng)
        state = run_flux(self.engine, initial_state(self.problem, 500), 1500, keep_exits=False).state
        self.pool: FluxRun = run_flux(self.engine, state, 500)
        measured = fit(self._walk(value, UNTEMPERED, 400)[0].tallies)
        self.first = self._walk(value, measured, FIRST)[0]
        self.importance = fit(self.first.tallies)
        codes, positions = self.first.frames.codes, np.asarray(self.first.tree.positions)
        outside = np.flatnonzero(codes == OUTSIDE)
        self.rows = np.sort(self.rng.choice(outside, min(MOST, len(outside)), replace=False))
        self.seen = positions[self.rows]
        # The returns of `samples_of`, with the V of the run, are lent to all.
        log_v = evaluate(value.log_mixture, evaluate(value.features, positions))
        both = (td_returns(self.first, log_v, decay) for decay in (1.0, Settings().decay))
        self.returns = (np.logaddexp(*both) - np.log(2.0))[self.rows]

    def _walk(self, value: ValueFunction, importance: Importance, n: int) -> tuple[Walk, Array, int]:
        settings = Settings(learning_roots=n)
        roots, done, cost = one_walk(self.engine, value, importance, self.pool, settings, self.rng)
        return done, n * np.exp(roots.log_weights), cost

    def learned(self, parts: list) -> tuple[ValueFunction, Importance]:
        """Return V on some features, and the importance that goes with it."""
        problem, rng = copy.copy(self.problem), np.random.default_rng(4)
        problem.features = Joined(parts).double()
        ends = [self.problem.references[name][None] for name in (self.target, "C0", "C1")]
        statistics = feature_statistics(problem, self.seen, self.problem.positions[None], ends[0], ends[1:])
        value, importance = ValueFunction(problem.features, statistics, rng=rng), self.importance
        data = [Samples(evaluate(problem.features, self.seen), self.returns)]
        train(value, data, rng, fewest_steps=1500)
        for _ in range(2):
            done = self._walk(value.eval(), importance, LATER)[0]
            importance = fit(done.tallies)
            data.append(samples_of(done, value, Settings().decay, MOST, rng))
            train(value, data, rng)
        return value.eval(), importance

    def line(self, name: str, parts: list) -> str:
        """Return the line of one set."""
        value, importance = self.learned(parts)
        walks = [self._walk(value, importance, 1000) for _ in range(TESTED)]
        p = np.concatenate([weights * done.success for done, weights, _ in walks])
        m = np.concatenate([weights * done.martingale for done, weights, _ in walks])
        cost = sum(cost for _, _, cost in walks) / len(p)
        c = coefficient([moments(p, m)])
        variance, left = float(p.var() / p.mean() ** 2), float((p - c * m).var() / p.var())
        return (
            f"{name} | {(p - c * m).mean():.3g} +- {(variance * left / len(p)) ** 0.5:.0%} | {variance:.0f} | "
            f"{cost:.0f} | {c:.2f} | {left:.2f} | {variance * left * cost:.2g} |"
        )


def main() -> None:
    """Run everything and write results/features.md."""
    paths = sys.argv[1:] or ["C2-C3"]
    lines = [
        f"LJ7, beta {BETA:g}, {1000 * TESTED} roots a line, exits fixed. Command: `python benchmarks/features.py "
        f"{' '.join(paths)}`.", "",
        "| path | V sees | success probability | relative variance of a root | its evaluations | c | left | product |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    with one_thread():
        for path in paths:
            study = Study(*path.split("-"))
            for name, parts in SETS.items():
                lines.append(f"| {path.replace('-', ' -> ')} | {study.line(name, parts)}")
                print(lines[-1], flush=True)
    save("features", lines)


if __name__ == "__main__":
    main()

"""What a better V would be worth: V fitted to far more roots than a run walks, on other features, to other targets.

python -m benchmarks better_value [CASE ...]     20 minutes a case on one core; cases as in efficiency.CASES,
                                                 LJ7 C3 -> C2 at beta 15 by default

20 walks of 1000 roots with the V of the run that efficiency.py lends say what the targets are. Each V is fitted to all
of their frames by what `training` does, gets the importance that a walk of its own asks for, and walks other roots; v_w
and v_f are those of budget.py. Learning is not charged: this is what production would take if V cost nothing.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, fields

import numpy as np
from budget import cells, flux_budget, walked
from common import save
from efficiency import CASES, Case
from importance import one_walk
from numpy.typing import NDArray
from torch import nn

from openmm_rlis.basin.exit_flux import FluxRun
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import one_thread
from openmm_rlis.features import Joined, contact_spectrum, evaluate, sorted_coordination
from openmm_rlis.learning.pilot import make_engine
from openmm_rlis.learning.training import Samples, td_returns, train
from openmm_rlis.problem import OUTSIDE, TARGET
from openmm_rlis.statistics.control_variate import coefficient, moments
from openmm_rlis.statistics.importance import UNTEMPERED, Importance, fit
from openmm_rlis.value_function import ValueFunction, feature_statistics
from openmm_rlis.walks.branching_walk import Walk

Array = NDArray[np.float64]
N_WALKS, N_ROOTS, EVERY = 20, 1000, 50
ATOMS = range(7)


def contacts() -> nn.Module:
    """Return sorted coordination numbers of two radii and the contact spectrum of LJ7, (n, 21)."""
    return Joined(
        [sorted_coordination(ATOMS, 1.5), sorted_coordination(ATOMS, 2.2), contact_spectrum(ATOMS, 1.5)]
    ).double()


@dataclass(frozen=True)
class Seen:
    """Frames of the walks, (n, n_atoms, 3), their region codes, and of each ln of its tree return and TD return."""

    positions: Array
    codes: NDArray[np.int8]
    tree: Array
    td: Array

    def targets(self, only_td: bool) -> Array:
        """Return ln of the targets (n,): the mean of both returns, as in a run, or the TD return alone."""
        return self.td if only_td else np.logaddexp(self.tree, self.td) - np.log(2.0)


def gather(case: Case, rng: np.random.Generator) -> Seen:
    """Walk roots with the run's V and return what was seen."""
    value, settings = case.run.value, Settings(learning_roots=N_ROOTS)
    pool = flux_budget(case, value)[1]
    engine = make_engine(case.inner, settings, None, value)

    def seen(done: Walk) -> Seen:
        x = np.asarray(done.tree.positions)
        log_v = value.log_value(x)
        returns = (td_returns(done, log_v, decay) for decay in (1.0, settings.decay))
        return Seen(x, done.frames.codes, *returns)

    walks = []
    for _ in range(N_WALKS):
        engine.reseed(rng)
        walks.append(seen(one_walk(engine, value, case.importance, pool, settings, rng)[1]))
    return Seen(*(np.concatenate([getattr(walk, field.name) for walk in walks]) for field in fields(Seen)))


def fitted(case: Case, seen: Seen, features: nn.Module, only_td: bool, hidden: int) -> ValueFunction:
    """Return V on these features, fitted to all that was seen."""
    problem = copy.copy(case.problem)
    problem.features = features
    x, codes = seen.positions, seen.codes
    others = [x[codes == code] for code in range(TARGET + 1, TARGET + 1 + len(problem.others)) if (codes == code).any()]
    outside = codes == OUTSIDE
    statistics = feature_statistics(
        problem, x[outside][::EVERY], case.inner_state.last_in_source, x[codes == TARGET], others
    )
    rng = np.random.default_rng(6)
    value = ValueFunction(features, statistics, Settings().coarse_share, hidden, rng)
    samples = Samples(evaluate(features, x[outside]), seen.targets(only_td)[outside])
    train(value, [samples], rng, learning_rate=5e-3)
    return value.eval()


def prepared(
    case: Case, value: ValueFunction, pool: FluxRun, rng: np.random.Generator
) -> tuple[Importance, float]:
    """Return the importance and the coefficient of the control variate that walks with this V ask for."""
    importance, control = UNTEMPERED, 0.0
    engine = make_engine(case.inner, Settings(), None, value)
    for n_roots in (300, 2 * N_ROOTS):
        settings = Settings(learning_roots=n_roots, frame_stride=1_000_000)
        engine.reseed(rng)
        roots, done, _ = one_walk(engine, value, importance, pool, settings, rng)
        weights = n_roots * np.exp(roots.log_weights)
        importance = fit(done.tallies)
        control = coefficient([moments(weights * done.success, weights * done.martingale)])
    return importance, control


def line(name: str, case: Case, way: str, value: ValueFunction) -> str:
    """Return a line of the table."""
    rng = np.random.default_rng(7)
    v_flux, pool = flux_budget(case, value)
    importance, control = prepared(case, value, pool, rng)
    roots, log_v, evaluations, _ = walked(case, value, pool, 0.0, importance, rng)
    found, costs, calibration = cells(name, case, v_flux, roots, log_v, evaluations, control)
    return f"| {name} | {way} | {found} | {control:.2f} | {costs} | {calibration} |"


def study(name: str) -> list[str]:
    """Return the lines of one case."""
    case = Case(name)
    seen = gather(case, np.random.default_rng(8))
    own = case.problem.features
    ways = {
        "of the run": lambda: case.run.value,
        "20000 roots": lambda: fitted(case, seen, own, False, 48),
        "20000 roots, TD(0.95) alone": lambda: fitted(case, seen, own, True, 48),
        "20000 roots, 21 features": lambda: fitted(case, seen, contacts(), False, 128),
        "20000 roots, 21 features, TD(0.95) alone": lambda: fitted(case, seen, contacts(), True, 128),
    }
    lines = []
    for way, make in ways.items():
        lines.append(line(name, case, way, make()))
        print(lines[-1], flush=True)
    return lines


def main(arguments: list[str]) -> None:
    """Run everything and write results/better_value.md."""
    names = [a for a in arguments if a in CASES] or ["lj7-C3-C2-15"]
    lines = [
        f"V from {N_WALKS} walks of {N_ROOTS} roots, learning not charged; columns as in budget.md. Command: "
        f"`python -m benchmarks better_value {' '.join(names)}`.",
        "",
        "| case | V | P | relative variance of a root | c | what the control variate leaves of it | its evaluations | "
        "v_w | v_f | least product | brute force / it | P/V by quarters of ln V |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with one_thread():
        for name in names:
            lines += study(name)
    save("better_value", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Where the variance of a rate comes from: the run in A, and the walks, each times what it costs.

python -m benchmarks budget [SYSTEM ...]     2 to 5 minutes a system on one core, and once a run to 10 %; systems as in
                                             efficiency.CASES, LJ7 at beta 9 both ways by default

With relative variance v_f / E_f from E_f evaluations in A (the sum of V over the exits of a stretch) and v_w / E_w from
walking (roots drawn from a large pool of exits), the least product of relative variance and evaluations is

    (sqrt(v_f) + sqrt(v_w))^2,

and 1/(k dt) is that of brute force; v_w is what the control variate leaves, where it can act (without bias). V is that
of the run. The last column is P over V among the roots in each quarter of ln V at the exits: 1 where V is right.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from common import save
from efficiency import CASES, Case, reference
from importance import one_walk
from numpy.typing import NDArray

from openmm_rlis.basin.basin_simulation import run_basin
from openmm_rlis.basin.exit_flux import FluxRun
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine, one_thread
from openmm_rlis.learning.pilot import make_engine
from openmm_rlis.statistics.importance import UNTEMPERED, Importance
from openmm_rlis.value_function import ValueFunction

Array = NDArray[np.float64]
N_STRETCHES, N_WALKS, N_ROOTS = 4, 6, 500
WAYS: dict[str, tuple[float, bool]] = {
    "branching by V": (0.0, False),
    "branching by V sqrt(Q)": (0.0, True),
    "bias s = 0.3 and branching by V sqrt(Q)": (0.3, True),
    "bias s = 0.5 and branching by V sqrt(Q)": (0.5, True),
    "bias s = 1 and branching by V sqrt(Q)": (1.0, True),
}


def flux_budget(case: Case, value: ValueFunction) -> tuple[float, FluxRun]:
    """Return v_f, and the last stretch in A, whose exits are the pool."""
    state, sums, engine = case.inner_state, [], Engine(case.inner)
    engine.reseed(np.random.default_rng(4))
    n_lags = case.plan.flux_lags
    for _ in range(N_STRETCHES):
        run = run_basin(engine, state, n_lags, Settings().excursion_lags)
        state = run.state
        sums.append(np.bincount(run.replica, np.exp(value.log_value(run.exits)), len(run.n_exits)))
    total = np.concatenate(sums)
    return float(total.var() / total.mean() ** 2) * n_lags * case.run.problem.lag_steps, run


def walked(
    case: Case, value: ValueFunction, pool: FluxRun, bias_scale: float, importance: Importance, rng: np.random.Generator
) -> tuple[Array, Array, float, float]:
    """Return weights, success and martingale of each root (3, n_roots), ln V, and evaluations and seconds of a root."""
    settings = Settings(
        learning_roots=N_ROOTS, frame_stride=1_000_000, bias_scale=bias_scale, unbiased_share=0.0,
        control=bias_scale == 0.0,
    )  # fmt: skip
    engine = make_engine(case.inner, settings, None, value)
    shares, values, begun = [], [], time.process_time()
    for _ in range(N_WALKS):
        engine.reseed(rng)
        roots, done, _ = one_walk(engine, value, importance, pool, settings, rng)
        shares.append(np.stack([N_ROOTS * np.exp(roots.log_weights), done.success, done.martingale]))
        values.append(value.log_value(roots.positions))
    n = N_WALKS * N_ROOTS
    return (
        np.concatenate(shares, axis=1), np.concatenate(values),
        engine.cost.force_evaluations / n, (time.process_time() - begun) / n,
    )  # fmt: skip


def cells(
    name: str, case: Case, v_flux: float, roots: Array, log_v: Array, evaluations: float, control: float
) -> tuple[str, str, str]:
    """Return cells of a line: of P and a root, of the budget, and of P over V, for what `walked` returned."""
    weights, success, martingale = roots
    p = weights * success
    variance = float(p.var() / p.mean() ** 2)
    left = float((p - control * weights * martingale).var() / p.var())
    v_walk = left * variance * evaluations
    best = (np.sqrt(v_flux) + np.sqrt(v_walk)) ** 2
    brute = 1.0 / (reference(name)[0] * case.problem.timestep)
    quarters = np.array_split(np.argsort(log_v), 4)
    return (
        f"{p.mean():.2e} +- {(variance / len(p)) ** 0.5:.0%} | {variance:.0f}",
        f"{left:.2f} | {evaluations:.0f} | {v_walk:.1e} | {v_flux:.1e} | {best:.1e} | {brute / best:.2g}",
        " ".join(f"{success[q].mean() / np.exp(log_v[q]).mean():.2f}" for q in quarters),
    )


def budget(name: str) -> list[str]:
    """Return the lines of one system."""
    case, rng, lines = Case(name), np.random.default_rng(5), []
    value = case.run.value
    v_flux, pool = flux_budget(case, value)
    for way, (bias_scale, measured) in WAYS.items():
        roots, log_v, evaluations, seconds = walked(
            case, value, pool, bias_scale, case.importance if measured else UNTEMPERED, rng
        )
        found, costs, calibration = cells(name, case, v_flux, roots, log_v, evaluations, case.plan.control)
        lines.append(f"| {name} | {way} | {found} | {costs} | {1e6 * seconds / evaluations:.1f} | {calibration} |")
        print(lines[-1], flush=True)
    return lines


def main(arguments: list[str]) -> None:
    """Run everything and write results/budget.md."""
    names = [a for a in arguments if a in CASES] or ["lj7-C3-C2-9", "lj7-C2-C3-9"]
    lines = [
        f"{N_WALKS * N_ROOTS} roots a line, V and exits fixed. Command: `python -m benchmarks budget "
        f"{' '.join(names)}`.",
        "",
        "| case | walks | P | relative variance of a root | what the control variate leaves of it | its evaluations | "
        "v_w | v_f | least product | brute force / it | microseconds an evaluation | P/V by quarters of ln V |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    with one_thread():
        for name in names:
            lines += budget(name)
    save("budget", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

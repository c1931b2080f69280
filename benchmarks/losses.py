"""Which loss and which targets: relative variance of the success weight times its cost, after learning from nothing.

    python -m benchmarks losses          about 10 minutes; needs the first run of `spread`
"""

from __future__ import annotations

import sys

import common
import numpy as np

import openmm_rlis as rlis
from openmm_rlis.basin.exit_flux import FluxRun
from openmm_rlis.dynamics.engine import one_thread
from openmm_rlis.learning.learning_rounds import cold_start, learn_round
from openmm_rlis.learning.pilot import make_engine
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.systems import lj7

BETA = 7.0
WAYS = {
    "Poisson, tree returns and TD(0.95)": {"loss": "poisson", "decay": 0.95},
    "Poisson, tree returns alone": {"loss": "poisson", "decay": 1.0},
    "Itakura-Saito, tree returns and TD(0.95)": {"loss": "itakura-saito", "decay": 0.95},
}
SEEDS = (1, 2)
ROUNDS = 4


def main(_: list[str]) -> None:
    """Learn every way with three seeds and write results/losses.md."""
    common.lj7("run", "C3", "C2", BETA, 1, 0.1)
    stored = RunDirectory.open(common.RUNS / f"run-C3-C2-{BETA:g}-0.1-1").read_round("flux", 0)
    run = FluxRun.from_arrays(stored.arrays, stored.info["lags"], stored.info["time"])
    problem = lj7.build("C3", "C2", beta=BETA)
    lines = [
        f"LJ7 C3 -> C2, beta {BETA:g}: cold start, {ROUNDS} rounds of 400 roots, then one of 1000; {len(SEEDS)} seeds.",
        "Command: `python -m benchmarks losses`.", "",
        "| loss and targets | relative variance a root | evaluations a root | product, by seed | mean product |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, options in WAYS.items():
        infos = [judge(problem, run, seed, options) for seed in SEEDS]
        variances = [i["relative_variance_per_root"] for i in infos]
        costs = [i["evaluations_per_root"] for i in infos]
        products = [v * c for v, c in zip(variances, costs, strict=True)]
        lines.append(
            f"| {name} | {np.mean(variances):.1f} | {np.mean(costs):.0f} | {', '.join(f'{p:.1e}' for p in products)} | "
            f"{np.mean(products):.1e} |"
        )
    common.save("losses", lines)


def judge(problem: rlis.Problem, run: FluxRun, seed: int, options: dict) -> dict:
    """Return the numbers of a long last round after learning with the given loss and targets."""
    settings = rlis.Settings(**options)
    rng = np.random.default_rng(seed)
    with one_thread():
        engine = make_engine(problem, settings, None, None)
        lesson = cold_start(engine, run, settings, rng)
        history = [lesson]
        for _ in range(ROUNDS):
            lesson = learn_round(engine, history, run, settings, rng)
            history.append(lesson)
        longer = settings.model_copy(update={"learning_roots": 1000})
        return learn_round(engine, history, run, longer, rng).info


if __name__ == "__main__":
    main(sys.argv[1:])

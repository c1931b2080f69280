"""The two saddles of LJ7, C3 -> C2 at beta 7: shares of the transitions by runs and by brute force.

python benchmarks/channels.py [SUCCESSES]     400 success paths of brute force by default, about 10 minutes on one
                                              core, and the sixteen runs of `spread.py 16 7`

Brute force: exits of unbiased replicas in equilibrium, each walked to its end without bias or branching. A path belongs
to the saddle that it comes closest to on the plane of mu2 and mu3, as in examples/lj7_channels.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import RUNS, lj7, mean_and_error, save

import openmm_rlis as rlis
from openmm_rlis.engine import Engine, one_thread
from openmm_rlis.estimators import Estimate, channel_shares
from openmm_rlis.flux import equilibrate, run_flux
from openmm_rlis.problem import TARGET
from openmm_rlis.systems import lj7 as system
from openmm_rlis.walk import walk_unbranched

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from lj7_channels import channel

BETA, N_REPLICAS, N_LAGS, STRIDE = 7.0, 500, 250, 5
SEEDS = range(1, 17)


def by_brute_force(n_success: int) -> dict[str, Estimate]:
    """Return the shares; a stretch in A and the walks from its exits are one batch."""
    engine, rng = Engine(system.build("C3", "C2", beta=BETA)), np.random.default_rng(17)
    names: list[str] = []
    batches: list[int] = []
    with one_thread():
        engine.reseed(rng)
        state, batch = equilibrate(engine, N_REPLICAS)[0].state, 0
        while len(names) < n_success:
            run = run_flux(engine, state, N_LAGS)
            state = run.state
            tree = walk_unbranched(engine, run.exits, run.priors, rng, STRIDE).tree
            arrived = np.flatnonzero(tree.labels == TARGET)
            names += [channel(np.asarray(tree.positions[tree.path(int(i))], dtype=np.float32)) for i in arrived]
            batches += [batch] * len(arrived)
            batch += 1
            print(f"{len(names)} success paths from {batch} stretches", flush=True)
    return channel_shares(batches, names, np.ones(len(names)), batch)


def main() -> None:
    """Run everything and write results/channels.md."""
    n_success = int(sys.argv[1] if len(sys.argv) > 1 else 400)
    brute = by_brute_force(n_success)["upper"]
    lines = [
        f"Share of the upper saddle (mu2, mu3 = 0.5697, 0.1081). Command: `python benchmarks/channels.py {n_success}`.",
        "", f"Brute force, {n_success} success paths or more: {brute.value:.3f} +- {brute.standard_error:.3f}", "",
        "| seed | share | difference / combined error |", "|---|---|---|",
    ]  # fmt: skip
    found = []
    for seed in SEEDS:
        lj7("run", "C3", "C2", BETA, seed, 0.1)
        share = rlis.load(RUNS / f"run-C3-C2-{BETA:g}-0.1-{seed}").channels(channel)["upper"]
        z = (share.value - brute.value) / np.hypot(share.standard_error, brute.standard_error)
        found.append(share.value)
        lines.append(f"| {seed} | {share.value:.3f} +- {share.standard_error:.3f} | {z:+.2f} |")
    mean, error = mean_and_error(found)
    z = (mean - brute.value) / np.hypot(error, brute.standard_error)
    lines += ["", f"Mean of the runs: {mean:.3f} +- {error:.3f}, {z:+.2f} combined errors from brute force."]
    save("channels", lines)


if __name__ == "__main__":
    main()

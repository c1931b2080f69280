"""Value functions made to mislead, on the triple well: is the mean right, and does an alarm sound where the error lies?

python -m benchmarks adversarial [SEEDS]     64 seeds by default, some 3 hours on one core

Nothing is learned: each V is fitted to a wrong target and frozen. The truth is a finite volume rate. Runs whose record
is in results/runs.jsonl are not made again; only what is recorded is put into the table, if the last argument is
`table`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RUNS, Row, number, rate, record, recorded, result_of, save, without_table
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.systems import triple_well
from openmm_rlis.value_function import ValueFunction

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from oracles_2d import Plane
from test_oracles_2d import wells

Array = NDArray[np.float64]
BETA = 3.0
KINDS = ("learned", "exact", "constant", "inverted", "random", "channel", "dead end")
ONLY_FINE = ("channel, fine part only",)


def log_committor(plane: Plane, x: Array, y: Array) -> Array:
    """Return ln q at points, not below that of the cells about A."""
    nx, ny = plane.shape
    axes = plane.x.reshape(nx, ny)[:, 0], plane.y.reshape(nx, ny)[0]
    floor = np.log(plane.committor[plane.codes == 0].min() + 1e-6)
    table = np.log(np.maximum(plane.committor, np.exp(floor))).reshape(nx, ny)
    found: Array = RegularGridInterpolator(axes, table, bounds_error=False, fill_value=floor)(np.stack([x, y], -1))
    return found


def target(kind: str, log_q: Array, x: Array, y: Array) -> Array:
    """Return the wrong ln V that the network is fitted to."""

    def gate(z: Array) -> Array:
        return 1.0 / (1.0 + np.exp(-z / 0.05))

    if kind == "constant":
        return np.full_like(log_q, -5.0)
    if kind == "inverted":
        return log_q.min() - log_q - 0.01
    if kind == "channel":
        return log_q - np.log(1e4) * gate(y - 0.5) * gate(0.9 - np.abs(x))
    if kind == "dead end":
        return log_q + np.log(1e6) * gate(-1.25 - x) - np.log(1e6)
    return log_q


def value(problem: rlis.Problem, plane: Plane, kind: str, seed: int) -> ValueFunction:
    """Return the value function of a kind; the coarse part is given 1e-9, so that all of V is wrong."""
    rng = np.random.default_rng(1000 + seed)
    statistics = {
        "mean": np.zeros(3), "scale": np.ones(3), "center_source": np.array([-1.0, 0, 0]),
        "center_target": np.array([1.0, 0, 0]),
    }  # fmt: skip
    v = ValueFunction(problem.features, statistics, 0.2 if kind in ONLY_FINE else 1e-9, rng=rng)
    if kind == "random":
        with torch.no_grad():
            for part in (v.fine, v.coarse):
                part[4].weight.copy_(torch.as_tensor(rng.normal(0.0, 3.0, part[4].weight.shape)))
        return v.eval()
    x, y = rng.uniform(-2.2, 2.2, 20_000), rng.uniform(-1.8, 2.6, 20_000)
    log_q = log_committor(plane, x, y)
    fits = [(v.fine, target(kind.split(",")[0], log_q, x, y)), (v.coarse, log_q)]
    points = torch.as_tensor(np.stack([x, y, 0 * x], -1)[:, None])
    inputs = v.inputs(problem.features(points))
    for part, (network, wanted) in enumerate(fits):
        goal = torch.as_tensor(np.minimum(wanted, -1e-3))
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(600):
            rows = torch.as_tensor(rng.integers(0, len(x), 2048))
            loss = ((v.log_parts(*(x[rows] for x in inputs))[part] - goal[rows]) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return v.eval()


def run_name(kind: str, seed: int) -> str:
    """Return the name of a run."""
    return f"adversarial-{kind.replace(' ', '-').replace(',', '')}-{seed}"


def one(kind: str, seed: int, plane: Plane) -> Row:
    """Return the record of a run with a wrong value function, which is made now if there is none."""
    name = run_name(kind, seed)
    known = recorded(name)
    if known:
        return known
    make(RUNS / name, kind, seed, plane)
    return record(name, result_of(name))


def make(out: Path, kind: str, seed: int, plane: Plane) -> None:
    """Make such a run, or what is missing of it."""
    limits: dict[str, Any] = {"seed": seed, "max_force_evaluations": 30_000_000}
    if out.exists():
        rlis.resume(out)
        return
    problem, settings, wrong = triple_well.build(beta=BETA), Settings(), None
    if kind != "learned":
        settings, wrong = Settings(learning_rounds=0), value(problem, plane, kind, seed)
    rlis.run(problem, out, value=wrong, settings=settings, **limits)


def main(arguments: list[str]) -> None:
    """Run everything and write results/adversarial.md."""
    words, only_table = without_table(arguments)
    seeds = range(1, 1 + number(words, 64))
    plane = wells(BETA, 0.0, 384)
    lines = [
        f"Triple well, beta {BETA:g}, V frozen as given, at most 3e7 force evaluations a run. "
        f"Truth: finite volumes, k = {plane.rate:.4e} /ps.",
        f"Command: `python -m benchmarks adversarial {len(seeds)}`.", "",
        "| V | seeds | mean k / truth | spread / claimed | claims below half of the spread | these with an alarm | "
        "runs off by more than twice their claim | these with an alarm | all with an alarm | mean relative error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for kind in (*KINDS, *ONLY_FINE):
        found = [recorded(run_name(kind, seed)) if only_table else one(kind, seed, plane) for seed in seeds]
        results = [row for row in found if row]
        if len(results) < 2:
            continue
        k, e = np.array([rate(r) for r in results]).T / plane.rate
        known = np.isfinite(e)
        claims_little = known & (e < 0.5 * k.std(ddof=1))
        far = known & (np.abs(k - 1.0) > 2.0 * e)
        alarm = np.array([bool(r["diagnostics"]["alarms"]) for r in results])
        claim = np.sqrt((e[known] ** 2).mean()) if known.any() else np.nan
        lines.append(
            f"| {kind} | {len(k)} | {k.mean():.3f} +- {k.std(ddof=1) / len(k) ** 0.5:.3f} | "
            f"{k.std(ddof=1) / claim:.2f} | "
            f"{claims_little.sum()} of {len(k)} | {(alarm & claims_little).sum()} | "
            f"{far.sum()} of {len(k)} | {(alarm & far).sum()} | {alarm.sum()} | "
            f"{np.mean(e[known] / np.maximum(k[known], 1e-9)):.2f} |"
        )
        print(lines[-1], flush=True)
    save("adversarial", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

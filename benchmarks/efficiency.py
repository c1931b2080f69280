"""Ours and its peers on the same engine: relative variance x cost of the rate, from the spread of repeats.

python -m benchmarks efficiency [CASE ...] [METHOD ...]     some hours on one core; cases and methods as in CASES and
                                                            METHODS, all of them by default

Lines recorded in results/efficiency.jsonl are not measured again; only they are put into the table, if the last
argument is `table`.

A repeat is one independent estimate of k: its own replicas in A, in equilibrium, its own stretch of run there, its own
exits, and then the method's own estimate of P; peers run in A for as long as ours does. Not charged are what can be
done once beforehand: learning V, placing interfaces and bins, settling. Every method has the same regions, lag and
engine, and V (that of a run to 10 %, from nothing) is also lent to the peers as their progress score, besides the
geometric one a/(a + b) that they would have without us: the best that a peer can hope for. Brute force needs no
repeats: it counts N transitions in a time T, with relative variance 1/N, in T/dt evaluations: its product is 1/(k dt).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, RUNS, Row, lj7_name, mean_and_error, once, rate, recorded, remembered, save, without_table
from numpy.typing import NDArray
from peers import Score, forward_flux, multilevel_splitting, weighted_ensemble

import openmm_rlis as rlis
from openmm_rlis.basin.basin_simulation import equilibrate
from openmm_rlis.basin.exit_flux import FluxState, run_flux
from openmm_rlis.basin.inner_region import Core
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine, one_thread
from openmm_rlis.learning.pilot import make_engine
from openmm_rlis.learning.planning import Plan
from openmm_rlis.sampling.production import produce
from openmm_rlis.statistics.importance import UNTEMPERED, Importance
from openmm_rlis.storage.array_names import unprefixed
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.walks.adaptive_splitting import Splitting, make_score, split

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from test_oracles_2d import mueller

Array = NDArray[np.float64]
RECORDS = RESULTS / "efficiency.jsonl"
N_REPEATS, N_ROUNDS, N_REPLICAS = 24, 3, 25
LENT = {
    "lj7-C3-C2-9": 10, "lj7-C2-C3-9": 13, "lj7-C3-C2-12": 5, "lj7-C2-C3-12": 10, "lj7-C2-C3-15": 10,
}  # fmt: skip
"""Seeds of the runs that lend V, 1 elsewhere: they were made for spread.py."""
INTERFACE_STEP = 0.9
"""ln of the probability to get from one interface to the next."""
CASES = {
    **{
        f"lj7-{a}-{b}-{beta}": ("lj7", "--from", a, "--to", b, "--beta", str(beta))
        for beta in (7, 9, 12, 15, 20)
        for a, b in (("C3", "C2"), ("C2", "C3"))
    },
    **{f"mueller_brown-{beta}": ("mueller_brown", "--beta", str(beta)) for beta in (1, 2, 3)},
}


class Case:
    """What all methods share: a run from nothing to 10 %, and replicas in equilibrium for every repeat.

    Ours starts and fails at the inner core of A that the run found, where it found one; peers at A as it is given.
    """

    def __init__(self, name: str) -> None:
        folder = RUNS / f"efficiency-{name}"
        once(folder.name, "run", *CASES[name], "--seed", str(LENT.get(name, 1)))
        self.run, store = rlis.load(folder), RunDirectory.open(folder)
        self.problem = self.run.problem
        stored, core = store.read_round("plan", 0), unprefixed("core", store.read_round("start", 0).arrays)
        self.plan, self.importance = Plan.from_info(stored.info), Importance(**stored.arrays)
        self.inner = self.problem.with_core(Core.from_arrays(core).region(self.problem)) if core else self.problem
        self.engine = Engine(self.problem)

    @cached_property
    def state(self) -> FluxState:
        """Replicas in equilibrium, for peers."""
        return settled(self.problem)

    @cached_property
    def inner_state(self) -> FluxState:
        """Replicas in equilibrium, for ours."""
        return settled(self.inner, Settings().excursion_lags)


def settled(problem: rlis.Problem, longest: int | None = None) -> FluxState:
    """Return replicas in equilibrium; `longest` as for `equilibrate`."""
    engine = Engine(problem)
    engine.reseed(np.random.default_rng(1))
    return equilibrate(engine, N_REPEATS * N_REPLICAS, longest)[0].state


@dataclass(frozen=True)
class Outcome:
    """Rates of the repeats in 1/ps, (n_repeats,), and what one of them cost."""

    rates: Array
    evaluations: float
    seconds: float


Method = Callable[[Case, np.random.Generator], Outcome]


def ours(
    case: Case, rng: np.random.Generator, branching: bool = True, importance: bool = False, **changed: Any
) -> Outcome:
    """Return production as `rlis run` does it, with other settings."""
    settings = Settings(replicas=N_REPLICAS, **changed)
    if not branching:
        settings = settings.model_copy(update={"window_high": np.inf})
    value = case.run.value
    engine = make_engine(case.inner, settings, None, value)
    guide = (value, case.importance if importance else UNTEMPERED)
    state, begun = case.inner_state, time.monotonic()
    transitions, duration = np.zeros(N_REPEATS), np.zeros(N_REPEATS)
    for index in range(N_ROUNDS):
        done = produce(engine, guide, state, settings, case.plan, rng, range(N_REPEATS), range(index, index + 1))[0]
        state = done.state
        transitions += [batch.transitions for batch in done.batches]
        duration += [batch.time for batch in done.batches]
    seconds = time.monotonic() - begun
    return Outcome(transitions / duration, engine.cost.force_evaluations / N_REPEATS, seconds / N_REPEATS)


def from_exits(
    case: Case, rng: np.random.Generator, estimate: Callable[[Array, NDArray[np.intp]], Array], n_lags: int
) -> Outcome:
    """Return k = J P, P of the repeats from their own exits, (m, n_atoms, 3) and whose they are."""
    engine = case.engine
    engine.reseed(rng)
    before, begun = engine.cost.force_evaluations, time.monotonic()
    run = run_flux(engine, case.state, n_lags)
    owner = run.replica // N_REPLICAS
    probability = estimate(run.exits, owner)
    evaluations = (engine.cost.force_evaluations - before) / N_REPEATS
    flux = np.bincount(owner, minlength=N_REPEATS) * N_REPEATS / run.time
    return Outcome(flux * probability, evaluations, (time.monotonic() - begun) / N_REPEATS)


def geometric(case: Case) -> Score:
    """Return the score a/(a + b) on the features of the regions."""
    return make_score(case.run.problem, case.state.last_in_source, None)


def learned(case: Case) -> Score:
    """Return ln V."""
    return case.run.value.log_value


def interfaces(case: Case, score: Score, rng: np.random.Generator) -> Splitting:
    """Return a splitting run from A to B in this score, for placing interfaces and bins."""
    run = run_flux(case.engine, case.state, 100)
    return split(case.engine, score, run.exits, rng, max_levels=2000, max_lags=20_000)


def spaced(found: Splitting, step: float) -> Array:
    """Return scores at which ln P grows by `step`, ascending, B and what every exit has already left out."""
    wanted = np.arange(found.log_probability + step, -0.5 * step, step)
    return np.interp(wanted, found.level_log_values, found.level_scores)


def ffs(case: Case, rng: np.random.Generator, make: Callable[[Case], Score], n_trials: int = 100) -> Outcome:
    """Return forward flux sampling; its stretch in A is that of the plan."""
    score = make(case)
    levels = spaced(interfaces(case, score, rng), INTERFACE_STEP)

    def estimate(exits: Array, owner: NDArray[np.intp]) -> Array:
        return forward_flux(case.engine, score, levels, exits, owner, N_REPEATS, n_trials, rng)

    return from_exits(case, rng, estimate, N_ROUNDS * case.plan.flux_lags)


def ams(case: Case, rng: np.random.Generator, make: Callable[[Case], Score], n_paths: int = 100) -> Outcome:
    """Return adaptive multilevel splitting with every path waited for, so that it is unbiased."""
    score = make(case)

    def estimate(exits: Array, owner: NDArray[np.intp]) -> Array:
        return multilevel_splitting(case.engine, score, exits, owner, N_REPEATS, n_paths, rng)

    return from_exits(case, rng, estimate, N_ROUNDS * case.plan.flux_lags)


def ensemble(case: Case, rng: np.random.Generator, make: Callable[[Case], Score], per_bin: int = 8) -> Outcome:
    """Return a weighted ensemble in the steady state, bins one e-fold of P wide."""
    score = make(case)
    edges = spaced(interfaces(case, score, rng), 1.0)
    engine = case.engine
    engine.reseed(rng)
    owner = np.repeat(np.arange(N_REPEATS), N_REPLICAS)
    begun, before = time.monotonic(), engine.cost.force_evaluations
    rates, cost = weighted_ensemble(
        engine, score, edges, case.state.last_in_source, owner, N_REPEATS, per_bin, (50, 100), 10, rng
    )
    share = cost / (engine.cost.force_evaluations - before)
    seconds = (time.monotonic() - begun) * share / N_REPEATS
    return Outcome(rates / case.run.problem.lag_time, cost / N_REPEATS, seconds)


BIASED = {"bias_scale": 1.0, "unbiased_share": 0.0}
METHODS: dict[str, Method] = {
    "ours: branching by V": ours,
    "ours: branching, measured importance (default)": partial(ours, importance=True),
    "ours: bias alone, held 10": partial(ours, branching=False, **BIASED),
    **{f"ours: bias and branching, held {n}": partial(ours, hold_steps=n, **BIASED) for n in (1, 5, 10, 20)},
    "ours: half bias and branching, held 10": partial(ours, bias_scale=0.5, unbiased_share=0.0),
    "ours: half bias and branching, measured importance": partial(
        ours, importance=True, bias_scale=0.5, unbiased_share=0.0
    ),
    "ours: half of the roots biased, held 10": partial(ours, bias_scale=1.0, unbiased_share=0.5),
    "forward flux, a/(a+b)": partial(ffs, make=geometric),
    "forward flux, our V": partial(ffs, make=learned),
    "splitting (AMS), a/(a+b)": partial(ams, make=geometric),
    "splitting (AMS), our V": partial(ams, make=learned),
    "weighted ensemble, a/(a+b)": partial(ensemble, make=geometric),
    "weighted ensemble, our V": partial(ensemble, make=learned),
}


def recorded_lines() -> dict[tuple[str, str], Row]:
    """Return all lines measured so far, by case and method."""
    rows = [json.loads(text) for text in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    return {(row["case"], row["method"]): row for row in rows}


def measure(case: Case, name: str, method: str) -> Row:
    """Measure a line and record it."""
    with one_thread():
        outcome = METHODS[method](case, np.random.default_rng([2, *method.encode()]))
    row = {
        "case": name, "method": method, "rates": outcome.rates.tolist(), "evaluations": outcome.evaluations,
        "seconds": outcome.seconds, "timestep": case.run.problem.timestep,
    }  # fmt: skip
    with RECORDS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def reference(name: str) -> tuple[float, float]:
    """Return the rate of a case and its error: finite volumes, all recorded runs of it, or the run that lent V."""
    words = CASES[name]
    if words[0] == "mueller_brown":
        return mueller(float(words[-1]), 360).rate, 0.0
    found = [recorded(lj7_name("run", words[2], words[4], float(words[6]), s, 0.1)) for s in range(1, 49)]
    rates = [rate(row)[0] for row in found if row]
    return mean_and_error(rates) if len(rates) > 3 else rate(remembered(f"efficiency-{name}"))


def relative_variance(rates: Array) -> tuple[float, float]:
    """Return variance / mean^2 over repeats and its standard error, by the jackknife."""

    def of(k: Array) -> float:
        return float(k.var(ddof=1) / k.mean() ** 2) if k.mean() > 0 else float("nan")

    left_out = np.array([of(np.delete(rates, i)) for i in range(len(rates))])
    return of(rates), float(np.sqrt((len(rates) - 1) * left_out.var()))


def line(row: Row, known: tuple[float, float]) -> tuple[str, float, float]:
    """Return a line of the table, the product with evaluations, and its error."""
    rates = np.array(row["rates"])
    variance, error = relative_variance(rates)
    k, e = known
    mean, spread = rates.mean() / k, np.hypot(rates.std(ddof=1) / len(rates) ** 0.5 / k, rates.mean() / k * e / k)
    product = variance * row["evaluations"]
    brute = 1.0 / (k * row["timestep"])
    text = (
        f"| {row['method']} | {mean:.2f} +- {spread:.2f} | {variance:.2g} | {row['evaluations']:.1e} | "
        f"{product:.1e} +- {error * row['evaluations']:.0e} | {brute / product:.2g} | {variance * row['seconds']:.2g} |"
    )
    return text, product, error * row["evaluations"]


def doubtful(row: Row, known: tuple[float, float]) -> bool:
    """Return whether the mean of the repeats is off by more than three errors: their variance is then no measure."""
    rates = np.array(row["rates"])
    return bool(abs(rates.mean() - known[0]) > 3.0 * np.hypot(rates.std(ddof=1) / len(rates) ** 0.5, known[1]))


def ticks(name: str) -> str:
    """Return what stands below the axis for a case: "LJ7, C3 -> C2, beta 9" on three lines."""
    _, *ends, beta = name.split("-")
    place = f"LJ7\n{ends[0]} \u2192 {ends[1]}" if ends else "Mueller-\nBrown"
    return f"{place}\nbeta {beta}"


def style(method: str) -> dict[str, Any]:
    """Return how the points of a method look: a cross for brute force, circles for ours, peers open with our V."""
    if method == "brute force":
        return {"fmt": "x", "color": "0.4", "ms": 8}
    if "default" in method:
        return {"fmt": "o", "color": "black", "ms": 8}
    if method.startswith("ours"):
        others = [other for other in METHODS if other.startswith("ours") and "default" not in other]
        return {"fmt": "o", "color": plt.cm.cool(others.index(method) / (len(others) - 1)), "ms": 5}
    peers = {"forward flux": ("s", "tab:orange"), "splitting (AMS)": ("^", "tab:green"), "weighted": ("D", "tab:red")}
    shape, color = next(look for peer, look in peers.items() if method.startswith(peer))
    return {"fmt": shape, "color": color, "ms": 6, "mfc": "white" if "our V" in method else color}


def draw(products: dict[str, dict[str, tuple[float, float]]]) -> None:
    """Draw the product of every method in each case, side by side."""
    figure, axes = plt.subplots(figsize=(11, 5.5))
    names, seen = list(products), {method for row in products.values() for method in row}
    methods = [method for method in ("brute force", *METHODS) if method in seen]
    for place, method in zip(np.linspace(-0.36, 0.36, len(methods)), methods, strict=True):
        at = [i for i, name in enumerate(names) if method in products[name]]
        y, e = np.array([products[names[i]][method] for i in at]).T
        label = method.replace("a/(a+b)", "score a/(a+b)")
        axes.errorbar(np.array(at) + place, y, np.minimum(e, 0.9 * y), label=label, **style(method))
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [ticks(name) for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    for border in np.arange(len(names) - 1) + 0.5:
        axes.axvline(border, color="0.85", lw=0.8)
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel("relative variance x force evaluations")
    axes.legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left", frameon=False)
    figure.savefig(RESULTS / "efficiency.png", dpi=130, bbox_inches="tight")


def main(arguments: list[str]) -> None:
    """Measure what is asked for and not recorded, and write results/efficiency.md and the figure."""
    words, only_table = without_table(arguments)
    names = [a for a in words if a in CASES] or list(CASES)
    methods = [a for a in words if a in METHODS] or list(METHODS)
    if not only_table:
        for name in names:
            missing = [method for method in methods if (name, method) not in recorded_lines()]
            case = Case(name) if missing else None
            for method in missing:
                assert case is not None
                print(line(measure(case, name, method), reference(name))[0], flush=True)
    known = recorded_lines()
    lines = [f"{N_REPEATS} repeats a line. Command: `python -m benchmarks efficiency`."]
    products: dict[str, dict[str, tuple[float, float]]] = {}
    for name in CASES:
        rows = [known[name, method] for method in METHODS if (name, method) in known]
        if not rows:
            continue
        k, e = reference(name)
        brute = 1.0 / (k * rows[0]["timestep"])
        lines += [
            "", f"## {name}, k = {k:.3g} +- {e:.1g} /ps", "",
            "| method | mean / k | relative variance of a repeat | its evaluations | product | brute force / product | "
            "relative variance x seconds |", "|---|---|---|---|---|---|---|",
            f"| brute force | | | | {brute:.1e} | 1 | |",
        ]  # fmt: skip
        products[name] = {"brute force": (brute, 0.0)}
        for row in rows:
            text, product, error = line(row, (k, e))
            products[name][row["method"]] = (product, error)
            lines.append(text.replace(row["method"], row["method"] + " *") if doubtful(row, (k, e)) else text)
    star = "The mean is off by more than three errors: rare large repeats were missed, or the method is biased. Its "
    picture = "![Relative variance x force evaluations of every method in every case](efficiency.png)"
    lines += ["", f"\\* {star}product says too little.", "", picture]
    save("efficiency", lines)
    draw(products)


if __name__ == "__main__":
    main(sys.argv[1:])

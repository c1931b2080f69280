"""Basin simulation: unbiased replicas that stay in A, or in its core, and record how they leave it.

An *excursion* begins with a test outside the core (A itself where there is none, see `inner_region`) after one in it,
and ends with the next test in the core. A replica is followed on an excursion for at most `longest` lags. If it is not
back by then, or if it comes to B or D before, it goes back to the structure in the core from which it left:

    x_0 (core), x_1, ..., x_n (core),  n <= longest, not through B or D:   followed to its end
    any other excursion from x_0:                                          x_0 again

By time reversal of the equilibrium process, the excursions of the second kind that leave the core at x_0 and return to
it at y have the same law as those that leave at y and return at x_0: so that x_0 again has the law of the returns, and
the visits to the core keep theirs. Both kinds must be closed under time reversal, which "at most so long, and not
through B or D" is. Needs detailed balance, which Euler-Maruyama has to O(dt).

So the replicas have to come to equilibrium within the core and its surroundings only. Whatever lies further away (an
intermediate that is no region, a part of A behind a barrier) is left to the walks, which start at the recorded exits
and are followed to the end (`branching_walk`). The time in state A is

    T_A  =  time of the replicas  +  sum over exits of the time that the excursion lasts beyond `longest` lags,

the second part with the weights of the walks. It has the right expectation for every `longest`; only the variance
depends on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine, one_thread
from ..problem import SOURCE, TARGET, Problem
from .exit_flux import Exits, FluxRun, FluxState, initial_state, no_exit, numbered, run_flux

Array = NDArray[np.float64]
NOT_YET = -(2**62)
"""`FluxState.away` of a replica that has not been in the core yet."""
PERSISTENT = 0.2
"""Correlation between the exits of a replica in two windows in a row, above which windows are too short."""
STUCK, INDEPENDENT = 0.005, 8.0
"""Share of replicas without an exit in a window, above which windows are too short; and the mean number of independent
exits of a replica from which on chance does not make so many."""


def run_basin(engine: Engine, state: FluxState, n_lags: int, longest: int) -> FluxRun:
    """Run every replica for `n_lags` lags without bias, and follow excursions for at most `longest` lags.

    `FluxState.last_in_source` and `FluxState.away` are those of the core.
    """
    problem, n = engine.problem, len(state.positions)
    x, last, away = state.positions.copy(), state.last_in_source.copy(), state.away.copy()
    inside = problem.classify(x)[1]
    tables = np.zeros((2, n_lags, n), dtype=bool)
    hits, n_exits = np.zeros((n, len(problem.regions) + 1), dtype=np.int64), np.zeros(n, dtype=np.int64)
    seen, left = [], [np.zeros((0, 2), dtype=np.int64)]
    for lag in range(n_lags):
        tables[:, lag] = away != 0, ~inside
        y, _ = engine.propagate(x)
        codes, now_inside = problem.classify(y)
        leaving, starting = inside & ~now_inside, (away == 0) & (codes != SOURCE)
        n_exits += leaving
        left.append(numbered(leaving, lag))
        seen.append(Exits.of(starting, y, x, lag))
        last[starting] = x[starting]
        away = np.where(codes == SOURCE, 0, away + 1)
        ended = codes >= TARGET
        hits[ended, codes[ended]] += 1
        back = ended | (away > longest)
        y[back] = last[back]
        away[back] = np.where(away[back] < 0, NOT_YET, 0)
        x, inside = y, now_inside | back
    last[away == 0] = x[away == 0]
    exits = Exits.joined(seen, problem.n_atoms)
    return FluxRun(
        FluxState(x, last, away), exits.positions, exits.priors, exits.replica, exits.lags, np.concatenate(left), hits,
        n_exits, tables[0], tables[1], n_lags, n * n_lags * problem.lag_time,
    )  # fmt: skip


def start_state(problem: Problem, n_replicas: int) -> FluxState:
    """Return `n_replicas` replicas at the start structure, which need not lie in the core."""
    state = initial_state(problem, n_replicas)
    in_core = problem.label(problem.positions[None])[0] == SOURCE
    return state if in_core else replace(state, away=np.full(n_replicas, NOT_YET))


def equilibrate(
    engine: Engine,
    n_replicas: int,
    longest: int | None = None,
    first_window: int = 128,
    max_windows: int = 10,
    resolution: float = 0.03,
    report: Callable[[int, float], None] | None = None,
) -> tuple[FluxRun, int, bool]:
    """Run replicas from the start structure until the rate of exits, from the core if there is one, no longer drifts.

    The run is cut into windows, of which the first three double at least. It ends when three things hold for a window
    and the one before it:

    1. their exit rates agree within 2.5 standard errors of their difference (taken over replicas), where this error was
       foreseen to be `resolution` of the rate at most, so that agreement means something;
    2. replicas that left often in one did not leave often in the other too: their numbers of exits correlate by less
       than `PERSISTENT` (and twice its standard error);
    3. hardly any replica (a share of `STUCK`) made no exit at all in the window, where chance alone makes less: exits
       come in bursts, whose size is variance over mean in the first window, and `INDEPENDENT` bursts are enough. A
       replica in a part of A that it does not leave within a window makes none, long before enough of them are there to
       change the mean; a window of five times the time that they stay is needed before none is left.

    The last window is returned; nothing before it is used. Lengths and foreseen errors come from the windows before,
    and agreement cuts off high and low alike, so that the choice of the last window favours neither high nor low rates:
    its exits may be counted. `max_windows` doublings of the first window are the longest. With `longest` this is a
    basin simulation, see `run_basin`; without it excursions are followed to their end.

    Returns
    -------
    run
        The last window.
    n_lags
        Its length.
    settled
        Whether the test was passed; false when the last window was reached first.

    Raises
    ------
    InputError
        No replica ever left A.
    """
    n_lags, before, tells, burst = first_window, np.zeros(n_replicas), False, 1.0
    longest_window = first_window * 2 ** (max_windows - 1)
    if longest is None:
        state, move = initial_state(engine.problem, n_replicas), run_flux
    else:
        state, move = start_state(engine.problem, n_replicas), partial(run_basin, longest=longest)
    for window in itertools.count():
        run = move(engine, state, n_lags)
        state, rates = run.state, np.bincount(run.replica, minlength=n_replicas) / n_lags
        if report is not None:
            report(window, len(run.exits) / run.time)
        difference = rates - before
        agrees = tells and abs(difference.mean()) < 2.5 * difference.std(ddof=1) / np.sqrt(n_replicas)
        if window == 0:
            burst = max(float(rates.var() * n_lags / max(rates.mean(), 1e-300)), 1.0)
        stuck = rates.mean() * n_lags >= INDEPENDENT * burst and np.mean(rates == 0.0) > STUCK
        if agrees and not stuck and correlation(before, rates) < PERSISTENT + 2.0 / np.sqrt(n_replicas):
            return run, n_lags, True
        if n_lags == longest_window:
            break
        # After a drift, and at first, windows double: whatever relaxes has to have time for it.
        at_least = 2 * n_lags if tells or window < 2 else n_lags
        wanted, tells = _next_window(rates, n_lags, resolution)
        n_lags, before = max(wanted, at_least), rates
        tells = tells and window > 0 and n_lags <= longest_window
        n_lags = min(n_lags, longest_window)
    if len(run.exits) == 0:
        raise no_exit(run)
    return run, n_lags, False


@dataclass(frozen=True)
class SettleTask:
    """Everything that a process needs to bring A to equilibrium, with an engine of its own; `longest` as there."""

    problem: Problem
    n_replicas: int
    n_slots: int
    longest: int | None
    platform: str | None
    rng: np.random.Generator
    deadline: float

    def __call__(self, report: Callable[[int, float, int], None] = lambda *_: None) -> tuple[FluxRun, int, bool, int]:
        """Return what `equilibrate` does, and force evaluations; `report` is told these too."""
        with one_thread():
            engine = Engine(self.problem, self.n_slots, self.platform)
            engine.deadline = self.deadline
            engine.reseed(self.rng)
            cost = engine.cost
            found = equilibrate(
                engine, self.n_replicas, self.longest, report=lambda i, j: report(i, j, cost.force_evaluations)
            )
        return (*found, cost.force_evaluations)


def correlation(a: Array, b: Array) -> float:
    """Return Pearson's correlation of two arrays (n,); 0 where one of them does not vary."""
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 0.0 else 0.0


def _next_window(rates: Array, n_lags: int, resolution: float) -> tuple[int, bool]:
    """Return how long the window after one of `n_lags` should be, and whether it will show a drift of `resolution`.

    With the variance v / n of the rate in a window of n lags, that of the difference of two is v / n + v / n'. Two
    equal ones are the cheapest, so a window is made a little longer than that asks for.
    """
    mean = rates.mean()
    if mean == 0.0:
        return 4 * n_lags, False
    size = rates.var(ddof=1) / len(rates) / (resolution * mean) ** 2
    if size < 2.0 / 3.0:
        return math.ceil(n_lags * size / (1.0 - size)), True
    return math.ceil(n_lags * min(2.2 * size, 4.0)), False

"""Flux: the unbiased run in A that gives the rate of exits and the exits themselves.

    J_A = n_exit / T_A,          k_brute = n_AB / T_A

T_A is the time during which A was the last of the regions visited. An exit is a test outside A after a test in A. A
replica that ends a path in B or D goes back to its last structure in A and starts anew. By time reversal of the
equilibrium process, the last structure in A before a path to B or D has the same law as the first structure in A
after one from there, so the replicas sample the segments of one endless trajectory during which A was the last
region, without ever leaving A's neighbourhood; `hits` counts how often it happened. Needs detailed balance, which
Euler-Maruyama has to O(dt).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .core import Core, Distances
from .engine import Engine, one_thread
from .errors import InputError, bad_input
from .names import prefixed, unprefixed
from .problem import SOURCE, TARGET, Problem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FluxState:
    """Replicas of the unbiased run: now, their last structure in A, and whether they are outside A."""

    positions: Array
    last_in_source: Array
    outside: NDArray[np.bool_]

    def part(self, rows: slice | NDArray[np.intp]) -> FluxState:
        """Return some of the replicas."""
        return FluxState(self.positions[rows], self.last_in_source[rows], self.outside[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays, for storage."""
        return {"positions": self.positions, "last_in_source": self.last_in_source, "outside": self.outside}


@dataclass(frozen=True)
class Pool:
    """The exits of a stretch of unbiased run, from which walks start.

    `exits` and `priors` are (m, n_atoms, 3): the first structure outside A and the one before it. With a core (see
    `core`) they are exits from the core, and places in A outside the core where a replica started anew, which are their
    own priors. `replica` (m,) says whose they are; `n_exits` (n_replicas,) counts the exits from A; `time` is the sum
    over replicas, in ps.
    """

    exits: Array
    priors: Array
    replica: NDArray[np.intp]
    n_exits: NDArray[np.int64]
    time: float

    def part(self, rows: NDArray[np.intp], n_replicas: int) -> Pool:
        """Return the exits of some of `n_replicas` replicas, which are numbered anew in the order given."""
        number = np.full(n_replicas, -1)
        number[rows] = np.arange(len(rows))
        owner = number[self.replica]
        mine = owner >= 0
        time = self.time * len(rows) / n_replicas
        return Pool(self.exits[mine], self.priors[mine], owner[mine], self.n_exits[rows], time)


@dataclass(frozen=True)
class FluxRun:
    """What an unbiased run produced.

    `exits`, `priors`, `replica`, `n_exits` and `time` are as for `Pool`; `lags` (m,) says in which lag of the run,
    counted from 0, an exit was seen; `left` (n, 2) are the replica and the lag of every exit from A; `hits`
    (n_replicas, n_codes) counts the ends in every region; `n_lags` is the length of the run.
    """

    state: FluxState
    exits: Array
    priors: Array
    replica: NDArray[np.intp]
    lags: NDArray[np.int64]
    left: NDArray[np.int64]
    hits: NDArray[np.int64]
    n_exits: NDArray[np.int64]
    n_lags: int
    time: float

    @property
    def pool(self) -> Pool:
        """All exits."""
        return Pool(self.exits, self.priors, self.replica, self.n_exits, self.time)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything but `n_lags` and `time` as named arrays, for storage."""
        state = prefixed("state", self.state.arrays())
        own = {"exits": self.exits, "priors": self.priors, "replica": self.replica, "exit_lags": self.lags}
        return state | own | {"left": self.left, "hits": self.hits, "n_exits": self.n_exits}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_lags: int, time: float) -> FluxRun:
        """Return the run that `arrays` was called on; early ones stored no `exit_lags` and cannot be cut."""
        state = FluxState(**unprefixed("state", arrays))
        lags = arrays.get("exit_lags", np.zeros(0, dtype=np.int64))
        # Runs made before there were cores: every exit is one from A.
        left = arrays["left"] if "left" in arrays else np.stack([arrays["replica"][: len(lags)], lags], axis=1)
        return cls(
            state, arrays["exits"], arrays["priors"], arrays["replica"], lags, left, arrays["hits"],
            arrays["n_exits"], n_lags, time,
        )  # fmt: skip

    def stretches(self, n_lags: int) -> list[Pool]:
        """Return the run cut into stretches of `n_lags` each, without what is left over at its end."""
        found = []
        for start in range(0, self.n_lags - n_lags + 1, n_lags):
            mine, left = ((at >= start) & (at < start + n_lags) for at in (self.lags, self.left[:, 1]))
            n_exits = np.bincount(self.left[left, 0], minlength=len(self.n_exits))
            time = self.time * n_lags / self.n_lags
            found.append(Pool(self.exits[mine], self.priors[mine], self.replica[mine], n_exits, time))
        return found


def initial_state(problem: Problem, n_replicas: int) -> FluxState:
    """Return `n_replicas` replicas at the start structure."""
    x = np.repeat(problem.positions[None], n_replicas, axis=0)
    return FluxState(x, x.copy(), np.zeros(n_replicas, dtype=bool))


def run_flux(
    engine: Engine,
    state: FluxState,
    n_lags: int,
    keep_exits: bool = True,
    watch: Callable[[Array, NDArray[np.bool_]], None] | None = None,
) -> FluxRun:
    """Run every replica for `n_lags` lags without bias.

    `watch` is shown the positions after every lag, and who is in A.
    """
    problem = engine.problem
    n = len(state.positions)
    x, last, outside = state.positions.copy(), state.last_in_source.copy(), state.outside.copy()
    in_core = problem.label(x) == SOURCE if problem.has_core else ~outside
    hits = np.zeros((n, len(problem.regions) + 1), dtype=np.int64)
    n_exits = np.zeros(n, dtype=np.int64)
    seen: list[_Exits] = []
    left: list[NDArray[np.int64]] = []
    for lag in range(n_lags):
        y, _ = engine.propagate(x)
        codes, inside = problem.places(y)
        if watch is not None:
            watch(y, inside)
        leaving = ~outside & ~inside
        n_exits += leaving
        last[leaving] = x[leaving]
        starting = in_core & (codes != SOURCE)
        if keep_exits:
            left.append(_numbered(leaving, lag))
            seen.append(_Exits.of(starting, y, x, lag))
        ended = codes >= TARGET
        hits[ended, codes[ended]] += 1
        y[ended] = last[ended]
        outside, in_core = ~inside & ~ended, codes == SOURCE
        if ended.any():
            in_core[ended] = problem.label(y[ended]) == SOURCE if problem.has_core else True
            # Who starts anew outside the core is where a walk starts, as after an exit from it.
            if keep_exits:
                seen.append(_Exits.of(ended & ~in_core, y, y, lag))
        x = y
    last[~outside] = x[~outside]
    exits = _Exits.joined(seen, problem.n_atoms)
    return FluxRun(
        FluxState(x, last, outside),
        exits.positions,
        exits.priors,
        exits.replica,
        exits.lags,
        np.concatenate([np.zeros((0, 2), dtype=np.int64), *left]),
        hits,
        n_exits,
        n_lags,
        n * n_lags * problem.lag_time,
    )


@dataclass(frozen=True)
class _Exits:
    positions: Array
    priors: Array
    replica: NDArray[np.intp]
    lags: NDArray[np.int64]

    @classmethod
    def of(cls, who: NDArray[np.bool_], positions: Array, priors: Array, lag: int) -> _Exits:
        rows = np.flatnonzero(who)
        return cls(positions[rows], priors[rows], rows, np.full(len(rows), lag, dtype=np.int64))

    @classmethod
    def joined(cls, parts: list[_Exits], n_atoms: int) -> _Exits:
        none, nobody = np.zeros((0, n_atoms, 3)), np.zeros(0, dtype=bool)
        parts = [cls.of(nobody, none, none, 0), *parts]
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def _numbered(who: NDArray[np.bool_], lag: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(who)
    return np.stack([rows, np.full_like(rows, lag)], axis=1)


def first_exits(
    engine: Engine, may_have_core: bool = True, n_replicas: int = 200, n_lags: int = 512, at_least: int = 50
) -> tuple[FluxRun, Core | None]:
    """Run from the start structure until there are some exits: good for learning, since A is not in equilibrium yet.

    Returns
    -------
    run
        With the exits.
    core
        Where A is left too rarely, the core that the exits are from, which the engine's problem has now; None: A is.

    Raises
    ------
    InputError
        No replica ever left A, or its core.
    """
    seen = Distances(engine.problem, n_lags // 2)
    run = run_flux(engine, initial_state(engine.problem, n_replicas), n_lags, watch=seen if may_have_core else None)
    core = seen.core() if may_have_core else None
    if core is not None:
        engine.problem = engine.problem.with_core(core.region(engine.problem))
        n_lags //= 8
        run = run_flux(engine, run.state, n_lags)
    for _ in range(7):
        if len(run.exits) >= at_least:
            break
        n_lags *= 2
        run = run_flux(engine, run.state, n_lags)
    if len(run.exits) == 0:
        raise _no_exit(run)
    return run, core


def equilibrate(
    engine: Engine,
    n_replicas: int,
    first_window: int = 128,
    max_windows: int = 9,
    resolution: float = 0.03,
    report: Callable[[int, float], None] | None = None,
) -> tuple[FluxRun, int, bool]:
    """Run replicas from the start structure until the rate of exits, from the core if there is one, no longer drifts.

    The run is cut into windows, of which the first three double at least. It ends when the exit rates of a window and
    of the one before agree within 2.5 standard errors of their difference (taken over replicas), where this error was
    foreseen to be `resolution` of the rate at most, so that agreement means something. The last window is returned;
    nothing before it is used. Lengths and foreseen errors come from the windows before, and agreement cuts off high and
    low alike, so that the choice of the last window favours neither high nor low rates: its exits may be counted.
    `max_windows` doublings of the first window are the longest.

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
    state, n_lags, before, tells = initial_state(engine.problem, n_replicas), first_window, np.zeros(n_replicas), False
    longest = first_window * 2 ** (max_windows - 1)
    for window in itertools.count():
        run = run_flux(engine, state, n_lags)
        state, rates = run.state, np.bincount(run.replica, minlength=n_replicas) / n_lags
        if report is not None:
            report(window, len(run.exits) / run.time)
        difference = rates - before
        if tells and abs(difference.mean()) < 2.5 * difference.std(ddof=1) / np.sqrt(n_replicas):
            return run, n_lags, True
        if n_lags == longest:
            break
        # After a drift, and at first, windows double: whatever relaxes has to have time for it.
        at_least = 2 * n_lags if tells or window < 2 else n_lags
        wanted, tells = _next_window(rates, n_lags, resolution)
        n_lags, before = max(wanted, at_least), rates
        tells = tells and window > 0 and n_lags <= longest
        n_lags = min(n_lags, longest)
    if len(run.exits) == 0:
        raise _no_exit(run)
    return run, n_lags, False


@dataclass(frozen=True)
class SettleTask:
    """Everything that a process needs to bring A to equilibrium, with an engine of its own."""

    problem: Problem
    n_replicas: int
    n_slots: int
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
            found = equilibrate(engine, self.n_replicas, report=lambda i, j: report(i, j, cost.force_evaluations))
        return (*found, cost.force_evaluations)


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


def _no_exit(run: FluxRun) -> InputError:
    got = f"no exit in {run.time:.3g} ps"
    return bad_input("source", "a region that the dynamics leaves now and then", got, "make it smaller")

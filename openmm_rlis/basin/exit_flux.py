"""Exit flux: unbiased replicas in state A, the exits that they make, and the paths that they complete.

    k_brute = n_AB / T_A

T_A is the time during which A was the last of the regions visited. An exit is a test outside A after a test in A. A
replica that ends a path in B or D goes back to its last structure in A and starts anew. By time reversal of the
equilibrium process, the last structure in A before a path to B or D has the same law as the first structure in A
after one from there, so the replicas sample the segments of one endless trajectory during which A was the last
region; `hits` counts how often it happened. Needs detailed balance, which Euler-Maruyama has to O(dt).

The replicas follow every excursion to its end, so T_A is right only when they are in equilibrium with every place that
is in no region: this is how brute force counts, and how a run finds its first exits. What `run` estimates comes from
`basin_simulation`, whose replicas stay near A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dynamics.engine import Engine
from ..errors import InputError, bad_input
from ..problem import SOURCE, TARGET, Problem
from ..storage.array_names import prefixed, unprefixed
from .inner_region import Core, RadiusRecorder

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FluxState:
    """Replicas of an unbiased run: now, their last structure in A, and for how many lags they have been outside A.

    In a basin simulation (`basin_simulation`) the core takes the place of A.
    """

    positions: Array
    last_in_source: Array
    away: NDArray[np.int64]

    def part(self, rows: slice | NDArray[np.intp]) -> FluxState:
        """Return some of the replicas."""
        return FluxState(self.positions[rows], self.last_in_source[rows], self.away[rows])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays, for storage."""
        return {"positions": self.positions, "last_in_source": self.last_in_source, "away": self.away}


@dataclass(frozen=True)
class Pool:
    """The exits of a stretch of unbiased run, from which walks start.

    `exits` and `priors` are (m, n_atoms, 3): the first structure outside the core of A (A itself where there is none,
    see `inner_region`) and the one before it. `replica` (m,) says whose they are; `n_exits` (n_replicas,) counts the
    exits from A, `away` and `outside` (n_replicas,) the lags that began outside the core and outside A; `time` is the
    sum over replicas, in ps.
    """

    exits: Array
    priors: Array
    replica: NDArray[np.intp]
    n_exits: NDArray[np.int64]
    away: NDArray[np.int64]
    outside: NDArray[np.int64]
    time: float

    def part(self, rows: NDArray[np.intp], n_replicas: int) -> Pool:
        """Return the exits of some of `n_replicas` replicas, which are numbered anew in the order given."""
        number = np.full(n_replicas, -1)
        number[rows] = np.arange(len(rows))
        owner = number[self.replica]
        mine = owner >= 0
        time = self.time * len(rows) / n_replicas
        counts = (self.n_exits[rows], self.away[rows], self.outside[rows])
        return Pool(self.exits[mine], self.priors[mine], owner[mine], *counts, time)


@dataclass(frozen=True)
class FluxRun:
    """What an unbiased run produced.

    `exits`, `priors`, `replica`, `n_exits` and `time` are as for `Pool`; `lags` (m,) says in which lag of the run,
    counted from 0, an exit was seen; `left` (n, 2) are the replica and the lag of every exit from A; `hits`
    (n_replicas, n_codes) counts the ends in every region; `away` and `outside` (n_lags, n_replicas) say who was outside
    the core and outside A when a lag began; `n_lags` is the length of the run. The exits of a run that follows every
    excursion include, with a core, places in A outside it where a replica started anew: they are their own priors;
    `spells` (2,) are the sum of the durations d of its excursions from A that ended, in lags, and that of d^2.
    """

    state: FluxState
    exits: Array
    priors: Array
    replica: NDArray[np.intp]
    lags: NDArray[np.int64]
    left: NDArray[np.int64]
    hits: NDArray[np.int64]
    n_exits: NDArray[np.int64]
    away: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    n_lags: int
    time: float
    spells: Array = field(default_factory=lambda: np.zeros(2))

    @property
    def pool(self) -> Pool:
        """All exits."""
        counts = (self.n_exits, self.away.sum(0), self.outside.sum(0))
        return Pool(self.exits, self.priors, self.replica, *counts, self.time)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything but `n_lags` and `time` as named arrays, for storage."""
        state = prefixed("state", self.state.arrays())
        own = {"exits": self.exits, "priors": self.priors, "replica": self.replica, "exit_lags": self.lags}
        where = {name: np.packbits(getattr(self, name), axis=0) for name in ("away", "outside")}
        return state | own | {"left": self.left, "hits": self.hits, "n_exits": self.n_exits} | where

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], n_lags: int, time: float) -> FluxRun:
        """Return the run that `arrays` was called on."""
        state = FluxState(**unprefixed("state", arrays))
        away, outside = (np.unpackbits(arrays[name], axis=0, count=n_lags) > 0 for name in ("away", "outside"))
        return cls(
            state, arrays["exits"], arrays["priors"], arrays["replica"], arrays["exit_lags"], arrays["left"],
            arrays["hits"], arrays["n_exits"], away, outside, n_lags, time,
        )  # fmt: skip

    def stretches(self, n_lags: int) -> list[Pool]:
        """Return the run cut into stretches of `n_lags` each, without what is left over at its end."""
        found = []
        for start in range(0, self.n_lags - n_lags + 1, n_lags):
            mine, left = ((at >= start) & (at < start + n_lags) for at in (self.lags, self.left[:, 1]))
            n_exits = np.bincount(self.left[left, 0], minlength=len(self.n_exits))
            away, outside = (table[start : start + n_lags].sum(0) for table in (self.away, self.outside))
            time = self.time * n_lags / self.n_lags
            found.append(Pool(self.exits[mine], self.priors[mine], self.replica[mine], n_exits, away, outside, time))
        return found


def initial_state(problem: Problem, n_replicas: int) -> FluxState:
    """Return `n_replicas` replicas at the start structure."""
    x = np.repeat(problem.positions[None], n_replicas, axis=0)
    return FluxState(x, x.copy(), np.zeros(n_replicas, dtype=np.int64))


def run_flux(
    engine: Engine,
    state: FluxState,
    n_lags: int,
    keep_exits: bool = True,
    watch: Callable[[Array, NDArray[np.bool_]], None] | None = None,
) -> FluxRun:
    """Run every replica for `n_lags` lags without bias, and follow every excursion to its end.

    `watch` is shown the positions after every lag, and who is in A.
    """
    problem = engine.problem
    n = len(state.positions)
    x, last, outside = state.positions.copy(), state.last_in_source.copy(), state.away > 0
    away = state.away.copy()
    tables = np.zeros((2, n_lags, n), dtype=bool)
    in_core = problem.label(x) == SOURCE if problem.has_core else ~outside
    hits = np.zeros((n, len(problem.regions) + 1), dtype=np.int64)
    n_exits, spells = np.zeros(n, dtype=np.int64), np.zeros(2)
    seen: list[Exits] = []
    left: list[NDArray[np.int64]] = []
    for lag in range(n_lags):
        tables[:, lag] = ~in_core, outside
        y, _ = engine.propagate(x)
        codes, inside = problem.classify(y)
        if watch is not None:
            watch(y, inside)
        leaving = ~outside & ~inside
        n_exits += leaving
        last[leaving] = x[leaving]
        starting = in_core & (codes != SOURCE)
        if keep_exits:
            left.append(numbered(leaving, lag))
            seen.append(Exits.of(starting, y, x, lag))
        ended = codes >= TARGET
        hits[ended, codes[ended]] += 1
        y[ended] = last[ended]
        outside, in_core = ~inside & ~ended, codes == SOURCE
        over = away[(away > 0) & ~outside]
        spells += over.sum(), np.square(over).sum()
        away = np.where(outside, away + 1, 0)
        if ended.any():
            in_core[ended] = problem.label(y[ended]) == SOURCE if problem.has_core else True
            # Who starts anew outside the core is where a walk starts, as after an exit from it.
            if keep_exits:
                seen.append(Exits.of(ended & ~in_core, y, y, lag))
        x = y
    last[~outside] = x[~outside]
    exits = Exits.joined(seen, problem.n_atoms)
    return FluxRun(
        FluxState(x, last, away),
        exits.positions,
        exits.priors,
        exits.replica,
        exits.lags,
        np.concatenate([np.zeros((0, 2), dtype=np.int64), *left]),
        hits,
        n_exits,
        tables[0],
        tables[1],
        n_lags,
        n * n_lags * problem.lag_time,
        spells,
    )


@dataclass(frozen=True)
class Exits:
    """Exits that were seen in some lags; the fields are those of `FluxRun`."""

    positions: Array
    priors: Array
    replica: NDArray[np.intp]
    lags: NDArray[np.int64]

    @classmethod
    def of(cls, who: NDArray[np.bool_], positions: Array, priors: Array, lag: int) -> Exits:
        """Return those of the replicas for which `who` (n,) holds."""
        rows = np.flatnonzero(who)
        return cls(positions[rows], priors[rows], rows, np.full(len(rows), lag, dtype=np.int64))

    @classmethod
    def joined(cls, parts: list[Exits], n_atoms: int) -> Exits:
        """Return all parts one after the other; there may be none."""
        none, nobody = np.zeros((0, n_atoms, 3)), np.zeros(0, dtype=bool)
        parts = [cls.of(nobody, none, none, 0), *parts]
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def numbered(who: NDArray[np.bool_], lag: int) -> NDArray[np.int64]:
    """Return the replicas for which `who` (n,) holds, each with the lag: (m, 2)."""
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
    seen = RadiusRecorder(engine.problem, n_lags // 2)
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
        raise no_exit(run)
    return run, core


def no_exit(run: FluxRun) -> InputError:
    """Return the error of a run in which A, or its core, was never left."""
    got = f"no exit in {run.time:.3g} ps"
    return bad_input("source", "a region that unbiased trajectories leave", got, "make it smaller")

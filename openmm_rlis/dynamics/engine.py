"""Engine: moves walkers one lag.

    propagate(x_0) -> x_tau and ln dP/dQ of the segment             with a bias, or without
    propagate_with_noise(x_0) -> x_tau and s sum xi of the segment   without a bias

Walkers ride in slots of packed Contexts, of which there are a few sizes; any number of walkers can be asked for, they
enter and leave between calls, and no Context is rebuilt. Unbiased walkers use a Context without network, at full
speed. How a Context moves them is up to `propagators`. The random stream is reset by `reseed`, so the same stream and
the same calls give the same walk on the Reference and CPU platforms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from ..errors import DivergedError, bad_input
from ..problem import Problem
from ..storage.cost_meter import LimitError, current
from .bias import Bias, default_backend, platform_names, scriptable
from .lost_walkers import Where, energy_may_fail, lost_walkers
from .packing import can_pack
from .propagators import CALL, KINDS, STEP_CALL, Kind, Mover, make_context, make_mover, on_cpu, steps_here

Array = NDArray[np.float64]
MANY, FEW = 1.4, 4.0
"""Ratio of the sizes of Contexts."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the order of sums, and so the last digit, must not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass
class Cost:
    """Force evaluations (one walker, one step) and network calls (one walker, one evaluation)."""

    force_evaluations: int = 0
    network_calls: int = 0


class Engine:
    """Moves walkers of one Problem, with and without bias.

    Parameters
    ----------
    problem
        What moves.
    n_slots
        Most copies in one Context; a ladder of smaller Contexts is built as needed, so that few slots are idle.
    platform
        Name of an OpenMM platform; by default Reference for packed Systems (the fastest for many small copies on a CPU)
        and OpenMM's choice otherwise.
    bias
        None for an engine that never biases.
    """

    def __init__(
        self, problem: Problem, n_slots: int = 512, platform: str | None = None, bias: Bias | None = None
    ) -> None:
        if n_slots < 1:
            raise bad_input("n_slots", "1 or more", n_slots)
        self.problem = problem
        self.bias = bias
        self.cost = Cost()
        self.deadline = math.inf  # of time.monotonic, after which `propagate` raises LimitError
        self.meter = current()  # of the run that this engine works for
        self.packed = can_pack(problem.system)
        self.platform_name = platform
        self._platform = _platform(platform, self.packed)
        # A Context with a bias is dear to make, and its network sees all walkers at once; on a GPU all are dear, and
        # idle slots are free. Elsewhere there are many sizes, and a small one beside a full one leaves few slots idle.
        self._few = {kind: kind == "biased" or not on_cpu(self._platform) for kind in KINDS}
        largest = n_slots if self.packed else 1
        self._sizes = {kind: _ladder(largest, FEW if self._few[kind] else MANY) for kind in KINDS}
        self._cheapest: dict[tuple[int, Kind], tuple[float, int]] = {}
        self._movers: dict[tuple[int, Kind], Mover] = {}
        self._energy_may_fail = energy_may_fail(problem.system)
        self._seed = 0
        self._seeded: set[tuple[int, Kind]] = set()
        if bias is not None and bias.backend is None:
            backend = default_backend()
            if backend == "torch" and not scriptable(bias.value, problem.n_atoms):
                backend = "python"
            self.bias = Bias(bias.value, bias.scale, bias.hold_steps, backend)

    def reseed(self, rng: np.random.Generator) -> None:
        """Start a new random stream: each Context takes a seed from it when it is next used, whenever it was built."""
        self._seed = int(rng.integers(1, 2**62))
        self._seeded.clear()

    @property
    def platform(self) -> openmm.Platform | None:
        """The OpenMM platform; None for OpenMM's choice."""
        return self._platform

    @property
    def network_calls_per_lag(self) -> int:
        """How often the network is asked while a biased walker moves by a lag."""
        return 0 if self.bias is None else -(-self.problem.lag_steps // self.bias.hold_steps)

    def start_energy(self) -> float:
        """Return the energy of the start structure in kJ/mol, on this engine's platform; NaN: OpenMM cannot tell."""
        context = make_context(self.problem.system, openmm.VerletIntegrator(1e-3), self._platform)
        try:
            context.setPositions(self.problem.positions)
            return float(context.getState(getEnergy=True).getPotentialEnergy()._value)
        except openmm.OpenMMException:
            return math.nan

    def propagate(self, positions: Array, biased: bool = False) -> tuple[Array, Array]:
        """Move walkers one lag.

        Parameters
        ----------
        positions
            (n, n_atoms, 3) in nm.
        biased
            With the engine's bias, or without.

        Returns
        -------
        positions : (n, n_atoms, 3) in nm, after the lag
        log_weights : (n,), ln dP/dQ of the segment; exactly 0 without bias

        Raises
        ------
        DivergedError
            Coordinates, or the energy where it is not the forces that tell, became NaN or infinite; says how many
            walkers, which one first, where, and why.
        LimitError
            A limit of the run, or the engine's deadline, has passed.
        """
        if biased and self.bias is None:
            raise bad_input("biased", "an engine made with a bias", "one without")
        return self._propagate(positions, "biased" if biased else "plain")

    def propagate_with_noise(self, positions: Array) -> tuple[Array, Array]:
        """Move walkers one lag without bias, and say what the noise alone did.

        Parameters
        ----------
        positions
            (n, n_atoms, 3) in nm.

        Returns
        -------
        positions : (n, n_atoms, 3) in nm, after the lag
        noise : (n, n_atoms, 3) in nm, s sum xi: the sum of the random displacements, which is independent of the past

        Raises
        ------
        DivergedError, LimitError
            As for `propagate`.
        """
        return self._propagate(positions, "noise")

    def _propagate(self, positions: Array, kind: Kind) -> tuple[Array, Array]:
        """Return positions after the lag, and what movers of this kind tell of every walker."""
        if time.monotonic() > self.deadline:
            raise LimitError("max_seconds")
        n = len(positions)
        moved = np.empty_like(positions)
        told = np.zeros_like(positions) if kind == "noise" else np.zeros(n)
        suspects = np.zeros(n, dtype=bool)
        start = 0
        while start < n:
            size = self._size_for(n - start, kind)
            rows = slice(start, min(start + size, n))
            if self.meter is not None:
                self.meter.spend((rows.stop - rows.start) * self.problem.lag_steps)
            mover = self._mover(size, kind)
            try:
                moved[rows], told[rows] = mover.move(positions[rows])
                suspects[rows] = self._energy_may_fail and not math.isfinite(mover.energy())
            except openmm.OpenMMException as error:
                # Some platforms raise where a coordinate is NaN: who was lost is counted, beside those in other slots.
                moved[rows] = mover.reached()[: rows.stop - start]
                if np.isfinite(moved[rows]).all():
                    raise DivergedError(f"OpenMM stopped a lag of {rows.stop - start} walkers: {error}") from None
            self._count(rows.stop - start, kind)
            start = rows.stop
        lost = lost_walkers(self._where(kind), positions, moved, told, suspects)
        if lost is not None:
            raise lost
        return moved, told

    def _where(self, kind: Kind) -> Where:
        return Where(self.problem, self._platform, self.bias if kind == "biased" else None)

    def _size_for(self, n: int, kind: Kind) -> int:
        """Return the size of the next Context for n walkers: one that holds them all, unless more calls cost less."""
        sizes = self._sizes[kind]
        return sizes[-1] if n >= sizes[-1] else self._placed(n, kind)[1]

    def _placed(self, n: int, kind: Kind) -> tuple[float, int]:
        """Return what moving n walkers, fewer than the most in one Context, takes, and the first Context for it."""
        if (n, kind) not in self._cheapest:
            fits = next(size for size in self._sizes[kind] if size >= n)
            ways = [(self._takes(fits, kind), fits)]
            full = [] if self._few[kind] else [size for size in self._sizes[kind] if size < n][-1:]
            ways += [(self._takes(size, kind) + self._placed(n - size, kind)[0], size) for size in full]
            self._cheapest[n, kind] = min(ways)
        return self._cheapest[n, kind]

    def _takes(self, size: int, kind: Kind) -> float:
        """Return the time of a lag in a Context, in steps of one degree of freedom."""
        lag_steps, n_dof = self.problem.lag_steps, 3 * self.problem.n_atoms * size
        calls = lag_steps * STEP_CALL if steps_here(self._platform, n_dof, kind) else CALL
        return calls + lag_steps * n_dof

    def _count(self, n: int, kind: Kind) -> None:
        self.cost.force_evaluations += n * self.problem.lag_steps
        if kind == "biased":
            self.cost.network_calls += n * self.network_calls_per_lag

    def _mover(self, size: int, kind: Kind) -> Mover:
        key = (size, kind)
        if key not in self._movers:
            self._movers[key] = make_mover(self.problem, size, kind, self._platform, self.bias)
        if key not in self._seeded:
            # The seed depends on the stream and the Context alone, so that a resumed run, with a fresh engine, walks
            # the same way.
            rng = np.random.default_rng([self._seed, size, KINDS.index(kind)])
            self._movers[key].seed(int(rng.integers(1, 2**31 - 1)))
            self._seeded.add(key)
        return self._movers[key]


def potential_energies(problem: Problem, positions: Array) -> Array:
    """Return the energies (n,) of structures (n, n_atoms, 3) in kJ/mol, one after another, in double precision."""
    context = make_context(
        problem.system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference")
    )
    found = np.empty(len(positions))
    for i, x in enumerate(positions):
        context.setPositions(x)
        found[i] = context.getState(getEnergy=True).getPotentialEnergy()._value
    return found


def _ladder(largest: int, ratio: float) -> list[int]:
    """Return Context sizes from 4 (or less) up to `largest`, each about `ratio` times the last."""
    sizes = [largest]
    while sizes[-1] > 4:
        sizes.append(min(int(np.ceil(sizes[-1] / ratio)), sizes[-1] - 1))
    return sizes[::-1]


def _platform(name: str | None, packed: bool) -> openmm.Platform | None:
    if name is None:
        return openmm.Platform.getPlatformByName("Reference") if packed else None
    if name not in platform_names():
        raise bad_input("platform", f"one of {', '.join(platform_names())}", repr(name))
    return openmm.Platform.getPlatformByName(name)

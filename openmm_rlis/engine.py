"""Engine: moves walkers one lag.

    propagate(x_0) -> x_tau and ln dP/dQ of the segment             with a bias, or without
    propagate_with_noise(x_0) -> x_tau and s sum xi of the segment   without a bias

Walkers ride in slots of packed Contexts, of which there are a few sizes; any number of walkers can be asked for, they
enter and leave between calls, and no Context is rebuilt. Unbiased walkers use a Context without network, at full
speed. The random stream is reset by `reseed`, so the same stream and the same calls give the same walk on the
Reference and CPU platforms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import openmm
import torch
from numpy.typing import NDArray

from .bias import bias_force, default_backend, platform_names, scriptable
from .errors import BackendError, DivergedError, bad_input
from .integrators import brownian, set_coefficients
from .problem import Problem
from .replicas import can_pack, pack
from .value import ValueFunction

Array = NDArray[np.float64]
Kind = Literal["plain", "biased", "noise"]
"""What a Context does besides moving: nothing, bias and weight, or what tells the noise (the sum of the forces)."""
KINDS: tuple[Kind, ...] = ("plain", "biased", "noise")
CALL = 2000
"""Steps of one degree of freedom that take as long as what a call of a Context takes besides: packed, on a CPU."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: the order of sums, and so the last digit, must not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Bias:
    """How a value function acts as a force: scale s in [0, 1], steps it is held, backend (None: the best here)."""

    value: ValueFunction
    scale: float = 1.0
    hold_steps: int = 10
    backend: str | None = None


@dataclass
class Cost:
    """Force evaluations (one walker, one step) and network calls (one walker, one evaluation)."""

    force_evaluations: int = 0
    network_calls: int = 0


class DeadlineError(Exception):
    """The engine's deadline has passed; for whoever set one, and never seen by a user."""


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
        self.deadline = math.inf  # of time.monotonic, after which `propagate` raises DeadlineError
        self.packed = can_pack(problem.system)
        self._mobility = problem.mobility()
        self._platform = _platform(platform, self.packed)
        self._sizes = {kind: _ladder(n_slots if self.packed else 1, 4.0 if kind == "biased" else 1.4) for kind in KINDS}
        worth = CALL / (problem.lag_steps * 3 * problem.n_atoms)
        self._worth_a_call: dict[Kind, float] = {"plain": worth, "noise": worth, "biased": math.inf}  # in walkers
        self._contexts: dict[tuple[int, Kind], openmm.Context] = {}
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
    def network_calls_per_lag(self) -> int:
        """How often the network is asked while a biased walker moves by a lag."""
        return 0 if self.bias is None else -(-self.problem.lag_steps // self.bias.hold_steps)

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
            Coordinates became NaN or infinite.
        DeadlineError
            The deadline has passed.
        """
        if biased and self.bias is None:
            raise bad_input("biased", "an engine made with a bias", "one without")
        if not biased:
            return self._propagate(positions, "plain")[0], np.zeros(len(positions))
        moved, per_dof = self._propagate(positions, "biased")
        return moved, per_dof.sum(axis=(1, 2))

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
        DivergedError, DeadlineError
            As for `propagate`.
        """
        moved, forces = self._propagate(positions, "noise")
        return moved, moved - positions - self._mobility * forces

    def _propagate(self, positions: Array, kind: Kind) -> tuple[Array, Array]:
        """Return positions after the lag and what the program left in the velocities, both (n, n_atoms, 3)."""
        if time.monotonic() > self.deadline:
            raise DeadlineError
        n = len(positions)
        moved = np.empty_like(positions)
        per_dof = np.zeros_like(positions)
        start = 0
        while start < n:
            size = self._size_for(n - start, kind)
            stop = min(start + size, n)
            moved[start:stop], per_dof[start:stop] = self._move(positions[start:stop], size, kind)
            start = stop
        self._check_finite(moved)
        return moved, per_dof

    def _size_for(self, n: int, kind: Kind) -> int:
        """Return the size of the next Context for n walkers: one that holds them all, unless two calls cost less."""
        fits = [size for size in self._sizes[kind] if size >= n]
        full = [size for size in self._sizes[kind] if size < n]
        if not fits or (full and fits[0] - n > self._worth_a_call[kind]):
            return full[-1]
        return fits[0]

    def _move(self, positions: Array, size: int, kind: Kind) -> tuple[Array, Array | float]:
        context = self._context(size, kind)
        if (size, kind) not in self._seeded:
            self._seed_context(context, size, kind)
        n, n_atoms = len(positions), self.problem.n_atoms
        # Idle slots repeat the first walker: they cost time, but no slot ever holds an unphysical structure.
        full = np.concatenate([positions, np.repeat(positions[:1], size - n, axis=0)]) if n < size else positions
        context.setPositions(full.reshape(-1, 3))
        try:
            context.getIntegrator().step(1)
        except openmm.OpenMMException as error:
            raise DivergedError(f"OpenMM stopped a lag of {n} walkers: {error}") from None
        state = context.getState(getPositions=True, getVelocities=kind != "plain")
        moved = state.getPositions(asNumpy=True)._value.reshape(size, n_atoms, 3)[:n]
        self._count(n, kind)
        if kind == "plain":
            return moved, 0.0
        return moved, state.getVelocities(asNumpy=True)._value.reshape(size, n_atoms, 3)[:n]

    def _check_finite(self, moved: Array) -> None:
        bad = np.flatnonzero(~np.isfinite(moved).all(axis=(1, 2)))
        if len(bad):
            raise DivergedError(
                f"{len(bad)} of {len(moved)} walkers have coordinates that are not finite (first: walker {bad[0]}); "
                f"the time step of {self.problem.timestep} ps is too long"
            )

    def _count(self, n: int, kind: Kind) -> None:
        self.cost.force_evaluations += n * self.problem.lag_steps
        if kind == "biased":
            self.cost.network_calls += n * self.network_calls_per_lag

    def _context(self, size: int, kind: Kind) -> openmm.Context:
        key = (size, kind)
        if key not in self._contexts:
            self._contexts[key] = self._build(size, kind)
        return self._contexts[key]

    def _build(self, size: int, kind: Kind) -> openmm.Context:
        problem, bias = self.problem, self.bias
        system = pack(problem.system, size)
        for force in system.getForces():
            # The integrators read the System's forces from group 0 and the bias from group 31.
            force.setForceGroup(0)
        hold = 1
        if kind == "biased" and bias is not None:
            hold = bias.hold_steps
            system.addForce(bias_force(bias.value, problem.n_atoms, size, problem.kT, bias.scale, bias.backend))
        integrator = brownian(problem.timestep, problem.lag_steps, hold, kind == "biased", kind == "noise")
        return _make_context(system, integrator, self._platform)

    def _seed_context(self, context: openmm.Context, size: int, kind: Kind) -> None:
        # A seed is read when the Context is initialised; Reference keeps one stream for all Contexts of the process.
        # The seed depends on the stream and the Context alone, so that a resumed run, with a fresh engine, walks the
        # same way.
        integrator = context.getIntegrator()
        rng = np.random.default_rng([self._seed, size, KINDS.index(kind)])
        integrator.setRandomNumberSeed(int(rng.integers(1, 2**31 - 1)))
        context.reinitialize()
        set_coefficients(integrator, np.tile(self._mobility, (size, 1)), self.problem.kT)
        self._seeded.add((size, kind))


def potential_energies(problem: Problem, positions: Array) -> Array:
    """Return the energies (n,) of structures (n, n_atoms, 3) in kJ/mol, one after another, in double precision."""
    context = _make_context(
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


def _make_context(
    system: openmm.System, integrator: openmm.Integrator, platform: openmm.Platform | None
) -> openmm.Context:
    try:
        if platform is None:
            return openmm.Context(system, integrator)
        properties = {"Precision": "double"} if "Precision" in platform.getPropertyNames() else {}
        return openmm.Context(system, integrator, platform, properties)
    except openmm.OpenMMException as error:
        raise BackendError(f"OpenMM could not make a Context: {error}") from None

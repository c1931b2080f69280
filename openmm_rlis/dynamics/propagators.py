"""Propagators: take the walkers in the slots of one Context through a lag of Euler-Maruyama steps.

    IntegratorPropagator  the lag is one step of a CustomIntegrator (`integrators`): any platform, no Python in between
    StepwisePropagator    OpenMM gives the forces, the step is made here on the arrays of all walkers

Both walk by the same law. On the Reference and CPU platforms a CustomIntegrator draws two random numbers for every
degree of freedom in every pass over them, used or not, which takes longer than the forces of a small System; the
stepper draws what it needs. It pays a call of OpenMM for each step, so it wins where a Context has many degrees of
freedom.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import openmm
from numpy.typing import NDArray

from ..errors import BackendError
from ..openmm_system.global_parameters import shadow_integrator
from ..problem import Problem
from .bias import Bias, bias_force
from .integrators import BIAS_GROUP, brownian, set_coefficients
from .packing import in_groups, pack

Array = NDArray[np.float64]
Kind = Literal["plain", "biased", "noise"]
"""What a mover tells besides where the walkers are: nothing, the log-weight, or the sum of the noise."""
KINDS: tuple[Kind, ...] = ("plain", "biased", "noise")
SYSTEM_GROUPS = (1 << BIAS_GROUP) - 1
"""Bits of the force groups of the System, without the bias."""
CALL = 2000
"""Steps of one degree of freedom that take as long as the rest of a call of an IntegratorPropagator: on a CPU."""
STEP_CALL = 800
"""The same for each step of a StepwisePropagator."""
STEPPER_FROM: dict[Kind, int] = {"plain": 2000, "noise": 800, "biased": 800}
"""Degrees of freedom in a Context from which a StepwisePropagator is faster; the plain one has but one pass a step."""


class Mover(Protocol):
    """What moves the walkers in one Context."""

    def seed(self, seed: int) -> None:
        """Start a new random stream."""

    def move(self, positions: Array) -> tuple[Array, Array | float]:
        """Move walkers one lag.

        Parameters
        ----------
        positions
            (n, n_atoms, 3) in nm, n at least 1 and at most the slots.

        Returns
        -------
        positions : (n, n_atoms, 3) in nm, after the lag
        told : 0, log-weights ln dP/dQ (n,), or the noise s sum xi (n, n_atoms, 3) in nm, by kind
        """

    def energy(self) -> float:
        """Return the energy of all slots after the lag, without the bias, in kJ/mol."""

    def reached(self) -> Array:
        """Return where all slots are, (size, n_atoms, 3) in nm, also when OpenMM stopped within a lag."""


def on_cpu(platform: openmm.Platform | None) -> bool:
    """Return whether the platform is one of the CPU, on which time is in proportion to the degrees of freedom."""
    return platform is not None and platform.getName() in ("Reference", "CPU")


def steps_here(platform: openmm.Platform | None, n_dof: int, kind: Kind) -> bool:
    """Return whether a Context with so many degrees of freedom gets a StepwisePropagator."""
    return on_cpu(platform) and n_dof >= STEPPER_FROM[kind]


def make_mover(problem: Problem, size: int, kind: Kind, platform: openmm.Platform | None, bias: Bias | None) -> Mover:
    """Return what moves `size` copies of the problem's System; movers of another kind than "biased" have no bias."""
    shadowed = shadow_integrator(problem.system, not on_cpu(platform))
    stepwise = shadowed or steps_here(platform, 3 * size * problem.n_atoms, kind)
    made = StepwisePropagator if stepwise else IntegratorPropagator
    return made(problem, size, kind, platform, bias if kind == "biased" else None)


class IntegratorPropagator:
    """Moves by a CustomIntegrator of which one step is a lag; its Context is made with the first seed."""

    def __init__(
        self, problem: Problem, size: int, kind: Kind, platform: openmm.Platform | None, bias: Bias | None
    ) -> None:
        self.problem, self.size, self.kind = problem, size, kind
        self._mobility = problem.mobility()
        self._platform, self._bias = platform, bias
        hold = 1 if bias is None else bias.hold_steps
        self._integrator = brownian(problem.timestep, problem.lag_steps, hold, kind == "biased", kind == "noise")
        self._context: openmm.Context | None = None
        self._still: openmm.Context | None = None

    def seed(self, seed: int) -> None:
        """Start a new random stream; on the Reference platform it is one for all Contexts of the process."""
        # A seed is read when a Context is initialised, which takes long: on a GPU seconds for 10 000 walkers, and
        # everywhere the time to compile what the forces say.
        self._integrator.setRandomNumberSeed(seed)
        if self._context is None:
            self._context = packed_context(self.problem, self.size, self._integrator, self._platform, self._bias)
        elif self._platform is not None and self._platform.getName() == "Reference":
            _seed_reference(seed, self._platform)
            return
        else:
            self._context.reinitialize()
        set_coefficients(self._integrator, np.tile(self._mobility, (self.size, 1)), self.problem.kT)

    def move(self, positions: Array) -> tuple[Array, Array | float]:
        """See `Mover.move`."""
        n, shape = len(positions), (self.size, *positions.shape[1:])
        # Idle slots repeat the first walker: they cost time, but no slot ever holds an unphysical structure.
        idle = np.repeat(positions[:1], self.size - n, axis=0)
        assert self._context is not None
        self._context.setPositions(np.concatenate([positions, idle]).reshape(-1, 3))
        self._integrator.step(1)
        state = self._context.getState(getPositions=True, getVelocities=self.kind != "plain")
        moved: Array = state.getPositions(asNumpy=True)._value.reshape(shape)[:n]
        if self.kind == "plain":
            return moved, 0.0
        left: Array = state.getVelocities(asNumpy=True)._value.reshape(shape)[:n]
        if self.kind == "noise":
            return moved, moved - positions - self._mobility * left
        return moved, left.sum(axis=(1, 2))

    def energy(self) -> float:
        """See `Mover.energy`."""
        # Not in the own Context: with the energy it tells the kinetic one, for which it draws random numbers.
        if self._still is None:
            self._still = packed_context(self.problem, self.size, openmm.VerletIntegrator(0.001), self._platform, None)
        self._still.setPositions(self.reached().reshape(-1, 3))
        return _energy(self._still)

    def reached(self) -> Array:
        """See `Mover.reached`."""
        assert self._context is not None
        reached: Array = self._context.getState(getPositions=True).getPositions(asNumpy=True)._value
        return reached.reshape(self.size, -1, 3)


class StepwisePropagator:
    """Moves step by step, with OpenMM's forces; same formulas as `integrators`."""

    def __init__(
        self, problem: Problem, size: int, kind: Kind, platform: openmm.Platform | None, bias: Bias | None
    ) -> None:
        self.problem, self.size, self.kind = problem, size, kind
        self._hold = problem.lag_steps if bias is None else bias.hold_steps
        # The time step of this integrator is never used: it stands for none.
        self._context = packed_context(problem, size, openmm.VerletIntegrator(0.001), platform, bias)
        a = problem.mobility()
        s = np.sqrt(2.0 * problem.kT * a)
        a_over_s = np.divide(a, s, out=np.zeros_like(a), where=s > 0)
        # All arrays are of all slots and all degrees of freedom: NumPy is slow where it cannot run straight through.
        self._a, self._s, self._a_over_s = (np.tile(table, (size, 1, 1)) for table in (a, s, a_over_s))
        self._slots, self._xi, self._sum, self._kick = (np.zeros((size, problem.n_atoms, 3)) for _ in range(4))
        self._rng = np.random.default_rng()

    def seed(self, seed: int) -> None:
        """Start a new random stream."""
        self._rng = np.random.Generator(np.random.SFC64(seed))

    def move(self, positions: Array) -> tuple[Array, Array | float]:
        """See `Mover.move`."""
        n, lag_steps = len(positions), self.problem.lag_steps
        self._slots[:n] = positions
        self._slots[n:] = positions[:1]  # idle slots repeat the first walker and stay where they are
        log_weights = np.zeros(n)
        for start in range(0, lag_steps, self._hold):
            n_steps = min(self._hold, lag_steps - start)
            u = self._a_over_s[:n] * self._forces(BIAS_GROUP, n) if self.kind == "biased" else None
            noise = self._block(n, n_steps, u)
            if u is not None:
                log_weights -= (u * noise + 0.5 * n_steps * u * u).sum(axis=(1, 2))
        moved = self._slots[:n].copy()
        if self.kind == "plain":
            return moved, 0.0
        # Without a bias the lag is one block.
        return moved, log_weights if self.kind == "biased" else self._s[:n] * noise

    def energy(self) -> float:
        """See `Mover.energy`."""
        self._context.setPositions(self._slots.reshape(-1, 3))
        return _energy(self._context)

    def reached(self) -> Array:
        """See `Mover.reached`."""
        return self._slots

    def _block(self, n: int, n_steps: int, u: Array | None) -> Array:
        """Take steps with u held, (n, n_atoms, 3), or without; return sum xi, valid until the next call."""
        x, xi, total, kick = self._slots[:n], self._xi[:n], self._sum[:n], self._kick[:n]
        total[:] = 0.0
        for _ in range(n_steps):
            drift = self._forces(0, n)
            drift *= self._a[:n]
            self._draw(xi)
            total += xi
            np.multiply(xi if u is None else xi + u, self._s[:n], out=kick)
            x += drift
            x += kick
        return total

    def _draw(self, xi: Array) -> None:
        """Fill the coordinates that can move with gaussians."""
        d = self.problem.dimensions
        if d == 3:
            self._rng.standard_normal(out=xi)
            return
        by_coordinate = xi.reshape(-1, 3).T
        for coordinate in by_coordinate[:d]:
            coordinate[:] = self._rng.standard_normal(len(coordinate))

    def _forces(self, group: int, n: int) -> Array:
        """Return the forces of a group where the walkers are now, (n, n_atoms, 3) in kJ/mol/nm."""
        self._context.setPositions(self._slots.reshape(-1, 3))
        state = self._context.getState(getForces=True, groups={group})
        forces: Array = state.getForces(asNumpy=True)._value.reshape(self._slots.shape)
        return forces[:n]


def _energy(context: openmm.Context) -> float:
    return float(context.getState(getEnergy=True, groups=SYSTEM_GROUPS).getPotentialEnergy()._value)


def _seed_reference(seed: int, platform: openmm.Platform) -> None:
    """Start the random stream of all Contexts on the Reference platform anew, with the smallest Context there is."""
    system, integrator = openmm.System(), openmm.CustomIntegrator(0.001)
    system.addParticle(1.0)
    integrator.setRandomNumberSeed(seed)
    make_context(system, integrator, platform)


def packed_context(
    problem: Problem, size: int, integrator: openmm.Integrator, platform: openmm.Platform | None, bias: Bias | None
) -> openmm.Context:
    """Return a Context of `size` copies, the System's forces in group 0 and the bias, if any, in group 31."""
    system = pack(problem.system, size)
    in_groups(system, [0])  # the movers read the System's forces from group 0 and the bias from group 31
    if bias is not None:
        system.addForce(bias_force(bias.value, problem.n_atoms, size, problem.kT, bias.scale, bias.backend))
    return make_context(system, integrator, platform)


def make_context(
    system: openmm.System, integrator: openmm.Integrator, platform: openmm.Platform | None
) -> openmm.Context:
    """Return a Context in double precision where the platform has a choice.

    Raises
    ------
    BackendError
        OpenMM cannot make it.
    """
    try:
        return open_context(system, integrator, platform)
    except openmm.OpenMMException as error:
        raise BackendError(f"OpenMM could not make a Context: {error}") from None


def open_context(
    system: openmm.System, integrator: openmm.Integrator, platform: openmm.Platform | None
) -> openmm.Context:
    """Return what `make_context` does, and let OpenMM raise what it raises."""
    if platform is None:
        return openmm.Context(system, integrator)
    properties = {"Precision": "double"} if "Precision" in platform.getPropertyNames() else {}
    return openmm.Context(system, integrator, platform, properties)

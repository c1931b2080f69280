"""Lost walkers: walkers whose coordinates, weight or energy are not finite, and why.

A NaN force moves a walker to NaN in its next step, and so does a time step that is too long: x grows from step to
step until it overflows. Which one it was is looked up where the walker was last seen: the lag is repeated with other
noise until a coordinate is not finite, and the forces and energies are evaluated one step before that.

A potential may also be NaN where its derivatives are finite, log(x) at x < 0 for one: no coordinate tells; and where
they are NaN too, a walker that gets there with the last step of a lag is still finite, and may have arrived in B. So
the energies of Systems with such forces are looked at after each lag (`energy_may_fail`).
"""

from __future__ import annotations

import copy
import re
import time
from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import NDArray

from ..errors import DivergedError
from ..features import evaluate
from ..geometry.finite import place
from ..problem import Problem
from .bias import Bias
from .packing import MAX_PACKED_ATOMS, can_pack, in_groups, pack
from .propagators import SYSTEM_GROUPS, StepwisePropagator, make_context, packed_context

Array = NDArray[np.float64]
FAR = 1e6
"""Nanometres from the start structure: a particle that is so far away came there in steps that grow."""
LONG_STEP = 20.0
"""Length of a step in units of the noise of a step; up to 2 sqrt(2) where a step is stable."""
SECONDS, COPIES, REPEATS = 5.0, 256, 10_000
"""For how long at most, with how many walkers at a time, and how often a lag is repeated."""
_SAFE = (
    openmm.HarmonicBondForce, openmm.HarmonicAngleForce, openmm.PeriodicTorsionForce, openmm.RBTorsionForce,
    openmm.CMAPTorsionForce, openmm.NonbondedForce,
)  # fmt: skip
_BY_EXPRESSION = (
    openmm.CustomBondForce, openmm.CustomAngleForce, openmm.CustomTorsionForce, openmm.CustomExternalForce,
    openmm.CustomCompoundBondForce, openmm.CustomCentroidBondForce, openmm.CustomNonbondedForce,
)  # fmt: skip
_PARTIAL = re.compile(r"\b(log|asin|acos|floor|ceil)\s*\(|\^(?!\s*(-?\d+|\(\s*-?\d+\s*\))(?![\d.]))")
"""In an expression, what is not defined everywhere, beside roots: these functions, and powers that are not whole."""
_JUMP = re.compile(r"\b(step|delta|select)\s*\(")
_UNBOUNDED = re.compile(r"\b(exp|sinh|cosh|tan|sec|csc|cot|recip)\s*\(|/(?!\s*[\d.])|\^\s*\(?\s*-")
"""In an expression, what may be infinite: no force tells where it is so by a jump, as 1/step(x) and exp(a*step(x))."""
_ROOT, _SQUARE = re.compile(r"\bsqrt\s*\("), re.compile(r"\s*(\w+|\([^()]*\))\s*\^\s*2\s*")


def energy_may_fail(system: openmm.System) -> bool:
    """Return whether an energy may be NaN at places other than points where particles meet, or where x overflows.

    log, floor and ceil have a finite derivative where they are NaN, the other such functions have not; nor have those
    that may be infinite, but by a jump. Nothing is known of forces that are not in the lists here, and so it may.
    """
    return not all(
        isinstance(f, _SAFE) or (isinstance(f, _BY_EXPRESSION) and _defined_everywhere(f.getEnergyFunction()))
        for f in system.getForces()
    )


def _defined_everywhere(expression: str) -> bool:
    """Return whether nothing in an expression is partial; roots of a sum of squares, as in distances, are not."""
    if _PARTIAL.search(expression) or (_JUMP.search(expression) and _UNBOUNDED.search(expression)):
        return False
    for root in _ROOT.finditer(expression):
        depth, stop = 1, root.end()
        while depth and stop < len(expression):
            depth += {"(": 1, ")": -1}.get(expression[stop], 0)
            stop += 1
        terms = expression[root.end() : stop - 1].split("+")
        if not all(_SQUARE.fullmatch(term) for term in terms):
            return False
    return True


@dataclass(frozen=True)
class Where:
    """What moves walkers: a problem, a platform, and a bias or none."""

    problem: Problem
    platform: openmm.Platform | None
    bias: Bias | None

    def energies(self, positions: Array) -> Array:
        """Return the energies (n,) in kJ/mol of structures (n, n_atoms, 3) in nm, one after another; NaN stays NaN."""
        context = packed_context(self.problem, 1, openmm.VerletIntegrator(0.001), self.platform, None)
        found = np.empty(len(positions))
        for i, x in enumerate(positions):
            context.setPositions(x)
            found[i] = context.getState(getEnergy=True, groups=SYSTEM_GROUPS).getPotentialEnergy()._value
        return found


def lost_walkers(where: Where, before: Array, moved: Array, told: Array, suspects: Array) -> DivergedError | None:
    """Return the error that names the walkers that a lag lost, or None if there are none.

    Parameters
    ----------
    where
        What moved them.
    before, moved
        (n, n_atoms, 3) in nm, before and after the lag.
    told
        (n, ...), what the mover told: log-weights or noise.
    suspects
        (n,), whose energies have to be looked at.
    """
    coordinates, weights = _finite(moved), _finite(told)
    lost, energies = ~(coordinates & weights), np.zeros(len(moved))
    rows = [int(i) for i in np.flatnonzero(suspects) if not lost[i]]
    if len(rows):
        energies[rows] = where.energies(moved[rows])
    lost |= ~np.isfinite(energies)
    if not lost.any():
        return None
    first = int(np.flatnonzero(lost)[0])
    kinds = {"coordinates": ~coordinates, "weights": coordinates & ~weights, "energies": ~_finite(energies)}
    have = " or ".join(name for name, who in kinds.items() if who.any())
    text = f"{int(lost.sum())} of {len(moved)} walkers have {have} that are not finite (first: walker {first}); "
    return DivergedError(text + _reason(where, before[first], moved[first]))


def _finite(arrays: Array) -> NDArray[np.bool_]:
    """Return whether all numbers of each of (n, ...) are finite."""
    return np.asarray(np.isfinite(arrays).all(axis=tuple(range(1, arrays.ndim))))


def _reason(where: Where, before: Array, moved: Array) -> str:
    """Return why a walker was lost that was at `before` and, if its coordinates are finite, is at `moved`."""
    if not np.isfinite(before).all():
        return "they were not finite before the lag"
    problem = where.problem
    too_long = f"the time step of {problem.timestep} ps is too long"
    try:
        x, last = (moved, before) if np.isfinite(moved).all() else _last_seen(where, before)
        if x is None:
            repeats = "repeats of the lag with other noise stayed finite"
            return f"{repeats}: check the potential near {_described(problem, before)}, or shorten the time step"
        if np.abs(x - problem.positions).max() > FAR:
            return too_long
        step, noise = np.abs(x - last).max(), np.sqrt(2.0 * problem.kT * problem.mobility().max())
        if x is not moved and step > LONG_STEP * noise:
            return f"{too_long}: one moved a particle by {step:.3g} nm, where noise alone moves it by {noise:.3g} nm"
        return _culprit(where, x, before) or too_long
    except openmm.OpenMMException as error:
        return f"OpenMM says: {' '.join(str(error).split())}"


def _last_seen(where: Where, before: Array) -> tuple[Array | None, Array]:
    """Repeat a lag from `before` with other noise; return the last finite positions of a walker, and those before."""
    single = copy.copy(where.problem)
    single.lag_steps = 1
    n = COPIES if can_pack(single.system) else 1
    stepper = StepwisePropagator(single, n, "plain" if where.bias is None else "biased", where.platform, where.bias)
    stepper.seed(1)
    end = time.monotonic() + SECONDS
    for _ in range(-(-REPEATS // n)):
        x = last = np.repeat(before[None], n, axis=0)
        for _ in range(where.problem.lag_steps):
            y, _ = stepper.move(x)
            bad = np.flatnonzero(~np.isfinite(y).all(axis=(1, 2)))
            if len(bad):
                return x[bad[0]], last[bad[0]]
            last, x = x, y
            if time.monotonic() > end:
                return None, before
    return None, before


def _culprit(where: Where, x: Array, before: Array) -> str:
    """Return which force or energy is not finite at x, or "" if all are."""
    system = pack(where.problem.system, 1)
    forces = in_groups(system, range(31))
    context = make_context(system, openmm.VerletIntegrator(0.001), where.platform)
    undefined = "the potential is not defined there; fix it, or exclude these configurations"
    for i, force in enumerate(forces[:31]):
        bad, value = _not_finite(context, x, 1 << i)
        name = force.getName()
        if len(bad):
            return f"the force of {name} is {value} on {_described(where.problem, x, int(bad[0]))}: {undefined}"
        if value != "finite":
            particle = _particle_that_matters(context, x, before, 1 << i)
            return f"the energy of {name} is {value} with {_described(where.problem, x, particle)}: {undefined}"
    if where.bias is not None:
        context = packed_context(where.problem, 1, openmm.VerletIntegrator(0.001), where.platform, where.bias)
        bad, value = _not_finite(context, x, ~SYSTEM_GROUPS & 0xFFFFFFFF)
        if len(bad):
            remedy = "a feature has no finite gradient there; fix it, or set bias_scale to 0"
            return f"the bias force is {value} on {_described(where.problem, x, int(bad[0]))}: {remedy}"
    return ""


def _not_finite(context: openmm.Context, x: Array, groups: int) -> tuple[NDArray[np.intp], str]:
    """Return the particles whose force is not finite, and the first value that is not, of a force or the energy."""
    context.setPositions(x)
    state = context.getState(getForces=True, getEnergy=True, groups=groups)
    forces, energy = state.getForces(asNumpy=True)._value, state.getPotentialEnergy()._value
    bad = np.flatnonzero(~np.isfinite(forces).all(axis=1))
    if len(bad):
        row = forces[bad[0]]
        return bad, f"{row[~np.isfinite(row)][0]}"
    return bad, "finite" if np.isfinite(energy) else f"{energy}"


def _particle_that_matters(context: openmm.Context, x: Array, before: Array, groups: int) -> int | None:
    """Return the particle that makes the energy finite when it alone is put back where it was before."""
    for i in range(len(x) if len(x) <= MAX_PACKED_ATOMS else 0):
        back = x.copy()
        back[i] = before[i]
        if _not_finite(context, back, groups)[1] == "finite":
            return i
    return None


def _described(problem: Problem, x: Array, particle: int | None = None) -> str:
    """Return where a particle is, and what the features of the structure are if they are few and not its place."""
    text = place(x, particle)
    if problem.n_atoms > 1:
        values = evaluate(problem.features, x[None])[0]
        if len(values) <= 8:
            text += f" (features {', '.join(f'{v:.4g}' for v in values)})"
    return text

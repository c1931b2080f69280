"""Platforms: which of OpenMM's is the fastest for a System that is moved one walker at a time.

A small System is slower on several threads than on one, a large one faster by their number, and neither can be told
from its size alone: each platform takes steps for a moment. Verlet steps, from rest and too short to get anywhere,
draw no random numbers, so the streams of a run are as they would be without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import openmm

from ..errors import BackendError
from ..problem import Problem
from .bias import platform_names
from .packing import can_pack
from .propagators import packed_context

MOMENT = 0.2
"""Seconds for each platform."""
MOST_ON_REFERENCE = 5000
"""Atoms; a step of more takes seconds on the Reference platform, and is never the fastest."""


def choose_platform(problem: Problem, platform: str | None) -> tuple[str | None, dict[str, float]]:
    """Return the platform of a new run, and the seconds of a step on each if they were timed.

    Parameters
    ----------
    problem
        What will move.
    platform
        As the user gave it; then it is that, and nothing is timed, and neither is a System that can be packed.

    Raises
    ------
    BackendError
        No platform takes the System.
    """
    if platform is not None or can_pack(problem.system):
        return platform, {}
    seconds, reasons = {}, []
    for name in platform_names():
        if name == "Reference" and problem.n_atoms > MOST_ON_REFERENCE and len(platform_names()) > 1:
            continue
        try:
            seconds[name] = step_seconds(problem, name)
        except (BackendError, openmm.OpenMMException) as error:
            reasons.append(f"{name}: {error}")
    if not seconds:
        raise BackendError(f"no platform of OpenMM takes this System; {'; '.join(reasons)}")
    seconds = dict(sorted(seconds.items(), key=lambda item: item[1]))
    return next(iter(seconds)), seconds


def step_seconds(problem: Problem, platform: str) -> float:
    """Return how long a step of one walker takes on a platform."""
    integrator = openmm.VerletIntegrator(1e-12)
    context = packed_context(problem, 1, integrator, openmm.Platform.getPlatformByName(platform), None)
    context.setPositions(problem.positions)
    _take(context, integrator, 1)  # makes neighbour lists and kernels
    n, taken = 1, _take(context, integrator, 1)
    while taken < MOMENT:
        n *= 2
        taken = _take(context, integrator, n)
    return taken / n


def _take(context: openmm.Context, integrator: openmm.Integrator, n_steps: int) -> float:
    """Take steps and return how long they take, until the positions are here."""
    begun = time.perf_counter()
    integrator.step(n_steps)
    context.getState(getPositions=True)
    return time.perf_counter() - begun


def platform_text(config: Mapping[str, Any]) -> str:
    """Return what a person is told of the choice in a run's configuration, or nothing."""
    seconds = config.get("platform_seconds") or {}
    steps = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in seconds.items())
    return f"; platform {config['platform']} (a step on {steps})" if steps else ""

"""Stopping: the error that a run should reach, and the limits that may end it before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from ..errors import bad_input

SUSPECT = 0.5
"""What is left of the target while the error bar is in doubt: four times the paths."""


@dataclass(frozen=True)
class Goal:
    """When to stop: a relative standard error of the rate, and limits on force evaluations and seconds, or None."""

    target_relative_error: float
    max_force_evaluations: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        target = self.target_relative_error
        if not _is_number(target) or not 0.0 < target < 1.0:
            raise bad_input("target_relative_error", "a number between 0 and 1", repr(target))
        for name in ("max_force_evaluations", "max_seconds"):
            limit = getattr(self, name)
            if limit is not None and not (_is_number(limit) and limit > 0):
                raise bad_input(name, "a positive number or None", repr(limit))

    def error_wanted(self, doubtful: bool) -> float:
        """Return the relative error at which a run stops: the target, half of it while an alarm doubts the error bar.

        A run whose V hides a channel claims least when it has seen least of it, and stops there: such runs are low on
        average. Where the alarm is on whatever was seen, going on mends that. Where it comes only with what was seen,
        those that saw nothing still stop, and the mean over runs is a few per cent of it lower for the others.
        """
        return self.target_relative_error * (SUSPECT if doubtful else 1.0)

    def evaluations_left(self, spent: float) -> float:
        """Return how many force evaluations are left when so many are spent; infinite without a limit."""
        return math.inf if self.max_force_evaluations is None else self.max_force_evaluations - spent

    def seconds_left(self, spent: float) -> float:
        """Return how many seconds are left when so many are spent; infinite without a limit."""
        return math.inf if self.max_seconds is None else self.max_seconds - spent

    def nearest_limit(self, evaluations: float, seconds: float) -> str:
        """Return the name of the limit of which the least share is left."""
        most = (self.max_force_evaluations or math.inf, self.max_seconds or math.inf)
        used = evaluations / most[0], seconds / most[1]
        return "max_force_evaluations" if used[0] >= used[1] else "max_seconds"

    def limit_passed(self, evaluations: float, seconds: float) -> str:
        """Return the name of the limit that so much would pass, or ""."""
        if self.evaluations_left(evaluations) < 0.0:
            return "max_force_evaluations"
        return "max_seconds" if self.seconds_left(seconds) < 0.0 else ""


def _is_number(given: object) -> bool:
    return isinstance(given, Real) and not isinstance(given, bool)

"""Progress: reports stage, rate and cost of a run to a callback and to the log of the run directory.

A report is made at every event, and `SECONDS_BETWEEN_BEATS` after the last one: then the last report is repeated with
the present cost and time. The cost is that of the meter and never decreases.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from ..results.result import Result
from ..statistics.estimators import Estimate
from ..storage.cost_meter import Meter
from ..storage.run_directory import RunDirectory
from .stopping import Goal

SECONDS_BETWEEN_BEATS = 7.0
SECONDS_BETWEEN_LEVELS = 5.0


@dataclass(frozen=True)
class Progress:
    """State of a run: stage, round, rate so far, cost, remaining time."""

    stage: str
    round: int
    rate: Estimate | None = None
    force_evaluations: int = 0
    seconds: float = 0.0
    fraction: float | None = None
    seconds_left: float | None = None
    message: str = ""


Report = Callable[[Progress], None]


class Teller:
    """Sends `Progress` to the callback and to the log; the meter calls `beat` between events."""

    def __init__(self, store: RunDirectory, meter: Meter, report: Report) -> None:
        self._store, self._meter, self._report = store, meter, report
        self._last, self._when = Progress("start", 0), time.monotonic()
        meter.on_beat, meter.on_note = self.beat, self.say

    def tell(self, progress: Progress) -> None:
        """Report progress; cost and time are filled in."""
        self._when = time.monotonic()
        told = replace(progress, force_evaluations=self._meter.evaluations, seconds=self._meter.seconds)
        self._last = told
        rate = told.rate.to_dict() if told.rate else None
        self._store.log("progress", **{**asdict(told), "rate": rate})
        self._report(told)

    def beat(self) -> None:
        """Repeat the last report if it is older than `SECONDS_BETWEEN_BEATS`."""
        silent = time.monotonic() - self._when
        if silent >= SECONDS_BETWEEN_BEATS:
            left = self._last.seconds_left
            self.tell(replace(self._last, message="", seconds_left=None if left is None else max(left - silent, 0.0)))

    def say(self, message: str) -> None:
        """Report a message in the present stage."""
        self.tell(replace(self._last, message=message))

    def window(self, window: int, rate: float, _: int = 0) -> None:
        """Report a window of the basin simulation."""
        self.tell(Progress("flux", window, message=f"exit rate {rate:.4g} /ps"))

    def level(self, message: str) -> None:
        """Report a level of splitting, at most every `SECONDS_BETWEEN_LEVELS`."""
        if time.monotonic() - self._when > SECONDS_BETWEEN_LEVELS:
            self.tell(Progress("start", 0, message=message))

    def production(self, result: Result, index: int, wanted: float, goal: Goal) -> None:
        """Report production after `index` rounds; `wanted` is the relative error at which it stops."""
        if index == 0:
            self.tell(Progress("production", 0))
            return
        error = result.rate.relative_error
        left = fraction = None
        if math.isfinite(error) and error > 0:
            fraction = min(1.0, (wanted / error) ** 2)
            left = result.production_seconds * (1.0 / fraction - 1.0)
        goes_on = error <= goal.target_relative_error and error > wanted
        why = f"an alarm doubts the error bar: the run continues to an error of {wanted:.2g}" if goes_on else ""
        self.tell(Progress("production", index, result.rate, fraction=fraction, seconds_left=left, message=why))

"""Progress: tells whoever watches, and the log of the run directory, where a run stands.

Something is told at every event, and after `SECONDS_BETWEEN_BEATS` without one: then it is what was told last, with the
cost and the time of now. The cost is that of the meter, so it never falls.
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
    """Where a run stands, for whoever watches."""

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
    """Tells a person and the log where a run stands; the meter makes it speak when nobody else does."""

    def __init__(self, store: RunDirectory, meter: Meter, report: Report) -> None:
        self._store, self._meter, self._report = store, meter, report
        self._last, self._when = Progress("start", 0), time.monotonic()
        meter.on_beat, meter.on_note = self.beat, self.say

    def tell(self, progress: Progress) -> None:
        """Tell where the run stands; the cost and the time are filled in."""
        self._when = time.monotonic()
        told = replace(progress, force_evaluations=self._meter.evaluations, seconds=self._meter.seconds)
        self._last = told
        rate = told.rate.to_dict() if told.rate else None
        self._store.log("progress", **{**asdict(told), "rate": rate})
        self._report(told)

    def beat(self) -> None:
        """Say that the run is alive, if nothing was said for a while."""
        silent = time.monotonic() - self._when
        if silent >= SECONDS_BETWEEN_BEATS:
            left = self._last.seconds_left
            self.tell(replace(self._last, message="", seconds_left=None if left is None else max(left - silent, 0.0)))

    def say(self, message: str) -> None:
        """Say something in the stage that was told last."""
        self.tell(replace(self._last, message=message))

    def window(self, window: int, rate: float, _: int = 0) -> None:
        """Tell of a window of the run in A."""
        self.tell(Progress("flux", window, message=f"starts of walks per ps: {rate:.4g}"))

    def level(self, message: str) -> None:
        """Tell of a level of splitting, unless something was told a moment ago."""
        if time.monotonic() - self._when > SECONDS_BETWEEN_LEVELS:
            self.tell(Progress("start", 0, message=message))

    def production(self, result: Result, index: int, wanted: float, goal: Goal) -> None:
        """Tell of production after `index` rounds; `wanted` is the error at which it ends."""
        if index == 0:
            self.tell(Progress("production", 0))
            return
        error = result.rate.relative_error
        left = fraction = None
        if math.isfinite(error) and error > 0:
            fraction = min(1.0, (wanted / error) ** 2)
            left = result.production_seconds * (1.0 / fraction - 1.0)
        goes_on = error <= goal.target_relative_error and error > wanted
        why = f"an alarm is on: goes on to an error of {wanted:.2g}" if goes_on else ""
        self.tell(Progress("production", index, result.rate, fraction=fraction, seconds_left=left, message=why))

"""Progress as it is shown: a `Snapshot` is one line of it.

It comes from the sampler's `Progress`, from a child process as JSON, or from the log of a run directory. Neither torch,
openmm nor NumPy is needed here, so that `rlis status` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from .text import duration, rate_text


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands: stage and round, rate so far (an Estimate as a dict), cost, and what is left."""

    stage: str = ""
    round: int = 0
    rate: Mapping[str, Any] | None = None
    force_evaluations: int = 0
    seconds: float = 0.0
    fraction: float | None = None
    seconds_left: float | None = None
    message: str = ""

    @classmethod
    def of(cls, progress: Any) -> Self:
        """Return the snapshot of a `run.Progress`."""
        values = {field.name: getattr(progress, field.name) for field in fields(cls)}
        if hasattr(values["rate"], "to_dict"):
            values["rate"] = values["rate"].to_dict()
        return cls(**values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return the snapshot in a JSON object; other entries are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    @property
    def evaluations_per_second(self) -> float | None:
        """Force evaluations over the seconds of the whole run so far."""
        return self.force_evaluations / self.seconds if self.seconds > 0 and self.force_evaluations else None

    def evaluations(self) -> str:
        """Return the force evaluations and their speed as text, e.g. `6.20e+07 evaluations, 3.4e+05/s`."""
        speed = self.evaluations_per_second
        return f"{self.force_evaluations:.2e} evaluations" + ("" if speed is None else f", {speed:.1e}/s")

    def line(self) -> str:
        """Return stage, rate, evaluations, elapsed time and time left in one line."""
        parts = [f"{self.stage} {self.round}", f"rate {rate_text(self.rate)}", self.evaluations()]
        parts += [duration(self.seconds)] if self.seconds_left is None else []
        parts += [] if self.seconds_left is None else [f"{duration(self.seconds)}, {duration(self.seconds_left)} left"]
        return " | ".join(parts)

    def after(self, seconds: float) -> Self:
        """Return the snapshot as it looks some seconds later, nothing new having been told."""
        left = None if self.seconds_left is None else max(0.0, self.seconds_left - seconds)
        return replace(self, seconds=self.seconds + seconds, seconds_left=left)

"""Text: a rate with its interval, and a duration, each as a person reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """Return a rate with its 95 % interval and relative standard error, e.g. `0.0971 [0.0931, 0.101] /ps (4.1 %)`."""
    if rate is None or rate["value"] in (None, "NaN"):
        return "-"
    value, error = float(rate["value"]), _number(rate["standard_error"])
    if not math.isfinite(error) or value <= 0.0:
        return f"{value:.3g} /ps (no error bar yet)"
    low, high = (_number(x) for x in rate["interval"])
    return f"{value:.3g} [{low:.3g}, {high:.3g}] /ps ({100 * error / value:.1f} %)"


def _number(value: Any) -> float:
    return math.inf if value is None else float(value)


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

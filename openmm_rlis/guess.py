"""Guess: what is known of the rate before production, which is no estimate and has no error bar.

    k about (starts of walks per ps in A) * (share that reaches B),      as learning, or splitting before it, saw them

Learning walks few roots with a V that still changes, and splitting is biased; so neither enters a rate.
"""

from __future__ import annotations

import math
from typing import Any

from .storage import RunDirectory


def guess(store: RunDirectory) -> dict[str, Any] | None:
    """Return the guess as `value` in 1/ps and `source`, the stage that it is from; None without exits."""
    if not store.rounds("flux"):
        return None
    flux, tau = store.read_round("flux", 0), float(store.config["lag_time"])
    per_start = float(flux.info["time"]) / max(len(flux.arrays["exits"]), 1)
    for stage in ("learning", "start"):
        for index in reversed(store.rounds(stage)):
            info = store.read_round(stage, index).info
            share = float(info.get("success_probability") or math.exp(info.get("log_probability", -math.inf)))
            if share > 0.0:  # the time between two starts, and that of the excursion after one
                value = share / (per_start + tau * float(info.get("late_lags_per_root", 0.0)))
                return {"value": value, "source": "splitting" if stage == "start" else f"learning {index}"}
    return None


def guess_text(found: dict[str, Any] | None) -> str:
    """Return the guess in words, or nothing."""
    if found is None:
        return ""
    often = ", which counts paths that rest in a trap as failures" if found["source"] == "splitting" else ""
    return f"; a guess without an error bar, from {found['source']}{often}: {found['value']:.2g} /ps"

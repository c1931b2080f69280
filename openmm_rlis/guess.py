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
    flux = store.read_round("flux", 0)
    starts = len(flux.arrays["exits"]) / float(flux.info["time"])
    for stage in ("learning", "start"):
        for index in reversed(store.rounds(stage)):
            info = store.read_round(stage, index).info
            share = float(info.get("success_probability") or math.exp(info.get("log_probability", -math.inf)))
            if share > 0.0:
                return {"value": starts * share, "source": "splitting" if stage == "start" else f"learning {index}"}
    return None


def guess_text(found: dict[str, Any] | None) -> str:
    """Return the guess in words, or nothing."""
    if found is None:
        return ""
    often = ", which counts paths that rest in a trap as failures" if found["source"] == "splitting" else ""
    return f"; a guess without an error bar, from {found['source']}{often}: {found['value']:.2g} /ps"

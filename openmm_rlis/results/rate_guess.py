"""Rate guess: what is known of the rate before production, which is no estimate and has no error bar.

    k about (share that reaches B) / (time between two starts of walks + time of the excursion that the walks count),

as learning, or splitting before it, saw them.

Learning walks few roots with a V that still changes, and splitting is biased; so neither enters a rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..storage.run_directory import RunDirectory


def rate_of(info: Mapping[str, Any], share: float, n_starts: int, time: float, lag_time: float) -> float:
    """Return about the rate, 1/ps.

    Parameters
    ----------
    info
        What a round of learning noted; what it does not say of the time of long excursions counts as 0.
    share
        Of the starts of walks that reach B.
    n_starts, time
        Starts of walks in the basin simulation, and its time in ps.
    lag_time
        ps.
    """
    late = lag_time * n_starts * float(info.get("late_lags_per_root", 0.0))
    return share * n_starts / (time + late)


def guess(store: RunDirectory) -> dict[str, Any] | None:
    """Return the guess as `value` in 1/ps and `source`, the stage that it is from; None without exits."""
    if not store.rounds("flux"):
        return None
    flux = store.read_round("flux", 0)
    basin = (len(flux.arrays["exits"]), float(flux.info["time"]), float(store.config["lag_time"]))
    for stage in ("learning", "start"):
        for index in reversed(store.rounds(stage)):
            info = store.read_round(stage, index).info
            share = float(info.get("success_probability") or math.exp(info.get("log_probability", -math.inf)))
            if share > 0.0:
                found = "splitting" if stage == "start" else f"learning {index}"
                return {"value": rate_of(info, share, *basin), "source": found}
    return None


def guess_text(found: dict[str, Any] | None) -> str:
    """Return the guess in words, or nothing."""
    if found is None:
        return ""
    often = ", which counts paths in a metastable state as failures" if found["source"] == "splitting" else ""
    return f"; a guess without an error bar, from {found['source']}{often}: {found['value']:.2g} /ps"

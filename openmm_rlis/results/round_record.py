"""Round record: the stored production rounds of a run as tables over rounds and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.diagnostics import Production
from ..statistics.estimators import BatchTotals
from ..storage.run_directory import Round

Array = NDArray[np.float64]
ARRAYS = ("transitions", "exits", "time")


def read_production(rounds: Sequence[Round], n_batches: int) -> Production:
    """Return the production of a run from its rounds."""

    def table(name: str) -> Array:
        rows = [stored.arrays[name] for stored in rounds]
        return np.stack(rows) if rows else np.empty((0, n_batches))

    def joined(name: str, kind: Any) -> NDArray[Any]:
        return np.concatenate([np.empty(0, kind), *(stored.arrays[name] for stored in rounds)])

    transitions, exits = table("transitions"), table("exits")
    weights = joined("root_weights", float)

    def joined_or_none(name: str, kind: Any) -> NDArray[Any]:
        """Early runs had no defensive roots, and no control variate."""
        known = all(name in stored.arrays for stored in rounds)
        return joined(name, kind) if known else np.zeros(len(weights), kind)

    defensive, control = joined_or_none("root_defensive", bool), joined_or_none("root_control", float)
    time = table("time")
    totals = BatchTotals(transitions.sum(0), exits.sum(0), time.sum(0))
    # Runs made before the walks counted the time of long excursions stored none of these.
    times = {name: table(name) if all(name in r.arrays for r in rounds) else np.full(time.shape, np.nan)
             for name in ("inside", "away_basin", "away_walks", "late")}  # fmt: skip
    n_thinned = sum(int(stored.info.get("n_thinned", 0)) for stored in rounds)
    hidden = sum(float(stored.info.get("hidden", 0.0)) for stored in rounds)
    return Production(
        totals, transitions, exits, table("ended"), weights, control, joined("root_batches", np.int64), defensive,
        hidden, n_thinned, time, **times,
    )  # fmt: skip


def slim(stage: str, stored: Round) -> Round:
    """Return a round without the structures and samples that no estimate needs."""
    production = stage == "production"
    needed = {k: v for k, v in stored.arrays.items() if production and "/" not in k}
    return replace(stored, arrays=needed, trees=())

"""Not applicable: why a diagnostic of a run has no value.

A diagnostic is NaN where the run has nothing to compare (brute force has no roots, one round has no halves) or too few
data. `reasons` says which, in one line each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .diagnostics import FEWEST_EXITS, FEWEST_ROOTS, Production
from .weights import FEWEST_FOR_TAIL

NO_SPREAD = "no spread between batches"


def reasons(found: Production, numbers: Mapping[str, float]) -> dict[str, str]:
    """Return, for each of the numbers of `diagnostics.measure` that is NaN, why it could not be computed.

    The checks `settled`, `transitions` and `ended`, which are not among these numbers, have reasons as well.
    """
    absent = [name for name, number in numbers.items() if math.isnan(number)]
    if found.n_rounds == 0:
        return dict.fromkeys([*absent, "settled", "transitions", "ended"], "no production round")
    if len(found.root_weights) == 0:
        why = {**_of_batches(found), **dict.fromkeys(_of_roots(found), "brute force has no roots")}
    else:
        why = {**_of_roots(found), **_of_batches(found)}
    found_why = {name: why.get(name, "too few data") for name in absent}
    return found_why | {"ended": why["ess"] if len(found.root_weights) == 0 else "too few batches with exits"}


def _of_roots(found: Production) -> dict[str, str]:
    """Return reasons for what needs roots."""
    n = int(np.count_nonzero(found.root_weights))
    few = f"{n} successful roots, {FEWEST_ROOTS} needed" if n < FEWEST_ROOTS else NO_SPREAD
    arrived = "no root reached B" if n == 0 else "the transitions do not sum to a positive number"
    tail = f"{n} successful roots, {FEWEST_FOR_TAIL} needed" if n < FEWEST_FOR_TAIL else "the largest are equal"
    defensive = int(found.root_defensive.sum())
    kinds = {0: "no root is defensive", len(found.root_weights): "all roots are defensive"}
    return {
        "ess": arrived,
        "tail_index": tail,
        "largest_root_share": arrived,
        "defence_score": kinds.get(defensive, f"fewer than {FEWEST_ROOTS} successful roots of one kind"),
        "round_halves_score": "one production round" if found.n_rounds < 2 else few,
        "control_score": few if found.root_control.any() else "no control variate",
        "excursions_score": NO_SPREAD,
        "hidden_share": "no defensive root reached B",
        "late_share": "the time of excursions was not stored",
        "thinned_share": "no roots",
    }


def _of_batches(found: Production) -> dict[str, str]:
    """Return reasons for what needs batches only."""
    n, exits = int((found.totals.transitions > 0).sum()), float(found.totals.exits.mean())
    few = f"{exits:.3g} exits per batch, {FEWEST_EXITS} needed" if exits < FEWEST_EXITS else NO_SPREAD
    return {
        "batch_tail_index": f"{n} batches with transitions, {FEWEST_FOR_TAIL} needed",
        "largest_batch_share": "no transition was observed",
        "batch_halves_score": NO_SPREAD if found.n_batches >= 4 else "fewer than 4 batches",
        "inside_halves_score": "one production round" if found.n_rounds < 2 else NO_SPREAD,
        "exits_score": few if found.n_batches > 2 else "fewer than 3 batches",
    }

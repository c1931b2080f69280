"""Initial transient: how much of a brute-force run is left out because its replicas were not in equilibrium yet.

Replicas start in A. Before they are spread over everything that belongs to state A, the places in no region included,
the excursions that they begin have to be over, the long ones above all. The mean duration of an excursion, each of them
weighted by the time that it takes, is

    t  =  sum d^2 / sum d,

twice the mean for one long-lived intermediate. The first `DURATIONS` t of the run are left out. t is measured on the
whole run so far, excursions that still go on included, so an intermediate that shows late moves the start of the count
to where it belongs. Transitions are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DURATIONS = 2.0
LAGS_OF_BRUTE_FORCE = 1000
"""Lags of a round of brute force."""


def rounds_left_out(spells: Sequence[NDArray[np.float64]], lags_of_a_round: int, lags_before: int) -> int:
    """Return how many rounds at the start are not counted.

    Parameters
    ----------
    spells
        Of each round (2, 2): sum d and sum d^2, in lags, of the excursions from A that ended in it; and of those that
        went on at its end, of which the last round's count.
    lags_of_a_round
        Lags of a round.
    lags_before
        Lags for which the replicas had run before the first round.
    """
    if not spells:
        return 0
    total, squares = np.sum([spell[0] for spell in spells], axis=0) + spells[-1][1]
    wanted = DURATIONS * squares / total - lags_before if total > 0.0 else 0.0
    return max(math.ceil(wanted / lags_of_a_round), 0)

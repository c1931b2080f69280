"""Interim analyses: after how many rounds a run may stop for its estimated error."""

from __future__ import annotations

FIRST_ANALYSIS, SECOND_ANALYSIS = 3, 4


def is_interim_analysis(n_rounds: int) -> bool:
    """Whether a run may stop for its error after so many rounds: 3, 4, 6, 8, 12, 16, 24 ...

    An estimated error is low now and then by chance; the oftener it is looked at, the more surely a run stops when it
    is, above all while there is little to estimate it from.
    """
    while n_rounds > SECOND_ANALYSIS and n_rounds % 2 == 0:
        n_rounds //= 2
    return n_rounds in (FIRST_ANALYSIS, SECOND_ANALYSIS)


def rounds_to_interim_analysis(n_rounds: int, most: int) -> int:
    """Return how many rounds follow `n_rounds` until the next look, at most `most`."""
    return next(n for n in range(1, most + 1) if n == most or is_interim_analysis(n_rounds + n))

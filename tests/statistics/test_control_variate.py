"""Control variate: moments by hand, coefficients that undo a known correlation, and nothing from too little."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import with_offset

from openmm_rlis.statistics.control_variate import FEWEST_ARRIVALS, LARGEST, NONE, coefficient, moments


def test_moments_by_hand() -> None:
    arrivals = np.array([0.0, 2.0] * FEWEST_ARRIVALS)
    martingales = np.array([-1.0, 3.0] * FEWEST_ARRIVALS)
    assert moments(arrivals, martingales) == pytest.approx((2.0, 4.0, FEWEST_ARRIVALS))


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_the_coefficient_of_a_known_mixture(truth: float) -> None:
    """W = 5 + c M + noise of size 1: the estimate is within 0.02 of c, 6 of its standard errors (false alarm 1e-9)."""
    rng = np.random.default_rng(with_offset(3))
    measured = []
    for _ in range(3):
        martingales = 2.0 * rng.standard_normal(10_000)
        measured.append(moments(5.0 + truth * martingales + rng.standard_normal(10_000), martingales))
    assert coefficient(measured) == pytest.approx(truth, abs=0.02)


def test_nothing_is_made_of_too_little_or_of_a_wild_value() -> None:
    few = np.zeros(100)
    few[: FEWEST_ARRIVALS - 1] = 1.0
    ahead = np.linspace(1.0, 0.0, 100)
    assert coefficient([moments(few, ahead)]) == 0.0
    assert coefficient([moments(few, ahead), moments(few, ahead)]) > 0.0  # rounds count together
    many = np.arange(100.0)
    assert moments(many, np.full(100, np.inf)) == NONE
    assert moments(many, np.where(many > 50, 1e200, 0.0)) == NONE
    assert coefficient([]) == 0.0 and coefficient([(0.0, 0.0, 50)]) == 0.0
    assert coefficient([(-1.0, 1.0, 50)]) == 0.0 and coefficient([(9.0, 1.0, 50)]) == LARGEST

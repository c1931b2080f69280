"""From batches to numbers with error bars.

The only independent unit is the *batch*: a lane with its own flux run, its own exits, its own roots.  Branches of one
root share their past, roots of one pool share the pool, rounds of one batch share the walker in A; none of them may
be counted as a repeat.  With transitions ``n_b`` (expected number of A-to-B transitions, summed over the rounds of
batch b) in a stretch of time ``t_b``,

    k  =  sum_b n_b / sum_b t_b,        s^2  =  B/(B-1) sum_b (n_b - k t_b)^2 / (sum_b t_b)^2,

which for equal ``t_b`` is the plain mean of the batch rates with its plain standard error.  (A rate takes the larger of
this and the error of all its rounds, see `rate`.)  The time of a batch is that of its basin simulation, fixed
beforehand, and that of long excursions, which its walks measure; ``n_b - k t_b`` holds the correlation of the latter
with the transitions, and the bias of the ratio is of order 1/B of its relative variance.  Batches never enter by an
estimated variance: a batch that missed a channel looks precise, and would win.

Intervals are 95 % Student t with B - 1 degrees of freedom.  Those of rates are symmetric in the logarithm,
``k exp(+- t s/k)``, because batch rates are skewed: a low mean comes with a low s, and the plain interval then misses
the truth from below. The control variate (`control_variate`) can make a batch, and with few arrivals even a rate, zero
or negative by chance; the interval then goes from 0 to t s.

No spread is not a small error.  One batch, or batches that agree to the last digit (all zero, above all), leave the
error unknown: ``standard_error = inf`` and an interval from 0 to infinity.  A ratio 0/0 has the value nan: nothing was
seen.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from ..errors import bad_input
from .weights import FloatArray

CONFIDENCE = 0.95
# Spread below this, relative to the value, is rounding.
NO_SPREAD = 1e-13


@dataclass(frozen=True, repr=False)
class Estimate:
    """A value with its standard error and 95 % interval, all in the unit of the value.

    Parameters
    ----------
    value
        The estimate; nan when nothing was seen (0/0).
    standard_error
        Of the value; inf when unknown.
    interval
        Lower and upper end; never nan.
    n_batches
        Independent batches behind it.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    n_batches: int

    @property
    def relative_error(self) -> float:
        """``standard_error / |value|``; inf when either is unknown or the value is 0."""
        if not math.isfinite(self.standard_error) or not abs(self.value) > 0.0:
            return math.inf
        return self.standard_error / abs(self.value)

    def __str__(self) -> str:
        """Return value, error and interval, e.g. `0.0306 +- 0.0028, 95 % in [0.0254, 0.0368], 20 batches`."""
        error = f" +- {self.standard_error:.2g}" if math.isfinite(self.standard_error) else ", error unknown"
        low, high = self.interval
        return f"{self.value:.4g}{error}, 95 % in [{low:.3g}, {high:.3g}], {self.n_batches} batches"

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def _repr_html_(self) -> str:
        return f"<span>{str(self).replace('+-', '&plusmn;')}</span>"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON, with None for what is not finite (JSON knows no inf)."""
        return {
            "value": _or_none(self.value),
            "standard_error": _or_none(self.standard_error),
            "interval": [_or_none(end) for end in self.interval],
            "n_batches": self.n_batches,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Estimate:
        """Return the Estimate that `to_dict` wrote: None is nan for a value, and unbounded elsewhere."""
        low, high = fields["interval"]
        return cls(
            value=math.nan if fields["value"] is None else float(fields["value"]),
            standard_error=math.inf if fields["standard_error"] is None else float(fields["standard_error"]),
            interval=(-math.inf if low is None else float(low), math.inf if high is None else float(high)),
            n_batches=int(fields["n_batches"]),
        )


@dataclass(frozen=True)
class BatchTotals:
    """What each batch saw, summed over its rounds.

    Parameters
    ----------
    transitions : (n_batches,)
        Expected number of A-to-B transitions: exits times the weighted success share of their roots, less the control
        variate.
    exits : (n_batches,)
        Number of exits from A.
    time : (n_batches,)
        Time during which A was the last region visited, ps.
    """

    transitions: FloatArray
    exits: FloatArray
    time: FloatArray


def mean(batch_values: ArrayLike, log_interval: bool = False) -> Estimate:
    """Return the mean of independent, identically distributed batches.

    ``value +- t s/sqrt(B)``, or with `log_interval` (positive quantities only) ``value exp(+- t s/(sqrt(B) value))``.

    Parameters
    ----------
    batch_values : (n_batches,)
        One number per batch.
    log_interval
        Make the interval symmetric in the logarithm.

    Raises
    ------
    InputError
        No batches, or a value that is not finite.

    Examples
    --------
    >>> found = mean([1.0, 2.0, 3.0, 2.0])
    >>> found.value, round(found.standard_error, 3)
    (2.0, 0.408)
    >>> [round(end, 2) for end in found.interval]
    [0.7, 3.3]
    >>> [round(end, 2) for end in mean([1.0, 2.0, 3.0, 2.0], log_interval=True).interval]
    [1.04, 3.83]
    >>> mean([5.0]).standard_error  # one batch says nothing about the error
    inf
    """
    values = _checked("batch_values", batch_values)
    return _ratio(values, np.ones_like(values), log_interval)


def ratio(numerators: ArrayLike, denominators: ArrayLike, log_interval: bool = False) -> Estimate:
    """Return ``sum n_b / sum d_b`` with the error of the delta method.

    The equation at the top of the module.  The estimate is consistent; its bias is of order 1/B and vanishes when the
    denominators are fixed.

    Parameters
    ----------
    numerators, denominators : (n_batches,)
        One pair per batch, denominators not negative.
    log_interval
        Make the interval symmetric in the logarithm.

    Raises
    ------
    InputError
        Lengths differ, no batches, a value that is not finite, or a negative denominator.

    References
    ----------
    Cochran, Sampling Techniques, 3rd ed. (Wiley, 1977), eq. (6.9) and (6.13).

    Examples
    --------
    >>> found = ratio([1.0, 2.0, 3.0], [10.0, 20.0, 40.0])
    >>> round(found.value, 4), round(found.standard_error, 4)
    (0.0857, 0.0094)
    """
    numerators = _checked("numerators", numerators)
    denominators = _checked("denominators", denominators)
    if numerators.size != denominators.size:
        got = f"{numerators.size} and {denominators.size}"
        raise bad_input("denominators", "as many as numerators", got, "give one pair per batch")
    if denominators.min() < 0.0:
        raise bad_input("denominators", "no negative value", denominators.min(), "times and counts are never negative")
    return _ratio(numerators, denominators, log_interval)


def reciprocal(estimate: Estimate) -> Estimate:
    """Return the estimate of 1/value, such as the mean first-passage time of a rate.

    The interval is mapped end by end, so its coverage is kept; the error is ``s/value^2``.  The reciprocal of zero is
    nan: no transition seen is no time measured, though the interval's lower end still stands.

    Raises
    ------
    InputError
        The value is negative.

    Examples
    --------
    >>> waiting = reciprocal(Estimate(0.5, 0.1, (0.25, 1.0), 20))
    >>> waiting.value, waiting.standard_error, waiting.interval
    (2.0, 0.4, (1.0, 4.0))
    """
    if estimate.value < 0.0:
        raise bad_input("estimate", "a value that is not negative", estimate.value, "only rates have waiting times")
    low, high = estimate.interval
    interval = (1.0 / high, 1.0 / low if low > 0.0 else math.inf)
    if not estimate.value > 0.0:
        return replace(estimate, value=math.nan, standard_error=math.inf, interval=interval)
    value = 1.0 / estimate.value
    return replace(estimate, value=value, standard_error=estimate.standard_error * value**2, interval=interval)


def rate(totals: BatchTotals, rounds: tuple[ArrayLike, ArrayLike] | None = None) -> Estimate:
    """Return the rate constant ``k_AB``, transitions per time in A (1/ps).

    Parameters
    ----------
    totals
        The batches.
    rounds : two arrays (n_rounds, n_batches), optional
        Their transitions and their time, ps, round by round. The error is then the larger of that of the batches and
        that of all rounds of all batches. With few batches an estimated error is occasionally too small, in particular
        at a stopping time; taking the larger of two estimates makes this rare. (The second alone would be too small
        where rounds correlate.)

    Examples
    --------
    Three batches of 100 ps:

    >>> totals = BatchTotals(np.array([0.2, 0.3, 0.1]), np.array([900.0, 1000.0, 1100.0]), np.full(3, 100.0))
    >>> k, exits, p = rate(totals), flux(totals), success_probability(totals)
    >>> round(k.value, 4), exits.value, round(p.value, 4), round(exits.value * p.value, 4)
    (0.002, 10.0, 0.0002, 0.002)
    """
    found = ratio(totals.transitions, totals.time, log_interval=True)
    if rounds is None:
        return found
    error = found.value * ratio(np.ravel(rounds[0]), np.ravel(rounds[1])).relative_error
    if not found.standard_error < error < math.inf:
        return found
    return replace(found, standard_error=error, interval=_interval(found.value, error, found.n_batches, True))


def flux(totals: BatchTotals) -> Estimate:
    """Return the flux ``J_A``, exits per time in A (1/ps)."""
    return ratio(totals.exits, totals.time, log_interval=True)


def success_probability(totals: BatchTotals) -> Estimate:
    """Return ``P_AB``, the share of exits that reach B before A or another region."""
    return ratio(totals.transitions, totals.exits, log_interval=True)


def channel_shares(
    batch_index: ArrayLike, label: Sequence[Hashable], weights: ArrayLike, n_batches: int
) -> dict[Hashable, Estimate]:
    """Return the share of the transitions that each channel carries, largest first.

    ``share_c = sum_b n_bc / sum_b n_b`` with ``n_bc`` the weight of batch b's paths labelled c; a ratio over batches.
    Intervals are cut to [0, 1].

    Parameters
    ----------
    batch_index : (n_paths,) int
        The batch of every success path.
    label : n_paths hashables
        Its channel.
    weights : (n_paths,)
        Its contribution to the expected number of transitions (not the logarithm).
    n_batches
        All batches, also those without a path.

    Raises
    ------
    InputError
        Lengths differ, a batch outside ``0..n_batches-1``, or a weight that is negative or not finite.

    Examples
    --------
    >>> found = channel_shares([0, 0, 1, 1], ["left", "right", "left", "right"], [3.0, 1.0, 2.0, 2.0], 2)
    >>> {name: round(share.value, 3) for name, share in found.items()}
    {'left': 0.625, 'right': 0.375}
    """
    batch = np.asarray(batch_index, dtype=np.int64)
    weight = np.asarray(weights, dtype=np.float64)
    _check_paths(batch, len(label), weight, n_batches)
    if not len(label):
        return {}
    total = np.bincount(batch, weight, n_batches)
    codes: dict[Hashable, int] = {}
    code = np.array([codes.setdefault(name, len(codes)) for name in label])
    shares = {
        name: _cut(ratio(np.bincount(batch[code == i], weight[code == i], n_batches), total))
        for name, i in codes.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -np.nan_to_num(item[1].value)))


def _ratio(numerators: FloatArray, denominators: FloatArray, log_interval: bool) -> Estimate:
    n = numerators.size
    total = float(denominators.sum())
    unknown = (0.0 if numerators.min() >= 0.0 else -math.inf, math.inf)
    if total == 0.0:
        return Estimate(math.nan, math.inf, unknown, n)
    value = float(numerators.sum()) / total
    if n < 2:
        return Estimate(value, math.inf, unknown, n)
    residuals = numerators - value * denominators
    error = float(np.sqrt(n / (n - 1) * np.square(residuals).sum())) / total
    if error <= NO_SPREAD * abs(value):
        return Estimate(value, math.inf, unknown, n)
    return Estimate(value, error, _interval(value, error, n, log_interval), n)


def _interval(value: float, error: float, n: int, log_interval: bool) -> tuple[float, float]:
    half_width = float(student_t.ppf(0.5 + CONFIDENCE / 2.0, n - 1)) * error
    if not log_interval:
        return value - half_width, value + half_width
    if value <= 0.0:
        return 0.0, half_width
    # Two batches can have t s/k in the hundreds; beyond e^600 the end is as good as unbounded.
    factor = math.exp(min(half_width / value, 600.0))
    return value / factor, value * factor


def _cut(share: Estimate) -> Estimate:
    low, high = share.interval
    return replace(share, interval=(max(low, 0.0), min(high, 1.0)))


def _or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _checked(argument: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise bad_input(argument, "an array of shape (n_batches,)", f"shape {array.shape}", "give one per batch")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        got = f"{array[bad[0]]} in batch {bad[0]} ({bad.size} such of {array.size})"
        raise bad_input(argument, "finite numbers", got, "look for a diverged walker in that batch")
    return array


def _check_paths(batch: np.ndarray, n_labels: int, weight: FloatArray, n_batches: int) -> None:
    if not batch.shape == weight.shape == (n_labels,):
        got = f"{batch.shape} batches, {n_labels} labels, {weight.shape} weights"
        raise bad_input("label", "one label, batch and weight per path", got, "pass arrays of equal length")
    if batch.size and not 0 <= batch.min() <= batch.max() < n_batches:
        got = f"{batch.min()}..{batch.max()}"
        raise bad_input("batch_index", f"0..{n_batches - 1}", got, "count all batches in n_batches")
    if not np.all(np.isfinite(weight) & (weight >= 0.0)):
        raise bad_input("weights", "finite, non-negative numbers", "others", "pass exp(log_weights), not logarithms")

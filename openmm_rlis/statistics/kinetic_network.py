"""Network: from the direct rates between states to populations, mean first-passage times and rates over intermediates.

    K_ij = k_ij,  K_ii = -sum_j k_ij;       pi K = 0;       sum_j K_ij tau_j = -1 for i != B,  tau_B = 0

k_ij is what a run gives: direct transitions i -> j per time with i visited last. That time and those counts belong to
one trajectory, so in equilibrium pi_i, the share of the time with i visited last, fulfils the balance sum_i pi_i k_ij =
pi_j sum_l k_jl exactly, whatever the dynamics within states. Times and rates over intermediates need more: a state has
to relax before it is left, so that where it is left to does not depend on where it was entered from (memoryless).

Errors: legs are independent runs. The standard error is linear, with the exact derivatives (G_ai the time spent in i on
the way from a to B, tau^m the times to m)

    d tau_a / d k_ij = G_ai (tau_j - tau_i),            d pi_m / d k_ij = pi_i pi_m (tau^m_i - tau^m_j),

and the interval is that of redrawn rates, ln k_ij = ln value + relative error times Student's t, which for one leg is
its own interval. Where a rate is only bounded, the interval holds those with it and without it. Populations and times
are eliminated without a subtraction, so small ones keep all their digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import bad_input
from .estimators import CONFIDENCE, Estimate, reciprocal

Array = NDArray[np.float64]
Pair = tuple[str, str]
N_DRAWS = 20_000
EXPONENTIAL = -math.log(1.0 - CONFIDENCE)
"""Means of an exponential distribution below which it lies with 95 %: the rule of three."""


@dataclass(frozen=True)
class Network:
    """Direct rates between states at one temperature, and what follows from them.

    Parameters
    ----------
    states
        Names.
    rates
        Direct rates in 1/ps by (from, to). A value of 0 with an upper end of the interval is a bound: none was seen.
    bounds
        Why a rate is only bounded, in words.
    seed
        Of the redrawn rates that intervals are made of.

    Examples
    --------
    >>> k = {("A", "M"): 2.0, ("M", "A"): 1.0, ("M", "B"): 1.0, ("A", "B"): 0.5}
    >>> rates = {pair: Estimate(rate, 0.1 * rate, (0.81 * rate, 1.23 * rate), 20) for pair, rate in k.items()}
    >>> found = Network(("A", "M", "B"), rates)
    >>> round(found.mfpt["A", "B"].value, 6), round(found.rate("A", "B").relative_error, 3)  # (1 + 2/2) / (2.5 - 1)
    (1.333333, 0.07)
    """

    states: tuple[str, ...]
    rates: Mapping[Pair, Estimate]
    bounds: Mapping[Pair, str] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        for i, j in self.rates:
            if i not in self.states or j not in self.states or i == j:
                raise bad_input("rates", f"pairs of different states among {', '.join(self.states)}", f"{i} -> {j}")

    @cached_property
    def stationary(self) -> dict[str, Estimate]:
        """The share of the time with each state visited last, in equilibrium; empty unless all rates are there."""
        if not all(self._complete(state) for state in self.states):
            return {}
        here = self._table(self._values[None])
        value, drawn = stationary(here)[0], [stationary(there) for there in self._drawn]
        i, j = self._ends
        found = {}
        for m, name in enumerate(self.states):
            tau = passage_times(here, m)[0]
            with np.errstate(invalid="ignore"):
                slope = value[i] * value[m] * (tau[i] - tau[j])
            found[name] = self._estimate(value[m], slope, [one[:, m] for one in drawn])
        return found

    @cached_property
    def mfpt(self) -> dict[Pair, Estimate]:
        """The mean first-passage times in ps by (from, to), of those pairs for which all rates are there."""
        found: dict[Pair, Estimate] = {}
        for target in self.states:
            if all(self._complete(state) for state in self.states if state != target):
                found |= self._times(target)
        return found

    def rate(self, source: str, target: str) -> Estimate:
        """Return 1/MFPT, the rate from one state to another by any route, in 1/ps.

        Raises
        ------
        InputError
            Not two states, or a rate that it needs is missing.
        """
        if (source, target) not in self.mfpt:
            pairs = ", ".join(map(arrow, self.mfpt)) or "none"
            raise bad_input("source, target", f"states whose rates are all there ({pairs})", f"{source} -> {target}")
        return reciprocal(self.mfpt[source, target])

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON; pairs are written `A -> B`."""
        return {
            "states": list(self.states),
            "rates": {arrow(pair): rate.to_dict() for pair, rate in self.rates.items()},
            "bounds": {arrow(pair): text for pair, text in self.bounds.items()},
            "stationary": {name: share.to_dict() for name, share in self.stationary.items()},
            "mean_first_passage_times": {arrow(pair): time.to_dict() for pair, time in self.mfpt.items()},
            "rates_by_any_route": {arrow(pair): self.rate(*pair).to_dict() for pair in self.mfpt},
        }

    def _complete(self, source: str) -> bool:
        """Whether all rates out of a state are there."""
        return all((source, other) in self.rates for other in self.states if other != source)

    @cached_property
    def _ends(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        index = {name: n for n, name in enumerate(self.states)}
        return np.array([index[i] for i, _ in self.rates]), np.array([index[j] for _, j in self.rates])

    @cached_property
    def _values(self) -> Array:
        # By chance a control variate can make a rate negative.
        return np.array([max(rate.value, 0.0) for rate in self.rates.values()])

    @cached_property
    def _errors(self) -> Array:
        return np.array([_error(rate) for rate in self.rates.values()])

    @cached_property
    def _drawn(self) -> list[Array]:
        """Tables of redrawn rates, (N_DRAWS, n_states, n_states); with bounds, once more with them at 0."""
        rng = np.random.default_rng([self.seed, len(self.rates)])
        drawn = np.stack([_draw(rate, rng) for rate in self.rates.values()], axis=1)
        bounded = np.array([_is_bound(rate) for rate in self.rates.values()])
        both = [drawn, np.where(bounded, 0.0, drawn)] if bounded.any() else [drawn]
        return [self._table(rates) for rates in both]

    def _table(self, rates: Array) -> Array:
        """Return each row of rates (n, n_rates) as a table, (n, n_states, n_states), zero where there is none."""
        found = np.zeros((len(rates), len(self.states), len(self.states)))
        found[:, self._ends[0], self._ends[1]] = rates
        return found

    def contributions(self, source: str, target: str) -> dict[Pair, float]:
        """Return what each direct rate adds to the relative error of a rate by any route; they add in squares."""
        a, b = self.states.index(source), self.states.index(target)
        tau, slope = self._slopes(b)
        with np.errstate(invalid="ignore"):
            parts = np.where(slope[a] != 0.0, np.abs(slope[a] * self._errors / tau[a]), 0.0)
        return dict(zip(self.rates, parts.tolist(), strict=True))

    def _slopes(self, b: int) -> tuple[Array, Array]:
        """Return the times to a state (n_states,) and their derivatives by the rates (n_states, n_rates)."""
        here, (i, j) = self._table(self._values[None]), self._ends
        tau = passage_times(here, b)[0]
        spent = np.stack([passage_times(here, b, m)[0] for m in range(len(self.states))], axis=1)
        with np.errstate(invalid="ignore"):
            slope: Array = spent[:, i] * (tau[j] - tau[i])
        return tau, slope

    def _times(self, target: str) -> dict[Pair, Estimate]:
        b = self.states.index(target)
        (tau, slope), drawn = self._slopes(b), [passage_times(there, b) for there in self._drawn]
        return {
            (name, target): self._estimate(tau[a], slope[a], [one[:, a] for one in drawn])
            for a, name in enumerate(self.states)
            if a != b
        }

    def _estimate(self, value: float, slope: Array, drawn: Sequence[Array]) -> Estimate:
        """Return a function of the rates with its linear error, and the interval that holds those of redrawn rates."""
        n = min((rate.n_batches for rate in self.rates.values()), default=0)
        counts = slope != 0.0
        if not math.isfinite(value) or not np.isfinite(self._errors[counts]).all():
            return Estimate(float(value) if math.isfinite(value) else math.nan, math.inf, (0.0, math.inf), n)
        error = float(np.sqrt(np.square(slope[counts] * self._errors[counts]).sum()))
        tail = (1.0 - CONFIDENCE) / 2.0
        ends = np.array([np.quantile(one, [tail, 1.0 - tail]) for one in drawn])
        return Estimate(float(value), error, (float(ends.min()), float(ends.max())), n)


@dataclass(frozen=True)
class Arrhenius:
    """ln k = log_prefactor - beta * barrier, fitted to the rates of several temperatures.

    `barrier` in kJ/mol, `log_prefactor` of 1/ps; `chi_squared` over `n` - 2 degrees of freedom says whether it is a
    line.
    """

    barrier: Estimate
    log_prefactor: Estimate
    chi_squared: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON."""
        lines = {"barrier": self.barrier.to_dict(), "log_prefactor": self.log_prefactor.to_dict()}
        return {**lines, "chi_squared": self.chi_squared, "n": self.n}


@dataclass(frozen=True)
class Networks(Mapping[float, Network]):
    """The networks of several temperatures, by inverse temperature in mol/kJ."""

    by_beta: Mapping[float, Network]

    def __getitem__(self, beta: float) -> Network:
        """Return the network at one inverse temperature."""
        return self.by_beta[beta]

    def __iter__(self) -> Any:
        """Go through the inverse temperatures."""
        return iter(self.by_beta)

    def __len__(self) -> int:
        """Return the number of temperatures."""
        return len(self.by_beta)

    @property
    def rates(self) -> dict[float, Mapping[Pair, Estimate]]:
        """Direct rates in 1/ps by inverse temperature and (from, to)."""
        return {beta: one.rates for beta, one in self.items()}

    @property
    def stationary(self) -> dict[float, dict[str, Estimate]]:
        """Shares of time by inverse temperature and state."""
        return {beta: one.stationary for beta, one in self.items()}

    @property
    def mfpt(self) -> dict[float, dict[Pair, Estimate]]:
        """Mean first-passage times in ps by inverse temperature and (from, to)."""
        return {beta: one.mfpt for beta, one in self.items()}

    @property
    def arrhenius(self) -> dict[Pair, Arrhenius]:
        """Barrier and prefactor of each direct rate that was measured at two or more temperatures."""
        return {
            pair: line
            for pair in next(iter(self.values())).rates
            if (line := fitted({beta: one.rates[pair] for beta, one in self.items() if pair in one.rates}))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers for JSON."""
        betas = {f"{beta:g}": one.to_dict() for beta, one in self.items()}
        return {"betas": betas, "arrhenius": {arrow(pair): line.to_dict() for pair, line in self.arrhenius.items()}}


def fitted(rates: Mapping[float, Estimate]) -> Arrhenius | None:
    """Return the weighted least-squares line of ln k against beta; None from fewer than two rates with an error."""
    known = {beta: k for beta, k in rates.items() if k.value > 0.0 and math.isfinite(k.relative_error)}
    if len(known) < 2:
        return None
    from scipy.stats import t as student_t

    beta, log_k = np.array(list(known)), np.log([k.value for k in known.values()])
    weight = np.array([k.relative_error**-2 for k in known.values()])
    design = np.stack([-beta, np.ones_like(beta)], axis=1)
    covariance = np.linalg.inv((design * weight[:, None]).T @ design)
    line = covariance @ (design * weight[:, None]).T @ log_k
    n = min(k.n_batches for k in known.values())
    half = float(student_t.ppf(0.5 + CONFIDENCE / 2.0, max(n - 1, 1))) * np.sqrt(np.diag(covariance))
    barrier, prefactor = (
        Estimate(float(x), float(s), (float(x - h), float(x + h)), n)
        for x, s, h in zip(line, np.sqrt(np.diag(covariance)), half, strict=True)
    )
    chi = float((weight * (log_k - design @ line) ** 2).sum())
    return Arrhenius(barrier, prefactor, chi, len(known))


def passage_times(rates: Array, target: int, counted: int | None = None) -> Array:
    """Return the mean times (n, n_states) until `target` is entered, from tables of rates (n, n_states, n_states).

    With `counted` only the time in that state counts. States are eliminated one by one, each diagonal as the sum of
    what leads on. Infinite where the target cannot be reached.

    References
    ----------
    Grassmann, Taksar and Heyman, Oper. Res. 33, 1107 (1985), for the elimination without subtractions.
    """
    q, n = rates.copy(), rates.shape[1]
    reward = np.ones((len(q), n)) if counted is None else np.zeros((len(q), n))
    if counted is not None:
        reward[:, counted] = 1.0
    rows = [i for i in range(n) if i != target]
    out = np.zeros((len(q), n))
    with np.errstate(divide="ignore", invalid="ignore"):
        for place, r in enumerate(rows):
            later = [*rows[place + 1 :], target]
            out[:, r] = q[:, r, later].sum(1)
            for i in rows[place + 1 :]:
                share = q[:, i, r] / out[:, r]
                share = np.where(q[:, i, r] > 0.0, share, 0.0)
                q[:, i, later] += share[:, None] * q[:, r, later]
                q[:, i, i] = 0.0
                reward[:, i] += np.where(share > 0.0, share * reward[:, r], 0.0)
        tau = np.zeros((len(q), n))
        for place, r in reversed(list(enumerate(rows))):
            later = rows[place + 1 :]
            onward = np.where(q[:, r, later] > 0.0, q[:, r, later] * tau[:, later], 0.0).sum(1)
            tau[:, r] = np.where(reward[:, r] + onward > 0.0, (reward[:, r] + onward) / out[:, r], 0.0)
    return tau


def stationary(rates: Array) -> Array:
    """Return the stationary distribution (n, n_states) of tables of rates (n, n_states, n_states).

    nan where the states are not connected. Reference: that of `passage_times`.
    """
    q, n = rates.copy(), rates.shape[1]
    out = np.zeros((len(q), n))
    with np.errstate(divide="ignore", invalid="ignore"):
        for r in range(n - 1, 0, -1):
            out[:, r] = q[:, r, :r].sum(1)
            q[:, :r, :r] += q[:, :r, r, None] * q[:, None, r, :r] / out[:, r, None, None]
        weight = np.zeros((len(q), n))
        weight[:, 0] = 1.0
        for r in range(1, n):
            weight[:, r] = (weight[:, :r] * q[:, :r, r]).sum(1) / out[:, r]
        found: Array = weight / weight.sum(1, keepdims=True)
    return found


def arrow(pair: Pair) -> str:
    """Return a pair as text, `A -> B`."""
    return f"{pair[0]} -> {pair[1]}"


def _is_bound(rate: Estimate) -> bool:
    return rate.value <= 0.0 and math.isfinite(rate.interval[1])


def _error(rate: Estimate) -> float:
    """Return the standard error of a rate; of a bound, that of the exponential distribution below it."""
    return rate.interval[1] / EXPONENTIAL if _is_bound(rate) else rate.standard_error


def _draw(rate: Estimate, rng: np.random.Generator) -> Array:
    """Return N_DRAWS rates that a run might have given; nan where nothing is known of the error."""
    if _is_bound(rate):
        return rng.exponential(_error(rate), N_DRAWS)
    noise = rng.standard_t(max(rate.n_batches - 1, 1), N_DRAWS)
    if not math.isfinite(rate.relative_error):
        return np.full(N_DRAWS, np.nan)
    drawn: Array = rate.value * np.exp(np.clip(noise * rate.relative_error, -600.0, 600.0))
    return drawn

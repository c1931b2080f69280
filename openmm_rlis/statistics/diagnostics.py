"""Diagnostics: tests of the reported standard error with the records of the run itself.

Each check compares quantities that must agree if batches are independent and no channel was missed:

    weights       tail index and largest shares of roots and of batches
    norm          E_Q[W] = 1 over all ended paths
    control       sum of the control variate, expectation 0
    defence       rate from defensive roots (no roulette) against the rate from the others; weight that arrived
                  through configurations with G < low / 3
    halves        odd against even batches, early against late rounds: detects drift
    inside        share of the time in state A that is spent inside A, early against late rounds: detects drift earlier
    exits         exit rates of the batches' basin simulations: detects replicas confined to a part of A
    excursions    time outside the core in the first lags of an excursion, from basin simulation and from walks
    late          share of the time in state A in excursions longer than `excursion_lags`: detects a metastable
                  state that is not a region

Each alarm states its meaning and a remedy. The false-alarm rate of each test is about 0.2 %. No check detects a channel
that no walker has entered. NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from .estimators import BatchTotals, Estimate
from .weights import effective_sample_size, tail_index

Array = NDArray[np.float64]
FALSE_ALARM = 0.002
NOT_OF_THE_ERROR = ("lost", "rounds", "settled", "ended", "thinned_share", "late_share")
"""Checks whose alarm does not concern the error bar: more paths do not clear it."""
TIME_ROUNDING = 1e-9
"""Relative differences of times below this are rounding."""
MOST_LATE = 0.1
"""Share of the time in state A in excursions beyond `settings.excursion_lags`, above which there is an alarm."""
FEWEST_EXITS = 20
"""Mean exits per batch below which their distribution is too far from normal for Grubbs' test."""
FEWEST_ROOTS = 20
"""Successful roots below which no score is computed."""


@dataclass(frozen=True)
class Production:
    """All production rounds.

    `totals`: sums per batch. `transitions`, `exits` and `ended` (n_rounds, n_batches): `ended` is the norm, the weight
    that ended anywhere over the weight of the roots. Per root (n_roots,): `root_weights`, the weight that arrived in B;
    `root_control`, the control variate subtracted from it; `root_batches`, its batch; `root_defensive`, whether its
    walkers play no roulette. `hidden`: weight of defensive roots that arrived through configurations with G < low / 3.
    `n_thinned`: number of roots that were thinned to `max_walkers`. The remaining fields are times in ps, (n_rounds,
    n_batches), see `production.Record`.
    """

    totals: BatchTotals
    transitions: Array
    exits: Array
    ended: Array
    root_weights: Array
    root_control: Array
    root_batches: NDArray[np.int64]
    root_defensive: NDArray[np.bool_]
    hidden: float
    n_thinned: int
    time: Array
    inside: Array
    away_basin: Array
    away_walks: Array
    late: Array

    @property
    def rounds(self) -> tuple[Array, Array]:
        """Transitions and time of every round and batch, both (n_rounds, n_batches)."""
        return self.transitions, self.time

    @property
    def n_rounds(self) -> int:
        """Number of production rounds."""
        return len(self.ended)

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return len(self.totals.time)

    @property
    def root_contributions(self) -> Array:
        """Contribution of each root to the transitions, (n_roots,); may be negative."""
        return self.root_weights - self.root_control

    @property
    def defended(self) -> float:
        """Weight of defensive roots that arrived in B."""
        return float(self.root_weights[self.root_defensive].sum())


def score_limit(n_batches: int) -> float:
    """Return the two-sided 0.2 % point of Student's t with `n_batches` - 1 degrees of freedom."""
    return float(student_t.ppf(1.0 - FALSE_ALARM / 2.0, max(n_batches - 1, 1)))


def measure(found: Production) -> dict[str, float]:
    """Return every diagnostic as a number, NaN where it does not apply or data are too few (see `not_applicable`).

    `ess` is that of the weights that arrived. `tail_index` is fitted to the n largest root contributions in absolute
    value, n the number of roots that arrived (the others hold the control variate alone: small numbers, no tail).
    `largest_root_share` is over all roots; `batch_tail_index` and `largest_batch_share` are over batches. Standard
    scores, differences over their standard errors: `defence_score`, `batch_halves_score`, `round_halves_score`,
    `inside_halves_score`, `control_score`, `excursions_score`; `exits_score` is Grubbs' statistic. `hidden_share` is
    the share of the weight of defensive roots that arrived through configurations with G < low / 3; `thinned_share`
    the share of roots thinned to `max_walkers`; `late_share` that of the time in long excursions.
    """
    weights = found.root_weights[found.root_weights > 0]
    k = found.totals.transitions
    numbers = {
        "ess": float("nan"),
        "tail_index": float("nan"),
        "largest_root_share": float("nan"),
        "batch_tail_index": tail_index(np.log(k[k > 0])),
        "largest_batch_share": float(k.max() / k.sum()) if k.sum() > 0 else float("nan"),
        "defence_score": _defence(found),
        "batch_halves_score": _halves(*(_residuals(k, found.totals.time)[half::2] for half in (0, 1))),
        "round_halves_score": _rounds(found),
        "inside_halves_score": _inside(found),
        "control_score": _control(found),
        "exits_score": _exits(found),
        "excursions_score": _score((found.away_basin - found.away_walks).sum(0)),
        "late_share": float(found.late.sum() / total) if (total := float(found.time.sum())) > 0.0 else float("nan"),
        "hidden_share": found.hidden / defended if (defended := found.defended) > 0.0 else float("nan"),
        "thinned_share": found.n_thinned / max(len(found.root_weights), 1),
    }
    if len(weights):
        numbers["ess"] = effective_sample_size(np.log(weights))
        sizes, total = np.abs(found.root_contributions), float(found.root_contributions.sum())
        if total > 0.0:
            largest = np.sort(sizes)[-len(weights) :]
            numbers["tail_index"] = tail_index(np.log(largest[largest > 0.0]))
            numbers["largest_root_share"] = float(sizes.max()) / total
    return numbers


@dataclass(frozen=True)
class Diagnostic:
    """One check: its name, its value, what is expected, and the alarm or "".

    `value` is NaN where the check does not apply or data are too few; `reason` then says why.
    """

    name: str
    value: float
    expected: str
    alarm: str
    reason: str = ""

    @property
    def doubts_error(self) -> bool:
        """Whether the alarm says that the error bar may be too small: more paths help then."""
        return bool(self.alarm) and self.name not in NOT_OF_THE_ERROR

    @property
    def verdict(self) -> str:
        """`alarm`, `passed`, or `not applicable`."""
        return "alarm" if self.alarm else "passed" if np.isfinite(self.value) else "not applicable"

    @property
    def text(self) -> str:
        """The value, or `not applicable` with the reason."""
        return f"{self.value:.3g}" if np.isfinite(self.value) else f"not applicable: {self.reason}"


def checks(
    found: Production, numbers: dict[str, float], rate: Estimate, ended: Estimate, settled: bool
) -> list[Diagnostic]:
    """Return every check with its verdict; an alarm is one line with its meaning and a remedy."""
    # With a control variate the rate may differ from 0 although no weight arrived; brute force has no roots.
    walked = len(found.root_weights) > 0
    nothing = found.n_rounds > 0 and float(found.root_weights.sum() if walked else rate.value) == 0.0
    n = found.n_batches
    tail, root, batch = (numbers[name] for name in ("tail_index", "largest_root_share", "largest_batch_share"))
    most, limit = max(0.2, 4.0 / n), score_limit(n)
    # A tail index from few roots is uncertain. For k = 0.7 the largest of n roots has the mean share
    # Gamma(2 - k) n^(k - 1): the alarm requires a sixth of that.
    heavy = 0.15 * max(float(np.count_nonzero(found.root_weights)), 1.0) ** -0.3
    rows = [
        (
            "rounds", float(found.n_rounds), "above 0", found.n_rounds == 0,
            "no production round was finished: there is no rate; continue with larger limits (rlis resume)",
        ),
        (
            "settled", float(settled) if found.n_rounds else float("nan"), "yes", not settled,
            "the basin simulation did not equilibrate before production: the exit rate may still drift; make A larger, "
            "or define metastable neighbours of A as `others`",
        ),
        (
            "transitions", float(found.totals.transitions.sum()) if found.n_rounds else float("nan"), "above 0",
            nothing, "no transition was observed: the rate is only bounded from above; run longer",
        ),
        (
            "tail_index", tail, f"at most 0.7, or no root above {heavy:.1%}", tail > 0.7 and root > heavy,
            f"tail index {tail:.2f} > 0.7: a few roots dominate the rate and its error bar is too small; run longer, "
            "or learn longer (settings.learning_rounds)",
        ),
        (
            "largest_root_share", root, "at most 0.1", root > 0.1,
            f"one root contributes {root:.0%} of the transition weight: run longer",
        ),
        (
            "largest_batch_share", batch, f"at most {most:.2g}", batch > most,
            f"one batch of {n} contributes {batch:.0%} of the transition weight: run longer",
        ),
        (
            "ended", ended.value, f"1 within {limit:.1f} errors", abs(ended.value - 1.0) > limit * ended.standard_error,
            f"the norm (weight of all ended paths over that of roots) is {ended.value:.3f} instead of 1: report a bug",
        ),
    ]  # fmt: skip
    first = [Diagnostic(name, value, expected, text if bad else "") for name, value, expected, bad, text in rows]
    return first + _disagreements(numbers, n) + _value_function(numbers, walked)


def lost(message: str) -> Diagnostic:
    """Return the check that no walker was lost; `message` is the error that ended the run, or ""."""
    text = f"the run ended because walkers were lost, and its rate must not be used: {message}"
    return Diagnostic("lost", float(bool(message)), "0", text if message else "")


def alarms(found: Production, numbers: dict[str, float], rate: Estimate, ended: Estimate, settled: bool) -> list[str]:
    """Return the alarms, one line each with its meaning and a remedy."""
    return [check.alarm for check in checks(found, numbers, rate, ended, settled) if check.alarm]


def _disagreements(numbers: dict[str, float], n_batches: int) -> list[Diagnostic]:
    limit = score_limit(n_batches)
    causes = {
        "defence_score": "the rates from defensive roots (no roulette) and from the others differ by {:.1f} standard "
        "errors: the value function hides a channel; set settings.defensive_share=1, or learn longer",
        "batch_halves_score": "the rates of odd and even batches differ by {:.1f} standard errors: the error bar is "
        "too small; run longer",
        "round_halves_score": "the rates of early and late rounds differ by {:.1f} standard errors: A was not in "
        "equilibrium; run longer",
        "control_score": "the sum of the control variate differs from 0 by {:.1f} standard errors: the value function "
        "is very uneven and the error bar may be too small; learn longer, or set settings.control=false",
        "inside_halves_score": "the shares of time inside A in early and late rounds differ by {:.1f} standard errors: "
        "A was not in equilibrium with its surroundings; run longer",
        "excursions_score": "the times outside the core from walks and from the basin simulation differ by {:.1f} "
        "standard errors: A was not in equilibrium, or weights are wrong; run longer, and report a bug if it persists",
        "exits_score": "the exit rate of one batch deviates from the others by {:.1f} standard deviations: A contains "
        "parts that do not mix; make A smaller, or define the parts as separate regions",
    }
    found = []
    for name, text in causes.items():
        size, most = abs(numbers[name]), _grubbs(n_batches) if name == "exits_score" else limit
        found.append(Diagnostic(name, size, f"at most {most:.1f}", text.format(size) if size > most else ""))
    return found


def _value_function(numbers: dict[str, float], walked: bool) -> list[Diagnostic]:
    hidden, thinned = numbers["hidden_share"], numbers["thinned_share"] if walked else float("nan")
    late = numbers["late_share"]
    slow = (
        f"{late:.0%} of the time in state A is spent in excursions longer than settings.excursion_lags: there is a "
        "metastable state that is not a region. The rate includes the time there; to exclude it, define the state as "
        "a region in `others`; the longest failure paths show where it is"
    )
    small = (
        f"{hidden:.0%} of the transition weight passed through configurations with G below window_low/3: the value "
        "function is far too small in a reactive channel and the error bar may be too small; learn longer"
    )
    large = (
        f"{thinned:.0%} of the roots reached the maximum number of walkers (settings.max_walkers): the value function "
        "is far too large in some configurations, which costs time; learn longer, or define a dead end as `others`"
    )
    return [
        Diagnostic("hidden_share", hidden, "at most 0.25", small if hidden > 0.25 else ""),
        Diagnostic("thinned_share", thinned, "at most 0.1", large if thinned > 0.1 else ""),
        Diagnostic("late_share", late, f"at most {MOST_LATE}", slow if late > MOST_LATE else ""),
    ]


def _defence(found: Production) -> float:
    """Return the standard score, over batches, of the difference between the rates from the two kinds of roots."""
    kinds = found.root_defensive, ~found.root_defensive
    sums, counts = (
        [np.bincount(found.root_batches[kind], w[kind], found.n_batches) for kind in kinds]
        for w in (found.root_contributions, np.ones(len(found.root_weights)))
    )
    successes = [np.count_nonzero(found.root_weights[kind]) for kind in kinds]
    if min(successes) < FEWEST_ROOTS or min(c.min() for c in counts) == 0:
        return float("nan")
    total = counts[0] + counts[1]
    return _score(sums[0] * total / counts[0] - sums[1] * total / counts[1])


def _control(found: Production) -> float:
    """Return the standard score of the sum of the control variate; NaN without one.

    Each root's term has mean zero, so the sum of squares over roots is the variance: less noisy than 20 skewed batches.
    """
    error = float(np.sqrt(np.square(found.root_control).sum()))
    enough = np.count_nonzero(found.root_weights) >= FEWEST_ROOTS
    return float(found.root_control.sum()) / error if enough and error > 0.0 else float("nan")


def _rounds(found: Production) -> float:
    half = found.n_rounds // 2
    if half == 0 or np.count_nonzero(found.root_weights) < FEWEST_ROOTS:
        return float("nan")
    residuals = _residuals(found.transitions, found.time)
    return _score(residuals[:half].mean(0) - residuals[-half:].mean(0))


def _inside(found: Production) -> float:
    half, total = found.n_rounds // 2, float(found.time.sum())
    if half == 0 or not np.isfinite(found.inside).all() or total <= 0.0:
        return float("nan")
    residuals = _residuals(found.inside, found.time)
    if np.abs(residuals).max() < TIME_ROUNDING * total / found.time.size:
        return float("nan")
    return _score(residuals[:half].mean(0) - residuals[-half:].mean(0))


def _residuals(sums: Array, time: Array) -> Array:
    """Return the sums less their expectation, time x (total sum / total time); arrays of one shape."""
    total = float(time.sum())
    return np.asarray(sums - (float(sums.sum()) / total if total > 0.0 else 0.0) * time)


def _halves(a: Array, b: Array) -> float:
    error = float(np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))) if min(len(a), len(b)) > 1 else 0.0
    return float((a.mean() - b.mean()) / error) if error > 0.0 else float("nan")


def _score(differences: Array) -> float:
    error = float(differences.std(ddof=1)) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.mean() / error) if error > 0.0 else float("nan")


def _exits(found: Production) -> float:
    late = np.nan_to_num(found.late.sum(0))
    values = found.totals.exits / np.maximum(found.totals.time - late, 1e-300)
    spread = float(values.std(ddof=1)) if len(values) > 2 and found.totals.exits.mean() >= FEWEST_EXITS else 0.0
    return float(np.abs(values - values.mean()).max() / spread) if spread > 0.0 else float("nan")


def _grubbs(n: int) -> float:
    """Return the critical largest deviation of n normal values (Grubbs, Technometrics 11, 1 (1969), eq. 5)."""
    if n < 3:
        return float("inf")
    t = float(student_t.ppf(1.0 - FALSE_ALARM / (2.0 * n), n - 2))
    return (n - 1) / np.sqrt(n) * float(np.sqrt(t * t / (n - 2 + t * t)))

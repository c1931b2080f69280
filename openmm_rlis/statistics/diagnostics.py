"""Diagnostics: what the records of a run say about its own error bar.

Every check compares things that must agree if batches are independent and no part of the answer is hidden:

    weights       tail index and largest shares of roots and batches: does a handful carry the sum?
    norm          E_Q[W] = 1 over all ended paths
    control       what arrived against what is reported, which differ by a control variate: 0 on average
    defence       roots that play no roulette against those that do, and what they bring home by where V is tiny
    halves        odd batches against even ones, early rounds against late ones: is there drift?
    inside        the share of the time in state A that is spent inside A, early against late: the same, seen sooner
    exits         the exit rates of the batches' own basin simulations: is one of them stuck in a part of A?
    excursions    the time outside the core in the first lags of an excursion, by basin simulation and by walks
    late          the share of the time in state A that only the walks see: is there a slow place that is no region?

Each alarm says what it means and what to do. Tests are at a false-alarm rate of about 0.2 % each. They are alarms, not
proofs: a channel that no walker has entered is seen by none of them. NumPy and SciPy only.
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
"""Checks whose alarm more paths do not help."""
ROUNDING = 1e-9
"""Differences of times below this share of them are none."""
MOST_LATE = 0.1
"""Share of the time in state A in excursions beyond `settings.excursion_lags`, above which a person is told."""
FEWEST_EXITS = 20
"""Exits of a batch, on average, below which their numbers are too uneven for a test that takes them as normal."""
FEWEST_ROOTS = 20
"""Roots with success, below which nothing can be said about tails and agreement."""


@dataclass(frozen=True)
class Production:
    """All production rounds in one place.

    `totals` per batch; (n_rounds, n_batches) `transitions`, `exits` and `ended` (weight ended anywhere over exits); per
    root the weight that arrived `root_weights`, what the control variate took from it `root_control`, its batch
    `root_batches` and whether it was `root_defensive`; `hidden`, the part of what arrived of defensive roots that came
    by where V had all but given it up; `n_thinned` roots whose walkers came to the cap; and times in ps, (n_rounds,
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
        """Rounds so far."""
        return len(self.ended)

    @property
    def n_batches(self) -> int:
        """Batches of each round."""
        return len(self.totals.time)

    @property
    def root_contributions(self) -> Array:
        """What each root adds to the transitions, (n_roots,); less than nothing now and then."""
        return self.root_weights - self.root_control

    @property
    def defended(self) -> float:
        """What arrived of defensive roots."""
        return float(self.root_weights[self.root_defensive].sum())


def score_limit(n_batches: int) -> float:
    """Return what a difference over its standard error from `n_batches` exceeds by chance once in 500 (Student's t)."""
    return float(student_t.ppf(1.0 - FALSE_ALARM / 2.0, max(n_batches - 1, 1)))


def measure(found: Production) -> dict[str, float]:
    """Return every diagnostic as a number, NaN where the run is too short to say.

    `ess` of the weights that arrived, `tail_index` of as many of the largest root contributions in size (where nothing
    arrived there is the control variate alone, a cloud of small numbers, no tail), `largest_root_share` of all,
    `batch_tail_index` and `largest_batch_share` of batches, and standard scores (differences over their standard
    errors) `defence_score`, `batch_halves_score`, `round_halves_score`, `control_score`, `exits_score`; `hidden_share`
    is the share of the transitions of defensive roots that V had all but given up on their way, `thinned_share` that of
    roots whose walkers came to the cap.
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
    """One check: its name, the value found (NaN if too little was seen), what it should be, and the alarm or ""."""

    name: str
    value: float
    expected: str
    alarm: str

    @property
    def doubts_error(self) -> bool:
        """Whether the alarm says that the error bar may be too small: more paths help then."""
        return bool(self.alarm) and self.name not in NOT_OF_THE_ERROR

    @property
    def verdict(self) -> str:
        """`alarm`, `passed`, or `not known`."""
        return "alarm" if self.alarm else "passed" if np.isfinite(self.value) else "not known"


def checks(
    found: Production, numbers: dict[str, float], rate: Estimate, ended: Estimate, settled: bool
) -> list[Diagnostic]:
    """Return every check with its verdict; alarms are one line each: what it means, what to do."""
    # With a control variate the rate may differ from 0 though nothing arrived; brute force has no roots.
    walked = len(found.root_weights) > 0
    nothing = found.n_rounds > 0 and float(found.root_weights.sum() if walked else rate.value) == 0.0
    n = found.n_batches
    tail, root, batch = (numbers[name] for name in ("tail_index", "largest_root_share", "largest_batch_share"))
    most, limit = max(0.2, 4.0 / n), score_limit(n)
    # A tail fitted to few roots is uncertain. Where there is one with k = 0.7, the largest of n roots has a share of
    # Gamma(2 - k) n^(k - 1) on average: a sixth of that is asked for.
    heavy = 0.15 * max(float(np.count_nonzero(found.root_weights)), 1.0) ** -0.3
    rows = [
        (
            "rounds", float(found.n_rounds), "above 0", found.n_rounds == 0,
            "no production round was finished: there is no rate; carry on with larger limits (rlis resume)",
        ),
        (
            "settled", float(settled) if found.n_rounds else float("nan"), "yes", not settled,
            "the run in A did not settle before production: the exit rate may still drift; make A larger, or "
            "give slow neighbours of A as `others`",
        ),
        (
            "transitions", float(found.totals.transitions.sum()) if found.n_rounds else float("nan"), "above 0",
            nothing, "no transition was seen: the rate is only bounded from above; run longer",
        ),
        (
            "tail_index", tail, f"at most 0.7, or no root above {heavy:.1%}", tail > 0.7 and root > heavy,
            f"tail index {tail:.2f} > 0.7: a few roots carry the result and its error bar is too small; run longer, or "
            "learn longer (settings.learning_rounds)",
        ),
        (
            "largest_root_share", root, "at most 0.1", root > 0.1,
            f"one root carries {root:.0%} of the transitions: run longer",
        ),
        (
            "largest_batch_share", batch, f"at most {most:.2g}", batch > most,
            f"one batch of {n} carries {batch:.0%} of the transitions: run longer",
        ),
        (
            "ended", ended.value, f"1 within {limit:.1f} errors", abs(ended.value - 1.0) > limit * ended.standard_error,
            f"weights of all ended paths sum to {ended.value:.3f} instead of 1: report this as a bug",
        ),
    ]  # fmt: skip
    first = [Diagnostic(name, value, expected, text if bad else "") for name, value, expected, bad, text in rows]
    return first + _disagreements(numbers, n) + _value_function(numbers, walked)


def lost(message: str) -> Diagnostic:
    """Return the check that no walker was lost; `message` says how a run ended that lost some, or nothing."""
    text = f"the run ended because walkers were lost, and its rate must not be used: {message}"
    return Diagnostic("lost", float(bool(message)), "0", text if message else "")


def alarms(found: Production, numbers: dict[str, float], rate: Estimate, ended: Estimate, settled: bool) -> list[str]:
    """Return what should keep a person from trusting the error bar, one line each: what it means, what to do."""
    return [check.alarm for check in checks(found, numbers, rate, ended, settled) if check.alarm]


def _disagreements(numbers: dict[str, float], n_batches: int) -> list[Diagnostic]:
    limit = score_limit(n_batches)
    causes = {
        "defence_score": "roots without roulette and the others disagree by {:.1f} standard errors: the value function "
        "hides a channel; trust roots without roulette (settings.defensive_share=1) or learn longer",
        "batch_halves_score": "two halves of the batches disagree by {:.1f} standard errors: the error bar is too "
        "small; run longer",
        "round_halves_score": "early and late rounds disagree by {:.1f} standard errors: A was not in equilibrium; run "
        "longer",
        "control_score": "what arrived and what is reported differ by {:.1f} standard errors of the control variate: "
        "the value function is very uneven and the error bar may be too small; learn longer, or settings.control=false",
        "inside_halves_score": "early and late rounds disagree by {:.1f} standard errors about the share of the time "
        "that is spent inside A: A was not in equilibrium with the places outside it; run longer",
        "excursions_score": "walks and basin simulation disagree by {:.1f} standard errors about the time outside the "
        "core: A was not in equilibrium, or weights are wrong; run longer, and report it as a bug if it stays",
        "exits_score": "one batch has an exit rate {:.1f} standard deviations from the others: A holds parts that do "
        "not mix; make A smaller, or give the parts as separate regions",
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
        f"{late:.0%} of the time in state A is spent in long excursions that the basin simulation does not follow: "
        "there is a slow place that is no region. The rate counts the time there; if it should not, give the place as "
        "a region in `others`; the longest failure paths show where it is"
    )
    small = (
        f"{hidden:.0%} of the transitions came by where the value function had all but given them up: it is far too "
        "small in a live channel and the error bar may be too small; learn longer"
    )
    large = (
        f"walkers of {thinned:.0%} of the roots came to the cap (settings.max_walkers): the value function is far too "
        "large somewhere, time is lost there; learn longer, or give the dead end in `others`"
    )
    return [
        Diagnostic("hidden_share", hidden, "at most 0.25", small if hidden > 0.25 else ""),
        Diagnostic("thinned_share", thinned, "at most 0.1", large if thinned > 0.1 else ""),
        Diagnostic("late_share", late, f"at most {MOST_LATE}", slow if late > MOST_LATE else ""),
    ]


def _defence(found: Production) -> float:
    """Return the standard score, over batches, of the difference between the rates by the two kinds of roots."""
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
    """Return the standard score of the control variate; NaN without one.

    Its parts are of mean zero one by one, so their squares give the error: steadier than 20 skewed batches.
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
    if np.abs(residuals).max() < ROUNDING * total / found.time.size:
        return float("nan")
    return _score(residuals[:half].mean(0) - residuals[-half:].mean(0))


def _residuals(sums: Array, time: Array) -> Array:
    """Return what is seen less what all of it together foresees for the time; arrays of one shape."""
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

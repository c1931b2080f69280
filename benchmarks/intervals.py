"""Which 95 % interval: coverage of several, for batches of known law and runs that stop at a target error.

python -m benchmarks intervals       about a minute

Batch results of one round follow a gamma or a log-normal law of mean 1, or are gamma but for one batch in two hundred
that is thirty times as large (a channel seldom seen). Rounds are added as a run does: until the error it claims, the
larger of two, from batches and from rounds of batches, is below 10 % at one of the looks of `is_interim_analysis`. The
intervals are then asked whether they hold 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from common import save
from numpy.typing import NDArray
from scipy.stats import norm, skew
from scipy.stats import t as student_t

from openmm_rlis.statistics.interim_analyses import is_interim_analysis

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
N_RUNS, N_RESAMPLES, TARGET, MOST_ROUNDS = 4000, 600, 0.1, 96
QUANTILE = 0.975


def moments(v: Array) -> tuple[Array, Array]:
    """Return mean and standard error of batches (n_runs, n_batches)."""
    return v.mean(1), v.std(1, ddof=1) / np.sqrt(v.shape[1])


def plain(v: Array) -> Ends:
    """Student's t about the mean."""
    m, e = moments(v)
    q = student_t.ppf(QUANTILE, v.shape[1] - 1)
    return m - q * e, m + q * e


def logarithmic(v: Array) -> Ends:
    """Student's t about the logarithm of the mean."""
    return larger(v, moments(v)[1])


def larger(v: Array, claimed: Array) -> Ends:
    """The same with the larger of the errors from batches and from rounds of batches: what `estimators.rate` does."""
    m = v.mean(1)
    q = student_t.ppf(QUANTILE, v.shape[1] - 1) * claimed / m
    return m * np.exp(-q), m * np.exp(q)


def johnson(v: Array) -> Ends:
    """Student's t with the skewness shift of Johnson (J. Am. Stat. Assoc. 73, 536 (1978))."""
    m, e = moments(v)
    q, shift = student_t.ppf(QUANTILE, v.shape[1] - 1), e * skew(v, axis=1) / (6.0 * np.sqrt(v.shape[1]))
    return m + shift - q * e, m + shift + q * e


def hall(v: Array) -> Ends:
    """Hall's transformation of Student's t (J. R. Stat. Soc. B 54, 221 (1992), eq. 2.3)."""
    m, e = moments(v)
    n, g = v.shape[1], skew(v, axis=1) / np.sqrt(v.shape[1])
    ends = []
    for sign in (-1.0, 1.0):
        y = sign * student_t.ppf(QUANTILE, n - 1) - g / 6.0
        ends.append(3.0 / g * (np.cbrt(1.0 + g * y) - 1.0))
    return m - e * ends[1], m - e * ends[0]


def jackknife(v: Array) -> Ends:
    """Student's t about the logarithm of the mean with the jackknife's bias and error."""
    n = v.shape[1]
    total = np.log(v.mean(1))
    left_out = np.log((v.sum(1, keepdims=True) - v) / (n - 1))
    centre = n * total - (n - 1) * left_out.mean(1)
    q = student_t.ppf(QUANTILE, n - 1) * np.sqrt((n - 1) * left_out.var(1))
    return np.exp(centre - q), np.exp(centre + q)


def bca(v: Array) -> Ends:
    """Bias-corrected and accelerated bootstrap (Efron, J. Am. Stat. Assoc. 82, 171 (1987))."""
    rng, n = np.random.default_rng(5), v.shape[1]
    low, high = np.empty(len(v)), np.empty(len(v))
    for i, row in enumerate(v):
        means = row[rng.integers(0, n, (N_RESAMPLES, n))].mean(1)
        z0 = norm.ppf(np.clip((means < row.mean()).mean(), 1e-3, 1.0 - 1e-3))
        a = skew(row) / (6.0 * np.sqrt(n))
        levels = [norm.cdf(z0 + (z0 + z) / (1.0 - a * (z0 + z))) for z in (-1.96, 1.96)]
        low[i], high[i] = np.quantile(means, levels)
    return low, high


METHODS: tuple[Callable[[Array], Ends], ...] = (plain, logarithmic, johnson, hall, jackknife, bca)


def draw(law: str, relative_error: float, n_batches: int, rng: np.random.Generator) -> Array:
    """Return one round of batch results (N_RUNS, n_batches) of mean 1 and this relative error of their mean."""
    shape, c2 = (N_RUNS, n_batches), relative_error**2 * n_batches
    if law == "gamma":
        return rng.gamma(1.0 / c2, c2, shape)
    if law == "log-normal":
        return rng.lognormal(-0.5 * np.log1p(c2), np.sqrt(np.log1p(c2)), shape)
    rare = rng.random(shape) < 0.005
    return rng.gamma(1.0 / c2, c2, shape) * np.where(rare, 30.0, 1.0) / (1.0 + 0.005 * 29.0)


def stopped(law: str, relative_error: float, n_batches: int) -> tuple[Array, Array, Array]:
    """Return the batch results (N_RUNS, n_batches) of runs that stopped at the target, their errors and rounds."""
    rng = np.random.default_rng(11)
    total, squares, kept = (np.zeros((N_RUNS, n_batches)) for _ in range(3))
    rounds, claimed = np.zeros(N_RUNS), np.zeros(N_RUNS)
    for index in range(1, MOST_ROUNDS + 1):
        found = draw(law, relative_error, n_batches, rng)
        total, squares = total + found, squares + found**2
        (m, e), n = moments(total / index), index * n_batches
        by_round = np.sqrt((squares.sum(1) / n - m**2) / (n - 1))
        error = np.maximum(e, by_round)
        new = (rounds == 0) & ((is_interim_analysis(index) & (error <= TARGET * m)) | (index == MOST_ROUNDS))
        kept[new], claimed[new], rounds[new] = total[new] / index, error[new], index
        if (rounds > 0).all():
            break
    return kept, claimed, rounds


def main(_: list[str]) -> None:
    """Run the study and write results/intervals.md."""
    names = " | ".join(["larger", *(method.__name__ for method in METHODS)])
    lines = [
        f"{N_RUNS} runs a row, target {TARGET:.0%}. Coverage of 95 % intervals (mean of ln(high/low)). Command: "
        "`python -m benchmarks intervals`.",
        "", f"| batches | error of a round | law | mean | spread / claimed | rounds | {names} |",
        "|---|---|---|---|---|---|---|" + "---|" * len(METHODS),
    ]  # fmt: skip
    for n_batches in (20, 40):
        for relative_error in (0.17, 0.3):
            for law in ("gamma", "log-normal", "rare channel"):
                v, e, rounds = stopped(law, relative_error, n_batches)
                m, cells = v.mean(1), []
                for low, high in (larger(v, e), *(method(v) for method in METHODS)):
                    width = np.log(high / np.maximum(low, 1e-3)).mean()
                    cells.append(f"{((low <= 1.0) & (high >= 1.0)).mean():.3f} ({width:.2f})")
                lines.append(
                    f"| {n_batches} | {relative_error:.0%} | {law} | {m.mean():.3f} | "
                    f"{m.std() / np.sqrt((e**2).mean()):.2f} | {rounds.mean():.1f} | {' | '.join(cells)} |"
                )
                print(lines[-1], flush=True)
    save("intervals", lines)


if __name__ == "__main__":
    main(sys.argv[1:])

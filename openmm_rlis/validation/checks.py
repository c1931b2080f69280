"""Checks: try to prove a run wrong.

    records         every checksum, the norm of the weights, agreement of batches, rounds and roots     at once
    both ways       the ratio of the rates against the free energy of A and B                            at once
    simulations     committor near 1/2, half the time step, half the lag, brute force when it is warmer  minutes

Each check says pass, fail, or could not tell; the last is an answer too: a comparison whose error is larger than
`USEFUL` proves nothing. Rates are compared as their intervals are, z = ln(k'/k) / sqrt((e'/k')^2 + (e/k)^2). A
failure is a z that a good run meets once in some 500 comparisons: 3.6 with 20 batches, more with fewer. What no
check can show is a channel that nothing has entered.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..config.build_problem import problem_of
from ..config.problem_identity import check_directions
from ..config.settings import Settings
from ..dynamics.engine import Engine, one_thread
from ..problem import Problem
from ..results.result import Result
from ..sampling.run import brute, load, resume, run
from ..statistics.diagnostics import score_limit
from ..statistics.estimators import Estimate
from ..storage import checksums
from ..storage.integrity import REPLACED
from ..walks.branching_walk import walk_unbranched
from .detailed_balance import ends_of, free_energy_by_quadrature, free_energy_of_rates

Array = NDArray[np.float64]
Verdict = Literal["pass", "fail", "could not tell"]
USEFUL = 0.35
N_FRAMES, N_SHOTS = 40, 50
SCORES = {
    "defence_score": "roots with and without roulette agree",
    "batch_halves_score": "odd and even batches agree",
    "round_halves_score": "early and late rounds agree",
    "control_score": "the control variate is zero on average",
}


@dataclass(frozen=True)
class Check:
    """One attempt: what was compared, how it ended, and the numbers."""

    name: str
    verdict: Verdict
    detail: str


def check_records(result: Result) -> Iterator[Check]:
    """Yield the checks that need nothing but the stored run."""
    damaged = result.damaged()
    yield _covered(damaged, [] if damaged else checksums.uncovered(result.directory, REPLACED))
    norm, numbers, n = result.ended, result.diagnostics, result.ended.n_batches
    z = (norm.value - 1.0) / norm.standard_error if norm.standard_error > 0 else float("nan")
    yield _scored("weights of all ended paths sum to 1", z, f"{norm.value:.4f} +- {norm.standard_error:.4f}", n)
    for name, text in SCORES.items():
        yield _scored(text, numbers[name], f"{numbers[name]:+.2f} standard errors", n)
    known = math.isfinite(result.rate.standard_error)
    alarms = numbers["alarms"]
    verdict: Verdict = "fail" if alarms else "pass" if known else "could not tell"
    yield Check("no alarm", verdict, "; ".join(alarms))


def check_parent(directory: Path) -> Check:
    """Check the files that a directory of both directions has beside those of its two runs."""
    damaged = checksums.damage(directory)
    return _covered(damaged, [] if damaged else checksums.uncovered(directory, ("config.yaml", "result.json")))


def _covered(damaged: Sequence[str], uncovered: Sequence[str]) -> Check:
    notes = [f"nothing covers {name}: the run is of an early version" for name in uncovered]
    return Check("every checksum is right", "fail" if damaged else "pass", "; ".join([*damaged, *notes]))


def check_balance(
    forward: Result, backward: Result, problem: Problem | None = None, free_energy: float | None = None
) -> Check:
    """Compare the ratio of the rates of both directions with the free energy of the cores, F_B - F_A in kJ/mol.

    `problem` is that of `forward`; it is needed when regions are Python objects. Without `free_energy` it is computed
    for one particle in one or two dimensions, and left open for everything else.
    """
    name = "both directions against the free energy"
    check_directions(forward.directory, backward.directory)
    problem = problem_of(forward.config, problem, forward.directory, forward.trusted)
    if not all(r.rate.value > 0.0 and r.core_share.value > 0.0 for r in (forward, backward)):
        return Check(name, "could not tell", "no transition one way")
    found, error = free_energy_of_rates(forward, backward)
    known = free_energy_by_quadrature(problem, *ends_of(forward)) if free_energy is None else free_energy / problem.kT
    detail = f"F_B - F_A = {found:.3f} +- {error:.2f} kT by the rates"
    if known is None or not math.isfinite(known):
        return Check(name, "could not tell", f"{detail}; give the true one with --free-energy")
    detail += f", {known:.3f} kT by {'quadrature' if free_energy is None else 'what was given'}"
    if not error < USEFUL:
        return Check(name, "could not tell", detail)
    z = (found - known) / error
    fewest = min(forward.rate.n_batches, backward.rate.n_batches)
    return _scored(name, z, f"{detail}: {z:+.1f} standard errors", fewest)


def check_simulations(
    result: Result, folder: Path, problem: Problem | None = None, target_relative_error: float = 0.15
) -> Iterator[Check]:
    """Yield the checks that need new simulations, kept in run directories under `folder`.

    Parameters
    ----------
    result
        A finished run, not brute force.
    problem
        Needed when the run's regions are Python objects.
    target_relative_error
        Of each new rate.
    """
    problem = problem_of(result.config, problem, result.directory, result.trusted)
    yield check_committor(result, problem)
    target: dict[str, Any] = {"target_relative_error": target_relative_error}
    settings = Settings.from_mapping(result.config["settings"])
    again = {"value": result.value, "settings": settings.model_copy(update={"learning_rounds": 1}), **target}
    finer = varied(problem, timestep=problem.timestep / 2.0, lag_steps=problem.lag_steps * 2)
    found = _kept(folder / "half-timestep", finer, partial(run, seed=result.seed + 1, **again))
    yield compared("half the time step, same lag", result.rate, found.rate)
    if problem.lag_steps > 1:
        oftener = varied(problem, lag_steps=problem.lag_steps // 2)
        found = _kept(folder / "half-lag", oftener, partial(run, seed=result.seed + 2, **again))
        yield compared("half the lag, same time step", result.rate, found.rate)
    warm = varied(problem, temperature=1.5 * problem.temperature, kT=1.5 * problem.kT)
    learned = _kept(folder / "warm-run", warm, partial(run, seed=result.seed + 3, settings=settings, **target))
    limit = 10 * learned.cost["force_evaluations"]["total"]
    brutal = partial(brute, seed=result.seed + 4, max_force_evaluations=limit, **target)
    plain = _kept(folder / "warm-brute", warm, brutal)
    yield compared("run against brute force at 1.5 times the temperature", plain.rate, learned.rate)


def check_committor(result: Result, problem: Problem) -> Check:
    """Shoot unbiased paths from frames of success paths where the learned committor is between 0.3 and 0.7."""
    name, success = "learned committor near 1/2", result.paths.success()
    rng = np.random.default_rng(result.seed)
    frames: list[Array] = []
    learned: list[float] = []
    for i in rng.permutation(len(success))[: 5 * N_FRAMES]:
        x = success.positions(int(i)).astype(float)
        q = result.value.committor(x, problem)
        near = np.flatnonzero((q > 0.3) & (q < 0.7))
        if len(near) and len(frames) < N_FRAMES:
            chosen = int(rng.choice(near))
            frames.append(x[chosen])
            learned.append(float(q[chosen]))
    if len(frames) < N_FRAMES // 2:
        return Check(name, "could not tell", f"{len(frames)} frames between 0.3 and 0.7")
    x = np.repeat(np.stack(frames), N_SHOTS, axis=0)
    engine = Engine(problem, int(result.config["settings"]["n_slots"]), result.config["platform"])
    with one_thread():
        engine.reseed(rng)
        done = walk_unbranched(engine, x, x, rng)
    shot = done.success.reshape(-1, N_SHOTS).mean(1)
    difference = shot - np.array(learned)
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    detail = f"learned {np.mean(learned):.3f}, shot {shot.mean():.3f} +- {error:.3f}; costs variance, not correctness"
    return Check(name, "pass" if abs(difference.mean()) < 0.1 + score_limit(len(frames)) * error else "fail", detail)


def compared(name: str, reference: Estimate, found: Estimate) -> Check:
    """Return the check that two independent estimates of one rate agree."""
    detail = f"{reference.value:.4g} +- {reference.standard_error:.2g}, {found.value:.4g} +- {found.standard_error:.2g}"
    error = math.hypot(reference.relative_error, found.relative_error)
    if not error < USEFUL:
        return Check(name, "could not tell", detail)
    z = math.log(found.value / reference.value) / error
    fewest = min(reference.n_batches, found.n_batches)
    return _scored(name, z, f"{detail}: {z:+.1f} standard errors", fewest)


def varied(problem: Problem, **changes: float) -> Problem:
    """Return a copy of a problem with other numbers; it has no recipe, since it is another problem."""
    other = copy.copy(problem)
    for name, number in {**changes, "recipe": None}.items():
        setattr(other, name, number)
    return other


def _kept(folder: Path, problem: Problem, make: Callable[[Problem, Path], Result]) -> Result:
    """Return the run in `folder`, carried on or made now if need be."""
    if (folder / "result.json").exists():
        return load(folder, problem)
    return resume(folder, problem) if folder.exists() else make(problem, folder)


def _scored(name: str, z: float, detail: str, n_batches: int) -> Check:
    if not math.isfinite(z):
        return Check(name, "could not tell", "nothing to compare, or too little data")
    return Check(name, "pass" if abs(z) < score_limit(n_batches) else "fail", detail)

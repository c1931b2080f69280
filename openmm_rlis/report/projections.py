"""Projections: one or two numbers of a configuration to draw paths on, and what the learned V says along them.

A system may name its own plane (`plane`, `plane_labels`, `landmarks` in its module). Otherwise: the coordinates of a
single particle; or the two features, or without features the two interatomic distances, that tell the ends of
the success paths apart best,

    |mean(end) - mean(start)| / sqrt(var(end) + var(start)).

For looking only: no estimate depends on it. torch and openmm are used where they are there; without them the planes
that need features and everything that needs V say why they are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..paths.ensemble import PathEnsemble
from ..statistics import estimators
from ..statistics.estimators import Estimate
from .plot_data import FloatArray, RunData, obtain, sample_successes

MOST_PAIRS_ATOMS = 60
CLEARLY_DIFFERENT = 1.0
PROBES = 200
MOST_POSITIONS = 3_000_000
"""Atoms times frames that are looked at together, which bounds memory and time."""


Columns = tuple[Callable[[Any], Callable[[Any], FloatArray]], list[str], str]
"""A function of chosen columns that returns a function of frames; the names of all columns; a word on the choice."""


@dataclass(frozen=True)
class Plane:
    """`points`: frames (n, n_atoms, 3) -> (n, 1) or (n, 2); their axis labels; named points; a word on the choice."""

    points: Callable[[Any], FloatArray]
    labels: tuple[str, ...]
    landmarks: Mapping[str, FloatArray] = field(default_factory=dict)
    about: str = ""

    @property
    def width(self) -> int:
        """Numbers for each configuration, 1 or 2."""
        return len(self.labels)


def system_module(result: Mapping[str, Any]) -> Any:
    """Return the module of the system if it names a plane to draw on, else None."""
    try:
        from ..systems import available
    except ImportError:  # systems need torch and openmm
        return None
    module = available().get(str(result.get("system")))
    return module if all(hasattr(module, name) for name in ("plane", "plane_labels", "landmarks")) else None


def choose(runs: Sequence[RunData], module: Any = None) -> Plane | None:
    """Return the plane to draw these runs on, flattened to one number if the other is constant; None without any."""
    sample = _sample(runs)
    if not len(sample):
        return None
    plane: Plane | None
    if module is not None:
        plane = Plane(module.plane, tuple(module.plane_labels), module.landmarks())
    else:
        plane = _coordinates(runs, sample) if sample.shape[1] == 1 else _telling(runs)
    # A particle on a line has a plane by its module too; its second number never changes.
    if plane is None or not np.isfinite(points := plane.points(sample)).all():
        return None
    spread = np.ptp(points, axis=0)
    return _line(plane) if plane.width == 2 and spread[1] <= 1e-9 * spread[0] else plane


def _line(plane: Plane) -> Plane:
    """Return a plane without its second number."""
    marks = {name: point[:1] for name, point in plane.landmarks.items()}
    return Plane(lambda x: plane.points(x)[:, :1], plane.labels[:1], marks, plane.about)


def _sample(runs: Sequence[RunData]) -> NDArray[Any]:
    """Return up to some hundred frames: whole success paths, else replicas, (n, n_atoms, 3)."""
    rng = np.random.default_rng(0)
    paths: list[NDArray[Any]] = []
    for run in runs:
        paths += [run.paths.positions(i) for i in sample_successes(run.paths, 5, rng)] if run.has_success else []
    return np.concatenate(paths or [run.replicas[:500] for run in runs])


def _coordinates(runs: Sequence[RunData], sample: NDArray[Any]) -> Plane:
    moving = np.flatnonzero(np.ptp(sample[:, 0], axis=0) > 0)[:2].tolist() or [0]
    problem = obtain(runs[0], "problem")[0]
    marks = {} if problem is None else {name: x[0, moving] for name, x in problem.references.items()}
    labels = tuple(f"{'xyz'[axis]} / nm" for axis in moving)
    return Plane(lambda x: np.asarray(x, dtype=np.float64)[:, 0][:, moving], labels, marks, "coordinates")


def _telling(runs: Sequence[RunData]) -> Plane | None:
    """Return the two features, or distances, that differ most between the starts and the ends of success paths."""
    run = next((run for run in runs if run.has_success), None)
    if run is None:
        return None
    start, end = _ends(run)
    problem = obtain(run, "problem")[0]
    columns, names, about = _features(problem, start) or _distances(start.shape[1])
    if not names:
        return None
    begin, last = columns(slice(None))(start), columns(slice(None))(end)
    best, score = _most_different(begin, last)
    if score < CLEARLY_DIFFERENT:
        return None
    points, ends = columns(best), [str(run.result.get(name)) for name in ("source", "target")]
    marks = dict(zip(ends, (begin[:, best].mean(0), last[:, best].mean(0)), strict=True))
    if problem is not None:
        marks |= {name: points(x[None])[0] for name, x in problem.references.items()}
    return Plane(points, tuple(names[i] for i in best), marks, about)


def _features(problem: Any, start: NDArray[Any]) -> Columns | None:
    if problem is None:
        return None
    from ..features import evaluate

    features = problem.features
    width = evaluate(features, start[:1].astype(float)).shape[1]
    if width < 2:
        return None
    names = [f"feature {i + 1} of {width}" for i in range(width)]
    about = f"the two of {width} features that differ most between the ends of the paths"
    return lambda chosen: lambda x: evaluate(features, np.asarray(x, dtype=np.float64))[:, chosen], names, about


def _distances(n_atoms: int) -> Columns:
    first, second = np.triu_indices(min(n_atoms, MOST_PAIRS_ATOMS), 1)

    def columns(chosen: Any) -> Callable[[Any], FloatArray]:
        i, j = first[chosen], second[chosen]
        return lambda x: np.linalg.norm(np.asarray(x, np.float64)[:, i] - np.asarray(x, np.float64)[:, j], axis=-1)

    names = [f"distance of atoms {i + 1} and {j + 1} / nm" for i, j in zip(first, second, strict=True)]
    among = f" among the first {MOST_PAIRS_ATOMS} atoms" if n_atoms > MOST_PAIRS_ATOMS else ""
    return columns, names, f"the two distances{among} that differ most between the ends of the paths"


def _ends(run: RunData) -> tuple[NDArray[Any], NDArray[Any]]:
    chosen = sample_successes(run.paths, PROBES, np.random.default_rng(0))
    frames = [run.paths.positions(i)[[0, -1]] for i in chosen]
    both = np.stack(frames)
    return both[:, 0], both[:, 1]


def _most_different(start: FloatArray, end: FloatArray) -> tuple[list[int], float]:
    """Return the two columns that differ most and the score of the first."""
    spread = np.sqrt(start.var(0) + end.var(0))
    score = np.abs(end.mean(0) - start.mean(0)) / np.maximum(spread, 1e-9 * max(float(spread.max()), 1e-300))
    return [int(i) for i in np.argsort(-score, kind="stable")[:2]], float(score.max())


# ----------------------------------------------------------------------------------------- what V says along the paths


def log_odds(run: RunData, value: Any, paths: Sequence[int]) -> list[tuple[FloatArray, FloatArray]]:
    """Return, for each success path, times before its arrival in ps, <= 0, and ln V/(1 - V).

    First and last frames are left out: they lie in A and in B, where V is given by definition.
    """
    frames = [run.paths.positions(i)[1:-1] for i in paths]
    joined = value.log_value(np.concatenate(frames).astype(np.float64))
    odds = joined - np.log(np.maximum(-np.expm1(joined), 1e-9))
    times = [run.paths.times(i) for i in paths]
    parts = np.split(odds, np.cumsum([len(x) for x in frames])[:-1])
    return [((t - t[-1])[1:-1], part) for t, part in zip(times, parts, strict=True)]


@dataclass(frozen=True)
class Grouping:
    """Channels of some success paths: shares, the `paths`, the channel of each, and the share of all paths `used`."""

    shares: Mapping[Hashable, Estimate]
    paths: PathEnsemble
    names: NDArray[np.int64]
    used: float


def probes(run: RunData) -> int:
    """Return how many success paths to follow frame by frame, `PROBES` at most."""
    success = run.paths.success()
    frames = float((success.durations() / run.frame_interval + 1.0).mean())
    return int(np.clip(MOST_POSITIONS / (frames * run.replicas.shape[1]), 6, PROBES))


def channels_of(run: RunData, most: int = MOST_POSITIONS) -> tuple[Grouping | None, str]:
    """Return the channels of a run found by grouping, or None and why not.

    With more than `most` atoms times frames a random sample of the paths is grouped.
    """
    value, reason = obtain(run, "value")
    if value is None or run.loaded is None:
        return None, reason
    from ..results.result import group

    success = run.paths.success()
    n_frames = float((success.durations() / run.frame_interval + 1.0).sum())
    used = min(1.0, most / max(n_frames * run.replicas.shape[1], 1.0))
    if used < 1.0:
        # Every path has the same chance whatever its weight, so shares of weight stay fair.
        keep = np.random.default_rng(0).random(len(success)) < used
        success = success.select(keep)
    if len(success) == 0:
        return None, "there are no success paths"
    names = group(success, value, run.loaded.problem)
    shares = estimators.channel_shares(success.batches, names.tolist(), success.weights, len(run.loaded.totals.time))
    return Grouping(shares, success, names, used), ""

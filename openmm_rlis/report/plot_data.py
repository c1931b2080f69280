"""The numbers behind the figures of a report; no estimate depends on them, and neither torch nor openmm is needed.

Let h_A(x) be the time that a run out of A spends at x while A is the last region, and N_AB its number of transitions.
By time reversal direct transitions A -> B and B -> A are equally frequent in equilibrium, so

    rho(x)  ~  h_A(x) / N_AB + h_B(x) / N_BA,        F = -ln(rho) / beta

is the equilibrium density of the configurations whose last region was A or B. There are two samples of h_A: the frames
of the weighted paths, good on the barrier, and the replicas of the unbiased run, good in and around A.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RlisError
from ..paths.ensemble import SUCCESS, PathEnsemble, PathTree
from ..results.rate_guess import rate_of
from ..results.result import Result
from ..results.result import load as load_result
from ..results.round_record import ARRAYS
from ..statistics import estimators
from ..storage.run_directory import RunDirectory

if TYPE_CHECKING:
    from ..problem import Problem

FloatArray = NDArray[np.float64]
Points = Callable[[Any], FloatArray]
"""Frames (n, n_atoms, 3) to points (n, 1) or (n, 2), as `projections.Plane` has it."""

CHUNK = 20_000


@dataclass(frozen=True)
class RunData:
    """What a report needs of one direction.

    The arrays are (n_rounds, n_batches), a row for each production round. `replicas`, (n, n_atoms, 3) in nm, are those
    of the unbiased run at the ends of rounds: an even sample of the time in which A was the last region.
    `frame_interval` is in ps. `lessons` are the notes of the learning rounds, each with the `rate` that it saw;
    `loaded` is the Result that all this was read from.
    """

    result: Mapping[str, Any]
    transitions: FloatArray
    exits: FloatArray
    time: FloatArray
    paths: PathEnsemble
    replicas: FloatArray
    frame_interval: float
    lessons: Sequence[Mapping[str, Any]] = ()
    loaded: Result | None = None

    @property
    def title(self) -> str:
        """`source → target`."""
        return f"{self.result.get('source', 'A')} → {self.result.get('target', 'B')}"

    @property
    def has_success(self) -> bool:
        """Whether a success path with a weight is stored."""
        return bool((self.paths.is_success & (self.paths.weights > 0)).any())

    def rate(self, n_rounds: int | None = None) -> estimators.Estimate:
        """Return the rate from the first `n_rounds` rounds (all by default); nan without any."""
        if len(self.time) == 0:
            return estimators.Estimate(float("nan"), float("inf"), (0.0, float("inf")), self.time.shape[1])
        parts = (x[:n_rounds].sum(0) for x in (self.transitions, self.exits, self.time))
        return estimators.rate(estimators.BatchTotals(*parts), (self.transitions[:n_rounds], self.time[:n_rounds]))


def load(directory: Path, problem: Problem | None = None, trusted: bool = False) -> RunData:
    """Return the data of one run directory, finished or not, and even before its first production round.

    `trusted` is as for `result.load`.

    Raises
    ------
    InputError, StorageError
        Not a run directory, or a file is damaged.
    """
    run = RunDirectory.open(directory)
    result = load_result(directory, problem, trusted=trusted)
    rounds = [run.read_round("production", index).arrays for index in run.rounds("production")]
    none = np.empty((0, len(result.totals.time)))
    transitions, exits, time = (
        np.array([arrays[name] for arrays in rounds], dtype=float) if rounds else none for name in ARRAYS
    )
    nowhere = np.empty((0, int(result.config.get("n_atoms", 1)), 3))
    replicas = np.concatenate([arrays["state/positions"] for arrays in rounds]) if rounds else nowhere
    interval = float(result.config["lag_time"]) * int(result.config["settings"]["frame_stride"])
    content = {**result.to_dict(), "stopped": result.stopped}
    return RunData(content, transitions, exits, time, result.paths, replicas, interval, _lessons(run), result)


def _lessons(run: RunDirectory) -> list[dict[str, Any]]:
    infos = [run.read_round("learning", index).info for index in run.rounds("learning")]
    if not infos or not run.rounds("flux"):  # the flux round comes before learning; without one there is no rate
        return []
    flux = run.read_round("flux", 0)
    # Walks start at exits from A or, where it has one, from its core: `success_probability` is that of these.
    basin = (len(flux.arrays["exits"]), float(flux.info["time"]), float(run.config["lag_time"]))
    return [{**info, "rate": rate_of(info, info["success_probability"], *basin)} for info in infos]


def obtain(run: RunData, what: str) -> tuple[Any, str]:
    """Return the `value` or the `problem` of a run and "", or None and why it cannot be had here."""
    if run.loaded is None:
        return None, "no run directory was read"
    try:
        return getattr(run.loaded, what), ""
    except ImportError as error:
        return None, f"{error.name or 'a library'} is not installed here"
    except RlisError as error:
        return None, str(error)


def root_shares(paths: PathEnsemble) -> FloatArray:
    """Return the share of the transitions that each root with success paths carries, (n_roots,)."""
    success = paths.success()
    if not len(success):
        return np.empty(0)
    keys = np.stack([success.batches, success.rounds, success.roots])
    _, index = np.unique(keys, axis=1, return_inverse=True)
    weights = np.bincount(index.reshape(-1), success.weights)
    return weights[weights > 0] / weights.sum()


def frame_weights(tree: PathTree, keep: NDArray[np.bool_] | None = None) -> FloatArray:
    """Return the weight of every frame: the sum over the paths through it (those to `keep` only), (n_frames,).

    Weight is conserved on average along a branching path, so this is an unbiased measure of how often the frame's place
    is visited, as long as failures are kept with weights that make up for those dropped.
    """
    kept = np.ones(tree.n_paths, bool) if keep is None else keep
    weights = np.bincount(tree.leaves[kept], np.exp(tree.log_weights[kept]), tree.n_frames).tolist()
    for frame in range(tree.n_frames - 1, -1, -1):
        parent = int(tree.parents[frame])
        if parent >= 0:
            weights[parent] += weights[frame]
    return np.array(weights)


def plane_points(
    paths: PathEnsemble, plane: Points, n_most: int, only_success: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Return points (n, k) of about `n_most` frames at most, and the time (n,) in ps that each stands for.

    That is the time since the frame before. Frames are thinned out evenly, so the weights stay in proportion. The last
    frame of every path lies in a region and the first one of every root in A; both are left out. With `only_success`
    failing paths count for nothing.
    """
    step = thinning(paths, n_most)
    points, weights = [], [np.empty(0)]
    for tree in paths.trees:
        weight = frame_weights(tree, tree.labels == SUCCESS if only_success else None)
        free = (tree.parents >= 0) & ((weight > 0) | (not only_success))
        free[tree.leaves] = False
        chosen = np.flatnonzero(free)[::step]
        weights.append(weight[chosen] * (tree.lags[chosen] - tree.lags[tree.parents[chosen]]))
        points += [plane(tree.positions[chosen[i : i + CHUNK]]) for i in range(0, len(chosen), CHUNK)]
    joined = np.concatenate(points) if points else np.empty((0, 2))
    return joined, step * paths.frame_interval * np.concatenate(weights)


def thinning(paths: PathEnsemble, n_most: int) -> int:
    """Return which share of the frames is drawn, as one in so many, for about `n_most` at most."""
    return max(1, -(-sum(tree.n_frames for tree in paths.trees) // n_most))


def free_energy(
    clouds: Sequence[Sequence[tuple[FloatArray, FloatArray]]],
    edges: Sequence[FloatArray],
    beta: float,
    smooth: float = 0.8,
    n_least: float = 1.0,
) -> FloatArray:
    """Return F = -ln(rho)/beta on a grid, (n_x, n_y) in kJ/mol, 0 at its least, nan where it is not known.

    Parameters
    ----------
    clouds
        For each direction the samples of its density, each as points (n, 2) and weights (n,). In every cell they are
        averaged by their effective numbers of points; the directions are summed.
    edges
        Of the cells, along both axes.
    smooth
        Width of the Gaussian that smooths density and numbers, in cells.
    n_least
        Cells with fewer effective points stay empty.
    """
    shape = len(edges[0]) - 1, len(edges[1]) - 1
    density, number = np.zeros(shape), np.zeros(shape)
    for samples in clouds:
        maps = [_density(points, weights, edges, smooth) for points, weights in samples]
        counts = sum((n for _, n in maps), np.zeros(shape))
        mixed = sum((n * h for h, n in maps), np.zeros(shape))
        density += np.divide(mixed, counts, out=np.zeros(shape), where=counts > 0)
        number += counts
    known = (number >= n_least) & (density > 0)
    energy = np.where(known, -np.log(np.where(known, density, 1.0)) / beta, np.nan)
    return energy - np.nanmin(energy) if known.any() else energy


def _density(
    points: FloatArray, weights: FloatArray, edges: Sequence[FloatArray], smooth: float
) -> tuple[FloatArray, FloatArray]:
    """Return the smoothed weight in every cell and the effective number of points, (sum w)^2 / sum w^2, behind it."""
    from scipy.ndimage import gaussian_filter

    x, y, bins = points[:, 0], points[:, 1], list(edges)
    first = np.histogram2d(x, y, bins=bins, weights=weights)[0]
    second = np.histogram2d(x, y, bins=bins, weights=weights**2)[0]
    if smooth > 0:
        first, second = gaussian_filter(first, smooth, truncate=2.0), gaussian_filter(second, smooth, truncate=2.0)
    return first, np.divide(first**2, second, out=np.zeros_like(first), where=second > 0)


def sample_successes(paths: PathEnsemble, n: int, rng: np.random.Generator) -> list[int]:
    """Return the indices of `n` success paths drawn by weight (systematic resampling), each at most once."""
    success = np.flatnonzero(paths.is_success & (paths.weights > 0))
    cumulative = np.cumsum(paths.weights[success])
    marks = (np.arange(n) + rng.random()) / n * cumulative[-1]
    return [int(i) for i in np.unique(success[np.minimum(np.searchsorted(cumulative, marks), len(success) - 1)])]


def along(frames: FloatArray, points: FloatArray, n: int) -> NDArray[np.int64]:
    """Return the indices of `n` frames at equal steps of the slowly moving part of a path, (n,).

    Paths rattle; the running mean of their points (n_frames, 2) over a tenth of the path tells how far they have come.
    """
    if len(frames) <= n:
        return np.arange(len(frames))
    smooth = running_mean(points / np.maximum(np.ptp(points, axis=0), 1e-12), max(1, len(points) // 10))
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(smooth, axis=0), axis=1))])
    progress = 0.5 * (travelled / max(travelled[-1], 1e-12) + np.linspace(0.0, 1.0, len(frames)))
    return np.searchsorted(progress, np.linspace(0.0, 1.0, n)).clip(0, len(frames) - 1)


def running_mean(values: FloatArray, width: int) -> FloatArray:
    """Return the centred running mean over about `width` rows of (n, k), narrower at the ends, (n, k)."""
    half = width // 2
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)[:, None]


def laid_over(structures: Sequence[FloatArray]) -> list[FloatArray]:
    """Return planar structures (n_atoms, 2), centred and each turned onto the one before (least squares, no mirror)."""
    laid: list[FloatArray] = []
    for structure in structures:
        x = np.asarray(structure, dtype=np.float64)[:, :2]
        x = x - x.mean(axis=0)
        if laid:
            dot, cross = (x * laid[-1]).sum(), (x[:, 0] * laid[-1][:, 1] - x[:, 1] * laid[-1][:, 0]).sum()
            angle = np.arctan2(cross, dot)
            x = x @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        laid.append(x)
    return laid


def nearest_distances(structure: FloatArray) -> FloatArray:
    """Return the distance of every atom of (n_atoms, k) to its nearest neighbour, (n_atoms,)."""
    distances = np.linalg.norm(structure[:, None] - structure[None], axis=-1)
    return (distances + np.diag(np.full(len(structure), np.inf))).min(axis=1)


def seen_flat(structures: Sequence[FloatArray]) -> tuple[list[FloatArray], list[FloatArray]]:
    """Return structures (n_atoms, 3) as seen along their least extent, (n_atoms, 2) each, and depths (n_atoms,).

    Each is centred and turned onto the first one (Kabsch, no mirror); larger depths are nearer.
    """
    from scipy.spatial.transform import Rotation

    centred = [x - x.mean(axis=0) for x in structures]
    # Some free rotation is left when atoms are on a line; any of them will do for a drawing.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        turned = [Rotation.align_vectors(centred[0], x)[0].apply(x) for x in centred]
    _, _, axes = np.linalg.svd(np.concatenate(turned), full_matrices=False)
    axes[2] *= np.sign(np.linalg.det(axes)) or 1.0
    views = [x @ axes.T for x in turned]
    return [x[:, :2] for x in views], [x[:, 2] for x in views]

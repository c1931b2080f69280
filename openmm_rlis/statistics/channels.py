"""Channels: groups of success paths that pass the transition state in different places, found without being told.

    point of a path = features of the last frame before the learned committor stays above 1/2

The heaviest path of each root is a point (siblings are too much alike), and points are grouped by Ward's linkage. The
number of groups is the one with the largest mean silhouette, if that is clearly above what the same cut makes of normal
clouds of the same covariance; otherwise there is one channel. Every path then belongs to the nearest group. Groups
are as good as the features: two channels that the features cannot tell apart are one. NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
CLEARLY = 0.05
MOST_GROUPS, MOST_POINTS, FEWEST, N_CLOUDS = 5, 400, 20, 10


def transition_points(features: Sequence[Array], committors: Sequence[Array]) -> Array:
    """Return (n_paths, k): the features (n_frames, k) of each path where its committor (n_frames,) last crosses 1/2."""
    points = []
    for f, q in zip(features, committors, strict=True):
        below = np.flatnonzero(q < 0.5)
        points.append(f[below[-1]] if len(below) else f[0])
    return np.array(points)


def cluster(points: Array, weights: Array, roots: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the group (n_paths,) of every path, 0 for the group with the largest weight.

    Parameters
    ----------
    points
        (n_paths, k), features on comparable scales.
    weights
        (n_paths,), positive.
    roots
        (n_paths,), paths of one root have the same number.
    """
    heaviest_first = np.argsort(-weights, kind="stable")
    _, first = np.unique(roots[heaviest_first], return_index=True)
    chosen = heaviest_first[first]
    if len(chosen) < FEWEST:
        return np.zeros(len(points), dtype=np.int64)
    drawn = points[rng.permutation(chosen)[:MOST_POINTS]]
    score, groups = _best_cut(drawn)
    covariance = np.atleast_2d(np.cov(drawn.T))
    clouds = [rng.multivariate_normal(drawn.mean(0), covariance, len(drawn)) for _ in range(N_CLOUDS)]
    if score < max(_best_cut(cloud)[0] for cloud in clouds) + CLEARLY:
        return np.zeros(len(points), dtype=np.int64)
    centres = np.array([drawn[groups == g].mean(0) for g in np.unique(groups)])
    nearest = cdist(points, centres).argmin(1)
    order = np.argsort(-np.bincount(nearest, weights, len(centres)), kind="stable")
    rank: NDArray[np.int64] = np.argsort(order)[nearest]
    return rank


def _best_cut(points: Array) -> tuple[float, NDArray[np.int64]]:
    distances, tree = cdist(points, points), linkage(points, "ward")
    cuts = [np.asarray(fcluster(tree, n, "maxclust"), np.int64) for n in range(2, MOST_GROUPS + 1)]
    scores = [silhouette(distances, cut) for cut in cuts]
    best = int(np.argmax(scores))
    return scores[best], cuts[best]


def silhouette(distances: Array, groups: NDArray[np.int64]) -> float:
    """Return the mean silhouette of points (n,) in groups; 0 for points alone in theirs, -1 if there is one group.

    References
    ----------
    Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987), doi:10.1016/0377-0427(87)90125-7.
    """
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return -1.0
    member = np.eye(len(names))[index]
    sums, counts = distances @ member, member.sum(0)
    own = counts[index]
    within = sums[np.arange(len(index)), index] / np.maximum(own - 1, 1)
    others = np.where(member > 0, np.inf, sums / counts).min(1)
    scores = np.where(own > 1, (others - within) / np.maximum(np.maximum(others, within), 1e-300), 0.0)
    return float(scores.mean())

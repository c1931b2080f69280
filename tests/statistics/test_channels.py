"""Channels: groups that are there are found, groups that are not are not; on the triple well they are the two sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import openmm_rlis as rlis
from openmm_rlis.statistics.channels import cluster, silhouette, transition_points
from openmm_rlis.systems import triple_well


def grouped(points: np.ndarray, weights: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    weights = np.ones(len(points)) if weights is None else weights
    return cluster(points, weights, np.arange(len(points)), np.random.default_rng(seed))


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_one_cloud_is_one_channel(width: int) -> None:
    """Ten normal clouds and ten uniform ones; eleven equal draws, so a wrong split needs luck and a margin of 0.05."""
    rng = np.random.default_rng(width)
    for _ in range(10):
        assert grouped(rng.normal(size=(250, width)) * np.arange(1, width + 1)).max() == 0


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("n_groups", [2, 3])
def test_separate_clouds_are_found(width: int, n_groups: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, n_groups, 600)
    points = rng.normal(size=(600, width))
    points[:, 0] += 10.0 * truth
    weights = np.where(truth == 1, 5.0, 1.0) * rng.exponential(size=600)
    found = grouped(points, weights)
    shares = np.bincount(found, weights)
    assert len(shares) == n_groups and (np.diff(shares) <= 0).all()
    for group in range(n_groups):
        assert len(set(truth[found == group])) == 1


def test_siblings_do_not_make_a_channel() -> None:
    """One root with 300 nearly equal paths beside 200 roots of one cloud."""
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(size=(200, 2)), 1.0 + 1e-3 * rng.normal(size=(300, 2))])
    roots = np.concatenate([np.arange(200), np.full(300, 200)])
    assert cluster(points, np.ones(500), roots, rng).max() == 0


def test_few_paths_are_one_channel() -> None:
    assert grouped(np.arange(10.0)[:, None]).tolist() == [0] * 10


def test_silhouette_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    points, groups = rng.normal(size=(12, 2)), np.array([1, 1, 2, 2, 2, 3, 1, 2, 3, 3, 4, 1])
    d = cdist(points, points)
    scores = []
    for i, g in enumerate(groups):
        same = [d[i, j] for j in range(12) if groups[j] == g and j != i]
        others = [np.mean([d[i, j] for j in range(12) if groups[j] == h]) for h in set(groups) - {g}]
        scores.append((min(others) - np.mean(same)) / max(min(others), np.mean(same)) if same else 0.0)
    assert silhouette(d, groups) == pytest.approx(np.mean(scores))
    assert silhouette(d, np.ones(12, int)) == -1.0


def test_transition_points_are_the_last_crossings() -> None:
    f = np.arange(10.0).reshape(5, 2)
    q = np.array([0.0, 0.6, 0.4, 0.7, 1.0])
    assert transition_points([f, f], [q, np.ones(5)]).tolist() == [[4.0, 5.0], [0.0, 1.0]]


@pytest.mark.slow
def test_the_two_sides_of_the_triple_well(tmp_path: Path) -> None:
    """Grouping agrees with the known label on nine tenths of the weight."""
    result = rlis.run(triple_well.build(beta=5.0), tmp_path / "run", seed=1, target_relative_error=0.15)
    success = result.paths.success()
    upper = np.array([triple_well.channel(success.positions(i)) == "upper" for i in range(len(success))])
    found = result.path_channels
    assert found.max() == 1
    agreement = success.weights[(found == 0) == upper].sum() / success.weights.sum()
    assert max(agreement, 1.0 - agreement) > 0.9
    shares = result.channels()
    assert set(shares) == {0, 1} and shares[0].value >= shares[1].value

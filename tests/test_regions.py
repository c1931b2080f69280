"""Regions: membership against plain NumPy, and every bad definition refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from openmm_rlis import features
from openmm_rlis.errors import InputError
from openmm_rlis.regions import Region

X = np.random.default_rng(1).normal(size=(400, 2, 3))
PAIR = features.distances([(0, 1)]).double()


def test_a_ball_is_the_set_within_its_radius() -> None:
    r = np.linalg.norm(X[:, 0] - X[:, 1], axis=1)
    ball = Region.ball(PAIR, [2.0], 0.5)
    inside = ball.contains(X)
    assert 0 < inside.sum() < len(X)
    np.testing.assert_array_equal(inside, np.abs(r - 2.0) <= 0.5)
    np.testing.assert_allclose(ball.distance(torch.as_tensor(X)).numpy(), np.abs(r - 2.0) - 0.5, atol=1e-12)


def test_a_ball_in_several_dimensions_is_round() -> None:
    center = np.array([0.3, -0.2, 0.1, 0.0, 0.5, 0.4])
    inside = Region.ball(features.positions(), center, 2.0).contains(X)
    assert 0 < inside.sum() < len(X)
    np.testing.assert_array_equal(inside, np.linalg.norm(X.reshape(-1, 6) - center, axis=1) <= 2.0)


def test_the_surface_belongs_to_the_ball() -> None:
    ball = Region.ball(features.positions(), [0.0, 0.0, 0.0], 0.5)
    x = np.array([[[0.5, 0.0, 0.0]], [[np.nextafter(0.5, 1.0), 0.0, 0.0]]])
    assert ball.contains(x).tolist() == [True, False]


def test_a_predicate_region_is_where_the_predicate_holds() -> None:
    region = Region.where(lambda x: x[:, 0, 0] < -0.3)
    inside = region.contains(X)
    np.testing.assert_array_equal(inside, X[:, 0, 0] < -0.3)
    assert inside.dtype == np.bool_


def test_membership_depends_on_the_row_alone() -> None:
    for region in (Region.ball(PAIR, [2.0], 0.5), Region.where(lambda x: x[:, 0, 1] > 0.0)):
        together = region.contains(X)
        np.testing.assert_array_equal(region.contains(X[::-1].copy()), together[::-1])
        np.testing.assert_array_equal([bool(region.contains(row[None])[0]) for row in X[:20]], together[:20])
        assert region.contains(X[:0]).shape == (0,)


def test_any_callable_is_a_feature() -> None:
    by_module = Region.ball(PAIR, [1.0], 0.7)
    by_callable = Region.ball(lambda x: (x[:, 0] - x[:, 1]).norm(dim=1, keepdim=True), [1.0], 0.7)
    np.testing.assert_array_equal(by_module.contains(X), by_callable.contains(X))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Region.ball(PAIR, [], 1.0), "center"),
        (lambda: Region.ball(PAIR, [np.nan], 1.0), "center"),
        (lambda: Region.ball(PAIR, [np.inf], 1.0), "center"),
        (lambda: Region.ball(PAIR, [1.0], 0.0), "radius"),
        (lambda: Region.ball(PAIR, [1.0], -1.0), "radius"),
        (lambda: Region.ball(PAIR, [1.0], float("nan")), "radius"),
        (lambda: Region.ball("distance", [1.0], 1.0), "feature"),  # type: ignore[arg-type]
        (lambda: Region.where(3), "predicate"),  # type: ignore[arg-type]
        (lambda: Region.where(lambda x: x[:, 0, 0] > 0, "A").distance(torch.as_tensor(X)), "region A"),
        (lambda: Region.ball(PAIR, [1.0, 2.0], 1.0, "A").check(X[0]), "region A"),
        (lambda: Region.ball(lambda x: x, [1.0], 1.0, "A").check(X[0]), "feature CallableFeature"),
    ],
)
def test_bad_definitions_are_refused_in_one_line(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(InputError, match=rf"^{argument}: expected .*, got ") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "predicate",
    [
        lambda x: x[:, 0, 0],
        lambda x: x[:, :, 0] > 0,
        lambda x: (x[:, 0, 0] > 0).any(),
        lambda x: (x[:, 0, 0] > 0).numpy(),
        lambda x: True,
        lambda x: (x[:, 0, 0] > 0).int(),
    ],
)
def test_predicates_that_do_not_return_one_bool_a_walker(predicate: Any) -> None:
    region = Region.where(predicate, "A")
    with pytest.raises(InputError, match=r"^region A: expected a bool tensor of shape \(400,\), got "):
        region.contains(X)
    with pytest.raises(InputError, match=r"^region A: expected a bool tensor of shape \(1,\), got "):
        region.check(X[0])

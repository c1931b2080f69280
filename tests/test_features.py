"""Features: one property test looped over every feature, values against plain NumPy, and TorchScript equal to eager."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_dynamics import Array, numerical_gradient
from torch import Tensor, nn

from openmm_rlis import features
from openmm_rlis.errors import InputError
from openmm_rlis.features import (
    Coordination,
    Dihedrals,
    Distances,
    Joined,
    as_feature,
    check_feature,
    fingerprint,
    probe,
)

N_ATOMS = 6
PAIRS = list(itertools.combinations(range(N_ATOMS), 2))
QUADRUPLES = [(0, 1, 2, 3), (5, 3, 1, 0), (2, 4, 5, 1)]
ALL = {"rotation", "translation", "reflection", "permutation"}

# Every feature and the symmetries it has.
FEATURES: dict[str, tuple[nn.Module, set[str]]] = {
    "positions": (features.positions(), set()),
    "distances": (features.distances(PAIRS), ALL - {"permutation"}),
    "sorted_distances": (features.sorted_distances(PAIRS), ALL),
    "coordination": (features.coordination(range(N_ATOMS), 0.4), ALL - {"permutation"}),
    "sorted_coordination": (features.sorted_coordination(range(N_ATOMS), 0.4, power=6), ALL),
    "contact_spectrum": (features.contact_spectrum(range(N_ATOMS), 0.5), ALL),
    "angles": (features.angles([(0, 2, 1), (3, 5, 4)]), ALL - {"permutation"}),
    "dihedrals": (features.dihedrals(QUADRUPLES), {"rotation", "translation"}),
    "joined": (Joined([features.sorted_distances(PAIRS), features.sorted_coordination(range(N_ATOMS), 0.5)]), ALL),
}


def structures(rng: np.random.Generator, n: int = 3) -> Array:
    """Return jittered octahedra, so that no two atoms and no three in a row come close to a singular point."""
    corners = np.array([[1, 0, 0], [-1, 0.2, 0], [0, 1, 0.3], [0.1, -1, 0], [0, 0.2, 1], [0, 0, -1]]) * 0.35
    return corners + 0.05 * rng.standard_normal((n, N_ATOMS, 3))


def transformed(x: Array, symmetry: str, rng: np.random.Generator) -> Array:
    if symmetry == "translation":
        return x + rng.uniform(-2.0, 2.0, 3)
    if symmetry == "permutation":
        return x[:, rng.permutation(np.roll(np.arange(N_ATOMS), 1))]
    q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    q[:, 0] *= np.sign(np.linalg.det(q)) * (-1.0 if symmetry == "reflection" else 1.0)
    return x @ q.T


def evaluated(feature: Any, x: Array) -> Array:
    with torch.no_grad():
        values: Array = feature(torch.as_tensor(x)).numpy()
    return values


def test_every_public_feature_is_tested_here() -> None:
    public = {name for name, item in vars(features).items() if callable(item) and not name.startswith("_")}
    makers = {name for name in public if name.islower() and getattr(features, name).__module__ == features.__name__}
    assert makers - {"as_feature", "check_feature", "evaluate", "fingerprint", "probe"} == set(FEATURES) - {"joined"}


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("name", list(FEATURES))
def test_invariances(name: str, seed: int) -> None:
    feature, symmetries = FEATURES[name]
    rng = np.random.default_rng(seed)
    x = structures(rng)
    before = evaluated(feature.double(), x)
    for symmetry in sorted(symmetries):
        np.testing.assert_allclose(evaluated(feature, transformed(x, symmetry, rng)), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", list(FEATURES))
def test_symmetries_a_feature_does_not_have_are_seen(name: str) -> None:
    feature, symmetries = FEATURES[name]
    rng = np.random.default_rng(0)
    x = structures(rng)
    for symmetry in ALL - symmetries:
        assert np.abs(evaluated(feature.double(), transformed(x, symmetry, rng)) - evaluated(feature, x)).max() > 1e-3


@pytest.mark.parametrize("name", list(FEATURES))
def test_torchscript_equals_eager_and_rows_are_independent(name: str) -> None:
    feature = FEATURES[name][0].double()
    x = structures(np.random.default_rng(1), n=7)
    values = evaluated(feature, x)
    assert values.shape[0] == 7 and values.dtype == np.float64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(feature)
    np.testing.assert_array_equal(evaluated(script, x), values)
    one_by_one = np.concatenate([evaluated(feature, row[None]) for row in x])
    np.testing.assert_allclose(one_by_one, values, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", list(FEATURES))
def test_gradients_by_finite_differences(name: str) -> None:
    feature = FEATURES[name][0].double()
    x = structures(np.random.default_rng(2), n=1)
    weights = np.random.default_rng(3).standard_normal(evaluated(feature, x).shape[1])
    y = torch.as_tensor(x).requires_grad_(True)
    (gradient,) = torch.autograd.grad((feature(y) * torch.as_tensor(weights)).sum(), y)
    by_hand = numerical_gradient(lambda u: float((evaluated(feature, u) * weights).sum()), x)
    np.testing.assert_allclose(gradient.numpy(), by_hand, rtol=1e-6, atol=1e-6)


def dihedral_angle(p: Array) -> float:
    """Return the dihedral of four points: the angle from the near bond to the far one, about the axis."""
    axis = (p[2] - p[1]) / np.linalg.norm(p[2] - p[1])
    near, far = p[0] - p[1], p[3] - p[2]
    near, far = near - axis * (near @ axis), far - axis * (far @ axis)
    return float(np.arctan2(np.cross(near, far) @ axis, near @ far))


def test_values_are_those_of_plain_numpy() -> None:
    x = structures(np.random.default_rng(4), n=2)
    for row in x:
        r = np.array([np.sqrt(((row[i] - row[j]) ** 2).sum()) for i, j in PAIRS])
        np.testing.assert_allclose(evaluated(features.distances(PAIRS), row[None])[0], r, rtol=1e-12)
        np.testing.assert_allclose(evaluated(features.sorted_distances(PAIRS), row[None])[0], np.sort(r), rtol=1e-12)
        atoms = [4, 0, 2, 5]
        group = np.linalg.norm(row[atoms][:, None] - row[atoms][None], axis=-1)
        c = (1.0 / (1.0 + (group / 0.4) ** 8)).sum(axis=1) - 1.0
        np.testing.assert_allclose(evaluated(features.coordination(atoms, 0.4), row[None])[0], c, rtol=1e-12)
        ascending = features.sorted_coordination(atoms, 0.4)
        np.testing.assert_allclose(evaluated(ascending, row[None])[0], np.sort(c), rtol=1e-12)
        angles = np.array([dihedral_angle(row[list(q)]) for q in QUADRUPLES])
        expected = np.concatenate([np.sin(angles), np.cos(angles)])
        np.testing.assert_allclose(evaluated(features.dihedrals(QUADRUPLES), row[None])[0], expected, atol=1e-10)
        np.testing.assert_array_equal(evaluated(features.positions(), row[None])[0], row.reshape(-1))


def test_coinciding_atoms_and_flat_chains_give_finite_gradients() -> None:
    y = torch.zeros((1, N_ATOMS, 3), dtype=torch.float64, requires_grad=True)
    for feature in (features.distances(PAIRS), features.sorted_coordination(range(N_ATOMS), 0.4)):
        (gradient,) = torch.autograd.grad(feature.double()(y).sum(), y)
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Distances([]), "pairs"),
        (lambda: Distances([(0, 0)]), "pairs"),
        (lambda: Distances([(-1, 0)]), "pairs"),
        (lambda: Coordination([1], 0.4), "atoms"),
        (lambda: Coordination([1, 1], 0.4), "atoms"),
        (lambda: Coordination([0, 1], 0.0), "radius, power"),
        (lambda: Coordination([0, 1], 0.4, power=7), "radius, power"),
        (lambda: Coordination([0, 1], 0.4, power=0), "radius, power"),
        (lambda: Dihedrals([]), "quadruples"),
        (lambda: as_feature(3), "feature"),  # type: ignore[arg-type]
    ],
)
def test_bad_definitions_are_refused_in_one_line(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(InputError, match=rf"^{argument}: expected .*, got ") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, :, 0] / 0.0 - x[:, :, 0] / 0.0, "expected finite values"),
        (lambda x: x, r"tensor of shape \(n, k\)"),
        (lambda x: x[:, 0, 0], r"tensor of shape \(n, k\)"),
        (lambda x: x[:1, :, 0], r"tensor of shape \(n, k\)"),
        (lambda x: x[:, :0, 0], r"tensor of shape \(n, k\)"),
        (lambda x: x.numpy(), r"tensor of shape \(n, k\)"),
        (lambda x: x[:, 99, :], "got an error: "),
        (lambda x: x.no_such_method(), "got an error: "),
    ],
)
def test_bad_features_are_refused_when_first_evaluated(function: Callable[[Tensor], Tensor], message: str) -> None:
    x = structures(np.random.default_rng(5), n=1)[0]
    with pytest.raises(InputError, match=rf"^feature CallableFeature: .*{message}") as caught:
        check_feature(as_feature(function), x)
    assert "\n" not in str(caught.value)


def test_width_of_a_good_feature() -> None:
    x = structures(np.random.default_rng(6), n=1)[0]
    for feature, _ in FEATURES.values():
        assert check_feature(as_feature(feature), x) == evaluated(feature, x[None]).shape[1]
    assert check_feature(as_feature(lambda x: x[:, :2, 0]), x) == 2


def test_fingerprint_changes_with_the_feature_and_only_with_it() -> None:
    x = probe(structures(np.random.default_rng(7), n=1)[0])
    prints = [fingerprint(evaluated(feature.double(), x)) for feature, _ in FEATURES.values()]
    assert len(set(prints)) == len(prints)
    again = fingerprint(evaluated(Coordination(range(N_ATOMS), 0.4).double(), x))
    assert again == fingerprint(evaluated(FEATURES["coordination"][0], x))
    assert fingerprint(evaluated(Coordination(range(N_ATOMS), 0.41).double(), x)) != again

"""Value: the formula in plain NumPy, numbers that must not underflow, and files that come back bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy_dynamics import START, Array, make_problem, random_value
from scipy.special import expit
from torch import nn

from openmm_rlis import features
from openmm_rlis.dynamics.bias import Bias
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError, StorageError
from openmm_rlis.features import evaluate
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.value_function import ValueFunction, feature_statistics


def structures(n: int, seed: int = 0) -> Array:
    return START + 0.2 * np.random.default_rng(seed).standard_normal((n, 3, 3))


def network_output(network: nn.Module, x: Array) -> Array:
    """Return the output of linear, SiLU, linear, SiLU, linear in plain NumPy."""
    assert isinstance(network, nn.Sequential)
    for k, layer in enumerate(network):
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        else:
            assert isinstance(layer, nn.SiLU) and k % 2 == 1
            x = x * expit(x)
    return x[:, 0]


def with_constant_logits(value: ValueFunction, fine: float, coarse: float) -> ValueFunction:
    with torch.no_grad():
        for network, z in ((value.fine, fine), (value.coarse, coarse)):
            last = network[4]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.fill_(z)
    return value


def test_value_is_the_mixture_of_the_two_networks() -> None:
    problem = make_problem(1)
    value = random_value(problem, seed=25, steepness=3.0)
    x = structures(30)
    f = evaluate(problem.features, x)
    z = (f - value.mean.numpy()) / value.scale.numpy()
    a = np.sqrt(((z - value.center_source.numpy()) ** 2).mean(axis=1) + 1e-12)
    b = np.sqrt(((z - value.center_target.numpy()) ** 2).mean(axis=1) + 1e-12)
    fine, coarse = network_output(value.fine, z), network_output(value.coarse, np.stack([a, b], axis=1))
    expected = 0.7 * expit(fine) + 0.3 * expit(coarse)
    assert np.log(expected).std() > 0.1
    np.testing.assert_allclose(np.exp(value.log_value(x)), expected, rtol=1e-12)


@pytest.mark.parametrize("z", [-1e4, -800.0, -30.0, 0.0, 30.0, 1e4])
def test_log_value_is_finite_at_extreme_logits(z: float) -> None:
    problem = make_problem(1)
    value = with_constant_logits(random_value(problem, seed=5), z, z)
    log_v = value.log_value(structures(4))
    # ln sigmoid(z) = -ln(1 + exp(-z)), which is z itself far below zero.
    np.testing.assert_allclose(log_v, -np.logaddexp(0.0, -z), rtol=1e-12, atol=1e-12)
    assert (log_v <= 0.0).all()
    x = torch.as_tensor(structures(4)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(x).sum(), x)
    assert bool(torch.isfinite(gradient).all())


def test_gradient_survives_where_the_value_itself_would_underflow() -> None:
    problem = make_problem(1)
    value = random_value(problem, seed=5)
    with torch.no_grad():
        for network in (value.fine, value.coarse):
            last = network[4]
            assert isinstance(last, nn.Linear)
            last.bias.fill_(-1e4)
    x = torch.as_tensor(structures(4)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(x).sum(), x)
    assert float(gradient.abs().max()) > 1e-3
    assert bool(torch.isfinite(gradient).all())


def test_a_new_function_is_flat_whatever_its_weights() -> None:
    problem = make_problem(1)
    statistics = feature_statistics(problem, structures(20), structures(5, 1), structures(5, 2))
    for seed in range(3):
        value = ValueFunction(problem.features, statistics, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(value.log_value(structures(6)), np.log(0.5), rtol=1e-12)


def test_the_coarse_share_bounds_how_wrong_the_fine_network_can_be() -> None:
    value = with_constant_logits(random_value(make_problem(1), seed=5), -1e4, 2.0)
    np.testing.assert_allclose(value.log_value(structures(3)), np.log(0.3 * expit(2.0)), rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_coarse_share_outside_zero_to_one_is_refused(share: float) -> None:
    problem = make_problem(1)
    statistics = feature_statistics(problem, structures(20), structures(5, 1), structures(5, 2))
    with pytest.raises(InputError, match=r"^coarse_share: expected a number between 0 and 1, got "):
        ValueFunction(problem.features, statistics, coarse_share=share)


def test_statistics_standardise_and_a_constant_feature_does_not_divide_by_zero() -> None:
    problem = make_problem(1)
    problem.features = features.as_feature(lambda x: torch.cat([x[:, :, 0], torch.ones_like(x[:, :1, 0])], dim=1))
    x, a, b = structures(500), structures(50, 1), structures(50, 2)
    statistics = feature_statistics(problem, x, a, b)
    np.testing.assert_allclose(statistics["mean"][:3], x[:, :, 0].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics["scale"][:3], x[:, :, 0].std(axis=0), rtol=1e-12)
    assert statistics["scale"][3] > 0.01
    for name, sample in (("center_source", a), ("center_target", b)):
        expected = (sample[:, :, 0].mean(axis=0) - x[:, :, 0].mean(axis=0)) / x[:, :, 0].std(axis=0)
        np.testing.assert_allclose(statistics[name], [*expected, 0.0], atol=1e-12)


def committor_problem() -> Problem:
    base = make_problem(1)
    return Problem(
        base.system,
        START,
        source=Region.where(lambda x: x[:, 0, 0] < -0.5),
        target=Region.where(lambda x: x[:, 0, 0] > 0.9),
        others=[Region.where(lambda x: (x[:, 0, 1] > 2.0) & (x[:, 0, 0].abs() < 0.4))],
        temperature=base.temperature,
        friction=1.0,
        timestep=0.001,
    )


def test_committor_has_its_boundary_values_and_is_the_value_elsewhere() -> None:
    problem = committor_problem()
    value = random_value(problem, seed=6)
    x = structures(6)
    x[:, 0, 0] = [-0.9, 1.2, 0.0, 0.0, 0.2, -0.3]
    x[2, 0, 1] = 2.5
    np.testing.assert_array_equal(problem.label(x), [1, 2, 3, 0, 0, 0])
    q = value.committor(x, problem)
    assert q[:3].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(q[3:], np.exp(value.log_value(x[3:])), rtol=1e-14)
    assert ((q >= 0.0) & (q <= 1.0)).all()
    assert value.committor(x[:2], problem).tolist() == [0.0, 1.0]


def test_a_value_that_is_not_finite_names_the_walker() -> None:
    problem = make_problem(1)
    x = structures(4)
    x[2, 1, 0] = np.nan
    with pytest.raises(InputError, match=r"^value: expected a finite ln V, got nan for walker 2; check the features"):
        random_value(problem, seed=1).log_value(x)


def test_saved_and_loaded_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    problem = make_problem(2)
    value = random_value(problem, seed=7)
    value.save(tmp_path / "value.pt", problem)
    loaded = ValueFunction.load(tmp_path / "value.pt", problem)
    assert not loaded.training
    assert (loaded.hidden, loaded.coarse_share) == (8, 0.3)
    before, after = value.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    x = structures(50)
    np.testing.assert_array_equal(loaded.log_value(x), value.log_value(x))
    assert torch.load(tmp_path / "value.pt", weights_only=True)["format"] == 2

    def walk(v: ValueFunction) -> Array:
        engine = Engine(problem, n_slots=4, bias=Bias(v))
        engine.reseed(np.random.default_rng(0))
        return engine.propagate(x[:4], biased=True)[1]

    np.testing.assert_array_equal(walk(loaded), walk(value))


def test_arrays_are_copies() -> None:
    problem = make_problem(1)
    value = random_value(problem, seed=7)
    x = structures(5)
    before = value.log_value(x)
    arrays = value.arrays()
    for array in arrays.values():
        if array.ndim:
            array += 1.0
    np.testing.assert_array_equal(value.log_value(x), before)
    assert np.abs(ValueFunction.from_arrays(problem.features, arrays).log_value(x) - before).max() > 1e-6


@pytest.mark.parametrize("other", [features.positions(), features.distances([(0, 1), (1, 2), (2, 0)])])
def test_a_function_for_other_features_is_refused(tmp_path: Path, other: nn.Module) -> None:
    problem = make_problem(1)
    value = random_value(problem, seed=7)
    value.save(tmp_path / "value.pt", problem)
    value.check_problem(problem)
    problem.features = other.double()
    for check in (lambda: ValueFunction.load(tmp_path / "value.pt", problem), lambda: value.check_problem(problem)):
        with pytest.raises(
            InputError, match=r"^value: expected a value function for this problem's features .*; train"
        ):
            check()


@pytest.mark.parametrize("unit, shift, fits", [(1.0, 1e-9, True), (1.0, 1e-3, False), (1e-9, 1e-3, False)])
def test_a_file_fits_features_that_differ_in_the_last_digits_alone(
    tmp_path: Path, unit: float, shift: float, fits: bool
) -> None:
    # On another machine a minimised structure, and the features with it, come out a little different.
    problem = make_problem(1)
    own = problem.features
    problem.features = features.as_feature(lambda x: own(x) * unit)
    value = random_value(problem, seed=7)
    value.save(tmp_path / "value.pt", problem)
    there = make_problem(1)
    there.positions = problem.positions + 1e-5
    mine = problem.features
    there.features = features.as_feature(lambda x: mine(x) * (1.0 + shift))
    if fits:
        loaded = ValueFunction.load(tmp_path / "value.pt", there)
        x = problem.positions[None]
        np.testing.assert_allclose(loaded.log_value(x), value.log_value(x), rtol=1e-6)
    else:
        with pytest.raises(InputError, match=r"^value: expected a value function for this problem's features"):
            ValueFunction.load(tmp_path / "value.pt", there)


@pytest.mark.parametrize("content", [b"", b"not a value function", b"PK\x03\x04 cut short"])
def test_a_file_that_cannot_be_read_is_a_storage_error_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.pt"
    with pytest.raises(StorageError, match=r"^cannot read a value function from "):
        ValueFunction.load(path, make_problem(1))
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"^cannot read a value function from ") as caught:
        ValueFunction.load(path, make_problem(1))
    assert "\n" not in str(caught.value)


def test_a_file_with_something_else_in_it_is_a_storage_error(tmp_path: Path) -> None:
    problem = make_problem(1)
    random_value(problem, seed=7).save(tmp_path / "value.pt", problem)
    good = torch.load(tmp_path / "value.pt", weights_only=True)
    flat = {name: tensor.reshape(-1) for name, tensor in good["probe"].items()}
    for content in ([1, 2], {"probe": 3}, {**good, "format": 1}, {**good, "probe": flat}, {**good, "state": {}}):
        torch.save(content, tmp_path / "value.pt")
        with pytest.raises(StorageError, match=r"^cannot read a value function from "):
            ValueFunction.load(tmp_path / "value.pt", problem)


def test_a_cut_file_is_a_storage_error(tmp_path: Path) -> None:
    problem = make_problem(1)
    path = tmp_path / "value.pt"
    random_value(problem, seed=7).save(path, problem)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StorageError, match=r"^cannot read a value function from "):
        ValueFunction.load(path, problem)

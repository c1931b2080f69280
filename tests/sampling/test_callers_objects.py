"""What the caller hands over stays as it is: regions, features, arrays; two problems may share any of it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import openmm
import torch
from torch import nn

import openmm_rlis as rlis
from openmm_rlis.features import as_feature, evaluate


def system() -> openmm.System:
    made = openmm.System()
    made.addParticle(1.0)
    return made


def problem(source: rlis.Region, target: rlis.Region, x: Any = -1.0, **more: Any) -> rlis.Problem:
    common: dict[str, Any] = {"temperature": 300, "friction": 1, "timestep": 0.001, "dimensions": 1}
    positions = x if isinstance(x, np.ndarray) else [[x, 0.0, 0.0]]
    return rlis.Problem(system(), positions, source=source, target=target, **common, **more)


def test_regions_without_names_may_change_places_and_be_shared() -> None:
    left = rlis.Region.where(lambda x: x[:, 0, 0] < -0.5)
    right = rlis.Region.where(lambda x: (x[:, 0, 0] > 0.5) & (x[:, 0, 0] < 2.0))
    third = rlis.Region.where(lambda x: x[:, 0, 0] > 3)
    there, back = problem(left, right), problem(right, left, 1.0)
    aside = problem(left, right, others=[third])
    other = problem(third, left, 4.0, others=[right])
    for one, names in ((there, "A B"), (back, "A B"), (aside, "A B D0"), (other, "A B D0")):
        assert [region.name for region in one.regions] == names.split() and not one.has_core
    assert (left.name, right.name, third.name) == ("", "", "")
    assert back.label(np.array([[[-1.0, 0, 0]], [[1.0, 0, 0]]])).tolist() == [2, 1]


def test_regions_with_names_keep_them_and_are_not_shared_after() -> None:
    feature = rlis.features.positions()
    left, right = rlis.Region.ball(feature, [-1.0, 0, 0], 0.3, "L"), rlis.Region.ball(feature, [1.0, 0, 0], 0.3, "R")
    one = problem(left, right)
    left.radius, left.name = 9.0, "changed"
    assert one.source.radius == 0.3 and one.source.name == "L" and one.regions[0].feature is one.regions[1].feature
    again = pickle.loads(pickle.dumps(one))
    assert not again.has_core and [region.name for region in again.regions] == ["L", "R"]
    inner = one.with_core(one.whole_source.part(one.features, np.zeros(3), np.ones(3), 0.1))
    assert inner.has_core and not one.has_core and inner.source.name == "L"


class Net(nn.Module):
    """A collective variable as it comes out of training: single precision, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(3, 2), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.linear(x[:, 0]))


def test_features_stay_as_they_are() -> None:
    net = Net()
    before, x = copy.deepcopy(net.state_dict()), np.array([[[-1.0, 0, 0]], [[1.0, 0, 0]]])
    plain = copy.deepcopy(net).double().eval()
    centers = evaluate(plain, x)
    a, b = (rlis.Region.ball(net, center, 1e-3) for center in centers)
    made = problem(a, b, features=net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.linear.weight.dtype == torch.float32 and net.training and net.drop.training
    assert made.features is made.source.feature is made.target.feature  # evaluated once for all regions
    np.testing.assert_array_equal(evaluate(made.features, x), centers)
    with torch.no_grad():
        net.linear.weight += 1.0
    assert as_feature(net) is not made.features
    np.testing.assert_array_equal(evaluate(made.features, x), centers)


def test_modules_of_double_precision_are_used_as_they_are() -> None:
    packaged = (rlis.features.positions(), rlis.features.sorted_coordination([0, 1, 2], 1.0))
    for feature in (*packaged, Net().double().eval()):
        assert as_feature(feature) is feature


def test_scripted_modules_are_copied_too() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    made = as_feature(scripted)
    assert next(scripted.parameters()).dtype == torch.float32 and as_feature(scripted) is made
    assert evaluate(made, np.zeros((4, 1, 3))).shape == (4, 2)


def test_arrays_and_mappings_stay_as_they_are() -> None:
    feature, center, x = rlis.features.positions(), np.array([-1.0, 0.0, 0.0]), np.array([[-1.0, 0.0, 0.0]])
    a, b = rlis.Region.ball(feature, center, 0.3, "L"), rlis.Region.ball(feature, [1.0, 0, 0], 0.3, "R")
    recipe, references = {"system": "s", "options": {}}, {"L": x}
    made = problem(a, b, x, references=references, recipe=recipe)
    center[:], x[:] = 7.0, 7.0
    assert a.center is not None and a.center[0] == -1.0
    assert made.positions[0, 0] == made.references["L"][0, 0] == -1.0 and made.label(made.positions[None])[0] == 1
    assert recipe == {"system": "s", "options": {}} and list(references) == ["L"]

"""Regions: sets of configurations, on a feature or by a predicate.

    ball:   { x : |f(x) - c| <= r }        within:   { x : low <= f(x) <= high }        where:   { x : predicate(x) }

Membership is a pure function of the positions and is tested once a lag. Regions say nothing about dynamics. A ball
and a box (`within`) come with a distance, which the cold start uses; a predicate does not, and then the sampler finds
a sample of the region by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import bad_input
from .features import Feature, Joined, as_feature, check_feature
from .geometry.finite import require_finite
from .geometry.periodic import in_box


class Region:
    """A set of configurations; build it with `Region.ball`, `Region.within` or `Region.where`."""

    def __init__(
        self,
        name: str,
        feature: nn.Module | None = None,
        center: Tensor | None = None,
        radius: float = 0.0,
        predicate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name = name
        self.feature = feature
        self.center = center
        self.radius = radius
        self.predicate = predicate

    @classmethod
    def ball(
        cls, feature: Feature, center: Sequence[float] | NDArray[np.float64], radius: float, name: str = ""
    ) -> Region:
        """Return the set of configurations within `radius` of `center` in feature space (Euclidean norm).

        Parameters
        ----------
        feature
            Torch module or callable, positions (n, n_atoms, 3) in nm -> (n, k).
        center
            (k,), in the feature's own unit.
        radius
            Positive, same unit.

        Raises
        ------
        InputError
            The center is not a finite vector or the radius not positive.

        Examples
        --------
        Two atoms at contact, between 0.25 and 0.35 nm apart:

        >>> from openmm_rlis import features
        >>> contact = Region.ball(features.distances([(0, 1)]), [0.3], 0.05, "contact")
        >>> contact.contains(np.array([[[0, 0, 0], [0.3, 0, 0]], [[0, 0, 0], [0.5, 0, 0]]]))
        array([ True, False])
        """
        point = torch.as_tensor(np.array(center, dtype=np.float64).reshape(-1))  # a copy
        if point.numel() == 0 or not bool(torch.isfinite(point).all()):
            raise bad_input("center", "a finite vector, one number a feature", center)
        if not np.isfinite(radius) or radius <= 0:
            raise bad_input("radius", "a positive number", radius)
        return cls(name, feature=as_feature(feature), center=point, radius=float(radius))

    @classmethod
    def within(cls, box: Box, name: str = "") -> Region:
        """Return the inside of a box of intervals: the ball of radius 1 about 0 in `box`."""
        return cls.ball(box, [0.0], 1.0, name)

    @classmethod
    def where(cls, predicate: Callable[[Tensor], Tensor], name: str = "") -> Region:
        """Return the set where `predicate`, positions (n, n_atoms, 3) in nm -> bool (n,), is true.

        It has no distance, so the cold start has to look for a structure in it.

        Raises
        ------
        InputError
            Not callable. What the predicate returns is checked when it is called.

        Examples
        --------
        >>> left = Region.where(lambda x: x[:, 0, 0] < -0.9, "left")
        >>> left.contains(np.array([[[-1.0, 0, 0]], [[0.5, 0, 0]]]))
        array([ True, False])
        """
        if not callable(predicate):
            raise bad_input("predicate", "a callable (n, n_atoms, 3) -> bool (n,)", type(predicate).__name__)
        return cls(name, predicate=predicate)

    def part(self, feature: Feature, center: NDArray[np.float64], scale: NDArray[np.float64], radius: float) -> Region:
        """Return the part of this region where ``|(f(x) - c) / s| <= r``; of a ball, the smaller ball.

        Parameters
        ----------
        feature, center, scale
            f, and c and s, both (k,); a ball's own feature and center are used instead.
        radius
            r.
        """
        if self.feature is not None and self.center is not None:
            return Region(self.name, feature=self.feature, center=self.center, radius=min(radius, self.radius))
        near = _Near(self, as_feature(feature), torch.as_tensor(center), torch.as_tensor(scale), radius)
        return Region.where(near, self.name)

    def in_box(self, cell: Sequence[Sequence[float]], copies: dict[int, Any]) -> Region:
        """Return this region on a feature that takes nearest images, see `periodic.in_box`; a predicate as it is."""
        if self.feature is None:
            return self
        feature = in_box(self.feature, cell, copies)
        return self if feature is self.feature else Region(self.name, feature, self.center, self.radius, self.predicate)

    def contains(self, positions: NDArray[np.float64] | Tensor) -> NDArray[np.bool_]:
        """Return membership (n,) of positions (n, n_atoms, 3) in nm.

        Raises
        ------
        InputError
            The predicate returned something else than a bool tensor (n,).
        """
        x = torch.as_tensor(positions)
        with torch.no_grad():
            if self.predicate is None:
                return (self.distance(x) <= 0.0).numpy()
            inside = self.predicate(x)
        if not isinstance(inside, Tensor) or inside.shape != (x.shape[0],) or inside.dtype != torch.bool:
            got = f"{tuple(inside.shape)} {inside.dtype}" if isinstance(inside, Tensor) else type(inside).__name__
            raise bad_input(f"region {self.name}", f"a bool tensor of shape ({x.shape[0]},)", got)
        return inside.numpy()

    def distance(self, x: Tensor) -> Tensor:
        """Return ``|f(x) - c| - r`` (n,), negative inside, for a tensor (n, n_atoms, 3) in nm.

        Raises
        ------
        InputError
            The region is not a ball.
        """
        if self.feature is None or self.center is None:
            raise bad_input(f"region {self.name}", "a ball, which has a distance", "a predicate")
        return torch.linalg.vector_norm(self.feature(x) - self.center, dim=-1) - self.radius

    def check(self, positions: NDArray[np.float64]) -> None:
        """Raise `InputError` if the region cannot be evaluated on one structure (n_atoms, 3) in nm."""
        if self.feature is not None and self.center is not None:
            width = check_feature(self.feature, positions)
            if width != self.center.numel():
                raise bad_input(
                    f"region {self.name}", f"a center with {width} numbers, as the feature has", self.center.numel()
                )
        self.contains(positions[None])


@dataclass(frozen=True)
class _Near:
    """The predicate of `Region.part`; a class so that it can be sent to another process."""

    whole: Region
    feature: nn.Module
    center: Tensor
    scale: Tensor
    radius: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return who is in the region and near, (n,)."""
        whole = torch.as_tensor(self.whole.contains(x))
        distance = torch.linalg.vector_norm((self.feature(x) - self.center) / self.scale, dim=-1)
        require_finite(distance[whole].numpy(), f"features in region {self.whole.name}", x[whole].numpy())
        return (distance <= self.radius) & whole


class Box(nn.Module):
    """Where a configuration stands in a box of intervals, (n, 1): at most 1 inside, above 1 outside, never below 0.

        g(x) = max_i max(0, 1 + e_i / s_i),      e_i = max(low_i - f_i, f_i - high_i)

    Periodic features are first brought within half a period of the middle. s_i is half the width of the interval, or
    the given step where that is smaller, so that wide and open intervals still tell near from far.

    Parameters
    ----------
    parts
        Features of one column each.
    low, high
        Ends of the intervals, infinite where open; finite for periodic features.
    periods
        0 for a feature that is not periodic.
    steps
        Largest s_i, in the features' own units.
    """

    if TYPE_CHECKING:  # TorchScript cannot read these
        low: Tensor
        high: Tensor
        middle: Tensor
        periods: Tensor
        scale: Tensor

    def __init__(
        self,
        parts: Sequence[nn.Module],
        low: Sequence[float],
        high: Sequence[float],
        periods: Sequence[float],
        steps: Sequence[float],
    ) -> None:
        super().__init__()
        self.values = Joined(parts)
        tables = [torch.as_tensor(list(numbers), dtype=torch.float64) for numbers in (low, high, periods, steps)]
        for name, table in zip(("low", "high", "periods"), tables, strict=False):
            self.register_buffer(name, table)
        self.register_buffer("middle", torch.nan_to_num((self.low + self.high) / 2.0, posinf=0.0, neginf=0.0))
        self.register_buffer("scale", torch.minimum((self.high - self.low) / 2.0, tables[3]))

    def forward(self, x: Tensor) -> Tensor:
        """Return g of each structure."""
        f = self.values(x)
        turns = torch.round((f - self.middle) / torch.where(self.periods > 0.0, self.periods, torch.ones_like(f)))
        f = f - self.periods * turns
        excess = torch.maximum(self.low - f, f - self.high)
        return torch.clamp(1.0 + excess / self.scale, min=0.0).max(-1, keepdim=True)[0]


def label(regions: Sequence[Region], positions: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return for each structure (n, n_atoms, 3) the number of its region, 1, 2 ... as given, or 0.

    Raises
    ------
    InputError
        A structure lies in two regions at once, or a feature is not finite.

    Examples
    --------
    >>> a, b = Region.where(lambda x: x[:, 0, 0] < 0, "A"), Region.where(lambda x: x[:, 0, 0] > 1, "B")
    >>> label([a, b], np.array([[[-1.0, 0, 0]], [[0.5, 0, 0]], [[2.0, 0, 0]]]))
    array([1, 0, 2], dtype=int8)
    """
    return codes_of(regions, membership(regions, positions))


def codes_of(regions: Sequence[Region], inside: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Return what `label` does, and raise what it does, from who is inside of which, (n, n_regions)."""
    counts = inside.sum(1)
    if (counts > 1).any():
        one, other = (regions[i].name for i in np.flatnonzero(inside[counts > 1][0])[:2])
        raise bad_input("regions", "disjoint sets", f"a structure in both {one} and {other}", "shrink one")
    codes: NDArray[np.int8] = (inside @ np.arange(1, len(regions) + 1)).astype(np.int8)
    return codes


def membership(regions: Sequence[Region], positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return who of (n, n_atoms, 3) is in which region, (n, n_regions).

    A feature that several balls share is evaluated once.

    Raises
    ------
    InputError
        A feature is not finite.
    """
    x = torch.as_tensor(positions)
    inside = np.zeros((len(positions), len(regions)), dtype=bool)
    balls: dict[int, list[int]] = {}
    for i, region in enumerate(regions):
        if region.feature is None or region.center is None:
            inside[:, i] = region.contains(x)
        else:
            balls.setdefault(id(region.feature), []).append(i)
    for columns in balls.values():
        inside[:, columns] = _in_balls([regions[i] for i in columns], x)
    return inside


def _in_balls(balls: Sequence[Region], x: Tensor) -> NDArray[np.bool_]:
    """Return who is in which of the balls (n, n_balls), which share a feature."""
    feature, centers = balls[0].feature, [ball.center for ball in balls if ball.center is not None]
    assert feature is not None
    with torch.no_grad():
        values: NDArray[np.float64] = feature(x).numpy()
    difference = values[:, None] - torch.stack(centers).numpy()
    distances = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    require_finite(distances, f"feature of region {balls[0].name}", x.numpy())
    inside: NDArray[np.bool_] = distances <= [ball.radius for ball in balls]
    return inside


def check_disjoint(a: Region, b: Region) -> None:
    """Raise `InputError` if two balls on the same feature overlap."""
    if a.feature is None or a.feature is not b.feature or a.center is None or b.center is None:
        return
    gap = float(torch.linalg.vector_norm(a.center - b.center)) - a.radius - b.radius
    if gap <= 0.0:
        raise bad_input(
            "regions", "disjoint sets", f"balls {a.name} and {b.name} that overlap by {-gap:.3g}", "shrink one"
        )

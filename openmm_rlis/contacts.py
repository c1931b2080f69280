"""Contacts: features made of smooth contacts between atoms, as torch modules.

    w_ij = 1 / (1 + (r_ij / r0)^p)

w is close to 1 for neighbours and to 0 for others. Rotation, translation and reflection leave it as it is. Coordination
numbers, the sums of its rows, say how many neighbours an atom has; the eigenvalues of w say how they are connected.
`features` has the functions that make these modules, and what is said there of TorchScript holds here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .errors import bad_input
from .geometry.periodic import InBox, nearest_image


def squared_distances(x: Tensor, i: Tensor, j: Tensor, box: list[float]) -> Tensor:
    """Return |x_i - x_j|^2 (n, n_pairs); by coordinates, which is several times as fast as a sum over the last axis."""
    t = x.permute(2, 0, 1).contiguous()
    d = nearest_image(t.index_select(2, i) - t.index_select(2, j), box)
    s = d * d
    return s[0] + s[1] + s[2]


def _power(x: Tensor, n: int) -> Tensor:
    """Return x^n for n >= 1 by squaring: several times as fast as torch's own power."""
    result, square, left = x, x, n - 1
    while left > 0:
        if left % 2 == 1:
            result = result * square
        square, left = square * square, left // 2
    return result


def _pairs(n: int) -> tuple[Tensor, Tensor]:
    """Return the first and the second of every pair of n."""
    first, second = torch.triu_indices(n, n, 1)
    return first, second


class Contacts(InBox):
    """Contacts w_ij = 1 / (1 + (r_ij / r0)^power) of all pairs of a group, in the order of `_pairs`: (n, n_pairs)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        i: Tensor
        j: Tensor

    def __init__(self, atoms: Sequence[int], radius: float, power: int) -> None:
        super().__init__()
        if len(atoms) < 2 or len(set(atoms)) != len(atoms):
            raise bad_input("atoms", "two or more different atom indices", list(atoms))
        if radius <= 0 or power < 2 or power % 2:
            raise bad_input("radius, power", "radius > 0 and an even power >= 2", (radius, power))
        table = torch.as_tensor(list(atoms), dtype=torch.long)
        first, second = _pairs(len(atoms))
        self.register_buffer("i", table[first])
        self.register_buffer("j", table[second])
        self.inverse_square_radius = 1.0 / radius**2
        self.half_power = power // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the contact of every pair."""
        q = squared_distances(x, self.i, self.j, self.box) * self.inverse_square_radius
        return 1.0 / (1.0 + _power(q, self.half_power))


class Coordination(nn.Module):
    """Smooth coordination numbers c_i = sum_j w_ij of `Contacts`: (n, n_atoms of the group)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        ends: Tensor

    def __init__(self, atoms: Sequence[int], radius: float, power: int = 8, ascending: bool = False) -> None:
        super().__init__()
        self.contacts = Contacts(atoms, radius, power)
        first, second = _pairs(len(atoms))
        own = torch.eye(len(atoms), dtype=torch.float64)
        self.register_buffer("ends", own[first] + own[second])  # (n_pairs, n_atoms of the group): whose pair it is
        self.ascending = ascending

    def forward(self, x: Tensor) -> Tensor:
        """Return the coordination number of every atom of the group."""
        c = torch.matmul(self.contacts(x), self.ends.to(x.dtype))
        if self.ascending:
            c = torch.sort(c, dim=-1)[0]
        return c


class Spectrum(nn.Module):
    """Eigenvalues, ascending, of the matrix w of `Contacts`, 0 on its diagonal: (n, n_atoms of the group)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        pair: Tensor

    def __init__(self, atoms: Sequence[int], radius: float, power: int = 8) -> None:
        super().__init__()
        self.contacts = Contacts(atoms, radius, power)
        first, second = _pairs(len(atoms))
        pair = torch.full((len(atoms), len(atoms)), len(first))  # on the diagonal: a column of zeros after all pairs
        pair[first, second] = pair[second, first] = torch.arange(len(first))
        self.register_buffer("pair", pair.reshape(-1))
        self.size = len(atoms)

    def forward(self, x: Tensor) -> Tensor:
        """Return the eigenvalues."""
        w = self.contacts(x)
        padded = torch.cat([w, torch.zeros_like(w[:, :1])], dim=1)
        return torch.linalg.eigvalsh(padded.index_select(1, self.pair).reshape(-1, self.size, self.size))

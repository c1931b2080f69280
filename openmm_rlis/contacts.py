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


def squared_distances(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Return |x_i - x_j|^2 (n, n_pairs); by coordinates, which is several times as fast as a sum over the last axis."""
    t = x.permute(2, 0, 1).contiguous()
    d = t.index_select(2, i) - t.index_select(2, j)
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


def _contacts(q: Tensor, half_power: int) -> Tensor:
    """Return the smooth contact 1 / (1 + (r / r0)^power) of pairs from q = (r / r0)^2."""
    return 1.0 / (1.0 + _power(q, half_power))


def _group(atoms: Sequence[int], radius: float, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the atoms of a group, checked, and the places in it of the two of every pair."""
    if len(atoms) < 2 or len(set(atoms)) != len(atoms):
        raise bad_input("atoms", "two or more different atom indices", list(atoms))
    if radius <= 0 or power < 2 or power % 2:
        raise bad_input("radius, power", "radius > 0 and an even power >= 2", (radius, power))
    first, second = torch.triu_indices(len(atoms), len(atoms), 1)
    return torch.as_tensor(list(atoms), dtype=torch.long), first, second


class Coordination(nn.Module):
    """Smooth coordination numbers c_i = sum_j 1 / (1 + (r_ij / r0)^power): (n, n_atoms of the group)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        i: Tensor
        j: Tensor
        ends: Tensor

    def __init__(self, atoms: Sequence[int], radius: float, power: int = 8, ascending: bool = False) -> None:
        super().__init__()
        table, first, second = _group(atoms, radius, power)
        self.register_buffer("i", table[first])
        self.register_buffer("j", table[second])
        own = torch.eye(len(atoms), dtype=torch.float64)
        self.register_buffer("ends", own[first] + own[second])  # (n_pairs, n_atoms of the group): whose pair it is
        self.inverse_square_radius = 1.0 / radius**2
        self.half_power = power // 2
        self.ascending = ascending

    def forward(self, x: Tensor) -> Tensor:
        """Return the coordination number of every atom of the group."""
        q = squared_distances(x, self.i, self.j) * self.inverse_square_radius
        c = torch.matmul(_contacts(q, self.half_power), self.ends.to(x.dtype))
        if self.ascending:
            c = torch.sort(c, dim=-1)[0]
        return c


class Spectrum(nn.Module):
    """Eigenvalues, ascending, of the matrix of contacts 1 / (1 + (r_ij / r0)^power): (n, n_atoms of the group)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        i: Tensor
        j: Tensor
        pair: Tensor

    def __init__(self, atoms: Sequence[int], radius: float, power: int = 8) -> None:
        super().__init__()
        table, first, second = _group(atoms, radius, power)
        self.register_buffer("i", table[first])
        self.register_buffer("j", table[second])
        pair = torch.full((len(atoms), len(atoms)), len(first))  # on the diagonal: a column of zeros after all pairs
        pair[first, second] = pair[second, first] = torch.arange(len(first))
        self.register_buffer("pair", pair.reshape(-1))
        self.inverse_square_radius = 1.0 / radius**2
        self.half_power = power // 2
        self.size = len(atoms)

    def forward(self, x: Tensor) -> Tensor:
        """Return the eigenvalues."""
        w = _contacts(squared_distances(x, self.i, self.j) * self.inverse_square_radius, self.half_power)
        padded = torch.cat([w, torch.zeros_like(w[:, :1])], dim=1)
        return torch.linalg.eigvalsh(padded.index_select(1, self.pair).reshape(-1, self.size, self.size))

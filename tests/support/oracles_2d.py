"""References for diffusions in the plane, by finite volumes on a square grid.

    L f = kT/(m gamma) e^{bV} div(e^{-bV} grad f),     L_ij = D/h^2 e^{-b(V_j - V_i)/2}   for neighbours i, j

The generator is that of a jump process between cells, reversible with respect to pi_i = e^{-b V_i}. With a = P(A before
B and D) and q = P(B before A and D), both harmonic outside the regions,

    time in A      mu = sum_i pi_i a_i                        (by reversibility, a is also P(A was the last))
    rate           k_AB = sum_{i not in B, j in B} pi_i L_ij a_i / mu
    current        J_ij = pi_i L_ij (a_i q_j - a_j q_i)       from cell i to cell j, of paths A -> B

The limit of continuous time and continuous tests: with a finite step and lag rates differ by O(dt) and O(sqrt(lag)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import spsolve

Array = NDArray[np.float64]
Disc = tuple[tuple[float, float], float]


@dataclass(frozen=True, eq=False)
class Plane:
    """Cells of side h with centres (x, y) (n,), generator L (n, n), weights pi (n,) and region codes (n,)."""

    x: Array
    y: Array
    shape: tuple[int, int]
    generator: csr_matrix
    weights: Array
    codes: NDArray[np.int8]

    def _reaches(self, code: int) -> Array:
        """P(region `code` before all others) at every cell."""
        o = self.codes == 0
        f = (self.codes == code).astype(float)
        inner = self.generator[o]
        f[o] = spsolve(inner[:, o].tocsc(), -inner[:, ~o] @ f[~o])
        return f

    @cached_property
    def from_source(self) -> Array:
        """a, P(A first), which is P(A was the last) in equilibrium."""
        return self._reaches(1)

    @cached_property
    def committor(self) -> Array:
        """q, P(B first)."""
        return self._reaches(2)

    @cached_property
    def rate(self) -> float:
        """k_AB per time in which A was the last region."""
        b = self.codes == 2
        arrivals = (self.weights * self.from_source)[~b] @ self.generator[~b][:, b].sum(1)
        return float(np.squeeze(np.asarray(arrivals))) / float(self.weights @ self.from_source)

    def share(self, line: float, above: float) -> float:
        """Share of the A -> B current through the vertical line x = `line` that passes at y > `above`."""
        nx, ny = self.shape
        index = np.arange(nx * ny).reshape(nx, ny)
        column = int(np.searchsorted(self.x.reshape(nx, ny)[:, 0], line))
        left, right = index[column - 1], index[column]
        rates = self.weights[left] * np.asarray(self.generator[left, right]).ravel()
        a, q = self.from_source, self.committor
        current = rates * (a[left] * q[right] - a[right] * q[left])
        return float(current[self.y[left] > above].sum() / current.sum())


def finite_volume(
    energy: Callable[[Array, Array], Array],
    beta: float,
    box: tuple[float, float, float, float],
    n: tuple[int, int],
    discs: list[Disc],
) -> Plane:
    """Return the diffusion with D = 1/beta on the box (x0, x1, y0, y1) with n = (n_x, n_y) cells; walls reflect.

    `discs` are the regions, (centre, radius), in the order A, B, D ...
    """
    (x0, x1, y0, y1), (nx, ny) = box, n
    hx, hy = (x1 - x0) / nx, (y1 - y0) / ny
    grid = np.meshgrid(x0 + hx * (np.arange(nx) + 0.5), y0 + hy * (np.arange(ny) + 0.5), indexing="ij")
    x, y = grid[0].ravel(), grid[1].ravel()
    v = beta * energy(x, y)
    v -= v.min()
    index = np.arange(nx * ny).reshape(nx, ny)
    rows, columns, values = [], [], []
    for i, j, h in ((index[:-1], index[1:], hx), (index[:, :-1], index[:, 1:], hy)):
        for a, b in ((i.ravel(), j.ravel()), (j.ravel(), i.ravel())):
            rows.append(a)
            columns.append(b)
            values.append(np.exp(-0.5 * (v[b] - v[a])) / (beta * h * h))
    off = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(x), len(x))
    ).tocsr()
    generator = (off - diags(np.asarray(off.sum(1)).ravel())).tocsr()
    codes = np.zeros(len(x), np.int8)
    for code, ((cx, cy), radius) in enumerate(discs, start=1):
        codes[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = code
    return Plane(x, y, (nx, ny), generator, np.exp(-v), codes)

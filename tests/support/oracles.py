"""Exact references for one-dimensional Euler-Maruyama chains whose regions are tested once a lag.

    x' = x + a F(x) + s xi,     a = dt/(m gamma),     s^2 = 2 kT a

The transition kernel of one step is a Gaussian, so on Gauss-Legendre panels that begin and end at the edges of the
regions the matrix of one lag is the m-th power of the matrix of one step, to spectral accuracy; nothing is linearised
and no time step goes to zero. All else is linear algebra:

    committor          q_O  = (1 - T_OO)^-1 T_OB 1
    A was last         mu_A = pi_A,  mu_O = pi_A T_AO (1 - T_OO)^-1
    rate               k_AB = (mu_A T_AB + mu_O T_OB) 1 / (tau (mu_A + mu_O) 1)

O is what lies in no region. These are the rates of one endless trajectory. `restarted` gives those of replicas that go
back to their last structure in A when they reach B or D: the same chain, by other equations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Exits, A -> B and A -> D transitions per time during which A was the last region; P_AB = k_AB / J_A."""

    flux: float
    rate: float
    rate_others: float

    @property
    def success_probability(self) -> float:
        return self.rate / self.flux


@dataclass(frozen=True, eq=False)
class Chain:
    """The chain of one lag on nodes x: T[i, j] = p_tau(x_j | x_i) w_j, rows of sum 1, and region codes."""

    x: Array
    weights: Array
    matrix: Array
    codes: NDArray[np.int8]
    lag_time: float

    def _block(self, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> Array:
        return self.matrix[np.ix_(rows, columns)]

    @property
    def outside(self) -> NDArray[np.bool_]:
        return np.equal(self.codes, 0)

    @property
    def source(self) -> NDArray[np.bool_]:
        return np.equal(self.codes, 1)

    @property
    def target(self) -> NDArray[np.bool_]:
        return np.equal(self.codes, 2)

    @property
    def others(self) -> NDArray[np.bool_]:
        return np.greater(self.codes, 2)

    @cached_property
    def stationary(self) -> Array:
        """pi with pi T = pi, sum 1."""
        n = len(self.x)
        equations = np.vstack([self.matrix.T - np.eye(n), np.ones(n)])
        solution: Array = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
        return solution

    @cached_property
    def committor(self) -> Array:
        """P_x(B before A and D) at the tests after now, at every node; 1 on B, 0 on A and D."""
        o = self.outside
        q = self.target.astype(float)
        q[o] = np.linalg.solve(np.eye(int(o.sum())) - self._block(o, o), self._block(o, self.target).sum(1))
        return q

    @cached_property
    def endless(self) -> Rates:
        """The rates of one endless trajectory."""
        o, a = self.outside, self.source
        mu_a = self.stationary[a]
        mu_o = np.linalg.solve((np.eye(int(o.sum())) - self._block(o, o)).T, mu_a @ self._block(a, o))
        return self._rates(mu_a, mu_o)

    @cached_property
    def restarted(self) -> Rates:
        """The rates of a replica that goes back to its last structure in A whenever it reaches B or D."""
        return self._closed(None)

    def restarted_at(self, x: float) -> Rates:
        """The rates under a wrong rule, that restarts always at one point of A."""
        return self._closed(x)

    def _closed(self, start: float | None) -> Rates:
        o, a = self.outside, self.source
        n = int(a.sum())
        out = np.linalg.solve(np.eye(int(o.sum())) - self._block(o, o), np.eye(int(o.sum())))
        ends = self.target | self.others
        back = self._block(a, a) + self._block(a, o) @ out @ self._block(o, a)
        leave = self._block(a, ends).sum(1) + self._block(a, o) @ out @ self._block(o, ends).sum(1)
        # The chain on A in which every leave for good goes to the structure left, or to `start`.
        landing = np.eye(n) if start is None else np.eye(n)[[int(np.argmin(np.abs(self.x[a] - start)))] * n]
        closed = back + leave[:, None] * landing
        equations = np.vstack([closed.T - np.eye(n), np.ones(n)])
        mu_a = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
        return self._rates(mu_a, mu_a @ self._block(a, o) @ out)

    def _rates(self, mu_a: Array, mu_o: Array) -> Rates:
        o, a = self.outside, self.source
        time = self.lag_time * (mu_a.sum() + mu_o.sum())

        def arrivals(where: NDArray[np.bool_]) -> float:
            return float(mu_a @ self._block(a, where).sum(1) + mu_o @ self._block(o, where).sum(1)) / time

        exits = float(mu_a @ self._block(a, ~a).sum(1)) / time
        return Rates(exits, arrivals(self.target), arrivals(self.others))


@dataclass(frozen=True)
class EulerMaruyama:
    """The one-dimensional Euler-Maruyama step."""

    force: Callable[[Array], Array]
    mobility: float
    kT: float

    @property
    def spread(self) -> float:
        return float(np.sqrt(2.0 * self.kT * self.mobility))

    def step(self, x: Array, y: Array) -> Array:
        """Density (n_x, n_y) of y after one step from x."""
        mean = x + self.mobility * self.force(x)
        z = (y[None, :] - mean[:, None]) / self.spread
        density: Array = np.exp(-0.5 * z * z) / (self.spread * np.sqrt(2.0 * np.pi))
        return density

    def chain(
        self,
        low: float,
        high: float,
        edges: Sequence[float],
        label: Callable[[Array], NDArray[np.int8]],
        lag_steps: int,
        timestep: float,
        order: int = 8,
    ) -> Chain:
        """Return the chain of one lag on [low, high], beyond which it never goes; `edges` are those of regions."""
        x, w = panels([low, *sorted(edges), high], 1.5 * self.spread, order)
        one = self.step(x, x) * w
        matrix = np.linalg.matrix_power(one / one.sum(1, keepdims=True), lag_steps)
        return Chain(x, w, matrix, label(x), lag_steps * timestep)

    def committor_of(self, chain: Chain, x: Array, lag_steps: int) -> Array:
        """Return q (n,) at any points outside the regions: one step from there, m - 1 steps on the nodes, then q."""
        one = self.step(chain.x, chain.x) * chain.weights
        ahead = chain.committor
        for _ in range(lag_steps - 1):
            ahead = one @ ahead
        found: Array = (self.step(np.asarray(x, dtype=float), chain.x) * chain.weights) @ ahead
        return found


def panels(breaks: Sequence[float], width: float, order: int) -> tuple[Array, Array]:
    """Return Gauss-Legendre nodes and weights on panels no wider than `width` that never straddle a break."""
    node, weight = np.polynomial.legendre.leggauss(order)
    xs, ws = [], []
    for a, b in pairwise(breaks):
        ends = np.linspace(a, b, int(np.ceil((b - a) / width)) + 1)
        middle, half = 0.5 * (ends[1:] + ends[:-1]), 0.5 * np.diff(ends)
        xs.append((middle[:, None] + half[:, None] * node).ravel())
        ws.append((half[:, None] * weight).ravel())
    return np.concatenate(xs), np.concatenate(ws)

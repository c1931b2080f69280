"""Walkers: the walkers of a walk, what is recorded of them, and how long they stay away from the core.

Plain containers with one row a walker; `branching_walk` moves them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..paths.tree import PathTree, TreeBuilder, excursions
from ..statistics.branching import Offspring

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """What the tree does not hold of its frames, in the same order, for learning.

    log_weights (n_frames,) on arrival, before branching; codes (n_frames,) region codes; blocks: offsets of the
    frames that were recorded at the same time.
    """

    log_weights: Array
    codes: NDArray[np.int8]
    blocks: NDArray[np.int64]


@dataclass
class Population:
    """Walkers; `last` is their last structure in A, `returned` says who has been in A since the walk began.

    `anew` are those that went on from there after they had come to B or D.
    """

    positions: Array
    last: Array
    log_weights: Array
    log_values: Array
    log_reference: Array
    log_lowest: Array
    root: NDArray[np.int32]
    biased: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    returned: NDArray[np.bool_]
    anew: NDArray[np.bool_]
    frame: NDArray[np.int32]

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Population:
        """Return some of the walkers."""
        return Population(*(getattr(self, field.name)[rows] for field in fields(self)))

    def and_also(self, more: Population) -> Population:
        """Return these walkers and more of them."""
        return Population(*(np.concatenate([getattr(p, f.name) for p in (self, more)]) for f in fields(self)))

    def offspring(self, children: Offspring) -> Population:
        """Return the walkers that branching makes of these."""
        born = self.take(children.parents)
        born.log_weights = born.log_weights + children.log_factors
        return born


@dataclass(frozen=True)
class Excursions:
    """How long the walks of each root last, as sums of weights relative to the root's own; all (n_roots,), in lags.

    `early` are the lags that a basin simulation sees as well: those of the first `longest` lags, before the first end
    in B or D. All others are `late`; `late_inside` are those that began in A outside the core, and `late_exits` the
    exits from A in the late lags.
    """

    early: Array
    late: Array
    late_inside: Array
    late_exits: Array

    @classmethod
    def none(cls, n: int) -> Excursions:
        """Return zeros for n roots."""
        return cls(*np.zeros((4, n)))

    def add(self, late: NDArray[np.bool_], before: Population, after: Population, weights: Array) -> None:
        """Count a lag; `late` (n,) and `weights` (n,) are those of the walkers."""
        n = len(self.early)
        for total, who in (
            (self.early, ~late), (self.late, late), (self.late_inside, late & before.inside),
            (self.late_exits, late & before.inside & ~after.inside),
        ):  # fmt: skip
            if who.any():
                total += np.bincount(before.root[who], weights[who], minlength=n)


class Recorder:
    """Collects frames, leaves, and returns to A."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self.log_weights: list[Array] = []
        self.codes: list[NDArray[np.int8]] = []
        self.inside: list[NDArray[np.bool_]] = []
        self.leaves: list[tuple[NDArray[Any], ...]] = []  # frames, codes, log_weights, roots, lowest ln G, whether last
        self.returns: list[tuple[NDArray[np.int32], Array, NDArray[np.int32]]] = []

    def add(
        self,
        x: Array,
        parents: NDArray[np.int32],
        log_weights: Array,
        codes: NDArray[np.int8],
        inside: NDArray[np.bool_],
        lag: int,
    ) -> NDArray[np.int32]:
        """Record frames and return their indices; arguments as for `TreeBuilder.add` and `Frames`."""
        ids = self.builder.add(x, parents, lag)
        self.log_weights.append(log_weights)
        self.codes.append(codes)
        self.inside.append(inside)
        return ids

    def end(self, gone: Population, codes: NDArray[np.int8], last: NDArray[np.bool_]) -> None:
        """Record who came to a region, and whether its walk is over."""
        lowest = np.where(gone.anew, np.inf, gone.log_lowest)
        self.leaves.append((gone.frame, codes, gone.log_weights, gone.root, lowest, last))

    def back(self, who: Population) -> None:
        """Record who came back to A."""
        self.returns.append((who.frame, who.log_weights, who.root))

    def frames(self) -> Frames:
        """Return what the tree does not hold."""
        blocks = np.cumsum([0] + [len(c) for c in self.codes])
        return Frames(np.concatenate(self.log_weights), np.concatenate(self.codes), blocks)

    def trees(self, whole: bool) -> tuple[PathTree, PathTree]:
        """Return the walks and, unless they are the `whole` paths, those which they contain."""
        ids, codes, log_weights, root = (np.concatenate(part) for part in list(zip(*self.leaves, strict=True))[:4])
        tree = self.builder.finish(ids, codes, log_weights, root, 0, 0)
        if whole:
            return tree, tree
        none = np.zeros(0, np.int32)
        columns = zip((none, np.zeros(0), none), *self.returns, strict=True)
        return tree, excursions(tree, np.concatenate(self.inside), *(np.concatenate(column) for column in columns))

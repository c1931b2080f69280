"""Weighted transition paths, put together from the trees that a run stores.

Every path carries ``log_weight``, the logarithm of its contribution to the expected *number* of such paths in the
record of its batch and round, so the sum of ``exp(log_weight)`` over the success paths of a record is its number of
transitions. Failure paths may be stored as a share; their weights are divided by it already.

Frames come from `tree`, averages and their error bars from `averages`, files from `storage.rounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import bad_input
from ..statistics import averages
from ..statistics.estimators import Estimate
from .tree import Frames, PathTree, TreeBuilder, depths

__all__ = ["SUCCESS", "Frames", "PathEnsemble", "PathTree", "TreeBuilder", "trivial_topology"]

Array = NDArray[np.float64]
SUCCESS = 2
"""Region code of the target B."""


class PathEnsemble:
    """Weighted paths of many trees; positions are read only when asked for.

    Parameters
    ----------
    trees : iterable of PathTree
    topology : mdtraj.Topology, or a function that returns one, or None
        For `to_mdtraj`; with None all atoms are of no element.
    failure_share : float
        Share of the failure paths that was kept (their weights already make up for it).
    frame_interval : float
        The lag in ps, the unit of the frames' times.
    unit_cell : (3, 3), optional
        Box vectors in nm of a periodic system; `to_mdtraj` hands them on. Positions are never wrapped.
    n_batches : int, optional
        All batches of the run, also those without a path; by default up to the last one that has a tree.
    """

    def __init__(
        self,
        trees: Iterable[PathTree],
        topology: Any | Callable[[], Any] | None = None,
        failure_share: float = 1.0,
        frame_interval: float = 1.0,
        unit_cell: ArrayLike | None = None,
        n_batches: int | None = None,
    ) -> None:
        self.trees: Sequence[PathTree] = tuple(trees)
        self._topology = topology
        self.failure_share = float(failure_share)
        self.frame_interval = float(frame_interval)
        self.unit_cell = None if unit_cell is None else np.asarray(unit_cell, dtype=np.float64)
        self.n_batches = n_batches or 1 + max((tree.batch for tree in self.trees), default=0)
        counts = [tree.n_paths for tree in self.trees]
        self._tree_of_path = np.repeat(np.arange(len(counts)), counts)
        self._index_in_tree = np.arange(len(self._tree_of_path)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)

    def __len__(self) -> int:
        return len(self._tree_of_path)

    def __repr__(self) -> str:
        n = int(self.is_success.sum())
        return f"PathEnsemble({n} success and {len(self) - n} failure paths of {self.n_batches} batches)"

    def _gather(self, of_tree: Callable[[PathTree], NDArray[Any]], dtype: Any) -> NDArray[Any]:
        """Return what `of_tree` gives for each path of a tree, for the paths of this ensemble."""
        whole = [np.empty(0, dtype=dtype), *(of_tree(tree) for tree in self.trees)]
        starts = np.cumsum([0, *(tree.n_paths for tree in self.trees)])[:-1]
        index = starts[self._tree_of_path] + self._index_in_tree if len(self) else self._index_in_tree
        return np.concatenate(whole).astype(dtype, copy=False)[index]

    @cached_property
    def log_weights(self) -> NDArray[np.float64]:
        """Log of each path's contribution to the expected number of such paths, (n,)."""
        return self._gather(lambda tree: tree.log_weights, np.float64)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Each path's contribution to the expected number of such paths, (n,)."""
        return np.exp(self.log_weights)

    @cached_property
    def labels(self) -> NDArray[np.int8]:
        """Region code of each end, (n,)."""
        return self._gather(lambda tree: tree.labels, np.int8)

    @cached_property
    def roots(self) -> NDArray[np.int32]:
        """Root of each path within its batch and round, (n,)."""
        return self._gather(lambda tree: tree.roots, np.int32)

    @cached_property
    def batches(self) -> NDArray[np.int32]:
        """Batch of each path, (n,)."""
        return np.array([tree.batch for tree in self.trees], dtype=np.int32)[self._tree_of_path]

    @cached_property
    def rounds(self) -> NDArray[np.int32]:
        """Round of each path, (n,)."""
        return np.array([tree.round for tree in self.trees], dtype=np.int32)[self._tree_of_path]

    @property
    def is_success(self) -> NDArray[np.bool_]:
        """Whether each path ends in B, (n,)."""
        return np.equal(self.labels, SUCCESS)

    def positions(self, i: int) -> NDArray[np.float32]:
        """Return the frames of path `i`, (n_path_frames, n_atoms, 3) in nm: last in A, ..., first in the end region."""
        tree = self.trees[self._tree_of_path[i]]
        return np.asarray(tree.positions[tree.path(self._index_in_tree[i])], dtype=np.float32)

    def times(self, i: int) -> NDArray[np.float64]:
        """Return the time of each frame of path `i` since its first, (n_path_frames,) in ps."""
        tree = self.trees[self._tree_of_path[i]]
        return np.asarray(tree.lags[tree.path(self._index_in_tree[i])] * self.frame_interval, dtype=np.float64)

    def durations(self) -> NDArray[np.float64]:
        """Return the time from the first to the last frame of every path, (n,) in ps."""
        return self._gather(lambda tree: tree.lags[tree.leaves], np.float64) * self.frame_interval

    def n_frames(self) -> NDArray[np.int64]:
        """Return the number of frames of every path, (n,)."""
        return self._gather(lambda tree: depths(tree.parents)[tree.leaves] + 1, np.int64)

    def select(self, keep: ArrayLike) -> PathEnsemble:
        """Return the chosen paths (booleans or indices); trees are shared, nothing is copied."""
        chosen = np.asarray(keep)
        if not chosen.size:
            chosen = np.empty(0, dtype=np.intp)  # an empty list would be floats
        part = PathEnsemble(
            self.trees, self._topology, self.failure_share, self.frame_interval, self.unit_cell, self.n_batches
        )
        part._tree_of_path, part._index_in_tree = self._tree_of_path[chosen], self._index_in_tree[chosen]
        return part

    def success(self) -> PathEnsemble:
        """Return the paths that end in B."""
        return self.select(self.is_success)

    def failures(self) -> PathEnsemble:
        """Return the kept paths that end in A or another region."""
        return self.select(~self.is_success)

    @property
    def topology(self) -> Any | None:
        """The mdtraj.Topology, or None."""
        if callable(self._topology):
            self._topology = self._topology()
        return self._topology

    def to_mdtraj(self, i: int) -> Any:
        """Return path `i` as an mdtraj.Trajectory, `.time` in ps from the first frame, with the cell if there is one.

        A frame lies in A, the next one a lag later; then there is one every `frame_stride` lags, the first of them
        perhaps earlier, and one at the end.
        """
        import mdtraj

        frames = self.positions(i)
        topology = self.topology if self.topology is not None else trivial_topology(frames.shape[1])
        trajectory = mdtraj.Trajectory(frames, topology, time=self.times(i))
        if self.unit_cell is not None:
            trajectory.unitcell_vectors = np.repeat(self.unit_cell[None], len(frames), axis=0)
        return trajectory

    def average(self, f: Callable[[Any], Any], trajectory: bool = False) -> Estimate:
        """Return the weighted mean of `f` over these paths with its error over batches, see `averages`.

        Parameters
        ----------
        f
            Called with the frames of a path, (n_frames, n_atoms, 3) in nm; returns a number for the path, or one for
            each frame, (n_frames,), which then counts with the time that the frame stands for.
        trajectory
            Call `f` with an mdtraj.Trajectory instead.

        Raises
        ------
        InputError
            `f` returned something else, or a number that is not finite.
        """
        return averages.average(_values(self, f, trajectory), self.n_batches)

    def histogram(
        self,
        f: Callable[[Any], Any],
        bins: int | ArrayLike = 50,
        range: tuple[float, float] | None = None,
        trajectory: bool = False,
    ) -> averages.Histogram:
        """Return the weighted distribution of `f` over these paths with errors over batches; `f` as in `average`.

        `bins` and `range` are those of `numpy.histogram`; values beyond the edges count in the total alone.
        """
        return averages.histogram(_values(self, f, trajectory), self.n_batches, bins, range)


def trivial_topology(n_atoms: int) -> Any:
    """Return an mdtraj.Topology of one residue with `n_atoms` atoms of no element and no bonds."""
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("UNK", topology.add_chain())
    for i in range(n_atoms):
        topology.add_atom(f"X{i % 1000}", mdtraj.element.virtual, residue)
    return topology


def _values(paths: PathEnsemble, f: Callable[[Any], Any], trajectory: bool) -> Iterator[tuple[int, Array, Array]]:
    """Yield the batch of each path, its value or values, and the weight of each."""
    # A ratio does not know a common factor, so the largest weight may be 1, however small it is.
    largest = paths.log_weights.max(initial=-np.inf)
    scaled = np.exp(paths.log_weights - (largest if largest > -np.inf else 0.0))
    per_frame: bool | None = None
    for i, (batch, weight) in enumerate(zip(paths.batches.tolist(), scaled, strict=True)):
        if not weight > 0.0:
            continue
        values = _checked(f(paths.to_mdtraj(i) if trajectory else paths.positions(i)), i)
        if per_frame is not None and per_frame != bool(values.ndim):
            raise bad_input("f", "a number for every path or an array for every path", "now one and then the other")
        per_frame = bool(values.ndim)
        times = paths.times(i)
        if per_frame and len(values) != len(times):
            expected = f"a number, or one for each of the {len(times)} frames of path {i}"
            raise bad_input("f", expected, f"shape {values.shape}")
        yield batch, np.atleast_1d(values), weight * (_spans(times) if per_frame else np.ones(1))


def _checked(found: Any, i: int) -> Array:
    values = np.asarray(found, dtype=np.float64)
    if values.ndim == 2 and values.shape[1] == 1:  # what mdtraj returns for one distance or one torsion
        values = values[:, 0]
    if values.ndim > 1:
        raise bad_input("f", "a number, or one for each frame", f"shape {values.shape}", "return one column of it")
    if not np.isfinite(values).all():
        raise bad_input("f", "finite numbers", f"nan or infinity on path {i}")
    return values


def _spans(times: Array) -> Array:
    """Return the time (n_frames,) that each frame stands for by the trapezoidal rule; their sum is the duration."""
    steps = np.diff(times)
    return 0.5 * (np.append(steps, 0.0) + np.append(0.0, steps))

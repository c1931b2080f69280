"""Tree: the frames of branching paths, each stored once.

Copies of a split walker share their past, so a round of one batch is stored as a tree: every frame once, with
the index of the frame before it. A path is the walk from a leaf to its root, read backwards::

    leaf -> parents[leaf] -> parents[parents[leaf]] -> ... -> -1

Parents always have a lower index than their children. `ensemble` joins the trees of a run to an ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import bad_input


class Frames(Protocol):
    """Positions of frames, (n_frames, n_atoms, 3) float32 in nm: an array, or a file that is read when indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n_frames, n_atoms, 3)."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the positions of the chosen frames as a float32 array in nm."""


def _ancestors(parents: NDArray[np.integer[Any]], frames: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Mark the given frames and all their ancestors, one generation of parents at a time."""
    needed = np.zeros(len(parents), dtype=bool)
    level = np.unique(frames)
    while level.size:
        needed[level] = True
        level = parents[level]
        level = np.unique(level[level >= 0])
        level = level[~needed[level]]
    return needed


def _renumber(
    parents: NDArray[np.integer[Any]], needed: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return (new index of every old frame, parents of the kept frames) after the others are dropped."""
    new_index = np.cumsum(needed, dtype=np.int32) - np.int32(1)
    kept = parents[needed]
    return new_index, np.where(kept >= 0, new_index[kept], -1).astype(np.int32)


def depths(parents: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the number of frames before each frame on its way from the root, (n_frames,)."""
    depths = [0] * len(parents)
    for frame, parent in enumerate(parents.tolist()):
        if 0 <= parent < frame:
            depths[frame] = depths[parent] + 1
    return np.array(depths, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class PathTree:
    """All paths of one batch in one round, with every frame stored once.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) float32
        Frames in nm.
    parents : (n_frames,) int32
        The frame before; -1 for the first frame of a root (the last frame in A before the exit).
    leaves : (n_paths,) int32
        Last frame of each path.
    labels : (n_paths,) int8
        Region code of the end: 2 success, 1 or >= 3 failure.
    log_weights : (n_paths,) float64
        Logarithm of the contribution to the expected number of such paths; failures: divided by their kept share.
    roots : (n_paths,) int32
        Index of the root within the batch and round.
    batch, round : int
    lags : (n_frames,) int32, optional
        Time of each frame in lags since the first frame of its root; without it, frames are one lag apart.

    Raises
    ------
    InputError
        When lengths disagree, a parent is not before its child, a leaf is no frame, or a log weight is nan or +inf.
    """

    positions: Frames
    parents: NDArray[np.int32]
    leaves: NDArray[np.int32]
    labels: NDArray[np.int8]
    log_weights: NDArray[np.float64]
    roots: NDArray[np.int32]
    batch: int
    round: int
    lags: NDArray[np.int32] = None  # type: ignore[assignment]  # filled in below

    def __post_init__(self) -> None:
        n_frames, n_paths = len(self.parents), len(self.leaves)
        if self.lags is None:
            object.__setattr__(self, "lags", depths(self.parents))
        if self.lags.shape != (n_frames,):
            raise bad_input("lags", f"shape ({n_frames},), one for each frame", self.lags.shape)
        shape = self.positions.shape
        if len(shape) != 3 or shape[0] != n_frames or shape[2] != 3:
            raise bad_input("positions", f"shape ({n_frames}, n_atoms, 3), one frame for each parent", shape)
        for name in ("labels", "log_weights", "roots"):
            if getattr(self, name).shape != (n_paths,):
                raise bad_input(name, f"shape ({n_paths},), one for each leaf", getattr(self, name).shape)
        if np.any(self.parents < -1) or np.any(self.parents >= np.arange(n_frames)):
            raise bad_input("parents", "-1 or the index of an earlier frame", "a parent that is not before its child")
        if n_paths and (self.leaves.min() < 0 or self.leaves.max() >= n_frames):
            got = f"{self.leaves.min()}..{self.leaves.max()}"
            raise bad_input("leaves", f"frame indices from 0 to {n_frames - 1}", got)
        if np.any(np.isnan(self.log_weights)) or np.any(self.log_weights == np.inf):
            raise bad_input("log_weights", "finite numbers or -inf", "nan or +inf")

    @property
    def n_frames(self) -> int:
        """Number of frames stored."""
        return len(self.parents)

    @property
    def n_paths(self) -> int:
        """Number of paths (leaves)."""
        return len(self.leaves)

    def path(self, i: int) -> NDArray[np.int64]:
        """Return the frame indices of path `i`, first to last, shape (n_path_frames,)."""
        frames = []
        frame = int(self.leaves[i])
        while frame >= 0:
            frames.append(frame)
            frame = int(self.parents[frame])
        return np.array(frames[::-1], dtype=np.int64)

    def prune(self, keep: ArrayLike) -> PathTree:
        """Return the tree of the chosen paths only, without the frames that none of them needs.

        Parameters
        ----------
        keep : (n_paths,) bool

        Raises
        ------
        InputError
            When `keep` is not a boolean for each path.
        """
        mask = np.asarray(keep)
        if mask.shape != (self.n_paths,) or mask.dtype != np.bool_:
            raise bad_input("keep", f"booleans of shape ({self.n_paths},)", f"{mask.dtype} of shape {mask.shape}")
        needed = _ancestors(self.parents, self.leaves[mask])
        new_index, parents = _renumber(self.parents, needed)
        return PathTree(
            np.asarray(self.positions[needed]),
            parents,
            new_index[self.leaves[mask]],
            self.labels[mask],
            self.log_weights[mask],
            self.roots[mask],
            self.batch,
            self.round,
            self.lags[needed],
        )


def excursions(
    tree: PathTree,
    inside: NDArray[np.bool_],
    leaves: NDArray[np.int32],
    log_weights: NDArray[np.float64],
    roots: NDArray[np.int32],
) -> PathTree:
    """Return the paths outside A that are contained in walks which go on when they come back to A.

    Each starts with the last frame in A before it left and ends with the first frame back in A, or in another region.

    Parameters
    ----------
    tree
        The walks.
    inside
        (n_frames,) which frames are in A; of a walker that leaves, the last one in A is a frame of its own.
    leaves, log_weights, roots
        (n_returns,) of every return to A: the first frame there, the weight of the walker and its root.
    """
    away = tree.labels > 1
    labels = np.concatenate([np.ones(len(leaves), np.int8), tree.labels[away]])
    parents = np.where(inside & inside[tree.parents] & (tree.parents >= 0), np.int32(-1), tree.parents)
    start = np.where(parents >= 0, parents, np.arange(len(parents)))
    while not np.array_equal(start, start[start]):
        start = start[start]
    whole = PathTree(
        tree.positions, parents, np.concatenate([leaves, tree.leaves[away]]), labels,
        np.concatenate([log_weights, tree.log_weights[away]]), np.concatenate([roots, tree.roots[away]]),
        tree.batch, tree.round, tree.lags - tree.lags[start],
    )  # fmt: skip
    return whole.prune(np.ones(len(labels), dtype=bool))


class TreeBuilder:
    """Collects the frames of walkers while they move; `finish` joins them to a `PathTree`.

    Parameters
    ----------
    n_atoms : int, optional
        Only needed for the shape of a tree that stays empty.
    """

    def __init__(self, n_atoms: int = 0) -> None:
        self._n_atoms = n_atoms
        self._clear()

    def _clear(self) -> None:
        self._positions: list[NDArray[np.float32]] = []
        self._parents: list[NDArray[np.int32]] = []
        self._lags: list[NDArray[np.int32]] = []
        self._n_frames = 0

    @property
    def n_frames(self) -> int:
        """Number of frames held."""
        return self._n_frames

    def add(self, positions: ArrayLike, parents: ArrayLike, lag: int) -> NDArray[np.int32]:
        """Append one frame for each walker and return the indices of the new frames.

        Parameters
        ----------
        positions : (n, n_atoms, 3)
            In nm; copied as float32, so the caller may reuse the buffer.
        parents : (n,) int
            Frames before these ones, -1 for roots.
        lag : int
            Time of these frames, in lags since the first frames.

        Raises
        ------
        InputError
            When shapes disagree or a parent is not a frame added before.
        """
        frames = np.array(positions, dtype=np.float32)
        before = np.array(parents, dtype=np.int32)
        if frames.ndim != 3 or before.shape != frames.shape[:1] or frames.shape[2] != 3:
            got = f"{frames.shape} and {before.shape}"
            raise bad_input("positions, parents", "shapes (n, n_atoms, 3) and (n,)", got)
        if before.size and (before.min() < -1 or before.max() >= self._n_frames):
            raise bad_input("parents", f"-1 or frames below {self._n_frames}", f"{before.min()}..{before.max()}")
        first = self._n_frames
        self._n_frames += len(before)
        self._n_atoms = frames.shape[1]
        self._positions.append(frames)
        self._parents.append(before)
        self._lags.append(np.full(len(before), lag, dtype=np.int32))
        return np.arange(first, self._n_frames, dtype=np.int32)

    def _joined(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        empty = np.empty((0, self._n_atoms, 3), dtype=np.float32)
        none = np.empty(0, dtype=np.int32)
        return (
            np.concatenate([empty, *self._positions]),
            np.concatenate([none, *self._parents]),
            np.concatenate([none, *self._lags]),
        )

    def finish(
        self, leaves: ArrayLike, labels: ArrayLike, log_weights: ArrayLike, roots: ArrayLike, batch: int, round: int
    ) -> PathTree:
        """Return the tree (see `PathTree` for the arguments) and leave the builder empty for the next one."""
        positions, parents, lags = self._joined()
        self._clear()
        return PathTree(
            positions,
            parents,
            np.array(leaves, dtype=np.int32),
            np.array(labels, dtype=np.int8),
            np.array(log_weights, dtype=np.float64),
            np.array(roots, dtype=np.int32),
            int(batch),
            int(round),
            lags,
        )

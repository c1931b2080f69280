"""Trees of frames: pruning, building and the ensemble, against a plain walk from each leaf."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmm_rlis.errors import InputError
from openmm_rlis.paths.ensemble import PathEnsemble, PathTree, TreeBuilder


def random_tree(seed: int, n_frames: int, n_paths: int, batch: int = 0, round: int = 0, n_atoms: int = 2) -> PathTree:
    """Return a random tree whose frames are all different."""
    rng = np.random.default_rng(seed)
    parents = np.array([rng.integers(-1, i) if i else -1 for i in range(n_frames)], dtype=np.int32)
    n_paths = n_paths if n_frames else 0
    return PathTree(
        rng.normal(size=(n_frames, n_atoms, 3)).astype(np.float32),
        parents,
        rng.integers(0, max(n_frames, 1), size=n_paths).astype(np.int32),
        rng.choice([1, 2, 3], size=n_paths).astype(np.int8),
        rng.normal(scale=30.0, size=n_paths),
        rng.integers(0, 9, size=n_paths).astype(np.int32),
        batch,
        round,
    )


trees = st.builds(random_tree, st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(0, 12))


@given(tree=trees, data=st.data())
def test_prune_keeps_exactly_the_needed_frames_and_every_kept_path(tree: PathTree, data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=tree.n_paths, max_size=tree.n_paths)), dtype=bool)
    pruned = tree.prune(keep)
    needed = {int(frame) for i in np.flatnonzero(keep) for frame in tree.path(i)}
    assert pruned.n_frames == len(needed)
    assert np.array_equal(pruned.positions[:], tree.positions[sorted(needed)])
    assert pruned.n_paths == keep.sum()
    for new, old in enumerate(np.flatnonzero(keep)):
        assert np.array_equal(pruned.positions[pruned.path(new)], tree.positions[tree.path(old)])
        for name in ("labels", "log_weights", "roots"):
            assert getattr(pruned, name)[new] == getattr(tree, name)[old]


@given(tree=trees)
def test_path_runs_from_a_root_to_the_leaf(tree: PathTree) -> None:
    for i in range(tree.n_paths):
        path = tree.path(i)
        assert path[-1] == tree.leaves[i]
        assert tree.parents[path[0]] == -1
        assert np.array_equal(tree.parents[path[1:]], path[:-1])


@given(seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 12))
def test_builder_gives_each_walker_its_own_history(seed: int, n_steps: int) -> None:
    rng = np.random.default_rng(seed)
    builder = TreeBuilder()
    positions = rng.normal(size=(4, 2, 3)).astype(np.float32)
    histories = [[x.copy()] for x in positions]
    present = builder.add(positions, np.full(4, -1), 0)
    for step in range(n_steps):
        chosen = rng.integers(0, len(present), size=rng.integers(1, 6))
        histories = [histories[j].copy() for j in chosen]
        buffer = rng.normal(size=(len(chosen), 2, 3)).astype(np.float32)
        for history, x in zip(histories, buffer, strict=True):
            history.append(x.copy())
        present = builder.add(buffer, present[chosen], step + 1)
        buffer[:] = np.nan  # the builder must own a copy
    n = len(present)
    tree = builder.finish(present, np.full(n, 2), np.zeros(n), np.zeros(n), batch=3, round=1)
    for i, history in enumerate(histories):
        assert np.array_equal(tree.positions[tree.path(i)], np.array(history))
    assert (tree.batch, tree.round, builder.n_frames) == (3, 1, 0)
    assert tree.leaves.dtype == tree.parents.dtype == np.int32


def test_an_empty_builder_gives_an_empty_tree() -> None:
    tree = TreeBuilder(n_atoms=5).finish([], [], [], [], batch=0, round=0)
    assert tree.positions.shape == (0, 5, 3)
    assert tree.prune(np.zeros(0, dtype=bool)).n_frames == 0


def test_builder_and_prune_are_fast_enough_for_every_lag() -> None:
    # 300 walkers, 2000 lags; 0.6 M frames. Generous limits: a Python loop over frames would miss them by far.
    builder, rng = TreeBuilder(), np.random.default_rng(1)
    positions = rng.normal(size=(300, 7, 3))
    start = time.perf_counter()
    present = builder.add(positions, np.full(300, -1), 0)
    for _ in range(2000):
        present = builder.add(positions, present, 1)
    added = time.perf_counter()
    tree = builder.finish(present, np.full(300, 2), np.zeros(300), np.arange(300), 0, 0)
    pruned = tree.prune(np.arange(300) % 3 == 0)
    assert pruned.n_frames == 100 * 2001
    assert (added - start) / 2000 < 1e-3
    assert time.perf_counter() - added < 5.0


@settings(max_examples=30)
@given(seeds=st.lists(st.integers(0, 999), max_size=5))
def test_ensemble_lists_the_paths_of_all_trees_in_order(seeds: list[int]) -> None:
    members = [random_tree(seed, n_frames=seed % 20, n_paths=seed % 7, batch=i, round=10 + i)
               for i, seed in enumerate(seeds)]  # fmt: skip
    ensemble = PathEnsemble(members)
    flat = [(tree, i) for tree in members for i in range(tree.n_paths)]
    assert len(ensemble) == len(flat)
    for chosen, expected in (
        (ensemble, flat),
        (ensemble.success(), [(t, i) for t, i in flat if t.labels[i] == 2]),
        (ensemble.failures(), [(t, i) for t, i in flat if t.labels[i] != 2]),
        (
            ensemble.success().select(range(ensemble.is_success.sum())[::-1]),
            [(t, i) for t, i in flat if t.labels[i] == 2][::-1],
        ),
        (ensemble.select([]), []),
    ):
        assert np.array_equal(chosen.log_weights, [t.log_weights[i] for t, i in expected])
        assert np.array_equal(chosen.weights, np.exp([t.log_weights[i] for t, i in expected]))
        assert np.array_equal(chosen.labels, [t.labels[i] for t, i in expected])
        assert np.array_equal(chosen.roots, [t.roots[i] for t, i in expected])
        assert np.array_equal(chosen.batches, [t.batch for t, _ in expected])
        assert np.array_equal(chosen.rounds, [t.round for t, _ in expected])
        for k, (t, i) in enumerate(expected):
            assert np.array_equal(chosen.positions(k), t.positions[t.path(i)])


def test_to_mdtraj_without_topology_has_times_in_ps() -> None:
    tree = random_tree(5, 40, 6)
    ensemble = PathEnsemble([tree], frame_interval=0.25)
    trajectory = ensemble.to_mdtraj(3)
    assert np.array_equal(trajectory.xyz, tree.positions[tree.path(3)])
    assert np.allclose(trajectory.time, 0.25 * np.arange(len(trajectory)))
    assert trajectory.unitcell_lengths is None and trajectory.n_atoms == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"parents": np.array([-1, 1, 0], np.int32)}, "parents"),
        ({"parents": np.array([-2, 0, 0], np.int32)}, "parents"),
        ({"parents": np.array([-1, 0], np.int32)}, "positions"),
        ({"leaves": np.array([3], np.int32)}, "leaves"),
        ({"labels": np.array([2, 2], np.int8)}, "labels"),
        ({"log_weights": np.array([np.nan])}, "log_weights"),
        ({"log_weights": np.array([np.inf])}, "log_weights"),
    ],
)
def test_a_tree_that_makes_no_sense_is_refused_by_name(change: dict[str, np.ndarray], named: str) -> None:
    sound = {
        "positions": np.zeros((3, 1, 3), np.float32),
        "parents": np.array([-1, 0, 0], np.int32),
        "leaves": np.array([2], np.int32),
        "labels": np.array([2], np.int8),
        "log_weights": np.array([-np.inf]),
        "roots": np.array([0], np.int32),
        "batch": 0,
        "round": 0,
    }
    assert np.array_equal(PathTree(**sound).path(0), [0, 2])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"^{named}: expected"):
        PathTree(**{**sound, **change})  # type: ignore[arg-type]


def test_bad_arguments_of_add_and_prune_are_refused() -> None:
    builder = TreeBuilder()
    with pytest.raises(InputError, match="parents: expected -1 or frames below 0"):
        builder.add(np.zeros((1, 2, 3)), [0], 0)
    with pytest.raises(InputError, match="positions, parents"):
        builder.add(np.zeros((2, 2, 3)), [-1], 0)
    assert builder.n_frames == 0
    with pytest.raises(InputError, match="keep: expected booleans"):
        random_tree(1, 5, 2).prune([0, 1])

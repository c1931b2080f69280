"""Figures and tables from made-up runs; the numbers behind them against sums done another way."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from openmm_rlis.cli import commands, exit_status
from openmm_rlis.paths.ensemble import PathEnsemble, PathTree, TreeBuilder
from openmm_rlis.report import path_figures, plot_data
from openmm_rlis.report import write as report
from openmm_rlis.report.projections import Plane
from openmm_rlis.statistics import estimators
from openmm_rlis.storage.run_directory import RunDirectory

PNG = b"\x89PNG\r\n\x1a\n"
SYSTEM = "<System><Particles>" + "<Particle/>" * 3 + "</Particles></System>"


def random_tree(rng: np.random.Generator, batch: int = 0, n_roots: int = 6) -> PathTree:
    """Random branching paths in which the children of a frame share its weight equally."""
    builder = TreeBuilder(3)
    leaves, labels, log_weights, roots = [], [], [], []
    for root in range(n_roots):
        alive = [(int(builder.add(rng.normal(size=(1, 3, 3)), [-1], 0)[0]), 0.0, 0)]
        while alive:
            frame, log_weight, lag = alive.pop()
            ends = rng.random() < 0.4
            children = [frame] if ends else [frame] * (1 + int(rng.random() < 0.3))
            for parent in children:
                new = int(builder.add(rng.normal(size=(1, 3, 3)), [parent], lag + 2)[0])
                if ends or len(alive) > 20:
                    leaves.append(new)
                    labels.append(int(rng.choice([1, 2, 3])))
                    log_weights.append(log_weight - np.log(len(children)))
                    roots.append(root)
                else:
                    alive.append((new, log_weight - np.log(len(children)), lag + 2))
    return builder.finish(leaves, labels, log_weights, roots, batch, 0)


def make_run(seed: int, source: str, target: str, n_rounds: int = 4, n_batches: int = 8) -> plot_data.RunData:
    rng = np.random.default_rng(seed)
    transitions, exits = (
        rng.gamma(5.0, 1.0, (n_rounds, n_batches)),
        rng.poisson(50.0, (n_rounds, n_batches)).astype(float),
    )
    trees = [random_tree(rng, batch) for batch in range(n_batches)]
    result = {
        "system": "toy",
        "source": source,
        "target": target,
        "others": ["D"],
        "beta": 2.0,
        "seed": 1,
        "stopped": "target",
    }
    result |= {"cost": {"force_evaluations": {"flux": 1e6, "total": 2e6}, "network_calls": 10, "seconds": 3.0}}
    result |= {"diagnostics": {"ess": 12.5, "tail_index": None, "alarms": ["one root carries half of the rate"]}}
    replicas = rng.normal(size=(50, 3, 3))
    time = np.full((n_rounds, n_batches), 10.0)
    run = plot_data.RunData(result, transitions, exits, time, PathEnsemble(trees), replicas, 1.0)
    estimate = run.rate()
    result |= {"rate": estimate.to_dict(), "mean_first_passage_time": estimators.reciprocal(estimate).to_dict()}
    return run


PLANE = Plane(
    lambda x: np.asarray(x)[:, 0, :2].astype(float),
    ("$u$", "$v$"),
    {"A": np.array([-1.0, 0.0]), "B": np.array([1.0, 0.0])},
)
MODULE = SimpleNamespace(plane=PLANE.points, plane_labels=PLANE.labels, landmarks=lambda: PLANE.landmarks)


def draw_all(runs: list[plot_data.RunData], folder: Path) -> list[Path]:
    return path_figures.draw_all(path_figures.prepare(runs, PLANE), folder)


def test_every_figure_of_both_directions_is_written(tmp_path: Path) -> None:
    files = draw_all([make_run(1, "A", "B"), make_run(2, "B", "A")], tmp_path / "figures")
    names = {"rate_by_batch", "rate_by_round", "root_shares", "path_durations", "paths_on_plane", "structures"}
    assert {file.stem for file in files} == names
    assert all(file.read_bytes().startswith(PNG) and file.stat().st_size > 5000 for file in files)


@pytest.mark.parametrize("case", ["no paths", "no transitions", "one batch", "one round"])
def test_figures_of_meagre_runs(tmp_path: Path, case: str) -> None:
    run = make_run(1, "A", "B", n_rounds=1 if case == "one round" else 3, n_batches=1 if case == "one batch" else 4)
    if case == "no paths":
        run = replace(run, paths=PathEnsemble([]))
    if case == "no transitions":
        run = replace(run, transitions=0 * run.transitions, paths=run.paths.failures())
    files = draw_all([run], tmp_path)
    assert all(file.read_bytes().startswith(PNG) for file in files)


def shown(result: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        for item in report.tables(result):
            console.print(item)
    return console.export_text()


def test_tables_say_what_the_result_says() -> None:
    run = make_run(1, "C3", "C2")
    text, estimate = shown(dict(run.result)), run.rate()
    assert "toy: C3 → C2, beta 2, others D" in text
    assert f"{estimate.value:.4g}" in text and f"{100 * estimate.relative_error:.1f} %" in text and "1/ps" in text
    assert "alarm: one root carries half of the rate" in text and "2.00e+06" in text


@pytest.mark.parametrize("name", ["[/b]", "[x]", "[bold]A"])
def test_names_that_look_like_markup_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = {**make_run(1, name, "B").result, "system": name, "others": [name], "stopped": name}
    result["diagnostics"] = {"alarms": [name], name: 1.0}
    assert shown(result).count(name) >= 6
    check = SimpleNamespace(name=name, verdict="pass", detail=name)
    assert commands._show_checks(name, [check]) == exit_status.DONE and capsys.readouterr().out.count(name) == 3


def test_tables_of_unknown_errors() -> None:
    empty = {"value": None, "standard_error": None, "interval": [0.0, None], "n_batches": 1}
    text = shown({"system": "toy", "source": "A", "target": "B", "beta": 1.0, "rate": empty})
    assert "unknown" in text and "others none" in text


def test_report_reads_a_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_run(3, "A", "B")
    config = {
        "settings": {"n_batches": 8, "failure_share": 1.0, "frame_stride": 2}, "lag_time": 0.5, "system": "toy",
        "seed": 1, "method": "run", "source": "A", "target": "B", "others": ["D"], "beta": 2.0, "n_atoms": 3,
        "recipe": None,
    }  # fmt: skip
    state = {"state/positions": np.ones((5, 3, 3))}
    with RunDirectory.create(tmp_path / "run", config, SYSTEM) as run:
        assert "No rate yet" in report.report(tmp_path / "run")[-1].read_text(encoding="utf-8")
        for i in range(len(made.time)):
            arrays = {name: getattr(made, name)[i] for name in plot_data.ARRAYS}
            arrays |= {"ended": np.ones(8), "root_weights": np.ones(8), "root_batches": np.arange(8), **state}
            run.write_round("production", i, arrays, {}, made.paths.trees if i == 0 else ())
    monkeypatch.setattr(report, "system_module", lambda result: MODULE)
    *files, page = report.report(tmp_path / "run")
    assert len(files) == 6 and all(file.parent == tmp_path / "run" / "figures" for file in files)
    assert page == tmp_path / "run" / "report.html"
    loaded = plot_data.load(tmp_path / "run")
    assert loaded.rate() == made.rate() and loaded.frame_interval == 1.0
    assert loaded.replicas.shape == (20, 3, 3)


@given(st.integers(0, 2**32 - 1))
def test_frame_weights_are_sums_over_the_paths_through_them(seed: int) -> None:
    tree = random_tree(np.random.default_rng(seed), n_roots=3)
    expected = np.zeros(tree.n_frames)
    for i in range(tree.n_paths):
        expected[tree.path(i)] += np.exp(tree.log_weights[i])
    np.testing.assert_allclose(plot_data.frame_weights(tree), expected, rtol=1e-12)
    np.testing.assert_allclose(expected[tree.parents < 0], 1.0)


@given(st.integers(0, 2**32 - 1))
def test_root_shares_agree_with_a_sum_over_paths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    paths = PathEnsemble([random_tree(rng, batch, 3) for batch in range(3)], frame_interval=0.5)
    shares = plot_data.root_shares(paths)
    success = paths.success()
    keys = sorted(set(zip(success.batches.tolist(), success.roots.tolist(), strict=True)))
    by_hand = [success.weights[(success.batches == b) & (success.roots == r)].sum() for b, r in keys]
    np.testing.assert_allclose(shares, np.array(by_hand) / max(sum(by_hand), 1e-300))


def grid_of_points() -> tuple[list[np.ndarray], np.ndarray]:
    """Edges of 10 x 5 cells and two points in the middle of each."""
    edges = [np.linspace(0, 1, 11), np.linspace(0, 1, 6)]
    centres = np.meshgrid(*(0.5 * (e[1:] + e[:-1]) for e in edges), indexing="ij")
    return edges, np.stack(centres, axis=-1).reshape(-1, 2).repeat(2, axis=0)


def test_free_energy_of_a_known_density() -> None:
    """Exponentially weighted points on a uniform grid give a straight line, exactly; two such directions too."""
    beta, (edges, points) = 3.0, grid_of_points()
    weights = np.exp(-beta * 4.0 * points[:, 0])
    line = np.broadcast_to(4.0 * (np.arange(10) / 10)[:, None], (10, 5))
    for clouds in ([[(points, weights)]], [[(points, weights)], [(points, 5 * weights)]]):
        np.testing.assert_allclose(plot_data.free_energy(clouds, edges, beta, smooth=0.0), line, atol=1e-12)
    few = plot_data.free_energy([[(points[:2], np.ones(2))]], edges, beta, smooth=0.0)
    assert np.isnan(few).sum() == 49


def test_two_samples_of_one_density_count_by_their_effective_numbers() -> None:
    """Where one sample has no points the other one stands alone; equal ones change nothing."""
    beta, (edges, points) = 2.0, grid_of_points()
    left = points[points[:, 0] < 0.5]
    alone = plot_data.free_energy([[(points, np.ones(len(points)))]], edges, beta)
    weighted = [(points, np.ones(len(points))), (left, np.ones(len(left)))]
    both = plot_data.free_energy([weighted], edges, beta, smooth=0.0)
    np.testing.assert_allclose(both, 0.0, atol=1e-12)
    np.testing.assert_allclose(alone, 0.0, atol=1e-12)  # the filter reflects at the edges and keeps a constant


def test_thinned_points_keep_their_weight() -> None:
    paths = PathEnsemble([random_tree(np.random.default_rng(i), i, 40) for i in range(10)])
    _, all_weights = plot_data.plane_points(paths, PLANE.points, 10**9)
    points, weights = plot_data.plane_points(paths, PLANE.points, 500)
    assert len(points) == len(weights) < 600
    assert weights.sum() == pytest.approx(all_weights.sum(), rel=0.3)


def test_paths_are_drawn_by_weight() -> None:
    """Systematic resampling: with n draws a path of share p is there whenever p >= 1/n."""
    paths = PathEnsemble([random_tree(np.random.default_rng(1), 0, 40)])
    share = np.where(paths.is_success, paths.weights, 0.0) / paths.success().weights.sum()
    for seed in range(20):
        drawn = plot_data.sample_successes(paths, 10, np.random.default_rng(seed))
        assert set(np.flatnonzero(share >= 0.1)) <= set(drawn) and all(paths.is_success[drawn])


@given(st.floats(-np.pi, np.pi), st.integers(0, 2**32 - 1))
def test_structures_are_turned_onto_each_other(angle: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(7, 3))
    turned = x[:, :2] @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + 3.0
    first, second = plot_data.laid_over([x, turned])
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_frames_along_a_path_run_from_first_to_last() -> None:
    points = np.cumsum(np.random.default_rng(0).normal(size=(400, 2)), axis=0)
    picked = plot_data.along(points, points, 6)
    assert picked[0] == 0 and picked[-1] == 399 and np.all(np.diff(picked) > 0)
    assert plot_data.along(points[:3], points[:3], 6).tolist() == [0, 1, 2]


def test_running_mean_against_a_loop() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    expected = [values[max(0, i - 3) : i + 4].mean(axis=0) for i in range(30)]
    np.testing.assert_allclose(plot_data.running_mean(values, 7), expected, atol=1e-12)

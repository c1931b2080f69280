"""Exported trajectories and their table of weights against the ensemble they came from. Nothing random is asserted."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from pyarrow import parquet
from systems_1d import double_well

import openmm_rlis as rlis
from openmm_rlis import cli, export
from openmm_rlis.config.settings import Settings
from openmm_rlis.paths.ensemble import PathEnsemble, TreeBuilder

LINE = double_well(3.0, 0.5)
SETTINGS = Settings(n_batches=4, replicas=4, learning_rounds=0, learning_roots=40, n_slots=64, failure_share=0.25)
FORMATS = [("dcd", "dcd", 1e-6), ("xtc", "xtc", 6e-4), ("hdf5", "h5", 1e-6)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "run"
    rlis.run(LINE.problem(), path, seed=3, target_relative_error=0.9, settings=SETTINGS)
    return path


@pytest.mark.parametrize(("form", "suffix", "tolerance"), FORMATS)
def test_mdtraj_reads_what_was_written(
    directory: Path, tmp_path: Path, form: str, suffix: str, tolerance: float
) -> None:
    paths = rlis.load(directory).paths
    words = ["export", str(directory), str(tmp_path / "out"), "--format", form, "--failures", "--weights", "parquet"]
    assert cli.execute(words) == 0
    rows = parquet.read_table(tmp_path / "out" / "weights.parquet").to_pydict()
    assert rows["weight"] == paths.weights.tolist() and rows["path"] == list(range(len(paths)))
    assert rows["label"] == ["success" if good else "failure" for good in paths.is_success]
    assert rows["n_frames"] == [len(paths.positions(i)) for i in range(len(paths))]
    for i in range(0, len(paths), 7):
        file = str(tmp_path / "out" / rows["file"][i])
        assert file.endswith(suffix)
        found = mdtraj.load(file) if form == "hdf5" else mdtraj.load(file, top=str(tmp_path / "out" / "topology.pdb"))
        assert found.xyz == pytest.approx(paths.positions(i), abs=tolerance)
        assert found.n_atoms == 1 and found.unitcell_lengths is None
        if form != "dcd":  # a dcd file has no times
            assert found.time == pytest.approx(paths.times(i), rel=1e-6)
        assert rows["duration_ps"][i] == pytest.approx(paths.times(i)[-1])


def test_the_table_gives_unbiased_sums_as_it_stands(directory: Path, tmp_path: Path) -> None:
    result = rlis.load(directory)
    assert cli.execute(["export", str(directory), str(tmp_path / "all"), "--failures"]) == 0
    assert cli.execute(["export", str(directory), str(tmp_path / "won")]) == 0
    rows = list(csv.DictReader((tmp_path / "all" / "weights.csv").read_text().splitlines()))
    won = [row for row in rows if row["label"] == "success"]
    lost = [row for row in rows if row["label"] == "failure"]
    assert len(won) == len(result.paths.success()) and len(lost) == len(result.paths.failures()) > 0
    assert {(row["end"], row["factor"]) for row in won} == {("B", "1.0")}
    assert {(row["end"], row["factor"]) for row in lost} == {("A", "4.0")}
    assert [float(row["weight"]) for row in rows] == result.paths.weights.tolist()  # every bit
    by_batch = np.bincount([int(row["batch"]) for row in won], [float(row["weight"]) for row in won], minlength=4)
    stored = result._production
    taken = np.bincount(stored.root_batches, stored.root_control, minlength=4)
    assert by_batch == pytest.approx(result.totals.transitions + taken, rel=1e-12)
    for part in (won, lost):
        assert sum(float(row["share"]) for row in part) == pytest.approx(1.0, rel=1e-12)
        assert len({row["file"] for row in part}) == len(part)
    alone = list(csv.DictReader((tmp_path / "won" / "weights.csv").read_text().splitlines()))
    kept = [{k: v for k, v in row.items() if k not in ("path", "file")} for row in alone]
    assert kept == [{k: v for k, v in row.items() if k not in ("path", "file")} for row in won]
    assert len(list((tmp_path / "won").glob("*.dcd"))) == len(won)


def test_a_unit_cell_travels_with_the_frames(tmp_path: Path) -> None:
    cell = np.array([[2.0, 0.0, 0.0], [0.5, 2.5, 0.0], [0.25, 0.5, 3.0]])
    builder = TreeBuilder(3)
    x = np.random.default_rng(0).normal(size=(2, 1, 3, 3))
    first = builder.add(x[0], [-1], 0)
    tree = builder.finish(builder.add(x[1], first, 1), [2], [0.0], [0], batch=0, round=0)
    paths = PathEnsemble([tree], unit_cell=cell)
    assert paths.success().to_mdtraj(0).unitcell_vectors == pytest.approx(np.stack([cell, cell]), abs=1e-6)
    for form, suffix, _ in FORMATS:
        export.write_paths(paths, tmp_path / form, form)
        file, top = tmp_path / form / f"path-000000.{suffix}", tmp_path / form / "topology.pdb"
        found = mdtraj.load(str(file)) if form == "hdf5" else mdtraj.load(str(file), top=str(top))
        assert found.unitcell_vectors[1] == pytest.approx(cell, abs=1e-3)
        assert found.xyz == pytest.approx(x[:, 0], abs=1e-3)


def test_sizes_are_said_first_and_near(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlis.load(directory)
    for form, suffix, _ in FORMATS:
        assert cli.execute(["export", str(directory), str(tmp_path / form), "--format", form]) == 0
        out = capsys.readouterr().out
        n = len(result.paths.success())
        assert out.startswith("predicted disk use: ") and f"in {n} trajectories" in out and f": {n} paths" in out
        written = sum(path.stat().st_size for path in (tmp_path / form).glob(f"*.{suffix}"))
        assert export._predicted(result.paths.success(), form) == pytest.approx(written, rel=0.5)


def test_no_room_is_said_before_anything_is_written(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))(1000, 990, 10)
    monkeypatch.setattr("openmm_rlis.export.shutil.disk_usage", lambda _: usage)
    assert cli.execute(["export", str(directory), str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "needed, 10 B free" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--format", "gro"], ["--format", "dcd", "hdf5", "gro"]),
        (["--weights", "xls"], ["--weights", "csv", "parquet", "xls"]),
        (["--weights", "parquet"], ["--weights", "pyarrow", "pip install -e '.[analysis]'"]),
        (["--format", "hdf5"], ["--format", "tables", "pip install -e '.[analysis]'"]),
    ],
)
def test_bad_formats_and_missing_libraries_are_one_line(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], named: list[str],
) -> None:  # fmt: skip
    for name in ("pyarrow", "tables"):
        monkeypatch.setitem(sys.modules, name, None)  # makes its import fail
    assert cli.execute(["export", str(directory), str(tmp_path / "out"), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and all(name in err for name in named)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    assert cli.execute(["export", str(directory), str(tmp_path)]) == 2
    assert "OUT: expected a new or empty directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

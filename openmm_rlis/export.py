"""Write the paths of a run as one trajectory file each, beside a table of their weights.

    OUT/path-000000.dcd ...   OUT/topology.pdb   OUT/weights.csv (or weights.parquet)

A weight is a contribution to the expected number of such paths, so averages over transition paths are means weighted
with it. The weight of a stored failure is multiplied by `factor` already, one over the share of failures that the run
kept: sums over the table are unbiased as they are.
"""

from __future__ import annotations

import csv
import importlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StorageError, bad_input
from .paths.ensemble import PathEnsemble
from .results.directions import run_directories
from .results.result import load
from .storage.atomic_files import size_text, storage_errors

SUFFIXES = {"dcd": "dcd", "xtc": "xtc", "hdf5": "h5"}
# A file, a frame, an atom in a frame; from ten atoms on xtc is compressed, to about half of this.
BYTES = {"dcd": (300, 24, 12), "xtc": (0, 56, 12), "hdf5": (9000, 8, 12)}
TABLES = ("csv", "parquet")
EXTRA = "pip install -e '.[analysis]'"
Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


def export_paths(
    directory: Path,
    out: Path,
    failures: bool = False,
    form: str = "dcd",
    weights: str = "csv",
    tell: Callable[[str], None] = lambda _: None,
) -> dict[Path, int]:
    """Write every success path of a run, or of both directions, and return the number of paths by directory.

    Parameters
    ----------
    directory
        Run directory, or the parent of `forward` and `backward`.
    out
        New or empty directory.
    failures
        Write the kept failure paths too; their weights make up for those not kept.
    form
        One of `SUFFIXES`. A dcd file has no times of frames; hdf5 and xtc have, and hdf5 has the topology too. xtc
        rounds to 0.001 nm.
    weights
        "csv" or "parquet".
    tell
        Called with the predicted size in words before anything is written.

    Raises
    ------
    InputError
        `out` is not empty, or a format is unknown or needs a library that is not there; nothing is written then.
    StorageError
        The disk has no room.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise bad_input("OUT", "a new or empty directory", str(out))
    _check_formats(form, weights)
    ensembles = {}
    for name, path in run_directories(directory).items():
        result = load(path)
        ensembles[name] = result.paths if failures else result.paths.success(), result.config["region_names"]
    _check_room(out, form, [paths for paths, _ in ensembles.values()], tell)
    return {
        out / name: write_paths(paths, out / name, form, weights, regions)
        for name, (paths, regions) in ensembles.items()
    }


def write_paths(
    paths: PathEnsemble, out: Path, form: str = "dcd", weights: str = "csv", regions: Sequence[str] = ()
) -> int:
    """Write the paths of one ensemble into a directory and return their number; `regions` are names, A first."""
    names = [f"path-{i:06d}.{SUFFIXES[form]}" for i in range(len(paths))]
    with storage_errors("write", out):
        out.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            trajectory = paths.to_mdtraj(i)
            if i == 0:
                trajectory[0].save_pdb(str(out / "topology.pdb"))
            trajectory.save(str(out / name))
        _write_table(out / f"weights.{weights}", table(paths, names, regions))
    return len(paths)


def table(paths: PathEnsemble, files: Sequence[str], regions: Sequence[str] = ()) -> Columns:
    """Return the table of weights as columns of (n_paths,).

    `share` is the weight over the sum of the weights of the same label, so that the shares of the success paths sum to
    1, and so do those of the failures. A root is named by batch, round and root together.
    """
    success = paths.is_success
    share = np.zeros(len(paths))
    for kind in (success, ~success):
        share[kind] = paths.weights[kind] / (paths.weights[kind].sum() or 1.0)
    ends = [regions[code - 1] if code <= len(regions) else str(code) for code in paths.labels.tolist()]
    return {
        "path": np.arange(len(paths)), "file": list(files), "label": np.where(success, "success", "failure").tolist(),
        "end": ends, "weight": paths.weights, "share": share,
        "factor": np.where(success, 1.0, 1.0 / max(paths.failure_share, 1e-300)),
        "batch": paths.batches, "round": paths.rounds, "root": paths.roots,
        "duration_ps": paths.durations(), "n_frames": paths.n_frames(),
    }  # fmt: skip


def _write_table(path: Path, columns: Columns) -> None:
    if path.suffix == ".parquet":
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        parquet.write_table(arrow.table(dict(columns)), str(path))
        return
    plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)  # floats are written by repr, which keeps every bit
        rows.writerow(columns)
        rows.writerows(zip(*plain, strict=True))


def _check_formats(form: str, weights: str) -> None:
    if form not in SUFFIXES:
        raise bad_input("--format", f"one of {', '.join(SUFFIXES)}", repr(form))
    if weights not in TABLES:
        raise bad_input("--weights", f"one of {', '.join(TABLES)}", repr(weights))
    for option, value, needs, module in (
        ("--format", form, "hdf5", "tables"), ("--weights", weights, "parquet", "pyarrow"),
    ):  # fmt: skip
        if value == needs:
            try:
                importlib.import_module(module)
            except ImportError:
                expected = f"the library {module} for {needs}"
                raise bad_input(option, expected, "none installed", f"{EXTRA}, or choose another format") from None


def _check_room(out: Path, form: str, ensembles: Sequence[PathEnsemble], tell: Callable[[str], None]) -> None:
    """Say how much will be written, and refuse what the disk cannot hold."""
    n_files = sum(len(paths) for paths in ensembles)
    needed = sum(_predicted(paths, form) for paths in ensembles)
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    tell(f"predicted disk use: {size_text(needed)} in {n_files} trajectories; {size_text(free)} free")
    if needed > free:
        room = f"{size_text(needed)} needed, {size_text(free)} free"
        raise StorageError(f"cannot write {out}: {room}; choose another disk")


def _predicted(paths: PathEnsemble, form: str) -> int:
    n_atoms = next((tree.positions.shape[1] for tree in paths.trees), 0)
    of_file, of_frame, of_atom = BYTES[form]
    return len(paths) * of_file + int(paths.n_frames().sum()) * (of_frame + of_atom * n_atoms)

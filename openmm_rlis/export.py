"""Write the paths of a run as one trajectory file each, with their weights.

    OUT/path-000000.dcd ...   OUT/topology.pdb   OUT/weights.csv

The weights are contributions to the expected number of transitions, so averages over transition paths are means
weighted with them.
"""

from __future__ import annotations

import csv
from pathlib import Path

from .errors import bad_input
from .launch import run_directories
from .paths import PathEnsemble
from .result import load

COLUMNS = ("file", "weight", "share", "label", "batch", "round", "root", "n_frames", "duration_ps")
FORMATS = ("dcd", "xtc", "trr", "h5", "nc", "pdb", "xyz")


def export_paths(directory: Path, out: Path, failures: bool = False, suffix: str = "dcd") -> dict[Path, int]:
    """Write every success path of a run, or of both directions, and return the number of paths by directory.

    Parameters
    ----------
    directory
        Run directory, or the parent of `forward` and `backward`.
    out
        New or empty directory.
    failures
        Write the kept failure paths too; their weights make up for those not kept.
    suffix
        One of `FORMATS`. A dcd file has no times of frames; xtc, trr, h5, nc and pdb have.

    Raises
    ------
    InputError
        `out` is not empty, or the format is not among those; nothing is written then.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise bad_input("OUT", "a new or empty directory", str(out))
    if suffix not in FORMATS:
        raise bad_input("--format", f"one of {', '.join(FORMATS)}", repr(suffix))
    counts = {}
    for name, path in run_directories(directory).items():
        paths = load(path).paths
        counts[out / name] = write_paths(paths if failures else paths.success(), out / name, suffix)
    return counts


def write_paths(paths: PathEnsemble, out: Path, suffix: str) -> int:
    """Write the paths of one ensemble into a directory and return their number."""
    out.mkdir(parents=True, exist_ok=True)
    total = float(paths.weights.sum())
    with (out / "weights.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i in range(len(paths)):
            trajectory = paths.to_mdtraj(i)
            target = out / f"path-{i:06d}.{suffix}"
            if i == 0:
                trajectory[0].save_pdb(str(out / "topology.pdb"))
            trajectory.save(str(target))
            weight = float(paths.weights[i])
            share = weight / total if total else 0.0
            origin = int(paths.labels[i]), int(paths.batches[i]), int(paths.rounds[i]), int(paths.roots[i])
            duration = float(trajectory.time[-1])
            table.writerow([target.name, repr(weight), repr(share), *origin, len(trajectory), repr(duration)])
    return len(paths)

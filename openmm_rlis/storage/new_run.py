"""The birth of a run directory: refuse what is occupied, write the files of the start, commit by the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray

from ..errors import InputError, bad_input
from .atomic_files import FORMAT_VERSION, LOCK, MANIFEST, TMP, file_sha256, fsync_directory, replace, seal, write
from .checksums import CHECKSUMS

CREATING = f"{TMP}creating"
INPUTS = "inputs"
"""Folder for the files that an own system was made from."""
PROBLEM = "problem.json"
"""What a Problem is known again by, see `problem_identity`."""
_OWN_FILES = (
    MANIFEST, "config.yaml", "system.xml", "result.json", "log.jsonl", "value.pt", PROBLEM, CREATING, LOCK, CHECKSUMS,
)  # fmt: skip
_OWN_FOLDERS = ("spent", "traps")
_ROOT_FILES = ("config.yaml", "system.xml", "paths/topology.pdb")


def refuse_occupied(directory: Path) -> None:
    """Raise InputError unless `directory` is absent, empty, or a creation that was killed before its end."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise bad_input("directory", "a new or empty directory", f"the file {directory}", "choose another path")
    names = {path.name for path in directory.iterdir()}
    if MANIFEST in names:
        fix = "choose another path, or resume this run"
        raise bad_input("directory", "a new or empty directory", f"{directory}, which holds a run", fix)
    if names - {LOCK} and CREATING not in names:
        got = f"{directory}, which is not empty"
        raise bad_input("directory", "a new or empty directory", got, "choose another path")


def clear_unfinished(directory: Path) -> None:
    """Remove what an unfinished `create` wrote; the mark says that the directory was empty before."""
    if not (directory / CREATING).exists():
        return
    for name in ("rounds", "paths", INPUTS):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (MANIFEST, f"{TMP}{MANIFEST}", "config.yaml", "system.xml", PROBLEM, CREATING):
        (directory / name).unlink(missing_ok=True)


@contextmanager
def unless_failed(directory: Path, made: Sequence[Path]) -> Iterator[None]:
    """Remove a run directory that was just created if bad input shows before a round is stored.

    The same command would fail in it, or refuse it. A run that was interrupted or lost walkers stays: its cost counts,
    and its log says what happened. `made` are the folders that were not there before, see `missing`.
    """
    try:
        yield
    except InputError:
        stored = {folder.parent.name for folder in directory.glob("rounds/*/[0-9]*")} - {"given"}
        if not stored:
            for name in ("rounds", "paths", INPUTS, *_OWN_FOLDERS):
                shutil.rmtree(directory / name, ignore_errors=True)
            for name in (*_OWN_FILES, *(f"{TMP}{name}" for name in _OWN_FILES)):
                (directory / name).unlink(missing_ok=True)
            remove_empty(made)
        raise


def missing(directory: Path) -> list[Path]:
    """Return the folders that are not there and that the making of `directory` makes, the innermost first."""
    return [folder for folder in (directory, *directory.parents) if not folder.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders as long as they are empty, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_root(
    directory: Path,
    config: Any,
    system_xml: str,
    topology: Any,
    positions: NDArray[Any] | None,
    files: Mapping[str, str],
) -> None:
    """Write everything of a new run, its manifest last: that is the commit."""
    import mdtraj

    write(directory / CREATING, [])
    (directory / "paths").mkdir()
    (directory / "rounds").mkdir()
    text = yaml.safe_dump({"format_version": FORMAT_VERSION, **config}, sort_keys=False, allow_unicode=True)
    write(directory / "config.yaml", [text.encode()])
    write(directory / "system.xml", [system_xml.encode()])
    if positions is None:  # spread out, since readers of PDB files may guess bonds from short distances
        positions = np.stack([np.arange(topology.n_atoms) // 10**k % 10 for k in range(3)], axis=-1)
    xyz = np.clip(np.nan_to_num(np.asarray(positions, dtype=float)), -99.0, 999.0)  # what the columns of a PDB hold
    pdb = directory / "paths" / "topology.pdb"
    mdtraj.Trajectory(xyz[np.newaxis], topology).save_pdb(str(pdb))
    write(pdb, [pdb.read_bytes()])
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        write(directory / name, [content.encode()])
    for sub in (directory / "paths", *((directory / INPUTS,) if (directory / INPUTS).is_dir() else ()), directory):
        fsync_directory(sub)
    sums = {name: file_sha256(directory / name) for name in (*_ROOT_FILES, *files)}
    replace(directory / MANIFEST, lambda path: write(path, [seal({"files": sums, "chain": True})]))
    (directory / CREATING).unlink()


def n_particles(system_xml: str) -> int:
    """Return the number of particles of a serialised System."""
    try:
        count = len(ElementTree.fromstring(system_xml).findall("./Particles/Particle"))
    except ElementTree.ParseError as error:
        raise bad_input("system_xml", "the XML of a System", f"text that does not parse ({error})") from error
    if not count:
        raise bad_input("system_xml", "a System with particles, or a topology", "neither", "pass topology=")
    return count

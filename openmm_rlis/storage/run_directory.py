"""The run directory: append-only rounds with checksums, and path frames that mdtraj reads.

::

    run/  manifest.json  config.yaml  system.xml  inputs/  value.pt  result.json  log.jsonl
          rounds/<stage>/<index>/{manifest.json, arrays.npz}      a round is whole, or it is not there
          paths/topology.pdb  paths/<stage>-<index>-<batch>.dcd   tree frames, each once

A round is written in a `.tmp-` directory beside its place and every file is flushed to disk; then the dcd files
are renamed, and last the directory: that rename is the commit. A process killed at any instant leaves whole rounds
plus leftovers, which the next writer removes. Nothing is pickled. Numbers in arrays keep every bit; frames in dcd
files are float32 in Angstrom, so they come back to one rounding. No box is stored.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from numpy.typing import ArrayLike, NDArray

from ..errors import StorageError, bad_input
from ..paths.ensemble import PathEnsemble, PathTree, trivial_topology
from ..safe_readers import yaml_text
from .atomic_files import (
    LOCK,
    MANIFEST,
    TMP,
    Entries,
    Lock,
    checked_bytes,
    checked_text,
    fsync_directory,
    json_bytes,
    not_through_links,
    plain,
    read,
    restored,
    sealed,
    storage_errors,
    unseal,
    write,
    write_all,
)
from .checksums import checked, replace_covered
from .integrity import chain_end, damage, is_chained, read_json, refuse_links
from .new_run import clear_unfinished, missing, n_particles, refuse_occupied, remove_empty, write_root
from .rounds import FrameFile, Round, checked_round, fill_round, pack_trees, predicted_bytes, unpack, unpack_trees

__all__ = ["FrameFile", "Round", "RunDirectory", "predicted_bytes"]

_DCD_NAME = re.compile(r"([a-z][a-z0-9_]*)-(\d{6,})-(\d{3,})\.dcd")


class RunDirectory:
    """A run on disk: make one with `create`, come back with `open`.

    Reading never changes a file and is allowed while another process writes. Only one writer at a time: `create` and
    ``open(path, write=True)`` hold a lock until `close`, the end of a ``with`` block, or the end of the process.
    """

    def __init__(self, path: str | Path, _lock: Lock | None = None, _newest: str | None = None) -> None:
        self.path = Path(path)
        self._lock = _lock
        self._newest = _newest  # checksum of the newest manifest, for the next round; see `integrity`

    # Creating and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        system_xml: str,
        topology: Any | None = None,
        positions: NDArray[Any] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> RunDirectory:
        """Make a new run directory and hold its lock.

        Parameters
        ----------
        path : path
            Absent or an empty directory.
        config : dict
            Settings of plain types, stored as YAML.
        system_xml : str
            The serialised System.
        topology : mdtraj.Topology, optional
            Without one: a residue with as many atoms as the System has particles.
        positions : (n_atoms, 3), optional
            Coordinates in nm for topology.pdb, which stands for the topology only.
        files : dict of str, optional
            Texts that the System was made from, by their names, such as "inputs/structure.pdb".

        Raises
        ------
        InputError
            When `path` holds a run or anything else (nothing is written), or `config` is not of plain types.
        StorageError
            When the disk does not take it (what was written is removed), or another process is creating it.
        """
        directory = Path(path)
        refuse_occupied(directory)
        settings = plain(config, "config")
        pdb_topology = topology if topology is not None else trivial_topology(n_particles(system_xml))
        made = missing(directory)
        with storage_errors("create", directory):
            directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory)
        refuse_occupied(directory)
        try:
            with storage_errors("create", directory):
                clear_unfinished(directory)
                write_root(directory, settings, system_xml, pdb_topology, positions, files or {})
        except BaseException:
            clear_unfinished(directory)
            (directory / LOCK).unlink(missing_ok=True)
            remove_empty(made)
            lock.release()
            raise
        return cls(directory, lock, chain_end(directory))

    @classmethod
    def open(cls, path: str | Path, write: bool = False) -> RunDirectory:
        """Open a run; with `write`, take the lock and remove what a killed writer left.

        Raises
        ------
        InputError
            When `path` is not a run directory or has another format version.
        StorageError
            When its manifest is damaged or a round is missing; or with `write` when another process is writing.
        """
        directory = Path(path)
        if not (directory / MANIFEST).is_file():
            raise bad_input("directory", "a run directory", f"{directory}, which has no {MANIFEST}", "check the path")
        newest = chain_end(directory)  # before anything is removed: frames of a missing round are no leftovers
        if not write:
            return cls(directory)
        refuse_links(directory)
        run = cls(directory, Lock(directory), newest)
        with storage_errors("clean", directory):
            run._remove_leftovers()
        return run

    def close(self) -> None:
        """Give the lock back; reading stays possible."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_leftovers(self) -> None:
        for path in self.leftovers():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """Return what a writer at work, or one that was killed, has not committed; the next writer removes it."""
        found = [*self.path.glob(f"{TMP}*"), *self.path.glob(f"rounds/*/{TMP}*"), *self.path.glob(f"paths/{TMP}*")]
        for path in (self.path / "paths").glob("*.dcd"):
            match = _DCD_NAME.fullmatch(path.name)
            if match and not self._round_path(match[1], int(match[2])).exists():
                found.append(path)
        return found

    def _require_lock(self) -> None:
        if self._lock is None:
            fix = "use RunDirectory.open(path, write=True)"
            raise bad_input("directory", "a run opened for writing", f"{self.path} opened for reading", fix)

    # Rounds

    def _round_path(self, stage: str, index: int) -> Path:
        return self.path / "rounds" / stage / f"{index:06d}"

    def write_round(
        self,
        stage: str,
        index: int,
        arrays: Mapping[str, NDArray[Any]],
        info: Mapping[str, Any],
        tree: Sequence[PathTree] = (),
    ) -> None:
        """Store one round: all of it or, whatever happens, nothing.

        Parameters
        ----------
        stage : str
            Lower-case name such as "production".
        index : int
            Not used before in this stage.
        arrays : dict of ndarray
            Any dtype but object; names not starting with "tree.".
        info : dict
            Of plain types.
        tree : sequence of PathTree
            At most one for each batch.

        Raises
        ------
        InputError
            When an argument is bad or the round exists.
        StorageError
            When the disk does not take it; earlier rounds are untouched.
        """
        self._require_lock()
        final = self._round_path(stage, index)
        plain_arrays = checked_round(final, stage, index, arrays, tree)
        plain_info = plain(info, "info")
        temporary = final.with_name(f"{TMP}{final.name}")
        names = [f"{stage}-{index:06d}-{one.batch:03d}.dcd" for one in tree if one.n_frames]
        head = {"stage": stage, "index": index, **({"previous": self._newest} if self._newest else {})}
        try:
            with storage_errors("write round", final):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                fsync_directory(final.parent.parent)
                fill_round(temporary, head, {**plain_arrays, **pack_trees(tree)}, plain_info, tree)
                for name in names:
                    os.rename(temporary / name, self.path / "paths" / name)
                fsync_directory(self.path / "paths")
                os.rename(temporary, final)
                fsync_directory(final.parent)
        except BaseException:
            if not final.exists():  # else the rename, which commits, was done
                shutil.rmtree(temporary, ignore_errors=True)
                for name in names:
                    with suppress(OSError):
                        (self.path / "paths" / name).unlink()
            raise
        finally:
            if self._newest and final.exists():
                self._newest = sealed(final / MANIFEST)[1]

    def rounds(self, stage: str) -> list[int]:
        """Return the indices of the whole rounds of a stage, ascending."""
        names = (path.parent.name for path in (self.path / "rounds" / stage).glob(f"*/{MANIFEST}"))
        return sorted(int(name) for name in names if re.fullmatch(r"\d{6,}", name))

    def stages(self) -> list[str]:
        """Return the names of the stages that have rounds."""
        return sorted(path.name for path in (self.path / "rounds").iterdir() if self.rounds(path.name))

    def read_round(self, stage: str, index: int) -> Round:
        """Return a round after its checksums were verified (those of frames when they are first used).

        Raises
        ------
        InputError
            When there is no such round.
        StorageError
            When a file is damaged or missing; the message names it.
        """
        where = self._round_path(stage, index)
        if not (where / MANIFEST).is_file():
            raise bad_input("index", f"a stored round of stage {stage!r}", index, f"there are {self.rounds(stage)}")
        manifest = unseal(where / MANIFEST)
        if (manifest["stage"], manifest["index"]) != (stage, index):
            raise StorageError(
                f"{where} holds round {manifest['index']} of stage {manifest['stage']}: it was moved here"
            )
        data = checked_bytes(where / "arrays.npz", manifest["files"][f"rounds/{stage}/{where.name}/arrays.npz"])
        arrays = unpack(data, where / "arrays.npz")
        trees = unpack_trees(self.path, arrays, manifest)
        own = {name: array for name, array in arrays.items() if not name.startswith("tree.")}
        return Round(own, restored(manifest["info"]), trees)

    def paths(
        self,
        failure_share: float = 1.0,
        frame_interval: float = 1.0,
        stage: str = "production",
        unit_cell: ArrayLike | None = None,
        n_batches: int | None = None,
    ) -> PathEnsemble:
        """Return all stored paths of a stage; frames stay on disk until they are asked for."""
        trees = [tree for index in self.rounds(stage) for tree in self.read_round(stage, index).trees]
        topology = partial(_load_topology, self.path)
        return PathEnsemble(trees, topology, failure_share, frame_interval, unit_cell, n_batches)

    # Single files

    def _root_file(self, name: str) -> str:
        return checked_text(self.path / name, unseal(self.path / MANIFEST)["files"][name])

    @property
    def config(self) -> dict[str, Any]:
        """The settings given to `create`."""
        path = self.path / "config.yaml"
        try:
            content = dict(restored(yaml_text.load(self._root_file("config.yaml"))))
        except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
            raise StorageError(f"{path} is damaged: {' '.join(str(error).split())}") from None
        return Entries({k: v for k, v in content.items() if k != "format_version"}, path)

    @property
    def system_xml(self) -> str:
        """The serialised System given to `create`."""
        return self._root_file("system.xml")

    @property
    def topology(self) -> Any:
        """The mdtraj.Topology in paths/topology.pdb."""
        return _load_topology(self.path)

    @property
    def value_path(self) -> Path:
        """Where the value function stands (value.pt)."""
        return self.path / "value.pt"

    def read_value(self) -> bytes:
        """Return the bytes of value.pt after its checksum was verified, if the run is not of an early version."""
        return checked(self.value_path, is_chained(self.path))

    def write_value(self, data: bytes | Callable[[Path], object]) -> None:
        """Replace value.pt at once, by its bytes or by a function that writes the path it is given."""
        self._require_lock()
        writer = data if callable(data) else (lambda path: write(path, [data]))
        with storage_errors("write", self.value_path):
            try:
                replace_covered(self.value_path, writer)
            except RuntimeError as error:  # what torch.save raises when the disk is full
                line = str(error).splitlines()[0] if str(error) else "the writer failed"
                raise StorageError(f"cannot write {self.value_path}: {line}") from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json at once; nan and infinities are written as "NaN", "Infinity", "-Infinity"."""
        self._require_lock()
        data = json_bytes(plain(result, "result"))
        with storage_errors("write", self.path / "result.json"):
            replace_covered(self.path / "result.json", lambda path: write(path, [data]))

    def read_result(self) -> dict[str, Any]:
        """Return result.json as it was given to `write_result`."""
        path = self.path / "result.json"
        if not path.is_file():
            raise StorageError(f"{path} is not there: the run has not got as far as a result")
        return dict(restored(read_json(path, is_chained(self.path))))

    def log(self, event: str, **fields: Any) -> None:
        """Append one JSON line with the time (seconds since 1970) to log.jsonl."""
        self._require_lock()
        line = {"time": time.time(), "event": event, **plain(fields, "log")}
        path = self.path / "log.jsonl"
        with storage_errors("write", path), open(path, "ab+", buffering=0, opener=not_through_links) as file:
            if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # a killed process left half a line
            write_all(file, json_bytes(line, indent=None))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the whole lines of log.jsonl; half a line left by a killed process is passed over."""
        path = self.path / "log.jsonl"
        lines = []
        for line in read(path).splitlines() if path.is_file() else ():
            try:
                lines.append(dict(restored(json.loads(line))))
            except (ValueError, TypeError, RecursionError):
                continue
        return lines

    def verify(self) -> list[str]:
        """Read every stored byte again and return what is wrong, one line for each problem; empty when all is well."""
        return damage(self.path)


def _load_topology(directory: Path) -> Any:
    import mdtraj

    path = directory / "paths" / "topology.pdb"
    checked_bytes(path, unseal(directory / MANIFEST)["files"]["paths/topology.pdb"])
    return mdtraj.load_topology(str(path))

"""The run directory: append-only rounds with checksums, and path frames that mdtraj reads.

::

    run/  manifest.json  config.yaml  system.xml  value.pt  result.json  log.jsonl
          rounds/<stage>/<index>/{manifest.json, arrays.npz}      a round is whole, or it is not there
          paths/topology.pdb  paths/<stage>-<index>-<batch>.dcd   tree frames, each once

A round is written in a `.tmp-` directory beside its place and every file is flushed to disk; then the dcd files
are renamed, and last the directory: that rename is the commit. A process killed at any instant leaves whole rounds
plus leftovers, which the next writer removes. Nothing is pickled. Numbers in arrays keep every bit; frames in dcd
files are float32 in Angstrom, so they come back to one rounding. No box is stored.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
import warnings
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray

from .errors import InputError, StorageError, bad_input
from .paths import Frames, PathEnsemble, PathTree, trivial_topology

try:
    import fcntl
except ImportError:  # not on Windows: there the one-writer rule is not enforced
    fcntl = None  # type: ignore[assignment]

FORMAT_VERSION = 1
_MANIFEST, _LOCK, _TMP, _CREATING = "manifest.json", ".lock", ".tmp-", ".tmp-creating"
_ROOT_FILES = ("config.yaml", "system.xml", "paths/topology.pdb")
_STAGE = re.compile(r"[a-z][a-z0-9_]*")
_DCD_NAME = re.compile(r"([a-z][a-z0-9_]*)-(\d{6,})-(\d{3,})\.dcd")
_TREE_FIELDS: dict[str, type[np.generic]] = {
    "parents": np.int32,
    "leaves": np.int32,
    "labels": np.int8,
    "log_weights": np.float64,
    "roots": np.int32,
}
_NON_FINITE = {"Infinity": np.inf, "-Infinity": -np.inf, "NaN": np.nan}


@contextmanager
def _storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError with one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = f"no room left ({reason}); what was stored before is whole: free some space, then resume"
        raise StorageError(f"cannot {action} {path}: {reason}") from error


def _fsync_directory(path: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(file: io.RawIOBase, data: bytes | memoryview) -> None:
    view = memoryview(data).cast("B")
    while len(view):  # a raw write may be short when the disk fills; the next one then raises
        view = view[file.write(view) or 0 :]


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> str:
    """Write a new file, force it to disk and return the sha256 of what should be in it."""
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for chunk in chunks:
            digest.update(chunk)
            _write_all(file, chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside by `write(temporary path)`, then put it in the place of `path` at once."""
    temporary = path.with_name(f"{_TMP}{path.name}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_bytes(path: Path, sha256: str) -> bytes:
    with _storage_errors("read", path):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StorageError(f"{path} is damaged or was changed: its checksum is not the one in {_MANIFEST}")
    return data


def _plain(value: Any, where: str) -> Any:
    """Return `value` in JSON types; nan and infinities become strings, since strict JSON has none."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise bad_input(where, "numbers, strings, booleans, None, lists and dicts of them", type(value).__name__)


def _restored(value: Any) -> Any:
    if isinstance(value, str):
        return float(_NON_FINITE[value]) if value in _NON_FINITE else value
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


def _json_bytes(value: Any, indent: int | None = 1) -> bytes:
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def _seal(content: dict[str, Any]) -> bytes:
    """Return a manifest that carries the format version and its own checksum."""
    content = {"format_version": FORMAT_VERSION, **content}
    return _json_bytes({**content, "sha256": hashlib.sha256(_json_bytes(content)).hexdigest()})


def _unseal(path: Path) -> dict[str, Any]:
    with _storage_errors("read", path):
        data = path.read_bytes()
    try:
        content = dict(json.loads(data))
        seal = content.pop("sha256")
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} is damaged: it is not a manifest") from error
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise bad_input(str(path), f"format version {FORMAT_VERSION}", found, "use the release that wrote this run")
    if hashlib.sha256(_json_bytes(content)).hexdigest() != seal:
        raise StorageError(f"{path} is damaged or was changed: its checksum does not fit")
    return content


def _pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an .npz; the same arrays give the same bytes (np.savez stamps the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def _pack_trees(trees: Sequence[PathTree]) -> dict[str, NDArray[Any]]:
    packed = {f"tree.{name}": np.array([getattr(tree, name) for tree in trees], dtype=np.int64)
              for name in ("batch", "round", "n_frames", "n_paths")}  # fmt: skip
    packed["tree.n_atoms"] = np.array([tree.positions.shape[1] for tree in trees], dtype=np.int64)
    for name, dtype in _TREE_FIELDS.items():
        packed[f"tree.{name}"] = np.concatenate([np.empty(0, dtype), *(getattr(tree, name) for tree in trees)])
    return packed


def _block(data: bytes) -> bytes:
    length = len(data).to_bytes(4, "little")
    return length + data + length


def _dcd_chunks(positions: Frames) -> Iterator[bytes | memoryview]:
    """Yield a little-endian CHARMM DCD file without unit cell, some megabytes at a time.

    Not by mdtraj: its writer reports a full disk as a TypeError and puts the date and stray memory in the header.
    """
    n_frames, n_atoms = positions.shape[:2]
    control = np.zeros(20, dtype="<i4")
    control[[0, 2, 3, 19]] = n_frames, 1, n_frames, 24
    control[9:10] = np.array([1.0], dtype="<f4").view("<i4")
    title = f"openmm_rlis frames, format version {FORMAT_VERSION}".ljust(80).encode()
    yield _block(b"CORD" + control.tobytes())
    yield _block((1).to_bytes(4, "little") + title)
    yield _block(n_atoms.to_bytes(4, "little"))
    step = max(1, (1 << 20) // (n_atoms + 1))
    for first in range(0, n_frames, step):
        part = np.asarray(positions[first : first + step], dtype=np.float64)
        records = np.empty((len(part), 3, n_atoms + 2), dtype="<f4")
        records.view("<i4")[:, :, [0, -1]] = 4 * n_atoms
        records[:, :, 1:-1] = np.swapaxes(part * 10.0, 1, 2)
        yield records.data


class FrameFile:
    """Frames in a dcd file, read when indexed; the checksum is verified before the first frame is handed out.

    Parameters
    ----------
    path : Path
    n_frames, n_atoms : int
    sha256 : str
    """

    def __init__(self, path: Path, n_frames: int, n_atoms: int, sha256: str) -> None:
        self.path = path
        self.shape: tuple[int, ...] = (n_frames, n_atoms, 3)
        self._sha256 = sha256
        self._verified = False

    def verify(self) -> None:
        """Raise StorageError unless the file has the bytes that were written."""
        with _storage_errors("read", self.path):
            if _file_sha256(self.path) != self._sha256:
                raise StorageError(f"{self.path} is damaged or was changed: its checksum is not the one in {_MANIFEST}")
        self._verified = True

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]:
        if not self._verified:
            self.verify()
        n_frames, n_atoms, _ = self.shape
        layout = (n_frames, 3, n_atoms + 2)
        with _storage_errors("read", self.path):
            offset = self.path.stat().st_size - 4 * int(np.prod(layout))
            records = np.memmap(self.path, dtype="<f4", mode="r", offset=offset, shape=layout)
            angstrom = np.asarray(records[index], dtype=np.float64)[..., 1:-1]
        return np.swapaxes(angstrom / 10.0, -1, -2).astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


def predicted_bytes(n_frames: int, n_atoms: int) -> int:
    """Return the bytes that `n_frames` tree frames take on disk: 12 for each atom, 28 for record marks and parent."""
    return int(n_frames) * (12 * int(n_atoms) + 28)


@dataclass(frozen=True, eq=False)
class Round:
    """One whole round as read back: `arrays` and `info` as given to `write_round`, `trees` with lazy positions."""

    arrays: dict[str, NDArray[Any]]
    info: dict[str, Any]
    trees: tuple[PathTree, ...] = ()


class _Lock:
    """The right to write in a run directory: an flock, which the system drops when its holder dies."""

    def __init__(self, directory: Path) -> None:
        path = directory / _LOCK
        with _storage_errors("write in", directory):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self.release = weakref.finalize(self, os.close, handle)
        if fcntl is None:
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
        except BlockingIOError:
            owner = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
            self.release()
            raise StorageError(f"{directory} is being written by {owner}: wait until it ends, or stop it") from None
        except OSError as error:  # some cluster file systems have no locks; a full disk cannot hold the note
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                warnings.warn(f"{directory}: no lock ({error.strerror}); start no second writer", stacklevel=4)


class RunDirectory:
    """A run on disk: make one with `create`, come back with `open`.

    Reading never changes a file and is allowed while another process writes. Only one writer at a time: `create` and
    ``open(path, write=True)`` hold a lock until `close`, the end of a ``with`` block, or the end of the process.
    """

    def __init__(self, path: str | Path, _lock: _Lock | None = None) -> None:
        self.path = Path(path)
        self._lock = _lock

    # Creating and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        system_xml: str,
        topology: Any | None = None,
        positions: NDArray[Any] | None = None,
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

        Raises
        ------
        InputError
            When `path` holds a run or anything else (nothing is written), or `config` is not of plain types.
        StorageError
            When the disk does not take it (what was written is removed), or another process is creating it.
        """
        directory = Path(path)
        _refuse_occupied(directory)
        plain = _plain(config, "config")
        pdb_topology = topology if topology is not None else trivial_topology(_n_particles(system_xml))
        made = not directory.exists()
        with _storage_errors("create", directory):
            directory.mkdir(parents=True, exist_ok=True)
        lock = _Lock(directory)
        _refuse_occupied(directory)
        try:
            with _storage_errors("create", directory):
                _clear_unfinished(directory)
                _write_root(directory, plain, system_xml, pdb_topology, positions)
        except BaseException:
            _clear_unfinished(directory)
            (directory / _LOCK).unlink(missing_ok=True)
            if made:
                directory.rmdir()
            lock.release()
            raise
        return cls(directory, lock)

    @classmethod
    def open(cls, path: str | Path, write: bool = False) -> RunDirectory:
        """Open a run; with `write`, take the lock and remove what a killed writer left.

        Raises
        ------
        InputError
            When `path` is not a run directory or has another format version.
        StorageError
            When its manifest is damaged, or with `write` when another process is writing.
        """
        directory = Path(path)
        if not (directory / _MANIFEST).is_file():
            raise bad_input("directory", "a run directory", f"{directory}, which has no {_MANIFEST}", "check the path")
        _unseal(directory / _MANIFEST)
        if not write:
            return cls(directory)
        run = cls(directory, _Lock(directory))
        with _storage_errors("clean", directory):
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
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """Return what a writer at work, or one that was killed, has not committed; the next writer removes it."""
        found = [*self.path.glob(f"{_TMP}*"), *self.path.glob(f"rounds/*/{_TMP}*"), *self.path.glob(f"paths/{_TMP}*")]
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
        plain_arrays = _checked_round(final, stage, index, arrays, tree)
        plain_info = _plain(info, "info")
        temporary = final.with_name(f"{_TMP}{final.name}")
        names = [f"{stage}-{index:06d}-{one.batch:03d}.dcd" for one in tree if one.n_frames]
        try:
            with _storage_errors("write round", final):
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                _fsync_directory(final.parent.parent)
                self._fill_round(temporary, stage, index, {**plain_arrays, **_pack_trees(tree)}, plain_info, tree)
                for name in names:
                    os.rename(temporary / name, self.path / "paths" / name)
                _fsync_directory(self.path / "paths")
                os.rename(temporary, final)
                _fsync_directory(final.parent)
        except BaseException:
            if not final.exists():  # else the rename, which commits, was done
                shutil.rmtree(temporary, ignore_errors=True)
                for name in names:
                    with suppress(OSError):
                        (self.path / "paths" / name).unlink()
            raise

    def _fill_round(
        self,
        where: Path,
        stage: str,
        index: int,
        arrays: Mapping[str, NDArray[Any]],
        info: Any,
        trees: Sequence[PathTree],
    ) -> None:
        here = f"rounds/{stage}/{index:06d}"
        files = {f"{here}/arrays.npz": _write(where / "arrays.npz", [_pack(arrays)])}
        frames: list[str | None] = []
        for one in trees:
            name = f"{stage}-{index:06d}-{one.batch:03d}.dcd" if one.n_frames else None
            frames.append(name and f"paths/{name}")
            if name is not None:
                files[f"paths/{name}"] = _write(where / name, _dcd_chunks(one.positions))
        manifest = {"stage": stage, "index": index, "files": files, "frames": frames, "info": info}
        _write(where / _MANIFEST, [_seal(manifest)])
        _fsync_directory(where)

    def rounds(self, stage: str) -> list[int]:
        """Return the indices of the whole rounds of a stage, ascending."""
        names = (path.parent.name for path in (self.path / "rounds" / stage).glob(f"*/{_MANIFEST}"))
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
        if not (where / _MANIFEST).is_file():
            raise bad_input("index", f"a stored round of stage {stage!r}", index, f"there are {self.rounds(stage)}")
        manifest = _unseal(where / _MANIFEST)
        if (manifest["stage"], manifest["index"]) != (stage, index):
            raise StorageError(
                f"{where} holds round {manifest['index']} of stage {manifest['stage']}: it was moved here"
            )
        data = _checked_bytes(where / "arrays.npz", manifest["files"][f"rounds/{stage}/{where.name}/arrays.npz"])
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        trees = self._trees(arrays, manifest)
        own = {name: array for name, array in arrays.items() if not name.startswith("tree.")}
        return Round(own, _restored(manifest["info"]), trees)

    def _trees(self, arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> tuple[PathTree, ...]:
        frame_ends, path_ends = np.cumsum(arrays["tree.n_frames"]), np.cumsum(arrays["tree.n_paths"])
        trees = []
        for i, name in enumerate(manifest["frames"]):
            n_frames, n_paths, n_atoms = (int(arrays[f"tree.{key}"][i]) for key in ("n_frames", "n_paths", "n_atoms"))
            of_frames = slice(frame_ends[i] - n_frames, frame_ends[i])
            of_paths = slice(path_ends[i] - n_paths, path_ends[i])
            cut = {key: arrays[f"tree.{key}"][of_frames if key == "parents" else of_paths] for key in _TREE_FIELDS}
            positions: Any = np.empty((0, n_atoms, 3), dtype=np.float32)
            if name is not None:
                positions = FrameFile(self.path / name, n_frames, n_atoms, manifest["files"][name])
            batch, round_ = int(arrays["tree.batch"][i]), int(arrays["tree.round"][i])
            trees.append(PathTree(positions, **cut, batch=batch, round=round_))
        return tuple(trees)

    def paths(self, failure_share: float = 1.0, frame_interval: float = 1.0, stage: str = "production") -> PathEnsemble:
        """Return all stored paths of a stage; frames stay on disk until they are asked for."""
        trees = [tree for index in self.rounds(stage) for tree in self.read_round(stage, index).trees]
        return PathEnsemble(trees, partial(_load_topology, self.path), failure_share, frame_interval)

    # Single files

    def _root_file(self, name: str) -> str:
        return _checked_bytes(self.path / name, _unseal(self.path / _MANIFEST)["files"][name]).decode()

    @property
    def config(self) -> dict[str, Any]:
        """The settings given to `create`."""
        config = yaml.safe_load(self._root_file("config.yaml"))
        del config["format_version"]
        return dict(_restored(config))

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

    def write_value(self, data: bytes | Callable[[Path], object]) -> None:
        """Replace value.pt at once, by its bytes or by a function that writes the path it is given."""
        self._require_lock()
        write = data if callable(data) else (lambda path: _write(path, [data]))
        with _storage_errors("write", self.value_path):
            try:
                _replace(self.value_path, write)
            except RuntimeError as error:  # what torch.save raises when the disk is full
                line = str(error).splitlines()[0] if str(error) else "the writer failed"
                raise StorageError(f"cannot write {self.value_path}: {line}") from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json at once; nan and infinities are written as "NaN", "Infinity", "-Infinity"."""
        self._require_lock()
        data = _json_bytes(_plain(result, "result"))
        with _storage_errors("write", self.path / "result.json"):
            _replace(self.path / "result.json", lambda path: _write(path, [data]))

    def read_result(self) -> dict[str, Any]:
        """Return result.json as it was given to `write_result`."""
        path = self.path / "result.json"
        if not path.is_file():
            raise StorageError(f"{path} is not there: the run has not got as far as a result")
        with _storage_errors("read", path):
            data = path.read_bytes()
        try:
            return dict(_restored(json.loads(data)))
        except (ValueError, TypeError) as error:
            raise StorageError(f"{path} is damaged: it is not JSON") from error

    def log(self, event: str, **fields: Any) -> None:
        """Append one JSON line with the time (seconds since 1970) to log.jsonl."""
        self._require_lock()
        line = {"time": time.time(), "event": event, **_plain(fields, "log")}
        path = self.path / "log.jsonl"
        with _storage_errors("write", path), open(path, "ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # a killed process left half a line
            _write_all(file, _json_bytes(line, indent=None))

    def read_log(self) -> list[dict[str, Any]]:
        """Return the whole lines of log.jsonl; half a line left by a killed process is passed over."""
        path = self.path / "log.jsonl"
        lines = []
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                lines.append(dict(_restored(json.loads(line))))
            except (ValueError, TypeError):
                continue
        return lines

    # Checking

    def verify(self) -> list[str]:
        """Read every stored byte again and return what is wrong, one line for each problem; empty when all is well."""
        problems = []
        rounds = [path for path in sorted(self.path.glob("rounds/*/*")) if not path.name.startswith(_TMP)]
        for directory in (self.path, *rounds):
            try:
                files = _unseal(directory / _MANIFEST)["files"]
            except (InputError, StorageError) as error:
                problems.append(str(error))
                continue
            problems += [line for name, sha256 in files.items() if (line := _damage(self.path / name, sha256))]
        if (self.path / "result.json").is_file():
            try:
                self.read_result()
            except StorageError as error:
                problems.append(str(error))
        return problems


def _load_topology(directory: Path) -> Any:
    import mdtraj

    path = directory / "paths" / "topology.pdb"
    _checked_bytes(path, _unseal(directory / _MANIFEST)["files"]["paths/topology.pdb"])
    return mdtraj.load_topology(str(path))


def _damage(path: Path, sha256: str) -> str | None:
    try:
        return None if _file_sha256(path) == sha256 else f"{path} is damaged or was changed"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _refuse_occupied(directory: Path) -> None:
    """Raise InputError unless `directory` is absent, empty, or a creation that was killed before its end."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise bad_input("directory", "a new or empty directory", f"the file {directory}", "choose another path")
    names = {path.name for path in directory.iterdir()}
    if _MANIFEST in names:
        fix = "choose another path, or resume this run"
        raise bad_input("directory", "a new or empty directory", f"{directory}, which holds a run", fix)
    if names - {_LOCK} and _CREATING not in names:
        got = f"{directory}, which is not empty"
        raise bad_input("directory", "a new or empty directory", got, "choose another path")


def _clear_unfinished(directory: Path) -> None:
    """Remove what an unfinished `create` wrote; the mark says that the directory was empty before."""
    if not (directory / _CREATING).exists():
        return
    for name in ("rounds", "paths"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (_MANIFEST, f"{_TMP}{_MANIFEST}", "config.yaml", "system.xml", _CREATING):
        (directory / name).unlink(missing_ok=True)


def _write_root(directory: Path, config: Any, system_xml: str, topology: Any, positions: NDArray[Any] | None) -> None:
    """Write everything of a new run, its manifest last: that is the commit."""
    import mdtraj

    _write(directory / _CREATING, [])
    (directory / "paths").mkdir()
    (directory / "rounds").mkdir()
    text = yaml.safe_dump({"format_version": FORMAT_VERSION, **config}, sort_keys=False, allow_unicode=True)
    _write(directory / "config.yaml", [text.encode()])
    _write(directory / "system.xml", [system_xml.encode()])
    if positions is None:  # spread out, since readers of PDB files may guess bonds from short distances
        positions = np.stack([np.arange(topology.n_atoms) // 10**k % 10 for k in range(3)], axis=-1)
    xyz = np.clip(np.nan_to_num(np.asarray(positions, dtype=float)), -99.0, 999.0)  # what the columns of a PDB hold
    pdb = directory / "paths" / "topology.pdb"
    mdtraj.Trajectory(xyz[np.newaxis], topology).save_pdb(str(pdb))
    _write(pdb, [pdb.read_bytes()])
    for sub in (directory / "paths", directory):
        _fsync_directory(sub)
    files = {name: _file_sha256(directory / name) for name in _ROOT_FILES}
    _replace(directory / _MANIFEST, lambda path: _write(path, [_seal({"files": files})]))
    (directory / _CREATING).unlink()


def _n_particles(system_xml: str) -> int:
    try:
        count = len(ElementTree.fromstring(system_xml).findall("./Particles/Particle"))
    except ElementTree.ParseError as error:
        raise bad_input("system_xml", "the XML of a System", f"text that does not parse ({error})") from error
    if not count:
        raise bad_input("system_xml", "a System with particles, or a topology", "neither", "pass topology=")
    return count


def _checked_round(
    final: Path, stage: str, index: int, arrays: Mapping[str, NDArray[Any]], trees: Sequence[PathTree]
) -> dict[str, NDArray[Any]]:
    """Return the arrays as such, or raise InputError when the arguments of `write_round` are not sound."""
    if not _STAGE.fullmatch(stage):
        raise bad_input("stage", "lower-case letters, digits and _", repr(stage))
    if index < 0 or final.exists():
        raise bad_input("index", f"a number not yet stored in stage {stage!r}", index, "rounds are never overwritten")
    batches = [tree.batch for tree in trees]
    if len(set(batches)) < len(batches) or min(batches, default=0) < 0:
        raise bad_input("tree", "one tree for each batch", f"batches {batches}")
    checked = {str(name): np.asarray(array) for name, array in arrays.items()}
    for name, array in checked.items():
        if array.dtype.hasobject or name.startswith("tree."):
            raise bad_input(f"arrays[{name!r}]", "numbers or text, under a name without 'tree.'", array.dtype)
    return checked

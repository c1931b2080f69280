"""The files of one round: arrays as .npz without pickle, tree frames as dcd files that mdtraj reads, read lazily."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError, bad_input
from ..paths.tree import Frames, PathTree
from .atomic_files import FORMAT_VERSION, MANIFEST, file_sha256, fsync_directory, inside, seal, storage_errors, write

STAGE = re.compile(r"[a-z][a-z0-9_]*")
TREE_FIELDS: dict[str, type[np.generic]] = {
    "parents": np.int32,
    "lags": np.int32,
    "leaves": np.int32,
    "labels": np.int8,
    "log_weights": np.float64,
    "roots": np.int32,
}


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of an .npz; the same arrays give the same bytes (np.savez stamps the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in the bytes of an .npz as `pack` makes it, each as large as its bytes.

    Raises
    ------
    StorageError
        It is something else: compressed, with objects, or with a header that asks for more memory than the file has.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("it says that it is larger unpacked")
            for entry in entries:
                content = archive.read(entry)
                _check_size(content)
                arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(
                    io.BytesIO(content), allow_pickle=False
                )
    except (ValueError, TypeError, KeyError, EOFError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise StorageError(f"{path} is damaged or was changed: {str(error).splitlines()[0]}") from None
    return arrays


def _check_size(content: bytes) -> None:
    """Raise ValueError unless the header of an .npy fits its bytes."""
    file = io.BytesIO(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(file)]
    shape, _, dtype = read_header(file)
    count = math.prod(shape)
    if dtype.hasobject or count > len(content) or count * dtype.itemsize != len(content) - file.tell():
        raise ValueError("an array in it is not as large as its header says")


def pack_trees(trees: Sequence[PathTree]) -> dict[str, NDArray[Any]]:
    """Return the indices, labels and weights of all trees as arrays named tree.*, one after the other."""
    packed = {f"tree.{name}": np.array([getattr(tree, name) for tree in trees], dtype=np.int64)
              for name in ("batch", "round", "n_frames", "n_paths")}  # fmt: skip
    packed["tree.n_atoms"] = np.array([tree.positions.shape[1] for tree in trees], dtype=np.int64)
    for name, dtype in TREE_FIELDS.items():
        packed[f"tree.{name}"] = np.concatenate([np.empty(0, dtype), *(getattr(tree, name) for tree in trees)])
    return packed


def _block(data: bytes) -> bytes:
    length = len(data).to_bytes(4, "little")
    return length + data + length


def dcd_chunks(positions: Frames) -> Iterator[bytes | memoryview]:
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
        with storage_errors("read", self.path):
            if file_sha256(self.path) != self._sha256:
                raise StorageError(f"{self.path} is damaged or was changed: its checksum is not the one in {MANIFEST}")
        self._verified = True

    def __getitem__(self, index: Any, /) -> NDArray[np.float32]:
        if not self._verified:
            self.verify()
        n_frames, n_atoms, _ = self.shape
        layout = (n_frames, 3, n_atoms + 2)
        with storage_errors("read", self.path):
            offset = self.path.stat().st_size - 4 * math.prod(layout)
            if min(offset, *layout) < 0:
                raise StorageError(f"{self.path} is damaged: it does not hold {n_frames} frames of {n_atoms} atoms")
            records = np.memmap(self.path, dtype="<f4", mode="r", offset=offset, shape=layout)
            angstrom = np.asarray(records[index], dtype=np.float64)[..., 1:-1]
        return np.swapaxes(angstrom / 10.0, -1, -2).astype(np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


def predicted_bytes(n_frames: int, n_atoms: int) -> int:
    """Return the bytes that `n_frames` tree frames take on disk: 12 for each atom, 32 for marks, parent and time."""
    return int(n_frames) * (12 * int(n_atoms) + 32)


@dataclass(frozen=True, eq=False)
class Round:
    """One whole round as read back: `arrays` and `info` as given to `write_round`, `trees` with lazy positions."""

    arrays: dict[str, NDArray[Any]]
    info: dict[str, Any]
    trees: tuple[PathTree, ...] = ()


def checked_round(
    final: Path, stage: str, index: int, arrays: Mapping[str, NDArray[Any]], trees: Sequence[PathTree]
) -> dict[str, NDArray[Any]]:
    """Return the arrays as such, or raise InputError when the arguments of `write_round` are not sound."""
    if not STAGE.fullmatch(stage):
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


def fill_round(
    where: Path,
    head: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    info: Any,
    trees: Sequence[PathTree],
) -> None:
    """Write all files of a round into the directory `where`, the manifest, which begins with `head`, last."""
    stage, index = head["stage"], head["index"]
    here = f"rounds/{stage}/{index:06d}"
    files = {f"{here}/arrays.npz": write(where / "arrays.npz", [pack(arrays)])}
    frames: list[str | None] = []
    for one in trees:
        name = f"{stage}-{index:06d}-{one.batch:03d}.dcd" if one.n_frames else None
        frames.append(name and f"paths/{name}")
        if name is not None:
            files[f"paths/{name}"] = write(where / name, dcd_chunks(one.positions))
    manifest = {**head, "files": files, "frames": frames, "info": info}
    write(where / MANIFEST, [seal(manifest)])
    fsync_directory(where)


def unpack_trees(run: Path, arrays: dict[str, NDArray[Any]], manifest: dict[str, Any]) -> tuple[PathTree, ...]:
    """Return the trees of a round of the run in directory `run`, their frames still on disk."""
    frame_ends, path_ends = np.cumsum(arrays["tree.n_frames"]), np.cumsum(arrays["tree.n_paths"])
    trees = []
    for i, name in enumerate(manifest["frames"]):
        n_frames, n_paths, n_atoms = (int(arrays[f"tree.{key}"][i]) for key in ("n_frames", "n_paths", "n_atoms"))
        of_frames = slice(frame_ends[i] - n_frames, frame_ends[i])
        of_paths = slice(path_ends[i] - n_paths, path_ends[i])
        cut = {key: arrays[f"tree.{key}"][of_frames if key in ("parents", "lags") else of_paths] for key in TREE_FIELDS}
        positions: Any = np.empty((0, n_atoms, 3), dtype=np.float32)
        if name is not None:
            positions = FrameFile(inside(run, name), n_frames, n_atoms, manifest["files"][name])
        batch, round_ = int(arrays["tree.batch"][i]), int(arrays["tree.round"][i])
        trees.append(PathTree(positions, **cut, batch=batch, round=round_))
    return tuple(trees)

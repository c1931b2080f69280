"""Tensors from a file of torch.save that nobody vouches for: plain values only, and no larger than the file.

`torch.load` with weights_only executes nothing, but it takes the file's word for sizes: archives may be compressed, a
storage may be said to be larger than its bytes, which are then read beyond their end, and a view with stride 0 may
stand for any number of elements. All of these are compared here with the bytes that are there.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

_ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2,
    "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip


class _Named:
    """Stands for a class or a function that a pickle names: a call of it does nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: object) -> _Named:
        return _Named("")


class _Storages(pickle._Unpickler):  # in Python: the other one trusts sizes too
    """Notes the storages that a pickle asks for, and makes nothing that it names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.asked: list[tuple[str, str, int]] = []

    def find_class(self, module: str, name: str) -> _Named:
        return _Named(name)

    def persistent_load(self, asked: Any) -> _Named:
        _, kind, key, _, count = asked
        self.asked.append((kind.name, str(key), int(count)))
        return _Named("")


def load_tensors(data: bytes) -> Any:
    """Return what torch.save was given, of tensors, numbers, texts and dicts of them.

    Raises
    ------
    ValueError, RuntimeError, pickle.UnpicklingError
        It is something else, or asks for more memory than the file has bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_archive(archive, len(data))
    except (zipfile.BadZipFile, NotImplementedError, AttributeError, EOFError) as error:
        raise ValueError(str(error) or "not a file of torch.save") from None
    content = torch.load(io.BytesIO(data), weights_only=True)
    if _size(content) > len(data):
        raise ValueError("a tensor in it is larger than the file")
    return content


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    entries = {entry.filename: entry for entry in archive.infolist()}
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    if not stored or sum(entry.file_size for entry in archive.infolist()) > size:
        raise ValueError("it says that it is larger unpacked")
    (name,) = (name for name in entries if name.endswith("/data.pkl"))
    pickled = _Storages(archive.read(name))
    pickled.load()
    for kind, key, count in pickled.asked:
        entry = entries.get(f"{name.removesuffix('data.pkl')}data/{key}")
        if entry is None or count * _ITEM_BYTES.get(kind, -1) != entry.file_size:
            raise ValueError(f"storage {key} in it is not as large as it says")


def _size(content: Any) -> int:
    """Return how many bytes the tensors in nested dicts take."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    return sum(map(_size, content.values())) if isinstance(content, Mapping) else 0

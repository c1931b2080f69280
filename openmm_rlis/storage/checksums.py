"""Checksums of files that are written anew as a run goes on: value.pt, result.json, and config.yaml of both directions.

    checksums.json     {"files": {name: sha256}, "pending": {name: sha256}}, sealed like a manifest

A file and its checksum cannot change at the same instant: the new checksum is first noted as pending, then the file is
put in its place, then the checksum counts alone. Whatever instant a process is killed at, the file fits one of the two.
Directories of early versions have no such file; what nothing covers is named by `uncovered`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import RlisError, StorageError
from .atomic_files import file_sha256, inside, read, replace, seal, storage_errors, unseal, write

CHECKSUMS = "checksums.json"
_TRIES = 3
"""A reader may meet a writer between a file and its checksum; it looks again."""


def replace_covered(path: Path, writer: Callable[[Path], object]) -> None:
    """Put a file in the place of `path` at once, as `atomic_files.replace` does, and its checksum beside it."""
    noted = _noted(path.parent)
    fresh = ""

    def announce(temporary: Path) -> None:
        nonlocal fresh
        fresh = file_sha256(temporary)
        _note(path.parent, noted["files"], {**noted["pending"], path.name: fresh})

    replace(path, writer, announce)
    pending = {name: sha256 for name, sha256 in noted["pending"].items() if name != path.name}
    _note(path.parent, {**noted["files"], path.name: fresh}, pending)


def cover(directory: Path, names: Iterable[str]) -> None:
    """Note the checksums of files as they are now."""
    noted = _noted(directory)
    sums = {name: file_sha256(inside(directory, name)) for name in names}
    _note(directory, {**noted["files"], **sums}, noted["pending"])


def checked(path: Path, required: bool = False, directory: Path | None = None) -> bytes:
    """Return the bytes of a file that is covered; with `required`, it must be. `directory` holds the checksums.

    Raises
    ------
    StorageError
        The file cannot be read, or is not as it was written.
    """
    directory = directory or path.parent
    for _ in range(_TRIES):
        with storage_errors("read", path):
            data = read(path)
        sums = _sums(directory, str(path.relative_to(directory)))
        if hashlib.sha256(data).hexdigest() in sums or not (sums or required):
            return data
    how = f"its checksum is not the one in {CHECKSUMS}" if sums else f"its checksum is not in {CHECKSUMS}"
    raise StorageError(f"{path} is damaged or was changed: {how}")


def damage(directory: Path, required: Iterable[str] = ()) -> list[str]:
    """Return what is wrong with covered files, a line each; those of `required`, if they are there, must be covered."""
    if not (directory / CHECKSUMS).exists():
        return [
            f"{directory / name} is not covered: {CHECKSUMS} is not there" for name in _present(directory, required)
        ]
    try:
        names = dict.fromkeys([*_noted(directory)["files"], *_present(directory, required)])
    except RlisError as error:
        return [str(error)]
    problems = []
    for name in names:
        try:
            checked(inside(directory, name), True, directory)
        except RlisError as error:
            problems.append(str(error))
    return problems


def uncovered(directory: Path, names: Iterable[str]) -> list[str]:
    """Return those of `names` that are there and that no checksum covers."""
    return [name for name in _present(directory, names) if not _sums(directory, name)]


def _present(directory: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (directory / name).exists()]


def _sums(directory: Path, name: str) -> set[str]:
    noted = _noted(directory)
    return {noted[kind][name] for kind in ("files", "pending") if name in noted[kind]}


def _noted(directory: Path) -> dict[str, dict[str, str]]:
    if not (directory / CHECKSUMS).exists():
        return {"files": {}, "pending": {}}
    content: dict[str, Any] = unseal(directory / CHECKSUMS)
    return {kind: dict(content.get(kind, {})) for kind in ("files", "pending")}


def _note(directory: Path, files: dict[str, str], pending: dict[str, str]) -> None:
    content = {"files": files, "pending": pending}
    replace(directory / CHECKSUMS, lambda path: write(path, [seal(content)]))

"""Bytes on disk that survive a kill: flushed writes, replaced files, sealed manifests and the lock of the one writer.

Every OSError leaves here as a `StorageError` of one line. Nothing here knows what a round or a path is.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import stat
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any

from ..errors import StorageError, bad_input

try:
    import fcntl
except ImportError:  # not on Windows: there the one-writer rule is not enforced
    fcntl = None  # type: ignore[assignment]

FORMAT_VERSION = 1
MANIFEST, LOCK, TMP = "manifest.json", ".lock", ".tmp-"
_NON_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError with one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            reason = f"no room left ({reason}); what was stored before is whole: free some space, then resume"
        raise StorageError(f"cannot {action} {path}: {reason}") from error


def fsync_directory(path: Path) -> None:
    """Force the names in a directory to disk."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(file: io.RawIOBase, data: bytes | memoryview) -> None:
    """Write every byte to an unbuffered file."""
    view = memoryview(data).cast("B")
    while len(view):  # a raw write may be short when the disk fills; the next one then raises
        view = view[file.write(view) or 0 :]


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open an ordinary file to read it; a device or a pipe, which may never end, is an OSError."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file")
        yield file


def read(path: Path) -> bytes:
    """Return the bytes of an ordinary file."""
    with opened(path) as file:
        return file.read()


def not_through_links(path: str, flags: int) -> int:
    """Open a file of a run for writing, as an `opener`; a symbolic link there would lead out of the run."""
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "a symbolic link, through which nothing is written; remove it")
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)


def inside(directory: Path, name: str) -> Path:
    """Return the path of a file of a run by its name in a manifest, which may not lead out of the run."""
    parts = PurePath(name)
    if not name or parts.is_absolute() or ".." in parts.parts:
        raise StorageError(f"{directory} is damaged or was changed: it names a file outside of the run, {name[:200]!r}")
    return directory / parts


def write(path: Path, chunks: Iterable[bytes | memoryview]) -> str:
    """Write a new file, force it to disk and return the sha256 of what should be in it."""
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0, opener=not_through_links) as file:
        for chunk in chunks:
            digest.update(chunk)
            write_all(file, chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()


def replace(path: Path, writer: Callable[[Path], object], announce: Callable[[Path], None] | None = None) -> None:
    """Write a file aside by `writer(temporary path)`, then put it in the place of `path` at once.

    `announce` is called with the path of the finished temporary file before that.
    """
    temporary = path.with_name(f"{TMP}{path.name}")
    temporary.unlink(missing_ok=True)  # whatever it is: writers follow symbolic links
    try:
        writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if announce is not None:
            announce(temporary)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the checksum of a file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_bytes(path: Path, sha256: str) -> bytes:
    """Return the bytes of a file, or raise StorageError when they are not those that were written."""
    with storage_errors("read", path):
        data = read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StorageError(f"{path} is damaged or was changed: its checksum is not the one in {MANIFEST}")
    return data


def checked_text(path: Path, sha256: str) -> str:
    """Return the text of a file, or raise StorageError as `checked_bytes` does, or when it is not text."""
    try:
        return checked_bytes(path, sha256).decode()
    except UnicodeDecodeError:
        raise StorageError(f"{path} is damaged or was changed: it is not text") from None


def plain(value: Any, where: str) -> Any:
    """Return `value` in JSON types; nan and infinities become strings, since strict JSON has none."""
    if type(value).__module__.partition(".")[0] == "numpy":  # not imported: `rlis status` is quick without
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise bad_input(where, "numbers, strings, booleans, None, lists and dicts of them", type(value).__name__)


def restored(value: Any) -> Any:
    """Undo `plain`: turn the strings for nan and infinities back to numbers."""
    if isinstance(value, str):
        return float(_NON_FINITE[value]) if value in _NON_FINITE else value
    if isinstance(value, dict):
        return {key: restored(item) for key, item in value.items()}
    return [restored(item) for item in value] if isinstance(value, list) else value


class Entries(dict[str, Any]):
    """Entries of a file and of its sections; to ask by index for one that is not there is an error of one line."""

    def __init__(self, content: Mapping[str, Any], file: Path, section: str = "") -> None:
        super().__init__(content)
        self._file, self._section = file, section
        for name, value in content.items() if not section else ():
            if isinstance(value, dict):
                self[name] = Entries(value, file, f"{name}.")

    def __missing__(self, name: str) -> Any:
        fix = "use the release that wrote this run"
        raise bad_input(str(self._file), f"the entry {self._section}{name}", "none", fix)


def json_bytes(value: Any, indent: int | None = 1) -> bytes:
    """Return strict JSON with a newline at its end."""
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def size_text(n: float) -> str:
    """Return a number of bytes for people, e.g. `12 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def seal(content: dict[str, Any]) -> bytes:
    """Return a manifest that carries the format version and its own checksum."""
    content = {"format_version": FORMAT_VERSION, **content}
    return json_bytes({**content, "sha256": hashlib.sha256(json_bytes(content)).hexdigest()})


def unseal(path: Path) -> dict[str, Any]:
    """Return the content of a manifest after its version and checksum were verified."""
    return sealed(path)[0]


def sealed(path: Path) -> tuple[dict[str, Any], str]:
    """Return the content of a manifest after its version and checksum were verified, and the checksum."""
    with storage_errors("read", path):
        data = read(path)
    try:
        content = dict(json.loads(data))
        seal = str(content.pop("sha256"))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: it is not a manifest") from error
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise bad_input(str(path), f"format version {FORMAT_VERSION}", found, "use the release that wrote this run")
    if hashlib.sha256(json_bytes(content)).hexdigest() != seal:
        raise StorageError(f"{path} is damaged or was changed: its checksum does not fit")
    return content, seal


class Lock:
    """The right to write in a run directory: an flock, which the system drops when its holder dies."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK
        with storage_errors("write in", directory):
            handle = not_through_links(str(path), os.O_RDWR | os.O_CREAT)
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

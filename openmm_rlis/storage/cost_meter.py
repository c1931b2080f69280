"""Cost meter: what a run has spent, in every process of it and also in work that was broken off, and its limits.

    total = sum over the files in RUN/spent of their evaluations,        one file for each process and start of the run

Every engine made while a meter is `active` counts on it (`spend`), before it moves anyone, and raises `LimitError`
instead of going beyond a limit. Once a second the count is written in place, so that a process that is killed loses a
second of it, and the counts of the other processes are read. `beat` is for work that moves nobody: it looks at the
clock, and lets the run say that it is alive. In production the limits are lifted: see `driver`. Standard library only.
"""

from __future__ import annotations

import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

SPENT = "spent"
SEARCHED = "search"
"""Why a run ended that only looked for traps."""
SECONDS_BETWEEN_NOTES = 1.0
_WIDTH = 48
_ACTIVE: ContextVar[Meter | None] = ContextVar("meter", default=None)
_SEARCH: ContextVar[Search | None] = ContextVar("search", default=None)


class LimitError(Exception):
    """A limit of the run, which is its text, was reached before production; never seen by a user."""


@dataclass(frozen=True)
class Search:
    """A run that looks for traps until production, see `metastable`.

    Walkers that have been outside all regions for `first` lags are looked at; a trap holds them for `lags` and more.
    With `stop`, the run ends where production would begin.
    """

    first: int = 400
    lags: int = 1000
    stop: bool = False


@dataclass(frozen=True)
class Share:
    """What another process needs to count for the same run."""

    folder: Path
    start: str
    most_evaluations: float
    deadline: float
    search: Search | None = None

    def meter(self) -> Meter:
        """Return the meter of this process, which goes on where it was."""
        name = f"{self.start}-{os.getpid()}"
        if name not in _OF_THIS_PROCESS:
            _OF_THIS_PROCESS[name] = Meter(self.folder, name)
        meter = _OF_THIS_PROCESS[name]
        meter.most_evaluations, meter.deadline = self.most_evaluations, self.deadline
        meter.search = self.search
        return meter


_OF_THIS_PROCESS: dict[str, Meter] = {}


class Meter:
    """Counts force evaluations and holds the limits.

    Parameters
    ----------
    folder
        Where the counts are, RUN/spent; made when there is something to write.
    name
        Of the file; without one, a new name.
    recorded
        Evaluations and seconds in the rounds of the run: runs made before there were meters have no other count.
    """

    def __init__(self, folder: Path, name: str = "", recorded: tuple[float, float] = (0.0, 0.0)) -> None:
        self.folder, self.name = folder, name or f"{time.time_ns()}"
        self.most_evaluations, self.deadline = math.inf, math.inf
        self.search = _SEARCH.get()
        self.on_beat: Callable[[], None] = lambda: None
        self.on_note: Callable[[str], None] = self._leave
        evaluations, seconds = spent(folder)
        self._others = evaluations
        self._own = max(int(recorded[0]) - evaluations, 0)
        self.seconds_before = max(recorded[1], seconds)
        self._older_seconds = self.seconds_before - seconds
        self._started = self._noted = time.monotonic()
        self._file: int | None = None

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder.parent

    @property
    def evaluations(self) -> int:
        """Force evaluations of all processes, as far as this one knows them."""
        return self._own + self._others

    @property
    def seconds(self) -> float:
        """Wall time of the run, also before it was resumed."""
        return self.seconds_before + time.monotonic() - self._started

    def spend(self, evaluations: int) -> None:
        """Count what comes next, or raise `LimitError` if it would go beyond a limit."""
        self.beat()
        if self.evaluations + evaluations > self.most_evaluations:
            raise LimitError("max_force_evaluations")
        self._own += evaluations

    def beat(self) -> None:
        """Look at the clock: raise `LimitError` if time is up, write the count, let the run say that it is alive."""
        if time.monotonic() > self.deadline:
            raise LimitError("max_seconds")
        self.pulse()

    def pulse(self) -> None:
        """Do as `beat` does, but for the limit: others look at it."""
        if time.monotonic() - self._noted >= SECONDS_BETWEEN_NOTES:
            self.compare()
        self.on_beat()

    def compare(self) -> None:
        """Write the count of this process, and read those of the others and what they have to say."""
        self.write()
        self._others = sum(own for name, (own, _) in _counts(self.folder).items() if name != self.name)
        self._hear()

    def lift(self) -> None:
        """Look at no limit any more, and for no trap: production begins."""
        if self.search is not None and self.search.stop:
            raise LimitError(SEARCHED)
        self.search = None
        self.most_evaluations = self.deadline = math.inf

    def share(self) -> Share:
        """Return what another process needs."""
        return Share(self.folder, self.name, self.most_evaluations, self.deadline, self.search)

    def write(self) -> None:
        """Write the count of this process, if there is one."""
        self._noted = time.monotonic()
        if self._own == 0:
            return
        from .atomic_files import storage_errors  # needs NumPy, which who only reads counts does without

        with storage_errors("write in", self.folder):
            if self._file is None:
                self.folder.mkdir(exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                self._file = os.open(self.folder / self.name, flags, 0o644)
            seconds = 0.0 if "-" in self.name else self._older_seconds + self._noted - self._started
            os.pwrite(self._file, _line(self._own, seconds), 0)

    def close(self) -> None:
        """Write the count for the last time."""
        try:
            self.write()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    # What is seen in one process is said by another

    def note(self, text: str) -> None:
        """Say something to the person who watches, from whatever process."""
        self.on_note(text)

    def _leave(self, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        beside = self.folder / f".{self.name}-{time.time_ns()}"
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, beside.with_name(f"{beside.name[1:]}.txt"))

    def _hear(self) -> None:
        for path in self.folder.glob(f"{self.name}-*.txt") if self.folder.is_dir() else ():
            text = path.read_text(encoding="utf-8")
            path.unlink(missing_ok=True)
            self.note(text)


def current() -> Meter | None:
    """Return the meter that is active, if there is one."""
    return _ACTIVE.get()


def beat() -> None:
    """Let the active meter look at the clock; for work without an engine."""
    meter = _ACTIVE.get()
    if meter is not None:
        meter.beat()


@contextmanager
def active(meter: Meter | None) -> Iterator[None]:
    """Make a meter the one that new engines count on; its count is written at the end, however that comes."""
    token = _ACTIVE.set(meter)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
        if meter is not None:
            meter.write()


@contextmanager
def searching(search: Search | None) -> Iterator[None]:
    """Let the runs that start here look for traps."""
    token = _SEARCH.set(search)
    try:
        yield
    finally:
        _SEARCH.reset(token)


def spent(folder: Path) -> tuple[int, float]:
    """Return the force evaluations and seconds of all processes and starts of a run, from RUN/spent."""
    counts = _counts(folder).values()
    return sum(own for own, _ in counts), sum(seconds for _, seconds in counts)


def damaged(folder: Path) -> list[str]:
    """Return the counts that are not as they were written, a line each."""
    paths = sorted(folder.glob("[0-9]*")) if folder.is_dir() else []
    counts = _counts(folder)
    return [f"{p} is damaged or was changed" for p in paths if p.suffix != ".txt" and p.name not in counts]


def _line(evaluations: int, seconds: float) -> bytes:
    content = f"{evaluations} {seconds:.3f}".ljust(_WIDTH - 10).encode()
    return content + f" {zlib.crc32(content):08x}\n".encode()


def _counts(folder: Path) -> dict[str, tuple[int, float]]:
    """Return evaluations and seconds by file; one that is not as it was written is left out."""
    found = {}
    for path in folder.glob("[0-9]*") if folder.is_dir() else ():
        if path.suffix == ".txt":
            continue
        try:
            line = path.read_bytes()[: _WIDTH + 1]
            evaluations, seconds = line.split()[:2]
            if line == _line(int(evaluations), float(seconds)):
                found[path.name] = int(evaluations), float(seconds)
        except (OSError, ValueError):
            continue
    return found

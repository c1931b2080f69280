"""What a run looks like from outside: progress on the terminal, and `rlis status` from the files alone.

A `Snapshot` is one line of progress. It comes from the sampler's `Progress`, from a child process as JSON, or from the
log of a run directory, and is shown as a live table on a terminal, as plain lines elsewhere, or as JSON lines for a
parent process. Neither torch, openmm nor NumPy is needed here, so that `rlis status` answers at once.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .disk import opened
from .errors import bad_input
from .integrity import is_chained, read_json
from .meter import SPENT, spent
from .parents import is_network, leg_directories

PLAIN_SECONDS = 5.0
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands: stage and round, rate so far (an Estimate as a dict), cost, and what is left."""

    stage: str = ""
    round: int = 0
    rate: Mapping[str, Any] | None = None
    force_evaluations: int = 0
    seconds: float = 0.0
    fraction: float | None = None
    seconds_left: float | None = None
    message: str = ""

    @classmethod
    def of(cls, progress: Any) -> Self:
        """Return the snapshot of a `sampler.Progress`."""
        values = {field.name: getattr(progress, field.name) for field in fields(cls)}
        if hasattr(values["rate"], "to_dict"):
            values["rate"] = values["rate"].to_dict()
        return cls(**values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return the snapshot in a JSON object; other entries are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    @property
    def evaluations_per_second(self) -> float | None:
        """Force evaluations over the seconds of the whole run so far."""
        return self.force_evaluations / self.seconds if self.seconds > 0 and self.force_evaluations else None

    def evaluations(self) -> str:
        """Return the force evaluations and their speed as text, e.g. `6.20e+07 evaluations, 3.4e+05/s`."""
        speed = self.evaluations_per_second
        return f"{self.force_evaluations:.2e} evaluations" + ("" if speed is None else f", {speed:.1e}/s")

    def line(self) -> str:
        """Return stage, rate, evaluations, elapsed time and time left in one line."""
        parts = [f"{self.stage} {self.round}", f"rate {rate_text(self.rate)}", self.evaluations()]
        parts += [duration(self.seconds)] if self.seconds_left is None else []
        parts += [] if self.seconds_left is None else [f"{duration(self.seconds)}, {duration(self.seconds_left)} left"]
        return " | ".join(parts)

    def after(self, seconds: float) -> Self:
        """Return the snapshot as it looks some seconds later, nothing new having been told."""
        left = None if self.seconds_left is None else max(0.0, self.seconds_left - seconds)
        return replace(self, seconds=self.seconds + seconds, seconds_left=left)


def rate_text(rate: Mapping[str, Any] | None) -> str:
    """Return a rate with its 95 % interval and relative standard error, e.g. `0.0971 [0.0931, 0.101] /ps (4.1 %)`."""
    if rate is None or rate["value"] in (None, "NaN"):
        return "-"
    value, error = float(rate["value"]), _number(rate["standard_error"])
    if not math.isfinite(error) or value <= 0.0:
        return f"{value:.3g} /ps (no error bar yet)"
    low, high = (_number(x) for x in rate["interval"])
    return f"{value:.3g} [{low:.3g}, {high:.3g}] /ps ({100 * error / value:.1f} %)"


def _number(value: Any) -> float:
    return math.inf if value is None else float(value)


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss or m:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Display(Protocol):
    """Shows snapshots of one or several named runs; a context manager."""

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Show the newest snapshot of a run."""

    def __enter__(self) -> Self:
        """Start showing."""

    def __exit__(self, *_: object) -> None:
        """Stop showing."""


class PlainDisplay:
    """One line at every change of stage, at every message, and else at most every five seconds; for logs and pipes."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, str, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Print the snapshot unless one like it was printed a moment ago."""
        stage, message, when = self._last.get(name, ("", "", -math.inf))
        now = time.monotonic()
        if snapshot.stage == stage and snapshot.message in ("", message) and now - when < PLAIN_SECONDS:
            return
        self._last[name] = (snapshot.stage, snapshot.message, now)
        parts = (name, snapshot.line(), snapshot.message)
        print(" | ".join(part for part in parts if part) + "\n", end="", flush=True)  # one write, whole lines


class JsonDisplay(PlainDisplay):
    """Every snapshot as one line of JSON; what a parent process reads."""

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Print the snapshot as JSON."""
        print(json.dumps({"progress": asdict(snapshot)}), flush=True)


class LiveDisplay:
    """A table that stays in place on a terminal, three rows a run; its clocks go on between snapshots."""

    def __init__(self, console: Console) -> None:
        self._rows: dict[str, tuple[Snapshot, float]] = {}
        self._messages: dict[str, str] = {}
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Update the row of `name`; a new message goes above the table."""
        self._rows[name] = snapshot, time.monotonic()
        if snapshot.message and snapshot.message != self._messages.get(name):
            self._messages[name] = snapshot.message
            text = ": ".join(part for part in (name, snapshot.stage, snapshot.message) if part)
            self._live.console.print(text, markup=False, highlight=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, (told, when) in list(self._rows.items()):
            snapshot = told if told.stage == "done" else told.after(time.monotonic() - when)
            place = f"{snapshot.stage} {snapshot.round}, {duration(snapshot.seconds)}"
            if snapshot.seconds_left is not None:
                place += f", about {duration(snapshot.seconds_left)} left"
            if snapshot.fraction is not None:
                place += f", {100 * snapshot.fraction:.0f} % done"
            table.add_row(Text(name or "stage", style="bold"), place)
            table.add_row("rate", rate_text(snapshot.rate))
            table.add_row("forces", snapshot.evaluations())
        return table


def make_display(as_json: bool) -> Display:
    """Return the display that suits standard output."""
    if as_json:
        return JsonDisplay()
    console = Console()
    return LiveDisplay(console) if console.is_terminal and sys.stdout.isatty() else PlainDisplay()


def status(directory: Path) -> dict[str, dict[str, Any]]:
    """Return where the run in `directory` stands, from its files alone: one entry, or one for each of several runs.

    `state` is "new" (no whole round yet), "running", "interrupted", or "done" (by the target or a limit, see
    `stopped`); the rest is the newest snapshot, `evaluations_per_second`, and `age`, the seconds since the last sign of
    life.

    Raises
    ------
    InputError
        The directory holds no run.
    """
    children = [directory / direction for direction in ("forward", "backward")]
    if any(child.is_dir() for child in children):
        return {child.name: found for child in children if child.is_dir() for found in status(child).values()}
    if is_network(directory) and (legs := leg_directories(directory)):
        return {name: found for name, leg in legs.items() for found in status(leg).values()}
    if not (directory / "config.yaml").is_file():
        raise bad_input("DIR", "a run directory (with config.yaml)", str(directory))
    path = directory / "result.json"
    result = read_json(path, is_chained(directory)) if path.exists() else {}
    snapshot, age = _last_progress(directory / "log.jsonl")
    done = "stopped" in result and (snapshot is None or snapshot.stage == "done")
    busy = is_being_written(directory)
    state = "done" if done and not busy else "running" if busy else "new" if snapshot is None else "interrupted"
    if done:
        total = result.get("cost", {}).get("force_evaluations", {}).get("total", 0)
        snapshot = replace(snapshot or Snapshot("done"), rate=result.get("rate"))
        snapshot = replace(snapshot, force_evaluations=max(snapshot.force_evaluations, total))
    shown = snapshot or Snapshot()
    evaluations, seconds = spent(directory / SPENT)  # also of a run that was killed before it could tell
    shown = replace(shown, force_evaluations=max(shown.force_evaluations, evaluations))
    shown = replace(shown, seconds=shown.seconds if busy else max(shown.seconds, seconds))
    more = {"evaluations_per_second": shown.evaluations_per_second, "age": age}
    return {"": {"state": state, "stopped": result["stopped"] if done else None, **asdict(shown), **more}}


def status_lines(directory: Path) -> list[str]:
    """Return `status` for people, one line a run."""
    return [(f"{name}: " if name else "") + _status_line(told) for name, told in status(directory).items()]


def _status_line(told: Mapping[str, Any]) -> str:
    snapshot, age = Snapshot.from_mapping(told), told["age"]
    if told["state"] == "done":
        line = f"rate {rate_text(snapshot.rate)} | {snapshot.evaluations()} | {duration(snapshot.seconds)}"
        return f"done (stopped by {told['stopped']}) | {line}"
    if not snapshot.stage:
        return "no whole round yet" + (", running" if told["state"] == "running" else "")
    end = "not running, carry on with `rlis resume`" if told["state"] == "interrupted" else "running"
    now = snapshot.after(age or 0.0) if told["state"] == "running" else snapshot
    return f"{now.line()} | {end}" + ("" if age is None else f", last sign of life {duration(age)} ago")


def is_being_written(directory: Path) -> bool:
    """Return whether a process holds the lock of a run directory (see `disk.Lock`); False where there are no locks."""
    try:
        import fcntl

        with opened(directory / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


def _last_progress(path: Path) -> tuple[Snapshot | None, float | None]:
    """Return the newest snapshot in a log and its age in seconds; a half-written last line is passed over."""
    try:
        with opened(path) as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None, None
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and "stage" in entry and "force_evaluations" in entry:
            return Snapshot.from_mapping(entry), max(0.0, age)
    return None, None

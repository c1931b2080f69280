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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .errors import bad_input

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

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return stage, rate, evaluations, elapsed time and time left as text."""
        stage = f"{self.stage} {self.round}"
        left = "" if self.seconds_left is None else duration(self.seconds_left)
        return stage, rate_text(self.rate), f"{self.force_evaluations:.2e}", duration(self.seconds), left


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
        position, rate, evaluations, elapsed, left = snapshot.cells()
        parts = [name, position, f"rate {rate}", f"{evaluations} evaluations", elapsed]
        parts += [f"{left} left"] if left else []
        parts += [snapshot.message] if snapshot.message else []
        print(" | ".join(part for part in parts if part) + "\n", end="", flush=True)  # one write, whole lines


class JsonDisplay(PlainDisplay):
    """Every snapshot as one line of JSON; what a parent process reads."""

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Print the snapshot as JSON."""
        print(json.dumps({"progress": asdict(snapshot)}), flush=True)


class LiveDisplay:
    """A table that stays in place on a terminal, one row a run."""

    def __init__(self, console: Console) -> None:
        self._rows: dict[str, Snapshot] = {}
        self._messages: dict[str, str] = {}
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, name: str, snapshot: Snapshot) -> None:
        """Update the row of `name`; a new message goes above the table."""
        self._rows[name] = snapshot
        if snapshot.message and snapshot.message != self._messages.get(name):
            self._messages[name] = snapshot.message
            self._live.console.print(f"{name}: {snapshot.message}", markup=False, highlight=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("run", "stage", "rate so far, 95 % interval", "evaluations", "elapsed", "left", "done"):
            table.add_column(heading, no_wrap=True)
        for name, snapshot in self._rows.items():
            done = "" if snapshot.fraction is None else f"{100 * snapshot.fraction:.0f} %"
            table.add_row(name, *snapshot.cells(), done)
        return table


def make_display(as_json: bool) -> Display:
    """Return the display that suits standard output."""
    if as_json:
        return JsonDisplay()
    console = Console()
    return LiveDisplay(console) if console.is_terminal and sys.stdout.isatty() else PlainDisplay()


def status_lines(directory: Path, name: str = "") -> list[str]:
    """Return where the run in `directory` stands, from its files alone, one line a direction.

    Raises
    ------
    InputError
        The directory holds no run.
    """
    children = [directory / direction for direction in ("forward", "backward")]
    if any(child.is_dir() for child in children):
        return [line for child in children if child.is_dir() for line in status_lines(child, child.name)]
    if not (directory / "config.yaml").is_file():
        raise bad_input("DIR", "a run directory (with config.yaml)", str(directory))
    prefix = f"{name}: " if name else ""
    result = _read_json(directory / "result.json")
    snapshot, age = _last_progress(directory / "log.jsonl")
    if result is not None and "stopped" in result and (snapshot is None or snapshot.stage == "done"):
        total = result.get("cost", {}).get("force_evaluations", {}).get("total", 0)
        rate = rate_text(result.get("rate"))
        return [f"{prefix}done (stopped by {result['stopped']}) | rate {rate} | {total:.2e} evaluations"]
    if snapshot is None:
        return [f"{prefix}no whole round yet"]
    position, rate, evaluations, elapsed, left = snapshot.cells()
    line = f"{prefix}{position} | rate {rate} | {evaluations} evaluations | {elapsed}"
    line += f" | {left} left" if left else ""
    return [line + ("" if age is None else f" | last sign of life {duration(age)} ago")]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _last_progress(path: Path) -> tuple[Snapshot | None, float | None]:
    """Return the newest snapshot in a log and its age in seconds; a half-written last line is passed over."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None, None
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "stage" in entry and "force_evaluations" in entry:
            return Snapshot.from_mapping(entry), max(0.0, age)
    return None, None

"""Terminal: snapshots of runs as a live table, as plain lines elsewhere, or as JSON lines for a parent process."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .progress import Snapshot
from .text import duration, rate_text

PLAIN_SECONDS = 5.0


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

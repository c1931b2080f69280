"""Status: stage, rate and cost of a run, from its files alone; neither torch, openmm nor NumPy is needed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..display.progress import Snapshot
from ..display.text import duration, rate_text
from ..errors import bad_input
from .atomic_files import opened
from .cost_meter import SPENT, spent
from .integrity import is_chained, read_json
from .network_directory import is_network, leg_directories

_TAIL_BYTES = 65_536


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
        return "no complete round yet" + (", running" if told["state"] == "running" else "")
    end = "not running, continue with `rlis resume`" if told["state"] == "interrupted" else "running"
    now = snapshot.after(age or 0.0) if told["state"] == "running" else snapshot
    return f"{now.line()} | {end}" + ("" if age is None else f", last update {duration(age)} ago")


def is_being_written(directory: Path) -> bool:
    """Return whether a process holds the lock of a run directory, `atomic_files.Lock`; False where there are none."""
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

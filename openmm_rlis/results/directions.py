"""Directions: a directory that holds the runs of both directions, `forward/` and `backward/`, or a run itself."""

from __future__ import annotations

import json
from pathlib import Path

from ..config.run_config import DIRECTIONS, RunConfig
from ..errors import InputError
from ..storage import checksums, integrity
from ..storage.network_directory import is_network, leg_directories


def is_parent(directory: Path) -> bool:
    """Return whether a directory holds the runs of both directions."""
    if any((directory / direction).is_dir() for direction in DIRECTIONS):
        return True
    try:
        return RunConfig.from_yaml(directory / "config.yaml").both
    except InputError:  # the config of a single run may hold more than a RunConfig
        return False


def run_directories(directory: Path) -> dict[str, Path]:
    """Return the run directories in `directory` by name: forward and backward, or itself under the empty name.

    Of a network, its legs.
    """
    if is_network(directory):
        return leg_directories(directory)
    if not is_parent(directory):
        return {"": directory}
    return {direction: directory / direction for direction in DIRECTIONS if (directory / direction).is_dir()}


def holds_run(directory: Path) -> bool:
    """Return whether a directory holds the beginning of a run."""
    return (directory / "config.yaml").is_file()


def join_results(directory: Path) -> None:
    """Write `result.json` of both directions, `{"forward": ..., "backward": ...}`, once both have one."""
    files = {direction: directory / direction / "result.json" for direction in DIRECTIONS}
    if not all(file.is_file() for file in files.values()):
        return
    joined = {direction: integrity.read_json(file) for direction, file in files.items()}
    text = json.dumps(joined, indent=2) + "\n"
    checksums.replace_covered(directory / "result.json", lambda path: path.write_text(text, encoding="utf-8"))

"""Network directory: one that holds the runs of a network, one for each pair of states, from its `network.json` alone.

    DIR/network.json     {"schema": 1, "states": [...], "legs": {"C3-C2": {"from": "C3", "to": "C2", ...}, ...}, ...}

With several temperatures the legs lie in DIR/beta-9 and so on. The file is covered by `checksums`. Standard library
only, so that `rlis status` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .integrity import read_json

RECORD = "network.json"


def is_network(directory: Path) -> bool:
    """Return whether a directory holds the runs of a network."""
    return (directory / RECORD).is_file()


def read_record(directory: Path) -> dict[str, Any]:
    """Return what is known of a network; raises `StorageError` if it is damaged."""
    return read_json(directory / RECORD, required=True)


def leg_directories(directory: Path) -> dict[str, Path]:
    """Return the run directories of a network that have begun, by name."""
    names = read_record(directory)["legs"]
    return {name: directory / name for name in names if (directory / name / "config.yaml").is_file()}

"""The report of a run, or of a network and each of its legs."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..report.network_tables import tables
from ..report.write import report as report_run
from ..storage.network_directory import is_network, leg_directories


def report(directory: Path, figures: bool, trusted: bool) -> list[Path]:
    """Print the tables of a network and of its legs, and return the figures and pages of the legs; see `report`."""
    if not is_network(directory):
        return report_run(directory, figures, trusted=trusted)
    console = Console()
    for table in tables(directory):
        console.print(table)
    written = []
    for leg in leg_directories(directory).values():
        written += report_run(leg, figures, trusted=trusted)
    return written

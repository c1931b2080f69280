"""Report: tables on the terminal, PNG figures, and one page `report.html`.

Figures: rate of every batch, rate against rounds, share of the transitions that each root carries, durations of paths;
and success paths and structures along one of them. The numbers come from `plot_data` and `estimators`, the figures from
`statistics_figures` and `path_figures`, the page from `page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config.problem_identity import check_directions
from ..errors import bad_input
from ..results.directions import holds_run, run_directories
from ..storage.run_directory import RunDirectory
from . import page
from .path_figures import draw_all, prepare
from .plot_data import load
from .projections import choose, system_module

if TYPE_CHECKING:
    from ..problem import Problem


def report(directory: Path, figures: bool = True, problem: Problem | None = None, trusted: bool = False) -> list[Path]:
    """Print the tables of a run, or of both its directions, and return the figures and the page that were written.

    Parameters
    ----------
    directory
        Of a run, finished or not, or of both directions.
    figures
        Without them nothing is written.
    problem
        For a run whose regions are Python objects: with it the page shows the committor, channels and regions.
    trusted
        Whether the run's system.xml may hold forces that run code; without it the page leaves out what needs them.

    Raises
    ------
    InputError, StorageError
        Not a run directory, or a damaged one.
    """
    from rich.console import Console

    paths = [path for path in run_directories(directory).values() if path == directory or holds_run(path)]
    if not paths:
        raise bad_input("DIR", "a run directory with at least one direction started", str(directory))
    if len(paths) == 2:
        check_directions(*paths)
    runs = [load(path, _of_direction(problem, path) if len(paths) == 2 else problem, trusted) for path in paths]
    console = Console()
    for run in runs:
        for item in tables(run.result, run.loaded.not_applicable if run.loaded is not None else {}):
            console.print(item)
    if not figures:
        return []
    scene = prepare(runs, choose(runs, system_module(runs[0].result)))
    return [*draw_all(scene, directory / "figures"), page.write(directory / "report.html", scene)]


def _of_direction(problem: Problem | None, directory: Path) -> Problem | None:
    """Return the problem if it is of this direction, of two."""
    names = RunDirectory.open(directory).config["region_names"]
    return problem if problem is not None and [region.name for region in problem.regions] == names else None


# ------------------------------------------------------------------------------------------------------------- tables


def tables(result: Mapping[str, Any], reasons: Mapping[str, str] = MappingProxyType({})) -> list[Any]:
    """Return rich tables of the estimates and of the diagnostics, and the alarms as lines.

    `reasons` says why a diagnostic does not apply, by name.
    """
    from rich.table import Table
    from rich.text import Text

    others = ", ".join(result.get("others") or ()) or "none"
    ends = f"{result.get('source')} → {result.get('target')}"
    heading = f"{result.get('system')}: {ends}, beta {result.get('beta'):.6g}, others {others}"
    table = Table(title=Text(heading), title_justify="left")
    table.add_column("")
    for column in ("value", "error", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    units = {"rate": "1/ps", "mean_first_passage_time": "ps", "flux": "1/ps", "success_probability": ""}
    for name, unit in units.items():
        if name in result:
            table.add_row(name.replace("_", " "), *_cells(result[name]), unit)
    notes = Table(box=None, show_header=False, pad_edge=False)
    for name, text in _notes(result, reasons):
        notes.add_row(Text(name), Text(text))
    alarms = [Text(f"alarm: {line}", style="bold yellow") for line in result.get("diagnostics", {}).get("alarms", [])]
    return [table, notes, *alarms]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _cells(estimate: Mapping[str, Any]) -> tuple[str, str, str]:
    value, error = _number(estimate["value"]), _number(estimate["standard_error"])
    if not np.isfinite(error):
        return ("unknown" if np.isnan(value) else f"{value:.4g}"), "unknown", "unknown"
    low, high = (f"{_number(x):.3g}" for x in estimate["interval"])
    return f"{value:.4g}", f"{100 * error / value:.1f} %", f"{low} .. {high}"


def _notes(result: Mapping[str, Any], reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    cost, diagnostics = result.get("cost", {}), result.get("diagnostics", {})
    evaluations = cost.get("force_evaluations", {})
    spent = ", ".join(f"{name} {count:.2e}" for name, count in evaluations.items())
    notes = [("force evaluations", spent), ("network calls", f"{cost.get('network_calls', 0):.2e}")]
    notes += [("time", f"{cost['seconds']:.0f} s")] if "seconds" in cost else []
    for name, value in diagnostics.items():
        if value is None or isinstance(value, int | float):
            known = value is not None and np.isfinite(value)
            why = f": {reasons[name]}" if name in reasons else ""
            notes.append((name.replace("_", " "), f"{value:.3g}" if known else f"not applicable{why}"))
    notes += [("stopped by", str(result["stopped"]))] if "stopped" in result else []
    return [*notes, ("seed", str(result.get("seed")))]

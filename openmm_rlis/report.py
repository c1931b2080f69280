"""The results of a run for people: a table on the terminal and PNG figures.

Figures: rate of every batch, rate against rounds, share of the transitions that each root carries, durations of paths;
and for systems that name a plane to look at (`plane`, `plane_labels`, `landmarks`), success paths over the free
energy on it and structures along one of them. The numbers come from `views` and `estimators`; this is the only module
that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .launch import run_directories
from .views import (
    FloatArray,
    RunData,
    along,
    draw_successes,
    free_energy,
    laid_over,
    load,
    nearest_distances,
    plane_points,
    root_shares,
    running_mean,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers and in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
COLOURS = (BLUE, RED)
GREY = "#666666"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
}
MAX_FRAMES = 200_000
SHOWN_PATHS = 6


def report(directory: Path, figures: bool = True) -> list[Path]:
    """Print the tables of a run, or of both its directions, and return the figures written to `DIR/figures`.

    Raises
    ------
    InputError, StorageError
        Not a run directory, or one without results, or a damaged one.
    """
    from rich.console import Console

    runs = [load(path) for path in run_directories(directory).values()]
    console = Console()
    for run in runs:
        for item in tables(run.result):
            console.print(item)
    return draw_all(runs, directory / "figures", system_module(runs[0].result)) if figures else []


def system_module(result: Mapping[str, Any]) -> Any:
    """Return the module of the system if it names a plane to draw on, else None."""
    from .systems import available

    module = available().get(str(result.get("system")))
    return module if all(hasattr(module, name) for name in ("plane", "plane_labels", "landmarks")) else None


# ------------------------------------------------------------------------------------------------------------- tables


def tables(result: Mapping[str, Any]) -> list[Any]:
    """Return rich tables of the estimates and of the diagnostics, and the alarms as lines."""
    from rich.table import Table
    from rich.text import Text

    others = ", ".join(result.get("others") or ()) or "none"
    ends = f"{result.get('source')} → {result.get('target')}"
    heading = f"{result.get('system')}: {ends}, beta {result.get('beta'):.6g}, others {others}"
    table = Table(title=heading, title_justify="left")
    table.add_column("")
    for column in ("value", "error", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    units = {"rate": "1/ps", "mean_first_passage_time": "ps", "flux": "1/ps", "success_probability": ""}
    for name, unit in units.items():
        if name in result:
            table.add_row(name.replace("_", " "), *_cells(result[name]), unit)
    notes = Table(box=None, show_header=False, pad_edge=False)
    for name, text in _notes(result):
        notes.add_row(name, text)
    alarms = [Text(f"alarm: {line}", style="bold yellow") for line in result.get("diagnostics", {}).get("alarms", [])]
    return [table, notes, *alarms]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _cells(estimate: Mapping[str, Any]) -> tuple[str, str, str]:
    value, error = _number(estimate["value"]), _number(estimate["standard_error"])
    if not np.isfinite(error):
        return f"{value:.4g}", "unknown", "unknown"
    low, high = (f"{_number(x):.3g}" for x in estimate["interval"])
    return f"{value:.4g}", f"{100 * error / value:.1f} %", f"{low} .. {high}"


def _notes(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    cost, diagnostics = result.get("cost", {}), result.get("diagnostics", {})
    evaluations = cost.get("force_evaluations", {})
    spent = ", ".join(f"{name} {count:.2e}" for name, count in evaluations.items())
    notes = [("force evaluations", spent), ("network calls", f"{cost.get('network_calls', 0):.2e}")]
    notes += [("time", f"{cost['seconds']:.0f} s")] if "seconds" in cost else []
    for name, value in diagnostics.items():
        if isinstance(value, int | float):
            notes.append((name.replace("_", " "), f"{value:.3g}"))
    notes += [("stopped by", str(result["stopped"]))] if "stopped" in result else []
    return [*notes, ("seed", str(result.get("seed")))]


# ------------------------------------------------------------------------------------------------------------ figures


def draw_all(runs: Sequence[RunData], folder: Path, module: Any = None) -> list[Path]:
    """Draw every figure that the data allow and return the files written."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        figures = {
            "rate_by_batch": _panels(runs, draw_batches),
            "rate_by_round": _panels(runs, draw_rounds),
            "root_shares": _panels(runs, draw_roots),
            "path_durations": _panels(runs, draw_durations),
        }
        if module is not None and all(run.paths.is_success.any() for run in runs):
            figures["paths_on_plane"] = draw_plane(runs, module)
            if runs[0].replicas.shape[1] > 1:  # a single particle has a place, but no structure
                figures["structures"] = draw_structures(runs, module)
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def _panels(runs: Sequence[RunData], draw: Callable[[Axes, RunData, str], None]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(runs), 3.2), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for axis, run, colour in zip(axes, runs, COLOURS, strict=False):
        axis.set_title(run.title)
        draw(axis, run, colour)
    return figure


def draw_batches(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the rate of every batch, their mean and its 95 % interval."""
    rates = run.transitions.sum(0) / run.time.sum(0)
    estimate = run.rate()
    axis.axhline(estimate.value, color="black", linewidth=1.2, label="mean")
    if np.isfinite(estimate.standard_error):
        axis.axhspan(*estimate.interval, color="black", alpha=0.15, linewidth=0, label="95 % interval")
    axis.plot(np.arange(1, len(rates) + 1), rates, "o", color=colour, markersize=5, label="batch", clip_on=False)
    axis.set(xlabel="batch", ylabel="rate / ps$^{-1}$", ylim=(0.0, 1.35 * max(rates.max(), estimate.value) or 1.0))
    _whole_numbers(axis.xaxis)
    axis.legend(frameon=False, ncols=3, loc="upper center", columnspacing=1.2, handletextpad=0.5)


def draw_rounds(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the rate from the first 1, 2, ... rounds with its 95 % interval."""
    estimates = [run.rate(n) for n in range(1, len(run.time) + 1)]
    rounds = np.arange(1, len(estimates) + 1)
    known = np.array([np.isfinite(e.standard_error) for e in estimates])
    low, high = np.array([e.interval for e in estimates]).T
    marker = "o" if len(rounds) < 20 else None
    if known.any():
        axis.fill_between(
            rounds, np.where(known, low, np.nan), np.where(known, high, np.nan), color=colour, alpha=0.2, linewidth=0,
            label="95 % interval",
        )  # fmt: skip
    axis.plot(rounds, [e.value for e in estimates], color=colour, marker=marker, markersize=4, label="rate so far")
    # The first rounds have intervals that would flatten all the rest.
    top = max(float(np.median(high[known])) if known.any() else 0.0, 2.0 * estimates[-1].value) or 1.0
    axis.set(xlabel="production rounds", ylabel="rate / ps$^{-1}$", ylim=(0.0, top))
    _whole_numbers(axis.xaxis)
    axis.legend(frameon=False, loc="upper right")


def draw_roots(axis: Axes, run: RunData, colour: str) -> None:
    """Draw how the transitions are shared among the roots that reached the target."""
    shares = root_shares(run.paths)
    axis.set(xlabel="share of all transitions carried by one root", ylabel="roots with transitions")
    if not len(shares):
        _say_nothing(axis, "no success paths yet")
        return
    low = max(float(shares.min()), float(shares.max()) * 1e-12) * 0.8
    axis.hist(shares, bins=np.geomspace(low, 1.2 * shares.max(), 30).tolist(), color=colour, alpha=0.85)
    axis.set_xscale("log")
    axis.axvline(shares.max(), color="black", linestyle=":", linewidth=1)
    text = f"{len(shares)} roots\nlargest share {100 * shares.max():.2g} %"
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])
    _whole_numbers(axis.yaxis)
    axis.text(0.03, 0.97, text, transform=axis.transAxes, va="top")


def draw_durations(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the weighted distributions of the durations of success and failure paths, each with area one in ln t."""
    axis.set(xlabel="duration / ps", ylabel="density in ln(duration)")
    durations, paths = run.paths.durations(), run.paths
    kinds = ((paths.is_success, "success", colour, "-"), (~paths.is_success, "failure", GREY, "--"))
    drawn = [kind for kind in kinds if kind[0].any() and paths.weights[kind[0]].sum() > 0]
    if not drawn:
        _say_nothing(axis, "no paths yet")
        return
    edges = _edges_between_frames(durations / paths.frame_interval) * paths.frame_interval
    for mask, name, shade, line in drawn:
        counts, _ = np.histogram(durations[mask], edges, weights=paths.weights[mask])
        density = counts / counts.sum() / np.diff(np.log(edges))
        axis.stairs(density, edges, color=shade, linestyle=line, linewidth=1.5, label=f"{name} ({mask.sum()} paths)")
    axis.set_xscale("log")
    axis.set_ylim(0.0, 1.3 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper left")


def _edges_between_frames(n_steps: FloatArray, n_bins: int = 30) -> FloatArray:
    """Return edges of about equal width in the logarithm that never split the paths of one number of steps."""
    marks = np.geomspace(max(n_steps.min(), 1.0), max(n_steps.max(), 2.0), n_bins + 1)
    return np.append(np.unique(np.floor(marks[:-1])) - 0.5, np.floor(marks[-1] + 0.5) + 0.5)


def _whole_numbers(*axes: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def _say_nothing(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)


# -------------------------------------------------------------------------------------------- the plane of a system


def draw_plane(runs: Sequence[RunData], module: Any) -> Figure:
    """Draw success paths, drawn by weight, over the free energy on the system's plane, one panel a direction."""
    from matplotlib.figure import Figure

    marks = module.landmarks()
    clouds = [_clouds(run, module) for run in runs]
    everything = [points for pair in clouds for points, _ in pair] + [np.array(list(marks.values()))]
    edges = _edges(np.concatenate(everything))
    energy = free_energy(clouds, edges, float(runs[0].result["beta"]))
    top = float(np.nanmax(energy)) if np.isfinite(energy).any() else 1.0
    figure = Figure(figsize=(4.0 * len(runs) + 0.8, 3.8), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False, sharex=True, sharey=True)[0]
    for axis, run, colour in zip(axes, runs, COLOURS, strict=False):
        image = axis.pcolormesh(*edges, energy.T, cmap=_pale_greys(), vmin=0.0, vmax=top, rasterized=True)
        _plot_paths(axis, run, module, colour)
        _plot_landmarks(axis, marks)
        axis.set(title=run.title, xlabel=module.plane_labels[0], xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    axes[0].set_ylabel(module.plane_labels[1])
    figure.colorbar(image, ax=list(axes), label="$-\\ln\\rho/\\beta$ / kJ mol$^{-1}$", pad=0.02)
    return figure


def _clouds(run: RunData, module: Any) -> list[tuple[FloatArray, FloatArray]]:
    """Return two clouds of points and weights for one transition: of the paths, and of the replicas last in A."""
    transitions = run.paths.success().weights.sum()
    points, weights = plane_points(run.paths, module.plane, run.frame_interval, MAX_FRAMES)
    seen = module.plane(run.replicas)
    return [(points, weights / transitions), (seen, np.full(len(seen), run.time.sum() / len(seen) / transitions))]


def _pale_greys() -> Colormap:
    """Return greys from middle (low) to nearly white (high), on which both path colours stand out."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", ["#777777", "#f6f6f6"])


def _edges(points: FloatArray, n: int = 70) -> list[FloatArray]:
    low, high = np.quantile(points, [0.0005, 0.9995], axis=0)
    margin = 0.05 * (high - low)
    return [np.linspace(a, b, n + 1) for a, b in zip(low - margin, high + margin, strict=True)]


def _plot_paths(axis: Axes, run: RunData, module: Any, colour: str) -> None:
    for i in draw_successes(run.paths, SHOWN_PATHS, np.random.default_rng(0)):
        path = module.plane(run.paths.positions(i))
        line = running_mean(path, max(1, len(path) // 25))
        axis.plot(*line.T, color=colour, linewidth=0.9, alpha=0.8)


def _plot_landmarks(axis: Axes, marks: Mapping[str, FloatArray]) -> None:
    from matplotlib.patheffects import withStroke

    for name, (x, y) in marks.items():
        axis.plot(x, y, "o", color=YELLOW, markeredgecolor="black", markersize=7, zorder=4)
        axis.annotate(
            name, (x, y), xytext=(6, 5), textcoords="offset points", fontweight="bold", zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def draw_structures(runs: Sequence[RunData], module: Any, n: int = 6) -> Figure:
    """Draw structures along one success path of each direction, from the last one in A to the first one in B."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.35 * n, 1.6 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), n, squeeze=False)
    for axes, run in zip(grid, runs, strict=True):
        chosen = draw_successes(run.paths, 1, np.random.default_rng(1))[0]
        times = run.paths.times(chosen)
        frames = run.paths.positions(chosen).astype(np.float64)
        picked = along(frames, module.plane(frames), n)
        structures = laid_over([frames[k] for k in picked])
        radius = 0.5 * float(np.median([nearest_distances(x) for x in structures]))
        reach = max(float(np.abs(x).max()) for x in structures) + 1.2 * radius
        source, target = str(run.result["source"]), str(run.result["target"])
        for axis, k, structure in zip(axes, picked, structures, strict=False):
            ends = {picked[0]: f"{source}, ", picked[-1]: f"{target}, "}
            axis.set_title(f"{ends.get(k, '')}{times[k]:.3g} ps", fontsize=8)
            _draw_structure(axis, structure, radius, reach)
        for axis in axes:
            axis.set_axis_off()
    return figure


def _draw_structure(axis: Axes, structure: FloatArray, radius: float, reach: float) -> None:
    from matplotlib.patches import Circle

    palette = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
    for atom, (x, y) in enumerate(structure):
        axis.add_patch(Circle((x, y), radius, facecolor=palette[atom % len(palette)], edgecolor="black", linewidth=0.7))
        axis.text(x, y, str(atom + 1), ha="center", va="center", fontsize=7)
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")

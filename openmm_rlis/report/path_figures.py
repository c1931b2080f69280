"""Path figures: success paths and their density on a plane, and structures along one of them.

The background of a plane is the free energy of the configurations whose last region was A or B (see `plot_data`), and
with one direction only that of the configurations whose last region was A. Structures of planar systems are drawn as
they are; others are laid over each other, seen along the direction in which they extend least, and nearer atoms are
painted over farther ones. Statistics are drawn by `statistics_figures`; these two modules are the only ones that draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..storage.atomic_files import replace
from .plot_data import (
    FloatArray,
    RunData,
    along,
    free_energy,
    laid_over,
    nearest_distances,
    plane_points,
    running_mean,
    sample_successes,
    seen_flat,
)
from .projections import Grouping, Plane, channels_of
from .statistics_figures import (
    BLUE,
    CHANNEL_COLOURS,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SHOWN_PATHS,
    SKY,
    YELLOW,
    draw_batches,
    draw_durations,
    draw_roots,
    draw_rounds,
    panels,
    plain,
    say_nothing,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MAX_FRAMES = 200_000
CONTOURS = 14
SMOOTHING = 1.6
"""Width of the Gaussian that smooths the free energy on a plane, in cells."""
MOST_ATOMS = 300
ATOM_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, GREY)
ELEMENTS = {"H": "#EEEEEE", "C": GREY, "N": BLUE, "O": RED, "S": YELLOW, "P": ORANGE}


@dataclass(frozen=True)
class Landscape:
    """The background of a plane: edges of cells, free energy in kJ/mol (nan: unknown) and the top of its scale."""

    edges: list[FloatArray]
    energy: FloatArray
    top: float


@dataclass(frozen=True)
class ReportData:
    """What several figures share: runs, the plane to draw on and its background, channels or why there are none."""

    runs: Sequence[RunData]
    plane: Plane | None
    ground: Landscape | None
    channels: list[tuple[Grouping | None, str]]


def prepare(runs: Sequence[RunData], plane: Plane | None) -> ReportData:
    """Return what the figures of some runs share."""
    some = any(run.has_success for run in runs)
    ground = landscape(runs, plane) if some and plane is not None and plane.width == 2 else None
    return ReportData(runs, plane, ground, [channels_of(run) for run in runs])


def draw_all(scene: ReportData, folder: Path) -> list[Path]:
    """Draw as PNG every figure that the data allow and return the files written."""
    runs = scene.runs
    with styled():
        figures = {
            "rate_by_batch": panels(runs, draw_batches),
            "rate_by_round": panels(runs, draw_rounds),
            "root_shares": panels(runs, draw_roots),
            "path_durations": panels(runs, draw_durations),
        }
        if all(run.has_success for run in runs):
            if scene.plane is not None and scene.ground is not None:
                figures["paths_on_plane"] = draw_plane(runs, scene.plane, scene.ground)
            if 1 < n_atoms(runs[0]) <= MOST_ATOMS:  # a single particle has a place, but no structure
                figures["structures"] = draw_structures(runs, scene.plane)
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            replace(folder / f"{name}.png", figure.savefig)
    return [folder / f"{name}.png" for name in figures]


def n_atoms(run: RunData) -> int:
    """Return the number of atoms of a run's structures."""
    return int(run.replicas.shape[1])


def landscape(runs: Sequence[RunData], plane: Plane) -> Landscape:
    """Return the free energy on a plane of two numbers from all runs that have success paths."""
    usable = [run for run in runs if run.has_success]
    clouds = [_clouds(run, plane) for run in usable]
    # Far-off dead ends would shrink everything else; source and target must be in the picture.
    ends = {str(run.result.get(end)) for run in runs for end in ("source", "target")}
    marks = [point for name, point in plane.landmarks.items() if name in ends]
    edges = _edges(np.concatenate([points for pair in clouds for points, _ in pair]), marks)
    energy = free_energy(clouds, edges, float(runs[0].result["beta"]), smooth=SMOOTHING)
    return Landscape(edges, energy, float(np.nanmax(energy)) if np.isfinite(energy).any() else 1.0)


def _clouds(run: RunData, plane: Plane) -> list[tuple[FloatArray, FloatArray]]:
    """Return two clouds of points and weights for one transition: of the paths, and of the replicas last in A."""
    transitions = run.paths.success().weights.sum()
    points, weights = plane_points(run.paths, plane.points, MAX_FRAMES)
    seen = plane.points(run.replicas)
    return [(points, weights / transitions), (seen, np.full(len(seen), run.time.sum() / len(seen) / transitions))]


def _pale_greys() -> Colormap:
    """Return greys from middle (low) to nearly white (high), on which both path colours stand out."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("pale", ["#777777", "#f6f6f6"])


def _edges(points: FloatArray, marks: Sequence[FloatArray], n: int = 70) -> list[FloatArray]:
    """Return edges of cells that hold nearly all points and every mark."""
    low, high = np.quantile(points, [0.0005, 0.9995], axis=0)
    low, high = np.min([low, *marks], axis=0), np.max([high, *marks], axis=0)
    margin = np.maximum(0.05 * (high - low), 1e-9)
    return [np.linspace(a, b, n + 1) for a, b in zip(low - margin, high + margin, strict=True)]


# -------------------------------------------------------------------------------------------------------------- planes


def draw_plane(runs: Sequence[RunData], plane: Plane, ground: Landscape) -> Figure:
    """Draw success paths, drawn by weight, over the free energy on a plane, one panel a direction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * len(runs) + 0.8, 3.8), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False, sharex=True, sharey=True)[0]
    for axis, run, colour in zip(axes, runs, COLOURS, strict=False):
        image = _draw_ground(axis, ground, plane)
        plot_paths(axis, run, plane, colour)
        axis.set(title=plain(run.title))
    for axis in axes[1:]:
        axis.set_ylabel("")
    figure.colorbar(image, ax=list(axes), label="$-\\ln\\rho/\\beta$ / kJ mol$^{-1}$", pad=0.02)
    return figure


def plane_panel(runs: Sequence[RunData], plane: Plane, ground: Landscape, grouping: Grouping | None = None) -> Figure:
    """Draw success paths of all `runs` on one panel, or those of `grouping` with a colour for each channel."""
    figure, axis = _square()
    image = _draw_ground(axis, ground, plane)
    if grouping is not None:
        _plot_channels(axis, grouping, plane)
    else:
        for run, colour in zip(runs, COLOURS, strict=False):
            if run.has_success:
                plot_paths(axis, run, plane, colour)
                axis.plot([], [], color=colour, label=plain(run.title))
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    figure.colorbar(image, ax=axis, label="$-\\ln\\rho/\\beta$ / kJ mol$^{-1}$", pad=0.02)
    return figure


def density_panel(run: RunData, plane: Plane, ground: Landscape) -> Figure:
    """Draw where success paths spend their time on a plane, in decades of the density."""
    figure, axis = _square()
    points, times = plane_points(run.paths, plane.points, MAX_FRAMES, only_success=True)
    density = np.histogram2d(points[:, 0], points[:, 1], bins=ground.edges, weights=times)[0]
    with np.errstate(divide="ignore"):
        decades = np.where(density > 0, np.log10(density / max(float(density.max()), 1e-300)), np.nan)
    image = axis.pcolormesh(*ground.edges, decades.T, cmap="cividis_r", vmin=-3.0, vmax=0.0, rasterized=True)
    _finish_plane(axis, ground, plane)
    figure.colorbar(image, ax=axis, label="log$_{10}$ of time spent, relative", pad=0.02)
    return figure


def timed_panel(run: RunData, plane: Plane, ground: Landscape, path: int, picked: Sequence[int]) -> Figure:
    """Draw one success path on a plane with numbered marks at the `picked` frames."""
    figure, axis = _square()
    _draw_ground(axis, ground, plane)
    points = plane.points(run.paths.positions(path))
    axis.plot(*points.T, color=BLUE, linewidth=0.8)
    for number, k in enumerate(picked, start=1):
        axis.plot(*points[k], "o", color="white", markeredgecolor="black", markersize=11, zorder=6)
        axis.text(points[k, 0], points[k, 1], str(number), ha="center", va="center", fontsize=8, zorder=7)
    return figure


def _square() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.7), layout="constrained")
    return figure, figure.subplots()


def _draw_ground(axis: Axes, ground: Landscape, plane: Plane) -> Any:
    from matplotlib.ticker import MaxNLocator

    centers = [(edges[1:] + edges[:-1]) / 2.0 for edges in ground.edges]
    levels = MaxNLocator(CONTOURS).tick_values(0.0, max(ground.top, 1e-9))
    image = axis.contourf(*centers, ground.energy.T, levels=levels, cmap=_pale_greys())
    axis.contour(*centers, ground.energy.T, levels=levels[1::2], colors="black", linewidths=0.3, alpha=0.5)
    _finish_plane(axis, ground, plane)
    return image


def _finish_plane(axis: Axes, ground: Landscape, plane: Plane) -> None:
    _plot_landmarks(axis, plane.landmarks)
    axis.set(xlim=ground.edges[0][[0, -1]], ylim=ground.edges[1][[0, -1]])
    axis.set(xlabel=plane.labels[0], ylabel=plane.labels[1])


def plot_paths(axis: Axes, run: RunData, plane: Plane, colour: str) -> None:
    """Plot some success paths, drawn by weight and smoothed a little."""
    for i in sample_successes(run.paths, SHOWN_PATHS, np.random.default_rng(0)):
        axis.plot(*_smooth(plane.points(run.paths.positions(i))).T, color=colour, linewidth=0.9, alpha=0.8)


def _plot_channels(axis: Axes, grouping: Grouping, plane: Plane) -> None:
    for channel in range(len(grouping.shares)):
        members = grouping.paths.select(grouping.names == channel)
        colour = CHANNEL_COLOURS[channel % len(CHANNEL_COLOURS)]
        for i in sample_successes(members, 4, np.random.default_rng(0)):
            axis.plot(*_smooth(plane.points(members.positions(i))).T, color=colour, linewidth=0.9, alpha=0.8)
        axis.plot([], [], color=colour, label=f"channel {channel + 1}")


def _smooth(points: FloatArray) -> FloatArray:
    return running_mean(points, max(1, len(points) // 25))


def _plot_landmarks(axis: Axes, marks: Mapping[str, FloatArray]) -> None:
    from matplotlib.patheffects import withStroke

    for name, (x, y) in marks.items():
        axis.plot(x, y, "o", color=YELLOW, markeredgecolor="black", markersize=7, zorder=4)
        axis.annotate(
            plain(name), (x, y), xytext=(6, 5), textcoords="offset points", fontweight="bold", zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- one number


def draw_traces(axis: Axes, run: RunData, plane: Plane, colour: str) -> None:
    """Draw the one number of a plane along some success paths against the time before their arrival."""
    axis.set(xlabel="time before arrival / ps", ylabel=plane.labels[0])
    if not run.has_success:
        say_nothing(axis, "no success paths yet")
        return
    for i in sample_successes(run.paths, SHOWN_PATHS, np.random.default_rng(0)):
        times = run.paths.times(i)
        axis.plot(times - times[-1], plane.points(run.paths.positions(i))[:, 0], color=colour, linewidth=0.8, alpha=0.8)
    for name, (x,) in plane.landmarks.items():
        axis.axhline(x, color="black", linestyle=":", linewidth=1)
        axis.annotate(
            plain(name), (0.0, x), xycoords=("axes fraction", "data"), xytext=(3, 3), textcoords="offset points"
        )


def draw_profile(axis: Axes, run: RunData, plane: Plane, colour: str) -> None:
    """Draw the time that success paths spend along the one number of a plane."""
    axis.set(xlabel=plane.labels[0], ylabel="time per transition / ps in each cell")
    points, times = plane_points(run.paths, plane.points, MAX_FRAMES, only_success=True)
    if not len(points):
        say_nothing(axis, "no success paths yet")
        return
    counts, edges = np.histogram(points[:, 0], 50, weights=times / run.paths.success().weights.sum())
    axis.stairs(counts, edges, color=colour, fill=True, alpha=0.6)
    axis.set_ylim(bottom=0.0)


# ---------------------------------------------------------------------------------------------------------- structures


@dataclass(frozen=True)
class Strip:
    """Structures at some `frames` of one success `path`, each flat (n_atoms, 2) and with depths (n_atoms,)."""

    path: int
    frames: list[int]
    times: FloatArray
    flat: list[FloatArray]
    depths: list[FloatArray]
    bonds: list[tuple[int, int]]
    colours: list[str]


def strip(run: RunData, plane: Plane | None, n: int = 6) -> Strip:
    """Return structures along one success path, drawn by weight, from the last one in A to the first one in B."""
    path = sample_successes(run.paths, 1, np.random.default_rng(1))[0]
    frames = run.paths.positions(path).astype(np.float64)
    points = plane.points(frames) if plane is not None else frames.reshape(len(frames), -1)
    picked = [int(k) for k in along(frames, points, n)]
    chosen = [frames[k] for k in picked]
    if np.ptp(np.stack(chosen)[:, :, 2]) == 0.0:
        flat, depths = laid_over(chosen), [np.zeros(len(x)) for x in chosen]
    else:
        flat, depths = seen_flat(chosen)
    topology = run.paths.topology
    bonds = [] if topology is None else [(a.index, b.index) for a, b in topology.bonds]
    symbols = [] if topology is None else [a.element.symbol for a in topology.atoms]
    colours = [ATOM_COLOURS[i % len(ATOM_COLOURS)] for i in range(frames.shape[1])]
    if len(set(symbols)) > 1:
        colours = [ELEMENTS.get(symbol, PURPLE) for symbol in symbols]
    return Strip(path, picked, run.paths.times(path)[picked], flat, depths, bonds, colours)


def draw_structures(runs: Sequence[RunData], plane: Plane | None, n: int = 6) -> Figure:
    """Draw structures along one success path of each direction, a row for each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.35 * n, 1.6 * len(runs)), layout="constrained")
    grid = figure.subplots(len(runs), n, squeeze=False)
    for axes, run in zip(grid, runs, strict=True):
        shown = strip(run, plane, n)
        for k, axis in enumerate(axes[: len(shown.frames)]):
            axis.set_title(plain(f"{end_of(run, shown, k)}{shown.times[k]:.3g} ps"), fontsize=8)
            draw_structure(axis, shown, k)
        for axis in axes:
            axis.set_axis_off()
    return figure


def structure_panel(shown: Strip, k: int) -> Figure:
    """Draw one structure of a strip by itself."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5, 1.5), layout="constrained")
    axis = figure.subplots()
    draw_structure(axis, shown, k)
    axis.set_axis_off()
    return figure


def end_of(run: RunData, shown: Strip, k: int) -> str:
    """Return the name of the region that the first and the last structure lie in, with a comma; else nothing."""
    if k == 0:
        return f"{run.result['source']}, "
    return f"{run.result['target']}, " if k == len(shown.frames) - 1 else ""


def draw_structure(axis: Axes, shown: Strip, k: int) -> None:
    """Draw one structure of a strip: bonds, then atoms from the farthest to the nearest."""
    from matplotlib.patches import Circle

    radius = (0.3 if shown.bonds else 0.5) * float(np.median([nearest_distances(x) for x in _solid(shown)]))
    reach = max(float(np.abs(x).max()) for x in shown.flat) + 1.2 * radius
    structure, depth, numbered = shown.flat[k], shown.depths[k], len(shown.colours) <= 20
    # Below both of its atoms, or it would be drawn across the nearer one's number.
    for i, j in shown.bonds:
        axis.plot(*structure[[i, j]].T, color="black", linewidth=1.2, zorder=float(depth[[i, j]].min()) - 1e-6)
    for atom in np.argsort(depth, kind="stable"):
        place = (float(structure[atom, 0]), float(structure[atom, 1]))
        patch = Circle(place, radius, facecolor=shown.colours[atom], edgecolor="black", linewidth=0.7)
        patch.set_zorder(float(depth[atom]))
        axis.add_patch(patch)
        if numbered:
            axis.text(*place, str(atom + 1), ha="center", va="center", fontsize=7, zorder=float(depth[atom]))
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _solid(shown: Strip) -> list[FloatArray]:
    return [np.column_stack([x, depth]) for x, depth in zip(shown.flat, shown.depths, strict=True)]

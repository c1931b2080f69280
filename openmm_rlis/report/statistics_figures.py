"""Figures of the statistics of a run, each drawn on one matplotlib axis, and the one style of all figures.

Rate of every batch, rate against rounds, what each learning round saw, share of the transitions that each root
carries, durations of paths, V along success paths, shares of channels, cost. The numbers come from `plot_data` and
`projections`. A figure leaves as a PNG file, or as SVG in an address (`data:image/svg+xml`): the page needs no other
file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from .plot_data import FloatArray, RunData, obtain, root_shares, sample_successes
from .projections import Grouping, log_odds, probes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers and in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442",
)  # fmt: skip
COLOURS = (BLUE, RED)
CHANNEL_COLOURS = (GREEN, ORANGE, PURPLE, BLUE, RED)
GREY = "#666666"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 200,
    # Two pages of one run are equal to the last byte.
    "svg.hashsalt": "openmm_rlis",
}
SHOWN_PATHS = 6
Draw = Callable[["Axes", RunData, str], None]


def plain(text: str) -> str:
    """Return a name so that matplotlib draws it as it is, dollars and all, and not as a formula."""
    return text.replace("$", r"\$")


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures have their style."""
    from matplotlib import rc_context

    style: AbstractContextManager[None] = rc_context(STYLE)
    return style


def panels(runs: Sequence[RunData], draw: Draw) -> Figure:
    """Return one figure with a panel for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(runs), 3.2), layout="constrained")
    axes = figure.subplots(1, len(runs), squeeze=False)[0]
    for axis, run, colour in zip(axes, runs, COLOURS, strict=False):
        axis.set_title(plain(run.title))
        draw(axis, run, colour)
    return figure


def panel(run: RunData, draw: Draw, colour: str) -> Figure:
    """Return a figure of one panel, small enough to be read on a telephone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    draw(figure.subplots(), run, colour)
    return figure


def data_uri(figure: Figure) -> str:
    """Return a figure as SVG in a `data:` address."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, dpi=150)
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def draw_batches(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the rate of every batch, their mean and its 95 % interval."""
    axis.set(xlabel="batch", ylabel="rate / ps$^{-1}$")
    if not len(run.time):
        say_nothing(axis, "no production round yet")
        return
    rates = run.transitions.sum(0) / run.time.sum(0)
    estimate = run.rate()
    axis.axhline(estimate.value, color="black", linewidth=1.2, label="mean")
    if np.isfinite(estimate.standard_error):
        axis.axhspan(*estimate.interval, color="black", alpha=0.15, linewidth=0, label="95 % interval")
    axis.plot(np.arange(1, len(rates) + 1), rates, "o", color=colour, markersize=5, label="batch", clip_on=False)
    axis.set(ylim=(0.0, 1.35 * max(rates.max(), estimate.value) or 1.0))
    _whole_numbers(axis.xaxis)
    axis.legend(frameon=False, ncols=3, loc="upper center", columnspacing=1.2, handletextpad=0.5)


def draw_rounds(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the rate from the first 1, 2, ... rounds with its 95 % interval."""
    axis.set(xlabel="production rounds", ylabel="rate / ps$^{-1}$")
    if not len(run.time):
        say_nothing(axis, "no production round yet")
        return
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
    if len(rounds) == 1 and known.all():  # a band needs two
        axis.vlines(1, low, high, color=colour, alpha=0.4, linewidth=3)
    axis.plot(rounds, [e.value for e in estimates], color=colour, marker=marker, markersize=4, label="rate so far")
    # The first rounds have intervals that would flatten all the rest.
    top = max(float(np.median(high[known])) if known.any() else 0.0, 2.0 * estimates[-1].value) or 1.0
    axis.set(ylim=(0.0, top), xlim=(0.5, len(rounds) + 0.5))
    _whole_numbers(axis.xaxis)
    axis.legend(frameon=False, loc="upper right")


def draw_roots(axis: Axes, run: RunData, colour: str) -> None:
    """Draw how the transitions are shared among the roots that reached the target."""
    shares = root_shares(run.paths)
    axis.set(xlabel="share of the transition weight of one root", ylabel="roots with transitions")
    if not len(shares):
        say_nothing(axis, "no success paths yet")
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
        say_nothing(axis, "no paths yet")
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


def say_nothing(axis: Axes, text: str) -> None:
    """Write into an empty figure why it is empty."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color=GREY)


def draw_learning(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the rate that each learning round saw, beside the final interval; nothing of it enters the estimate."""
    rates = np.array([lesson["rate"] for lesson in run.lessons], dtype=float)
    axis.set(xlabel="learning round", ylabel="rate / ps$^{-1}$")
    if not (rates > 0).any():
        say_nothing(axis, "no transition while learning" if len(rates) else "no learning round")
        return
    rounds, seen = np.arange(1, len(rates) + 1), rates > 0
    axis.plot(rounds[seen], rates[seen], "o-", color=colour, markersize=4, label="walks of this round")
    estimate = run.rate()
    if np.isfinite(estimate.standard_error) and estimate.value > 0:
        axis.axhspan(*estimate.interval, color="black", alpha=0.15, linewidth=0, label="final 95 % interval")
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(low / 1.2, high * (high / low) ** 0.35)
    _whole_numbers(axis.xaxis)
    axis.legend(frameon=False, loc="upper right")


def draw_heaviest(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the share of the transitions that the heaviest roots carry together, against their number."""
    shares = np.sort(root_shares(run.paths))[::-1]
    axis.set(xlabel="heaviest roots", ylabel="share of the transitions / %")
    if not len(shares):
        say_nothing(axis, "no success paths yet")
        return
    axis.plot(np.arange(1, len(shares) + 1), 100 * np.cumsum(shares), color=colour, linewidth=1.5)
    half = int(np.searchsorted(np.cumsum(shares), 0.5)) + 1
    axis.plot([half, half, 1], [0, 50, 50], color=GREY, linestyle=":", linewidth=1)
    text = f"half by {half} of {len(shares)}"
    axis.annotate(text, (half, 50), xytext=(-6, 6), textcoords="offset points", ha="right")
    axis.set(xscale="log", ylim=(0.0, 105.0), xlim=(1.0, max(len(shares), 2)))


def draw_odds(axis: Axes, run: RunData, colour: str) -> None:
    """Draw the learned committor along success paths against the time left until they arrive."""
    axis.set(xlabel="time before arrival / ps", ylabel="learned committor V")
    value, _ = obtain(run, "value")
    if value is None or not run.has_success:
        say_nothing(axis, "no success paths yet" if value is not None else "no value function")
        return
    drawn = sample_successes(run.paths, probes(run), np.random.default_rng(0))
    lines = [line for line in log_odds(run, value, drawn) if len(line[0]) > 1]
    if not lines:
        say_nothing(axis, "paths are too short to draw")
        return
    start = float(np.median([times[0] for times, _ in lines]))
    grid = np.linspace(start, max(times[-1] for times, _ in lines), 80)
    table = np.array([np.interp(grid, times, odds, left=np.nan) for times, odds in lines])
    low, middle, high = np.nanquantile(table, [0.1, 0.5, 0.9], axis=0)
    axis.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0, label="8 of 10 paths")
    shown = lines[:: max(1, len(lines) // SHOWN_PATHS)][:SHOWN_PATHS]
    for times, odds in shown:
        axis.plot(times, odds, color=GREY, linewidth=0.5, alpha=0.7)
    axis.plot(grid, middle, color=colour, linewidth=1.8, label="median")
    axis.axhline(0.0, color="black", linestyle=":", linewidth=1)
    axis.set_xlim(1.15 * start, 0.0)
    lowest = float(np.quantile(np.concatenate([odds[times >= 1.15 * start] for times, odds in shown]), 0.01))
    _odds_ticks(axis, min(float(np.nanmin(low)), lowest), float(np.nanmax(high)))
    axis.legend(frameon=False, loc="upper left")


def _odds_ticks(axis: Axes, low: float, high: float) -> None:
    """Label ln V/(1 - V) with V itself."""
    wanted = [*(10.0**k for k in range(-12, 0)), 0.5, 0.9, 0.99, 0.999]
    odds = np.log(np.array(wanted) / (1.0 - np.array(wanted)))
    chosen = [i for i in range(len(wanted)) if low - 1.0 <= odds[i] <= high + 1.0]
    sparse = [i for i in chosen if wanted[i] >= 0.1 or len(chosen) < 9 or i % 2 == len(wanted) % 2]
    names = [f"{wanted[i]:g}" if wanted[i] > 5e-4 else f"$10^{{{round(np.log10(wanted[i]))}}}$" for i in sparse]
    axis.set_yticks(odds[sparse], names)
    axis.set_ylim(low - 0.5, high + 0.25 * (high - low) + 0.5)


def draw_channels(axis: Axes, grouping: Grouping) -> None:
    """Draw the share of every channel with its 95 % interval."""
    for i, estimate in enumerate(grouping.shares.values()):
        axis.barh(i, 100 * estimate.value, color=CHANNEL_COLOURS[i % 5], alpha=0.85, height=0.6)
        if np.isfinite(estimate.standard_error):
            axis.plot([100 * end for end in estimate.interval], [i, i], color="black", linewidth=2)
    n = len(grouping.shares)
    axis.set_yticks(range(n), [f"channel {i + 1}" for i in range(n)])
    axis.set(xlim=(0.0, 100.0), ylim=(n - 0.4, -0.6), xlabel="share of the transitions / %")


def draw_cost(axis: Axes, stages: Mapping[str, float]) -> None:
    """Draw force evaluations, one bar each, on a logarithmic scale."""
    names = [name for name, count in stages.items() if count > 0]
    counts = [stages[name] for name in names]
    colours = [RED if "brute" in name else BLUE for name in names]
    axis.barh(range(len(names)), counts, color=colours, alpha=0.85, height=0.6)
    for i, count in enumerate(counts):
        axis.annotate(f"{count:.1e}", (count, i), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.set(xscale="log", xlabel="force evaluations", ylim=(len(names) - 0.4, -0.6))
    axis.set_xlim(min(counts, default=1.0) / 3.0, max(counts, default=10.0) * 8.0)

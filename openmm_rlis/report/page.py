"""Page: one HTML file with the rate, its checks, the cost and the transition paths.

The page asks for nothing outside itself: figures are SVG in `data:` addresses, there is no script, and a content policy
in its head forbids both. Jinja2 escapes every value. Figures are still ones on purpose: they print, and a plotting
library in the page would weigh more than all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.atomic_files import read, replace, storage_errors
from . import path_figures, projections, provenance, wording
from . import statistics_figures as figures
from .path_figures import ReportData
from .plot_data import RunData, obtain, thinning
from .statistics_figures import styled
from .wording import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .projections import Grouping


@dataclass(frozen=True)
class Picture:
    """A figure as a `data:` address, with the text that stands for it and its caption."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: words, a table (`heads` above the cells of `rows`), pictures, small pictures, fixed text."""

    title: str
    words: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    small: list[list[Picture]] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)


def write(path: Path, scene: ReportData) -> Path:
    """Write the page of one run, or of both directions, to `path` in their directory and return it."""
    with styled():
        text = render(scene, path.parent)
    with storage_errors("write", path):
        replace(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return path


def render(scene: ReportData, directory: Path) -> str:
    """Return the page as HTML."""
    import jinja2

    runs = scene.runs
    # No variable may be missing in silence, and no value may be taken for HTML.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    cards = [(run, wording.verdict(run), wording.rate_words(run), _headline(run)) for run in runs]
    sections = [
        _numbers(runs), _definitions(runs), _cost(runs), _progress(runs), _weights(runs), _paths(scene),
        _channels(scene), _configurations(scene), _again(runs, directory),
    ]  # fmt: skip
    return environment.get_template("report.html").render(
        heading=f"Transition rate{'s' if len(runs) > 1 else ''} of {_system(runs[0])}",
        facts=_first_facts(runs, directory), cards=cards, cover=_cover(scene), sections=sections,
    )  # fmt: skip


def _headline(run: RunData) -> tuple[str, str]:
    rate = run.rate()
    if math.isnan(rate.value):
        return "no rate yet", ""
    if not math.isfinite(rate.standard_error):
        return f"{wording.number(rate.value)} /ps", "error unknown"
    low, high = wording.interval_text(rate)
    interval = f"95 % interval {low} to {high} /ps, standard error {wording.percent(rate.relative_error)}"
    return f"{wording.number(rate.value)} /ps", interval


def _system(run: RunData) -> str:
    name = str(run.result.get("system"))
    return "a system from Python" if name == "custom" else name


def _first_facts(runs: Sequence[RunData], directory: Path) -> list[tuple[str, str]]:
    run = runs[0]
    others = ", ".join(map(str, run.result.get("others") or ())) or "none"
    beta, kelvin = float(run.result["beta"]), wording.temperature(run)
    method = "brute force" if run.result.get("method") == "brute" else "importance sampling with branching"
    return [
        ("source → target", " and ".join(run.title for run in runs)),
        ("others", f"{others} (paths that enter them first do not count)" if others != "none" else others),
        ("beta", f"{wording.number(beta, 4)} mol/kJ (T = {wording.number(kelvin, 4)} K)"),
        ("method", method),
        ("begun", wording.dates(run)),
        *(("not begun", name) for name in wording.not_begun(directory)),
    ]


def _cover(scene: ReportData) -> Picture | None:
    """Return the picture of the first screen: success paths, or the rate of every batch."""
    run = scene.runs[0]
    if scene.ground is not None and scene.plane is not None:
        titles = " and ".join(r.title for r in scene.runs)
        figure = path_figures.plane_panel(scene.runs, scene.plane, scene.ground)
        caption = f"Success paths, drawn by weight and smoothed, over {_background(scene)}."
        return _picture(figure, f"Success paths of {titles} over the free energy", caption)
    if run.lessons and not len(run.time):
        return _each(scene.runs[:1], figures.draw_learning, "Learning of {}", "Rate during learning.")[0]
    if not len(run.time):
        return None
    return _each(scene.runs[:1], figures.draw_batches, "Rate of {} in each batch", "The rate in each batch.")[0]


def _background(scene: ReportData) -> str:
    """Return what the grey background of a plane is; with one direction it is no equilibrium near the target."""
    names = {name for run in scene.runs for name in wording.ends(run)[:1] if run.has_success}
    return f"the free energy of configurations whose last region was {' or '.join(sorted(names))}"


def _picture(figure: Figure, alt: str, caption: str) -> Picture:
    return Picture(figures.data_uri(figure), alt, caption)


def _each(runs: Sequence[RunData], draw: figures.Draw, alt: str, caption: str) -> list[Picture]:
    """Return one figure for each run; `alt` has a place for its title."""
    pictures = []
    for run, colour in zip(runs, figures.COLOURS, strict=False):
        figure = figures.panel(run, draw, colour)
        pictures.append(_picture(figure, alt.format(run.title), f"{run.title}. {caption}"))
    return pictures


# ------------------------------------------------------------------------------------------------------------ sections


def _numbers(runs: Sequence[RunData]) -> Section:
    if not any(len(run.time) for run in runs):
        return Section("Numbers and checks", ["There are none before the first production round."])
    words = ["Value, 95 % interval in brackets, relative standard error; then every check of the error bar."]
    rows = wording.number_rows(runs) + wording.check_rows(runs)
    return Section("Numbers and checks", words, [run.title for run in runs], rows)


def _definitions(runs: Sequence[RunData]) -> Section:
    rows = wording.definition_rows(runs[0])
    words = ["The rate depends on these definitions: regions, time step and lag."]
    if len(runs) > 1:
        words.append(f"These are for {runs[0].title}; for the other direction source and target are exchanged.")
    return Section("What was computed", words, [""], rows)


def _cost(runs: Sequence[RunData]) -> Section:
    pictures, words = [], []
    for run in runs:
        spent = wording.costs(run)
        words += [f"{run.title}: {wording.cost_notes(run)} {wording.cost_words(run)[0]}"]
        if any(spent.values()):
            draw = lambda axis, _run, _colour, stages=spent: figures.draw_cost(axis, stages)  # noqa: E731
            pictures += _each([run], draw, "Force evaluations of {} by stage", "Force evaluations, logarithmic scale.")
    words += wording.cost_words(runs[0])[1:]
    return Section("Cost, and what brute force would need", words, pictures=pictures)


def _progress(runs: Sequence[RunData]) -> Section:
    pictures = _each(runs, figures.draw_rounds, "Rate of {} against production rounds", "Rate from n rounds.")
    pictures += _each(
        runs, figures.draw_batches, "Rate of {} in each batch",
        "Batches are independent; their spread is the error bar.",
    )  # fmt: skip
    pictures += _each(
        [run for run in runs if run.lessons], figures.draw_learning, "Rate of {} in each learning round",
        "Learning: the rate from the walks of each round, with few roots. It does not enter the result.",
    )  # fmt: skip
    return Section("Convergence of the rate", pictures=pictures)


def _weights(runs: Sequence[RunData]) -> Section:
    words = ["A root is an exit from the source, followed with all its branches; each has a transition weight."]
    runs = [run for run in runs if run.result.get("method") != "brute"]
    pictures = _each(
        runs, figures.draw_roots, "Shares of the transitions by root, {}", "No root should exceed one tenth."
    )
    pictures += _each(
        runs, figures.draw_heaviest, "Share of the heaviest roots, {}", "Cumulative share of the largest roots."
    )
    return Section("Weights of the roots", words if runs else ["Brute force has no weights."], pictures=pictures)


def _paths(scene: ReportData) -> Section:
    runs = [run for run in scene.runs if run.has_success]
    if not runs:
        return Section("Transition paths", ["No success path is stored."])
    words, pictures = [_sampled(run) for run in runs], []
    missing = {reason for run in runs for value, reason in [obtain(run, "value")] if value is None}
    words += [f"The committor along the paths is not shown: {reason}." for reason in sorted(missing)]
    if missing and any(run.result.get("system") == "custom" for run in runs):
        words.append("To show it, pass the Problem: openmm_rlis.report.report(directory, problem=problem).")
    seeing = [run for run in runs if obtain(run, "value")[0] is not None]
    pictures += _each(
        seeing, figures.draw_odds, "Learned committor along success paths, {}",
        "The learned committor V along success paths; logit scale, dotted at 1/2.",
    )  # fmt: skip
    pictures += _each(runs, figures.draw_durations, "Durations of paths, {}", "Durations of success and failure paths.")
    plane = scene.plane
    if plane is not None and scene.ground is not None:
        words += [f"The plane: {plane.about}."] if plane.about else []
        for run in runs:
            figure = path_figures.density_panel(run, plane, scene.ground)
            caption = f"{run.title}. Time density of success paths, in decades."
            pictures.append(_picture(figure, f"Density of success paths, {run.title}", caption))
    elif plane is not None and plane.width == 1:
        shown = plane
        traces = lambda axis, run, colour: path_figures.draw_traces(axis, run, shown, colour)  # noqa: E731
        profile = lambda axis, run, colour: path_figures.draw_profile(axis, run, shown, colour)  # noqa: E731
        pictures += _each(runs, traces, "Success paths in time, {}", "Success paths, drawn by weight.")
        pictures += _each(runs, profile, "Density of success paths, {}", "Time density of success paths.")
    return Section("Transition paths", words, pictures=pictures)


def _sampled(run: RunData) -> str:
    step = thinning(run.paths, path_figures.MAX_FRAMES)
    share = "every stored frame" if step == 1 else f"one frame in {step} ({wording.percent(1 / step)})"
    return (
        f"{run.title}: {int(run.paths.is_success.sum())} success paths are stored. Densities use {share}; curves along "
        f"paths use up to {projections.probes(run)} paths, drawn by weight."
    )


def _channels(scene: ReportData) -> Section:
    words = [
        "Success paths are clustered by their features where the committor last passes 1/2. Channels that the features "
        "do not distinguish are merged."
    ]
    if len(scene.runs) > 1:
        words.append("Channels are numbered by share, separately for each direction.")
    pictures = []
    for run, (grouping, reason) in zip(scene.runs, scene.channels, strict=True):
        if grouping is None:
            words.append(f"{run.title}: no channels, {reason}.")
            continue
        shares = [
            f"channel {i} {wording.percent(share.value)}" + (
                f" [{wording.percent(share.interval[0])}, {wording.percent(share.interval[1])}]"
                if math.isfinite(share.standard_error) else ""
            )
            for i, share in enumerate(grouping.shares.values(), start=1)
        ]  # fmt: skip
        many = "one group, no separate channels found" if len(shares) == 1 else ", ".join(shares)
        used = "" if grouping.used == 1.0 else f" (from {wording.percent(grouping.used)} of the paths, drawn at random)"
        words.append(f"{run.title}: {many}{used}.")
        pictures += _channel_pictures(scene, run, grouping) if len(shares) > 1 else []
    return Section("Channels", words, pictures=pictures)


def _channel_pictures(scene: ReportData, run: RunData, grouping: Grouping) -> list[Picture]:
    draw = lambda axis, _run, _colour: figures.draw_channels(axis, grouping)  # noqa: E731
    found = _each([run], draw, "Shares of the channels, {}", "Share of each channel; lines are 95 % intervals.")
    if scene.plane is not None and scene.ground is not None:
        figure = path_figures.plane_panel([run], scene.plane, scene.ground, grouping)
        alt = f"Success paths by channel, {run.title}"
        found.append(_picture(figure, alt, f"{run.title}. Success paths by channel, over {_background(scene)}."))
    return found


def _configurations(scene: ReportData) -> Section:
    runs, words = [run for run in scene.runs if run.has_success], []
    small, pictures = [], []
    for run in runs:
        n_atoms = path_figures.n_atoms(run)
        if n_atoms > path_figures.MOST_ATOMS:
            words.append(f"{n_atoms} atoms are too many to draw: rlis export writes trajectories for a viewer.")
            break
        shown = path_figures.strip(run, scene.plane)
        if n_atoms > 1:
            small.append([_structure(run, shown, k) for k in range(len(shown.frames))])
        elif scene.ground is not None and scene.plane is not None:
            figure = path_figures.timed_panel(run, scene.plane, scene.ground, shown.path, shown.frames)
            when = ", ".join(f"{i}: {t:.3g}" for i, t in enumerate(shown.times, start=1))
            pictures.append(_picture(figure, f"One success path, {run.title}", f"{run.title}. Times in ps: {when}."))
    if small:
        words.append("Time since the path left the source, and the learned V where it is known.")
    return Section("Configurations along one path", words or [], pictures=pictures, small=small)


def _structure(run: RunData, shown: path_figures.Strip, k: int) -> Picture:
    value, _ = obtain(run, "value")
    where = path_figures.end_of(run, shown, k)
    text = f"{where}{shown.times[k]:.3g} ps"
    if value is not None and not where:
        log_v = value.log_value(run.paths.positions(shown.path)[shown.frames[k]][None].astype(float))
        text += f", V = {wording.number(math.exp(log_v[0]), 2)}"
    return _picture(path_figures.structure_panel(shown, k), f"{run.title} at {text}", text)


def _again(runs: Sequence[RunData], directory: Path) -> Section:
    loaded = [run.loaded for run in runs if run.loaded is not None]
    inside = any(result.directory != directory for result in loaded)
    parent = provenance.parent_config(directory) if inside else None
    configs = [parent] if parent is not None else [result.config for result in loaded]
    file = f"{directory.resolve().name}/config.yaml" if parent is not None else ""
    commands = [provenance.command(config, "again", file) for config in configs]
    words = [f"{run.title}: seed {run.result.get('seed')}, begun {wording.dates(run)}." for run in runs]
    if None not in commands:
        words.append("The same seed gives the same numbers on the same machine and versions.")
    elif any(map(provenance.is_own, configs)):
        method = configs[0].get("method", "run")
        words.append(
            f"This run was started from a configuration file; rlis {method} with that file, the same options and "
            "another --out repeats it. Its files are kept in this directory (system.xml, inputs/)."
        )
    else:
        words.append("This run was started from Python; its script repeats it, with the settings in config.yaml.")
    places = [directory] if parent is not None else [result.directory for result in loaded]
    found = runs[0].result.get("versions", {})
    rows = [Row(str(name), "", [(str(version), "")]) for name, version in found.items()]
    fixed = ["\n".join(line for line in commands if line is not None), provenance.bibtex()]
    fixed += [read(place / "config.yaml").decode() for place in places]
    return Section("To repeat and to cite", words, ["version"], rows, fixed=[text for text in fixed if text])

"""What a notebook shows: the progress of a run and a table of its result, as HTML without widgets.

`run`, `resume` and `brute` show their progress by themselves inside a Jupyter kernel when no `progress` is given; a
single output is updated in place, with plain text beside it for front ends without HTML. Whatever comes from a user is
escaped. IPython is used only where it runs already.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from .progress import Snapshot
from .text import duration, rate_text

QUANTITIES = {
    "rate": "1/ps",
    "mean_first_passage_time": "ps",
    "flux": "1/ps",
    "success_probability": "",
}


def in_notebook() -> bool:
    """Return whether this code runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def progress() -> Callable[[Any], None] | None:
    """Return a function that shows `run.Progress` in one output of a notebook, or None outside of one."""
    if not in_notebook():
        return None
    handle: Any = None
    last = Snapshot()

    def show(told: Any) -> None:
        nonlocal handle, last
        snapshot = Snapshot.of(told)
        if not snapshot.message and snapshot.stage == last.stage:  # a sign of life: what was said before still holds
            snapshot = replace(snapshot, message=last.message)
        last = snapshot
        bundle = {"text/plain": snapshot.line(), "text/html": progress_html(snapshot)}
        if handle is None:
            handle = importlib.import_module("IPython.display").display(bundle, raw=True, display_id=True)
        else:
            handle.update(bundle, raw=True)

    return show


def progress_html(snapshot: Snapshot) -> str:
    """Return a snapshot as HTML: a bar, stage, rate with its interval, evaluations and times."""
    left = "" if snapshot.seconds_left is None else f", about {duration(snapshot.seconds_left)} left"
    fraction = 1.0 if snapshot.stage == "done" else snapshot.fraction
    bar = "<progress></progress>" if fraction is None else f'<progress value="{fraction:.3f}" max="1"></progress>'
    rows = {
        "stage": f"{snapshot.stage} {snapshot.round}, {duration(snapshot.seconds)}{left}",
        "rate": rate_text(snapshot.rate),
        "forces": snapshot.evaluations(),
        "": snapshot.message,
    }
    table = _table([], [[name, text] for name, text in rows.items() if text])
    return f'{bar}<div style="white-space: pre-wrap">{table}</div>' if "\n" in snapshot.message else bar + table


def result_html(content: Mapping[str, Any], stopped: str) -> str:
    """Return the content of result.json as HTML: a table of the estimates, the cost, and the alarms."""
    others = ", ".join(content["others"]) or "none"
    title = f"{content['system']}: {content['source']} → {content['target']}, others {others}, {stopped_text(stopped)}"
    rows = [[name.replace("_", " "), *_cells(content[name]), unit] for name, unit in QUANTITIES.items()]
    total = content["cost"]["force_evaluations"]["total"]
    cost = f"{content['rounds']} rounds, {total:.2e} force evaluations, {duration(content['cost']['seconds'])}"
    alarms = "".join(f"<br><b>alarm:</b> {escape(line)}" for line in content["diagnostics"]["alarms"]) or ", no alarm"
    table = _table(["", "value", "standard error", "95 % interval", "unit"], rows)
    return f"<div><b>{escape(title)}</b>{table}{escape(cost)}{alarms}</div>"


def stopped_text(stopped: str) -> str:
    """Return why a run stopped in words; it may not have."""
    return "not finished" if stopped == "running" else f"stopped by {stopped}"


def _cells(estimate: Mapping[str, Any]) -> list[str]:
    value, error = estimate["value"], estimate["standard_error"]
    if value is None or error is None:
        return ["-" if value is None else f"{value:.4g}", "unknown", "unknown"]
    low, high = ("?" if end is None else f"{end:.3g}" for end in estimate["interval"])
    return [f"{value:.4g}", f"{error:.2g}", f"[{low}, {high}]"]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"

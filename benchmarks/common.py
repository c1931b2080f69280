"""What the studies share: run one command line once, and keep what it gave."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from openmm_rlis.cli import execute

RUNS = Path("runs/benchmarks")
RESULTS = Path(__file__).parent / "results"
RECORDS = RESULTS / "runs.jsonl"
BRUTE = RESULTS / "brute.jsonl"
ESTIMATOR = 2
"""Raised with every change of what a default run gives, but for its random numbers: other records no longer count."""
NOTES = "<!-- notes: kept when the study writes the table again -->"
KEPT = ("method", "rate", "rounds", "cost", "diagnostics", "stopped", "seed")
Row = dict[str, Any]
Number = TypeVar("Number", int, float)


def rlis(*arguments: str) -> None:
    """Run the command line `rlis` in this process; a non-zero exit status stops the study."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = execute(list(arguments))
    if status:
        raise SystemExit(f"rlis {' '.join(arguments)}: exit status {status}")


def once(name: str, *arguments: str) -> Row:
    """Return the result.json of a run, made now unless it was finished before; a half-finished run is resumed."""
    out = RUNS / name
    if not finished(name):
        RUNS.mkdir(parents=True, exist_ok=True)
        rlis("resume", str(out)) if out.exists() else rlis(*arguments, "--out", str(out))
    return result_of(name)


def result_of(name: str) -> Row:
    """Return the result.json of a finished run."""
    result: Row = json.loads((RUNS / name / "result.json").read_text())
    return result


def finished(name: str) -> bool:
    """Return whether a run is there, whole."""
    return (RUNS / name / "result.json").exists()


def recorded(name: str) -> Row | None:
    """Return what results/runs.jsonl says of a run, which may have been made long ago on another machine."""
    for line in reversed(RECORDS.read_text().splitlines() if RECORDS.exists() else []):
        row: Row = json.loads(line)
        if row["name"] == name and (row["method"] == "brute" or row["estimator"] == ESTIMATOR):
            return row
    return None


def record(name: str, result: Row, **more: Any) -> Row:
    """Add what the studies need of a result.json to results/runs.jsonl, and return it."""
    row = {"name": name, "estimator": ESTIMATOR, **{key: result[key] for key in KEPT}, **more}
    with RECORDS.open("a") as file:  # one write: several studies may add to it at once
        file.write(json.dumps(row) + "\n")
    return row


def remembered(name: str, *arguments: str) -> Row:
    """Return the record of a run; without one it is made as by `once`, and recorded."""
    return recorded(name) or record(name, once(name, *arguments))


def finder(only_recorded: bool) -> Callable[..., Row | None]:
    """Return `remembered`, or what makes no runs and returns None for those without a record."""
    return (lambda name, *_: recorded(name)) if only_recorded else remembered


def coverage_name(case: str, seed: int) -> str:
    """Return the name of a run of the coverage study, of a case such as "triple_well, beta 3"."""
    return f"coverage-{case.replace(', ', '-').replace(' ', '')}-{seed}"


def lj7_name(method: str, source: str, target: str, beta: float, seed: int, error: float, *more: str) -> str:
    """Return the name of a run of `lj7`."""
    tag = "-".join(part.replace("settings.", "").replace("=", "") for part in more if part != "--set")
    return f"{method}-{source}-{target}-{beta:g}-{error:g}-{seed}" + (f"-{tag}" if tag else "")


def lj7(method: str, source: str, target: str, beta: float, seed: int, error: float, *more: str) -> Row:
    """Return the result of `rlis run` or `rlis brute` on LJ7 with C0 and C1 absorbing wherever they are not an end."""
    return once(*lj7_run(method, source, target, beta, seed, error, *more))


def lj7_run(method: str, source: str, target: str, beta: float, seed: int, error: float, *more: str) -> list[str]:
    """Return the name of a run of `lj7` and the arguments that make it."""
    return [
        lj7_name(method, source, target, beta, seed, error, *more), method, "lj7", "--from", source, "--to", target,
        "--beta", f"{beta:g}", "--seed", str(seed), "--target-error", f"{error:g}", *more,
    ]  # fmt: skip


def rate(result: Row) -> tuple[float, float]:
    """Return (value, standard error) of the rate, 1/ps."""
    return float(result["rate"]["value"]), float(result["rate"]["standard_error"])


def brute_records(source: str, beta: float) -> list[Row]:
    """Return what brute.py has recorded of a minimum at a temperature, a row for each seed."""
    rows = [json.loads(line) for line in BRUTE.read_text().splitlines()] if BRUTE.exists() else []
    return [row for row in rows if (row["source"], row["beta"]) == (source, beta)]


def lj7_brute(source: str, target: str, beta: float) -> tuple[float, float] | None:
    """Return (value, standard error) of the rate in 1/ps by brute.py, over all recorded seeds, or None.

    Every copy is one independent run; those of longer runs count for more, by their time.
    """
    rows = brute_records(source, beta)
    if not rows:
        return None
    counts = np.array([row["hits"][target] for row in rows], dtype=float)  # (seeds, copies)
    n_copies = counts.shape[1]
    total = n_copies * sum(row["time_of_a_copy"] for row in rows)
    return float(counts.sum() / total), float(np.sqrt(n_copies * counts.var(axis=1, ddof=1).sum()) / total)


def evaluations(result: Row, part: str = "total") -> float:
    """Return force evaluations of a part of the run."""
    return float(result["cost"]["force_evaluations"][part])


def number(words: list[str], default: Number) -> Number:
    """Return the first argument of a study as a number of the kind of the default, which is used if there is none."""
    return type(default)(words[0]) if words else default


def without_table(arguments: list[str]) -> tuple[list[str], bool]:
    """Return the arguments but for the word `table`, and whether it was there: a table of records, no runs."""
    return [word for word in arguments if word != "table"], "table" in arguments


def save(name: str, lines: list[str]) -> None:
    """Write a table into benchmarks/results/, above the notes that stand there below `NOTES`, and show it."""
    path, text = RESULTS / f"{name}.md", "\n".join(lines) + "\n"
    before = path.read_text() if path.exists() else ""
    path.write_text(text + ("\n" + before[before.index(NOTES) :] if NOTES in before else ""))
    print(text)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean and its standard error over independent values."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))

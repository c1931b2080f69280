"""Kill a run with SIGKILL a while after random rounds, resume it each time, and compare with one that was left alone.

    python -m benchmarks kill            about 5 minutes
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import RUNS, rlis, save

KILLS = 5
START = [
    "run", "lj7", "--from", "C3", "--to", "C2", "--beta", "7", "--seed", "11", "--target-error", "0.2",
    "--set", "settings.n_batches=8", "--set", "settings.replicas=16", "--set", "settings.learning_rounds=3",
    "--set", "settings.learning_roots=100", "--set", "settings.bias_scale=0.5",
]  # fmt: skip
COMMAND = [sys.executable, "-c", "from openmm_rlis.cli import main; raise SystemExit(main())"]


def main(_: list[str]) -> None:
    """Run both and write results/kill.md."""
    whole, broken = RUNS / "kill-whole", RUNS / "kill-broken"
    for folder in (whole, broken):
        shutil.rmtree(folder, ignore_errors=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    rlis(*START, "--out", str(whole))
    seconds = time.monotonic() - begun
    rng = random.Random(5)
    lines = [
        f"LJ7 C3 -> C2, beta 7, small settings, half bias; the whole run took {seconds:.0f} s.",
        "Command: `python -m benchmarks kill`.", "", "| kill | after (s) | whole rounds then |", "|---|---|---|",
    ]  # fmt: skip
    total = rounds(whole).total()
    for i, mark in enumerate(sorted(rng.sample(range(total), KILLS))):
        arguments = ["resume", str(broken)] if (broken / "config.yaml").exists() else [*START, "--out", str(broken)]
        process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
        started = time.monotonic()
        while rounds(broken).total() < mark and process.poll() is None:
            time.sleep(0.05)
        try:
            process.wait(rng.uniform(0.0, seconds / total))
            lines.append(f"| {i + 1} | - | finished before |")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            seen = ", ".join(f"{stage} {n}" for stage, n in sorted(rounds(broken).items())) or "none"
            lines.append(f"| {i + 1} | {time.monotonic() - started:.1f} | {seen} |")
    rlis("resume", str(broken))
    a, b = (json.loads((folder / "result.json").read_text())["rate"] for folder in (whole, broken))
    lines += ["", f"Rate left alone: {a['value']!r} +- {a['standard_error']!r}", ""]
    lines += [f"Rate after {KILLS} kills: {b['value']!r} +- {b['standard_error']!r}", ""]
    save("kill", [*lines, "Identical to the last digit." if a == b else "DIFFERENT."])
    if a != b:
        raise SystemExit(1)


def rounds(folder: Path) -> Counter[str]:
    """Return how many whole rounds each stage has."""
    return Counter(r.parent.name for r in (folder / "rounds").glob("*/*") if r.name.isdigit())


if __name__ == "__main__":
    main(sys.argv[1:])

"""Carry out a `RunConfig`: build the system, call the sampler, run one direction or both.

Both directions live in `DIR/forward` and `DIR/backward`, each a run directory of its own; `DIR/result.json` joins their
results. With two or more workers they run at the same time, each in a child process with the same command line. A child
that loses its parent ends at once, so that a resumed run finds no other writer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..config.build_problem import build, default_options
from ..config.run_config import DIRECTIONS, LIMITS, RunConfig
from ..config.user_system import OwnSystem
from ..display.progress import Snapshot
from ..display.terminal import Display, make_display
from ..errors import RlisError, StartNote, StorageError, bad_input
from ..results.directions import holds_run, is_parent, join_results, run_directories
from ..storage import checksums
from ..storage.network_directory import is_network
from ..storage.new_run import INPUTS, missing, remove_empty
from .exit_status import BAD_INPUT, DONE, FAILED, INTERRUPTED, LIMIT, status_of, status_of_error, worst
from .new_directory import refuse_occupied, write_config

Report = Callable[[Any], None]
Work = Callable[[Report], Any]

_CHILD = "RLIS_CHILD"


def start(config: RunConfig, directory: Path, trusted: bool = False) -> int:
    """Run a configuration in a new directory and return the exit status; `trusted` is as for `build`.

    Raises
    ------
    InputError
        Bad option, or a directory that is not empty; nothing has been written then.
    """
    if _CHILD in os.environ:  # what there is to note of the start the parent has said
        warnings.simplefilter("ignore", StartNote)
    if not config.both:
        build_first = build(config, trusted)
        return _watched(directory, lambda report: _sample(config, build_first, directory, report))
    refuse_occupied(directory)
    _apart(_build_both, config, directory, trusted)
    made = missing(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        config = write_config(config, directory)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StartNote)  # they have been shown
            status = _both(config, directory, {}, trusted)
    except Exception:
        _remove_unless_begun(directory, made)
        raise
    if status in (FAILED, BAD_INPUT):
        _remove_unless_begun(directory, made)
    return status


def _apart(check: Callable[..., None], config: RunConfig, *more: Any) -> None:
    """Call a check that needs torch and OpenMM."""
    if config.workers >= 2 and "torch" not in sys.modules:
        # This process only watches its children: without torch and OpenMM it takes a tenth of the memory.
        with ProcessPoolExecutor(1, get_context("fork")) as apart:
            apart.submit(check, config, *more).result()
    else:
        check(config, *more)


def _build_both(config: RunConfig, directory: Path, trusted: bool) -> None:
    """Raise `InputError` unless both directions are sound, before anything is written."""
    from ..sampling import run as sampler

    for direction in DIRECTIONS:
        one_way = config.one_way(direction, default_options(config.system))
        sampler.check(build(one_way, trusted), config.platform, config.settings, directory / direction)


def _remove_unless_begun(directory: Path, made: Sequence[Path]) -> None:
    """Remove what `start` wrote for both directions if neither run is there: the same command would be refused."""
    if any((directory / direction).exists() for direction in DIRECTIONS):
        return
    shutil.rmtree(directory / INPUTS, ignore_errors=True)
    for name in ("config.yaml", checksums.CHECKSUMS):
        (directory / name).unlink(missing_ok=True)
    remove_empty(made)


def _check_both(config: RunConfig, directory: Path, trusted: bool) -> None:
    """Raise `InputError` unless the runs that are there are those of the config.yaml beside them."""
    from ..config import problem_identity
    from ..storage.run_directory import RunDirectory

    begun = [direction for direction in DIRECTIONS if (directory / direction / "manifest.json").is_file()]
    for direction in begun:
        stored = RunDirectory.open(directory / direction).config
        problem = build(config.one_way(direction, default_options(config.system)), trusted)
        minimized = isinstance(config.system, OwnSystem) and config.system.minimize  # to other digits elsewhere
        found = problem_identity.differences(problem, stored, directory / direction, structures=not minimized)
        if found:
            fix = "restore the file, or start a new run"
            raise problem_identity.different(str(directory / "config.yaml"), f"that of {direction}", found, fix)
    if len(begun) == 2:
        problem_identity.check_directions(*(directory / direction for direction in DIRECTIONS))


def resume(directory: Path, limits: Mapping[str, Any], trusted: bool = False) -> int:
    """Continue the run, or both runs, in a directory and return the exit status; `limits` replace the stored ones.

    `trusted` is as for `build`.
    """
    if is_network(directory):
        from . import network_commands

        return network_commands.resume(directory, limits, trusted)
    if not (directory / "config.yaml").is_file():
        raise bad_input("DIR", "a run directory (with config.yaml)", str(directory))
    if is_parent(directory):
        if wrong := checksums.damage(directory):
            raise StorageError(wrong[0])
        config = RunConfig.from_yaml(directory / "config.yaml")
        _apart(_check_both, config, directory, trusted)
        return _both(config, directory, limits, trusted)
    from ..sampling import run as sampler

    return _watched(directory, lambda report: sampler.resume(directory, progress=report, trusted=trusted, **limits))


def verify(directory: Path, simulate: bool, free_energy: float | None = None, trusted: bool = False) -> int:
    """Print a table of checks of each run in `directory`; status 1 if one fails, 2 if files are damaged.

    Status 3: only the checksums could be verified.

    `free_energy` is F_B - F_A of the cores in kJ/mol, for a directory of both directions; see `checks.check_balance`.
    """
    from ..results.result import load

    results = {path: load(path, trusted=trusted) for path in run_directories(directory).values()}
    if free_energy is not None and len(results) < 2:
        raise bad_input("--free-energy", "a directory of both directions (rlis run --both)", str(directory))
    from ..validation.checks import check_balance, check_parent, check_records, check_simulations

    statuses, told = [], []
    if directory not in results:
        statuses.append(BAD_INPUT * _show_checks(str(directory), [check_parent(directory)]))
    for path, result in results.items():
        checks = list(check_records(result))
        if simulate and result.config["method"] == "run" and checks[0].verdict == "pass":
            checks += check_simulations(result, path / "verify")
        shown = _show_checks(str(path), checks)
        statuses.append(BAD_INPUT if checks[0].verdict == "fail" else shown)  # the first one is the checksums
        told += [check for check in checks[1:] if check.verdict != "could not tell"]
    if len(results) == 2 and BAD_INPUT not in statuses and not is_network(directory):
        forward, backward = results.values()
        statuses.append(_show_checks(str(directory), [check_balance(forward, backward, None, free_energy)]))
    if max(statuses) == DONE and not told:
        print("only the checksums were verified: no other check could tell (too few data)")
        return LIMIT
    return max(statuses)


def _show_checks(title: str, checks: Sequence[Any]) -> int:
    """Print checks as a table and return the exit status: 1 if one fails."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: a path or the name of a region may look like markup.
    table = Table(title=Text(title), title_justify="left")
    for column in ("check", "verdict", ""):
        table.add_column(column, overflow="fold")
    for check in checks:
        table.add_row(*map(Text, (check.name, check.verdict, check.detail)))
    Console().print(table)
    return FAILED if any(check.verdict == "fail" for check in checks) else DONE


def _sample(config: RunConfig, problem: Any, directory: Path, report: Report) -> Any:
    from ..sampling import run as sampler

    common: dict[str, Any] = {
        "seed": config.seed,
        "target_relative_error": config.target_relative_error,
        "platform": config.platform,
        "max_force_evaluations": config.max_force_evaluations,
        "max_seconds": config.max_seconds,
        "workers": config.workers,
        "progress": report,
    }
    if config.method == "brute":
        return sampler.brute(problem, directory, **common)
    return sampler.run(problem, directory, settings=config.settings, **common)


def _watched(directory: Path, work: Work, display: Display | None = None, name: str = "") -> int:
    """Do `work`, which takes a progress callback and returns a Result, while showing its progress."""
    if display is None:
        with make_display(as_json=_CHILD in os.environ) as own:
            status = _watched(directory, work, own, name)
        if _CHILD not in os.environ:
            print(f"results in {directory / 'result.json'}", flush=True)
        return status
    return status_of(work(lambda progress: display.show(name, Snapshot.of(progress))))


def _both(config: RunConfig, directory: Path, limits: Mapping[str, Any], trusted: bool) -> int:
    with make_display(as_json=False) as display:
        if config.workers >= 2:
            statuses = _at_once(directory, limits, display, trusted)
        else:
            statuses = _in_turn(config, directory, limits, display, trusted)
    join_results(directory)
    if any(status in (DONE, LIMIT) for status in statuses):
        print(f"results in {directory / 'result.json'}", flush=True)
    return worst(statuses)


def _in_turn(
    config: RunConfig, directory: Path, limits: Mapping[str, Any], display: Display, trusted: bool
) -> list[int]:
    from ..sampling import run as sampler

    def work(direction: Any, report: Report) -> Any:
        own = directory / direction
        if holds_run(own):
            return sampler.resume(own, progress=report, trusted=trusted, **limits)
        one_way = config.one_way(direction, default_options(config.system))
        one_way = RunConfig.from_mapping({**one_way.to_mapping(), **limits})
        return _sample(one_way, build(one_way, trusted), own, report)

    statuses = []
    for direction in DIRECTIONS:
        try:
            statuses.append(_watched(directory / direction, partial(work, direction), display, direction))
        except RlisError as error:
            print(f"error: {direction}: {error}", file=sys.stderr)
            statuses.append(status_of_error(error))
    return statuses


def _at_once(directory: Path, limits: Mapping[str, Any], display: Display, trusted: bool) -> list[int]:
    commands = [_child_command(directory, direction, limits, trusted) for direction in DIRECTIONS]
    children = [_spawn(command) for command in commands]
    with ThreadPoolExecutor(len(children)) as threads:
        work = [threads.submit(_follow, child, name, display) for child, name in zip(children, DIRECTIONS, strict=True)]
        try:
            return [future.result() for future in work]
        finally:  # before the threads are joined: after Ctrl-C nobody else would end the children
            for child in children:
                child.kill()


def _child_command(directory: Path, direction: str, limits: Mapping[str, Any], trusted: bool = False) -> list[str]:
    command = [sys.executable, "-m", "openmm_rlis.cli"]
    if holds_run(directory / direction):
        command += ["resume", str(directory / direction)]
    else:
        command += [
            "run",
            str(directory / "config.yaml"),
            "--out",
            str(directory / direction),
            "--direction",
            direction,
        ]
    command += ["--trust"] if trusted else []
    return command + [part for key, value in limits.items() for part in (LIMITS[key], str(value))]


def _spawn(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, _CHILD: "1"},
    )


def _follow(child: subprocess.Popen[str], name: str, display: Display) -> int:
    with child:
        for line in child.stdout or ():
            if line.startswith('{"progress"'):
                display.show(name, Snapshot.from_mapping(json.loads(line)["progress"]))
            elif line.strip():
                print(f"{name}: {line.rstrip()}", file=sys.stderr, flush=True)
    if child.returncode < 0:  # nothing else would say so: out of memory looks like this
        print(f"error: {name}: its process was ended by signal {-child.returncode}", file=sys.stderr, flush=True)
    return child.returncode


def die_with_parent() -> None:
    """In a child process, watch standard input and end when the parent is gone; rounds are atomic: nothing is lost."""
    if _CHILD not in os.environ:
        return

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: its lock would be held while the interpreter shuts down
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()

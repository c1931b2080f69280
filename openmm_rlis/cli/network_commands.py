"""Carry out `rlis network`, `rlis run` with `others: auto`, and `resume` of their directories.

    DIR/config.yaml   the command       DIR/network.json   states, legs, traps       DIR/result.json   what follows

The files of an own system are copied into DIR/inputs, so that the directory goes on without them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import systems
from ..config.base import unknown_name
from ..config.build_problem import check_options
from ..config.run_config import RunConfig
from ..config.user_system import OwnSystem
from ..display.progress import Snapshot
from ..display.terminal import Display, make_display
from ..errors import InputError, StorageError, bad_input
from ..networks import network as networks
from ..networks.legs import Plan
from ..networks.states import BuiltStates, OwnStates, States
from ..report.network_tables import tables
from ..storage import checksums
from ..storage.atomic_files import MANIFEST
from ..storage.network_directory import read_record
from ..storage.new_run import missing, remove_empty
from .exit_status import DONE, LIMIT
from .new_directory import refuse_occupied, write_config

Report = Callable[[str, Any], None]
ENDS = ("source", "target", "others", "beta")


def start(config: RunConfig, names: Sequence[str], betas: Sequence[float] | None, out: Path, trusted: bool) -> int:
    """Measure a network in a new directory and return the exit status."""
    for name, entry in (("--both", config.both), ("method: brute", config.method == "brute")):
        if entry:
            raise bad_input("network", "a run, which goes both ways by itself", name)
    refuse_occupied(out)
    config, made = _copied(config, out)
    with _unless_refused(out, made):
        states = _states(config, names, trusted)
        return _shown(out, lambda report: networks.run_network(states, betas, out, _plan(config), report)[1])


def start_auto(config: RunConfig, out: Path, trusted: bool) -> int:
    """Run with `others: auto` in a new directory and return the exit status."""
    refuse_occupied(out)
    config, made = _copied(config, out)
    with _unless_refused(out, made):
        states = _ends(config, trusted)
        return _shown(out, lambda report: networks.auto(states, out, _plan(config), report)[1])


def resume(directory: Path, limits: Mapping[str, Any], trusted: bool) -> int:
    """Go on with a network, or with a run that looks for traps; `limits` replace the stored ones."""
    if not (directory / "config.yaml").is_file():
        fix = "call rlis.network again with the same arguments and directory"
        raise bad_input("DIR", "a network that `rlis network` started", f"{directory}, started from Python", fix)
    if wrong := checksums.damage(directory):
        raise StorageError(wrong[0])
    config, record = RunConfig.from_yaml(directory / "config.yaml"), read_record(directory)
    plan = replace(Plan.from_dict(record["plan"]), **limits)
    if record["auto"]:
        states = _ends(config, trusted)
        return _shown(directory, lambda report: networks.auto(states, directory, plan, report)[1])
    several, betas = _states(config, record["states"], trusted), record["betas"]
    return _shown(directory, lambda report: networks.run_network(several, betas, directory, plan, report)[1])


# ---------------------------------------------------------------------------------------------------------------------


def _copied(config: RunConfig, out: Path) -> tuple[RunConfig, list[Path]]:
    """Make a directory and write the configuration into it; return that of the copies, and the folders made."""
    made = missing(out)
    out.mkdir(parents=True, exist_ok=True)
    with _unless_refused(out, made):
        return write_config(config, out), made


@contextmanager
def _unless_refused(out: Path, made: Sequence[Path]) -> Iterator[None]:
    """Remove what was written if bad input shows before a leg has begun: the same command would be refused."""
    try:
        yield
    except InputError:
        if out.is_dir() and not any(out.glob(f"**/{MANIFEST}")):
            for path in out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            remove_empty(made)
        raise


def _plan(config: RunConfig) -> Plan:
    return Plan(
        config.seed, config.target_relative_error, config.max_force_evaluations, config.max_seconds, config.workers,
        config.platform, config.settings,
    )  # fmt: skip


def _states(config: RunConfig, names: Sequence[str], trusted: bool) -> States:
    options = {key: value for key, value in config.options.items() if key not in ENDS or key == "beta"}
    if isinstance(config.system, OwnSystem):
        for name in names:
            if name not in config.system.regions:
                raise unknown_name("--states", name, list(config.system.regions))
        own = config.system.with_options({**options, "others": []})
        return OwnStates(own, tuple(names), trusted)
    modules = systems.available()
    if config.system not in modules:
        raise unknown_name("SYSTEM", config.system, list(modules))
    build = modules[config.system].build
    return BuiltStates(build, tuple(names), check_options(build, config.system, options), config.system)


def _ends(config: RunConfig, trusted: bool) -> OwnStates:
    """Return A and B of an own system whose other regions are looked for."""
    assert isinstance(config.system, OwnSystem)
    own = config.system.with_options({**config.options, "others": []})
    return OwnStates(own, (own.source, own.target), trusted)


def _shown(out: Path, work: Callable[[Report], str]) -> int:
    """Do work that takes a progress callback while showing its progress, print what came of it, return the status."""
    with make_display(as_json=False) as display:
        stopped = work(lambda name, progress: _show(display, name, progress))
    console = Console()
    for table in tables(out):
        console.print(table)
    print(f"results in {out / 'result.json'}", flush=True)
    return DONE if stopped == "target" else LIMIT


def _show(display: Display, name: str, progress: Any) -> None:
    display.show(name, Snapshot.of(progress))

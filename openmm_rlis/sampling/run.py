"""Run: the front door, from a Problem to a Result.

`run`, `brute` and `resume` check what they are given, make or open the run directory, and let `driver.Loop` do the
stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mdtraj

from ..config import problem_identity
from ..config.build_problem import problem_of
from ..config.settings import Settings
from ..dynamics.engine import Engine
from ..dynamics.platforms import choose_platform
from ..errors import bad_input
from ..openmm_system.system_xml import check_sendable
from ..preflight.arguments import check_kinds, check_whole
from ..preflight.start_checks import check_room, check_start
from ..problem import Problem
from ..results.result import Result, load
from ..storage.new_run import PROBLEM, missing, refuse_occupied, unless_failed
from ..storage.run_directory import RunDirectory
from ..value_function import ValueFunction
from .brute_force import N_BATCHES, REPLICAS
from .driver import Loop
from .progress import Progress, Report
from .stopping import Goal

__all__ = ["Progress", "Result", "brute", "load", "resume", "run"]


def run(
    problem: Problem,
    directory: str | Path,
    seed: int = 1,
    target_relative_error: float = 0.1,
    max_force_evaluations: int | None = None,
    max_seconds: float | None = None,
    value: ValueFunction | None = None,
    workers: int = 1,
    platform: str | None = None,
    *,
    settings: Settings | None = None,
    progress: Report | None = None,
) -> Result:
    """Estimate the rate of a rare transition.

    Parameters
    ----------
    problem
        The System, its regions and its dynamics.
    directory
        A new run directory.
    seed
        Of every random stream; the same seed gives the same result, interrupted or not.
    target_relative_error
        Stop when standard error / rate is below this, between 0 and 1, or below half of it while an alarm doubts the
        error; the cost goes as one over its square.
    max_force_evaluations, max_seconds
        Limits of the whole run; whichever comes first ends it with a valid partial result. One force evaluation is the
        forces of one walker once; seconds are wall time. A round of production that has begun is finished.
    value
        A value function to start from instead of a cold start; it is trained further, in a copy. There is no inner core
        of A then, which a cold start would look for (`settings.core`).
    workers
        Processes on this machine, which share the walks and settle A beside the start; more than 1 need a main module
        that can be imported. Other numbers of them give other random numbers.
    platform
        OpenMM platform; by default Reference for packed replicas, and otherwise the one that is found to be the fastest
        here, which the run then keeps, resumed or not.
    settings
        How the sampler works; changes cost and variance only.
    progress
        Called with a `Progress` now and then; in a notebook, without one, progress is shown under the cell.

    Returns
    -------
    Result
        As `load` would read it; `.stopped` says whether the target or a limit was reached.

    Raises
    ------
    InputError
        Bad arguments, an occupied directory, or a target that cannot be reached.
    DivergedError
        Coordinates are not finite: the time step is too long.
    StorageError
        The directory cannot be written; whole rounds stay, and `resume` goes on.
    """
    check_kinds(problem=problem, directory=directory, settings=settings, value=value, platform=platform)
    check_kinds(progress=progress)
    goal = Goal(target_relative_error, max_force_evaluations, max_seconds)
    settings = Settings() if settings is None else settings
    if value is not None:
        value.check_problem(problem)
    check(problem, platform, settings, directory)
    config = _config("run", problem, seed, goal, workers, platform, settings)
    engine = Engine(problem, settings.n_slots, config["platform"])
    made = missing(Path(directory))
    with _create(problem, directory, config) as store, unless_failed(store.path, made):
        if value is not None:
            store.write_round("given", 0, value.arrays(), {})
        return Loop(store, problem, engine, goal, progress).run()


def brute(
    problem: Problem,
    directory: str | Path,
    seed: int = 1,
    target_relative_error: float = 0.05,
    max_force_evaluations: int | None = None,
    max_seconds: float | None = None,
    platform: str | None = None,
    *,
    workers: int = 1,
    progress: Report | None = None,
) -> Result:
    """Estimate the same rate, by the same definitions, from unbiased replicas without branching.

    Arguments are as for `run`. Its cost is about 1/(error^2 rate timestep) force evaluations.
    """
    check_kinds(problem=problem, directory=directory, platform=platform, progress=progress)
    goal = Goal(target_relative_error, max_force_evaluations, max_seconds)
    settings = Settings(n_batches=N_BATCHES, replicas=REPLICAS)
    check(problem, platform, settings, directory)
    config = _config("brute", problem, seed, goal, workers, platform, settings)
    engine = Engine(problem, settings.n_slots, config["platform"])
    made = missing(Path(directory))
    with _create(problem, directory, config) as store, unless_failed(store.path, made):
        return Loop(store, problem, engine, goal, progress).run()


def resume(
    directory: str | Path,
    problem: Problem | None = None,
    *,
    target_relative_error: float | None = None,
    max_force_evaluations: int | None = None,
    max_seconds: float | None = None,
    workers: int | None = None,
    progress: Report | None = None,
    trusted: bool = False,
) -> Result:
    """Continue a run from its last whole round; limits given here replace the stored ones.

    Parameters
    ----------
    directory
        A run directory; one whose target is reached comes back at once.
    problem
        Needed if the regions are Python objects.
    target_relative_error, max_force_evaluations, max_seconds
        As for `run`; what was spent before counts.
    workers
        Processes; the numbers do not depend on it.
    progress
        Called with a `Progress` now and then.
    trusted
        Whether the directory's system.xml may hold forces that run code; it is read only if `problem` is not given.

    Raises
    ------
    InputError
        Not a run directory, or its regions are Python objects and `problem` is not given, or is another one.
    StorageError
        Files are damaged, or another process is writing.
    """
    check_kinds(directory=directory, progress=progress)
    if problem is not None:
        check_kinds(problem=problem)
    if workers is not None:
        check_whole("workers", workers, 1)
    limits: dict[str, Any] = {"target_relative_error": target_relative_error}
    limits |= {"max_force_evaluations": max_force_evaluations, "max_seconds": max_seconds}
    Goal(**{"target_relative_error": 0.5} | {k: v for k, v in limits.items() if v is not None})  # looks at them
    found = RunDirectory.open(directory)
    if "excursion_lags" not in found.config["settings"] and found.config["method"] in ("run", "brute"):
        got = "one made before walks counted the time of long excursions, whose rounds cannot be added to others"
        raise bad_input("directory", "a run of this version", got, "start a new run; results can still be read")
    problem = problem_of(found.config, problem, found.path, trusted)  # first: nothing is written for another problem
    with RunDirectory.open(directory, write=True) as store:
        config = store.config
        if workers is not None:
            config = {**config, "workers": workers}
        goal = Goal(**{name: config[name] if given is None else given for name, given in limits.items()})
        check_sendable(problem.system, config["workers"])
        engine = Engine(problem, int(config["settings"]["n_slots"]), config["platform"])
        return Loop(store, problem, engine, goal, progress, config).run()


def check(problem: Problem, platform: str | None, settings: Settings, directory: str | Path) -> None:
    """Raise `InputError` for what is known of a new run before anything is written, see `start_checks`."""
    refuse_occupied(Path(directory))
    check_room(Path(directory), settings.n_batches * settings.replicas, problem.n_atoms)
    check_start(problem, Engine(problem, settings.n_slots, platform).platform)


def _config(
    method: str, problem: Problem, seed: int, goal: Goal, workers: int, platform: str | None, settings: Settings
) -> dict[str, Any]:
    check_whole("seed", seed, 0)
    check_whole("workers", workers, 1)
    check_sendable(problem.system, workers)
    names = [region.name for region in problem.regions]
    chosen, seconds = choose_platform(problem, platform)
    recipe = problem.recipe
    return {
        "method": method, "system": recipe["system"] if recipe else "custom", "recipe": recipe, "region_names": names,
        "source": names[0], "target": names[1], "others": names[2:], "beta": problem.beta, "lag_time": problem.lag_time,
        "n_atoms": problem.n_atoms, "unit_cell": problem.unit_cell, "seed": int(seed), **asdict(goal),
        "workers": workers, "platform": chosen, "settings": settings.model_dump(mode="json"),
        **({"platform_seconds": seconds} if seconds else {}), **problem_identity.numbers(problem),
    }  # fmt: skip


def _create(problem: Problem, directory: str | Path, config: Mapping[str, Any]) -> RunDirectory:
    topology = mdtraj.Topology.from_openmm(problem.topology) if problem.topology is not None else None
    files = {**(problem.files if problem.recipe else {}), PROBLEM: problem_identity.tables(problem)}
    return RunDirectory.create(directory, config, problem.system_xml, topology, problem.positions, files)

"""Driver: the stages of one run, each of them read from the run directory if it is there and done if it is not.

    start -> flux -> learning -> plan -> production, round after round, until the target error or a limit

So `run`, `resume` and a run that was killed are the same loop. Random streams are keyed by (stage, round, group), so
interruptions change nothing. In production limits are looked at between rounds only: a round that has begun is
finished, since to drop one because it took long would bias; it is not begun if it is foreseen to go beyond a limit.
Before, the `cost_meter` breaks a stage off: `resume` repeats it, and what it took stays in the cost.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from ..basin.basin_simulation import SettleTask
from ..basin.exit_flux import FluxRun, FluxState, first_exits
from ..basin.inner_region import Core
from ..config.settings import Settings
from ..display import notebook
from ..dynamics.engine import Cost, Engine, one_thread
from ..dynamics.platforms import platform_text
from ..errors import DivergedError, NotFiniteError, RlisError, UnreachableError, lost_in
from ..learning.learning_rounds import (
    LearningRound,
    cold_start,
    learn_round,
    learned_importance,
    pilot_round,
    roots_to_learn_from,
)
from ..learning.pilot import WalkShares, make_engine
from ..learning.planning import Plan, make_plan
from ..preflight.lag_check import warn_of_long_lag
from ..problem import Problem
from ..results.rate_guess import guess, guess_text, rate_of
from ..results.result import Result
from ..statistics.estimators import Estimate
from ..statistics.importance import UNTEMPERED, Importance
from ..statistics.interim_analyses import FIRST_ANALYSIS, is_interim_analysis, rounds_to_interim_analysis
from ..storage.array_names import unprefixed
from ..storage.atomic_files import size_text
from ..storage.cost_meter import SPENT, LimitError, Meter, active
from ..storage.rounds import predicted_bytes
from ..storage.run_directory import RunDirectory
from ..value_function import ValueFunction
from ..walks.workers import Executor, make_executor
from . import brute_force
from .journal import Journal
from .production import GroupRecord, Task, stream
from .progress import Progress, Report, Teller
from .stopping import Goal

FLUX, START, LEARNING, PILOT = 1, 2, 3, 5
MARGIN = 0.8
"""Share of what is left before a limit that a round is foreseen to take at most."""
MOST_TOGETHER = 4
"""Rounds whose walkers walk side by side: what is lost at most when a run is killed."""


OneBlock = Callable[[range, FluxState], None]
Settling = Callable[..., tuple[FluxRun, int, bool, int]]


class Loop:
    """One run: reads what is stored, does what is missing, tells how it goes."""

    def __init__(
        self,
        store: RunDirectory,
        problem: Problem,
        engine: Engine,
        goal: Goal,
        progress: Report | None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.store, self.problem, self.engine, self.goal = store, problem, engine, goal
        self.inner = problem  # where walks start and fail: at a core of A, if the start found that it needs one
        self.config = config or store.config
        self.settings = Settings.from_mapping(self.config["settings"])
        self.seed = int(self.config["seed"])
        self.stage = "start"  # where walkers are now
        infos = [store.read_round(stage, i).info for stage in store.stages() for i in store.rounds(stage)]
        evaluations, seconds = (sum(float(i.get(name, 0)) for i in infos) for name in ("evaluations", "seconds"))
        self.meter = engine.meter = Meter(store.path / SPENT, recorded=(evaluations, seconds))
        self.meter.most_evaluations = math.inf if (most := goal.max_force_evaluations) is None else most
        self.journal = Journal(store, self.meter, problem)
        self.meter.deadline = self.journal.marked + goal.seconds_left(self.meter.seconds)
        self.teller = Teller(store, self.meter, progress or notebook.progress() or (lambda _: None))

    def run(self) -> Result:
        """Do what is missing and return the result."""
        if not self.store.stages():
            message = f"start energy {self.engine.start_energy():.6g} kJ/mol; {self._at_start()}"
            self._tell("flux" if self.config["method"] == "brute" else "start", 0, message)
            long_lag = warn_of_long_lag(self.problem, self.config["platform"], self.meter.deadline)
            self.store.log("lag", warning=long_lag or None)
        with closing(self.meter), one_thread(), active(self.meter):
            try:
                with make_executor(int(self.config["workers"]), self.meter) as executor:
                    stopped = (self._brute if self.config["method"] == "brute" else self._sample)(executor)
            except LimitError as limit:  # before production: nothing is lost but a stage that no number depends on yet
                stopped = str(limit)
            except UnreachableError as error:  # its directory goes, see `creation.unless_failed`
                error.spent = self.meter.evaluations, self.meter.seconds
                raise
            except (DivergedError, NotFiniteError) as error:
                raise self._lost(error) from None
        return self._end(stopped)

    def _end(self, stopped: str) -> Result:
        result = Result(self.store, self.problem)
        found = guess(self.store) if result.n_rounds == 0 else None
        more = {"guess": found} if found else {}
        self.store.write_result({**result.to_dict(), "stopped": stopped, **more})
        self.store.log("end", stopped=stopped, rate=result.rate.to_dict(), **more)
        none = f"; no rate: no production round was finished{guess_text(found)}" if result.n_rounds == 0 else ""
        self._tell("done", result.n_rounds, f"stopped by {stopped}{none}", result.rate)
        return result

    def _lost(self, error: RlisError) -> DivergedError:
        self.store.log("lost", stage=self.stage, message=str(error))
        if self.store.stages():  # the rate of the rounds before is that of runs which lost nobody: said with an alarm
            self.store.write_result({**Result(self.store, self.problem).to_dict(), "stopped": "lost"})
        return lost_in(self.stage, error, self.store.path)

    # Stages

    def _sample(self, executor: Executor) -> str:
        first, flux = self._start(executor)
        crew = WalkShares(executor, len(self._groups(self.settings.n_batches)))
        lessons = self._learn(flux, first, crew)
        value = lessons[-1].value
        plan, importance = self._plan(flux, lessons, crew)
        if not self.store.value_path.exists():
            self.store.write_value(lambda path: value.save(path, self.problem))
        return self._produce(flux, value, importance, plan, executor)

    def _settling(self, executor: Executor) -> Settling | None:
        """Begin to bring A to equilibrium, beside what this process does if there are workers; None: it is done."""
        if self.store.rounds("flux"):
            return None
        n, settings = self.settings.n_batches * self.settings.replicas, self.settings
        rng, deadline = stream(self.seed, FLUX), self.meter.deadline
        longest = None if self.config["method"] == "brute" else settings.excursion_lags
        platform = self.config["platform"]
        return executor.later(SettleTask(self.inner, n, settings.n_slots, longest, platform, rng, deadline))

    def _flux(self, settling: Settling | None) -> FluxRun:
        if settling is not None:
            self.stage = "flux"
            self._tell("flux", 0)
            found, lags, settled, cost = settling(self.teller.window)
            info = {"lags": lags, "time": found.time, "settled": settled, "flux_evaluations": cost}
            self.journal.write("flux", 0, found.arrays(), info, cost)
        stored = self.store.read_round("flux", 0)
        return FluxRun.from_arrays(stored.arrays, int(stored.info["lags"]), stored.info["time"])

    def _learn(self, flux: FluxRun, first: LearningRound, crew: WalkShares) -> list[LearningRound]:
        """Return the cold start and the lessons after it, the last with the V to use."""
        self.stage = "learning"
        history, index, stored = [first], 0, len(self.store.rounds("learning"))
        # Once there is a plan V stays as it is, also when a run is resumed for another target.
        while index < stored or not self.store.rounds("plan"):
            if index >= stored:
                n_roots = roots_to_learn_from(history[1:], index, self.settings, *self._need())
                if n_roots == 0:
                    break
                self._tell("learning", index, f"branching walks from {n_roots} roots")
                self.meter.beat()
                engine = make_engine(self.inner, self.settings, self.config["platform"], history[-1].value)
                settings = self.settings.model_copy(update={"learning_roots": n_roots})
                learned = learn_round(engine, history, flux, settings, stream(self.seed, LEARNING, index), crew)
                self.journal.keep_learning_round("learning", index, learned, engine)
            lesson = self.journal.learning_round("learning", index)
            history.append(lesson)
            share = lesson.info["success_probability"]
            about = rate_of(lesson.info, share, len(flux.exits), flux.time, self.problem.lag_time)
            self._tell("learning", index, f"k about {about:.3g} /ps, norm {lesson.info['ended']:.2f}")
            index += 1
        return history

    def _start(self, executor: Executor) -> tuple[LearningRound, FluxRun]:
        """Return the first V and the run in A; if B cannot be reached, nobody waits for the latter."""
        if self.store.rounds("given"):
            arrays = self.store.read_round("given", 0).arrays
            first = LearningRound.given(ValueFunction.from_arrays(self.problem.features, arrays))
            return first, self._flux(self._settling(executor))
        if not self.store.rounds("start"):
            self._tell("start", 0, "adaptive multilevel splitting")
            rng = stream(self.seed, START)
            self.engine.reseed(rng)
            exits, core = first_exits(self.engine, self.settings.core)
            self.inner = self.engine.problem
            settling = self._settling(executor)
            first = cold_start(self.engine, exits, self.settings, rng, self.teller.level)
            self.journal.keep_learning_round("start", 0, first, self.engine, core)
        else:
            core_arrays = unprefixed("core", self.store.read_round("start", 0).arrays)
            if core_arrays:
                self.inner = self.problem.with_core(Core.from_arrays(core_arrays).region(self.problem))
            settling = self._settling(executor)
        first = self.journal.learning_round("start", 0)
        self._tell("start", 0, f"{first.info['levels']} levels, ln P = {first.info['log_probability']:.2f}")
        return first, self._flux(settling)

    def _plan(self, flux: FluxRun, history: list[LearningRound], crew: WalkShares) -> tuple[Plan, Importance]:
        if not self.store.rounds("plan"):
            (target, left), value = self._need(), history[-1].value
            cost, lessons = Cost(), history[1:]
            if not lessons:
                engine = make_engine(self.inner, self.settings, self.config["platform"], value)
                lessons = [pilot_round(engine, history[-1], flux, self.settings, stream(self.seed, PILOT), crew)]
                cost = engine.cost
            infos = [lesson.info for lesson in lessons]
            wanted = make_plan(self.inner, value, flux, infos, self.settings, target, left / FIRST_ANALYSIS)
            plan = wanted.fitting(self.settings, self.problem.lag_steps, MARGIN * self._need()[1])
            if plan is None:
                raise LimitError(self.goal.nearest_limit(self.meter.evaluations, self.meter.seconds))
            spent = {"learning_evaluations": cost.force_evaluations, "network_calls": cost.network_calls}
            importance = asdict(learned_importance(lessons))
            self.journal.write("plan", 0, importance, {**asdict(plan), **spent}, cost.force_evaluations)
        stored = self.store.read_round("plan", 0)
        plan = Plan.from_info(stored.info)
        division = f"{plan.flux_lags} lags of basin simulation, {plan.n_roots} roots a batch"
        self._tell("plan", 0, f"{division}; {self._disk(plan)}")
        # Runs made before the importance was measured stored none: theirs was V.
        return plan, Importance(**stored.arrays) if stored.arrays else UNTEMPERED

    def _produce(
        self, flux: FluxRun, value: ValueFunction, importance: Importance, plan: Plan, executor: Executor
    ) -> str:
        self.stage = "production"
        pools = flux.stretches(plan.flux_lags) if plan.ready_rounds else []
        groups = self._groups(self.settings.n_batches)

        def one_block(rounds: range, state: FluxState) -> None:
            task = Task(
                self.inner, value.arrays(), importance, self.settings, plan, state,
                tuple(pools[rounds.start : rounds.stop]), groups, self.seed, rounds, self.config["platform"],
            )  # fmt: skip
            found: list[list[GroupRecord]] = executor.map(task, range(len(groups)))
            self.journal.keep_block(rounds, found)

        foreseen = partial(plan.evaluations, self.settings, self.problem.lag_steps)
        # Walkers that cannot share a Context gain nothing from walking side by side, and lose more when killed.
        return self._until_done(flux.state, one_block, foreseen, MOST_TOGETHER if self.engine.packed else 1)

    def _brute(self, executor: Executor) -> str:
        flux = self._flux(self._settling(executor))
        self.stage = "production by brute force"
        groups = self._groups(brute_force.N_BATCHES)
        cost = brute_force.evaluations(self.problem)

        def one_round(rounds: range, state: FluxState) -> None:
            index = rounds.start
            task = brute_force.CountTask(self.problem, state, groups, self.seed, index, self.config["platform"])
            found = brute_force.contents(executor.map(task, range(len(groups))))
            self.journal.write("production", index, found, {"production_evaluations": cost}, cost)

        return self._until_done(flux.state, one_round, lambda rounds: cost * len(rounds))

    def _groups(self, n_batches: int) -> tuple[tuple[int, ...], ...]:
        """Return the batches of each worker that the run was started with: resuming with others changes no number."""
        n_groups = min(int(self.store.config["workers"]), n_batches)
        return tuple(tuple(part.tolist()) for part in np.array_split(np.arange(n_batches), n_groups))

    def _until_done(
        self, state: FluxState, one_block: OneBlock, foreseen: Callable[[range], float], together: int = 1
    ) -> str:
        """Do rounds until the target or a limit; `foreseen` are their evaluations, `together` the most in a block.

        Between two looks at the error nothing is decided, so the rounds of a block end at the next look at the latest.
        """
        self.meter.lift()
        seconds, result = 0.0, None
        while True:
            index = len(self.store.rounds("production"))
            block = self.journal.unfinished_block(index)
            if not block:
                result = Result(self.store, self.problem, result)
                wanted = self.goal.error_wanted(index > 0 and any(check.doubts_error for check in result.checks))
                self.teller.production(result, index, wanted, self.goal)
                if is_interim_analysis(index) and result.rate.relative_error <= wanted:
                    return "target"
                block = range(index, index + rounds_to_interim_analysis(index, together))
                while len(block) > 1 and self._over_limit(foreseen(block), len(block) * seconds):
                    block = block[:-1]
                stop = self._over_limit(foreseen(block), seconds or foreseen(block) / self._speed())
                if stop:
                    return stop
            begun = time.monotonic()
            before = self.store.read_round("production", block.start - 1).arrays if block.start else None
            one_block(block, FluxState(**unprefixed("state", before)) if before else state)
            seconds = (time.monotonic() - begun) / len(block)

    # Limits and progress

    def _need(self) -> tuple[float, float]:
        """Return the target error, and how many evaluations are left before the limits."""
        in_time = self.goal.seconds_left(self.meter.seconds) * self._speed()
        left = min(self.goal.evaluations_left(self.meter.evaluations), in_time)
        return self.goal.target_relative_error, max(left, 0.0)

    def _speed(self) -> float:
        """Return the evaluations in a second, over the whole run; at least one, so that a quotient is finite."""
        return max(self.meter.evaluations / max(self.meter.seconds, 1e-9), 1.0)

    def _over_limit(self, more_evaluations: float = 0.0, more_seconds: float = 0.0) -> str:
        return self.goal.limit_passed(self.meter.evaluations + more_evaluations, self.meter.seconds + more_seconds)

    def _at_start(self) -> str:
        n = self.settings.n_batches * self.settings.replicas
        per_round = n * self.problem.n_atoms * 49
        free = shutil.disk_usage(self.store.path).free
        disk = f"{size_text(per_round)} per round for replicas, paths to be added; {size_text(free)} free"
        return f"predicted disk use: {disk}{platform_text(self.config)}"

    def _disk(self, plan: Plan) -> str:
        frames = plan.frames_per_root * plan.n_roots * self.settings.n_batches
        return f"predicted disk use: {size_text(predicted_bytes(int(frames), self.problem.n_atoms))} a round for paths"

    def _tell(self, stage: str, index: int, message: str = "", rate: Estimate | None = None) -> None:
        self.teller.tell(Progress(stage, index, rate, message=message))

"""Result: what a run directory says, whole or so far.

Everything here comes from the stored production rounds, so it can be read on any machine while the run goes on; only
`value` needs torch and the problem. Batches are the independent unit of every error bar.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..display import notebook
from ..display.text import rate_text
from ..errors import bad_input
from ..paths.ensemble import PathEnsemble
from ..statistics import channels, diagnostics, estimators, not_applicable
from ..statistics.diagnostics import Diagnostic
from ..statistics.estimators import BatchTotals, Estimate
from ..statistics.initial_transient import LAGS_OF_BRUTE_FORCE, rounds_left_out
from ..storage import cost_meter
from ..storage.run_directory import Round, RunDirectory
from .round_record import ARRAYS, read_production, slim

if TYPE_CHECKING:
    from ..problem import Problem
    from ..value_function import ValueFunction

SCHEMA = 1
PACKAGES = ("openmm-rlis", "openmm", "openmmtorch", "torch", "mdtraj", "numpy")
Array = NDArray[np.float64]


class Result:
    """The results in a run directory.

    Parameters
    ----------
    run
        The directory, open for reading at least.
    problem, trusted
        Only `value` needs them; as for `load`.
    before
        What was read of the same run earlier: its rounds are not read again.
    """

    def __init__(
        self, run: RunDirectory, problem: Problem | None = None, before: Result | None = None, trusted: bool = False
    ) -> None:
        self.directory: Path = run.path
        self.trusted = trusted
        self.config = run.config
        self._run = run
        self._problem = problem
        self._rounds: dict[tuple[str, int], Round] = dict(before._rounds) if before else {}
        for key in ((stage, i) for stage in run.stages() for i in run.rounds(stage)):
            if key not in self._rounds:
                self._rounds[key] = slim(key[0], run.read_round(*key))
        self._produced = [stored for (stage, _), stored in sorted(self._rounds.items()) if stage == "production"]
        self._n_left_out = self._transient()
        self._produced = self._produced[self._n_left_out :]
        self._production = read_production(self._produced, int(self.config["settings"]["n_batches"]))
        self._infos = [stored.info for stored in self._rounds.values()]

    def _transient(self) -> int:
        """Return how many rounds of brute force are not counted; early ones stored nothing to tell it from."""
        spells = [stored.arrays["spells"] for stored in self._produced if "spells" in stored.arrays]
        before = [int(info["lags"]) for (stage, _), r in self._rounds.items() if stage == "flux" for info in [r.info]]
        return rounds_left_out(spells, LAGS_OF_BRUTE_FORCE, sum(before)) if spells else 0

    @property
    def totals(self) -> BatchTotals:
        """Transitions, exits and time (ps) of every batch."""
        return self._production.totals

    @property
    def n_rounds(self) -> int:
        """Production rounds that count so far; of brute force those after the transient."""
        return self._production.n_rounds

    @cached_property
    def rate(self) -> Estimate:
        """k_AB = J_A P_AB in 1/ps."""
        return self._estimate(lambda totals: estimators.rate(totals, self._production.rounds))

    @property
    def rate_by_batch(self) -> Array:
        """The rate of each batch in 1/ps, (n_batches,): transitions over time; `rate` is their mean by time."""
        with np.errstate(invalid="ignore"):  # 0/0 without a round: nan
            return np.asarray(self.totals.transitions / self.totals.time)

    @property
    def rate_history(self) -> dict[str, Array]:
        """The rate after each production round, from all rounds up to it, as columns of (n_rounds,).

        `value`, `standard_error`, `low` and `high` (95 %) in 1/ps; `force_evaluations` and `seconds` of the whole run
        until then. `pandas.DataFrame(result.rate_history)` makes a table of it.
        """
        seen = {name: np.cumsum([r.arrays[name] for r in self._produced], axis=0) for name in ARRAYS}
        transitions, time = self._production.rounds
        rates = [
            estimators.rate(BatchTotals(*rows), (transitions[: i + 1], time[: i + 1]))
            for i, rows in enumerate(zip(*seen.values(), strict=True))
        ]
        history = {"value": np.array([r.value for r in rates]), "standard_error": [r.standard_error for r in rates],
                   "low": [r.interval[0] for r in rates], "high": [r.interval[1] for r in rates]}  # fmt: skip
        cost = self.cost
        totals = {"evaluations": cost["force_evaluations"]["total"], "seconds": cost["seconds"]}
        for column, key in (("force_evaluations", "evaluations"), ("seconds", "seconds")):
            total = float(totals[key])
            own = np.array([float(r.info.get(key, 0.0)) for r in self._produced])
            history[column] = total - own.sum() + np.cumsum(own)
        return {name: np.asarray(values, dtype=float) for name, values in history.items()}

    @cached_property
    def flux(self) -> Estimate:
        """J_A, exits from A per time that A was the last region, in 1/ps."""
        return self._estimate(estimators.flux)

    @cached_property
    def success_probability(self) -> Estimate:
        """P_AB, the share of exits that reach B first."""
        return self._estimate(estimators.success_probability)

    @cached_property
    def mean_first_passage_time(self) -> Estimate:
        """1/k_AB in ps: the mean time in A per transition."""
        # By chance a control variate can make a rate negative: no time then, as for zero.
        return estimators.reciprocal(replace(self.rate, value=max(self.rate.value, 0.0)))

    def _estimate(self, of: Callable[[BatchTotals], Estimate]) -> Estimate:
        if self.n_rounds == 0:
            return Estimate(float("nan"), float("inf"), (0.0, float("inf")), len(self.totals.time))
        return of(self.totals)

    @cached_property
    def ended(self) -> Estimate:
        """E_Q[W] over success and failure, which is 1: the free check of all weights."""
        table = self._production.ended
        if not table.size or np.isnan(table).all():
            return Estimate(float("nan"), float("inf"), (0.0, float("inf")), 0)
        seen = table[:, ~np.isnan(table).all(axis=0)]  # a batch may have had no exit yet
        return estimators.mean(np.nanmean(seen, axis=0))

    @cached_property
    def core_share(self) -> Estimate:
        """The share of the time in state A, since A was last visited, that is spent inside A."""
        inside = self._production.inside.sum(0)
        if self.n_rounds == 0 or np.isnan(inside).any():
            return Estimate(float("nan"), float("inf"), (0.0, float("inf")), len(self.totals.time))
        return estimators.ratio(inside, self.totals.time)

    @cached_property
    def paths(self) -> PathEnsemble:
        """Every success path and the stored share of failure paths, with weights."""
        config = self.config
        return self._run.paths(
            float(config["settings"]["failure_share"]), float(config["lag_time"]),
            unit_cell=config.get("unit_cell"), n_batches=len(self.totals.time),
        )  # fmt: skip

    def channels(self, label: Callable[[NDArray[np.float32]], Hashable] | None = None) -> dict[Hashable, Estimate]:
        """Return each channel's share of the transitions, largest first.

        Parameters
        ----------
        label
            Called with the frames of a success path, (n_frames, n_atoms, 3) in nm; returns the channel's name. Without
            it, channels are found by grouping (see `openmm_rlis.channels`) and are called 0, 1, 2 ... as in
            `path_channels`; that needs torch and the problem.
        """
        success = self.paths.success()
        names: Sequence[Hashable]
        names = self.path_channels.tolist() if label is None else [label(frames) for frames in _frames(success)]
        return estimators.channel_shares(success.batches, names, success.weights, len(self.totals.time))

    @cached_property
    def path_channels(self) -> NDArray[np.int64]:
        """The channel (n_success,) of every path of `paths.success()`, by grouping; 0 carries the largest share.

        Raises
        ------
        InputError
            The run has no value function, or needs its problem.
        """
        return group(self.paths.success(), self.value, self.problem)

    @cached_property
    def value(self) -> ValueFunction:
        """The frozen value function.

        Raises
        ------
        InputError
            The problem was built from Python callables and not given to `load`, or the run has not learned yet.
        """
        from ..value_function import ValueFunction

        if not self._run.value_path.exists():
            raise bad_input(
                "value", "a run that has learned a value function", str(self.directory), "brute force has none"
            )
        return ValueFunction.load(self._run.value_path, self.problem, self._run.read_value())

    @cached_property
    def checks(self) -> list[Diagnostic]:
        """Every check of the error bar with its verdict, see `statistics.diagnostics`."""
        settled = all(info.get("settled") is not False for info in self._infos)
        numbers = diagnostics.measure(self._production)
        found = diagnostics.checks(self._production, numbers, self.rate, self.ended, settled)
        why = self.not_applicable
        found = [one if np.isfinite(one.value) else replace(one, reason=why.get(one.name, "")) for one in found]
        return [diagnostics.lost(self.lost), *found]

    @cached_property
    def not_applicable(self) -> dict[str, str]:
        """Why a diagnostic is NaN, by name."""
        return not_applicable.reasons(self._production, diagnostics.measure(self._production))

    @cached_property
    def diagnostics(self) -> dict[str, Any]:
        """Numbers that say how far the error bar can be trusted, see `openmm_rlis.diagnostics`, and alarms in words."""
        lines = [check.alarm for check in self.checks if check.alarm]
        left_out = {"transient_rounds": self._n_left_out} if self.config.get("method") == "brute" else {}
        return {**diagnostics.measure(self._production), **left_out, "ended": self.ended.to_dict(), "alarms": lines}

    @property
    def cost(self) -> dict[str, Any]:
        """Force evaluations by stage, `broken_off` those of stages without a whole round, network calls and seconds."""
        evaluations = {
            key: sum(int(i.get(f"{key}_evaluations", 0)) for i in self._infos)
            for key in ("flux", "learning", "production")
        }
        stored, seconds = sum(evaluations.values()), sum(float(i.get("seconds", 0.0)) for i in self._infos)
        spent = cost_meter.spent(self.directory / cost_meter.SPENT)
        total = max(stored, spent[0])
        return {
            "force_evaluations": {**evaluations, "broken_off": total - stored, "total": total},
            "network_calls": sum(int(i.get("network_calls", 0)) for i in self._infos),
            "seconds": max(seconds, spent[1]),
        }

    def damaged(self) -> list[str]:
        """Return what is wrong with the stored files, a line each; empty if every checksum is right."""
        return self._run.verify() + cost_meter.damaged(self.directory / cost_meter.SPENT)

    @property
    def production_seconds(self) -> float:
        """Wall time of the production rounds so far."""
        return sum(float(found.info["seconds"]) for (stage, _), found in self._rounds.items() if stage == "production")

    @cached_property
    def problem(self) -> Problem:
        """The problem of the run, given or built again from its recipe; needs torch and openmm.

        Raises
        ------
        InputError
            The problem was built from Python callables and not given to `load`.
        """
        from ..config.build_problem import problem_of

        return self._problem or problem_of(self.config, None, self.directory, self.trusted)

    @property
    def seed(self) -> int:
        """The seed of all random streams."""
        return int(self.config["seed"])

    @property
    def stopped(self) -> str:
        """Why the run stopped: target, max_force_evaluations, max_seconds, lost (walkers were), or running."""
        path = self.directory / "result.json"
        return str(self._run.read_result().get("stopped", "running")) if path.exists() else "running"

    @property
    def lost(self) -> str:
        """How the run ended if it lost walkers, from the log; empty if it lost none."""
        ends = [event for event in self._run.read_log() if event.get("event") in ("lost", "end")]
        last = ends[-1] if ends else {}
        return f"{last.get('stage')}: {last.get('message')}" if last.get("event") == "lost" else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of result.json."""
        config = self.config
        return {
            "schema": SCHEMA, "system": config["system"], "method": config["method"], "source": config["source"],
            "target": config["target"], "others": config["others"], "beta": config["beta"], "units": {"time": "ps"},
            "rate": self.rate.to_dict(), "flux": self.flux.to_dict(),
            "success_probability": self.success_probability.to_dict(),
            "mean_first_passage_time": self.mean_first_passage_time.to_dict(),
            "rounds": self.n_rounds, "cost": self.cost, "diagnostics": self.diagnostics, "versions": versions(),
            "seed": self.seed,
        }  # fmt: skip

    def __repr__(self) -> str:
        """Return the run, its rate and what is wrong with it in one line."""
        config, n_alarms = self.config, len(self.diagnostics["alarms"])
        alarms = f", {n_alarms} alarm{'s' * (n_alarms > 1)}" if n_alarms else ""
        what = f"{config.get('system')} {config.get('source')} -> {config.get('target')}"
        rate = f"rate {rate_text(self.rate.to_dict())}"
        return f"Result({what}: {rate}, {notebook.stopped_text(self.stopped)}{alarms}, {str(self.directory)!r})"

    def _repr_html_(self) -> str:
        return notebook.result_html(self.to_dict(), self.stopped)


def group(success: PathEnsemble, value: ValueFunction, problem: Problem) -> NDArray[np.int64]:
    """Return the channel (n,) of each of some success paths, by grouping; 0 carries the largest share."""
    from ..features import evaluate

    if len(success) == 0:
        return np.zeros(0, dtype=np.int64)
    frames = list(_frames(success))
    ends = np.cumsum([len(f) for f in frames])[:-1]
    joined = np.concatenate(frames).astype(float)
    scale = value.arrays()["scale"]
    features = np.split(evaluate(problem.features, joined) / scale, ends)
    points = channels.transition_points(features, np.split(value.committor(joined, problem), ends))
    roots = np.unique(np.stack([success.batches, success.rounds, success.roots]), axis=1, return_inverse=True)[1]
    return channels.cluster(points, success.weights, roots, np.random.default_rng(0))


def _frames(paths: PathEnsemble) -> Iterator[NDArray[np.float32]]:
    return (paths.positions(i) for i in range(len(paths)))


def load(directory: str | Path, problem: Problem | None = None, *, trusted: bool = False) -> Result:
    """Return the results in a run directory, of a finished or running run.

    Parameters
    ----------
    directory
        A run directory; of a run in both directions, `DIR/forward` or `DIR/backward`.
    problem
        Only for `.value` and channels by grouping, and only if the regions are Python objects.
    trusted
        Whether the directory's system.xml may hold forces that run code, which `.value` and `.problem` then execute.

    Raises
    ------
    InputError
        Not a run directory, or that of another problem.
    StorageError
        Its files cannot be read.
    """
    run = RunDirectory.open(directory)
    if problem is not None:
        from ..config.build_problem import problem_of

        problem = problem_of(run.config, problem, run.path)
    return Result(run, problem, trusted=trusted)


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that the numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found

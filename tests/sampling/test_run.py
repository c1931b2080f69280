"""The whole run: agreement with exact rates, determinism, interruption, and limits.

Stochastic asserts: independent seeds are the replicas; the mean over seeds of (k - k_exact)/k_exact against the spread
between seeds, Student |t| at a false-alarm rate of 1e-4.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from seeds import with_offset
from short_training import short_training, shorten  # noqa: F401  a fixture of all tests here
from systems_1d import Line, double_well, triple_well

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError
from openmm_rlis.results.result import Result
from openmm_rlis.sampling.run import Progress, brute
from openmm_rlis.statistics.diagnostics import Diagnostic
from openmm_rlis.storage.run_directory import RunDirectory

DOUBLE = double_well(4.0, 0.5)
TRIPLE = triple_well(8.0, 0.4, balls=True)
SETTINGS = Settings(n_batches=8, replicas=4, learning_rounds=2, learning_roots=40, n_slots=64)
FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
TINY: dict[str, Any] = {"seed": 3, "target_relative_error": 0.12, "settings": SETTINGS}


class KilledError(Exception):
    """Stands for whatever ends a process."""


def fingerprint(result: Result) -> dict[str, Any]:
    """Everything in result.json that must not depend on interruptions; what was spent in vain does."""
    found = json.loads((result.directory / "result.json").read_text())
    del found["cost"]["seconds"]
    spent = found["cost"]["force_evaluations"]
    assert spent.pop("total") == sum(spent.values()) and spent.pop("broken_off") >= 0
    return found


def arrays_of(result: Result) -> dict[str, np.ndarray]:
    run = RunDirectory.open(result.directory)
    return {
        f"{stage}/{i}/{name}": array
        for stage in run.stages()
        for i in run.rounds(stage)
        for name, array in run.read_round(stage, i).arrays.items()
    }


def assert_same(a: Result, b: Result) -> None:
    assert fingerprint(a) == fingerprint(b)
    one, other = arrays_of(a), arrays_of(b)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f"), name
    assert len(a.paths) == len(b.paths)
    assert np.array_equal(a.paths.weights, b.paths.weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return rlis.run(DOUBLE.problem(), tmp_path_factory.mktemp("whole") / "run", **TINY)


# --- (1) truth ------------------------------------------------------------------------------------------------------


def check_rates(results: list[Result], line: Line) -> None:
    exact = line.chain.endless
    for name, truth in (("rate", exact.rate), ("flux", exact.flux)):
        values = np.array([getattr(r, name).value for r in results])
        t = (values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))
        assert abs(t) < stats.t.ppf(1.0 - 0.5e-4, len(values) - 1), (name, values.mean(), truth, t)
    inside = sum(r.rate.interval[0] <= exact.rate <= r.rate.interval[1] for r in results)
    # 95 % intervals; for stopping when the error looks small, and for skew, 85 % is granted. False alarm 1e-4.
    assert inside >= stats.binom.ppf(1e-4, len(results), 0.85)


@pytest.mark.parametrize("line", [DOUBLE, TRIPLE], ids=["predicates", "balls and others"])
def test_run_agrees_with_the_exact_rate(line: Line, tmp_path: Path) -> None:
    problem = line.problem()
    results = [
        rlis.run(problem, tmp_path / str(i), seed=with_offset(i), target_relative_error=0.12, settings=SETTINGS)
        for i in range(16)
    ]
    check_rates(results, line)
    assert all(r.stopped == "target" for r in results)


@pytest.mark.slow
@pytest.mark.parametrize("bias_scale", [0.0, 1.0])
@pytest.mark.parametrize("line", [double_well(8.0, 1.0), triple_well(14.0, 0.4)], ids=["double", "triple"])
def test_rare_rates_agree_with_the_exact_ones(line: Line, bias_scale: float, tmp_path: Path) -> None:
    more = {"n_batches": 16, "learning_roots": 200, "learning_rounds": 4, "bias_scale": bias_scale}
    settings = SETTINGS.model_copy(update=more)
    problem = line.problem()
    results = [
        rlis.run(problem, tmp_path / str(i), seed=with_offset(i), target_relative_error=0.2, settings=settings)
        for i in range(16)
    ]
    check_rates(results, line)


@pytest.mark.slow
@pytest.mark.parametrize("line", [DOUBLE, TRIPLE], ids=["double", "triple"])
def test_brute_agrees_with_the_exact_rate(line: Line, tmp_path: Path) -> None:
    problem = line.problem()
    results = [brute(problem, tmp_path / str(i), seed=with_offset(i), target_relative_error=0.2) for i in range(16)]
    check_rates(results, line)
    assert all(math.isnan(r.diagnostics["tail_index"]) for r in results)


# --- (2) determinism and interruption --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(whole: Result, tmp_path: Path) -> None:
    assert_same(whole, rlis.run(DOUBLE.problem(), tmp_path / "again", **TINY))
    other = rlis.run(DOUBLE.problem(), tmp_path / "other", **{**TINY, "seed": 4})
    assert other.rate.value != whole.rate.value


def test_resume_after_a_failure_at_every_stage_equals_uninterrupted(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.open(whole.directory)
    n_writes = sum(len(run.rounds(stage)) for stage in run.stages())
    assert {"flux", "start", "learning", "plan", "production"} == set(run.stages())
    write = RunDirectory.write_round
    directory = tmp_path / "run"
    for n in range(1, n_writes + 1):
        calls = 0

        def once(self: RunDirectory, *args: Any, **kwargs: Any) -> None:
            nonlocal calls
            if calls:
                raise KilledError
            write(self, *args, **kwargs)
            calls += 1

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "write_round", once)
            if n < n_writes:
                with pytest.raises(KilledError):
                    start_or_resume(directory)
                continue
            result = start_or_resume(directory)
    assert_same(whole, result)


def start_or_resume(directory: Path) -> Result:
    if (directory / "manifest.json").exists():
        return rlis.resume(directory, DOUBLE.problem())
    return rlis.run(DOUBLE.problem(), directory, **TINY)


def test_resuming_a_finished_run_changes_nothing(whole: Result, tmp_path: Path) -> None:
    before = fingerprint(whole)
    again = rlis.resume(whole.directory, DOUBLE.problem())
    assert fingerprint(again) == before


def test_a_value_function_that_was_deleted_is_written_again(whole: Result, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(whole.directory, copied)
    (copied / "value.pt").unlink()
    resumed = rlis.resume(copied, DOUBLE.problem())
    assert_same(resumed, whole)
    x = DOUBLE.problem().positions[None]
    np.testing.assert_array_equal(resumed.value.log_value(x), whole.value.log_value(x))


def test_resuming_with_a_better_target_goes_on(tmp_path: Path) -> None:
    first = rlis.run(DOUBLE.problem(), tmp_path / "run", **{**TINY, "target_relative_error": 0.2})
    n, time_before = first.n_rounds, first.totals.time.sum()
    more = rlis.resume(tmp_path / "run", DOUBLE.problem(), target_relative_error=0.2 * first.rate.relative_error / 0.25)
    assert more.n_rounds > n and more.totals.time.sum() > time_before


CHILD = """
import sys
sys.path[:0] = {tests!r}
import pytest
from short_training import shorten, short_training  # noqa: F401  a fixture of all tests here
from test_run import start_or_resume
from pathlib import Path
shorten(pytest.MonkeyPatch())
start_or_resume(Path({directory!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_at_random_moments_equals_uninterrupted(whole: Result, tmp_path: Path, seed: int) -> None:
    directory, rng = tmp_path / "run", np.random.default_rng(with_offset(seed))
    code = CHILD.format(tests=FOLDERS, directory=str(directory))
    kills = 0
    for _ in range(60):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(directory, child)
        time.sleep(rng.uniform(0.0, 0.6))
        if child.poll() is None and kills < 8:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        _, errors = child.communicate()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL, errors.decode()
    assert kills >= 1
    assert_same(whole, rlis.load(directory))
    assert RunDirectory.open(directory).verify() == []


def wait_for(directory: Path, child: subprocess.Popen[bytes]) -> None:
    """Wait until the child writes its log: imports take seconds and are no part of the run."""
    log = directory / "log.jsonl"
    before = log.stat().st_size if log.exists() else 0
    while child.poll() is None and not (log.exists() and log.stat().st_size > before):
        time.sleep(0.01)


@pytest.mark.slow
def test_two_workers_run_and_repeat(tmp_path: Path) -> None:
    found = [rlis.run(DOUBLE.problem(), tmp_path / name, workers=2, **TINY) for name in ("a", "b")]
    assert_same(*found)
    exact = DOUBLE.chain.endless.rate
    assert abs(found[0].rate.value - exact) < 6.0 * found[0].rate.standard_error
    first = rlis.resume(tmp_path / "a", DOUBLE.problem(), target_relative_error=0.08, workers=1)
    second = rlis.resume(tmp_path / "b", DOUBLE.problem(), target_relative_error=0.08)
    assert first.rate == second.rate  # the number of workers at resume changes no number


# --- (3) limits and messages ------------------------------------------------------------------------------------------


def test_a_limit_before_production_leaves_a_valid_partial_result(tmp_path: Path) -> None:
    result = rlis.run(DOUBLE.problem(), tmp_path / "run", **TINY, max_force_evaluations=1)
    assert result.stopped == "max_force_evaluations"
    assert math.isnan(result.rate.value) and math.isinf(result.rate.standard_error)
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["rounds"] == 0 and stored["stopped"] == "max_force_evaluations"
    assert len(rlis.load(tmp_path / "run").paths) == 0
    more = rlis.resume(tmp_path / "run", DOUBLE.problem(), max_force_evaluations=10**9)
    assert more.stopped == "target"


def test_a_limit_on_evaluations_is_kept_in_production(whole: Result, tmp_path: Path) -> None:
    limit = 2 * whole.cost["force_evaluations"]["total"]
    options = {**TINY, "target_relative_error": 0.001, "max_force_evaluations": limit}
    result = rlis.run(DOUBLE.problem(), tmp_path / "run", **options)
    assert result.stopped == "max_force_evaluations"
    assert result.n_rounds >= 1 and result.rate.value > 0.0 and math.isfinite(result.rate.standard_error)
    assert result.cost["force_evaluations"]["total"] < 1.5 * limit  # a round that was begun is finished


def test_a_limit_on_seconds_stops_the_run(tmp_path: Path) -> None:
    result = rlis.run(DOUBLE.problem(), tmp_path / "a", **TINY, max_seconds=1e-6)
    assert result.stopped == "max_seconds" and math.isnan(result.rate.value)
    result = rlis.run(DOUBLE.problem(), tmp_path / "b", **{**TINY, "target_relative_error": 0.001}, max_seconds=4.0)
    assert result.stopped == "max_seconds" and result.cost["seconds"] < 30.0


@pytest.mark.parametrize("stage", ["start", "flux", "learning"])
def test_a_stage_before_production_is_broken_off_and_repeated(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """A clock that leaps a day ahead in the middle of a stage; the resumed run knows nothing of it."""
    leap, propagate = 0.0, Engine._propagate

    def slow(engine: Engine, positions: Any, kind: Any) -> Any:
        nonlocal leap
        stored = RunDirectory.open(tmp_path / "run").stages()
        leap = 86_400.0 if stored == {"start": [], "flux": ["start"], "learning": ["flux", "start"]}[stage] else leap
        return propagate(engine, positions, kind)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_propagate", slow)
        patch.setattr("openmm_rlis.dynamics.engine.time.monotonic", lambda clock=time.monotonic: clock() + leap)
        broken = rlis.run(DOUBLE.problem(), tmp_path / "run", **TINY, max_seconds=3600.0)
    assert broken.stopped == "max_seconds" and math.isnan(broken.rate.value)
    resumed = rlis.resume(tmp_path / "run", DOUBLE.problem(), max_seconds=1e6)
    assert resumed.rate == whole.rate and resumed.stopped == whole.stopped


def test_brute_is_repeated_and_resumed_to_the_last_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = double_well(1.5, source=(-9.0, -0.2), target=(0.3, 9.0)).problem()
    options: dict[str, Any] = {"seed": 2, "max_force_evaluations": 12_000_000, "target_relative_error": 0.001}
    first = brute(problem, tmp_path / "a", **options)
    assert first.stopped == "max_force_evaluations" and first.n_rounds >= 1
    write, calls = RunDirectory.write_round, 0

    def twice(self: RunDirectory, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KilledError
        write(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_round", twice)
        with pytest.raises(KilledError):
            brute(problem, tmp_path / "b", **options)
    lost = rlis.load(tmp_path / "b").cost["force_evaluations"]["broken_off"]  # which counts, also against the limit
    assert lost == 64 * 8 * 1000 * problem.lag_steps
    assert_same(first, rlis.resume(tmp_path / "b", problem, max_force_evaluations=12_000_000 + lost))


def test_brute_uses_workers_and_resumes_with_any_number_of_them(tmp_path: Path) -> None:
    problem = double_well(1.5, source=(-9.0, -0.2), target=(0.3, 9.0)).problem()
    options: dict[str, Any] = {"seed": 2, "target_relative_error": 0.001, "workers": 2}
    with_two = brute(problem, tmp_path / "a", max_force_evaluations=24_000_000, **options)
    assert with_two.n_rounds >= 2
    brute(problem, tmp_path / "b", max_force_evaluations=12_000_000, **options)
    assert_same(with_two, rlis.resume(tmp_path / "b", problem, max_force_evaluations=24_000_000, workers=1))


def test_a_run_with_an_alarm_goes_on_to_half_of_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    options = {**TINY, "target_relative_error": 0.2}
    good = rlis.run(DOUBLE.problem(), tmp_path / "good", **options)
    assert not good.diagnostics["alarms"] and good.rate.relative_error <= 0.2
    monkeypatch.setattr(Result, "checks", [Diagnostic("tail_index", 1.0, "at most 0.7", "made up for this test")])
    doubtful = rlis.run(DOUBLE.problem(), tmp_path / "doubtful", **options, progress=told.append)
    assert doubtful.stopped == "target" and doubtful.rate.relative_error <= 0.1
    n = good.n_rounds
    assert doubtful.n_rounds > n  # the same rounds, and more of them
    np.testing.assert_array_equal(doubtful._production.transitions[:n], good._production.transitions)
    assert "continues to an error of 0.1" in " ".join(p.message for p in told)


def test_progress_tells_every_stage(tmp_path: Path) -> None:
    told: list[Progress] = []
    rlis.run(DOUBLE.problem(), tmp_path / "run", **{**TINY, "target_relative_error": 0.3}, progress=told.append)
    stages = [p.stage for p in told]
    assert stages[0] == "start" and stages[-1] == "done"
    assert {"flux", "start", "learning", "plan", "production", "done"} <= set(stages)
    costs = [p.force_evaluations for p in told]
    assert costs == sorted(costs)
    assert "k about" in " ".join(p.message for p in told)


def test_a_given_value_skips_the_cold_start_and_is_not_changed(whole: Result, tmp_path: Path) -> None:
    problem = DOUBLE.problem()
    value = Result(RunDirectory.open(whole.directory), problem).value
    before = {k: v.copy() for k, v in value.arrays().items()}
    result = rlis.run(problem, tmp_path / "run", **TINY, value=value)
    assert RunDirectory.open(tmp_path / "run").rounds("start") == []
    assert all(np.array_equal(before[k], v) for k, v in value.arrays().items())
    assert abs(result.rate.value - DOUBLE.chain.endless.rate) < 6.0 * result.rate.standard_error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_relative_error": 0.0}, "target_relative_error: expected a number between 0 and 1"),
        ({"max_seconds": -1.0}, "max_seconds: expected a positive number"),
        ({"max_force_evaluations": 0}, "max_force_evaluations: expected a positive number"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"seed": 1.5}, "seed: expected a whole number"),
        ({"workers": 0}, "workers: expected a whole number, 1 or more"),
        ({"platform": "Abacus"}, "platform: expected one of"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        rlis.run(DOUBLE.problem(), tmp_path / "run", **{**TINY, **options})
    assert not (tmp_path / "run").exists()


def test_an_occupied_directory_is_refused(whole: Result) -> None:
    with pytest.raises(InputError):
        rlis.run(DOUBLE.problem(), whole.directory, **TINY)


def test_resume_asks_for_the_problem_and_knows_another(whole: Result) -> None:
    with pytest.raises(InputError, match="problem: expected the Problem that the run was started with"):
        rlis.resume(whole.directory)
    with pytest.raises(InputError, match="another"):
        rlis.resume(whole.directory, TRIPLE.problem())

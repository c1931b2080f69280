"""Limits and costs: looked at in every stage, kept when a process is killed, and told all the while.

Counts are exact, so these tests compare whole numbers; seconds are never compared with a clock but with a bound.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from short_training import short_training, shorten  # noqa: F401  a fixture of all tests here
from systems_1d import double_well, packaged_double_well

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.config.settings import Settings
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.errors import InputError
from openmm_rlis.learning.planning import Plan
from openmm_rlis.results.result import Result
from openmm_rlis.sampling import progress, stopping
from openmm_rlis.sampling.progress import Progress
from openmm_rlis.sampling.run import brute
from openmm_rlis.storage import status
from openmm_rlis.storage.cost_meter import SPENT, LimitError, Meter, active, beat, damaged, spent
from openmm_rlis.walks.workers import make_executor

LINE = double_well(4.0, 0.5)
SETTINGS = Settings(n_batches=8, replicas=4, learning_rounds=2, learning_roots=40, n_slots=64)
FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
TINY: dict[str, Any] = {"seed": 3, "target_relative_error": 0.3, "settings": SETTINGS}


def cost_of(result: Result) -> dict[str, int]:
    found = json.loads((result.directory / "result.json").read_text())["cost"]["force_evaluations"]
    assert found["total"] == sum(count for name, count in found.items() if name != "total")
    return dict(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return rlis.run(LINE.problem(), tmp_path_factory.mktemp("limits") / "run", **TINY)


# --- the meter --------------------------------------------------------------------------------------------------------


def test_counts_of_all_starts_add_up_and_a_changed_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / SPENT
    for n in (10, 20):
        meter = Meter(folder)
        with active(meter):
            meter.spend(n)
        meter.close()
    assert spent(folder)[0] == 30 and Meter(folder).evaluations == 30 and damaged(folder) == []
    assert Meter(folder, recorded=(100, 5.0)).evaluations == 100  # a run from before there were meters
    one = sorted(folder.iterdir())[0]
    one.write_bytes(one.read_bytes().replace(b"10", b"99", 1))
    assert spent(folder)[0] == 20 and damaged(folder) == [f"{one} is damaged or was changed"]


def test_a_meter_refuses_what_would_go_beyond_a_limit(tmp_path: Path) -> None:
    meter = Meter(tmp_path / SPENT)
    meter.most_evaluations = 10
    meter.spend(9)
    with pytest.raises(LimitError, match="max_force_evaluations"):
        meter.spend(2)
    assert meter.evaluations == 9
    meter.deadline = time.monotonic() - 1.0
    with active(meter), pytest.raises(LimitError, match="max_seconds"):
        beat()
    meter.lift()
    meter.spend(1_000_000)
    beat()  # no meter is active: nothing happens


def test_without_anything_spent_nothing_is_written(tmp_path: Path) -> None:
    meter = Meter(tmp_path / SPENT)
    meter.close()
    assert list(tmp_path.iterdir()) == [] and spent(tmp_path / SPENT) == (0, 0.0)


# --- limits in every stage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.85])
def test_evaluations_stay_within_the_limit_whatever_the_stage(whole: Result, tmp_path: Path, share: float) -> None:
    limit = int(share * cost_of(whole)["total"])
    told: list[Progress] = []
    result = rlis.run(LINE.problem(), tmp_path / "run", **TINY, max_force_evaluations=limit, progress=told.append)
    assert result.stopped == "max_force_evaluations" and cost_of(result)["total"] <= limit
    counts = [one.force_evaluations for one in told]
    assert counts == sorted(counts) and counts[-1] == cost_of(result)["total"]
    state = status.status(tmp_path / "run")[""]
    assert state["force_evaluations"] == counts[-1] and state["seconds"] == pytest.approx(told[-1].seconds, abs=0.2)
    if result.n_rounds == 0:
        assert any("no production round was finished" in line for line in result.diagnostics["alarms"])
        assert "no rate: no production round was finished" in told[-1].message
    more = rlis.resume(tmp_path / "run", LINE.problem(), max_force_evaluations=10**9)
    assert more.stopped == "target" and more.diagnostics["alarms"] == []
    assert cost_of(more)["total"] >= counts[-1] + cost_of(more)["production"] * (result.n_rounds == 0)


def test_brute_force_does_not_begin_a_round_that_does_not_fit(tmp_path: Path) -> None:
    limit = 2_500_000  # a round takes 2.56e6
    result = brute(LINE.problem(), tmp_path / "run", seed=2, max_force_evaluations=limit)
    assert result.n_rounds == 0 and 0 < cost_of(result)["total"] <= limit
    assert any("there is no rate" in line for line in result.diagnostics["alarms"])


def test_seconds_are_looked_at_in_training_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clock that leaps when training begins, in the start: nothing is moved after that."""
    from openmm_rlis.learning import learning_rounds

    leap, clock, train = 0.0, time.monotonic, learning_rounds.train

    def late(*arguments: Any, **more: Any) -> float:
        nonlocal leap
        leap = 1e6
        return train(*arguments, **more)

    monkeypatch.setattr(learning_rounds, "train", late)
    monkeypatch.setattr("time.monotonic", lambda: clock() + leap)
    result = rlis.run(LINE.problem(), tmp_path / "run", **TINY, max_seconds=1e5)
    assert result.stopped == "max_seconds" and rlis.load(tmp_path / "run")._run.stages() == []
    assert cost_of(result)["broken_off"] == cost_of(result)["total"] > 0


def test_a_plan_is_cut_to_what_is_left() -> None:
    plan = Plan(flux_lags=100, n_roots=50, frames_per_root=1.0, evaluations_per_root=1000.0, ready_rounds=1)
    assert plan.fitting(SETTINGS, 5, math.inf) is plan
    for left in (300_000.0, 40_000.0):
        cut = plan.fitting(SETTINGS, 5, left)
        assert cut is not None and cut.n_roots < 50 and cut.evaluations(SETTINGS, 5, range(1)) <= left
        assert left - cut.evaluations(SETTINGS, 5, range(1)) < SETTINGS.n_batches * 1000.0
    assert plan.fitting(SETTINGS, 5, 8_000.0) is None


# --- what was spent is never forgotten --------------------------------------------------------------------------------


class KilledError(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("after", [3_000, 500_000])
def test_a_stage_that_is_broken_off_stays_in_the_cost(
    whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        move = Engine._propagate

        def kill(engine: Engine, *arguments: Any) -> Any:
            if engine.meter is not None and engine.meter.evaluations > after:
                raise KilledError
            return move(engine, *arguments)

        patch.setattr(Engine, "_propagate", kill)
        with pytest.raises(KilledError):
            rlis.run(LINE.problem(), tmp_path / "run", **TINY)
    before = spent(tmp_path / "run" / SPENT)[0]
    assert before > after and rlis.load(tmp_path / "run").cost["force_evaluations"]["total"] == before
    assert status.status(tmp_path / "run")[""]["force_evaluations"] == before
    told: list[Progress] = []
    result = rlis.resume(tmp_path / "run", LINE.problem(), progress=told.append)
    assert min(one.force_evaluations for one in told) >= before
    assert result.rate == whole.rate  # the numbers are those of a run that was not killed
    lost = cost_of(result).pop("broken_off")
    assert cost_of(result)["total"] == cost_of(whole)["total"] + lost and 0 < lost <= before
    assert result.damaged() == []


KILLED = """
import sys
sys.path[:0] = {tests!r}
from test_limits import LINE, TINY
import openmm_rlis as rlis
rlis.run(LINE.problem(), {directory!r}, **{{**TINY, "target_relative_error": 0.001}})
"""


@pytest.mark.slow
def test_what_a_killed_process_spent_is_known_to_a_second(tmp_path: Path) -> None:
    code = KILLED.format(tests=FOLDERS, directory=str(tmp_path / "run"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as child:
        begun = time.monotonic()
        while spent(tmp_path / "run" / SPENT)[0] == 0 and time.monotonic() - begun < 120.0:
            time.sleep(0.05)
        time.sleep(3.0)
        os.kill(child.pid, signal.SIGKILL)
    counted = spent(tmp_path / "run" / SPENT)[0]
    assert counted > 0 and status.status(tmp_path / "run")[""]["force_evaluations"] >= counted
    assert rlis.load(tmp_path / "run").cost["force_evaluations"]["total"] >= counted


# --- silence ----------------------------------------------------------------------------------------------------------


def test_the_run_speaks_when_nothing_happens(whole: Result, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a beat at every chance: the same numbers, the stage that was told last, and a cost that grows."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_BEATS", 0.0)
    told: list[Progress] = []
    result = rlis.run(LINE.problem(), tmp_path / "run", **TINY, progress=told.append)
    assert result.rate == whole.rate
    for stage in ("start", "flux", "learning", "production"):
        counts = [one.force_evaluations for one in told if one.stage == stage and not one.message]
        assert len(set(counts)) > 20 and counts == sorted(counts)
    lines = [line for line in result._run.read_log() if line["event"] == "progress"]
    assert len(lines) == len(told)


def spend_here(items: Sequence[int]) -> list[int]:
    from openmm_rlis.storage.cost_meter import current

    meter = current()
    assert meter is not None
    for _ in range(30):
        meter.spend(100)
        time.sleep(0.1)
    meter.note("seen in a worker")
    return list(items)


@pytest.mark.slow
def test_what_workers_spend_and_say_is_known_here(tmp_path: Path) -> None:
    meter = Meter(tmp_path / SPENT)
    seen: list[int] = []
    said: list[str] = []
    meter.on_beat, meter.on_note = lambda: seen.append(meter.evaluations), said.append
    with active(meter), make_executor(2, meter) as executor:
        assert executor.map(spend_here, range(2)) == [0, 1]
        assert meter.evaluations == 6_000 and said == ["seen in a worker"] * 2
        assert any(0 < count < 6_000 for count in seen) and seen == sorted(seen)
        meter.most_evaluations = 9_000
        with pytest.raises(LimitError, match="max_force_evaluations"):
            executor.map(spend_here, range(2))
    assert 9_000 - 400 < meter.evaluations <= 9_000 + 4_000  # others' counts are a second old


# --- a run without a rate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [0, 1])
def test_the_guess_is_called_a_guess(
    rounds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that no round of production fits into: of the right size from learning, and never called a rate."""
    monkeypatch.setattr(Plan, "fitting", lambda *_: None)
    numbers = {"n_batches": 8, "replicas": 4, "learning_rounds": rounds, "learning_roots": 40}
    words = [f"--set=settings.{name}={number}" for name, number in numbers.items()]
    status = cli.execute(["run", "double_well", *words, "--max-evals", "1e12", "--out", str(tmp_path / "run")])
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    source = stored["guess"]["source"]
    assert source.startswith("learning ") if rounds else source == "splitting"
    assert status == 3 and stored["rate"]["value"] is None and stored["rounds"] == 0
    assert f"no rate: no production round was finished; a guess without an error bar, from {source}" in (
        capsys.readouterr().out
    )
    exact = packaged_double_well().chain.endless.rate
    assert 0.1 < stored["guess"]["value"] / exact < 10.0
    assert stored["stopped"] == "max_force_evaluations"


def test_verify_says_when_it_verified_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["run", "double_well", "--max-evals", "1000", "--out", str(tmp_path / "run")]) == 3
    assert "no rate" in capsys.readouterr().out
    assert cli.execute(["verify", str(tmp_path / "run")]) == 1
    assert "there is no rate" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_verify_of_checks_that_cannot_tell_is_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from openmm_rlis.cli import commands
    from openmm_rlis.validation import checks as verify

    assert cli.execute(["run", "double_well", "--max-evals", "1000", "--out", str(tmp_path / "run")]) == 3
    checks = [verify.Check("every checksum is right", "pass", ""), verify.Check("other", "could not tell", "")]
    monkeypatch.setattr(verify, "check_records", lambda result: iter(checks))
    assert commands.verify(tmp_path / "run", simulate=False) == 3
    checks.append(verify.Check("another", "pass", ""))
    assert commands.verify(tmp_path / "run", simulate=False) == 0


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["target_relative_error", "max_force_evaluations", "max_seconds"])
@pytest.mark.parametrize("bad", [0, -1.0, math.nan, "5", True, [1]])
def test_a_limit_that_is_none_is_refused_everywhere(whole: Result, tmp_path: Path, limit: str, bad: Any) -> None:
    before = sorted(path.stat().st_mtime_ns for path in whole.directory.rglob("*"))
    for act in (
        lambda: rlis.resume(whole.directory, LINE.problem(), **{limit: bad}),
        lambda: rlis.run(LINE.problem(), tmp_path / "run", **{**TINY, limit: bad}),
        lambda: brute(LINE.problem(), tmp_path / "run", **{limit: bad}),
        lambda: stopping.Goal(**{"target_relative_error": 0.1, limit: bad}),
    ):
        with pytest.raises(InputError, match=f"{limit}: expected a (positive )?number"):
            act()
    assert not (tmp_path / "run").exists()
    assert before == sorted(path.stat().st_mtime_ns for path in whole.directory.rglob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {}}, "settings: expected openmm_rlis.Settings"),
        ({"settings": {"n_batches": 4}}, "settings: expected openmm_rlis.Settings"),
        ({"workers": "2"}, "workers: expected a whole number, 1 or more, got '2'"),
        ({"workers": 1.5}, "workers: expected a whole number"),
        ({"workers": True}, "workers: expected a whole number"),
        ({"value": "value.pt"}, "value: expected an openmm_rlis ValueFunction"),
        ({"platform": 3}, "platform: expected the name of an OpenMM platform"),
        ({"progress": "print"}, "progress: expected a function of a Progress"),
        ({"seed": "1"}, "seed: expected a whole number"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        rlis.run(LINE.problem(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_other_things_than_a_problem_or_a_path_are_named(tmp_path: Path, whole: Result) -> None:
    anything: Any = "lj7"
    for act in (lambda: rlis.run(anything, tmp_path / "run"), lambda: brute(anything, tmp_path / "run")):
        with pytest.raises(InputError, match=r"problem: expected an openmm_rlis\.Problem, got 'lj7'"):
            act()
    with pytest.raises(InputError, match="directory: expected a path"):
        rlis.run(LINE.problem(), 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="workers: expected a whole number"):
        rlis.resume(whole.directory, LINE.problem(), workers=0)


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in its background
sys.path[:0] = {tests!r}
from openmm_rlis import cli
sys.exit(cli.execute(["run", "mueller_brown", "--workers", "2", "--out", {directory!r}]))
"""


@pytest.mark.slow
def test_an_interrupt_with_workers_prints_no_traceback(tmp_path: Path) -> None:
    """As a terminal does: the signal goes to every process of the group."""
    code = INTERRUPTED.format(tests=FOLDERS, directory=str(tmp_path / "run"))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    begun = time.monotonic()
    while len(spent_files(tmp_path / "run")) < 2 and time.monotonic() - begun < 120.0:  # a worker counts
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 130 and "Traceback" not in out and "KeyboardInterrupt" not in out, out
    assert "continue with: rlis resume" in out


def spent_files(run: Path) -> list[Path]:
    folder = run / SPENT
    return list(folder.iterdir()) if folder.is_dir() else []


def test_old_runs_keep_their_cost(whole: Result, tmp_path: Path) -> None:
    """A run directory from before there were meters, resumed for a better target."""
    import shutil

    shutil.copytree(whole.directory, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / SPENT)
    better = 0.5 * whole.rate.relative_error
    more = rlis.resume(tmp_path / "run", LINE.problem(), target_relative_error=better)
    cost = cost_of(more)
    assert cost["broken_off"] == 0 and cost["total"] > cost_of(whole)["total"]
    assert np.isfinite(more.rate.value)

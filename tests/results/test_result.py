"""Result: what a run directory says, with and without torch, and alarms on crafted records.

The only stochastic assert is on kept failures: 8 batches of 4 runs, Student |t| < 5.2 (false alarm 1e-5).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
from scipy import stats
from seeds import with_offset
from short_training import shorten
from systems_1d import double_well

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.errors import InputError
from openmm_rlis.paths.ensemble import PathEnsemble
from openmm_rlis.problem import SOURCE
from openmm_rlis.results.result import Result
from openmm_rlis.statistics import estimators
from openmm_rlis.storage.run_directory import RunDirectory

LINE = double_well(4.0, 0.5)
SETTINGS = Settings(n_batches=8, replicas=4, learning_rounds=1, learning_roots=200, n_slots=64, failure_share=0.2)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    directory = tmp_path_factory.mktemp("result") / "run"
    return rlis.run(LINE.problem(), directory, seed=2, target_relative_error=0.15, settings=SETTINGS)


# --- paths ------------------------------------------------------------------------------------------------------------


def test_weights_of_success_paths_sum_to_the_transitions(result: Result) -> None:
    """To the last digit, once what the control variate took is added again."""
    paths, stored = result.paths, result._production
    taken = np.bincount(stored.root_batches, stored.root_control, minlength=8)
    assert (taken != 0.0).all()
    won = paths.success()
    by_batch = np.bincount(won.batches, won.weights, minlength=8)
    assert by_batch == pytest.approx(result.totals.transitions + taken, rel=1e-12)
    assert len(won) + len(paths.failures()) == len(paths)
    reported = won.weights.sum() - taken.sum()
    assert reported / result.totals.time.sum() == pytest.approx(result.rate.value, rel=1e-12)


def test_paths_run_from_a_to_their_end_in_time(result: Result) -> None:
    problem, paths = LINE.problem(), result.paths
    for i in range(min(len(paths), 300)):
        frames, times = np.asarray(paths.positions(i), dtype=float), paths.times(i)
        assert times[0] == 0.0 and (np.diff(times) > 0).all()
        lags = times / problem.lag_time
        assert lags == pytest.approx(np.round(lags), abs=1e-6)
        # stored as float32: the first and last frame may only leave their region by rounding
        codes = problem.label(frames)
        assert codes[0] == SOURCE and codes[-1] == paths.labels[i]
        assert (codes[1:-1] == 0).all()
        assert paths.durations()[i] == pytest.approx(times[-1])


def test_kept_failures_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All exits end somewhere: kept failures and successes together weigh n_exits * ended, on average."""
    shorten(monkeypatch)
    differences = []
    for i in range(4):
        run = rlis.run(
            LINE.problem(), tmp_path / str(i), seed=with_offset(i), target_relative_error=0.3, settings=SETTINGS
        )
        store = RunDirectory.open(run.directory)
        arrays = [store.read_round("production", n).arrays for n in store.rounds("production")]
        ended = sum(a["ended"] * a["exits"] for a in arrays)
        weights = np.bincount(run.paths.batches, run.paths.weights, minlength=8)
        differences.append((weights - ended) / run.totals.exits)
    found = np.concatenate(differences)
    assert found.std() > 0.0
    assert abs(found.mean()) < 5.2 * found.std(ddof=1) / np.sqrt(len(found))


def test_mdtraj_reads_the_stored_paths(result: Result) -> None:
    paths = result.directory / "paths"
    files = sorted(paths.glob("*.dcd"))
    tree = result.paths.trees[0]
    loaded = mdtraj.load(str(files[0]), top=str(paths / "topology.pdb"))
    assert loaded.n_frames == tree.n_frames
    assert loaded.xyz == pytest.approx(np.asarray(tree.positions[:]), abs=1e-6)
    i = int(np.flatnonzero(result.paths.is_success)[0])
    one = result.paths.to_mdtraj(i)
    assert one.time == pytest.approx(result.paths.times(i)) and one.n_atoms == 1


def test_channels_sum_to_one(result: Result) -> None:
    """Slow and fast crossings, by the number of frames; a label may be anything hashable."""
    shares = result.channels(lambda frames: ("slow", True) if len(frames) > 5 else "fast")
    assert len(shares) == 2
    assert sum(s.value for s in shares.values()) == pytest.approx(1.0, rel=1e-12)
    won = result.paths.success()
    slow = np.array([len(won.positions(i)) > 5 for i in range(len(won))])
    assert shares["slow", True].value == pytest.approx(won.weights[slow].sum() / won.weights.sum(), rel=1e-12)
    assert result.channels(lambda frames: 0)[0].value == pytest.approx(1.0, rel=1e-12)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_estimates_belong_together(result: Result) -> None:
    assert result.rate.value == pytest.approx(result.flux.value * result.success_probability.value, rel=1e-12)
    assert result.mean_first_passage_time.value == pytest.approx(1.0 / result.rate.value, rel=1e-12)
    assert result.rate.n_batches == 8 and result.seed == 2 and result.stopped == "target"
    cost = result.cost["force_evaluations"]
    assert cost["total"] == cost["flux"] + cost["learning"] + cost["production"]


def test_result_json_is_what_the_result_says(result: Result) -> None:
    stored = json.loads((result.directory / "result.json").read_text())
    found = result.to_dict()
    assert stored["schema"] == 1 and stored["units"] == {"time": "ps"}
    assert stored["rate"] == found["rate"] and stored["flux"] == found["flux"]
    assert stored["cost"]["force_evaluations"] == found["cost"]["force_evaluations"]
    assert {"system", "source", "target", "others", "beta", "diagnostics", "versions", "seed"} <= stored.keys()
    assert {"ess", "tail_index", "largest_root_share", "alarms"} <= stored["diagnostics"].keys()


def test_a_loaded_result_is_the_same(result: Result) -> None:
    loaded = rlis.load(result.directory)
    assert loaded.rate == result.rate and loaded.diagnostics["alarms"] == result.diagnostics["alarms"]
    with pytest.raises(InputError, match="problem"):
        _ = loaded.value
    again = rlis.load(result.directory, LINE.problem()).value
    x = np.zeros((3, 1, 3))
    x[:, 0, 0] = [-1.0, 0.0, 1.0]
    assert np.array_equal(again.log_value(x), result.value.log_value(x))
    assert again.committor(x, LINE.problem())[[0, 2]].tolist() == [0.0, 1.0]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "openmm", "openmmtorch", "simtk"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import json
from openmm_rlis.results.result import load
r = load(sys.argv[1])
k = r.channels(lambda frames: len(frames) > 5)
p = r.paths
r.success_probability, r.mean_first_passage_time, r.diagnostics, r.cost, r.to_dict()
shares = sum(e.value for e in k.values())
print(json.dumps([r.rate.value, r.flux.value, len(p), p.to_mdtraj(0).n_frames, shares, r.stopped]))
try:
    r.value
except ImportError as error:
    assert "blocked" in str(error)
else:
    raise SystemExit("value needs torch")
"""


def test_results_open_without_torch_and_openmm(result: Result) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED, str(result.directory)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found[0] == result.rate.value and found[2] == len(result.paths) and found[5] == "target"
    assert found[4] == pytest.approx(1.0)


# --- diagnostics on crafted records -----------------------------------------------------------------------------------


@dataclass
class Crafted:
    """Writes production rounds by hand."""

    directory: Path
    n_batches: int = 8

    def result(self, weights: np.ndarray, ended: float | np.ndarray = 1.0, taken: float | np.ndarray = 0.0) -> Result:
        """Root weights of one round (n_batches, n_roots), or of several (n_rounds, n_batches, n_roots)."""
        config = {"settings": {"n_batches": self.n_batches, "failure_share": 1.0}, "seed": 1, "lag_time": 1.0}
        xml = '<System type="System" version="1"><Particles><Particle mass="1"/></Particles></System>'
        rng = np.random.default_rng(1)
        n = self.n_batches
        with RunDirectory.create(self.directory, config, xml) as run:
            for index, one in enumerate(np.atleast_3d(weights.T).T):
                arrays = {
                    "transitions": one.sum(1) - taken, "exits": np.full(n, 100.0) + rng.integers(0, 9, n),
                    "time": np.full(n, 10.0), "ended": np.asarray(ended) + rng.normal(0.0, 0.01, n),
                    "root_weights": one.ravel(), "root_batches": np.repeat(np.arange(n), one.shape[1]),
                    "root_control": np.repeat(taken / one.shape[1] * np.ones(n), one.shape[1]),
                    "root_defensive": np.arange(one.size) % 4 == 0,
                }  # fmt: skip
                run.write_round("production", index, arrays, {})
        return Result(RunDirectory.open(self.directory))


def test_quiet_records_raise_no_alarm(tmp_path: Path) -> None:
    found = Crafted(tmp_path / "run").result(np.random.default_rng(2).uniform(0.5, 1.5, (8, 100))).diagnostics
    assert found["alarms"] == [] and found["ess"] > 700 and found["tail_index"] < 0.5


def test_heavy_tails_raise_an_alarm(tmp_path: Path) -> None:
    """Pareto weights of index 1.2 have no mean."""
    weights = np.random.default_rng(3).random((8, 400)) ** -1.2
    found = Crafted(tmp_path / "run").result(weights).diagnostics
    assert found["tail_index"] > 0.7 and any("tail index" in line for line in found["alarms"])


def test_one_root_or_batch_that_carries_the_sum_raises_an_alarm(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).uniform(0.5, 1.5, (8, 100))
    weights[3, 5] = weights.sum()
    found = Crafted(tmp_path / "run").result(weights).diagnostics
    assert found["largest_root_share"] == pytest.approx(0.5, abs=0.01)
    assert any("one root contributes" in line for line in found["alarms"])
    assert any("one batch of 8 contributes" in line for line in found["alarms"])


def test_a_lost_norm_is_called_a_bug(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).uniform(0.5, 1.5, (8, 100))
    alarms = Crafted(tmp_path / "run").result(weights, ended=0.8).diagnostics["alarms"]
    assert len(alarms) == 1 and "instead of 1" in alarms[0]


def test_a_batch_without_exits_has_no_say_in_the_norm(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).uniform(0.5, 1.5, (8, 100))
    ended = np.where(np.arange(8) == 2, np.nan, 1.0)
    result = Crafted(tmp_path / "run").result(weights, ended)
    assert result.ended.n_batches == 7 and result.ended.value == pytest.approx(1.0, abs=0.05)


def test_no_transition_is_said_and_bounded(tmp_path: Path) -> None:
    result = Crafted(tmp_path / "run").result(np.zeros((8, 20)))
    assert result.rate.value == 0.0 and math.isinf(result.rate.standard_error)
    assert any("no transition was observed" in line for line in result.diagnostics["alarms"])


def test_a_control_variate_larger_than_what_arrived_is_no_crash(tmp_path: Path) -> None:
    """By chance the rate of a run with hardly an arrival may be negative; its interval bounds it from above."""
    weights, taken = np.zeros((8, 20)), np.random.default_rng(4).normal(1.0, 3.0, 8)
    weights[2, 3] = 0.5
    result = Crafted(tmp_path / "run").result(weights, taken=taken)
    assert result.rate.value == pytest.approx((0.5 - taken.sum()) / 80.0) and result.rate.value < 0.0
    assert result.rate.interval[0] == 0.0 < result.rate.interval[1] and result.rate.relative_error > 0.1
    waiting = result.mean_first_passage_time
    assert math.isnan(waiting.value) and waiting.interval == (1.0 / result.rate.interval[1], math.inf)
    assert "rate -" in repr(result)
    json.dumps([result.rate.to_dict(), waiting.to_dict()], allow_nan=False)


@pytest.mark.parametrize("vary", ["rounds", "batches"])
def test_the_error_is_the_larger_of_two(tmp_path: Path, vary: str) -> None:
    """Sums per batch that agree better than their rounds allow are chance; rounds may hide that batches differ."""
    weights = np.ones((2, 8, 5))
    signs = np.where(np.arange(8) % 2 == 0, 0.5, -0.5)[:, None]
    weights += np.stack([signs, -0.9 * signs]) if vary == "rounds" else signs
    result = Crafted(tmp_path / "run").result(weights)
    apart = weights.sum(2).std(ddof=1) / 4.0 / weights.sum(2).mean()  # sixteen rounds of batches
    batches = estimators.rate(result.totals).relative_error
    assert result.rate.relative_error == pytest.approx(apart if vary == "rounds" else batches, rel=1e-12)
    assert (batches < 0.1 * apart) == (vary == "rounds")
    low, high = result.rate.interval
    assert np.log(high / low) == pytest.approx(2.0 * stats.t.ppf(0.975, 7) * result.rate.relative_error)
    assert result.rate_history["standard_error"][-1] == pytest.approx(result.rate.standard_error)


def test_a_run_without_production_is_valid(tmp_path: Path) -> None:
    config: dict[str, Any] = {"settings": {"n_batches": 4, "failure_share": 0.1}, "seed": 1, "lag_time": 1.0}
    xml = '<System type="System" version="1"><Particles><Particle mass="1"/></Particles></System>'
    with RunDirectory.create(tmp_path / "run", config, xml):
        pass
    result = Result(RunDirectory.open(tmp_path / "run"))
    assert math.isnan(result.rate.value) and math.isinf(result.rate.standard_error) and result.rate.n_batches == 4
    assert result.stopped == "running" and result.n_rounds == 0
    assert isinstance(result.paths, PathEnsemble) and len(result.paths) == 0
    assert result.channels(len) == {} and math.isnan(result.diagnostics["ess"])
    with pytest.raises(InputError, match="value: expected a run that has learned"):
        _ = result.value

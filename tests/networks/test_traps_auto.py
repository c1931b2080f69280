"""Traps that a run finds itself: the test for them, the run with them, and runs that have none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hidden_well import hidden
from numpy.typing import NDArray

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.config import build_problem
from openmm_rlis.config.run_config import RunConfig
from openmm_rlis.errors import TrapFound
from openmm_rlis.networks.network import Plan, auto
from openmm_rlis.networks.states import OwnStates, RegionStates
from openmm_rlis.results.result import load
from openmm_rlis.sampling import run as sampler
from openmm_rlis.storage import cost_meter as meter
from openmm_rlis.storage import status
from openmm_rlis.systems import double_well, lj7
from openmm_rlis.walks.metastable import find
from openmm_rlis.walks.traps import Trap
from openmm_rlis.walks.workers import make_executor

Array = NDArray[np.float64]


def silent(*_: object) -> None:
    pass


def on_the_line(x: float, n: int = 20) -> Array:
    return np.tile([x, 0.0, 0.0], (n, 1, 1))


@pytest.mark.parametrize("depth", [1.0, 3.0, 15.0])
def test_walkers_in_a_well_are_in_a_trap(tmp_path: Path, depth: float) -> None:
    problem = build_problem.build(RunConfig.from_yaml(hidden(tmp_path, depth)))
    trap = find(problem, on_the_line(0.03), 1000)
    assert trap is not None
    assert abs(trap.center[0]) < 0.03
    sigma = (4.0 * np.pi**2 * 3.5 + 2.0 * depth / 0.04) ** -0.5
    assert sigma < trap.radius < 2.5 * sigma  # nine tenths of a normal distribution: 1.64
    same = find(problem, on_the_line(0.03), 1000)
    assert same is not None and np.array_equal(trap.values, same.values)


def test_walkers_on_a_transition_state_are_not() -> None:
    """They leave at once; and on a well that is held for less than L lags, they leave before."""
    assert find(double_well.build(), on_the_line(0.0), 1000) is None


def test_walkers_that_cross_a_plain_are_not(tmp_path: Path) -> None:
    """A plain of 1.7 nm, where a walker moves 0.06 nm a lag: half of them leave in the time that they take to mix."""
    path = hidden(tmp_path, 0.0)
    xml = tmp_path / "trap.xml"
    xml.write_text(xml.read_text().replace("3.5*(1-cos(6.283185307179586*x))", "0*x"))
    problem = build_problem.build(RunConfig.from_yaml(path))
    spread = np.zeros((64, 1, 3))
    spread[:, 0, 0] = np.linspace(-0.5, 0.5, 64)
    assert find(problem, spread, 100) is None


def test_a_trap_found_goes_from_process_to_process() -> None:
    trap = Trap(np.ones((2, 1)), np.ones(1), 0.1, 0.5, 0.5, np.zeros((1, 3)))

    def work(_: Sequence[int]) -> list[int]:
        raise TrapFound(trap)

    with make_executor(2) as executor, pytest.raises(TrapFound) as caught:
        executor.map(work, range(2))
    assert caught.value.trap.radius == trap.radius


def test_a_run_that_looks_for_traps_ends_at_the_first(tmp_path: Path) -> None:
    """Also with the same noise: the walk that is watched does not depend on it."""
    problem = build_problem.build(RunConfig.from_yaml(hidden(tmp_path, 3.0)))
    with meter.searching(meter.Search()), pytest.raises(TrapFound) as caught:
        sampler.run(problem, tmp_path / "run", seed=1)
    assert abs(caught.value.trap.center[0]) < 0.05
    evaluations, _ = meter.spent(tmp_path / "run" / "spent")
    assert 1e5 < evaluations < 1e7


def test_a_trap_becomes_a_region_of_an_own_system(tmp_path: Path) -> None:
    config = RunConfig.from_yaml(hidden(tmp_path, 3.0))
    assert not isinstance(config.system, str)
    states = OwnStates(config.system, ("A", "B"))
    problem = states.problem("A", "B", None)
    trap = find(problem, on_the_line(0.03), 1000)
    assert trap is not None
    more, name = states.with_trap(problem, trap, tmp_path)
    assert (name, more.names) == ("D0", ("A", "B", "D0"))
    found = more.problem("D0", "B", None)  # starts at the structure that was written
    assert found.regions[2].name == "A"
    low, high = (float(end.split()[0]) for end in more.described("D0")["within"]["x"])
    assert -0.2 < low < -0.05 < 0.05 < high < 0.2


@pytest.mark.slow
def test_without_a_trap_it_is_the_run_that_it_would_be(tmp_path: Path) -> None:
    """To the last digit and evaluation."""
    problem = double_well.build(height=4.0)
    plain = rlis.run(problem, tmp_path / "plain", seed=5, target_relative_error=0.4)
    rate, stopped = auto(
        RegionStates.of(problem), tmp_path / "auto", Plan(seed=5, target_relative_error=0.4), silent
    )  # fmt: skip
    assert (rate, stopped) == (plain.rate, "target")
    written = json.loads((tmp_path / "auto" / "result.json").read_text())
    assert written["rate"] == plain.rate.to_dict()
    assert written["traps"] == {} and written["cost"]["force_evaluations"]["search"] == 0
    assert written["cost"]["force_evaluations"]["total"] == plain.cost["force_evaluations"]["total"]
    assert list(status.status(tmp_path / "auto")) == ["L-R"]
    assert rlis.find_traps(problem, tmp_path / "search", seed=5) == []


@pytest.mark.slow
def test_both_states_of_a_double_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both rates from one call, the ratio of the populations from them; called again nothing is done anew."""
    found = rlis.network(
        double_well.build, ("L", "R"), (1.0,), tmp_path / "net", seed=2, target_relative_error=0.3, height=4.0
    )
    assert isinstance(found, rlis.Networks)
    one = found[1.0]
    assert one.rate("L", "R").value == pytest.approx(one.rates["L", "R"].value)
    assert one.stationary["L"].value == pytest.approx(
        one.rates["R", "L"].value / (one.rates["L", "R"].value + one.rates["R", "L"].value)
    )
    leg = load(tmp_path / "net" / "beta-1" / "L-R")
    assert leg.rate == one.rates["L", "R"]
    again = rlis.network(
        double_well.build, ("L", "R"), (1.0,), tmp_path / "net", seed=2, target_relative_error=0.3, height=4.0
    )
    assert isinstance(again, rlis.Networks) and again[1.0].rates == one.rates
    assert cli.execute(["status", str(tmp_path / "net")]) == 0
    assert capsys.readouterr().out.count("done (stopped by target)") == 2
    assert cli.execute(["report", str(tmp_path / "net"), "--no-figures"]) == 0
    assert "rate by any route" in capsys.readouterr().out
    assert cli.execute(["resume", str(tmp_path / "net")]) == 2
    assert "started from Python" in capsys.readouterr().err


@pytest.mark.slow
def test_limits_hold_for_the_whole_network(tmp_path: Path) -> None:
    out = tmp_path / "net"
    words = ["network", "double_well", "--states", "L,R", "--out", str(out), "--max-evals", "2e6", "--set", "height=5"]
    assert cli.execute([*words, "--target-error", "0.01"]) == 3
    written = json.loads((out / "result.json").read_text())
    assert 1e5 < written["cost"]["force_evaluations"]["total"] <= 2.2e6
    assert cli.execute(["resume", str(out), "--target-error", "0.4", "--max-evals", "4e7"]) == 0
    after = json.loads((out / "result.json").read_text())
    assert after["cost"]["force_evaluations"]["total"] >= written["cost"]["force_evaluations"]["total"]
    assert after["network"]["stationary"]["L"]["value"] > 0.5


@pytest.mark.slow
def test_the_rate_over_a_hidden_intermediate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact: 1.204e-3 /ps by quadrature, with the shift of the regions' ends by the tests at intervals."""
    path, out = hidden(tmp_path, 3.0), tmp_path / "out"
    words = ["run", str(path), "--others", "auto", "--out", str(out), "--seed", "1", "--target-error", "0.2"]
    assert cli.execute(words) == 0
    assert "trap found" in capsys.readouterr().out
    found = json.loads((out / "result.json").read_text())
    low, high = found["rate"]["interval"]
    assert low < 1.204e-3 < high
    assert found["rate"]["value"] == pytest.approx(1.204e-3, rel=0.6)
    assert found["cost"]["force_evaluations"]["search"] > 0
    assert list(found["traps"]) == ["D0"]
    total = found["cost"]["force_evaluations"]["total"]
    assert cli.execute(["resume", str(out)]) == 0  # nothing is left to do
    again = json.loads((out / "result.json").read_text())
    assert again["rate"] == found["rate"] and again["cost"]["force_evaluations"]["total"] == total
    assert cli.execute(["status", str(out)]) == 0
    assert cli.execute(["verify", str(out)]) in (0, 3)


REFUSED: dict[str, Callable[[Path], list[str]]] = {
    "brute": lambda path: ["brute", str(path), "--others", "auto"],
    "both": lambda path: ["run", str(path), "--others", "auto", "--both"],
    "packaged": lambda path: ["run", "lj7", "--others", "auto"],
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_auto_is_for_one_run_of_an_own_system(
    tmp_path: Path, words: Callable[[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute([*words(hidden(tmp_path, 3.0)), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_states_of_one_problem_need_structures() -> None:
    problem = lj7.build(source="C3", target="C2", others=("C0",), beta=5.0)
    states = RegionStates.of(problem)
    back = states.problem("C2", "C0", None)
    assert [region.name for region in back.regions] == ["C2", "C0", "C3"]
    assert back.recipe is None and np.array_equal(back.positions, problem.references["C2"])

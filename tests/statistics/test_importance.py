"""Importance: tallies by hand, known spreads of V, and the product of variance and cost on an exactly solved chain."""

from __future__ import annotations

import numpy as np
import pytest
from seeds import with_offset
from systems_1d import double_well

from openmm_rlis.basin.exit_flux import initial_state, run_flux
from openmm_rlis.dynamics.engine import Engine
from openmm_rlis.statistics.branching import Window, draw_roots
from openmm_rlis.statistics.importance import BIN_WIDTH, N_BINS, UNTEMPERED, Importance, fit, tally
from openmm_rlis.walks.branching_walk import Roots, walk


def test_tallies_by_hand() -> None:
    log_v = np.array([-0.1, -0.2, -3.2, -1e9, 0.7])
    log_w = np.array([0.0, -1.0, 2.0, 0.0, 0.0])
    change = np.array([-np.inf, np.log(2.0), 0.0, 1.0, np.log(1.5)])
    visits, mass, spread = tally(log_w, log_v, change)
    first = [np.exp(-0.1), np.exp(-1.2), np.exp(0.7)]  # V above 1 belongs to the first bin
    assert visits[0] == 3 and visits[6] == 1 and visits[-1] == 1 and visits.sum() == 5
    assert mass[0] == pytest.approx(sum(first)) and mass[6] == pytest.approx(np.exp(-1.2)) and mass[-1] == 0.0
    assert spread[0] == pytest.approx(first[0] + first[1] + 0.25 * first[2]) and spread[6] == 0.0


@pytest.mark.parametrize(("power", "slope"), [(0.0, 1.0), (-1.0, 0.5), (-4.0, 0.0), (2.0, 1.3)])
def test_spread_of_a_known_power_gives_its_slope(power: float, slope: float) -> None:
    """q = V^p asks for u = V^(1 + p/2), between level and V^1.3."""
    middle = -(np.arange(N_BINS) + 0.5) * BIN_WIDTH
    seen = np.arange(N_BINS) < 24
    mass = np.where(seen, 1.0, 0.0)
    found = fit(np.stack([1000.0 * seen, mass, np.where(seen, np.exp(power * np.maximum(middle, -12.0)), 0.0)]))
    inner = np.linspace(-9.0, -3.0, 30)
    assert np.diff(found(inner)) / np.diff(inner) == pytest.approx(slope, abs=1e-3)
    assert np.diff(found(np.array([-90.0, -80.0]))) == pytest.approx(10.0)
    assert np.diff(found(np.array([0.0, 5.0]))) == pytest.approx(5.0)


def test_nothing_is_taken_for_granted_beyond_what_was_seen() -> None:
    """As long as nobody has been nearer to B than ln V = -15, walkers who get there are split by V."""
    middle = -(np.arange(N_BINS) + 0.5) * BIN_WIDTH
    seen = (middle < -15.0) & (middle > -25.0)
    found = fit(np.stack([1000.0 * seen, 1.0 * seen, np.where(seen, np.exp(-middle), 0.0)]))
    assert np.diff(found(np.array([-24.0, -16.0]))) < 5.0
    assert np.diff(found(np.array([-15.0, 0.0]))) == pytest.approx(15.0)


def test_a_plateau_is_crossed_without_loss() -> None:
    """Where Q dips between two steep parts, u is level there and rises beyond to what V sqrt(Q) says."""
    middle = -(np.arange(N_BINS) + 0.5) * BIN_WIDTH
    seen = middle > -24.0
    dip = np.where((middle < -10.0) & (middle > -14.0), 5e-6, 0.3)
    found = fit(np.stack([1000.0 * seen, 1.0 * seen, np.where(seen, dip, 0.0)]))
    assert np.diff(found(np.array([-23.0, -1.0]))) == pytest.approx(22.0, abs=1.5)
    assert (np.diff(found(np.linspace(-24.0, 0.0, 200))) >= 0.0).all()


def test_without_visits_nothing_is_tempered() -> None:
    log_v = np.linspace(-50.0, 0.0, 7)
    for tallies in (np.zeros((3, N_BINS)), np.full((3, N_BINS), np.nan), np.eye(3, N_BINS) * 1e6):
        np.testing.assert_array_equal(fit(tallies)(log_v), log_v)


def test_a_wild_value_is_left_out() -> None:
    with np.errstate(all="raise"):
        tallies = tally(np.full(400, 600.0), np.tile([900.0, -2.0], 200), np.tile([900.0, 0.3], 200))
    assert fit(tallies) is UNTEMPERED


def test_it_pays_where_v_is_exact() -> None:
    """Relative variance times lags falls to about a half; that it seems to rise has a chance below 1e-3.

    Exact committor, double well of 8 kT; 4000 roots each way, whose contributions have a tail index below 0.3.
    """
    line = double_well(8.0, 0.5)
    problem, rng = line.problem(), np.random.default_rng(with_offset(5))
    engine = Engine(problem, 512)
    engine.reseed(rng)
    pool = run_flux(engine, run_flux(engine, initial_state(problem, 64), 200).state, 400)

    def log_value(x: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(line.committor(x), 1e-12))

    def walked(importance: Importance, n: int) -> tuple[float, np.ndarray]:
        index, log_weights = draw_roots(importance(log_value(pool.exits)), n, 0.2, rng)
        no = np.zeros(n, bool)
        roots = Roots(pool.exits[index], pool.priors[index], log_weights, no, ~no, np.zeros(n, np.int32))
        before = engine.cost.force_evaluations
        done = walk(engine, log_value, roots, Window(0.1, 2.0), rng, importance=importance, frame_stride=1_000_000)
        shares = np.exp(log_weights) * done.success
        return shares.var() / shares.mean() ** 2 * (engine.cost.force_evaluations - before), done.tallies

    importance = fit(walked(UNTEMPERED, 1000)[1])
    assert walked(importance, 4000)[0] < walked(UNTEMPERED, 4000)[0]

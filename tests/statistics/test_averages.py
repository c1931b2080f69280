"""Averages over weighted paths against an independent recomputation, the exact chain, and repeated data.

Stochastic asserts: 20 independent batches on an asymmetric double well, Student |t| < 5.2 with 19 degrees of freedom
(false alarm 5e-5 each, 9 of them), and a spread of 200 repeats within 25 % of the claimed one (5 standard errors).
"""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest
from systems_1d import double_well

import openmm_rlis as rlis
from openmm_rlis.config.settings import Settings
from openmm_rlis.errors import InputError
from openmm_rlis.paths.ensemble import PathEnsemble, PathTree, TreeBuilder
from openmm_rlis.results.result import Result

LINE = double_well(4.0, 0.5)
SETTINGS = Settings(
    n_batches=20, replicas=4, learning_rounds=1, learning_roots=40, n_slots=64, failure_share=0.3, frame_stride=1
)
EDGES = np.linspace(-0.7, 0.8, 7)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    directory = tmp_path_factory.mktemp("averages") / "run"
    return rlis.run(LINE.problem(), directory, seed=5, target_relative_error=0.06, settings=SETTINGS)


def x_of(frames: np.ndarray) -> np.ndarray:
    return frames[:, 0, 0]


def by_hand(paths: PathEnsemble, values: list[np.ndarray], weights: list[np.ndarray]) -> tuple[float, float]:
    """The ratio over batches and its error, written out with plain loops."""
    n = np.zeros(paths.n_batches)
    d = np.zeros(paths.n_batches)
    for i in range(len(paths)):
        for value, weight in zip(values[i], weights[i], strict=True):
            n[paths.batches[i]] += paths.weights[i] * weight * value
            d[paths.batches[i]] += paths.weights[i] * weight
    mean = n.sum() / d.sum()
    b = paths.n_batches
    return mean, np.sqrt(b / (b - 1) * ((n - mean * d) ** 2).sum()) / d.sum()


@pytest.mark.parametrize("kind", ["success", "failures", "all"])
def test_averages_are_those_written_out_by_hand(result: Result, kind: str) -> None:
    paths = result.paths if kind == "all" else getattr(result.paths, kind)()
    paths = paths.select(np.arange(len(paths)) < 400)
    x = [x_of(paths.positions(i)).astype(float) for i in range(len(paths))]
    spans = []
    for i in range(len(paths)):
        t = paths.times(i)
        middle = np.concatenate([[t[0]], 0.5 * (t[1:] + t[:-1]), [t[-1]]])  # a frame stands for up to half-way
        spans.append(np.diff(middle))
    found = paths.average(x_of)
    assert (found.value, found.standard_error) == pytest.approx(by_hand(paths, x, spans), rel=1e-9)
    one = [np.ones(1)] * len(paths)
    highest = paths.average(lambda frames: x_of(frames).max())
    expected = by_hand(paths, [np.array([v.max()]) for v in x], one)
    assert (highest.value, highest.standard_error) == pytest.approx(expected, rel=1e-9)
    drawn = paths.histogram(x_of, bins=EDGES)
    for k in range(6):
        low, high = EDGES[k : k + 2]
        last = k == 5
        inside = [((v >= low) & ((v <= high) if last else (v < high))).astype(float) for v in x]
        share, error = by_hand(paths, inside, spans)
        assert drawn.shares[k] == pytest.approx(share, rel=1e-9)
        assert drawn.standard_errors[k] == pytest.approx(error if error else np.inf, rel=1e-9)


def test_transition_paths_have_the_durations_and_the_density_of_the_exact_chain(result: Result) -> None:
    """mu_O q is how often a transition path is at x outside, k tau how often one begins: both from linear algebra."""
    chain, paths = LINE.chain, result.paths.success()
    o, a = chain.outside, chain.source
    to_o = chain.matrix[np.ix_(a, o)]
    mu_o = np.linalg.solve((np.eye(o.sum()) - chain.matrix[np.ix_(o, o)]).T, chain.stationary[a] @ to_o)
    here = mu_o * chain.committor[o]
    begins = chain.stationary[a] @ (chain.matrix[np.ix_(a, chain.target)].sum(1) + to_o @ chain.committor[o])
    lags = here.sum() / begins + 1.0
    found = paths.average(lambda frames: len(frames) - 1.0)
    assert abs(found.value - lags) < 5.2 * found.standard_error < 0.3 * lags
    drawn = paths.histogram(x_of, bins=EDGES)
    exact = np.histogram(chain.x[o], EDGES, weights=here)[0] / (here.sum() + begins)
    assert (np.abs(drawn.shares - exact) < 5.2 * drawn.standard_errors).all()
    assert (drawn.standard_errors < 0.2 * drawn.shares).all()


def test_stored_failures_stand_for_all_of_them(result: Result) -> None:
    """Share of all exits that reach x > 0: exact from the chain, its barrier as the target."""
    reach = double_well(4.0, 0.5, target=(0.0, 9.0)).chain
    o, a = reach.outside, reach.source
    exits = reach.stationary[a] @ reach.matrix[np.ix_(a, ~a)].sum(1)
    arrive = reach.stationary[a] @ (
        reach.matrix[np.ix_(a, reach.target)].sum(1) + reach.matrix[np.ix_(a, o)] @ reach.committor[o]
    )
    found = result.paths.average(lambda frames: float(x_of(frames).max() > 0.0))
    assert abs(found.value - arrive / exits) < 5.2 * found.standard_error < 0.8 * found.value
    won = result.paths.average(lambda frames: float(x_of(frames)[-1] > 0.8))
    exact = LINE.chain.endless.success_probability
    assert abs(won.value - exact) < 5.2 * won.standard_error < 0.8 * exact


def test_trajectories_and_arrays_give_the_same(result: Result) -> None:
    paths = result.paths.success().select(np.arange(30))

    def x(path: mdtraj.Trajectory) -> np.ndarray:
        assert isinstance(path, mdtraj.Trajectory) and path.n_atoms == 1
        return path.xyz[:, :, 0]  # (n_frames, 1), as mdtraj returns one distance

    assert paths.average(x, trajectory=True) == paths.average(x_of)
    a, b = paths.histogram(x, bins=5, trajectory=True), paths.histogram(x_of, bins=5)
    assert np.array_equal(a.edges, b.edges) and np.array_equal(a.shares, b.shares)
    assert a.shares.sum() == pytest.approx(1.0, rel=1e-12)
    assert (a.density * np.diff(a.edges)).sum() == pytest.approx(1.0, rel=1e-12)
    assert len(a.centers) == len(a.density_errors) == 5 and a.n_batches == 20


def forest(rng: np.random.Generator, n_batches: int = 20) -> PathEnsemble:
    """Each batch has 3 roots of 1 to 20 paths that share their first frame, x; batches miss now and then."""
    trees: list[PathTree] = []
    for batch in range(n_batches):
        builder = TreeBuilder(1)
        n_paths = rng.integers(1, 20, size=3)
        x = np.zeros((3, 1, 3))
        x[:, 0, 0] = rng.normal(size=3)
        first = builder.add(x, np.full(3, -1), 0)
        root = np.repeat(np.arange(3), n_paths if rng.random() < 0.9 else 0 * n_paths)
        leaves = builder.add(np.zeros((len(root), 1, 3)), first[root], 1)
        weights = rng.normal(size=3)[root]
        trees.append(builder.finish(leaves, np.full(len(root), 2), weights, root, batch=batch, round=0))
    return PathEnsemble(trees, n_batches=n_batches)


def test_the_error_is_that_of_repeats_although_paths_share_their_roots() -> None:
    rng = np.random.default_rng(4)
    ensembles = [forest(rng) for _ in range(200)]
    found = [paths.average(lambda frames: float(frames[0, 0, 0])) for paths in ensembles]
    spread = np.std([e.value for e in found], ddof=1)
    claimed = np.sqrt(np.mean([e.standard_error**2 for e in found]))
    assert spread == pytest.approx(claimed, rel=0.25)
    x = [np.array([paths.positions(i)[0, 0, 0] for i in range(len(paths))]) for paths in ensembles]
    w = [paths.weights / paths.weights.sum() for paths in ensembles]
    naive = [np.sqrt((w**2 * (x - w @ x) ** 2).sum()) for x, w in zip(x, w, strict=True)]
    assert spread > 2.0 * np.sqrt(np.mean(np.square(naive)))  # what counting paths as independent would claim


def test_batches_without_a_path_count() -> None:
    paths = forest(np.random.default_rng(1))
    longer = PathEnsemble(paths.trees, n_batches=40)
    a, b = (p.average(lambda frames: float(frames[0, 0, 0])) for p in (paths, longer))
    assert a.value == pytest.approx(b.value, rel=1e-12) and b.n_batches == 40
    assert b.standard_error == pytest.approx(a.standard_error * np.sqrt(40 / 39 * 19 / 20), rel=1e-12)


def test_very_small_weights_and_none() -> None:
    paths = forest(np.random.default_rng(1))
    low = [PathTree(t.positions, t.parents, t.leaves, t.labels, t.log_weights - 2000.0, t.roots, t.batch, t.round)
           for t in paths.trees]  # fmt: skip
    first = lambda frames: float(frames[0, 0, 0])  # noqa: E731
    expected = paths.average(first)
    found = PathEnsemble(low, n_batches=20).average(first)
    assert (found.value, found.standard_error) == pytest.approx((expected.value, expected.standard_error), rel=1e-9)
    none = paths.failures().average(first)
    assert np.isnan(none.value) and np.isinf(none.standard_error)
    assert np.isnan(paths.failures().histogram(first, bins=3).shares).all()


@pytest.mark.parametrize(
    ("f", "named"),
    [
        (lambda frames: frames[:, 0], "shape"),
        (lambda frames: np.zeros(len(frames) + 1), "one for each of the 2 frames"),
        (lambda frames: float("nan"), "finite"),
        (lambda frames: 1.0 if frames[0, 0, 0] > 0 else np.zeros(2), "now one and then the other"),
    ],
)
def test_functions_that_return_something_else_are_refused(f: object, named: str) -> None:
    with pytest.raises(InputError, match=f"f: expected.*{named}"):
        forest(np.random.default_rng(1)).average(f)  # type: ignore[arg-type]


def test_bad_bins_are_named() -> None:
    with pytest.raises(InputError, match="bins, range"):
        forest(np.random.default_rng(1)).histogram(lambda frames: 1.0, bins=[3.0, 2.0])


# --- arrays of the result ---------------------------------------------------------------------------------------------


def test_rates_by_batch_and_by_round_are_those_of_the_estimate(result: Result) -> None:
    totals, history = result.totals, result.rate_history
    assert result.rate_by_batch == pytest.approx(totals.transitions / totals.time)
    k = result.rate.value
    assert k == pytest.approx(totals.transitions.sum() / totals.time.sum(), rel=1e-12)
    errors = []  # the error of a ratio, of batches and of all their rounds: the larger of the two is reported
    for n, t in ((totals.transitions, totals.time), tuple(map(np.ravel, result._production.rounds))):
        errors.append(np.sqrt(len(n) / (len(n) - 1) * ((n - k * t) ** 2).sum()) / t.sum())
    assert result.rate.standard_error == pytest.approx(max(errors), rel=1e-9)
    assert all(column.shape == (result.n_rounds,) for column in history.values())
    last = {name: column[-1] for name, column in history.items()}
    assert (last["value"], last["standard_error"]) == (result.rate.value, result.rate.standard_error)
    assert (last["low"], last["high"]) == result.rate.interval
    assert last["force_evaluations"] == result.cost["force_evaluations"]["total"]
    assert last["seconds"] == pytest.approx(result.cost["seconds"]) and (np.diff(history["seconds"]) > 0).all()


def test_committor_of_a_trajectory(result: Result) -> None:
    path = result.paths.success().to_mdtraj(0)
    q = rlis.load(result.directory, LINE.problem()).value.committor(path)
    assert q.shape == (path.n_frames,) and q[0] == 0.0 and q[-1] == 1.0
    assert np.array_equal(q, result.value.committor(path.xyz, LINE.problem()))
    with pytest.raises(InputError, match="positions: expected shape"):
        result.value.committor(path.xyz[0])
    with pytest.raises(InputError, match="frames of 1 atoms"):
        result.value.committor(np.zeros((2, 5, 3)))

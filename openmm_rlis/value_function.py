"""ValueFunction: ln V(x), the learned probability of reaching B before A and the other regions.

    V(x) = (1 - e) sigmoid(z_fine(f(x)))  +  e sigmoid(z_coarse(|f - f_A|, |f - f_B|, |f - f_D| ...))

z_fine is a small network on all features. z_coarse sees only how far the features are from those of each region: it
cannot tell channels apart, so whatever makes progress keeps a share e of the importance however wrong the fine
network is. What falls into another region D is no progress, and without its distance to D it would look like some.
Both live in log space, ln sigmoid(z) = -softplus(-z), so values of 1e-12 and less do not underflow, and V > 0
everywhere: the bias force 2 kT grad ln V stays finite on the boundary of A.

Exactness never depends on V; only the variance does. The boundary values (1 in B, 0 in A and D) are applied where a
walker is labelled, and in `committor`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import NotFiniteError, StorageError, bad_input
from .features import evaluate, fingerprint, probe
from .geometry.finite import place
from .problem import OUTSIDE, SOURCE, TARGET, Problem
from .safe_readers.tensor_file import load_tensors
from .storage.atomic_files import read

FORMAT = 2


def _network(width: int, hidden: int, rng: np.random.Generator) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
    )
    layers = layers.double()
    with torch.no_grad():
        for layer in (layers[0], layers[2]):
            assert isinstance(layer, nn.Linear)
            bound = math.sqrt(3.0 / layer.in_features)
            layer.weight.copy_(torch.as_tensor(rng.uniform(-bound, bound, size=tuple(layer.weight.shape))))
            layer.bias.copy_(torch.as_tensor(rng.uniform(-0.5, 0.5, size=tuple(layer.bias.shape))))
        last = layers[4]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.zero_()
    return layers


class ValueFunction(nn.Module):
    """The logarithm of the value function of one Problem.

    Parameters
    ----------
    features
        Torch module, positions (n, n_atoms, 3) in nm -> (n, k).
    statistics
        From `feature_statistics`: mean and scale (k,), the standardisation of the features, and center_source and
        center_target (k,), standardised features typical of A and of B, and center_others (m, k), of other regions,
        for the coarse part.
    coarse_share
        e, the share of the coarse part, between 0 and 1.
    rng
        Draws the initial weights.
    """

    if TYPE_CHECKING:  # TorchScript cannot read these
        mean: Tensor
        scale: Tensor
        center_source: Tensor
        center_target: Tensor
        center_others: Tensor

    def __init__(
        self,
        features: nn.Module,
        statistics: Mapping[str, NDArray[np.float64]],
        coarse_share: float = 0.2,
        hidden: int = 48,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < coarse_share < 1.0:
            raise bad_input("coarse_share", "a number between 0 and 1", coarse_share)
        rng = rng or np.random.default_rng(0)
        self.features = features
        self.problem: Problem | None = None
        self.hidden = hidden
        self.coarse_share = coarse_share
        self.log_fine_share = math.log1p(-coarse_share)
        self.log_coarse_share = math.log(coarse_share)
        for name in ("mean", "scale", "center_source", "center_target"):
            self.register_buffer(name, torch.as_tensor(np.array(statistics[name], dtype=np.float64)))
        width = len(statistics["mean"])
        # Functions stored by earlier versions know of no other regions.
        others = np.array(statistics.get("center_others", np.empty((0, width))), dtype=np.float64)
        self.register_buffer("center_others", torch.as_tensor(others))
        self.fine = _network(width, hidden, rng)
        self.coarse = _network(2 + len(others), 16, rng)

    def inputs(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the networks see of features (n, k): these standardised, and distances to A, B, D (n, 2 + m)."""
        z = (f - self.mean) / self.scale
        ends = torch.stack([self.center_source, self.center_target])
        centers = torch.cat([ends, self.center_others])
        return z, torch.sqrt(((z.unsqueeze(-2) - centers) ** 2).mean(-1) + 1e-12)

    def log_parts(self, z: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Return (ln V_fine, ln V_coarse), each (n,), for `inputs`."""
        fine = nn.functional.logsigmoid(self.fine(z).squeeze(-1))
        coarse = nn.functional.logsigmoid(self.coarse(distances).squeeze(-1))
        return fine, coarse

    def log_mixture(self, f: Tensor) -> Tensor:
        """Return ln V (n,) for features (n, k)."""
        z, distances = self.inputs(f)
        fine, coarse = self.log_parts(z, distances)
        return torch.logaddexp(fine + self.log_fine_share, coarse + self.log_coarse_share)

    def forward(self, x: Tensor) -> Tensor:
        """Return ln V (n,) for positions (n, n_atoms, 3) in nm, boundary values not applied."""
        return self.log_mixture(self.features(x))

    @torch.jit.ignore
    def log_value(self, positions: Any) -> NDArray[np.float64]:
        """Return ln V (n,) for positions (n, n_atoms, 3) in nm or an mdtraj.Trajectory, boundary values not applied.

        Raises
        ------
        NotFiniteError
            A feature, and so the value, is not finite.
        """
        with torch.no_grad():
            frames = as_frames(positions)
            log_v: NDArray[np.float64] = self(torch.as_tensor(frames)).numpy()
        if not np.isfinite(log_v).all():
            rows = np.flatnonzero(~np.isfinite(log_v))
            first, who = int(rows[0]), f"{len(rows)} of {len(log_v)} walkers, the first with {place(frames[rows[0]])}"
            fix = f"check the features on that structure ({who})"
            raise NotFiniteError(str(bad_input("value", "a finite ln V", f"{log_v[first]} for walker {first}", fix)))
        return log_v

    @torch.jit.ignore
    def committor(self, positions: Any, problem: Problem | None = None) -> NDArray[np.float64]:
        """Return the learned P(B first) (n,), 1 in B, 0 in A and D.

        Where the run gave A a core (see `inner_region`), V was learned for paths that fail in the core: close to A it
        is larger than the committor by what comes back to A and still reaches B, less than the success probability of
        exits.

        Parameters
        ----------
        positions
            (n, n_atoms, 3) in nm, or an mdtraj.Trajectory.
        problem
            Whose regions count; by default that of the run which the function was loaded from.

        Raises
        ------
        InputError
            No problem is known, or the positions are of another shape.
        """
        problem = problem or self.problem
        if problem is None:
            raise bad_input("problem", "the Problem that names the regions", "none", "committor(positions, problem)")
        positions = as_frames(positions)
        if positions.shape[1] != problem.n_atoms:
            raise bad_input("positions", f"frames of {problem.n_atoms} atoms", f"frames of {positions.shape[1]}")
        codes = problem.label(positions)
        q = np.where(codes == TARGET, 1.0, 0.0)
        outside = codes == OUTSIDE
        if outside.any():
            q[outside] = np.exp(self.log_value(positions[outside]))
        return q

    @torch.jit.ignore
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything that defines this function besides the features, as arrays."""
        state = {k: v.numpy().copy() for k, v in self.state_dict().items() if not k.startswith("features.")}
        return {**state, "hidden": np.array(self.hidden), "coarse_share": np.array(self.coarse_share)}

    @classmethod
    def from_arrays(cls, features: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> ValueFunction:
        """Return the function that `arrays` was called on, to the last bit."""
        hidden, width = int(arrays["hidden"]), len(arrays["mean"])
        if np.shape(arrays["fine.0.weight"]) != (hidden, width):
            raise ValueError(f"a first layer of {np.shape(arrays['fine.0.weight'])}, expected {(hidden, width)}")
        value = cls(features, arrays, float(arrays["coarse_share"]), hidden)
        own = value.state_dict()
        for key in own:
            if not key.startswith("features.") and (key in arrays or key != "center_others"):
                own[key] = torch.as_tensor(np.array(arrays[key]))
        value.load_state_dict(own)
        return value.eval()

    @torch.jit.ignore
    def save(self, path: str | Path, problem: Problem) -> None:
        """Write to a file that `ValueFunction.load` reads; opens with torch.load(weights_only=True)."""
        structures = probe(problem.positions)
        seen = {"structures": structures, "values": evaluate(self.features, structures)}
        tables = {"probe": seen, "state": self.arrays()}
        torch.save(
            {"format": FORMAT, **{name: {k: torch.as_tensor(v) for k, v in t.items()} for name, t in tables.items()}},
            path,
        )

    @classmethod
    def load(cls, path: str | Path, problem: Problem, data: bytes | None = None) -> ValueFunction:
        """Return the function stored at `path`; its content is read from there unless it is given as `data`.

        Raises
        ------
        StorageError
            The file cannot be read.
        InputError
            It was trained for other features than those of `problem`.
        """
        try:
            stored = load_tensors(read(Path(path)) if data is None else data)
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']} of another version, expected {FORMAT}")
            structures, values = (stored["probe"][name].numpy() for name in ("structures", "values"))
            if structures.ndim != 3 or values.ndim != 2:
                raise ValueError(f"a probe of shape {structures.shape} with features {values.shape}")
            value = cls.from_arrays(
                problem.features, {name: tensor.numpy() for name, tensor in stored["state"].items()}
            )
        except (
            AttributeError, OSError, EOFError, UnpicklingError, RuntimeError, LookupError, TypeError, ValueError,
        ) as error:  # fmt: skip
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise StorageError(
                f"cannot read a value function from {path}: {reason}; in a run directory, delete it and resume the run"
            ) from None
        _check_same(problem, structures, values)
        value.problem = problem
        return value

    @torch.jit.ignore
    def check_problem(self, problem: Problem) -> None:
        """Raise `InputError` if this function was made for other features, or for other paths, than `problem`.

        It may be one for another temperature, lag or time step. One loaded from a run directory knows its own regions:
        a known structure of a region of `problem` must not lie in another one there.
        """
        structures = probe(problem.positions)
        try:
            values = evaluate(self.features, structures)
        except (LookupError, RuntimeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            wanted = "a value function for this problem's features"
            raise bad_input("value", wanted, reason, "train a new one") from None
        _check_same(problem, structures, values)
        if self.problem is not None:
            _check_regions(problem, self.problem)


def _check_regions(problem: Problem, learned: Problem) -> None:
    """Raise `InputError` if A or B of one problem is another region of the problem that a function was learned for."""
    found = {problem.regions[0].name: problem.positions, **problem.references}
    for own, region in ((SOURCE, problem.regions[0]), (TARGET, problem.regions[1])):
        if region.name in found:
            code = int(learned.label(found[region.name][None])[0])
            if code not in (OUTSIDE, own):
                wanted, *ends = (" to ".join(r.name for r in p.regions[:2]) for p in (problem, learned))
                expected = f"a value function for paths from {wanted}"
                raise bad_input("value", expected, f"one for paths from {ends[0]}", "train a new one")


def _check_same(problem: Problem, structures: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Raise `InputError` unless the problem's features have these values (n, k) on structures (n, n_atoms, 3).

    Other processors and versions of libraries give other last digits: a run goes on, and opens, on any machine.
    """
    same_atoms = structures.shape[1] == problem.n_atoms
    expected = evaluate(problem.features, structures if same_atoms else probe(problem.positions))
    same = same_atoms and values.shape == expected.shape
    size = np.abs(np.where(np.isfinite(expected), expected, 0.0)).max(0)  # of each feature, whatever its unit
    if not (same and np.allclose(values, expected, rtol=1e-6, atol=1e-6 * size, equal_nan=True)):
        wanted = f"a value function for this problem's features ({fingerprint(expected)})"
        raise bad_input("value", wanted, fingerprint(values), "train a new one")


def as_frames(positions: Any) -> NDArray[np.float64]:
    """Return positions (n, n_atoms, 3) in nm in double precision, from an array or an mdtraj.Trajectory."""
    frames = np.asarray(getattr(positions, "xyz", positions), dtype=np.float64)
    if frames.ndim != 3 or frames.shape[2] != 3:
        raise bad_input("positions", "shape (n, n_atoms, 3) or an mdtraj.Trajectory", f"shape {frames.shape}")
    return frames


def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviations (k,) of features (n, k), the largest of them for one that hardly varies."""
    deviation: NDArray[np.float64] = values.std(0)
    largest = max(float(deviation.max()), 1e-12)
    return np.where(deviation > 1e-3 * largest, deviation, largest)


def feature_statistics(
    problem: Problem,
    samples: NDArray[np.float64],
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]] = (),
) -> dict[str, NDArray[np.float64]]:
    """Return the standardisation of a ValueFunction from structures (n, n_atoms, 3): all, in A, in B, in others."""
    f, *centers = (evaluate(problem.features, x) for x in (samples, source, target, *others))
    mean, scale = f.mean(0), spread(f)
    a, b, *d = [(center.mean(0) - mean) / scale for center in centers]
    return {
        "mean": mean,
        "scale": scale,
        "center_source": a,
        "center_target": b,
        "center_others": np.reshape(d, (len(d), len(mean))),
    }

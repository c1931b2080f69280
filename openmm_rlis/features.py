"""Features: positions -> invariants, as torch modules.

A feature maps positions of shape (n, n_atoms, 3) in nm to values of shape (n, k), row by row. Regions are sets in
feature space and the value function sees the world through features, so these should not change under the symmetries
of the system: distances and coordination numbers are free of rotation, translation and reflection, and their sorted
versions and the contact spectrum of permutation of like atoms too. In a `Problem` whose System is periodic, all that
are made of vectors between atoms take the nearest image, see `periodic`; coordinates are never wrapped.

The modules are TorchScript-friendly, so that they can run inside an OpenMM TorchForce. Any other torch module or Python
callable of the same shape works as well (`as_feature` wraps it and checks its output); a plain callable cannot travel
into a TorchForce and then OpenMM's PythonForce is used.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .contacts import Coordination, Spectrum, squared_distances
from .errors import bad_input
from .geometry.periodic import InBox, nearest_image

_TRAINED = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
"""Layers that do something else in training mode."""
_CALL_ERRORS = (RuntimeError, IndexError, TypeError, ValueError, AttributeError, KeyError)

Feature = nn.Module | Callable[[Tensor], Tensor]


def _nearest(d: Tensor, box: list[float]) -> Tensor:
    """Return vectors (n, k, 3) to the nearest image."""
    if box[0] <= 0.0:
        return d
    return nearest_image(d.permute(2, 0, 1), box).permute(1, 2, 0)


class Positions(nn.Module):
    """Raw coordinates, flattened: (n, n_atoms, 3) -> (n, 3 n_atoms). Only for systems fixed in space."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the coordinates of each walker as one row."""
        return x.reshape(x.shape[0], -1)


class Distances(InBox):
    """Distances of given pairs in nm: (n, n_pairs), sorted in ascending order if asked."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        i: Tensor
        j: Tensor

    def __init__(self, pairs: Sequence[tuple[int, int]], ascending: bool = False) -> None:
        super().__init__()
        table = torch.as_tensor(list(pairs), dtype=torch.long).reshape(-1, 2)
        if len(table) == 0 or int(table.min()) < 0 or bool((table[:, 0] == table[:, 1]).any()):
            raise bad_input("pairs", "one or more pairs of different atom indices", list(pairs))
        self.register_buffer("i", table[:, 0].clone())
        self.register_buffer("j", table[:, 1].clone())
        self.ascending = ascending

    def forward(self, x: Tensor) -> Tensor:
        """Return |x_i - x_j| for every pair."""
        r = torch.sqrt(squared_distances(x, self.i, self.j, self.box) + 1e-24)
        if self.ascending:
            r = torch.sort(r, dim=-1)[0]
        return r


class Angles(InBox):
    """Cosines of the angles at the second of three atoms, or the angles in rad: (n, n_angles)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        table: Tensor

    def __init__(self, triples: Sequence[tuple[int, int, int]], radians: bool = False) -> None:
        super().__init__()
        table = torch.as_tensor(list(triples), dtype=torch.long).reshape(-1, 3)
        if len(table) == 0:
            raise bad_input("triples", "one or more atom triples", list(triples))
        self.register_buffer("table", table)
        self.radians = radians

    def forward(self, x: Tensor) -> Tensor:
        """Return the cosine of every angle, or the angle."""
        p = x[:, self.table]
        a, b = _nearest(p[:, :, 0] - p[:, :, 1], self.box), _nearest(p[:, :, 2] - p[:, :, 1], self.box)
        across = torch.cross(a, b, dim=-1)
        dot, area = (a * b).sum(-1), torch.sqrt((across * across).sum(-1) + 1e-24)
        if self.radians:
            return torch.atan2(area, dot)
        return dot / torch.sqrt(dot * dot + area * area)


class Dihedrals(InBox):
    """Sines, then cosines of dihedral angles: (n, 2 n_dihedrals); or the angles in (-pi, pi]: (n, n_dihedrals)."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        table: Tensor

    def __init__(self, quadruples: Sequence[tuple[int, int, int, int]], radians: bool = False) -> None:
        super().__init__()
        table = torch.as_tensor(list(quadruples), dtype=torch.long).reshape(-1, 4)
        if len(table) == 0:
            raise bad_input("quadruples", "one or more atom quadruples", list(quadruples))
        self.register_buffer("table", table)
        self.radians = radians

    def forward(self, x: Tensor) -> Tensor:
        """Return (sin, cos) of every dihedral, or the angle."""
        p = x[:, self.table]
        b1, b2 = _nearest(p[:, :, 1] - p[:, :, 0], self.box), _nearest(p[:, :, 2] - p[:, :, 1], self.box)
        b3 = _nearest(p[:, :, 3] - p[:, :, 2], self.box)
        n1, n2 = torch.cross(b1, b2, dim=-1), torch.cross(b2, b3, dim=-1)
        length = torch.sqrt((b2 * b2).sum(-1))
        s, c = length * (b1 * n2).sum(-1), (n1 * n2).sum(-1)
        if self.radians:
            return torch.atan2(s, c)
        norm = torch.sqrt(s * s + c * c + 1e-24)
        return torch.cat([s / norm, c / norm], dim=-1)


class Coordinates(nn.Module):
    """Chosen coordinates of chosen atoms in nm: (n, n_pairs). Only for systems fixed in space."""

    if TYPE_CHECKING:  # TorchScript cannot read these
        columns: Tensor

    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.register_buffer("columns", torch.as_tensor([3 * atom + axis for atom, axis in pairs], dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        """Return the coordinate of every pair of an atom and an axis."""
        return x.reshape(x.shape[0], -1)[:, self.columns]


class Joined(nn.Module):
    """Several features side by side: (n, sum of their widths)."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of all parts in one row."""
        columns = [part(x) for part in self.parts]
        return torch.cat(columns, dim=-1)


class CallableFeature(nn.Module):
    """A Python callable dressed as a module; works everywhere but inside a TorchForce."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return what the callable returns."""
        return self.function(x)


def positions() -> Positions:
    """Return the coordinates themselves, (n, 3 n_atoms) in nm; only for systems fixed in space."""
    return Positions()


def distances(pairs: Sequence[tuple[int, int]]) -> Distances:
    """Return pair distances in nm in the order given, (n, n_pairs).

    Raises
    ------
    InputError
        No pairs, a negative index, or a pair of an atom with itself.

    Examples
    --------
    >>> x = np.array([[[0.0, 0, 0], [0.3, 0, 0], [0.3, 0.4, 0]]])  # one structure of three atoms
    >>> evaluate(distances([(0, 2), (0, 1)]), x).round(3)
    array([[0.5, 0.3]])
    """
    return Distances(pairs)


def sorted_distances(pairs: Sequence[tuple[int, int]]) -> Distances:
    """Return pair distances in nm in ascending order, (n, n_pairs); for pairs that are alike.

    Raises
    ------
    InputError
        As for `distances`.
    """
    return Distances(pairs, ascending=True)


def coordination(atoms: Sequence[int], radius: float, power: int = 8) -> Coordination:
    """Return the coordination numbers of `atoms` in the order given, (n, len(atoms)).

    ``c_i = sum_j 1 / (1 + (r_ij / radius)^power)`` over the other atoms of the group.

    Parameters
    ----------
    atoms
        Indices, two or more, all different.
    radius
        Distance in nm at which a neighbour counts one half.
    power
        Even, 2 or more; the larger, the sharper.

    Raises
    ------
    InputError
        Any of these is not as described.

    Examples
    --------
    An atom with a neighbour at `radius` and another far away:

    >>> x = np.array([[[0.0, 0, 0], [0.3, 0, 0], [9.0, 0, 0]]])
    >>> evaluate(coordination([0, 1, 2], radius=0.3), x).round(3)
    array([[0.5, 0.5, 0. ]])
    """
    return Coordination(atoms, radius, power)


def sorted_coordination(atoms: Sequence[int], radius: float, power: int = 8) -> Coordination:
    """Return the coordination numbers of `atoms` in ascending order, (n, len(atoms)); for atoms that are alike.

    See `coordination` for the arguments.

    Raises
    ------
    InputError
        As for `coordination`.
    """
    return Coordination(atoms, radius, power, ascending=True)


def contact_spectrum(atoms: Sequence[int], radius: float, power: int = 8) -> Spectrum:
    """Return the eigenvalues, ascending, of the contact matrix of `atoms`, (n, len(atoms)); for atoms that are alike.

    ``w_ij = 1 / (1 + (r_ij / radius)^power)``, 0 on the diagonal. They say which neighbours are neighbours of each
    other, which coordination numbers do not: two structures of a cluster with the same coordination numbers may
    differ in them. Some 5 microseconds a structure of seven atoms, more than the coordination numbers take.

    See `coordination` for the arguments.

    Raises
    ------
    InputError
        As for `coordination`.

    References
    ----------
    Pietrucci and Andreoni, Phys. Rev. Lett. 107, 085504 (2011), build their collective variables from this matrix.

    Examples
    --------
    Two atoms at `radius`: a matrix with 1/2 off the diagonal.

    >>> x = np.array([[[0.0, 0, 0], [0.3, 0, 0]]])
    >>> evaluate(contact_spectrum([0, 1], radius=0.3), x).round(3)
    array([[-0.5,  0.5]])
    """
    return Spectrum(atoms, radius, power)


def angles(triples: Sequence[tuple[int, int, int]]) -> Angles:
    """Return the cosines of angles at the second of three atoms, (n, len(triples))."""
    return Angles(triples)


def dihedrals(quadruples: Sequence[tuple[int, int, int, int]]) -> Dihedrals:
    """Return the sines, then the cosines of dihedral angles, (n, 2 len(quadruples)).

    The sign is that of mdtraj; trans is 180 degrees. A pair of sine and cosine has no jump, as an angle has.

    Raises
    ------
    InputError
        No quadruples.

    Examples
    --------
    A right angle:

    >>> x = np.array([[[0.0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]]])
    >>> evaluate(dihedrals([(0, 1, 2, 3)]), x).round(3) + 0.0
    array([[1., 0.]])
    """
    return Dihedrals(quadruples)


def as_feature(feature: Feature) -> nn.Module:
    """Return `feature` as a torch module in double precision that gives the same values at every call.

    A module of single precision, or one that is in training mode where that matters, is copied and left as it is; the
    same module, unless it has changed in between, gives the same copy.

    Raises
    ------
    InputError
        Neither a module nor callable.
    """
    if isinstance(feature, nn.Module):
        return feature if _is_settled(feature) else _copy_of(feature)
    if callable(feature):
        return CallableFeature(feature)
    raise bad_input("feature", "a torch module or a callable (n, n_atoms, 3) -> (n, k)", type(feature).__name__)


_copies: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def _is_settled(feature: nn.Module) -> bool:
    """Return whether a module computes in double precision, and does the same in training mode or out of it."""
    tables = [*feature.parameters(), *feature.buffers()]
    double = all(table.dtype == torch.float64 for table in tables if table.is_floating_point())
    return double and not any(part.training and isinstance(part, _TRAINED) for part in feature.modules())


def _copy_of(feature: nn.Module) -> nn.Module:
    known = _copies.get(feature)
    if isinstance(feature, torch.jit.ScriptModule):  # whose deep copies are not of the leaves that autograd wants
        file = io.BytesIO()
        torch.jit.save(feature, file)
        file.seek(0)
        made = torch.jit.load(file).double().eval()
    else:
        made = copy.deepcopy(feature).double().eval()
    if known is None or not _same_tables(made, known):
        known = _copies[feature] = made
    return known


def _same_tables(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def check_feature(feature: nn.Module, positions: NDArray[np.float64]) -> int:
    """Evaluate `feature` on one structure, (n_atoms, 3) in nm, and return its width k.

    Raises
    ------
    InputError
        The feature fails, has the wrong shape or type, or is not finite on this structure.
    """
    x = torch.as_tensor(positions[None].repeat(2, axis=0))
    name = type(feature).__name__
    try:
        y = feature(x)
    except _CALL_ERRORS as error:
        raise bad_input(f"feature {name}", "a function of positions (n, n_atoms, 3)", f"an error: {error}") from None
    if not isinstance(y, Tensor) or y.ndim != 2 or y.shape[0] != 2 or y.shape[1] == 0:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise bad_input(f"feature {name}", "a tensor of shape (n, k) for n = 2 walkers", got, "return one row a walker")
    if not bool(torch.isfinite(y).all()):
        raise bad_input(f"feature {name}", "finite values", "NaN or infinity", "fix the feature on this structure")
    return int(y.shape[1])


def evaluate(feature: Feature, positions: NDArray[np.floating[Any]], chunk: int = 20_000) -> NDArray[np.float64]:
    """Return the values (n, k) of a feature on structures (n, n_atoms, 3) in nm, `chunk` of them at a time."""
    with torch.no_grad():
        parts = [
            feature(torch.as_tensor(np.asarray(positions[i : i + chunk], dtype=np.float64))).numpy()
            for i in range(0, max(len(positions), 1), chunk)
        ]
    values: NDArray[np.float64] = np.concatenate(parts)
    return values


def probe(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return structures (4, n_atoms, 3) on which two features agree only if they compute the same.

    They are the given structure, (n_atoms, 3), and three fixed distortions of it.
    """
    rng = np.random.default_rng(20260101)
    return positions[None] + 0.05 * rng.standard_normal((4, *positions.shape)) * np.arange(4)[:, None, None]


def fingerprint(values: NDArray[np.float64]) -> str:
    """Return a short text that names a feature by its values on the probe: its width, and a digest for messages."""
    digest = hashlib.sha256(np.round(values, 8).astype("<f8").tobytes()).hexdigest()[:12]
    return f"{values.shape[1]}:{digest}"

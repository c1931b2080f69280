"""Finite: name and count structures on which something is NaN or infinite; nothing is dropped or replaced here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFiniteError, bad_input

MOST_SHOWN = 3


def require_finite(values: NDArray[np.float64], what: str, positions: NDArray[np.float64], fix: str = "") -> None:
    """Raise `NotFiniteError` unless values (n,) or (n, k) on structures (n, n_atoms, 3) in nm are all finite."""
    finite = np.isfinite(values)
    bad = np.flatnonzero(~(finite.all(axis=1) if values.ndim == 2 else finite))
    if len(bad):
        who = f"{len(bad)} of {len(positions)} walkers (first: walker {bad[0]}, {place(positions[bad[0]])})"
        raise NotFiniteError(str(bad_input(what, "finite values", f"NaN or infinity for {who}", fix)))


def place(positions: NDArray[np.float64], particle: int | None = None) -> str:
    """Return where a particle of a structure (n_atoms, 3) in nm is, in words; without one, where the first ones are."""
    if particle is not None:
        return f"particle {particle} at {_vector(positions[particle])} nm"
    if len(positions) == 1:
        return place(positions, 0)
    rows = [_vector(row) for row in positions[:MOST_SHOWN]]
    return f"particles at {', '.join(rows)}{' ...' if len(positions) > MOST_SHOWN else ''} nm"


def _vector(row: Any) -> str:
    return f"({', '.join(f'{float(x):.6g}' for x in row)})"

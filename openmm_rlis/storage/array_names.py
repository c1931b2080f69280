"""Array names: the arrays of a part of a round among those of the others, `state/positions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray


def prefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays under `prefix/name`.

    Examples
    --------
    >>> import numpy as np
    >>> prefixed("core", {"radius": np.array(0.2)})
    {'core/radius': array(0.2)}
    """
    return {f"{prefix}/{key}": array for key, array in arrays.items()}


def unprefixed(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of that prefix, by their own names; none if there is no such part."""
    return {key.removeprefix(f"{prefix}/"): array for key, array in arrays.items() if key.startswith(f"{prefix}/")}

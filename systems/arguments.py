"""Checks of the arguments that all systems with named minima take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_rlis.errors import bad_input


def checked_ends(source: str, target: str, others: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names [source, target, *others]; `others` may be a text with commas.

    Raises
    ------
    InputError
        A name is unknown or used twice.
    """
    used = [source, target, *([n for n in others.split(",") if n] if isinstance(others, str) else others)]
    for name in used:
        if name not in known:
            raise bad_input("source, target, others", f"minima out of {', '.join(known)}", repr(name))
    if len(set(used)) != len(used):
        raise bad_input("source, target, others", "three disjoint sets of minima", used, "name each minimum once")
    return used


def checked_beta(beta: float) -> float:
    """Return beta; raises `InputError` unless it is positive and finite."""
    if not np.isfinite(beta) or beta <= 0:
        raise bad_input("beta", "a positive inverse temperature", beta)
    return beta

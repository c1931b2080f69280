"""Arguments of the front door: refused in one line, before anything is written, when they are of the wrong kind."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..config.settings import Settings
from ..errors import bad_input
from ..problem import Problem
from ..value_function import ValueFunction

_KINDS: dict[str, tuple[str, Any]] = {
    "problem": ("an openmm_rlis.Problem", Problem),
    "directory": ("a path", (str, os.PathLike)),
    "settings": ("openmm_rlis.Settings, such as Settings(n_batches=20), or None", (Settings, type(None))),
    "value": ("an openmm_rlis ValueFunction or None", (ValueFunction, type(None))),
    "platform": ("the name of an OpenMM platform or None", (str, type(None))),
}


def check_kinds(**arguments: Any) -> None:
    """Raise `InputError` for the first argument that is not of its kind; `progress` is to be a function or None."""
    for name, given in arguments.items():
        if name == "progress":
            if given is not None and not callable(given):
                raise bad_input(name, "a function of a Progress, or None", repr(given))
        elif not isinstance(given, _KINDS[name][1]):
            raise bad_input(name, _KINDS[name][0], repr(given)[:60])


def check_whole(name: str, given: Any, least: int) -> None:
    """Raise `InputError` unless the argument is a whole number, `least` or more."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < least:
        raise bad_input(name, f"a whole number, {least} or more", repr(given))

"""Exceptions of openmm_rlis.

The tree::

    RlisError                    anything this package raises on purpose
    |-- InputError               the caller can fix it (also a ValueError); exit status 2
    |   |-- UnreachableError     no path from A to B was found
    |   `-- NotFiniteError       a feature is NaN or infinite on some structures
    |-- BackendError             no usable bias backend, or one that disagrees with the others
    |-- DivergedError            a walker's coordinates, weight or energy became NaN or infinite
    |-- StorageError             the run directory cannot be read or written; exit status 2
    `-- WorkerError              a worker process ended without a result
"""

from __future__ import annotations

from typing import Any


class RlisError(Exception):
    """Base of every error raised on purpose by openmm_rlis."""


class InputError(RlisError, ValueError):
    """Bad input: the message names the argument, what was expected, what came and the fix."""


class UnreachableError(InputError):
    """The target region was not reached from the source region; `spent` are the force evaluations and seconds of it."""

    spent: tuple[int, float] = (0, 0.0)


class NotFiniteError(InputError):
    """A feature is not finite on some structures; in a run it becomes a `DivergedError`."""


class BackendError(RlisError):
    """A bias force could not be made or evaluated."""


class DivergedError(RlisError):
    """Coordinates, weights, energies or features of one or more walkers are not finite."""


class StorageError(RlisError):
    """The run directory could not be read or written."""


class WorkerError(RlisError):
    """A worker process ended without a result."""


class TrapFound(Exception):  # noqa: N818
    """A run that looks for traps found one: `trap`, a `traps.Trap`. Who started the search catches it."""

    def __init__(self, trap: Any) -> None:
        super().__init__(trap)  # which is what is sent from process to process
        self.trap = trap


def bad_input(argument: str, expected: str, got: object, fix: str = "") -> InputError:
    """Return the one-line `InputError` used everywhere for bad arguments.

    Parameters
    ----------
    argument, expected, got, fix
        What was wrong, what would have been right, what came, and what to do about it.
    """
    text = f"{argument}: expected {expected}, got {got}" + (f"; {fix}" if fix else "")
    return InputError(" ".join(line.strip() for line in text.splitlines()))


def lost_in(stage: str, error: RlisError, directory: object) -> DivergedError:
    """Return the error of a run that lost walkers in a stage. Lost walkers are not replaced, so there is no rate."""
    again = "resuming it fails in the same way: fix the cause, and start a new run"
    return DivergedError(f"{stage}: {error}; the run in {directory} ends without a rate, and {again}")


class StartNote(UserWarning):
    """Something that is worth knowing before a run starts; the run is right without an answer."""

"""Exit status of the commands: 0 done, 1 failed, 2 bad input or storage, 3 stopped by a limit, 130 interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError, StorageError

DONE, FAILED, BAD_INPUT, LIMIT, INTERRUPTED = 0, 1, 2, 3, 130
_SEVERITY = (DONE, LIMIT, BAD_INPUT, FAILED, INTERRUPTED)


def status_of(result: Any) -> int:
    """Return the exit status of a result: 0 when the target was reached, 3 when a limit stopped it."""
    return DONE if result.stopped == "target" else LIMIT


def worst(statuses: Sequence[int]) -> int:
    """Return the worst of several exit statuses: interrupted, failed (a killed child too), bad input, limit, done."""
    return max((s if s in _SEVERITY else FAILED for s in statuses), key=_SEVERITY.index)


def status_of_error(error: BaseException) -> int:
    """Return the exit status of an exception: 2 for bad input and storage, else 1."""
    return BAD_INPUT if isinstance(error, InputError | StorageError) else FAILED

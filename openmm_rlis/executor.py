"""Executor: run work here, or spread it over processes with Dask.

Every piece of work brings its own random stream, so what comes back does not depend on where or in which order it ran.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from .engine import DeadlineError
from .errors import RlisError

T = TypeVar("T")
KEEP, LARGE = 1 << 30, 1 << 25
"""Bytes that a worker keeps for the next arrays, and of an array that is not among them: Dask's workers give back what
is freed above 64 kB, so that most arrays of a walk come from the system, page by page, which takes as long as using
them."""
OWN_WAYS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": KEEP,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": LARGE,
    "distributed.worker.profile.enabled": False,
}


class Executor:
    """Runs work in this process."""

    def map(self, function: Callable[[Sequence[int]], list[T]], items: Sequence[int]) -> list[T]:
        """Return `function` of the items: the lists that it returns for shares of them, joined in order."""
        return function(items)

    def later(self, function: Callable[..., T]) -> Callable[..., T]:
        """Begin a call of `function` and return what waits for its end; here, the call itself.

        Here `function` may be given arguments when it is waited for, of which other processes see nothing.
        """
        return function


class _Spread(Executor):
    """Runs work in Dask worker processes, which start when they are first needed."""

    def __init__(self, workers: int, stack: ExitStack) -> None:
        self._workers, self._stack, self._known = workers, stack, None

    def map(self, function: Callable[[Sequence[int]], list[T]], items: Sequence[int]) -> list[T]:
        """See `Executor.map`."""
        shares = [share for share in (list(items[i :: self._workers]) for i in range(self._workers)) if share]
        futures = self._client.map(partial(_caught, function), shares, pure=False, retries=0)
        lists = [_told(outcome) for outcome in self._client.gather(futures)]
        found = {b: x for share, xs in zip(shares, lists, strict=True) for b, x in zip(share, xs, strict=True)}
        return [found[b] for b in items]

    def later(self, function: Callable[..., T]) -> Callable[..., T]:
        """See `Executor.later`."""
        future = self._client.submit(_caught, function, pure=False, retries=0)
        return lambda *_: _told(future.result())

    @property
    def _client(self) -> Any:
        if self._known is None:
            self._known = self._stack.enter_context(_cluster(self._workers))
        return self._known


def _caught(function: Callable[..., T], *items: Any) -> T | Exception:
    """Return what a function returns, or the error that it raises on purpose: Dask would print its traceback."""
    try:
        return function(*items)
    except (RlisError, DeadlineError) as error:
        return error


def _told(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def make_executor(workers: int) -> Iterator[Executor]:
    """Yield an executor: of this process for 1 worker, else of as many Dask worker processes on this machine."""
    with ExitStack() as stack:
        yield Executor() if workers <= 1 else _Spread(workers, stack)


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    quiet = logging.ERROR
    with (
        dask.config.set(OWN_WAYS),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=quiet,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client

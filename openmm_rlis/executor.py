"""Executor: run work here, or spread it over processes with Dask.

Every piece of work brings its own random stream, so what comes back does not depend on where or in which order it ran.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from .errors import RlisError, TrapFound
from .meter import SECONDS_BETWEEN_NOTES, LimitError, Meter, Share, active

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

    def __init__(self, workers: int, stack: ExitStack, meter: Meter | None) -> None:
        self._workers, self._stack, self._meter, self._known = workers, stack, meter, None

    def map(self, function: Callable[[Sequence[int]], list[T]], items: Sequence[int]) -> list[T]:
        """See `Executor.map`."""
        shares = [share for share in (list(items[i :: self._workers]) for i in range(self._workers)) if share]
        futures = self._client.map(partial(_caught, self._share, function), shares, pure=False, retries=0)
        self._wait(futures)
        lists = [_told(outcome) for outcome in self._client.gather(futures)]
        found = {b: x for share, xs in zip(shares, lists, strict=True) for b, x in zip(share, xs, strict=True)}
        return [found[b] for b in items]

    def later(self, function: Callable[..., T]) -> Callable[..., T]:
        """See `Executor.later`."""
        future = self._client.submit(_caught, self._share, function, pure=False, retries=0)

        def result(*_: Any) -> T:
            self._wait([future])
            return _told(future.result())

        return result

    def _wait(self, futures: Sequence[Any]) -> None:
        """Wait for the processes; meanwhile the run says that it is alive, and at the end it knows what they spent."""
        if self._meter is None:
            return
        from distributed import wait

        done = not futures
        while not done:
            try:
                wait(futures, timeout=SECONDS_BETWEEN_NOTES)
                done = True
            except TimeoutError:
                self._meter.pulse()
        self._meter.compare()

    @property
    def _share(self) -> Share | None:
        return self._meter.share() if self._meter is not None else None

    @property
    def _client(self) -> Any:
        if self._known is None:
            self._known = self._stack.enter_context(_cluster(self._workers))
        return self._known


def _caught(share: Share | None, function: Callable[..., T], *items: Any) -> T | Exception:
    """Return what a function returns, or the error that it raises on purpose: Dask would print its traceback."""
    try:
        with active(share.meter() if share is not None else None):
            return function(*items)
    except (RlisError, LimitError, TrapFound) as error:
        return error


def _told(outcome: T | Exception) -> T:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextmanager
def make_executor(workers: int, meter: Meter | None = None) -> Iterator[Executor]:
    """Yield an executor: of this process for 1 worker, else of as many Dask worker processes on this machine.

    What the processes do counts on `meter`, under its limits; without one, nothing is counted.
    """
    with ExitStack() as stack:
        yield Executor() if workers <= 1 else _Spread(workers, stack, meter)


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    quiet = logging.ERROR
    with dask.config.set(OWN_WAYS):
        with _deaf_to_interrupts():  # which the processes inherit
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",  # two runs on one machine ask for two ports
                silence_logs=quiet,
                memory_limit=0,
            )
        with cluster, Client(cluster) as client:
            yield client


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, which a terminal sends to every process: this one ends the others, without their tracebacks."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what happens to signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

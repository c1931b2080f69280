"""Executor: run work here, or spread it over processes of this machine (`concurrent.futures`).

Every piece of work brings its own random stream, so what comes back does not depend on where or in which order it ran.
Work is sent with cloudpickle, since regions and features may be functions of a user's script. A process ends at once
when the one that started it does, however that comes: it holds the end of a pipe that closes then.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import cloudpickle

from ..errors import RlisError, TrapFound, WorkerError
from ..storage.cost_meter import SECONDS_BETWEEN_NOTES, LimitError, Meter, active

T = TypeVar("T")
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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


class _Processes(Executor):
    """Runs work in worker processes, which start when they are first needed."""

    def __init__(self, workers: int, stack: ExitStack, meter: Meter | None) -> None:
        self._workers, self._stack, self._meter = workers, stack, meter
        self._known: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[Sequence[int]], list[T]], items: Sequence[int]) -> list[T]:
        """See `Executor.map`."""
        shares = [share for share in (list(items[i :: self._workers]) for i in range(self._workers)) if share]
        lists = self._results([self._submit(function, share) for share in shares])
        found = {b: x for share, xs in zip(shares, lists, strict=True) for b, x in zip(share, xs, strict=True)}
        return [found[b] for b in items]

    def later(self, function: Callable[..., T]) -> Callable[..., T]:
        """See `Executor.later`."""
        future = self._submit(function)

        def result(*_: Any) -> T:
            found: T = self._results([future])[0]
            return found

        return result

    def _submit(self, function: Callable[..., Any], *items: Any) -> Future[bytes]:
        share = self._meter.share() if self._meter is not None else None
        work = cloudpickle.dumps((share, function, items))
        try:
            with _environment_of_workers():
                return self._pool.submit(_work, work)
        except BrokenProcessPool:
            raise _ended() from None

    def _results(self, futures: Sequence[Future[bytes]]) -> list[Any]:
        """Wait for the processes; meanwhile the run says that it is alive, and at the end it knows what they spent."""
        waiting = set(futures)
        while waiting:
            waiting = wait(waiting, timeout=SECONDS_BETWEEN_NOTES).not_done
            if self._meter is not None:
                self._meter.pulse()
        if self._meter is not None:
            self._meter.compare()
        try:
            outcomes = [cloudpickle.loads(future.result()) for future in futures]
        except BrokenProcessPool:
            raise _ended() from None
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return outcomes

    @property
    def _pool(self) -> ProcessPoolExecutor:
        if self._known is None:
            self._known = self._stack.enter_context(_pool(self._workers))
        return self._known


def _ended() -> WorkerError:
    return WorkerError(
        "a worker process ended without a result: killed, or out of memory; whole rounds are stored, and resume goes on"
    )


def _work(work: bytes) -> bytes:
    """Return what a function returns, or the error that it raises on purpose, in a worker process."""
    share, function, items = cloudpickle.loads(work)
    try:
        with active(share.meter() if share is not None else None):
            return _bytes(function(*items))
    except (RlisError, LimitError, TrapFound) as error:
        return _bytes(error)


def _bytes(outcome: Any) -> bytes:
    found: bytes = cloudpickle.dumps(outcome)
    return found


@contextmanager
def make_executor(workers: int, meter: Meter | None = None) -> Iterator[Executor]:
    """Yield an executor: of this process for 1 worker, else of as many worker processes on this machine.

    What the processes do counts on `meter`, under its limits; without one, nothing is counted.
    """
    with ExitStack() as stack:
        yield Executor() if workers <= 1 else _Processes(workers, stack, meter)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")  # OpenMM and torch have threads, which a fork would break
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin, (theirs,))
    try:
        yield pool
    except BaseException:
        ours.close()  # which ends them in the middle of their work
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _begin(parent: Connection) -> None:
    """Make a worker process deaf to Ctrl-C, which a terminal sends to all, and let it end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        try:
            parent.recv()
        finally:
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Let processes that start now hold back Ctrl-C from their first moment, and use one thread each.

    Held back here as well, it is not lost: it comes at the end.
    """
    missing = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, "1"))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for name in missing:
            os.environ.pop(name, None)

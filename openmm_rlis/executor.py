"""Executor: run the batches of a round here, or spread them over processes with Dask.

Every batch has its own random stream, so what comes back does not depend on where or in which order batches ran.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

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
Map = Callable[[Callable[[Sequence[int]], list[T]], Sequence[int]], list[T]]


@contextmanager
def make_executor(workers: int) -> Iterator[Map[Any]]:
    """Yield `map(function, batches)`, which calls `function` on shares of the batches and joins the lists it returns.

    Parameters
    ----------
    workers
        1 runs in this process; more start as many Dask worker processes on this machine.
    """
    if workers <= 1:
        yield lambda function, batches: function(batches)
        return
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
        yield lambda function, batches: _spread(client, workers, function, batches)


def _spread(client: Any, workers: int, function: Callable[[Sequence[int]], list[T]], batches: Sequence[int]) -> list[T]:
    shares = [list(batches[i::workers]) for i in range(workers)]
    shares = [share for share in shares if share]
    futures = client.map(function, shares, pure=False, retries=0)
    found = {
        b: item
        for share, items in zip(shares, client.gather(futures), strict=True)
        for b, item in zip(share, items, strict=True)
    }
    return [found[b] for b in batches]

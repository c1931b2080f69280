"""Executor: one process or several, the same answers in the same order."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from openmm_rlis.errors import InputError, WorkerError
from openmm_rlis.storage.cost_meter import LimitError
from openmm_rlis.walks.workers import _environment_of_workers, make_executor


def squares(batches: Sequence[int]) -> list[int]:
    return [b * b for b in batches]


def where(told: str = "") -> tuple[int, str]:
    return os.getpid(), told


def late() -> None:
    raise LimitError


def wrong(batches: Sequence[int]) -> list[int]:
    if 1 in batches:
        raise InputError("share 1")
    return list(batches)


def process(batches: Sequence[int]) -> list[int]:
    return [os.getpid() for _ in batches]


def test_one_worker_stays_in_this_process() -> None:
    with make_executor(1) as executor:
        assert executor.map(squares, [3, 1, 2]) == [9, 1, 4]
        assert executor.map(process, range(2)) == [os.getpid()] * 2
        assert executor.map(squares, []) == []
        assert executor.later(where)("told") == (os.getpid(), "told")


def test_two_workers_are_two_processes_and_keep_the_order(capfd: pytest.CaptureFixture[str]) -> None:
    with make_executor(2) as executor:
        assert executor.map(squares, [3, 1, 2, 5, 4]) == [9, 1, 4, 25, 16]
        assert executor.map(squares, [7]) == [49]
        assert executor.map(squares, []) == []
        assert os.getpid() not in executor.map(process, range(4))
        begun = executor.later(where)
        assert executor.map(squares, [2]) == [4]
        there, told = begun("told")
        assert there != os.getpid() and told == ""
        with pytest.raises(LimitError):
            executor.later(late)()
        with pytest.raises(InputError, match="share 1"):
            executor.map(wrong, range(2))
        assert "Traceback" not in capfd.readouterr().err
        with pytest.raises(ZeroDivisionError):
            executor.map(lambda batches: [1 // 0 for _ in batches], range(2))


def die(batches: Sequence[int]) -> list[int]:
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def test_an_interrupt_while_workers_start_is_not_lost() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _environment_of_workers():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
            assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"True\n"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_worker_that_is_killed_ends_the_work_with_one_line() -> None:
    with make_executor(2) as executor, pytest.raises(WorkerError, match="ended without a result"):
        executor.map(die, range(2))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from openmm_rlis.walks.workers import _environment_of_workers, make_executor\n"
        "def work(items):\n"
        "    for i in items: (pathlib.Path(sys.argv[1]) / f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(100)\n"
        "if __name__ == '__main__':\n"
        "    with make_executor(2) as executor: executor.map(work, range(2))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    deadline = time.monotonic() + 60.0
    while len(found := list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(found) == 2
    parent.kill()
    parent.wait()
    while any(Path("/proc", file.stem).exists() for file in found) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path("/proc", file.stem).exists() for file in found)


def test_workers_are_not_started_before_there_is_work() -> None:
    begun = time.monotonic()
    with make_executor(2):
        pass
    assert time.monotonic() - begun < 0.5


def faults(batches: Sequence[int]) -> list[int]:
    """Return the page faults of allocating and freeing 400 kB a thousand times."""
    for _ in range(3):
        np.ones(50_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(1000):
        np.ones(50_000)
    return [resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before for _ in batches]


def test_workers_keep_their_memory() -> None:
    with make_executor(2) as executor:
        assert max(executor.map(faults, range(2))) < 10_000  # a fault for each page would be 98 000

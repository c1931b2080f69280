"""`rlis doctor`: what is installed, what works, and a quick check that it does; one line each."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from .errors import RlisError

PACKAGES = ("openmm_rlis", "openmm", "openmmtorch", "torch", "numpy", "scipy", "mdtraj", "matplotlib", "pydantic")


def examine() -> tuple[list[str], bool]:
    """Return the lines to print and whether a run would work here."""
    lines = [f"python      {platform.python_version()} on {platform.platform()} ({sys.executable})"]
    lines += [f"{name:<11} {_version(name)}" for name in PACKAGES]
    try:
        from .bias import backend_status, default_backend, platform_names

        lines.append(f"platforms   {', '.join(platform_names())}")
        lines += [f"backend     {name}: {reason or 'works'}" for name, reason in backend_status().items()]
        lines.append(f"bias        would use the backend {default_backend()}")
    except (ImportError, RlisError) as error:
        return [*lines, f"bias        none works: {' '.join(str(error).split())}"], False
    checks = [_line("dynamics", _check_dynamics), _line("storage", _check_storage)]
    return [*lines, *(line for line, _ in checks)], all(good for _, good in checks)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _line(name: str, check: Callable[[], str]) -> tuple[str, bool]:
    try:
        return f"{name:<11} {check()}", True
    except Exception as error:  # a doctor reports what it finds, whatever it is
        return f"{name:<11} failed: {type(error).__name__}: {' '.join(str(error).split())}", False


def _check_dynamics() -> str:
    """Move four replicas of LJ7 by one lag without bias: finite positions that moved, log-weights exactly zero."""
    import numpy as np

    from .engine import Engine
    from .systems import lj7

    problem = lj7.build()
    start = np.repeat(problem.positions[None], 4, axis=0)
    engine = Engine(problem, n_slots=4)
    engine.reseed(np.random.default_rng(1))
    moved, log_weights = engine.propagate(start)
    if not np.isfinite(moved).all() or np.array_equal(moved, start):
        raise RuntimeError("the replicas did not move")
    if np.any(log_weights != 0.0):
        raise RuntimeError(f"unbiased log-weights are not zero: {log_weights}")
    return "works (4 packed replicas of LJ7, unbiased log-weights exactly 0)"


def _check_storage() -> str:
    """Write a file in the temporary folder and read it back with its checksum."""
    from .storage import RunDirectory

    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory.create(Path(folder) / "run", {}, "<System><Particles><Particle/></Particles></System>")
        run.close()
        problems = run.verify()
    if problems:
        raise RuntimeError(problems[0])
    return "works (a run directory written, read back and verified)"

"""`rlis doctor`: what is installed, what works and how fast, and what to install for the rest; about ten seconds.

Each `Finding` is one line. The machine is fit if every finding that is needed is good: OpenMM's Reference platform
moves replicas, one bias backend gives the right forces, and a run directory can be written. Forces are compared with
central differences of ln V of a random value function of LJ7.
"""

from __future__ import annotations

import importlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "openmm_rlis"
FORCE_TOLERANCE = 1e-5
N_WALKERS, HOLD_STEPS, SPEED_SECONDS = 500, 10, 0.7


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is good, whether a run needs it, and what to do if it is not."""

    kind: str
    name: str
    good: bool
    detail: str
    needed: bool = False
    advice: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """Return the finding as text."""
        return f"{self.kind:<10} " + ": ".join(part for part in (self.name, self.detail) if part)


def examine() -> Iterator[Finding]:
    """Yield what is found, quick things first."""
    yield Finding("python", platform.python_version(), True, f"{platform.platform()}, {sys.executable}")
    yield from _packages()
    try:
        from ..dynamics import bias
    except Exception as error:  # whatever keeps OpenMM or torch from loading
        yield Finding("bias", "", False, _reason(error), True, "install again, as the README says")
        return
    yield from _devices(bias)
    yield from _checked("platform", bias.platform_names(), _check_platform, needed=("Reference",))
    yield from _backends(bias)
    yield from _checked("speed", ["unbiased"], lambda _: _speed(None))
    yield from _checked("storage", [""], lambda _: _check_storage(), needed=("",))


def healthy(findings: list[Finding]) -> bool:
    """Return whether everything that a run needs works."""
    return all(finding.good for finding in findings if finding.needed)


def to_dict(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings for JSON."""
    return {"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]}


def advice(findings: list[Finding]) -> list[str]:
    """Return what to do, a line each, needed things first."""
    bad = [finding for finding in findings if finding.advice and not finding.good]
    return list(dict.fromkeys(f.advice for f in sorted(bad, key=lambda f: not f.needed)))


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what the package asks for, extras too."""
    from packaging.requirements import Requirement

    yield Finding("package", PACKAGE, True, _version(PACKAGE) or "not installed, used from its source folder")
    for text in metadata.requires(PACKAGE) or () if _version(PACKAGE) else ():
        wanted = Requirement(text)
        extra = next((name for name in ("analysis", "notebooks") if f'"{name}"' in str(wanted.marker)), "")
        if wanted.marker is not None and not extra:
            continue
        found = _version(wanted.name)
        good = found is not None and wanted.specifier.contains(found, prereleases=True)
        detail = found or "not installed"
        if found and not good:
            detail += f", outside {wanted.specifier}"
        fix = f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install '{wanted.name}{wanted.specifier}'"
        purpose = f" (for {extra})" if extra else ""
        yield Finding("optional" if extra else "package", wanted.name, good, detail + purpose, advice=fix)


def _devices(bias: Any) -> Iterator[Finding]:
    """Say which plugins of OpenMM did not load, and whether a GPU is there for the platforms that could use it."""
    for line in bias.plugin_failures():
        yield Finding("plugin", "", False, f"not loaded, {line}")
    gpu = bias.gpu_name()
    usable = not gpu or "CUDA" in bias.platform_names()
    detail = f"{gpu}, but OpenMM has no CUDA platform here" if not usable else gpu or "torch finds none"
    yield Finding("gpu", "", usable, detail, advice=f"pip install '{PACKAGE}[cuda12]'")


def _backends(bias: Any) -> Iterator[Finding]:
    """Load each backend, compare its forces, and measure its speed."""
    right = []
    for name, reason in bias.backend_status().items():
        if reason:
            yield Finding("backend", name, False, f"does not load: {reason}", advice=_backend_advice(name))
            continue
        found = list(_checked("backend", [name], _check_backend))
        right += [finding.name for finding in found if finding.good]
        yield from found
    if not right:
        yield Finding("bias", "", False, "no backend works", True, _backend_advice("torch"))
        return
    default = bias.default_backend()
    detail = f"runs use the backend {default}"
    yield Finding("bias", "", default in right, detail, True, "choose another one with --backend")


def _backend_advice(name: str) -> str:
    wanted = {"torch": "openmmtorch==1.5.*' 'torch>=2.9,<2.10", "python": "openmm==8.6.*"}.get(name)
    return f"pip install '{wanted}'" if wanted else ""  # no release has python-torch yet; it is optional


def _checked(
    kind: str, names: list[str], check: Callable[[str], tuple[str, dict[str, float]]], needed: tuple[str, ...] = ()
) -> Iterator[Finding]:
    for name in names:
        try:
            detail, numbers = check(name)
            yield Finding(kind, name, True, detail, name in needed, numbers=numbers)
        except Exception as error:  # a doctor reports what it finds, whatever it is
            yield Finding(kind, name, False, f"failed: {_reason(error)}", name in needed)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_platform(name: str) -> tuple[str, dict[str, float]]:
    """Move four replicas of LJ7 by one lag without bias: finite positions that moved, log-weights exactly zero."""
    from ..dynamics.engine import Engine
    from ..systems import lj7

    problem = lj7.build()
    start = np.repeat(problem.positions[None], 4, axis=0)
    engine = Engine(problem, 4, name)
    engine.reseed(np.random.default_rng(1))
    moved, log_weights = engine.propagate(start)
    if not np.isfinite(moved).all() or np.array_equal(moved, start):
        raise RuntimeError("the replicas did not move")
    if np.any(log_weights != 0.0):
        raise RuntimeError(f"unbiased log-weights are not zero: {log_weights}")
    return "moves replicas", {}


def _check_backend(name: str) -> tuple[str, dict[str, float]]:
    from ..dynamics.bias import force_error
    from ..systems import lj7

    value, problem = _random_value(), lj7.build()
    x = problem.positions + 0.05 * np.random.default_rng(2).standard_normal((3, *problem.positions.shape))
    error = force_error(value, x, problem.kT, name)
    if not error < FORCE_TOLERANCE:
        raise RuntimeError(f"forces are off by {error:.1e} of their size from finite differences")
    text, numbers = _speed(name)
    return f"forces within {error:.0e} of finite differences, {text}", {"force_error": error, **numbers}


def _random_value() -> Any:
    """Return a value function of LJ7 with random weights in its last layers too, which begin at zero."""
    from ..systems import lj7
    from ..value_function import ValueFunction, feature_statistics

    problem, rng = lj7.build(), np.random.default_rng(3)
    cloud = problem.positions + 0.1 * rng.standard_normal((20, *problem.positions.shape))
    statistics = feature_statistics(problem, cloud, problem.positions[None], problem.references["C2"][None])
    arrays = ValueFunction(problem.features, statistics, rng=rng).arrays()
    for key in ("fine.4.weight", "coarse.4.weight"):
        arrays[key] = rng.standard_normal(arrays[key].shape)
    return ValueFunction.from_arrays(problem.features, arrays)


def _speed(backend: str | None) -> tuple[str, dict[str, float]]:
    """Measure walker-steps per second of packed LJ7 on one thread, biased by `backend` or not at all."""
    from ..dynamics.bias import Bias
    from ..dynamics.engine import Engine, one_thread
    from ..systems import lj7

    problem = lj7.build()
    bias = None if backend is None else Bias(_random_value(), 0.5, HOLD_STEPS, backend)
    engine = Engine(problem, N_WALKERS, bias=bias)
    x = np.repeat(problem.positions[None], N_WALKERS, axis=0)
    with one_thread():
        for _ in range(3):  # TorchScript compiles in its first calls
            engine.propagate(x, bias is not None)
        before, begun = engine.cost.force_evaluations, time.perf_counter()
        while time.perf_counter() - begun < SPEED_SECONDS:
            engine.propagate(x, bias is not None)
        speed = (engine.cost.force_evaluations - before) / (time.perf_counter() - begun)
    held = "" if backend is None else f" with the bias held {HOLD_STEPS} steps"
    return f"{speed:.1e} walker-steps/s{held}, LJ7, one thread", {"walker_steps_per_second": speed}


def _check_storage() -> tuple[str, dict[str, float]]:
    """Write a run directory in the temporary folder and read it back with its checksums."""
    storage = importlib.import_module("openmm_rlis.storage.run_directory")
    with tempfile.TemporaryDirectory() as folder:
        run = storage.RunDirectory.create(
            Path(folder) / "run", {}, "<System><Particles><Particle/></Particles></System>"
        )
        run.close()
        problems = run.verify()
    if problems:
        raise RuntimeError(problems[0])
    return "a run directory was written, read back and verified", {}

"""Bias: a value function as an OpenMM Force. The only code that knows the backends.

    U_b(x) = -2 s kT ln V(x),      F_b = 2 s kT grad ln V(x)           (s = 1 is the boosted policy of Kim and Cai)

Three backends compute the same thing: "torch" (openmm-torch's TorchForce, a TorchScript module run from C++),
"python-torch" (PythonTorchForce, where the installed openmm-torch has it) and "python" (OpenMM's own PythonForce, for
any torch). The default is the first that works here, and falling back is said in one line.
"""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import BackendError, bad_input
from ..openmm_system.torch_plugin import load_plugin as _load_plugin
from ..openmm_system.torch_plugin import platform_names as platform_names
from ..value_function import ValueFunction
from .integrators import BIAS_GROUP

BACKENDS = ("torch", "python-torch", "python")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bias:
    """How a value function acts as a force: scale s in [0, 1], steps it is held, backend (None: the best here)."""

    value: ValueFunction
    scale: float = 1.0
    hold_steps: int = 10
    backend: str | None = None


class BiasEnergy(nn.Module):
    """The summed bias energy of packed replicas: positions (n_copies * n_atoms, 3) in nm -> kJ/mol."""

    def __init__(self, value: nn.Module, n_atoms: int, factor: float) -> None:
        super().__init__()
        self.value = value
        self.n_atoms = n_atoms
        self.factor = factor

    def forward(self, positions: Tensor) -> Tensor:
        """Return factor * sum_r ln V(x_r)."""
        x = positions.to(torch.float64).reshape(-1, self.n_atoms, 3)
        return self.factor * self.value(x).sum()


def bias_force(
    value: ValueFunction, n_atoms: int, n_copies: int, kT: float, scale: float = 1.0, backend: str | None = None
) -> openmm.Force:
    """Return the bias force of `n_copies` packed copies, in force group 31.

    Parameters
    ----------
    value
        The frozen value function.
    n_atoms, n_copies
        Atoms of one copy, and copies in the System.
    kT
        In kJ/mol.
    scale
        s in [0, 1]; the estimator is exact for any.
    backend
        One of `BACKENDS`, or None for the first that works.

    Raises
    ------
    BackendError
        The backend asked for is not installed or does not load.
    """
    if not 0.0 <= scale <= 1.0:
        raise bad_input("bias_scale", "a number from 0 to 1", scale)
    module = BiasEnergy(value, n_atoms, -2.0 * scale * kT).eval()
    backend = backend or default_backend()
    if backend == "torch":
        force = _torch_force(module)
    elif backend == "python-torch":
        force = _python_torch_force(module)
    elif backend == "python":
        force = openmm.PythonForce(_NumpyCompute(module))
    else:
        raise bad_input("backend", f"one of {', '.join(BACKENDS)}", repr(backend))
    force.setForceGroup(BIAS_GROUP)
    return force


def backend_status() -> dict[str, str]:
    """Return, for every backend, "" if it works here or the reason why not."""
    reason = _load_plugin()
    return {"torch": reason, "python-torch": reason or _python_torch_missing(), "python": _python_missing()}


def default_backend() -> str:
    """Return the first backend that works, saying in one line when it is not TorchForce."""
    status = backend_status()
    for backend in BACKENDS:
        if not status[backend]:
            if backend != BACKENDS[0]:
                _log.warning("openmm-torch does not load (%s): using the %s backend", status[BACKENDS[0]], backend)
            return backend
    raise BackendError("; ".join(f"{name}: {why}" for name, why in status.items()))


def plugin_failures() -> list[str]:
    """Return why the plugins of OpenMM's platforms did not load, a line each; openmm-torch is in `backend_status`."""
    lines = [" ".join(line.split()) for line in openmm.Platform.getPluginLoadFailures()]
    return [line.split("/")[-1] for line in lines if re.search(r"/libOpenMM(CUDA|HIP|OpenCL|CPU)\.", line)]


def gpu_name() -> str:
    """Return the name of the CUDA device that torch sees, or ""."""
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else ""


def force_error(value: ValueFunction, positions: NDArray[np.float64], kT: float, backend: str) -> float:
    """Return the largest difference between a backend's forces and central differences of 2 kT ln V.

    Relative to the largest force; `positions` are (n, n_atoms, 3) in nm, moved as `n` packed copies.
    """
    n, n_atoms, _ = positions.shape
    system = openmm.System()
    for _ in range(n * n_atoms):
        system.addParticle(1.0)
    system.addForce(bias_force(value, n_atoms, n, kT, 1.0, backend))
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), reference)
    context.setPositions(positions.reshape(-1, 3))
    forces = context.getState(getForces=True).getForces(asNumpy=True)._value.reshape(n, -1)
    h = 1e-5 * np.eye(3 * n_atoms).reshape(-1, n_atoms, 3)
    slopes = [(value.log_value(x + h) - value.log_value(x - h)) / 2e-5 for x in positions]
    expected = 2.0 * kT * np.array(slopes)
    return float(np.abs(forces - expected).max() / np.abs(expected).max())


def _python_torch_missing() -> str:
    import openmmtorch

    return "" if hasattr(openmmtorch, "PythonTorchForce") else "this openmm-torch has no PythonTorchForce"


def _python_missing() -> str:
    return "" if hasattr(openmm, "PythonForce") else "this OpenMM has no PythonForce (8.6 has)"


def _torch_force(module: BiasEnergy) -> openmm.Force:
    reason = _load_plugin()
    if reason:
        raise BackendError(f"backend 'torch' does not load: {reason}; use backend 'python'")
    import openmmtorch

    return openmmtorch.TorchForce(_as_script(module))


def _as_script(module: BiasEnergy) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.script(module)
    except (torch.jit.frontend.FrontendError, RuntimeError, OSError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise BackendError(
            f"backend 'torch' needs features that TorchScript can compile ({first}); "
            "write the feature as a torch module, or use backend 'python'"
        ) from None


def _python_torch_force(module: BiasEnergy) -> openmm.Force:
    reason = backend_status()["python-torch"]
    if reason:
        raise BackendError(f"backend 'python-torch' does not work here: {reason}; use backend 'torch' or 'python'")
    import openmmtorch

    def compute(state: Any, positions: Tensor) -> tuple[Tensor, Tensor]:
        energy, gradient = _energy_and_gradient(module, positions)
        return energy, -gradient.to(positions.dtype)

    return openmmtorch.PythonTorchForce(compute)


class _NumpyCompute:
    """The callback of PythonForce; a class so that it can be pickled with the System."""

    def __init__(self, module: BiasEnergy) -> None:
        self.module = module

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray[Any, np.dtype[np.float64]]]:
        x = torch.as_tensor(state.getPositions(asNumpy=True)._value)
        energy, gradient = _energy_and_gradient(self.module, x)
        return float(energy), -gradient.numpy()


def _energy_and_gradient(module: BiasEnergy, positions: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = positions.detach().clone().requires_grad_(True)
        energy = module(x)
        (gradient,) = torch.autograd.grad(energy, x)
    return energy.detach(), gradient


def scriptable(value: ValueFunction, n_atoms: int) -> bool:
    """Return whether the value function can travel into a TorchForce."""
    try:
        _as_script(BiasEnergy(value, n_atoms, 1.0))
    except BackendError:
        return False
    return True

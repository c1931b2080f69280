"""Global parameters of the forces of a System, which a Context keeps by name, one value for each name.

An integrator reads from the same names. Where a force has a parameter that CustomIntegrator has a meaning of its own
for (`dt` on every platform; `x`, `f0`, `gaussian` and the like on a GPU, where they are not kept apart), the integrator
and the force would read each other's numbers without a word, so such Systems are moved without a CustomIntegrator.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import bad_input

RESERVED = re.compile(r"dt|rlis_.*")
"""Names that a CustomIntegrator of this package does not share with a force on any platform."""
RESERVED_ON_GPU = re.compile(r"dt|rlis_.*|[xvmf]|f\d+|energy\d*|gaussian|uniform")


def global_parameters(system: Any) -> Iterator[tuple[str, float, str]]:
    """Yield name and default value of every global parameter of a System's forces, and the name of the force."""
    yield from _of_forces(system.getForces())


def _of_forces(forces: Iterable[Any]) -> Iterator[tuple[str, float, str]]:
    for force in forces:
        if hasattr(force, "getNumCollectiveVariables"):
            yield from _of_forces(force.getCollectiveVariable(i) for i in range(force.getNumCollectiveVariables()))
        if hasattr(force, "getNumForces"):  # ATMForce
            yield from _of_forces(force.getForce(i) for i in range(force.getNumForces()))
        if hasattr(force, "getNumGlobalParameters"):
            for i in range(force.getNumGlobalParameters()):
                yield force.getGlobalParameterName(i), force.getGlobalParameterDefaultValue(i), force.getName()
        elif hasattr(force, "getGlobalParameters"):  # PythonForce
            for name, value in force.getGlobalParameters().items():
                yield name, float(value), force.getName()


def check_defaults(system: Any) -> None:
    """Raise `InputError` if two forces give one parameter different values; OpenMM makes no Context of these."""
    known: dict[str, tuple[float, str]] = {}
    for name, value, force in global_parameters(system):
        first, other = known.setdefault(name, (value, force))
        if value != first:
            raise bad_input(
                "system",
                "one default value of a global parameter, which all forces share",
                f"{first:g} ({other}) and {value:g} ({force}) for {name!r}",
                "give both the same, or rename one",
            )


def shadow_integrator(system: Any, on_gpu: bool) -> bool:
    """Return whether a force has a parameter that a CustomIntegrator would take for something else."""
    reserved = RESERVED_ON_GPU if on_gpu else RESERVED
    return any(reserved.fullmatch(name) for name, _, _ in global_parameters(system))

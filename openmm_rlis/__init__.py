"""openmm_rlis: rates and paths of rare events in OpenMM, with error bars that can be trusted.

A tour. Hand over a System and two regions; get the rate, the weighted paths, the committor::

    import openmm_rlis as rlis
    from openmm_rlis.systems import lj7

    problem = lj7.build(source="C3", target="C2", others=("C0", "C1"), beta=9.0)
    result = rlis.run(problem, directory="run", seed=1, target_relative_error=0.1)
    print(result.rate)

`Problem` says what is sampled, `Region` where from and to, `features` what the value function sees. `run`, `resume`
and `brute` do the work and `load` reads results, on a laptop without torch or OpenMM. A reader of the code starts
with `sampling.run` and `sampling.driver` (the stages of a run), then `walks.branching_walk` and `basin.exit_flux` (what
is estimated), `statistics.branching` and `statistics.weights` (why it is exact), `learning.learning_rounds` and
`value_function` (what makes it fast). The ladder of the packages stands in CONTRIBUTING.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import features
    from .config.settings import Settings
    from .networks.network import find_traps, network
    from .paths.ensemble import PathEnsemble
    from .problem import Problem
    from .regions import Region
    from .results.result import Result, load
    from .sampling.run import brute, resume, run
    from .statistics.estimators import Estimate
    from .statistics.kinetic_network import Network, Networks
    from .value_function import ValueFunction

_HOME = {
    "Settings": "config.run_config", "Estimate": "statistics.estimators", "PathEnsemble": "paths.ensemble",
    "Network": "statistics.kinetic_network", "Networks": "statistics.kinetic_network",
    "find_traps": "networks.network", "network": "networks.network",
    "Problem": "problem", "Region": "regions", "Result": "results.result", "load": "results.result",
    "brute": "sampling.run", "resume": "sampling.run", "run": "sampling.run", "ValueFunction": "value_function",
}  # fmt: skip

__all__ = [
    "Estimate", "Network", "Networks", "PathEnsemble", "Problem", "Region", "Result", "Settings",
    "ValueFunction", "brute", "features", "find_traps", "load", "network", "resume", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import public names when first used, so that results can be read without torch and OpenMM."""
    if name == "features":
        return importlib.import_module(".features", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

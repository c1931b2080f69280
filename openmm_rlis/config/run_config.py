"""What a run is told: its configuration as a frozen pydantic model, with YAML in and out.

`RunConfig` holds a whole command: system (a name, or an own one as in `user_system`), options, seed, targets and
limits. Unknown names and values out of range raise a one-line `InputError`. Neither torch nor openmm is needed here,
and no system is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from ..errors import bad_input
from .base import ConfigModel, validated
from .settings import Settings
from .user_system import PREFIX, OwnSystem
from .yaml_values import read_yaml

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, Direction] = ("forward", "backward")
SystemName = Annotated[str, StringConstraints(min_length=1)]
AnySystem = Annotated[
    Annotated[SystemName, Tag("<name>")] | Annotated[OwnSystem, Tag("<own>")],
    Discriminator(lambda value: "<own>" if isinstance(value, Mapping | OwnSystem) else "<name>"),
]

LIMITS = {
    "target_relative_error": "--target-error",
    "max_force_evaluations": "--max-evals",
    "max_seconds": "--max-time",
}
"""Options of the command line for the targets and limits of a run."""

_BACKWARD_SEED = 1_000_000


class RunConfig(ConfigModel):
    """One command: which system, which estimate, how exact and how long."""

    format_version: Literal[1] = 1
    """Version of this file format."""
    method: Literal["run", "brute"] = "run"
    """`run`: branching and bias; `brute`: the same definitions without either."""
    system: AnySystem
    """Name of a packaged system, see `rlis systems`; or an own system, described here."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a packaged system, see `rlis systems`; of an own one source, target, others, temperature, friction,
    timestep and lag_steps may be given here, and then count instead of its own."""
    settings: Settings = Field(default_factory=Settings)
    """Sampler settings."""
    seed: int = Field(1, ge=0, lt=2**63)
    """Seed of every random stream of the run."""
    target_relative_error: float = Field(0.1, gt=0.0, lt=1.0)
    """The run ends when standard error / rate falls below this, or below half of it while an alarm doubts the error;
    0.1 by default, 0.05 for `brute`."""
    max_force_evaluations: int | None = Field(None, gt=0)
    """Limit on force evaluations (forces of one walker once), for each direction."""
    max_seconds: float | None = Field(None, gt=0.0)
    """Limit on wall time in seconds, for each direction."""
    workers: int = Field(1, ge=1, le=10_000)
    """Processes; with `both`, two or more run the directions at the same time."""
    platform: str | None = None
    """OpenMM platform name; without one, that which suits the system."""
    both: bool = False
    """Run A to B and B to A."""

    @model_validator(mode="before")
    @classmethod
    def _brute_is_cheap(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("method") == "brute":
            return {"target_relative_error": 0.05, **values}
        return values

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return a validated configuration; raises a one-line `InputError` that names the entry."""
        return validated(cls, values)

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Return the configuration in a YAML file; raises `InputError` for anything unreadable in it."""
        return cls.from_mapping(read_yaml(path)).located(path.parent)

    def located(self, folder: Path) -> Self:
        """Return a copy in which the files of an own system, if their paths are relative, are those in `folder`."""
        return self.with_system(self.system.located(folder)) if isinstance(self.system, OwnSystem) else self

    def with_system(self, system: OwnSystem) -> Self:
        """Return a copy with another own system."""
        return self.model_copy(update={"system": system})

    @property
    def auto(self) -> bool:
        """Whether a run looks for the other regions itself."""
        one_run = self.method == "run" and not self.both
        return one_run and isinstance(self.system, OwnSystem) and self.system.with_options(self.options).auto

    @property
    def title(self) -> str:
        """The name of the system."""
        return PREFIX + self.system.name if isinstance(self.system, OwnSystem) else self.system

    def to_mapping(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings, as `from_mapping` takes them."""
        return self.model_dump(mode="json")

    def to_yaml(self, path: Path) -> None:
        """Write the configuration as a YAML file."""
        path.write_text(yaml.safe_dump(self.to_mapping(), sort_keys=False), encoding="utf-8")

    def one_way(self, direction: Direction, defaults: Mapping[str, Any]) -> Self:
        """Return the configuration of one direction: `backward` swaps source and target and takes another seed.

        Parameters
        ----------
        direction
            "forward" or "backward".
        defaults
            Default options of the system's `build`, for a source or target that was not given.
        """
        share = max(1, self.workers // 2)
        if direction == "forward":
            return self.model_copy(update={"both": False, "workers": share})
        ends = {**defaults, **self.options}
        if "source" not in ends or "target" not in ends:
            raise bad_input("--both", "a system with the options source and target", self.title, "run one direction")
        options = {**self.options, "source": ends["target"], "target": ends["source"]}
        seed = (self.seed + _BACKWARD_SEED) % 2**63  # the same noise in both directions would tie their errors together
        return self.model_copy(update={"both": False, "workers": share, "options": options, "seed": seed})

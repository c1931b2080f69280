"""What a run is told: sampler settings and the run's own configuration, with YAML in and out.

Two frozen pydantic models. `Settings` holds every number that the sampler may be tuned by; none of them changes what is
estimated, only its cost. `RunConfig` holds a whole command: system (a name, or an own one as in `own`), options, seed,
targets and limits. Unknown names and values out of range raise a one-line `InputError`. Neither torch nor openmm is
needed here, and no system is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from . import yaml_text
from .disk import read
from .errors import bad_input
from .own import PREFIX, OwnSystem
from .sections import Section, validated

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, Direction] = ("forward", "backward")
SystemName = Annotated[str, StringConstraints(min_length=1)]
AnySystem = Annotated[
    Annotated[SystemName, Tag("<name>")] | Annotated[OwnSystem, Tag("<own>")],
    Discriminator(lambda value: "<own>" if isinstance(value, Mapping | OwnSystem) else "<name>"),
]

# YAML 1.1 reads 5e-5 as text because it has no dot; people who write it mean a number.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
_BACKWARD_SEED = 1_000_000


class Settings(Section):
    """How the sampler works: cost and variance depend on these numbers, the expected result does not."""

    n_batches: int = Field(20, ge=2, le=10_000)
    """Independent batches, each with its own run in A, exits and roots; the error bar comes from their spread."""
    replicas: int = Field(25, ge=1, le=100_000)
    """Replicas of the unbiased run in A, for each batch."""
    bias_scale: float = Field(0.0, ge=0.0, le=1.0)
    """Share s of the bias force 2 kT grad ln V that is applied; 0 leaves branching alone."""
    hold_steps: int = Field(10, ge=1, le=10_000)
    """Time steps for which one evaluation of the bias force is held."""
    window_low: float = Field(0.1, ge=0.0, lt=1.0)
    """Walkers with G = W u(x)/u(x_0) below this play roulette, u the importance; 0 never does."""
    window_high: float = Field(2.0, gt=1.0)
    """Walkers with G above this are split."""
    uniform_share: float = Field(0.2, gt=0.0, le=1.0)
    """Share of roots drawn from the pool of exits uniformly instead of in proportion to their importance."""
    coarse_share: float = Field(0.2, gt=0.0, lt=1.0)
    """Share of the coarse value function in the mixture that steers branching, (1 - e) V_fine + e V_coarse."""
    learning_rounds: int = Field(6, ge=0, le=1_000)
    """Rounds of walking and training before the value function is frozen; up to thrice as many where that pays."""
    failure_share: float = Field(0.01, ge=0.0, le=1.0)
    """Share of failing paths that is kept on disk."""
    defensive_share: float = Field(1.0, ge=0.0, le=1.0)
    """Share of roots whose walkers play no roulette: they see every channel, whatever V says."""
    core: bool = True
    """Start walks at an inner core of A where exits from A are rare (see `core`), unless a value function is given; the
    rate is that of A either way."""
    excursion_lags: int = Field(64, ge=0, le=1_000_000)
    """Lags for which the basin simulation follows an excursion from A (from its core); how long those last that take
    longer is counted by the walks (see `basin`)."""
    control: bool = True
    """Take from the arrivals what the noise did to V on the way, zero on average (see `control`): less variance."""
    unbiased_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of roots whose walkers feel no bias even when `bias_scale` is positive."""
    learning_roots: int = Field(400, ge=10, le=1_000_000)
    """Roots of one planned round of learning; rounds beyond take more."""
    loss: Literal["poisson", "itakura-saito"] = "poisson"
    """Loss of the value function."""
    decay: float = Field(0.95, ge=0.0, le=1.0)
    """lambda of the TD(lambda) targets that are mixed with the tree returns; 1 uses tree returns alone."""
    frame_stride: int = Field(5, ge=1, le=1_000_000)
    """A frame of a path is recorded every this many lags."""
    max_walkers: int = Field(200, ge=2)
    """More walkers of one root than this are thinned to this number by systematic resampling, without bias."""
    n_slots: int = Field(512, ge=1, le=1_000_000)
    """Walkers that one Context moves at a time."""
    backend: Literal["torch", "python-torch", "python"] | None = None
    """Bias backend; without one, the first that works."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Return validated settings; raises a one-line `InputError` that names the setting."""
        return validated(cls, values, "settings.")


class RunConfig(Section):
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, numbers such as 5e-5 included.

    Raises
    ------
    InputError
        The file is missing, unreadable, not YAML or not a mapping.
    """
    try:
        content = yaml_text.load(read(path).decode())
    except RecursionError:
        raise bad_input(str(path), "YAML without a value inside itself", "one nested without end") from None
    except (OSError, UnicodeDecodeError) as error:
        raise bad_input(str(path), "a readable YAML file", getattr(error, "strerror", None) or "binary data") from None
    except yaml.YAMLError as error:
        raise bad_input(str(path), "valid YAML", " ".join(str(error).split())) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise bad_input(str(path), "a YAML mapping of names to values", type(content).__name__)
    return {key: _numbers(value) for key, value in content.items()}


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return (key, value) of a `key=value` argument; the value is read as YAML: 5e-5, true, none, [C0, C1], text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise bad_input("--set", "key=value", repr(text))
    return key.strip(), parse_value(value, f"--set {key.strip()}")


def parse_value(text: str, argument: str) -> Any:
    """Return one value read as YAML; raises `InputError` naming `argument` when it is not YAML."""
    try:
        value = yaml_text.load(text)
    except (yaml.YAMLError, RecursionError):
        raise bad_input(argument, "a YAML value such as 5e-5, true or [C0, C1]", repr(text)) from None
    return None if value == "none" else _numbers(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return value

"""An own system in config.yaml: files, dynamics, features and regions, as pydantic models; nothing is read here.

    system: {xml, structure, temperature, friction, timestep, lag_steps, features, regions, source, target, others}

A region is a box of intervals in features (`within`) or a ball about a structure in the space of features (`ball`).
Intervals of dihedrals go upwards from the first to the second number, through 180 degrees where need be.
`problem_from_files` makes the Problem. Neither torch nor openmm is needed here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, WithJsonSchema, model_validator

from ..errors import bad_input
from .base import ConfigModel, Length, Rate, Temperature, Time, in_units, unknown_name, validated

PREFIX = "own:"
"""How the name of an own system begins in results, so that no packaged one is mistaken for it."""
AUTO = "auto"
"""What `others` may be instead of names: the run looks for them itself."""
OPTIONS = ("source", "target", "others", "temperature", "friction", "timestep", "lag_steps")
"""What `--set` and the entry `options` may change of an own system."""

NAMED: Any = {"additionalProperties": False}  # no other names than those of the pattern, for editors
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]{1,40}$")]


def _atom(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise ValueError("an atom: its index, from 0, or an mdtraj selection of one atom")
    return value


def _group(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError("an mdtraj selection, or a list of two or more atoms")
    return [_atom(atom) for atom in value]


def _bound(value: Any) -> Any:
    if isinstance(value, bool) or not (value is None or isinstance(value, int | float | str)):
        raise ValueError("a number, a number with a unit, or null for an open end")
    return value


def _others(value: Any) -> Any:
    return [AUTO] if value == AUTO else value


_OTHERS: Any = {
    "anyOf": [{"const": AUTO}, {"type": "array", "items": {"type": "string", "pattern": r"^[A-Za-z0-9_.+-]{1,40}$"}}]
}
Atom = Annotated[int | str, BeforeValidator(_atom)]
Group = Annotated[str | list[int | str], BeforeValidator(_group)]
Bound = Annotated[float | str | None, BeforeValidator(_bound)]


class Distance(ConfigModel):
    """Distance of two atoms, in nm."""

    unit: ClassVar[str] = "length"
    distance: tuple[Atom, Atom]
    """Two atoms, each an index from 0 or an mdtraj selection of one atom."""


class Angle(ConfigModel):
    """Angle at the second of three atoms, 0 to 180 degrees; the value function sees its cosine."""

    unit: ClassVar[str] = "angle"
    angle: tuple[Atom, Atom, Atom]
    """Three atoms, each an index from 0 or an mdtraj selection of one atom."""


class Dihedral(ConfigModel):
    """Dihedral angle of four atoms, periodic; the value function and balls see its sine and cosine."""

    unit: ClassVar[str] = "angle"
    dihedral: tuple[Atom, Atom, Atom, Atom]
    """Four atoms, each an index from 0 or an mdtraj selection of one atom."""


class Coordinate(ConfigModel):
    """One coordinate of one atom, in nm; only for systems that something holds in space."""

    unit: ClassVar[str] = "length"
    coordinate: tuple[Atom, Literal["x", "y", "z"]]
    """The atom and the axis, x, y or z."""


class Distances(ConfigModel):
    """Distances of all pairs of a group, in nm; for the value function and for balls, not for intervals."""

    unit: ClassVar[str] = ""
    distances: Group
    """An mdtraj selection, or a list of atoms."""
    ascending: bool = False
    """Sort them, so that exchanging like atoms changes nothing."""


class Coordination(ConfigModel):
    """Coordination numbers sum_j 1 / (1 + (r_ij / radius)^power) in a group; for the value function and for balls."""

    unit: ClassVar[str] = ""
    coordination: Group
    """An mdtraj selection, or a list of atoms."""
    radius: Length
    """Distance at which a neighbour counts one half, in nm."""
    power: int = Field(8, ge=2, le=64, multiple_of=2)
    """Even; the larger, the sharper."""
    ascending: bool = False
    """Sort them, so that exchanging like atoms changes nothing."""


class Spectrum(ConfigModel):
    """Eigenvalues of the contact matrix, 1 / (1 + (r_ij / radius)^power), of a group of atoms that are alike."""

    unit: ClassVar[str] = ""
    spectrum: Group
    """An mdtraj selection, or a list of atoms."""
    radius: Length
    """Distance at which a neighbour counts one half, in nm."""
    power: int = Field(8, ge=2, le=64, multiple_of=2)
    """Even; the larger, the sharper."""


def _kind(kinds: tuple[str, ...]) -> Discriminator:
    """Return what tells the models of a union by the name that only one of them has, or the nearest to it."""

    def tag(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return next((f"<{kind}>" for kind in kinds if hasattr(value, kind)), None)
        near = (hit for key in value for hit in difflib.get_close_matches(str(key), kinds, n=1))
        found = next((kind for kind in kinds if kind in value), None) or next(near, None)
        return f"<{found}>" if found else None

    return Discriminator(tag, custom_error_type="kind", custom_error_message=f"a mapping with {' or '.join(kinds)}")


AnyFeature = Annotated[
    Annotated[Distance, Tag("<distance>")] | Annotated[Angle, Tag("<angle>")] | Annotated[Dihedral, Tag("<dihedral>")]
    | Annotated[Coordinate, Tag("<coordinate>")] | Annotated[Distances, Tag("<distances>")]
    | Annotated[Coordination, Tag("<coordination>")] | Annotated[Spectrum, Tag("<spectrum>")],
    _kind(("distance", "angle", "dihedral", "coordinate", "distances", "coordination", "spectrum")),
]  # fmt: skip


class Within(ConfigModel):
    """A box: every named feature lies in its interval."""

    within: dict[Name, tuple[Bound, Bound]] = Field(min_length=1, json_schema_extra=NAMED)
    """Interval by name of feature, ends included. Angles need a unit, [-150 deg, -30 deg]; a dihedral goes upwards from
    the first to the second, so [150 deg, -150 deg] is the sixty degrees about 180. null is an open end."""
    structure: Path | None = None
    """PDB or mmCIF file of a structure inside the region, with the same atoms: where a run from this region starts when
    the main structure lies elsewhere."""


class BallShape(ConfigModel):
    """A ball about a structure: the norm of the difference of the features is at most the radius."""

    around: Path
    """PDB or mmCIF file of the structure in the middle, with the same atoms; a run from this region starts there when
    the main structure lies elsewhere."""
    features: list[Name] = Field(min_length=1)
    """Names of features; dihedrals count as sine and cosine, angles as cosine, distances in nm."""
    radius: float = Field(gt=0.0)
    """Largest norm of the difference, in the features' own units."""


class Ball(ConfigModel):
    """A ball about a structure in the space of features."""

    ball: BallShape
    """Its middle, its features and its radius."""


AnyRegion = Annotated[Annotated[Within, Tag("<within>")] | Annotated[Ball, Tag("<ball>")], _kind(("within", "ball"))]


class OwnSystem(ConfigModel):
    """A system of your own, from files; paths are relative to the configuration file."""

    name: Name = "system"
    """What results and figures call it."""
    xml: Path
    """The System, as openmm.XmlSerializer writes it; without constraints, virtual sites, barostat."""
    structure: Path
    """PDB or mmCIF file with the topology; a run starts from it if it lies in the source region."""
    minimize: bool = False
    """Bring structures to their energy minimum before they are used; otherwise they are used as they are."""
    temperature: Temperature
    """With a unit, 300 K, or in K."""
    friction: Rate
    """With a unit, 1/ps, or in 1/ps."""
    timestep: Time
    """Step of the overdamped (Brownian) dynamics, with a unit, 0.5 fs, or in ps."""
    lag_steps: int = Field(20, ge=1, le=100_000)
    """The regions are tested every this many steps."""
    dimensions: Literal[1, 2, 3] = 3
    """3; or 2, z does not move; or 1, nor does y."""
    features: dict[Name, AnyFeature] = Field(min_length=1, json_schema_extra=NAMED)
    """What regions, and the value function, see of a structure, by names of your own."""
    value_features: list[Name] | None = Field(None, min_length=1)
    """Names of the features that the value function sees; all of them by default."""
    regions: dict[Name, AnyRegion] = Field(min_length=2, json_schema_extra=NAMED)
    """Regions by name; they must not overlap."""
    source: Name
    """Name of the region where paths begin."""
    target: Name
    """Name of the region where they should arrive."""
    others: Annotated[list[Name], BeforeValidator(_others), WithJsonSchema(_OTHERS)] = Field(default_factory=list)
    """Names of further regions, where paths end without having arrived; or `auto`: the run looks for places outside all
    regions where walkers stay, and gives the rate over them."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for entry, used in (("source", [self.source]), ("target", [self.target]), ("others", self.named)):
            for name in used:
                if name not in self.regions:
                    raise unknown_name(f"system.{entry}", name, list(self.regions))
        ends = [self.source, self.target, *self.named]
        if len(set(ends)) != len(ends):
            raise bad_input("system.source, target, others", "different regions", ", ".join(ends))
        self._check_features("system.value_features", self.value_features or ())
        for name, region in self.regions.items():
            if isinstance(region, Ball):
                self._check_features(f"system.regions.{name}.ball.features", region.ball.features)
            else:
                self._check_features(f"system.regions.{name}.within", region.within)
                for feature, interval in region.within.items():
                    limits(self.features[feature], interval, f"system.regions.{name}.within.{feature}")
        return self

    @property
    def auto(self) -> bool:
        """Whether the run looks for the other regions itself."""
        return self.others == [AUTO] and AUTO not in self.regions

    @property
    def named(self) -> list[str]:
        """Names of the other regions, none while the run looks for them itself."""
        return [] if self.auto else self.others

    def _check_features(self, argument: str, names: Any) -> None:
        for name in names:
            if name not in self.features:
                raise unknown_name(argument, name, list(self.features))

    def files(self) -> dict[str, Path]:
        """Return every file that is named, by its place in `with_files`: xml, structure and the regions' own."""
        found = {"xml": self.xml, "structure": self.structure}
        for name, region in self.regions.items():
            path = region.ball.around if isinstance(region, Ball) else region.structure
            if path is not None:
                found[f"region-{name}"] = path
        return found

    def with_files(self, paths: Mapping[str, Path]) -> Self:
        """Return a copy with other paths for the files, keyed as in `files`."""
        regions: dict[str, Any] = {}
        for name, region in self.regions.items():
            path = paths.get(f"region-{name}")
            if isinstance(region, Ball):
                regions[name] = region.model_copy(update={"ball": region.ball.model_copy(update={"around": path})})
            else:
                regions[name] = region.model_copy(update={"structure": path})
        return self.model_copy(update={"xml": paths["xml"], "structure": paths["structure"], "regions": regions})

    def located(self, folder: Path) -> Self:
        """Return a copy whose paths, if relative, start in `folder`."""
        return self.with_files({key: folder / path.expanduser() for key, path in self.files().items()})

    def with_options(self, options: Mapping[str, Any]) -> OwnSystem:
        """Return a copy with some of `OPTIONS` changed.

        Raises
        ------
        InputError
            Another name, or a bad value.
        """
        for name in options:
            if name not in OPTIONS:
                raise unknown_name("option of an own system", name, list(OPTIONS))
        return validated(OwnSystem, {**self.to_mapping(), **options}, "system.") if options else self

    def to_mapping(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and strings, as the entry `system` of config.yaml takes them."""
        return self.model_dump(mode="json", exclude_none=True)


def limits(feature: Any, interval: tuple[Any, Any], argument: str) -> tuple[float, float]:
    """Return an interval of a feature as numbers in nm or rad; an open end is infinite, dihedrals have low < high.

    Raises
    ------
    InputError
        The feature has no intervals, a unit is missing or wrong, or the interval is empty.
    """
    if not feature.unit:
        fix = "use a ball for the others"
        raise bad_input(argument, "a distance, angle, dihedral or coordinate", type(feature).__name__.lower(), fix)
    low, high = ends = [
        open_end if end is None else _end(feature, end, argument)
        for end, open_end in zip(interval, (-math.inf, math.inf), strict=True)
    ]
    if isinstance(feature, Dihedral):
        if not all(map(math.isfinite, ends)) or abs(high - low) >= 2.0 * math.pi:
            fix = "write for example [150 deg, -150 deg]"
            raise bad_input(argument, "two ends that span less than the circle", list(interval), fix)
        high += 2.0 * math.pi * (high < low)
    if not low < high or not any(map(math.isfinite, ends)):
        raise bad_input(argument, "an interval [low, high] that is not empty", list(interval))
    return low, high


def _end(feature: Any, end: Any, argument: str) -> float:
    try:
        return in_units(feature.unit, end, plain=feature.unit != "angle")
    except ValueError as error:
        raise bad_input(argument, str(error), repr(end), "for example [-150 deg, -30 deg]") from None

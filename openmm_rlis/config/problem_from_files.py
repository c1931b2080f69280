"""From the files and names of an own system to a `Problem`, and again from the copies in a run directory.

    config.yaml + System XML + structures  ->  Problem  ->  run directory with its own copies  ->  the same Problem

A structure that was brought to its minimum is written down first and read back, so that both times the very same
coordinates are used. Walkers are never wrapped; features take the nearest image where the System is periodic.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from .. import contacts, features
from ..errors import InputError, bad_input
from ..features import evaluate
from ..geometry.periodic import set_box
from ..openmm_system import system_xml
from ..openmm_system.atom_order import check_order, check_same_order
from ..openmm_system.periodic_box import check_box, unit_cell
from ..problem import Problem
from ..regions import Box, Region
from ..safe_readers.structure_text import decoded, names_in_file, records, repeated
from ..storage.atomic_files import MANIFEST, checked_text, inside, read, unseal
from ..storage.new_run import INPUTS
from ..units import thermal_energy
from .atom_selections import Selector
from .base import validated
from .user_system import (
    PREFIX,
    Angle,
    Ball,
    Coordinate,
    Coordination,
    Dihedral,
    Distance,
    Distances,
    OwnSystem,
    Spectrum,
    limits,
)

STEPS = {"length": 0.1, "angle": 0.35}
"""How far outside of a wide or open interval counts as one half-width: nm, rad."""
Array = NDArray[np.float64]
_READERS = {".pdb": app.PDBFile, ".ent": app.PDBFile, ".cif": app.PDBxFile, ".mmcif": app.PDBxFile}


@dataclass(frozen=True)
class _Text:
    """A file that was read: where it stood and what it said."""

    path: Path
    content: str


@dataclass(frozen=True)
class _Structure:
    path: Path
    topology: app.Topology
    positions: Array
    names: list[tuple[str, str]]
    """Of atoms and residues, as the file has them."""


def build(section: OwnSystem, trusted: bool = False) -> Problem:
    """Return the problem of an own system from the user's files; `trusted` ones may hold forces that run code.

    Raises
    ------
    InputError
        A file cannot be read or does not fit, a selection finds something else than it should, the start is not in
        the source, regions overlap, or the System has parts that `Problem` refuses.
    """
    if section.auto:
        fix = "it is for `rlis run` in one direction; look for them first and name them here"
        raise bad_input("others", "names of regions", "auto", fix)
    texts = {key: _Text(path, _read(path, key)) for key, path in section.files().items()}
    return _assembled(section, texts, trusted)


def rebuild(options: Mapping[str, Any], directory: Path, trusted: bool = False) -> Problem:
    """Return the problem again from its recipe and the copies of its files in a run directory.

    That a run was started from trusted files is not remembered: its directory may have been changed since.

    Raises
    ------
    InputError, StorageError
        The recipe or a file is not as it was written.
    """
    section = validated(OwnSystem, options, "system.")
    sums = unseal(directory / MANIFEST)["files"]
    texts = {}
    for key, path in section.files().items():
        file = inside(directory, str(path))
        texts[key] = _Text(file, checked_text(file, sums.get(str(path), "")))
    return _assembled(section, texts, trusted)


def copied(section: OwnSystem, folder: Path) -> OwnSystem:
    """Copy the files of an own system into `folder`/inputs and return the section that names the copies."""
    places = _places(section.files())
    (folder / INPUTS).mkdir(exist_ok=True)
    for key, path in section.files().items():
        (folder / places[key]).write_text(_read(path, key), encoding="utf-8")
    return section.with_files(places)


def _places(files: Mapping[str, Path]) -> dict[str, Path]:
    places = {key: Path(INPUTS) / f"{key}{path.suffix.lower()}" for key, path in files.items()}
    return {**places, "xml": Path(INPUTS) / "system.xml"}


def _argument(key: str) -> str:
    return f"system.{key.replace('region-', 'regions.')}"


def _read(path: Path, key: str) -> str:
    try:
        return decoded(read(path), latin=key != "xml")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise bad_input(_argument(key), "a readable text file", f"{path}: {reason}") from None


def _assembled(section: OwnSystem, texts: Mapping[str, _Text], trusted: bool) -> Problem:
    system = system_xml.read(texts["xml"].content, texts["xml"].path, trusted)
    system_xml.check(system)
    texts = dict(texts)
    structures = {key: _structure(texts[key], key, system) for key in texts if key != "xml"}
    for key, found in structures.items():  # before anything is minimised: that hides another order of atoms
        check_order(
            system,
            found.topology,
            found.positions,
            thermal_energy(section.temperature),
            2 * (_argument(key),),
            str(found.path),
        )
        check_box(system, found.topology, _argument(key), str(found.path))
        check_same_order(structures["structure"].topology, found.topology, _argument(key), str(found.path))
    if section.minimize:
        for key, rough in structures.items():
            path, content = rough.path.with_suffix(".pdb"), _minimized(system, rough)
            texts[key] = _Text(path, content)
            structures[key] = replace(_structure(texts[key], key, system), names=rough.names)
    return _Assembly(section, system, structures).problem(texts)


def _structure(text: _Text, key: str, system: openmm.System) -> _Structure:
    argument, reader = _argument(key), _READERS.get(text.path.suffix.lower())
    if reader is None:
        raise bad_input(argument, f"a file that ends in {', '.join(_READERS)}", str(text.path))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*duplicate atom")  # which `_lost` tells
            read = reader(io.StringIO(text.content))
        positions = np.array(read.getPositions(asNumpy=True).value_in_unit(unit.nanometer), dtype=np.float64)
    except Exception as error:  # the readers raise whatever a bad line makes them stumble over
        raise bad_input(argument, "a PDB or mmCIF structure", f"{text.path}: {type(error).__name__}: {error}") from None
    if len(positions) != system.getNumParticles():
        expected = f"{system.getNumParticles()} atoms, as the System has"
        raise bad_input(argument, expected, f"{len(positions)} in {text.path}", _lost(text, len(positions)))
    if not np.isfinite(positions).all():
        raise bad_input(argument, "finite coordinates", f"NaN or infinity in {text.path}")
    names = names_in_file("" if reader is app.PDBxFile else text.content, read.topology)
    return _Structure(text.path, read.topology, positions, names)


def _lost(text: _Text, n_atoms: int) -> str:
    """Return why a PDB file has more lines of atoms than its reader found, if it has."""
    found = [] if _READERS[text.path.suffix.lower()] is app.PDBxFile else records(text.content)
    same = repeated(found)
    if not same or len(found) <= n_atoms:
        return ""
    return f"its {len(found)} atoms do not all have a name of their own in their residue (first: {same}): rename them"


def _minimized(system: openmm.System, structure: _Structure) -> str:
    """Return the PDB text of the structure at its energy minimum."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(structure.positions)
    try:
        openmm.LocalEnergyMinimizer.minimize(context)
        state = context.getState(getPositions=True, getEnergy=True)
        reason = f"an energy of {state.getPotentialEnergy()}"
    except openmm.OpenMMException as error:
        state, reason = None, str(error)
    if state is None or not math.isfinite(state.getPotentialEnergy()._value):
        raise bad_input("system.minimize", "a structure with a finite energy", f"{structure.path}: {reason}")
    text = io.StringIO()
    app.PDBFile.writeFile(structure.topology, state.getPositions(), text, keepIds=True)
    return text.getvalue()


@dataclass
class _Assembly:
    """An own system with its files read; makes each feature once, so that regions may share it."""

    section: OwnSystem
    system: openmm.System
    structures: Mapping[str, _Structure]
    _joined: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        structure = self.structures["structure"]
        self._selector = Selector.of(structure.topology, structure.names)

    def problem(self, texts: Mapping[str, _Text]) -> Problem:
        """Return the problem, with the recipe and the files that make it again."""
        section = self.section
        names = [section.source, section.target, *section.others]
        made = {name: self._region(name) for name in names}
        self._check_overlap(names)
        references = self._references(made)
        if section.source not in references:
            fix = f"give another, or add `structure` to regions.{section.source}"
            raise self._outside(section.source, "structure", fix)
        problem = Problem(
            self.system,
            references[section.source],
            self.structures["structure"].topology,
            source=made[section.source],
            target=made[section.target],
            others=[made[name] for name in section.others],
            temperature=section.temperature,
            friction=section.friction,
            timestep=section.timestep,
            lag_steps=section.lag_steps,
            dimensions=section.dimensions,
            features=self._join(section.value_features or list(section.features)),
            references=references,
        )
        places = _places({key: text.path for key, text in texts.items()})
        stored = section.with_files({**places, "xml": Path("system.xml")}).model_copy(update={"minimize": False})
        problem.recipe = {"system": f"{PREFIX}{section.name}", "options": stored.to_mapping()}
        problem.files = {str(places[key]): text.content for key, text in texts.items() if key != "xml"}
        return problem

    # Features

    def _atoms(self, found: Sequence[int | str], argument: str) -> list[int]:
        atoms = [self._atom(atom, argument) for atom in found]
        if len(set(atoms)) != len(atoms):
            raise bad_input(argument, "different atoms", atoms)
        return atoms

    def _atom(self, atom: int | str, argument: str) -> int:
        if isinstance(atom, str):
            return self._selector.one(atom, argument)
        if atom >= self.system.getNumParticles():
            raise bad_input(argument, f"an index from 0 to {self.system.getNumParticles() - 1}", atom)
        return atom

    def _group(self, group: str | Sequence[int | str], argument: str) -> list[int]:
        return self._selector.group(group, argument) if isinstance(group, str) else self._atoms(group, argument)

    def _feature(self, name: str, radians: bool = False) -> Any:
        """Return what `_free_feature` does; in a periodic System it takes nearest images."""
        return set_box(self._free_feature(name, radians), unit_cell(self.system))

    def _free_feature(self, name: str, radians: bool) -> Any:
        """Return the module of a feature; with `radians`, an angle as itself, which is what intervals need."""
        spec, where = self.section.features[name], f"system.features.{name}"
        if isinstance(spec, Distance):
            i, j = self._atoms(spec.distance, f"{where}.distance")
            return features.Distances([(i, j)])
        if isinstance(spec, Angle):
            i, j, k = self._atoms(spec.angle, f"{where}.angle")
            return features.Angles([(i, j, k)], radians)
        if isinstance(spec, Dihedral):
            i, j, k, m = self._atoms(spec.dihedral, f"{where}.dihedral")
            return features.Dihedrals([(i, j, k, m)], radians)
        if isinstance(spec, Coordinate):
            atom, axis = spec.coordinate
            return features.Coordinates([(self._atom(atom, f"{where}.coordinate"), "xyz".index(axis))])
        if isinstance(spec, Distances):
            atoms = self._group(spec.distances, f"{where}.distances")
            return features.Distances([(a, b) for i, b in enumerate(atoms) for a in atoms[:i]], spec.ascending)
        if isinstance(spec, Coordination):
            atoms = self._group(spec.coordination, f"{where}.coordination")
            return contacts.Coordination(atoms, spec.radius, spec.power, spec.ascending)
        assert isinstance(spec, Spectrum)
        return contacts.Spectrum(self._group(spec.spectrum, f"{where}.spectrum"), spec.radius, spec.power)

    def _join(self, names: Sequence[str]) -> Any:
        key = tuple(names)
        if key not in self._joined:
            parts = [self._feature(name).double() for name in names]
            self._joined[key] = parts[0] if len(parts) == 1 else features.Joined(parts)
        return self._joined[key]

    # Regions

    def _region(self, name: str) -> Region:
        spec = self.section.regions[name]
        if isinstance(spec, Ball):
            joined = self._join(spec.ball.features)
            center = evaluate(joined, self.structures[f"region-{name}"].positions[None])[0]
            return Region.ball(joined, center, spec.ball.radius, name)
        kinds = [self.section.features[feature] for feature in spec.within]
        ends = self._intervals(name)
        low, high = zip(*(ends[feature] for feature in spec.within), strict=True)
        periods = [2.0 * math.pi if isinstance(kind, Dihedral) else 0.0 for kind in kinds]
        parts = [self._feature(feature, radians=True).double() for feature in spec.within]
        return Region.within(Box(parts, low, high, periods, [STEPS[kind.unit] for kind in kinds]), name)

    def _intervals(self, name: str) -> dict[str, tuple[float, float]]:
        spec = self.section.regions[name]
        within = {} if isinstance(spec, Ball) else spec.within
        return {
            f: limits(self.section.features[f], ends, f"system.regions.{name}.within.{f}") for f, ends in within.items()
        }

    def _check_overlap(self, names: Sequence[str]) -> None:
        """Refuse two boxes in the same features that share more than a rim; others are looked at as the run goes."""
        for i, a in enumerate(names):
            for b in names[:i]:
                one, two = self._intervals(a), self._intervals(b)
                if one and one.keys() == two.keys() and all(self._share(f, one[f], two[f]) for f in one):
                    raise bad_input(f"system.regions.{a}", f"a region apart from {b}", "intervals that overlap")

    def _share(self, feature: str, one: tuple[float, float], two: tuple[float, float]) -> bool:
        if not isinstance(self.section.features[feature], Dihedral):
            return max(one[0], two[0]) < min(one[1], two[1])
        apart = abs(math.remainder((sum(one) - sum(two)) / 2.0, 2.0 * math.pi))
        return apart < (one[1] - one[0] + two[1] - two[0]) / 2.0 - 1e-9

    # Structures

    def _references(self, made: Mapping[str, Region]) -> dict[str, Array]:
        """Return a structure inside each region that has one: its own, or else the main one if that lies there."""
        main, found = self.structures["structure"].positions, {}
        for name, region in made.items():
            key = f"region-{name}"
            if region.contains(main[None])[0]:
                found[name] = main
            elif key in self.structures:
                found[name] = self.structures[key].positions
                if not region.contains(found[name][None])[0]:
                    raise self._outside(name, key, "give another, or enlarge the region")
        return found

    def _outside(self, name: str, key: str, fix: str) -> InputError:
        """Return the error that a structure is not in a region, with the values of the region's features."""
        spec, structure = self.section.regions[name], self.structures[key]
        if isinstance(spec, Ball):
            joined = self._join(spec.ball.features)
            middle = evaluate(joined, self.structures[f"region-{name}"].positions[None])
            away = float(np.linalg.norm(evaluate(joined, structure.positions[None]) - middle))
            got = f"one at {away:.4g} from the middle of the ball"
        else:
            got = ", ".join(f"{feature} = {self._value(feature, structure.positions)}" for feature in spec.within)
        return bad_input(_argument(key), f"a structure inside region {name}", f"{got} in {structure.path}", fix)

    def _value(self, feature: str, positions: Array) -> str:
        value = float(evaluate(self._feature(feature, radians=True).double(), positions[None])[0, 0])
        if self.section.features[feature].unit == "angle":
            return f"{math.degrees(value):.1f} deg"
        return f"{value:.4g} nm"

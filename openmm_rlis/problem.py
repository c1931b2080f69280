"""Problem: what is to be sampled, and nothing about how.

A System, a start structure in A, the regions A (source), B (target) and D (others), and the dynamics that moves it:

    x' = x + dt F / (m gamma) + sqrt(2 kT dt / (m gamma)) xi            (Euler-Maruyama, overdamped Langevin)

Membership is tested every `lag_steps` steps. Everything that would make the transition kernel something else than this
line (barostats, thermostats, virtual sites, constraints) is refused, see `obstacles`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from .errors import DivergedError, bad_input
from .features import Feature, Joined, as_feature, check_feature, sorted_distances
from .features import positions as coordinates
from .geometry.finite import place
from .geometry.periodic import in_box
from .openmm_system.atom_order import check_order
from .openmm_system.global_parameters import check_defaults
from .openmm_system.obstacles import brownian_system
from .openmm_system.periodic_box import check_box, unit_cell
from .openmm_system.system_xml import check as check_forces
from .regions import Region, check_disjoint, codes_of, membership
from .units import as_float, as_positions, thermal_energy

if TYPE_CHECKING:
    from torch import nn

OUTSIDE, SOURCE, TARGET, FIRST_OTHER = 0, 1, 2, 3
MOST_LAG = 100_000
"""Steps of a lag: the integrator of more would fill the memory."""
SAME_PLACE = 1e-3
"""Nanometres: structures from files are rounded."""


class Problem:
    """A rare transition from region A to region B of an OpenMM System.

    Parameters
    ----------
    system : openmm.System
        No barostat, thermostat, virtual site or constraint; a CMMotionRemover is left out, in a copy. Particles of mass
        zero do not move.
    positions
        Start structure in A, (n_atoms, 3), Quantity or nm.
    topology : openmm.app.Topology, optional
        Written beside the trajectories, so that mdtraj can name atoms, which stand in the order of the System.
    source, target, others : Region
        A, B and further absorbing regions D, disjoint; copies are kept. With D given, the rate is that of A -> B paths
        that do not pass through D. Regions without a name are called A, B, D0, D1 ...
    temperature, friction, timestep
        Quantities, or floats in K, 1/ps, ps; positive.
    lag_steps : int
        Regions are tested every this many steps.
    dynamics : str
        "brownian".
    dimensions : int
        3, or 2 (z frozen), or 1 (y and z frozen).
    features
        What the value function sees, (n, n_atoms, 3) -> (n, k). By default the features of the regions, or for
        predicates the coordinates of a single particle or the sorted distances of several. In a periodic System, the
        features of this package, those of regions too, are replaced by copies that take the nearest image.
    references : mapping of region name to positions, optional
        Known structures inside regions; used for pictures and to start the learning, never required. What does not
        move (particles of mass zero, coordinates beyond `dimensions`) is where it is in the start structure.
    recipe : mapping, optional
        How `openmm_rlis.systems` built this problem, so that a run can be resumed without being given it again.

    Raises
    ------
    InputError
        Any of the above is not as described, regions overlap, the start structure is not in A, or the atoms stand in
        another order than in the System.
    """

    def __init__(
        self,
        system: openmm.System,
        positions: Any,
        topology: Any = None,
        *,
        source: Region,
        target: Region,
        others: Sequence[Region] = (),
        temperature: Any,
        friction: Any,
        timestep: Any,
        lag_steps: int = 20,
        dynamics: str = "brownian",
        dimensions: int = 3,
        features: Feature | None = None,
        references: Mapping[str, ArrayLike] | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.system = system = brownian_system(system)
        check_forces(system)
        check_defaults(system)
        self.n_atoms = system.getNumParticles()
        self.positions = as_positions(positions, self.n_atoms)
        self.topology = topology
        if not isinstance(others, Sequence):
            raise bad_input("others", "a list of Regions", type(others).__name__, "write others=[region]")
        # The caller's regions stay as they are: another problem may use them under other names.
        self.source, self.target, *rest = _named([source, target, *others])
        self.others, self.whole_source = tuple(rest), self.source
        self.temperature = as_float(temperature, "temperature")
        self.kT = thermal_energy(self.temperature)
        self.friction = as_float(friction, "friction")
        self.timestep = as_float(timestep, "timestep")
        if isinstance(lag_steps, bool) or not isinstance(lag_steps, int | np.integer) or not 0 < lag_steps <= MOST_LAG:
            raise bad_input("lag_steps", f"a whole number of steps, 1 to {MOST_LAG}", lag_steps)
        self.lag_steps = int(lag_steps)
        if dynamics != "brownian":
            raise bad_input("dynamics", "'brownian' (the only one in this version)", repr(dynamics))
        self.dynamics = dynamics
        if isinstance(dimensions, bool) or dimensions not in (1, 2, 3):
            raise bad_input("dimensions", "1, 2 or 3", dimensions)
        self.dimensions = int(dimensions)
        self.recipe = dict(recipe) if recipe is not None else None
        self.files: dict[str, str] = {}  # texts that the recipe names, for the run directory
        check_order(system, topology, self.positions, self.kT, ("topology", "positions"))
        check_box(system, topology, "topology")
        self.references = {k: as_positions(v, self.n_atoms) for k, v in (references or {}).items()}
        self.features = as_feature(features if features is not None else self._default_features())
        self._take_nearest_images()
        self._check_regions()

    @property
    def beta(self) -> float:
        """1/kT in mol/kJ."""
        return 1.0 / self.kT

    @property
    def lag_time(self) -> float:
        """Time between two tests of the regions, in ps."""
        return self.lag_steps * self.timestep

    @property
    def regions(self) -> tuple[Region, ...]:
        """A, B and the others, in the order of their codes 1, 2, 3 ..."""
        return (self.source, self.target, *self.others)

    @property
    def system_xml(self) -> str:
        """The System as OpenMM writes it."""
        return str(openmm.XmlSerializer.serialize(self.system))

    @property
    def unit_cell(self) -> list[list[float]] | None:
        """The box vectors in nm, (3, 3), or None if no force is periodic; the volume is constant."""
        return unit_cell(self.system)

    def mobility(self) -> NDArray[np.float64]:
        """Return dt / (m gamma) per degree of freedom, (n_atoms, 3), in nm mol / (kJ/nm) units; 0 where frozen."""
        mass = np.array([self.system.getParticleMass(i)._value for i in range(self.n_atoms)])
        free = mass > 0
        table = np.zeros((self.n_atoms, 3))
        table[free, : self.dimensions] = (self.timestep / (mass[free] * self.friction))[:, None]
        return table

    def label(self, positions: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the region codes (n,) of positions (n, n_atoms, 3): 0 none, 1 A, 2 B, 3.. the others.

        With a core 1 is the core, and the rest of A is 0. Raises what `places` does.
        """
        return self.classify(positions)[0]

    def classify(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Return the codes (n,) of positions (n, n_atoms, 3), see `label`, and who is in A, in its core or not.

        Raises
        ------
        DivergedError
            A walker has coordinates that are not finite.
        InputError
            A structure lies in two regions at once.
        NotFiniteError
            A feature is not finite; says for how many structures.
        """
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=(1, 2)))
        if len(bad):
            raise DivergedError(
                f"{len(bad)} of {len(positions)} walkers have coordinates that are not finite "
                f"(first: walker {bad[0]}); {place(positions[bad[0]])}"
            )
        regions = (self.whole_source, self.target, *self.others)
        members = membership((*regions, self.source) if self.has_core else regions, positions)
        codes = codes_of(regions, members[:, : len(regions)])
        inside = codes == SOURCE
        if self.has_core:
            codes[inside & ~members[:, -1]] = OUTSIDE
        return codes, inside

    def with_core(self, core: Region) -> Problem:
        """Return this problem for walks that start and fail at a core of A, see `basin.inner_region`.

        Its `source` is the core and `whole_source` is A.
        """
        inner = copy.copy(self)
        inner.source = core
        return inner

    def between(
        self, source: Region, target: Region, others: Sequence[Region], structures: Mapping[str, NDArray[np.float64]]
    ) -> Problem:
        """Return the same system between other regions, all with names, that starts from the structure of `source`.

        Raises
        ------
        InputError
            The regions overlap, or a structure lies elsewhere than its name says.
        """
        found = copy.copy(self)
        found.source, found.target, *rest = _named([source, target, *others])
        found.others, found.whole_source = tuple(rest), found.source
        found.positions, found.recipe, found.files = structures[source.name], None, {}
        names = [region.name for region in found.regions]
        found.references = {name: x for name, x in structures.items() if name in names}
        found._take_nearest_images()
        found._check_regions()
        return found

    @property
    def has_core(self) -> bool:
        """Whether `source` is a core of A."""
        return self.source is not self.whole_source

    def _take_nearest_images(self) -> None:
        """In a periodic System, replace features and regions by copies that take the nearest image."""
        cell, copies = self.unit_cell, dict[int, Any]()
        if cell is not None:
            self.features = in_box(self.features, cell, copies)
            self.source, self.target, *others = [region.in_box(cell, copies) for region in self.regions]
            self.whole_source, self.others = self.source, tuple(others)

    def _default_features(self) -> nn.Module:
        found: dict[int, nn.Module] = {id(r.feature): r.feature for r in self.regions if r.feature is not None}
        modules = list(found.values())
        if modules:
            return modules[0] if len(modules) == 1 else Joined(modules)
        if self.n_atoms == 1:
            return coordinates()
        if self.n_atoms > 40:
            raise bad_input("features", "features=... for systems of more than 40 atoms with predicate regions", "none")
        return sorted_distances([(i, j) for i in range(self.n_atoms) for j in range(i)])

    def _check_regions(self) -> None:
        check_feature(self.features, self.positions)
        for region in self.regions:
            region.check(self.positions)
        for i, a in enumerate(self.regions):
            for b in self.regions[:i]:
                check_disjoint(a, b)
        code = int(self.label(self.positions[None])[0])
        if code != SOURCE:
            where = "no region" if code == OUTSIDE else f"region {self.regions[code - 1].name}"
            raise bad_input(
                "positions",
                f"a start structure inside the source region {self.source.name}",
                f"one in {where}",
                "start from a structure of A, or enlarge A",
            )
        names = [region.name for region in self.regions]
        frozen = self.mobility() == 0
        for name, reference in self.references.items():
            if name not in names:
                raise bad_input("references", f"names of regions ({', '.join(names)})", repr(name))
            if int(self.label(reference[None])[0]) != names.index(name) + 1:
                raise bad_input("references", f"a structure inside region {name}", "one outside it")
            off = np.argwhere(frozen & (np.abs(reference - self.positions) > SAME_PLACE))
            if len(off):
                i, axis = off[0]
                expected = f"what does not move where it is in the start structure, {'xyz'[axis]} of particle {i} at"
                ends = (f"{x[i, axis]:.6g} nm" for x in (self.positions, reference))
                fix = "the run would be that of another system: take it from the start structure"
                raise bad_input("references", f"{expected} {next(ends)}", f"{next(ends)} in that of {name}", fix)


def _named(regions: Sequence[Region]) -> list[Region]:
    """Return copies of A, B and the others, under their own names or A, B, D0, D1 ..."""
    copies = []
    for region, name in zip(regions, ("A", "B", *[f"D{i}" for i in range(len(regions) - 2)]), strict=True):
        if not isinstance(region, Region):
            raise bad_input(f"region {name}", "an openmm_rlis.Region", type(region).__name__)
        copies.append(copy.copy(region))
        copies[-1].name = region.name or name
    names = [region.name for region in copies]
    if len(set(names)) != len(names):
        raise bad_input("regions", "a different name for each", names)
    return copies

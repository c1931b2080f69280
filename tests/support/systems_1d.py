"""One particle on a line: small asymmetric Problems with exact answers in `oracles`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from oracles import Chain, EulerMaruyama

from openmm_rlis import Problem, Region
from openmm_rlis.systems.double_well import minima
from openmm_rlis.units import thermal_energy

Array = NDArray[np.float64]
ONE_KT = 1.0 / thermal_energy(1.0)  # K, at which kT is 1 kJ/mol


@dataclass(frozen=True)
class Line:
    """U(x) = sum_i c_i x^i in kJ/mol (x in nm), kT = 1 kJ/mol, mass 1, friction 1/ps.

    Regions are intervals (low, high); ends beyond `reach` count as open. `balls` makes them balls, else predicates.
    """

    coefficients: tuple[float, ...]
    start: float
    source: tuple[float, float]
    target: tuple[float, float]
    others: tuple[tuple[float, float], ...] = ()
    timestep: float = 0.005
    lag_steps: int = 5
    reach: float = 2.6
    balls: bool = False
    more: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def intervals(self) -> tuple[tuple[float, float], ...]:
        return (self.source, self.target, *self.others)

    @property
    def dynamics(self) -> EulerMaruyama:
        slope = np.polynomial.polynomial.polyder(np.array(self.coefficients))
        return EulerMaruyama(lambda x: -np.polynomial.polynomial.polyval(x, slope), self.timestep, 1.0)

    def label(self, x: Array) -> NDArray[np.int8]:
        codes = np.zeros(len(x), np.int8)
        for code, (low, high) in enumerate(self.intervals, start=1):
            codes[(x > low) & (x < high)] = code
        return codes

    @cached_property
    def chain(self) -> Chain:
        edges = [e for interval in self.intervals for e in interval if abs(e) < self.reach]
        return self.dynamics.chain(-self.reach, self.reach, edges, self.label, self.lag_steps, self.timestep)

    def committor(self, positions: Array) -> Array:
        """The exact committor (n,) at positions (n, 1, 3): also right inside the regions, 1 in B, 0 in A and D."""
        x = np.asarray(positions, dtype=float)[:, 0, 0]
        codes = self.label(x)
        return np.where(codes == 0, self.dynamics.committor_of(self.chain, x, self.lag_steps), codes == 2)

    def region(self, interval: tuple[float, float], name: str) -> Region:
        low, high = interval
        if self.balls:
            return Region.ball(self.feature, [0.5 * (low + high), 0.0, 0.0], 0.5 * (high - low), name)
        return Region.where(lambda x: (x[:, 0, 0] > low) & (x[:, 0, 0] < high), name)

    @cached_property
    def feature(self) -> Any:
        from openmm_rlis import features

        return features.positions().double()

    def system(self) -> openmm.System:
        system = openmm.System()
        system.addParticle(1.0)
        energy = " + ".join(f"({c!r})*x^{i}" if i else f"({c!r})" for i, c in enumerate(self.coefficients))
        force = openmm.CustomExternalForce(energy)
        force.addParticle(0, [])
        system.addForce(force)
        return system

    def problem(self, **options: Any) -> Problem:
        """Build the Problem; options go to it."""
        names = ("A", "B", *(f"D{i}" for i in range(len(self.others))))
        source, target, *others = [self.region(i, n) for i, n in zip(self.intervals, names, strict=True)]
        return Problem(
            self.system(), [[self.start, 0.0, 0.0]], source=source, target=target, others=others, temperature=ONE_KT,
            friction=1.0, timestep=self.timestep, lag_steps=self.lag_steps, dimensions=1, **{**self.more, **options},
        )  # fmt: skip


def double_well(height: float = 3.0, tilt: float = 0.5, **options: Any) -> Line:
    """height (x^2 - 1)^2 + tilt x, A on the left (deeper for a positive tilt), B on the right."""
    given = {"start": -1.0, "source": (-9.0, -0.7), "target": (0.8, 9.0), **options}
    return Line((height, tilt, -2.0 * height, 0.0, height), **given)


def packaged_double_well(
    height: float = 8.0, tilt: float = 1.0, timestep: float = 5e-4, lag_steps: int = 10, back: bool = False
) -> Line:
    """`systems/double_well.py` at beta 1 and radius 0.2, from L to R or back."""
    centres = [point[0] for point in minima(height, tilt).values()]
    a, b = ((c - 0.2, c + 0.2) for c in (reversed(centres) if back else centres))
    given = {"start": centres[back], "source": a, "target": b, "reach": 1.9}
    return double_well(height, tilt, timestep=timestep, lag_steps=lag_steps, **given)


def triple_well(height: float = 8.0, tilt: float = 0.4, **options: Any) -> Line:
    """height x^2 (x^2 - 1.44)^2 + tilt x: A in the middle, B on the right, D on the left."""
    c = 1.44
    given = {"start": 0.0, "source": (-0.35, 0.25), "target": (1.0, 9.0), "others": ((-9.0, -0.95),), **options}
    given = {"timestep": 0.002, "lag_steps": 10, "reach": 1.75, **given}
    return Line((0.0, tilt, height * c * c, 0.0, -2.0 * height * c, 0.0, height), **given)

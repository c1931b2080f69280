"""Write chain.xml and chain.pdb: four beads with bonds, angles and a torsion, like butane with united atoms.

config.yaml beside this file asks for the rate of trans -> gauche+; the other gauche state is a dead end.
"""

import itertools
import math
from pathlib import Path

import openmm
from openmm import app, unit


def make_system() -> openmm.System:
    system = openmm.System()
    for _ in range(4):
        system.addParticle(14.0 * unit.amu)
    bonds, angles, torsion = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    for i in range(3):
        bonds.addBond(i, i + 1, 0.153 * unit.nanometer, 5000.0 * unit.kilojoule_per_mole / unit.nanometer**2)
    for i in range(2):
        angle, stiffness = 112.0 * unit.degree, 200.0 * unit.kilojoule_per_mole / unit.radian**2
        angles.addAngle(i, i + 1, i + 2, angle, stiffness)
    torsion.addTorsion(0, 1, 2, 3, 3, 0.0, 8.0 * unit.kilojoule_per_mole)  # minima at 60, 180 and 300 degrees
    torsion.addTorsion(0, 1, 2, 3, 1, 0.0, 2.0 * unit.kilojoule_per_mole)  # trans, 180 degrees, is the lowest
    for force in (bonds, angles, torsion):
        system.addForce(force)
    return system


def make_topology() -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("BUT", topology.addChain())
    atoms = [topology.addAtom(f"C{i + 1}", app.Element.getBySymbol("C"), residue) for i in range(4)]
    for first, second in itertools.pairwise(atoms):
        topology.addBond(first, second)
    return topology


def trans() -> list[tuple[float, float, float]]:
    """Positions in nm of a flat zigzag with the bonds and angles of the model."""
    along, across = 0.153 * math.sin(math.radians(56.0)), 0.153 * math.cos(math.radians(56.0))
    return [(i * along, i % 2 * across, 0.0) for i in range(4)]


def main(folder: Path) -> None:
    (folder / "chain.xml").write_text(openmm.XmlSerializer.serialize(make_system()))
    with (folder / "chain.pdb").open("w") as file:
        app.PDBFile.writeFile(make_topology(), trans() * unit.nanometer, file)


if __name__ == "__main__":
    main(Path(__file__).parent)

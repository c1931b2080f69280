"""Atom order: structures in another order than the System are refused, models whose masses are no elements are not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmm_rlis as rlis
from openmm_rlis.errors import InputError
from openmm_rlis.openmm_system.atom_order import check_order, check_same_order

KT = 2.494
NAMES = ("C", "H1", "H2", "H3", "O", "HO")
ELEMENTS = ("C", "H", "H", "H", "O", "H")
MASSES = (12.011, 1.008, 1.008, 1.008, 15.999, 1.008)
BONDS = ((0, 1), (0, 2), (0, 3), (0, 4), (4, 5))
METHANOL = 0.1 * np.array(
    [[0.0, 0.0, 0.0], [1.03, 0.0, -0.36], [-0.51, 0.89, -0.36], [-0.51, -0.89, -0.36], [0.0, 0.0, 1.43], [0.9, 0, 1.75]]
)
HEAVY_FIRST = (0, 4, 1, 2, 3, 5)


def system(masses: Sequence[float] = MASSES, strength: float = 2.5e5) -> openmm.System:
    """Methanol, in the order of `NAMES`."""
    made, force = openmm.System(), openmm.HarmonicBondForce()
    for mass in masses:
        made.addParticle(mass)
    for i, j in BONDS:
        force.addBond(i, j, float(np.linalg.norm(METHANOL[i] - METHANOL[j])), strength)
    made.addForce(force)
    return made


def topology(order: Sequence[int] = range(6), elements: Sequence[str] = ELEMENTS, bonds: bool = True) -> app.Topology:
    made = app.Topology()
    residue = made.addResidue("MOH", made.addChain())
    atoms = {i: made.addAtom(NAMES[i], _element(elements[i]), residue) for i in order}
    for i, j in BONDS if bonds else ():
        made.addBond(atoms[i], atoms[j])
    return made


def _element(symbol: str) -> Any:
    return app.Element.getBySymbol(symbol) if symbol else None


def check(made: openmm.System, named: Any, positions: Any) -> None:
    check_order(made, named, np.asarray(positions, dtype=float), KT, ("topology", "positions"))


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bonds", [True, False])
def test_another_order_of_elements_is_refused_by_the_masses(bonds: bool) -> None:
    with pytest.raises(InputError, match=r"atom 1 has mass 1.008 \(H\), got element O, atom 1 \(MOH 1 O\)"):
        check(system(), topology(HEAVY_FIRST, bonds=bonds), METHANOL[list(HEAVY_FIRST)])


@pytest.mark.parametrize("order", [o for o in itertools.permutations(range(6)) if o[0] not in (0, 4)][::37])
@pytest.mark.parametrize("heavy", [1.008, 2.014, 3.024, 4.0])
def test_with_heavy_hydrogens_too(order: tuple[int, ...], heavy: float) -> None:
    """Mass repartitioning as OpenMM does it: what hydrogens gain, the atom that carries them loses."""
    gain = heavy - 1.008
    masses = [12.011 - 3 * gain, heavy, heavy, heavy, 15.999 - gain, heavy]
    check(system(masses), topology(), METHANOL)
    with pytest.raises(InputError, match="order of the System"):
        check(system(masses), topology(order), METHANOL[list(order)])


def test_hydrogens_exchanged_are_refused_by_the_lengths_of_bonds() -> None:
    swapped = [0, 5, 2, 3, 4, 1]
    for named in (topology(swapped), topology(swapped, bonds=False), None):
        with pytest.raises(InputError, match=r"positions: .* a bond of 0\.1.* nm from atom 0 to atom 1, got 0\.197"):
            check(system(), named, METHANOL[swapped])


def test_a_topology_in_another_order_than_right_positions_is_refused_by_its_bonds() -> None:
    """All of one element, so that masses tell nothing."""
    chain, carbons, force = openmm.System(), app.Topology(), openmm.HarmonicBondForce()
    residue = carbons.addResidue("CHN", carbons.addChain())
    for i in range(6):
        chain.addParticle(12.011)
        carbons.addAtom(f"C{i}", _element("C"), residue)
    for i in range(5):
        force.addBond(i, i + 1, 0.15, 2e5)
    chain.addForce(force)
    atoms, x = list(carbons.atoms()), [[0.13 * i, 0.075 * (i % 2), 0.0] for i in range(6)]
    for i, j in itertools.pairwise((0, 3, 1, 4, 2, 5)):
        carbons.addBond(atoms[i], atoms[j])
    with pytest.raises(InputError, match=r"topology: .*a bond from atom 0 \(CHN 1 C0\) to atom 3 .*System has not"):
        check(chain, carbons, x)


@pytest.mark.parametrize("wrong", ["S", "N", "F"])
def test_another_molecule_of_as_many_atoms_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match=rf"atom 4 has mass 15.999 \(O\), got element {wrong}"):
        check(system(), topology(elements=("C", "H", "H", "H", wrong, "H")), METHANOL)


def test_problem_checks_the_topology_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(named: Any, x: Any = METHANOL) -> rlis.Problem:
        bond = rlis.features.distances([(0, 4)])
        a, b = rlis.Region.ball(bond, [0.143], 0.02), rlis.Region.ball(bond, [0.3], 0.02)
        return rlis.Problem(system(), x, named, source=a, target=b, temperature=300, friction=1, timestep=1e-4)

    problem(topology())
    for bad, message in (
        (topology(HEAVY_FIRST), "^topology: .*element"), (app.Topology(), "^topology: expected 6 atoms"),
        ("methanol.pdb", "^topology: expected an openmm.app.Topology"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            problem(bad)
    with pytest.raises(InputError, match=r"^positions: "):
        problem(None, METHANOL[[0, 5, 2, 3, 4, 1]])


@pytest.mark.parametrize("minimize", [False, True])
@pytest.mark.parametrize("key", ["structure", "regions.right"])
def test_files_in_another_order_are_refused_before_anything_is_written(
    key: str, minimize: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Minimising hides another order: the energy looks right afterwards."""
    from openmm_rlis import cli

    (tmp_path / "m.xml").write_text(openmm.XmlSerializer.serialize(system()))
    for name, order in (("good", range(6)), ("bad", HEAVY_FIRST), ("names", (0, 2, 1, 3, 4, 5))):
        with (tmp_path / f"{name}.pdb").open("w") as file:
            app.PDBFile.writeFile(topology(order), METHANOL[list(order)] * unit.nanometer, file)
    main, other = ("bad", "good") if key == "structure" else ("good", "bad")
    text = f"""
    system:
      xml: m.xml
      structure: {main}.pdb
      minimize: {minimize}
      temperature: 300 K
      friction: 1/ps
      timestep: 0.1 fs
      features: {{d: {{distance: [0, 4]}}}}
      regions: {{left: {{within: {{d: [null, 0.16]}}}}, right: {{within: {{d: [0.3, null]}}, structure: {other}.pdb}}}}
      source: left
      target: right
    """
    (tmp_path / "c.yaml").write_text(text)
    assert cli.execute(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: system.{key}: expected the atoms in the order of the System, whose atom 1 has mass"
    )
    assert "MOH 1 O" in error and "bad.pdb" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_two_structures_in_different_orders_are_told_by_their_names() -> None:
    check_same_order(topology(), topology(), "here", "a file")
    with pytest.raises(InputError, match=r"whose atom 1 is MOH 1 H1, got MOH 1 H2 in b.pdb"):
        check_same_order(topology(), topology((0, 2, 1, 3, 4, 5)), "system.regions.b", "b.pdb")


# --- accepted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "masses"),
    [
        (("Ar",) * 6, (1.0,) * 6), (("C",) * 6, (14.0,) * 6), (("",) * 6, MASSES), (ELEMENTS, (0.0,) * 5 + (1.008,)),
        (("C", "N") * 3, (72.0,) * 6), (("C",) * 6, (15.035, 14.027, 14.027, 13.019, 15.999, 17.007)),
        (("C", "N") * 3, (1.0, 2.0) * 3), (ELEMENTS, (1.0,) * 6), (ELEMENTS, (16.0,) * 6), (ELEMENTS, (12.01,) * 6),
        (ELEMENTS, (12.01, 1.008, 1.008, 1.008, 100.0, 1.008)), (ELEMENTS, (12.01, 2.014, 2.014, 2.014, 16.0, 2.014)),
        (("Zn", "H", "H", "H", "Fe", "H"), (65.4, 1.008, 1.008, 1.008, 55.0, 1.008)),
    ],
)  # fmt: skip
def test_models_isotopes_and_single_strange_masses_pass(elements: Sequence[str], masses: Sequence[float]) -> None:
    check(system(masses), topology(elements=elements), METHANOL)


def test_soft_springs_may_be_stretched_and_wrapped_bonds_may_be_periodic() -> None:
    far = METHANOL + 2.0 * np.array([0, 0, 0, 0, 1, 1])[:, None] * [1.0, 0, 0]
    with pytest.raises(InputError, match="and that molecules are whole"):
        check(system(), topology(), far)
    check(system(strength=100.0), topology(), far)
    wrapped = system()
    wrapped.getForce(0).setUsesPeriodicBoundaryConditions(True)  # type: ignore[attr-defined]
    check(wrapped, topology(), far)  # the default box is a cube of 2 nm


@pytest.mark.parametrize("edit", [lambda s: s.addForce(_morse()), lambda s: s.addForce(_exception())])
def test_bonds_of_another_kind_of_force_are_bonds(edit: Callable[[openmm.System], Any]) -> None:
    """C-O is a Morse bond here, or no bond but an excluded pair, and broken at the start."""
    made, force = openmm.System(), openmm.HarmonicBondForce()
    for mass in MASSES:
        made.addParticle(mass)
    for i, j in (bond for bond in BONDS if bond != (0, 4)):
        force.addBond(i, j, 0.1, 2.5e5)
    made.addForce(force)
    far = METHANOL + np.array([0, 0, 0, 0, 1, 1])[:, None] * [0, 0, 0.5]
    with pytest.raises(InputError, match="which the System has not"):
        check(made, topology(), far)
    edit(made)
    check(made, topology(), far)


def _morse() -> openmm.Force:
    force = openmm.CustomBondForce("400*(1-exp(-20*(r-0.143)))^2")
    force.addBond(0, 4, [])
    return force


def _exception() -> openmm.Force:
    force = openmm.NonbondedForce()
    for _ in range(6):
        force.addParticle(0.0, 0.3, 0.1)
    force.addException(0, 4, 0.0, 0.3, 0.0)
    return force

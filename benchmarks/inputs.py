"""Forty and more kinds of input that people brought to OpenMM, openmmtools, WESTPA, OpenPathSampling and infretis.

python -m benchmarks inputs [NUMBER ...]       all by default, some minutes on one core

Each thread in a public issue tracker names a kind of input that somebody stumbled over; the input itself is made here,
in words and files of its own. It is either accepted, and then what comes out is compared with a truth: the exact rate
of a one-dimensional chain within three standard errors, or equal numbers (a walk bit for bit, labels, forces,
positions); or it is refused in one line, at the command line with status 2 and nothing left on disk. Anything else is
broken. Every input runs in a process of its own, so that one that crashes says so.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
import yaml
from common import save
from openmm import app, unit

import openmm_rlis as rlis
from openmm_rlis import Problem, Region, features
from openmm_rlis.cli import execute
from openmm_rlis.dynamics.engine import Engine, potential_energies
from openmm_rlis.errors import RlisError
from openmm_rlis.features import evaluate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from systems_1d import ONE_KT, Line, double_well, triple_well

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "own_system" / "make_files.py"))
EXAMPLE = Path(__file__).parents[1] / "examples" / "own_system" / "config.yaml"
LONGEST = 150.0
"""Seconds after which an input counts as one that hangs."""
Case = Callable[[], str]
CASES: list[tuple[str, str, Case]] = []


def case(source: str, words: str) -> Callable[[Case], Case]:
    """Add a function that tries an input: it returns what came out right, and raises otherwise."""

    def add(function: Case) -> Case:
        CASES.append((source, words, function))
        return function

    return add


# ---------------------------------------------------------------------------------------------------- what is compared


class RefusedError(Exception):
    """The command line refused an input in one line and left nothing."""


class StoppedError(RefusedError):
    """A run met on its way what no check before it can know, and said so in one line; its directory is kept."""


def command(*words: object, fine: tuple[int, ...] = (0, 3)) -> str:
    """Return what a command line printed; raises if it refused its input, or did anything else but run."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = execute([str(word) for word in words])
    told = [line for line in err.getvalue().splitlines() if not line.startswith("warning:")]
    if status == 2:
        assert len(told) == 1 and told[0].startswith("error: "), f"status 2, but {told}"
        assert not Path("new").exists(), "refused, but something is left on disk"
        raise RefusedError(told[0].removeprefix("error: "))
    assert status in fine, f"status {status}: {' '.join(told)[:300]}"
    return out.getvalue()


def own(edit: Callable[[dict[str, Any]], Any] = lambda system: None) -> Path:
    """Write the four beads of the example, with config.yaml edited, and return the path of that."""
    MAKE["main"](Path())
    content = yaml.safe_load(EXAMPLE.read_text())
    edit(content["system"])
    Path("config.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return Path("config.yaml")


def built(config: Path) -> Problem:
    """Return the Problem of a configuration file, as the command line makes it."""
    from openmm_rlis.config.build_problem import build
    from openmm_rlis.config.run_config import RunConfig

    problem: Problem = build(RunConfig.from_yaml(config))
    return problem


def same_beads(config: Path) -> str:
    """Compare labels, features and positions of an own system with those of the example, then run it for a moment."""
    problem = built(config)
    x = np.stack([MAKE["chain"](angle) for angle in range(-180, 180, 7)])
    angles = [abs((angle + 180) % 360 - 180) for angle in range(-180, 180, 7)]
    trans = np.array([angle >= 150 for angle in angles])
    assert np.array_equal(problem.label(x) == 1, trans), "labels differ from those by hand"
    assert np.allclose(problem.positions, MAKE["chain"](180.0), atol=1e-4), "positions differ"
    command("brute", config, "--out", "new", "--max-time", "0.1")
    return "labels of 52 torsions and positions as by hand; runs"


def walk(problem: Problem, n_lags: int = 10) -> bytes:
    """Return the positions of eight unbiased walkers after some lags."""
    engine = Engine(problem, 8, "Reference")
    engine.reseed(np.random.default_rng(7))
    x = np.repeat(problem.positions[None], 8, axis=0)
    for _ in range(n_lags):
        x = engine.propagate(x)[0]
    return x.tobytes()


def same_walk(problem: Problem, other: Problem | None = None) -> str:
    """Compare a walk with that of the plain double well, or another Problem."""
    assert walk(problem) == walk(other or LINE.problem()), "the walk is another one"
    return "the same walk as the plain input, bit for bit"


LINE = double_well()
"""Two wells, 3 kT; the exact rate is that of its transition matrix."""


def right_rate(problem: Problem, line: Line = LINE, seed: int = 1, **more: Any) -> str:
    """Compare the rate by brute force with the exact one."""
    result = rlis.brute(problem, "run", seed=seed, target_relative_error=0.08, max_force_evaluations=20_000_000, **more)
    return near(result.rate, line.chain.endless.rate)


def near(rate: Any, exact: float) -> str:
    """Return a rate beside the exact one, no more than three standard errors apart."""
    z = (rate.value - exact) / rate.standard_error
    text = f"k = {rate.value:.4g} +- {rate.standard_error:.1g} /ps, exact {exact:.4g}"
    assert abs(z) < 3.0, f"{text}, {z:+.1f} standard errors"
    return text


def only_refused(problem: Problem, why: str) -> str:
    """Run a Problem that is to be refused, before anything is written."""
    rlis.brute(problem, "new", max_force_evaluations=1000, max_seconds=1.0)
    raise AssertionError(f"accepted, though {why}")


def particle(energy: str, mass: float = 1.0) -> tuple[openmm.System, openmm.CustomExternalForce]:
    """Return a System of one particle and its external force."""
    system, force = openmm.System(), openmm.CustomExternalForce(energy)
    system.addParticle(mass)
    force.addParticle(0, [])
    system.addForce(force)
    return system, force


def well(system: openmm.System | None = None, **more: Any) -> Problem:
    """Return the double well with another System, or other arguments of Problem."""
    given: dict[str, Any] = {
        "source": LINE.region(LINE.source, "A"), "target": LINE.region(LINE.target, "B"), "temperature": ONE_KT,
        "friction": 1.0, "timestep": LINE.timestep, "lag_steps": LINE.lag_steps, "dimensions": 1,
        "positions": [[LINE.start, 0.0, 0.0]],
    }  # fmt: skip
    return Problem(**{"system": system or LINE.system(), **given, **more})


ENERGY = " + ".join(f"({c!r})*x^{i}" if i else f"({c!r})" for i, c in enumerate(LINE.coefficients))


def lines_of(name: str = "chain.pdb") -> list[str]:
    """Return the lines of atoms of the example's structure, without CONECT."""
    return [line for line in Path(name).read_text().splitlines() if line.startswith("HETATM")]


def rewritten(change: Callable[[int, str], str]) -> Callable[[dict[str, Any]], None]:
    """Return an edit that changes every line of an atom in chain.pdb."""

    def edit(system: dict[str, Any]) -> None:
        lines = [change(i, line) for i, line in enumerate(lines_of())]
        Path("chain.pdb").write_text("\n".join([*lines, "END", ""]))

    return edit


# ----------------------------------------------------------------------------------------------------- structure files


@case("openmm/openmm #3266", "PDB in which only some atoms of a residue have alternate locations A and B")
def _() -> str:
    def change(i: int, line: str) -> str:
        two = line[:16] + "A" + line[17:], line[:16] + "B" + line[17:30] + f"{9.0:8.3f}" + line[38:]
        return "\n".join(two) if i > 1 else line

    return same_beads(own(rewritten(change)))


@case("openmm/openmm #4418", "PDB in the manner of Rosetta, hydrogens 1HB and 2HB, selected by these names")
def _() -> str:
    names = (" N  ", " CA ", "1HB ", "2HB ")

    def edit(system: dict[str, Any]) -> None:
        rewritten(lambda i, line: f"ATOM  {line[6:12]}{names[i]}{line[16]}ALA{line[20:]}")(system)
        system["features"]["phi"] = {"dihedral": ["name N", "name CA", "name 1HB", "name 2HB"]}
        system["features"].pop("ends")

    return same_beads(own(edit))


@case("openmm/openmm #4389", "PDB with several atoms of one name in one residue")
def _() -> str:
    return same_beads(own(rewritten(lambda i, line: line[:12] + " C  " + line[16:])))


@case("openmm/openmm #3501", "PDB with residue numbers above 9999, A000 and on")
def _() -> str:
    return same_beads(own(rewritten(lambda i, line: f"{line[:22]}A{i:03d}{line[26:]}")))


@case("openmm/openmm #659", "PDB with stars for the serial numbers of atoms above 99 999")
def _() -> str:
    return same_beads(own(rewritten(lambda i, line: line[:6] + "*****" + line[11:])))


@case("openmm/openmm #3956", "PDB with serial numbers of six digits, which move the columns")
def _() -> str:
    return same_beads(own(rewritten(lambda i, line: f"HETATM{100000 + i}{line[11:]}")))


@case("openmm/openmm #1392", "PDB without the column of elements, bromine BR")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        rewritten(lambda i, line: (line[:12] + "BR  " + line[16:] if i == 3 else line)[:66])(system)
        made = openmm.XmlSerializer.deserialize(Path("chain.xml").read_text())
        made.setParticleMass(3, 79.9)
        Path("chain.xml").write_text(openmm.XmlSerializer.serialize(made))
        system["features"]["ends"] = {"distance": ["name C1", "name BR"]}

    return same_beads(own(edit))


@case("openmm/openmm #5078", "mmCIF with atom names in quotes, a space inside")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        with Path("chain.cif").open("w") as file:
            app.PDBxFile.writeFile(MAKE["make_topology"](), MAKE["chain"](180.0) * unit.nanometer, file)
        text = Path("chain.cif").read_text()
        Path("chain.cif").write_text(text.replace(" C1 ", ' "C 1" '))
        system["structure"] = "chain.cif"
        system["features"]["ends"] = {"distance": ['name "C 1"', "name C4"]}

    return same_beads(own(edit))


@case("openmm/openmm #2422", "mmCIF written with keepIds, insertion code blank")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        read = app.PDBFile("chain.pdb")
        with Path("chain.cif").open("w") as file:
            app.PDBxFile.writeFile(read.topology, read.positions, file, keepIds=True)
        system["structure"] = "chain.cif"

    return same_beads(own(edit))


@case("openmm/openmm #2721", "System XML, PDB and config.yaml with Windows line ends and byte order marks")
def _() -> str:
    config = own()
    for name in ("chain.xml", "chain.pdb", "gauche.pdb", "config.yaml"):
        Path(name).write_bytes(b"\xef\xbb\xbf" + Path(name).read_bytes().replace(b"\n", b"\r\n"))
    return same_beads(config)


@case("openmm/openmm #2721", "System XML that is compressed")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        Path("chain.xml.gz").write_bytes(gzip.compress(Path("chain.xml").read_bytes()))
        system["xml"] = "chain.xml.gz"

    return same_beads(own(edit))


@case("openmm/openmm #219", "A serialised State instead of the System")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        made = openmm.XmlSerializer.deserialize(Path("chain.xml").read_text())
        context = openmm.Context(made, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(MAKE["chain"](180.0))
        Path("chain.xml").write_text(openmm.XmlSerializer.serialize(context.getState(getPositions=True)))

    return same_beads(own(edit))


@case("westpa/westpa #373", "Atoms and residues numbered past what a PDB holds; the run's own files read by mdtraj")
def _() -> str:
    config = own(rewritten(lambda i, line: f"HETATM186a{i}{line[11:22]}270f{line[26:]}"))
    same = same_beads(config)
    names = [atom.name for atom in mdtraj.load("new/paths/topology.pdb").topology.atoms]
    assert names == ["C1", "C2", "C3", "C4"], f"mdtraj reads {names}"
    return f"{same}; mdtraj reads the topology of the run"


# ------------------------------------------------------------------------------------------------------------- Systems


@case("openmm/openmm #2937", "Two atoms with Lennard-Jones forces on top of each other in the start structure")
def _() -> str:
    system, force = openmm.System(), openmm.NonbondedForce()
    for _i in range(2):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    return pair_of(system, [[0, 0, 0], [0.0, 0, 0]], "the energy is not finite")


@case("openmm/openmm #3736", "TIP4P water with its virtual site")
def _() -> str:
    modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
    field = app.ForceField("amber14/tip4pew.xml")
    modeller.addSolvent(field, model="tip4pew", numAdded=30)
    system = field.createSystem(modeller.topology, constraints=None, rigidWater=False, removeCMMotion=False)
    return pair_of(system, modeller.positions, "virtual sites do not follow the dynamics")


def pair_of(system: openmm.System, positions: Any, why: str) -> str:
    """Take a System as it is, with regions in the distance of the first two atoms."""
    distance = features.distances([(0, 1)])
    regions = Region.ball(distance, [0.1], 0.11), Region.ball(distance, [2.0], 0.05)
    problem = Problem(
        system, positions, source=regions[0], target=regions[1], temperature=300.0, friction=10.0, timestep=1e-5,
        lag_steps=2,
    )  # fmt: skip
    return only_refused(problem, why)


@case("openmm/openmm #4974", "A Drude particle on its core")
def _() -> str:
    system, drude = openmm.System(), openmm.DrudeForce()
    for mass in (15.6, 0.4, 12.0):
        system.addParticle(mass)
    drude.addParticle(1, 0, -1, -1, -1, -1.0, 0.001, 1.0, 1.0)
    system.addForce(drude)
    return pair_of(system, [[0, 0, 0], [0.1, 0, 0], [0.5, 0, 0]], "Drude particles have dynamics of their own")


@case("choderalab/openmmtools #797", "A membrane barostat left in the System XML")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        made = openmm.XmlSerializer.deserialize(Path("chain.xml").read_text())
        made.addForce(openmm.MonteCarloMembraneBarostat(1.0, 0.0, 300.0, 0, 0))
        Path("chain.xml").write_text(openmm.XmlSerializer.serialize(made))

    return same_beads(own(edit))


@case("openmm/openmm #2783", "Frozen atoms of mass zero in a System with constraints")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        made = openmm.XmlSerializer.deserialize(Path("chain.xml").read_text())
        made.setParticleMass(0, 0.0)
        made.addConstraint(0, 1, 0.153)
        Path("chain.xml").write_text(openmm.XmlSerializer.serialize(made))

    return same_beads(own(edit))


@case("openmm/openmm #3884", "Frozen atoms, and `minimize: true`")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        rewritten(lambda i, line: line[:30] + f"{float(line[30:38]) + 0.2 * (i == 3):8.3f}" + line[38:])(system)
        made = openmm.XmlSerializer.deserialize(Path("chain.xml").read_text())
        for i in range(2):
            made.setParticleMass(i, 0.0)
        Path("chain.xml").write_text(openmm.XmlSerializer.serialize(made))
        system["minimize"] = True

    problem = built(own(edit))
    still, moved = MAKE["chain"](180.0)[:2], np.frombuffer(walk(problem, 2)).reshape(8, 4, 3)
    assert np.allclose(problem.positions[:2], still, atol=1e-4), "frozen atoms were minimised"
    assert np.array_equal(moved[:, :2], np.repeat(problem.positions[None, :2], 8, axis=0)), "frozen atoms moved"
    return "frozen atoms stay to the digit, minimised and walking; bond 3-4 relaxed"


@case("openmm/openmm #3435", "Hydrogens so heavy that a carbon is left with a negative mass")
def _() -> str:
    return only_refused(well(particle(ENERGY, mass=-3.0)[0]), "masses are negative")


@case("openmm/openmm #4520", "Masses and friction in Brownian dynamics: mass 8 at friction 1/8 is mass 1 at friction 1")
def _() -> str:
    return same_walk(well(particle(ENERGY, mass=8.0)[0], friction=0.125), well())


@case("openmm/openmm #4888", "Three beads in a line, an angle of 180 degrees, where its derivative is 0/0")
def _() -> str:
    system, bonds, angles = openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for i in range(3):
        system.addParticle(10.0)
        if i:
            bonds.addBond(i - 1, i, 0.2, 3000.0)
    angles.addAngle(0, 1, 2, math.pi, 20.0)
    system.addForce(bonds)
    system.addForce(angles)
    bend = features.distances([(0, 2)])
    straight, bent = Region.ball(bend, [0.4], 0.03, "straight"), Region.ball(bend, [0.33], 0.02, "bent")
    problem = Problem(
        system, [[0, 0, 0], [0.2, 0, 0], [0.4, 0, 0]], source=straight, target=bent, temperature=300.0, friction=10.0,
        timestep=1e-3, lag_steps=5,
    )  # fmt: skip
    moved = np.frombuffer(walk(problem, 50)).reshape(8, 3, 3)
    assert np.isfinite(moved).all(), "coordinates are not finite"
    assert abs(np.linalg.norm(moved[:, 1] - moved[:, 0], axis=1) - 0.2).max() < 0.12, "a bond broke"
    return "50 lags from the straight line, all finite, bonds whole"


@case("openmm/openmm #3111", "A spherical container in sqrt(x^2+y^2+z^2), and a start exactly at the origin")
def _() -> str:
    system, _force = particle("10*max(0, sqrt(x^2+y^2+z^2)-1)^2")
    regions = Region.where(lambda x: x[:, 0, 0] < 0.5, "A"), Region.where(lambda x: x[:, 0, 0] > 0.9, "B")
    more: dict[str, Any] = {"source": regions[0], "target": regions[1], "dimensions": 3}
    there, beside = (np.frombuffer(walk(well(system, positions=[[x, 0, 0]], **more))) for x in (0.0, 1e-9))
    assert np.allclose(there, beside, atol=1e-6), "the walk from the origin is not that from beside it"
    return "the walk from the origin is that from 1e-9 nm beside it"


@case("openmm/openmm #3768", "Two forces with one global parameter `k` of different defaults")
def _() -> str:
    system, force = particle("k*x^2")
    force.addGlobalParameter("k", 1.0)
    other = openmm.CustomExternalForce("k*y^2")
    other.addGlobalParameter("k", 2.0)
    other.addParticle(0, [])
    system.addForce(other)
    return only_refused(well(system), "no Context can be made")


@case("choderalab/openmmtools #7", "Global parameters called `a`, `s` and `u`")
def _() -> str:
    system, force = particle(ENERGY.replace(f"({LINE.coefficients[4]!r})", "a*s*u"))
    for name, value in (("a", 1.0), ("s", LINE.coefficients[4]), ("u", 1.0)):
        force.addGlobalParameter(name, value)
    return right_rate(well(system))


@case("choderalab/openmmtools #378", "Forces in groups 3 and 31, as ParmEd puts them")
def _() -> str:
    half = " + ".join(f"({c / 2!r})*x^{i}" if i else f"({c / 2!r})" for i, c in enumerate(LINE.coefficients))
    system, force = particle(half)
    force.setForceGroup(3)
    again = openmm.CustomExternalForce(half)
    again.addParticle(0, [])
    again.setForceGroup(31)
    system.addForce(again)
    return right_rate(well(system))


@case("openmm/openmm #3384", "A potential from a table, by CustomCompoundBondForce of one particle")
def _() -> str:
    x = np.linspace(-2.6, 2.6, 1001)
    force = openmm.CustomCompoundBondForce(1, "table(x1)")
    force.addTabulatedFunction("table", openmm.Continuous1DFunction(np.polyval(LINE.coefficients[::-1], x), -2.6, 2.6))
    force.addBond([0], [])
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    return right_rate(well(system))


@case("choderalab/openmmtools #310", "`periodicdistance` in a restraint, the System in a box")
def _() -> str:
    system, _force = particle(f"({ENERGY}) + 0*periodicdistance(x,y,z,0,0,0)^2")
    system.setDefaultPeriodicBoxVectors([9, 0, 0], [0, 9, 0], [0, 0, 9])
    problem, x = well(system), np.linspace(-2.0, 2.0, 41)
    energies = potential_energies(problem, np.stack([[[one, 0.0, 0.0]] for one in x]))
    assert np.allclose(energies, np.polyval(LINE.coefficients[::-1], x), atol=1e-9), "energies differ"
    moved = np.frombuffer(walk(problem, 40)).reshape(8, 3)
    assert (abs(moved[:, 0]) < 2.5).all(), "a walker left"
    return "energies as by hand to 1e-9; 40 lags of 8 walkers stay in the wells"


@case(
    "openmm/openmm #3443",
    "A torsion restrained at -60 degrees: does the sign of the feature agree with OpenMM's theta?",
)
def _() -> str:
    system, force = openmm.System(), openmm.CustomTorsionForce("theta")
    for _i in range(4):
        system.addParticle(1.0)
    force.addTorsion(0, 1, 2, 3, [])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    x = np.random.default_rng(1).normal(size=(50, 4, 3))
    theirs = []
    for one in x:
        context.setPositions(one)
        theirs.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    ours = evaluate(features.Dihedrals([(0, 1, 2, 3)], radians=True), x)[:, 0]
    assert np.allclose(ours, theirs, atol=1e-6), "signs or values differ"
    return "50 random torsions equal to 1e-6"


def pair_in_box(vectors: Any, cutoff: float, shift: float = 0.0) -> Problem:
    """Return a Lennard-Jones pair with a cutoff in a box."""
    system, force = openmm.System(), openmm.NonbondedForce()
    for _i in range(2):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.34, 1.0)
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    system.setDefaultPeriodicBoxVectors(*vectors)
    system.addForce(force)
    distance = features.distances([(0, 1)])
    near, far = Region.ball(distance, [0.38], 0.06, "bound"), Region.ball(distance, [1.0], 0.1, "free")
    return Problem(
        system, [[0, 0, 0], [0.38 + shift, 0, 0]], source=near, target=far, temperature=120.0, friction=1.0,
        timestep=0.01, lag_steps=5,
    )  # fmt: skip


@case("openmm/openmm #5347", "A box of less than twice the cutoff")
def _() -> str:
    return only_refused(pair_in_box(np.eye(3) * 1.5, 1.0), "no Context can be made")


@case("openpathsampling/openpathsampling #799", "Box vectors that are not in reduced form, from another program")
def _() -> str:
    def edit(system: dict[str, Any]) -> None:
        text = openmm.XmlSerializer.serialize(pair_in_box(np.eye(3) * 3.0, 1.0).system)
        Path("chain.xml").write_text(text.replace('<B x="0"', '<B x="2.9"'))
        rewritten(lambda i, line: line if i < 2 else "REMARK")(system)
        system["features"] = {"d": {"distance": [0, 1]}}
        system["regions"] = {"near": {"within": {"d": [None, 0.3]}}, "far": {"within": {"d": [0.5, None]}}}
        system.update(source="near", target="far", others=[])

    command("brute", own(edit), "--out", "new", "--max-time", "0.1")
    raise AssertionError("accepted, though no Context can be made")


@case("infretis/infretis #155", "A pair in a triclinic box, bound across the boundary")
def _() -> str:
    problem = pair_in_box([[3, 0, 0], [1.5, 3, 0], [0, 1.5, 3]], 1.2, shift=3.0)
    return only_refused(problem, "the distance across the boundary was not compared")


@case("openmm/openmm #4674", "A distance `r` in a CustomExternalForce, where there is none")
def _() -> str:
    return only_refused(well(particle("4*((0.3/r)^12-(0.3/r)^6)")[0]), "no Context can be made")


@case("openmm/openmm #4132", "A NonbondedForce with fewer particles than the System")
def _() -> str:
    system = particle(ENERGY)[0]
    system.addForce(openmm.NonbondedForce())
    return only_refused(well(system), "no Context can be made")


@case("choderalab/perses #728", "`timestep: 2`, meant as femtoseconds")
def _() -> str:
    return command("brute", own(lambda s: s.update(timestep=2)), "--out", "new", "--max-evals", "1e5", fine=())


@case("openmm/openmm #1391", "System XML with numeric escapes, &#120; for x, in an energy expression")
def _() -> str:
    text = openmm.XmlSerializer.serialize(particle(ENERGY)[0])
    assert "*x^4" in text
    text = text.replace("*x^4", "*&#120;^4").replace("*x^2", "*&#x78;^2")
    return same_walk(well(openmm.XmlSerializer.deserialize(text)), well())


# --------------------------------------------------------------------------------------------------- regions, features


@case("openpathsampling/openpathsampling #27", "A state across the jump of a torsion, 150 to -150 degrees")
def _() -> str:
    return same_beads(own())


@case("openpathsampling/openpathsampling #1120", "Ends of a torsion in radians, without a unit")
def _() -> str:
    edge = math.radians(150)
    return same_beads(own(lambda s: s["regions"]["trans"].update(within={"phi": [edge, -edge]})))


@case("openpathsampling/openpathsampling #837", "States that touch: x at most 0 and at least 0")
def _() -> str:
    line = double_well(1.0, 0.3, source=(-9.0, 0.0), target=(0.0, 9.0))
    return right_rate(line.problem(), line)


@case("openpathsampling/openpathsampling #837", "A start that is in no state")
def _() -> str:
    return right_rate(well(positions=[[0.1, 0.0, 0.0]]))


@case("openpathsampling/openpathsampling #1162", "A collective variable that returns one number a structure, no column")
def _() -> str:
    return right_rate(well(source=Region.ball(lambda x: x[:, 0, 0], [-5.7], 5.0, "A")))


@case("westpa/westpa #164", "A progress coordinate of another length than the regions expect")
def _() -> str:
    return right_rate(well(source=Region.ball(features.positions(), [-5.7], 5.0, "A")))


@case("westpa/westpa #63", "Two numbers for the middle of a region, one feature")
def _() -> str:
    return right_rate(well(source=Region.ball(lambda x: x[:, 0, :1], [-5.7, 0.0], 5.0, "A")))


@case("(no thread)", "A collective variable in single precision")
def _() -> str:
    def single(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, :1].float()

    source, target = Region.ball(single, [-5.7], 5.0, "A"), Region.ball(single, [5.8], 5.0, "B")
    return right_rate(well(source=source, target=target))


@case("westpa/westpa #170", "A progress coordinate that becomes NaN on the way")
def _() -> str:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(0.9 - x[:, 0, :1])

    target = Region.ball(broken, [0.0], 0.3, "B")
    try:
        return right_rate(well(source=Region.ball(broken, [2.0], 0.73, "A"), target=target))
    except RlisError as error:  # no check before the start can know it
        assert "of 512 structures" in str(error) or "of 500 structures" in str(error), str(error)
        raise StoppedError(f"{error} (during the run)") from None


@case("openpathsampling/openpathsampling #1115", "Numbers as NumPy scalars and arrays without dimensions")
def _() -> str:
    return same_walk(
        well(
            temperature=np.float64(ONE_KT), friction=np.array(1.0), timestep=np.array(LINE.timestep),
            lag_steps=np.int32(LINE.lag_steps), dimensions=np.int64(1),
        )
    )  # fmt: skip


@case("choderalab/openmmtools #392", "Positions as a list of Vec3 with units, in Angstrom")
def _() -> str:
    return same_walk(well(positions=[openmm.Vec3(10.0 * LINE.start, 0.0, 0.0)] * unit.angstrom))


@case("openmm/openmm #39", "Positions in single precision, read-only, in Fortran order")
def _() -> str:
    positions = np.asfortranarray(np.array([[LINE.start, 0.0, 0.0]], dtype=np.float32))
    positions.flags.writeable = False
    return same_walk(well(positions=positions))


@case("openmm/openmm #3892", "Positions in Angstrom without a unit")
def _() -> str:
    return same_walk(well(positions=[[10.0 * LINE.start, 0.0, 0.0]], source=LINE.region((-1.2, -0.7), "A")))


@case("OpenBioSim/sire #48", "Friction as a time, 1 ps, for 1/ps")
def _() -> str:
    return same_walk(well(friction=1 * unit.picosecond))


@case("openmm/openmm #1681", "Friction 0, as Langevin integrators take it; a negative time step; a lag of no steps")
def _() -> str:
    told = []
    for wrong in ({"friction": 0.0}, {"timestep": -0.005}, {"lag_steps": 0}):
        try:
            well(**wrong)
        except RlisError as error:
            told.append(str(error))
    assert len(told) == 3, f"only {len(told)} of 3 are refused"
    raise RefusedError("; ".join(told))


@case("choderalab/openmmtools #566", "A time step as a quantity of another library of units")
def _() -> str:
    class Foreign:
        magnitude, units = 5.0, "femtosecond"

        def __repr__(self) -> str:
            return "<5 femtosecond of another library>"

    return same_walk(well(timestep=Foreign()))


@case("openmm/openmm #148", "Angles stored in degrees and in radians: 149 and 151 degrees, and the same in rad")
def _() -> str:
    edge = math.radians(150)
    return same_beads(own(lambda s: s["regions"]["trans"].update(within={"phi": [f"{edge} rad", f"{-edge} rad"]})))


# ---------------------------------------------------------------------------------------------------------------- runs


@case("infretis/infretis #129", "A new run in the directory of a finished one")
def _() -> str:
    words = ["brute", "double_well", "--set", "height=3", "--max-evals", "1e5", "--out", "old"]
    command(*words)
    before = {path: path.read_bytes() for path in Path("old").rglob("*") if path.is_file()}
    try:
        command(*words)
    finally:
        assert before == {path: path.read_bytes() for path in Path("old").rglob("*") if path.is_file()}, "files changed"
    return "ran again"


@case("infretis/infretis #162", "A finished run continued with another target")
def _() -> str:
    first = rlis.brute(LINE.problem(), "run", seed=2, target_relative_error=0.3, max_force_evaluations=20_000_000)
    more = rlis.resume("run", LINE.problem(), target_relative_error=0.012)
    assert more.n_rounds > first.n_rounds, "nothing was added"
    return f"{first.n_rounds} rounds, then {more.n_rounds}: " + near(more.rate, LINE.chain.endless.rate)


@case("westpa/westpa #91", "A run cut off by a limit and restarted equals one that was not")
def _() -> str:
    goal: dict[str, Any] = {"seed": 5, "target_relative_error": 0.04}
    rlis.brute(LINE.problem(), "cut", max_force_evaluations=700_000, **goal)
    cut = rlis.resume("cut", LINE.problem(), max_force_evaluations=30_000_000)
    whole = rlis.brute(LINE.problem(), "whole", max_force_evaluations=30_000_000, **goal)
    assert cut.rate == whole.rate, f"{cut.rate} and {whole.rate}"
    return "to the last digit; " + near(cut.rate, LINE.chain.endless.rate)


@case("infretis/infretis #148", "The same seed twice, another once; seed 0, which OpenMM takes for a random one")
def _() -> str:
    rates = []
    for i, seed in enumerate((0, 0, np.int64(3))):
        goal = {"seed": seed, "target_relative_error": 0.3, "max_force_evaluations": 20_000_000}
        rates.append(rlis.brute(LINE.problem(), f"run{i}", **goal).rate)
    assert rates[0] == rates[1] != rates[2], f"{rates}"
    return "seed 0 twice the same rate, seed 3 another"


@case("infretis/infretis #98", "A temperature in the System section and another on the command line")
def _() -> str:
    config = own()
    command("brute", config, "--out", "new", "--set", "temperature=450 K", "--max-evals", "1e4")
    stored = yaml.safe_load(Path("new/config.yaml").read_text())
    kT = unit.MOLAR_GAS_CONSTANT_R * 450 * unit.kelvin
    assert math.isclose(stored["beta"] * kT.value_in_unit(unit.kilojoule_per_mole), 1.0, rel_tol=1e-12)
    assert stored["recipe"]["options"]["temperature"] == 450.0
    return "that of the command line, in the run and in what is stored"


@case(
    "westpa/westpa #573", "A run moved after its start: blanks and umlauts in the folder, a link to it, its files gone"
)
def _() -> str:
    folder = Path("Ordner für Läufe")
    folder.mkdir()
    Path("link").symlink_to(folder, target_is_directory=True)
    config = own()
    command("brute", config, "--out", "link/Lauf 1", "--max-time", "0.1")
    for path in {*Path().glob("chain.*"), *Path().glob("*.pdb"), config}:
        path.unlink()
    (folder / "Lauf 1").rename(folder / "Lauf zwei")
    command("resume", "link/Lauf zwei", "--max-time", "0.2")
    told = command("status", "link/Lauf zwei")
    assert "stopped by max_seconds" in told, told
    problem = rlis.load("link/Lauf zwei").problem
    assert np.allclose(problem.positions, MAKE["chain"](180.0), atol=1e-4), "positions differ"
    return "resumed, its status and its structure read, where it is now"


@case("openpathsampling/openpathsampling #411", "Three states in a row, the third on the other side: A to B without D")
def _() -> str:
    line = triple_well(4.0, 0.4)
    return right_rate(line.problem(), line)


# ----------------------------------------------------------------------------------------------------------- the table


def tried(function: Case, out: Any) -> None:
    """Try an input in an empty folder and send (what happened, verdict)."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            found = function(), "accepted and right"
        except (RefusedError, RlisError) as error:
            text, left = str(error), [name for name in ("new", "run") if Path(name).exists()]
            left = [] if isinstance(error, StoppedError) else left
            found = (
                (text, "refused in one line") if "\n" not in text and not left else (f"{text} (left {left})", "broken")
            )
        except BaseException as error:  # whatever it is, it is the finding
            found = f"{type(error).__name__}: {error}", "broken"
        out.send(found)
        os.chdir("/")


def isolated(function: Case) -> tuple[str, str]:
    """Return (what happened, verdict) of an input that is tried in a process of its own."""
    here, there = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=tried, args=(function, there))
    child.start()
    there.close()
    found = ("no answer", "broken")
    if here.poll(LONGEST):
        with contextlib.suppress(EOFError):
            found = here.recv()
    else:
        found = (f"nothing after {LONGEST:.0f} s", "broken")
        child.kill()
    child.join()
    if found[0] == "no answer":
        found = (f"the process ended with {child.exitcode}", "broken")
    return found


def main(arguments: list[str]) -> None:
    """Try everything, or what is named, and write results/inputs.md."""
    chosen = [int(word) for word in arguments] or range(1, len(CASES) + 1)
    rows, verdicts, begun = [], [], time.monotonic()
    for number in chosen:
        source, words, function = CASES[number - 1]
        text, verdict = isolated(function)
        verdicts.append(verdict)
        text = " ".join(text.split()).replace("|", "\\|")
        rows.append(f"| {number} | {words} | {source} | {text[:400]} | {verdict} |")
        print(f"{rows[-1]}  {time.monotonic() - begun:.0f} s", flush=True)
    if arguments:
        return
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("accepted and right", "refused in one line", "broken"))
    head = [
        "Inputs of kinds that people stumbled over in public issue threads, made anew here. Command: "
        "`python -m benchmarks inputs`. Rates by brute force, exact ones from the transition matrix of the very chain.",
        "", f"{len(rows)} inputs: {counts}.", "",
        "| | input | thread | what happens | verdict |", "|---|---|---|---|---|",
    ]  # fmt: skip
    save("inputs", [*head, *rows])


if __name__ == "__main__":
    main(sys.argv[1:])

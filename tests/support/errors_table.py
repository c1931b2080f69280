"""Every message that users can see: when it occurs, what to do, and what provokes it. docs/errors.md is made from it.

    python tests/support/errors_table.py > docs/errors.md

A message has <placeholders>; a provocation is a command line, run in a folder made by `prepare`, or a function of that
folder. `test_errors_table` provokes them all, and holds the table against the places in the package that raise.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import hostile
import numpy as np
import openmm
import torch
import yaml
from openmm import app, unit

from openmm_rlis import export, features, regions, units
from openmm_rlis import value_function as value
from openmm_rlis.basin import basin_simulation
from openmm_rlis.config import build_problem, problem_identity
from openmm_rlis.config import run_config as config
from openmm_rlis.dynamics import bias, engine, integrators, lost_walkers, packing, platforms, propagators
from openmm_rlis.learning import training
from openmm_rlis.networks import legs, states
from openmm_rlis.networks import network as networks
from openmm_rlis.openmm_system import atom_order, global_parameters, periodic_box, system_differences, system_xml
from openmm_rlis.openmm_system.obstacles import brownian_system
from openmm_rlis.paths import ensemble as paths
from openmm_rlis.preflight.start_checks import check_room, check_start
from openmm_rlis.problem import Problem
from openmm_rlis.regions import Region
from openmm_rlis.results import result
from openmm_rlis.safe_readers import xml_text
from openmm_rlis.sampling import run as sampler
from openmm_rlis.sampling.stopping import Goal
from openmm_rlis.statistics import branching, estimators, kinetic_network, weights
from openmm_rlis.storage import atomic_files, checksums, new_run
from openmm_rlis.storage import rounds as frames
from openmm_rlis.storage.run_directory import RunDirectory
from openmm_rlis.systems import arguments, build, double_well
from openmm_rlis.walks import adaptive_splitting, branching_walk, workers

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_system"
XML = '<System><Particles><Particle mass="1"/><Particle mass="1"/></Particles></System>'
Act = str | Callable[[Path], Any]


@dataclass(frozen=True)
class Row:
    """One message; `acts` provoke it. Exit status 2 unless said otherwise."""

    message: str
    when: str
    do: str
    acts: tuple[Act, ...]
    status: int = 2


def row(message: str, when: str, do: str, *acts: Act, status: int = 2) -> Row:
    return Row(message, when, do, acts, status)


# ------------------------------------------------------------------------------------------------------- preparations


def prepare(folder: Path) -> None:
    """Fill a folder with the own system of the example and with files that are wrong in one way each."""
    make = runpy.run_path(str(EXAMPLE / "make_files.py"))
    make["main"](folder)
    shutil.copy(EXAMPLE / "config.yaml", folder / "own.yaml")
    system = make["make_system"]()
    system.addConstraint(0, 1, 0.15)
    (folder / "integrator.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    (folder / "constrained.xml").write_text(openmm.XmlSerializer.serialize(system))
    text = (folder / "chain.pdb").read_text()
    lines = text.splitlines(keepends=True)
    (folder / "five.pdb").write_text("".join([*lines[:5], lines[4].replace("   4  C4", "   5  C5"), *lines[5:]]))
    (folder / "nan.pdb").write_text(text.replace("1.530", "  nan"))
    (folder / "same.pdb").write_text(text.replace("C2", "C1"))
    (folder / "packed.pdb.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "garbage.pdb").write_text("ATOM  what is this\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe")
    (folder / "brute.yaml").write_text("system: double_well\nmethod: brute")
    (folder / "list.yaml").write_text("[1, 2]")
    (folder / "broken.yaml").write_text("a: [")
    (folder / "endless.yaml").write_text("system: &a [*a]")
    (folder / "scalar.yaml").write_text("system: lj7\noptions: 3")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "precious.txt").write_text("mine")
    config = {"settings": {"n_batches": 2, "failure_share": 1.0}, "recipe": None, "lag_time": 1.0, "region_names": []}
    RunDirectory.create(folder / "fresh", config, XML).close()
    RunDirectory.create(folder / "meagre", {"settings": {"n_batches": 2}}, XML).close()
    (folder / "begun" / "forward").mkdir(parents=True)
    (folder / "python.xml").write_text(hostile.in_forces(hostile.python_force(folder / "executed")))
    (folder / "worse.xml").write_text(hostile.in_forces('<Force type="HarmonicBondForce" version="99"/>'))


def own(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], list[str]]:
    """Return what writes an own system that is wrong in one way and returns the command line that runs it."""

    def command(folder: Path) -> list[str]:
        content = yaml.safe_load((folder / "own.yaml").read_text())
        edit(content["system"])
        (folder / "case.yaml").write_text(yaml.safe_dump(content))
        return ["run", "case.yaml", "--out", "NEW"]

    return command


def phi(low: object, high: object) -> Callable[[Path], list[str]]:
    return own(lambda s: s["regions"]["trans"].update(within={"phi": [low, high]}))


def feature(**spec: object) -> Callable[[Path], list[str]]:
    return own(lambda s: s["features"].update(psi=spec))


def directions(folder: Path) -> None:
    for name, beta in (("there", 1.0), ("back", 2.0)):
        config = {"beta": beta, "region_names": ["A", "B"]}
        RunDirectory.create(folder / name, config, XML).close()
    problem_identity.check_directions(folder / "there", folder / "back")


def swapped(bond: float, named: bool, order: tuple[int, ...] = (0, 1, 2)) -> None:
    """Three carbons in a row, the bonds of which are in another order in the topology or in space."""
    system, topology = system_of(12.011, 12.011, 12.011), app.Topology()
    force, residue = openmm.HarmonicBondForce(), topology.addResidue("X", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.Element.getBySymbol("C"), residue) for i in range(3)]
    topology.addBond(atoms[order[0]], atoms[order[1]])
    for i in range(2):
        force.addBond(i, i + 1, 0.15, 2e5)
    system.addForce(force)
    x = np.array([[bond * i, 0.0, 0.0] for i in range(3)])
    atom_order.check_order(system, topology if named else None, x, 2.5, ("topology", "positions"))


def other_box(_: Path) -> None:
    force, topology = openmm.CustomExternalForce("periodicdistance(x, y, z, 0, 0, 0)"), app.Topology()
    topology.setPeriodicBoxVectors(3.0 * np.eye(3) * unit.nanometer)
    periodic_box.check_box(with_force(force), topology, "topology")


def named_otherwise(first: Sequence[str], second: Sequence[str]) -> None:
    found = []
    for names in (first, second):
        topology = app.Topology()
        residue = topology.addResidue("X", topology.addChain())
        for name in names:
            topology.addAtom(name, None, residue)
        found.append(topology)
    atom_order.check_same_order(*found, "system.regions.B", "b.pdb")


def water_first(symbols: Sequence[str]) -> None:
    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    for symbol in symbols:
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    atom_order.check_order(system_of(15.999, 1.008, 1.008), topology, np.zeros((3, 3)), 2.5, ("topology", "positions"))


def way_back(folder: Path) -> None:
    found = learned(well())
    found.problem = well(source="R", target="L")
    found.check_problem(well())


def well(**changes: Any) -> Any:
    return double_well.build(**changes)


def other_problem(**changes: Any) -> Problem:
    """Return the Problem of one free particle with some arguments changed."""
    system = openmm.System()
    system.addParticle(1.0)
    arguments_: dict[str, Any] = {
        "system": system, "positions": [[0.0, 0.0, 0.0]], "temperature": 300.0, "friction": 1.0, "timestep": 0.001,
        "source": Region.where(lambda x: x[:, 0, 0] < 0.1), "target": Region.where(lambda x: x[:, 0, 0] > 1.0),
    }  # fmt: skip
    return Problem(**{**arguments_, **changes})


def with_force(*forces: Any) -> Any:
    system = openmm.System()
    system.addParticle(1.0)
    for force in forces:
        system.addForce(force)
    return system


def undefined() -> Problem:
    """Return a Problem whose force names a parameter that nothing defines."""
    force = openmm.CustomExternalForce("q*x^2")
    force.addParticle(0, [])
    return other_problem(system=with_force(force))


def overlap(distance: float) -> Problem:
    """Return two argon atoms so far apart."""
    system, force = system_of(40.0, 40.0), openmm.NonbondedForce()
    for _ in range(2):
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    return other_problem(system=system, positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])


def frozen() -> Problem:
    """Return a particle that moves in a plane, and regions in the third coordinate."""
    height = features.Coordinates([(0, 2)])
    ends = {"source": Region.ball(height, [0.0], 0.1), "target": Region.ball(height, [1.0], 0.1)}
    return other_problem(dimensions=2, **ends)


def system_of(*masses: float) -> Any:
    system = openmm.System()
    for mass in masses:
        system.addParticle(mass)
    return system


def virtual() -> Any:
    system = system_of(1.0, 1.0, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    return system


def linked() -> Any:
    system = system_of(1.0, 1.0)
    system.addConstraint(0, 1, 0.1)
    return system


def tree(**changes: Any) -> paths.PathTree:
    good: dict[str, Any] = {
        "positions": np.zeros((2, 1, 3), np.float32), "parents": np.array([-1, 0], np.int32),
        "leaves": np.array([1], np.int32), "labels": np.array([2], np.int8), "log_weights": np.zeros(1),
        "roots": np.zeros(1, np.int32), "batch": 0, "round": 0,
    }  # fmt: skip
    return paths.PathTree(**{**good, **changes})


def ensemble() -> paths.PathEnsemble:
    """Return two success paths of two frames each."""
    return paths.PathEnsemble([tree(), tree()])


def averaged(*values: Any) -> Callable[[Path], Any]:
    """Return what averages a function of paths that returns these values, one after the other."""

    def act(folder: Path) -> Any:
        left = iter(values)
        return ensemble().average(lambda frames: next(left))

    return act


def without(library: str, **choice: str) -> Callable[[Path], Any]:
    """Return what exports in a format whose library cannot be imported."""

    def act(folder: Path) -> Any:
        with mock.patch.dict(sys.modules, {library: None}):
            return export.export_paths(folder / "fresh", folder / "NEW", **choice)

    return act


def no_room(folder: Path) -> Any:
    with mock.patch.object(shutil, "disk_usage", lambda path: mock.Mock(free=0)):
        return export._check_room(folder / "NEW", "dcd", [ensemble()], str)


def damaged(folder: Path, name: str, content: bytes) -> Path:
    copied = folder / "damaged"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder / "fresh", copied)
    (copied / name).write_bytes(content)
    return copied


def in_store(act: Callable[[RunDirectory], Any]) -> Callable[[Path], Any]:
    """Return what does something to a run directory that is open for writing."""

    def run(folder: Path) -> Any:
        with RunDirectory.open(damaged(folder, "log.jsonl", b""), write=True) as store:
            return act(store)

    return run


def early(folder: Path, name: str, content: bytes) -> Path:
    """Return a run directory as early versions made it, without checksums of what is replaced."""
    copied = damaged(folder, name, content)
    manifest, _ = atomic_files.sealed(copied / "manifest.json")
    del manifest["chain"]
    (copied / "manifest.json").write_bytes(atomic_files.seal(manifest))
    return copied


def missing_round(store: RunDirectory) -> Any:
    for index in range(3):
        store.write_round("flux", index, {}, {})
    shutil.rmtree(store.path / "rounds/flux/000001")
    return RunDirectory.open(store.path)


def repeated_round(store: RunDirectory) -> Any:
    store.write_round("flux", 0, {}, {})
    shutil.copytree(store.path / "rounds/flux/000000", store.path / "rounds/flux/000001")
    return RunDirectory.open(store.path)


def missing_early_round(folder: Path) -> Any:
    copied = early(folder, "log.jsonl", b"")
    for index in (0, 2):
        where = copied / "rounds" / "flux" / f"{index:06d}"
        where.mkdir(parents=True)
        (where / "manifest.json").write_bytes(atomic_files.seal({"stage": "flux", "index": index, "files": {}}))
    return RunDirectory.open(copied)


def short_frames(store: RunDirectory) -> Any:
    path = store.path / "paths" / "short.dcd"
    path.write_bytes(b"junk")
    return frames.FrameFile(path, 5, 3, atomic_files.file_sha256(path))[0]


def linked_folder(store: RunDirectory) -> Any:
    store.close()
    (store.path / "paths").rename(store.path / "elsewhere")
    (store.path / "paths").symlink_to("elsewhere")
    return RunDirectory.open(store.path, write=True)


def resealed(folder: Path, name: str, content: bytes) -> Path:
    """Return a run directory with a file changed and its checksum too."""
    copied = damaged(folder, name, content)
    manifest, _ = atomic_files.sealed(copied / "manifest.json")
    manifest["files"][name] = atomic_files.file_sha256(copied / name)
    (copied / "manifest.json").write_bytes(atomic_files.seal(manifest))
    return copied


def changed_parent(folder: Path) -> list[str]:
    both = folder / "changed"
    (both / "forward").mkdir(parents=True, exist_ok=True)
    checksums.replace_covered(both / "config.yaml", lambda path: path.write_text("system: lj7"))
    (both / "config.yaml").write_text("system: lj13")
    return ["resume", str(both)]


def with_torch_force(act: Callable[[Any], Any], nested: bool = False, reason: str = "") -> Callable[[Path], Any]:
    """Return what does something with a System that holds a TorchForce, on a machine where that does not work."""
    force = '<Force type="TorchForce" version="1" file="x"/>'
    root = xml_text.parsed(hostile.in_forces(hostile.in_cv(force) if nested else force))

    def run(folder: Path) -> Any:
        with (
            mock.patch.object(system_xml, "_written", lambda system: root),
            mock.patch.object(system_xml, "load_plugin", lambda: reason),
            mock.patch.object(system_xml, "survives_xml", lambda: False),
        ):
            return act(with_force(openmm.CustomCVForce("0")))

    return run


def moved_round(store: RunDirectory) -> None:
    store.write_round("flux", 0, {}, {})
    (store.path / "rounds/flux/000000").rename(store.path / "rounds/flux/000001")
    store.read_round("flux", 1)


def spoiled_frames(store: RunDirectory) -> None:
    store.write_round("flux", 0, {}, {}, [tree()])
    (store.path / "paths" / "flux-000000-000.dcd").write_bytes(b"junk")
    np.asarray(store.read_round("flux", 0).trees[0].positions[0])


def first_version(folder: Path) -> Path:
    """Return a run directory as the first version made it, without `excursion_lags`."""
    fresh = RunDirectory.open(folder / "fresh")
    settings = {name: value for name, value in fresh.config["settings"].items() if name != "excursion_lags"}
    config = {name: value for name, value in fresh.config.items() if name != "format_version"}
    shutil.rmtree(folder / "early", ignore_errors=True)
    config |= {"method": "run", "settings": settings}
    RunDirectory.create(folder / "early", config, fresh.system_xml).close()
    return folder / "early"


def sealed(folder: Path, content: dict[str, Any]) -> Path:
    return damaged(folder, "manifest.json", json.dumps({**content, "sha256": "x"}).encode())


def learned(problem: Problem) -> value.ValueFunction:
    x = problem.positions[None]
    return value.ValueFunction(problem.features, value.feature_statistics(problem, np.repeat(x, 3, 0), x, x))


def shaky(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x[:, 0, :1] > 5.0, torch.full_like(x[:, 0, :1], math.nan), x[:, 0, :1])


def far(problem: Problem, distance: float = 9.0) -> Any:
    return np.full((1, problem.n_atoms, 3), distance)


def saved_elsewhere(folder: Path) -> Any:
    learned(well()).save(folder / "value.pt", well())
    return value.ValueFunction.load(folder / "value.pt", other_problem(features=shaky))


def stuck_walk(folder: Path) -> Any:
    made = well()
    x = np.zeros((2, 1, 3))
    roots = branching_walk.Roots(x, x, np.zeros(2), np.zeros(2, bool), np.ones(2, bool), np.zeros(2, np.int32))
    rng, mover = np.random.default_rng(1), engine.Engine(made, 4)
    mover.reseed(rng)
    return branching_walk.walk(
        mover, lambda x: np.zeros(len(x)), roots, branching.Window(), rng, frame_stride=1, max_lags=1
    )


def no_way(folder: Path) -> Any:
    made = well(height=60.0)
    mover, rng = engine.Engine(made, 16), np.random.default_rng(1)
    mover.reseed(rng)
    score = adaptive_splitting.make_score(made, made.positions[None], None)
    return adaptive_splitting.split(
        mover, score, made.positions[None] + 0.25, rng, n_paths=16, max_levels=2, max_lags=5
    )


def nowhere(folder: Path) -> Any:
    made = other_problem(target=Region.where(lambda x: x[:, 0, 0] > 1e9, "far"))
    return adaptive_splitting.find_target(made, engine.Engine(made, 64), np.random.default_rng(1), max_lags=1)


def no_exit(folder: Path) -> Any:
    made = other_problem(source=Region.where(lambda x: x[:, 0, 0] < 1e6))
    return basin_simulation.equilibrate(engine.Engine(made, 4), 4, first_window=1, max_windows=1)


def blown_up(positions: Any) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        mover = engine.Engine(well(), 4)
        mover.reseed(np.random.default_rng(1))
        return mover.propagate(np.asarray(positions, dtype=float))

    return act


def lost_in_potential(positions: Any, energy: str = "sqrt(x-1)") -> Callable[[Path], Any]:
    return lambda _: engine.Engine(other_problem(system=external(energy)), 4).propagate(positions)


def external(energy: str) -> openmm.System:
    """Return a particle in a potential."""
    force = openmm.CustomExternalForce(energy)
    force.addParticle(0, [])
    return with_force(force)


def lost_in_bias(folder: Path) -> Any:
    made = other_problem(features=lambda x: torch.where(x[:, 0, :1] > 1.0, torch.sqrt(x[:, 0, :1] - 1.0), x[:, 0, :1]))
    return engine.Engine(made, 4, bias=bias.Bias(learned(made), backend="python")).propagate(np.zeros((1, 1, 3)), True)


def lost_for_no_reason(folder: Path) -> Any:
    with mock.patch.object(lost_walkers, "_last_seen", lambda _, before: (None, before)):
        return lost_in_potential(np.zeros((1, 1, 3)))(folder)


def lost_to_openmm(folder: Path) -> Any:
    with mock.patch.object(lost_walkers, "_last_seen", side_effect=openmm.OpenMMException("out of memory")):
        return lost_in_potential(np.zeros((1, 1, 3)))(folder)


def a_run_that_loses(folder: Path) -> Any:
    return sampler.brute(other_problem(system=external("log(x+1e-3)")), folder / "lost", max_seconds=60.0)


def at_odds() -> openmm.System:
    """Return a System whose two forces give one parameter different values."""
    system = external("0")
    for height in (3.0, 8.0):
        force = openmm.CustomExternalForce("k*x")
        force.addGlobalParameter("k", height)
        system.addForce(force)
    return system


def no_platform(folder: Path) -> Any:
    made = other_problem(system=with_force(openmm.GBSAOBCForce()))  # a particle is missing in it
    return platforms.choose_platform(made, None)


def worker_killed(folder: Path) -> None:
    """Map a function that kills its process."""
    with workers.make_executor(2) as executor:
        executor.map(lambda items: os.kill(os.getpid(), signal.SIGKILL), range(2))  # type: ignore[arg-type, return-value]


def stopped_by_openmm(folder: Path) -> Any:
    mover = engine.Engine(well(), 1)
    mover.reseed(np.random.default_rng(1))
    with mock.patch.object(openmm.CustomIntegrator, "step", side_effect=openmm.OpenMMException("Particle is NaN")):
        return mover.propagate(np.zeros((1, 1, 3)))


def no_context(folder: Path) -> Any:
    with mock.patch.object(openmm, "Context", side_effect=openmm.OpenMMException("no such device")):
        return propagators.make_context(system_of(1.0), openmm.VerletIntegrator(0.001), None)


def forced(backend: str, why: str = "", made: Problem | None = None) -> Callable[[Path], Any]:
    def act(folder: Path) -> Any:
        subject = made or well()
        with mock.patch.object(bias, "_load_plugin", lambda: why):
            return bias.bias_force(learned(subject), subject.n_atoms, 1, subject.kT, 1.0, backend)

    return act


def no_backend(folder: Path) -> Any:
    with mock.patch.object(bias, "backend_status", lambda: dict.fromkeys(bias.BACKENDS, "not there")):
        return bias.default_backend()


def full_disk(folder: Path) -> Any:
    with atomic_files.storage_errors("write", folder / "x"):
        raise OSError(28, "No space left on device")


def python_regions(folder: Path) -> Any:
    return build_problem.problem_of({"recipe": None}, None)


# --------------------------------------------------------------------------------------------------------------- rows


def a_network(folder: Path, **changes: Any) -> Any:
    """Call `network` for the two wells, or what `changes` say."""
    wanted = {"build": double_well.build, "states": ("L", "R"), "directory": folder / "NEW", **changes}
    return networks.network(**wanted)


def another_network(folder: Path) -> Any:
    """Go on in the directory of another network."""
    parent = folder / "another"
    entries = {"states": ["L", "R"], "betas": None, "seed": 1, "system": "double_well", "auto": False, "plan": {}}
    if not parent.exists():
        legs.Parent.open(parent, entries)
    return legs.Parent.open(parent, {**entries, "seed": 2})


def from_python(folder: Path) -> list[str]:
    """Make the directory of a network without a command and return the command line that resumes it."""
    another_network_exists = folder / "python-network"
    if not another_network_exists.exists():
        entries = {"states": ["L", "R"], "betas": None, "seed": 1, "system": "double_well", "auto": False, "plan": {}}
        legs.Parent.open(another_network_exists, entries)
    return ["resume", str(another_network_exists)]


def changed_network(folder: Path) -> list[str]:
    """Change the config.yaml of a network and return the command line that resumes it."""
    parent = folder / "changed-network"
    if not parent.exists():
        entries = {"states": ["L", "R"], "betas": None, "seed": 1, "system": "double_well", "auto": False, "plan": {}}
        legs.Parent.open(parent, entries)
        checksums.replace_covered(parent / "config.yaml", lambda path: path.write_text("system: double_well"))
        (parent / "config.yaml").write_text("system: lj7")
    return ["resume", str(parent)]


SECTIONS: dict[str, tuple[Row, ...]] = {
    "Command line": (
        row("SYSTEM: expected one of <names>, got <name>", "no packaged system has this name", "take one of `rlis systems`, or write a config.yaml", "run nosuch --out NEW", "run lj --out NEW", lambda f: build_problem.default_options("x")),
        row("option of <system>: expected one of <names>, got <name>", "`--set`, or `options` in the file, names what the system does not have", "take one of the names; settings are `--set settings.NAME=`", "run lj7 --out NEW --set lag_step=3", "run own.yaml --out NEW --set betta=3", lambda f: build("lj7", {"x": 1})),
        row("option <name> of <system>: expected <kind>, got <value>", "an option has the wrong type, or is not finite", "give a value of that kind", "run lj7 --out NEW --set lag_steps=many", "run lj7 --out NEW --set radius=.nan"),
        row("system: expected one of <names>, got <name>", "`systems.build` was asked for a system that is not there", "take one of the names", lambda f: build("x", {})),
        row("source, target, others: expected minima out of <names>, got <name>", "the system has no such minimum", "take names of that list", "run lj7 --from C9 --out NEW"),
        row("source, target, others: expected three disjoint sets of minima, got <names>", "a minimum is named twice", "name each once; `--others none` for none", "run lj7 --from C2 --to C2 --out NEW"),
        row("beta: expected a positive inverse temperature, got <number>", "beta is 0 or negative", "give 1/kT in mol/kJ", "run lj7 --beta 0 --out NEW", lambda f: arguments.checked_beta(-1.0)),
        row("height, tilt: expected numbers that make two wells, got <numbers>; raise height, or lower tilt", "the double well has one well or none", "raise the barrier", "run double_well --set height=-1 --out NEW"),
        row("--set: expected key=value, got <text>", "`--set` without an equals sign", "write `--set beta=5`", "run lj7 --out NEW --set beta"),
        row("<argument>: expected a YAML value such as 5e-5, true or [C0, C1], got <text>", "what stands after the equals sign is not YAML", "close brackets and quotes", "run lj7 --out NEW --set beta=[1"),
        row("--both: expected a system with the options source and target, got <system>; run one direction", "the system has no reverse direction", "run one direction", lambda f: config.RunConfig(system="x").one_way("backward", {})),
        row("--direction: expected forward or backward, got <text>", "an option that `--both` uses for itself", "leave it out", "run lj7 --out NEW --direction up"),
        row("--out: expected a new or empty directory, got <directory>; name another or use `rlis resume`", "both directions go into a new directory", "name another", "run lj7 --both --out occupied"),
        row("--out: expected a new directory, when options of a run are given, got <directory>; name another", "`rlis verify SYSTEM` with options, but its runs are there already", "name another directory with `--out`", "verify double_well --seed 3 --out occupied"),
        row("verify: expected no options of a run beside a run directory, got <what>; name a system", "`rlis verify DIR` does not start a run", "leave the options out", "verify fresh --seed 3"),
        row("<file>: expected method: run, which verify compares with brute force, got brute; leave `method` out", "the file asks for brute force, which `rlis verify FILE` does beside the run", "leave `method` out of the file", "verify brute.yaml --out NEW"),
        row("--free-energy: expected a directory of both directions (rlis run --both), got <directory>", "one direction has no ratio of rates", "verify the directory that holds `forward` and `backward`", "verify fresh --free-energy 1"),
        row("OUT: expected a new or empty directory, got <directory>", "`rlis export` overwrites nothing", "name another", "export fresh occupied"),
        row("--format: expected one of <formats>, got <format>", "trajectories cannot be written in this format", "take one of the list", "export fresh NEW --format gro"),
        row("--weights: expected one of <formats>, got <format>", "the table cannot be written in this format", "take one of the list", "export fresh NEW --weights xlsx"),
        row("<option>: expected the library <name> for <format>, got none installed; <fix>", "hdf5 needs PyTables, Parquet needs pyarrow", "install the extra that is named, or choose another format", without("tables", form="hdf5"), without("pyarrow", weights="parquet")),
        row("cannot write <directory>: <size> needed, <size> free; choose another disk", "the trajectories would fill the disk; nothing was written", "make room, or name a directory on another disk", no_room),
        row("DIR: expected a run directory (with config.yaml), got <directory>", "the directory holds no run", "check the path", "resume NEW", "status NEW"),
        row("DIR: expected a run directory with at least one direction started, got <directory>", "neither direction of the run has written anything yet", "wait, or resume it", "report begun"),
        row("No such command <name>.", "a command is misspelt", "`rlis --help`", "frobnicate"),
        row("No such option: <option><more>", "an option is misspelt, or another command's", "`rlis COMMAND --help`", "run lj7 --out NEW --nosuch 1"),
        row("Missing <kind> <name>.", "something that has no default was left out", "`rlis COMMAND --help`", "run lj7", "status"),
        row("Invalid value for <option>: <text>", "not a number, where one is needed", "give a number", "run lj7 --out NEW --beta cold"),
        row("[Errno <number>] <reason>: <path>", "the system refuses a path", "check the path and its permissions", "run lj7 --both --out five.pdb/sub"),
    ),
    "Networks": (
        row("rates: expected pairs of different states among <names>, got <pair>", "a Network was given a rate between other states", "name both states", lambda f: kinetic_network.Network(("A", "B"), {("A", "A"): estimators.Estimate(1.0, 0.1, (0.8, 1.2), 20)})),
        row("source, target: expected states whose rates are all there (<pairs>), got <pair>", "a rate by any route needs all direct rates out of all states but the target", "run the legs that are missing", lambda f: kinetic_network.Network(("A", "B"), {}).rate("A", "B")),
        row("directory: expected the network in <directory> (<entry>: <value>), got <value>; start a new network elsewhere", "the directory holds another network", "name another directory", another_network),
        row("directory: expected a new or empty directory, or one of this network, got <directory>; choose another path", "the directory holds something else", "name another directory", lambda f: a_network(f, directory=f / "occupied")),
        row("betas: expected different inverse temperatures, at least one, got <numbers>", "a temperature is named twice, or there is none", "name each once", lambda f: a_network(f, betas=(1.0, 1.0))),
        row("betas: expected positive inverse temperatures, got <value>", "a temperature is not a positive number", "give 1/kT in mol/kJ", lambda f: a_network(f, betas=(-1.0,)), "network double_well --states L,R --beta -1 --out NEW"),
        row("betas: expected None for a Problem, which has a temperature, got <number>; give a function that builds the Problem, such as openmm_rlis.systems.lj7.build", "temperatures were named beside a Problem", "give a build function", lambda f: a_network(f, build=double_well.build(), states=double_well.build().regions, betas=(1.0,))),
        row("states: expected names whose pairs differ, such as without `-`, got <names>", "two pairs of states would share a folder", "rename a state", lambda f: a_network(f, states=("A", "A-A", "A-A-A"))),
        row("options: expected none beside a Problem, got <names>", "options of a build function stand beside a Problem", "leave them out", lambda f: a_network(f, build=double_well.build(), height=3.0)),
        row("build: expected a function that returns a Problem, or a Problem, got <type>", "the first argument is something else", "give a build function or a Problem", lambda f: a_network(f, build=3)),
        row("states: expected a list of names, got <value>", "the states are no list of names", "write a list", lambda f: a_network(f, states="LR")),
        row("states: expected two, as <system> has no option others, got <names>", "the system has two states only", "name two", lambda f: a_network(f, states=("L", "R", "M"))),
        row("states: expected regions with names, got <value>", "beside a Problem states are regions, which need names", "give each region a name", lambda f: a_network(f, build=double_well.build(), states=["L"])),
        row("states: expected a structure inside region <name> to start from, got none; give one in references={'<name>': ...} of the Problem", "no structure of a state is known", "give one in `references`", lambda f: states.RegionStates(double_well.build(), double_well.build().regions).problem("L", "R", None)),
        row("states: expected two or more names, got <names>", "one state has no rates", "name two or more", "network double_well --states L --out NEW"),
        row("states: expected names of letters, digits and _ . + -, got <name>", "folders are called after states", "rename the region", lambda f: states.check_names(("A", "B/C"))),
        row("states: expected different names, got <names>", "a state is named twice", "name each once", "network double_well --states L,L --out NEW"),
        row("--states: expected one of <names>, got <name>", "the configuration has no such region", "take names of its regions", "network own.yaml --states trans,nosuch --out NEW"),
        row("--beta: expected numbers with commas, such as 5,7,9, got <text>", "the text holds something else than numbers", "write numbers with commas", "network double_well --states L,R --beta x --out NEW"),
        row("network: expected a run, which goes both ways by itself, got <entry>", "the file asks for brute force", "leave `method` out", "network brute.yaml --states L,R --out NEW"),
        row("DIR: expected a network that `rlis network` started, got <directory>, started from Python; call rlis.network again with the same arguments and directory", "the directory has no config.yaml", "call `rlis.network` again", from_python),
        row("<file> is damaged or was changed: <reason>", "a file of a network was changed", "bring it back", changed_network),
        row("SYSTEM: expected one of <names>, got <name>", "no packaged system has this name", "take one of `rlis systems`", "network nosuch --states A,B --out NEW"),
        row("--out: expected a new or empty directory, got <directory>; name another or use `rlis resume`", "a network goes into a new directory", "name another", "network double_well --states L,R --out occupied"),
        row("others: expected names of regions, got auto; it is for `rlis run` in one direction; look for them first and name them here", "`others: auto` beside brute force or both directions", "run one direction first", "brute own.yaml --others auto --out NEW"),
    ),
    "Configuration file": (
        row("<file>: expected a readable YAML file, got <reason>", "the file is not there, is a directory, is not text, or may not be read", "check the path", "run nosuch.yaml --out NEW", "run binary.yaml --out NEW"),
        row("<file>: expected valid YAML, got <reason>", "a bracket, a quote or an indentation is wrong", "look at the line and column named", "run broken.yaml --out NEW"),
        row("<file>: expected a YAML mapping of names to values, got <kind>", "the file is a list or a single value", "write `name: value` lines", "run list.yaml --out NEW"),
        row("<file>: expected YAML without a value inside itself, got one nested without end", "an alias refers to what holds it", "write the value out", "run endless.yaml --out NEW"),
        row("<entry>: expected a mapping of names to values, got <value>", "`options` or `settings` is not a mapping", "write `settings: {n_batches: 20}`", "run scalar.yaml --out NEW"),
        row("<section>: expected one of <names>, got <name><hint>", "no entry has this name", "take the nearest one, which is named; [config.md](config.md) lists all", "run lj7 --out NEW --set settings.batches=3", own(lambda s: s.update(strcture="a.pdb"))),
        row("<entry>: expected a value, got nothing<more>", "an entry that has no default is missing", "add it", own(lambda s: s.pop("xml"))),
        row("<entry>: expected a number, got <truth>", "`true`, `yes`, `no` stand where a number should", "give a number", lambda f: config.RunConfig.from_mapping({"system": "lj7", "seed": True})),
        row("<entry>: expected <range or kind>, got <value>", "a value has the wrong type or is out of range", "[config.md](config.md) has the range of each", "run lj7 --out NEW --seed -1", "run lj7 --out NEW --target-error 0", "run lj7 --out NEW --backend cuda", own(lambda s: s.update(temperature=0))),
    ),
    "Own systems": (
        row("system.<quantity>: expected a number with one of the units <units>, or a plain one in <unit>, got <value>", "a unit is unknown, or of another quantity", "take one of the units", own(lambda s: s.update(temperature="27 C"))),
        row("system.<entry>: expected an atom: its index, from 0, or an mdtraj selection of one atom, got <value>", "an atom is negative, or neither number nor text", "count from 0", feature(distance=[0, -1])),
        row("system.<entry>: expected an mdtraj selection, or a list of two or more atoms, got <value>", "a group is neither", "write `all`, or `[0, 1, 2]`", feature(distances=3)),
        row("system.<entry>: expected a number, a number with a unit, or null for an open end, got <value>", "an end of an interval is none of these", "write `[0.2, 0.5]`", phi(True, "9 deg")),
        row("system.<entry>: expected a mapping with <kinds>, got <value>", "no kind of feature or region is named", "name one of the kinds", feature(what=1)),
        row("system.<entry>: expected one of <names>, got <name><hint>", "a region or feature is used that is not defined", "define it, or take one of the names", own(lambda s: s.update(source="tran")), own(lambda s: s.update(value_features=["f"]))),
        row("system.source, target, others: expected different regions, got <names>", "a region is named twice", "name each once", own(lambda s: s.update(target="trans"))),
        row("system.<region>: expected a distance, angle, dihedral or coordinate, got <kind>; use a ball for the others", "features of several columns have no interval", "use a ball", own(lambda s: (s["features"].update(d={"distances": "all"}), s["regions"]["trans"].update(within={"d": [0, 1]})))),
        row("system.<region>: expected a number with one of the units deg, rad, got <end>; for example [-150 deg, -30 deg]", "an angle without a unit, or with that of a length", "add `deg` or `rad`", phi(150, -150)),
        row("system.<region>: expected two ends that span less than the circle, got <ends>; write for example [150 deg, -150 deg]", "an interval of a dihedral has an open end, or holds every angle", "give two ends", phi(None, "9 deg")),
        row("system.<region>: expected an interval [low, high] that is not empty, got <ends>", "the second end is not above the first", "exchange them", phi("9 deg", "9 deg")),
        row("system.regions.<name>: expected a region apart from <name>, got intervals that overlap", "two regions share configurations", "shrink one", phi("60 deg", "-150 deg")),
        row("system.<entry>: expected a readable text file, got <file>: <reason>", "a file is missing, a directory, packed or not text", "check the path; it is relative to the configuration file; unpack it", own(lambda s: s.update(xml="no.xml")), own(lambda s: s.update(structure="packed.pdb.gz")), own(lambda s: s.update(structure="binary.yaml"))),
        row("system.xml: expected a System, as openmm.XmlSerializer writes it, got <file>: <reason>", "the file is something else", "write it with `openmm.XmlSerializer.serialize(system)`", own(lambda s: s.update(xml="chain.pdb")), own(lambda s: s.update(xml="worse.xml"))),
        row("system.xml: expected forces that carry no code, got a <force>, which <reason>, in <file>; if you trust whoever made the file, give --trust (in Python trusted=True)", "a System XML holds a program (PythonForce, TorchForce, also inside another force), or a force of a plugin that may", "look at who made the file; `--trust`, or `trusted=True`, with every command that reads it", own(lambda s: s.update(xml="python.xml"))),
        row("system.xml: expected a System, got <file>, which holds a <kind>", "a State, Integrator or Force was serialised", "serialise the System", own(lambda s: s.update(xml="integrator.xml"))),
        row("system.<entry>: expected a file that ends in <suffixes>, got <file>", "only PDB and mmCIF files are read", "convert it", own(lambda s: s.update(structure="chain.xml"))),
        row("system.<entry>: expected a PDB or mmCIF structure, got <file>: <reason>", "OpenMM cannot read the structure", "fix the line that is named", own(lambda s: s.update(structure="garbage.pdb"))),
        row("system.<entry>: expected <n> atoms, as the System has, got <n> in <file><why>", "structure and System differ; or atoms of one residue have one name, and the reader takes them for one", "use the structure that the System was made from, with a name for each atom", own(lambda s: s.update(structure="five.pdb")), own(lambda s: s.update(structure="same.pdb"))),
        row("system.<entry>: expected finite coordinates, got NaN or infinity in <file>", "a coordinate is not a number", "fix the file", own(lambda s: s.update(structure="nan.pdb"))),
        row("system.<entry>: expected a structure inside region <name>, got <values> in <file>; <fix>", "the start is not in the source, or a region's own structure not in it; the values of its features are given", "give another structure, or enlarge the region", own(lambda s: s.update(source="gauche-", others=[])), own(lambda s: s["regions"]["gauche+"].update(structure="chain.pdb"))),
        row("system.minimize: expected a structure with a finite energy, got <file>: <reason>", "atoms lie on top of each other", "give a better structure", lambda f: minimized_badly(f)),
        row("system.<entry>: expected different atoms, got <atoms>", "an atom is used twice in one feature", "name each once", feature(distance=[1, 1])),
        row("system.<entry>: expected an index from 0 to <n>, got <index>", "the structure has fewer atoms", "count from 0", feature(distance=[0, 4])),
        row("system.<entry>: expected a selection of one atom, got <n> atoms from <selection>; <what is there>", "a selection finds none or several; those found are named, or the names that are there, and a selection that works if there is one", "take it, or make yours more exact", feature(distance=[0, "all"]), feature(distance=[0, "name C9"]), feature(distance=[0, "name c2"])),
        row("system.<entry>: expected a selection that mdtraj understands, got <selection>: <reason>; <advice>", "the selection is misspelt; or a name has a sign, or digits before letters, and no quotes", "take the advice: name \"C1'\", chainid 0 for chain A", feature(distance=[0, "nmae Q ("]), feature(distance=[0, "name C1'"]), feature(distance=[0, "chain A and name C1"])),
        row("system.<entry>: expected two or more atoms, got <n> from <group>; <what is there>", "a group is too small", "select more", feature(distances="name Q")),
    ),
    "Systems and regions": (
        row("system: expected an openmm.System, got <kind>", "something else was passed to Problem", "pass a System", lambda f: brownian_system(3)),
        row("system: expected at least one particle<which>, got none", "there is no particle that moves", "add particles with a mass", lambda f: brownian_system(openmm.System()), lambda f: brownian_system(system_of(0.0))),
        row("system: expected constant volume, got a <force>; remove it", "a barostat changes positions outside of the integrator", "build the System without it", lambda f: brownian_system(with_force(openmm.MonteCarloBarostat(1.0, 300.0)))),
        row("system: expected forces that derive from a potential, got <force>; <fix>", "a thermostat, or Drude particles", "build the System without it", lambda f: brownian_system(with_force(openmm.AndersenThermostat(300.0, 1.0))), lambda f: brownian_system(with_force(openmm.DrudeForce()))),
        row("system: expected one default value of a global parameter, which all forces share, got <value> (<force>) and <value> (<force>) for <name>; give both the same, or rename one", "two forces disagree about a parameter", "as it says", lambda f: global_parameters.check_defaults(at_odds())),
        row("system: expected no virtual sites, got virtual sites (<n>); use a model without them", "virtual sites do not follow the Euler-Maruyama line", "use another model", lambda f: brownian_system(virtual())),
        row("system: expected no constraints, got <n>; build it with constraints=None and rigidWater=False", "constraints change the transition kernel", "`constraints=None, rigidWater=False`", own(lambda s: s.update(xml="constrained.xml")), lambda f: brownian_system(linked())),
        row("system: expected masses that are finite and not negative, got <mass> of particle <n><more>; give a positive mass, or 0 for a particle that does not move", "a mass is NaN, negative or infinite", "fix it", lambda f: brownian_system(system_of(1.0, math.nan))),
        row("system: expected forces without centre-of-mass removal, got a CMMotionRemover beside a <force>; remove it: system.removeForce(<n>)", "elsewhere it is left out with a note, in a copy of the System, but this force cannot be copied", "remove it", lambda f: brownian_system(with_force(openmm.CMMotionRemover(), openmm.PythonForce(math.fsum)))),
        row("system: <n> parts that Brownian dynamics cannot have: (1) expected <what> (2) expected <more>", "several of the above at once", "see each", lambda f: brownian_system(with_force(openmm.MonteCarloBarostat(1.0, 300.0), openmm.AndersenThermostat(300.0, 1.0)))),
        row("system: expected one that OpenMM can compute, got its message: <reason>", "OpenMM makes no Context of the System, or no forces, on the platform of the run", "as it says; the message adds what to do where that is known", lambda f: check_start(undefined(), None)),
        row("timestep: expected at most <dt> at friction <friction>/ps (stiffest <where>), got <dt>; a larger friction<more> longer steps", "the steps would diverge: they are too long for the stiffest mode at the start structure", "a shorter step; a larger friction; `hydrogenMass=3*unit.amu`", "run double_well --out NEW --set timestep=1"),
        row("positions: expected a start structure near a minimum, got one where steps of <dt> diverge at <where>; minimise the structure, or give another", "atoms overlap: a step that is stable elsewhere moves them far apart", "`minimize: true`, or LocalEnergyMinimizer", lambda f: check_start(overlap(0.02), None)),
        row("positions: expected a start structure of finite energy and forces, got <what>; minimise the structure, or give another", "atoms lie on top of each other, or a force is not defined there", "`minimize: true`, or another structure", lambda f: check_start(overlap(0.0), None)),
        row("region <name>: expected features of atoms that move, got only such as no free coordinate changes; choose other atoms, or check masses of 0 and `dimensions`", "no trajectory could enter or leave the region", "other atoms or coordinates", lambda f: check_start(frozen(), None)),
        row("system: expected forces that OpenMM can write as XML, got one it cannot: <reason>; define the function of a PythonForce at the top level of a module, where it can be pickled", "the function of a PythonForce is a lambda, or local", "move it to the top level of a module", lambda f: system_xml.check(with_force(openmm.PythonForce(lambda state: (0.0, None))))),
        row("system: expected forces that work here, got a TorchForce; openmm-torch does not load: <reason>", "the plugin does not fit the installed torch or OpenMM", "see `rlis doctor`", with_torch_force(system_xml.check, reason="no libtorch")),
        row("system: expected a TorchForce directly in the System, got one inside another force <where>, which the installed openmm-torch crashes on; add it with system.addForce", "a CustomCVForce or ATMForce holds a TorchForce, which openmm-torch 1.5 cannot copy", "add the TorchForce to the System", with_torch_force(system_xml.check, nested=True)),
        row("workers: expected 1, got <n>, with a TorchForce in the System; the installed openmm-torch cannot send one to another process", "openmm-torch 1.5 cannot read a TorchForce back", "one worker", with_torch_force(lambda system: system_xml.check_sendable(system, 2))),
        row("system: expected forces without cutoff that can be packed, got <force>; run one walker a Context", "`pack` was called on such a System", "nothing: runs do this by themselves", lambda f: packing.pack(with_force(openmm.GBSAOBCForce()), 2)),
        row("others: expected a list of Regions, got <kind>; write others=[region]", "one Region instead of a list", "put it into brackets", lambda f: other_problem(others=3)),
        row("region <name>: expected an openmm_rlis.Region, got <kind>", "something else was passed as a region", "use Region.ball, Region.within or Region.where", lambda f: other_problem(target=3)),
        row("lag_steps: expected a whole number of steps, 1 to <n>, got <value>", "the lag is no number of steps, or would fill the memory", "give a few tens", "run lj7 --out NEW --set lag_steps=0", "run lj7 --out NEW --set lag_steps=10000000000"),
        row("dynamics: expected 'brownian' (the only one in this version), got <name>", "Langevin dynamics is not there yet", "leave it out", lambda f: other_problem(dynamics="langevin")),
        row("dimensions: expected 1, 2 or 3, got <value>", "another number", "3, unless coordinates are frozen", lambda f: other_problem(dimensions=4)),
        row("regions: expected a different name for each, got <names>", "two regions have one name", "rename one", lambda f: other_problem(source=Region.where(lambda x: x[:, 0, 0] < 1, "A"), target=Region.where(lambda x: x[:, 0, 0] > 1, "A"))),
        row("regions: expected disjoint sets, got balls <name> and <name> that overlap by <x>; shrink one", "two balls share configurations", "smaller radii", "run lj7 --out NEW --set radius=50"),
        row("regions: expected disjoint sets, got a structure in both <name> and <name>; shrink one", "a structure lies in two regions, at the start or on the way", "shrink one", lambda f: other_problem(target=Region.where(lambda x: x[:, 0, 0] < 0.2))),
        row("positions: expected a start structure inside the source region <name>, got one in <where>; start from a structure of A, or enlarge A", "the run would not begin in A", "pass positions in A", lambda f: other_problem(positions=[[0.5, 0, 0]]), lambda f: other_problem(positions=[[2.0, 0, 0]])),
        row("references: expected what does not move where it is in the start structure, <axis> of particle <i> at <place>, got <place> in that of <region>; the run would be that of another system: take it from the start structure", "an atom of mass zero, or a coordinate beyond `dimensions`, is elsewhere in a known structure", "one place in all structures", lambda f: other_problem(dimensions=1, references={"B": [[2.0, 1.0, 0.0]]})),
        row("<topology or system.structure>: expected the box of the System, <vectors> nm, got <vectors> nm<where>; give the System the box of the structure (setDefaultPeriodicBoxVectors), or the other way round", "the structure was written with another box than the System's default one, in which walkers move", "`system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())` before the System is written", other_box),
        row("references: expected names of regions (<names>), got <name>", "a reference for a region that is not there", "use the region's name", lambda f: other_problem(references={"X": [[0, 0, 0]]})),
        row("references: expected a structure inside region <name>, got one outside it", "a reference lies elsewhere", "give one inside", lambda f: other_problem(references={"B": [[0, 0, 0]]})),
        row("center: expected a finite vector, one number a feature, got <value>", "the middle of a ball is empty or not finite", "one number for each feature", lambda f: Region.ball(features.positions(), [], 1.0)),
        row("radius: expected a positive number, got <value>", "a ball of no size", "a positive radius", "run lj7 --out NEW --set radius=0"),
        row("predicate: expected a callable (n, n_atoms, 3) -> bool (n,), got <kind>", "`Region.where` got no function", "pass a function", lambda f: Region.where(3)),
        row("region <name>: expected a bool tensor of shape (<n>,), got <value>", "a predicate returned something else", "one truth value for each structure", lambda f: Region.where(lambda x: x[:, 0, 0], "A").contains(np.zeros((2, 1, 3)))),
        row("region <name>: expected a ball, which has a distance, got a predicate", "the distance of a predicate was asked for", "use a ball", lambda f: Region.where(lambda x: x[:, 0, 0] > 1, "A").distance(torch.zeros(1, 1, 3))),
        row("region <name>: expected a center with <n> numbers, as the feature has, got <n>", "center and feature have different widths", "one number for each feature", lambda f: Region.ball(features.positions(), [1.0], 1.0, "A").check(np.zeros((1, 3)))),
        row("<feature>: expected finite values, got NaN or infinity for <n> of <n> walkers (first: walker <n>, <where>)", "a feature fails on structures met on the way; a run ends with exit status 1", "fix the feature", lambda f: regions.label([Region.ball(shaky, [0.0], 1.0, "A")], np.full((1, 1, 3), 9.0))),
        row("feature: expected a torch module or a callable (n, n_atoms, 3) -> (n, k), got <kind>", "not a feature", "pass a module or a function", lambda f: features.as_feature(3)),
        row("feature <name>: expected a function of positions (n, n_atoms, 3), got an error: <reason>", "the feature raises", "fix it", lambda f: features.check_feature(features.as_feature(lambda x: x[:, 9]), np.zeros((1, 3)))),
        row("feature <name>: expected a tensor of shape (n, k) for n = 2 walkers, got <shape>; return one row a walker", "the feature has another shape", "return one row for each structure", lambda f: features.check_feature(features.as_feature(lambda x: x[0]), np.zeros((1, 3))[:, :])),
        row("feature <name>: expected finite values, got NaN or infinity; fix the feature on this structure", "the feature fails on the start structure", "fix it", lambda f: features.check_feature(features.as_feature(shaky), np.full((1, 3), 9.0))),
        row("features: expected features=... for systems of more than 40 atoms with predicate regions, got none", "all distances would be too many", "pass features", lambda f: other_problem(system=system_of(*[1.0] * 41), positions=np.zeros((41, 3)))),
        row("<pairs, atoms, triples or quadruples>: expected <atoms>, got <value>", "a feature was given no atoms, or one twice", "different atom indices", lambda f: features.distances([]), lambda f: features.coordination([1], 1.0), lambda f: features.angles([]), lambda f: features.dihedrals([])),
        row("radius, power: expected radius > 0 and an even power >= 2, got <values>", "coordination numbers need both", "for example 0.3 and 8", lambda f: features.coordination([0, 1], -1.0)),
        row("<quantity>: expected a quantity in <unit>, got <value>; convert it to <unit>", "a unit of another kind", "300 * unit.kelvin", lambda f: units.as_float(3 * unit.meter, "temperature")),
        row("<quantity>: expected a number in <unit>, got <value>", "not a number", "pass a float or a Quantity", lambda f: units.as_float("warm", "temperature"), lambda f: units.as_float(True, "friction")),
        row("<quantity>: expected a positive, finite number, got <value>; give it in <unit>", "zero, negative or not finite", "a positive number", "run lj7 --out NEW --set timestep=-1"),
        row("positions: expected a quantity in nanometer, got one in <unit>; convert it to nanometer", "not a length", "pass nm", lambda f: units.as_positions([[0, 0, 0]] * unit.kelvin, 1)),
        row("positions: expected numbers of shape (<n>, 3), one row a particle, got a <kind> that is not", "not an array of numbers", "one row for each particle", lambda f: units.as_positions("x", 1)),
        row("positions: expected shape (<n>, 3), one row a particle, got <shape>", "another number of atoms", "one row for each particle", lambda f: units.as_positions([[0, 0]], 1)),
        row("positions: expected finite coordinates, got NaN or infinity", "a coordinate is not finite", "fix the structure", lambda f: units.as_positions([[0, 0, math.nan]], 1)),
        row("<topology or system.structure>: expected the atoms in the order of the System, whose atom <i> has mass <mass> (<element>), got element <element>, <atom><more>; write it again from the topology that the System was made of", "elements and masses are in two orders, or those of two molecules", "write the structure from the topology that the System was made of", lambda f: water_first("HOH")),
        row("<positions or system.structure>: expected the atoms in the order of the System, which has a bond of <r> nm from atom <i> to atom <j>, got <distance> nm between <atom> and <atom><more>; check the order of the atoms, and that molecules are whole", "atoms that the System joins are far apart", "the order of the System; make molecules whole", lambda f: swapped(0.5, False)),
        row("<topology or system.structure>: expected the atoms in the order of the System, and its bonds, got a bond from <atom> to <atom><more>, which the System has not, and <distance> nm long<more>; write it again from the topology that the System was made of", "the topology names the atoms in another order", "pass the topology that the System was made of", lambda f: swapped(0.16, True, (0, 2))),
        row("system.regions.<name>: expected the atoms in the order of system.structure, whose atom <i> is <atom>, got <atom> in <file>; write both in the order of the System", "two structure files name the same atoms in different orders", "write both alike", lambda f: named_otherwise("ab", "ba")),
        row("<topology>: expected <n> atoms, as the System has, got <n>", "the topology is another one", "pass the topology that the System was made of", lambda f: atom_order.check_order(system_of(1.0), app.Topology(), np.zeros((1, 3)), 1.0, ("topology", "positions"))),
        row("<topology>: expected an openmm.app.Topology, got <kind>", "a topology of another library, or a file name", "pass OpenMM's", lambda f: atom_order.check_order(system_of(1.0), "x.pdb", np.zeros((1, 3)), 1.0, ("topology", "positions"))),
    ),
    "While it runs": (
        row("platform: expected one of <names>, got <name>", "OpenMM has no such platform here", "leave it out, or see `rlis doctor`", "run lj7 --out NEW --platform Nope"),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); the time step of <dt> ps is too long<more>", "the trajectories diverged; in a run, with the stage before it", "a shorter time step", blown_up(np.full((1, 1, 3), 1e200)), status=1),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); the <force or energy> of <force> is <value> <where>: the potential is not defined there; fix it, or exclude these configurations", "a force of the System is NaN or infinite in a part of space, as sqrt(x) is", "a potential that is defined wherever walkers come", lost_in_potential(np.zeros((1, 1, 3))), status=1),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); the bias force is <value> on <where>: a feature has no finite gradient there; fix it, or set bias_scale to 0", "a feature is finite there, but its gradient is not", "as it says", lost_in_bias, status=1),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); repeats of the lag with other noise stayed finite: check the potential near <where>, or shorten the time step", "walkers are lost, but very rarely", "as it says", lost_for_no_reason, status=1),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); they were not finite before the lag", "`Engine.propagate` was given coordinates that are NaN or infinite", "give finite ones", blown_up(np.full((1, 1, 3), np.nan)), status=1),
        row("<which> of <n> walkers have <what> that are not finite (first: walker <n>); OpenMM says: <reason>", "walkers are lost, and OpenMM cannot evaluate the forces where they were", "as it says", lost_to_openmm, status=1),
        row("<which> of <n> walkers have coordinates that are not finite (first: walker <n>); <where>", "regions were evaluated on such coordinates", "give finite ones", lambda f: well().label(np.full((1, 1, 3), np.nan)), status=1),
        row("<stage>: <what was lost>; the run in <directory> ends without a rate, and resuming it fails in the same way: fix the cause, and start a new run", "a run lost walkers, or a feature is not finite on some; they are never dropped", "as the first part says", a_run_that_loses, status=1),
        row("a worker process ended without a result: killed, or out of memory; whole rounds are stored, and resume goes on", "with several workers, one was killed", "more memory or fewer workers; `rlis resume DIR`", worker_killed, status=1),
        row("OpenMM stopped a lag of <n> walkers: <reason>", "a coordinate became NaN", "a shorter time step", stopped_by_openmm, status=1),
        row("no platform of OpenMM takes this System; <platform>: <reason>", "all of them failed where they were timed", "`rlis doctor`; fix what OpenMM says", no_platform, status=1),
        row("OpenMM could not make a Context: <reason>", "the platform does not take the System", "another `--platform`", no_context, status=1),
        row("source: expected a region that unbiased trajectories leave, got no exit in <t> ps; make it smaller", "no replica left A", "a smaller A", no_exit),
        row("target: expected a region that can be reached, got no structure in <name> up to <x> times the temperature; <fix>", "no structure in B was found by simulation at higher temperatures", "check it, or give a structure of it in `references`", nowhere),
        row("target: expected a region that paths from <name> can reach, got none in <name> after <n> levels (best score <x> of 1); check the region, or shorten the lag: paths that return to A within one lag make no progress", "multilevel splitting made no progress towards B", "check that A and B are joined; a smaller lag", no_way),
        row("<n> walkers did not reach any region in <n> lags; define the metastable state as a region in `others`", "walkers stay in a metastable state that is not a region", "define it in `others`", stuck_walk, status=1),
        row("backend 'torch' does not load: <reason>; use backend 'python'", "openmm-torch does not fit this torch", "leave the backend out", forced("torch", "no plugin"), status=1),
        row("backend 'torch' needs features that TorchScript can compile (<reason>); write the feature as a torch module, or use backend 'python'", "a Python function is a feature", "leave the backend out", forced("torch", made=other_problem(features=lambda x: x[:, 0, :1])), status=1),
        row("backend 'python-torch' does not work here: <reason>; use backend 'torch' or 'python'", "openmm-torch has no PythonTorchForce", "leave the backend out", forced("python-torch", "no plugin"), status=1),
        row("<backend>: <reason>; <backend>: <reason>; <backend>: <reason>", "no bias backend works", "`rlis doctor`; or bias_scale 0, which needs none", no_backend, status=1),
        row("backend: expected one of <names>, got <name>", "an unknown backend in Python", "take one of the names", forced("cuda")),
        row("value: expected a finite ln V, got <value> for walker <n>; check the features on that structure (<n> of <n> walkers, the first with <where>)", "a feature is not finite on a structure", "fix the feature", lambda f: learned(other_problem(features=shaky)).log_value(far(other_problem()))),
        row("value: expected a value function for this problem's features, got <reason>; train a new one", "it was learned for atoms that this problem lacks", "train a new one", lambda f: learned(build("lj7", {})).check_problem(well())),
        row("value: expected a value function for paths from <region> to <region>, got one for paths from <region> to <region>; train a new one", "it was learned for the reverse direction, or for other regions", "train a new one", way_back),
        row("value: expected a value function for this problem's features (<fingerprint>), got <fingerprint>; train a new one", "it was learned for other features or atoms", "train a new one", lambda f: learned(well()).check_problem(other_problem(features=shaky)), saved_elsewhere),
        row("value: expected a run that has learned a value function, got <directory>; brute force has none", "brute force, or a run that has not learned yet", "use a learned run", lambda f: result.load(f / "fresh").value),
        row("problem: expected the Problem that names the regions, got none; committor(positions, problem)", "the value function was not loaded from a run", "pass the problem", lambda f: learned(well()).committor(np.zeros((1, 1, 3)))),
        row("positions: expected frames of <n> atoms, got frames of <n>", "committor of structures of another system", "pass all atoms of the run's system", lambda f: learned(well()).committor(np.zeros((1, 2, 3)), well())),
        row("positions: expected shape (n, n_atoms, 3) or an mdtraj.Trajectory, got shape <shape>", "one structure, or numbers that are none", "`positions[None]` for one structure", lambda f: learned(well()).committor(np.zeros((1, 3)), well())),
        row("cannot read a value function from <file>: <reason>; in a run directory, delete it and resume the run", "value.pt is damaged, or of another version", "as it says: the run writes it again", lambda f: value.ValueFunction.load(damaged(f, "value.pt", b"x") / "value.pt", well())),
        row("problem: expected the Problem that the run was started with, since its regions are Python objects, got none", "such a run cannot be rebuilt from its directory", "pass `problem=` to resume or load", python_regions),
        row("problem: expected that of the run (<what it was>), got <what it is>; start a new run", "the problem that was passed is another one: all that differs is named", "pass the same", lambda f: build_problem.problem_of({"n_atoms": 9, "region_names": []}, well())),
        row("system <name>: expected that of the run (<what it was>), got <what it is>; its files have changed: restore them, or start a new run", "the recipe of the run now makes another problem", "restore the files of the system", lambda f: build_problem.problem_of({"n_atoms": 9, "region_names": [], "system": "double_well", "recipe": {"system": "double_well", "options": {}}}, None)),
        row("<directory>: expected the reverse of the other direction (<what it was>), got <what it is>; run both directions of one system", "`forward` and `backward` hold runs of two systems", "run both directions again", directions),
        row("the XML of a System does not parse (<reason>)", "system.xml is no XML", "restore the file from a copy", lambda f: system_differences.system_differences("<", XML)),
    ),
    "Run directory": (
        row("directory: expected <size> of room for a round, got <size> free; choose another disk", "the disk is full; nothing was written", "make room, or name a directory on another disk", lambda f: check_room(f / "NEW", 10**9, 10**9)),
        row("directory: expected a new or empty directory, got <what>; <fix>", "a run is never overwritten", "name another directory, or resume", "run double_well --out fresh", "run double_well --out occupied", "run double_well --out own.yaml"),
        row("directory: expected a run of this version, got one made before walks counted the time of long excursions, whose rounds cannot be added to others; start a new run; results can still be read", "the run was made by the first version", "start a new run; `report` and `export` read the old one", lambda f: sampler.resume(first_version(f))),
        row("directory: expected a run directory, got <directory>, which has no manifest.json; check the path", "the directory holds no run", "check the path", "report occupied"),
        row("<file>: expected format version <n>, got <n>; use the release that wrote this run", "another version of this program wrote it", "install that release", lambda f: ["verify", str(sealed(f, {"format_version": 99}))]),
        row("<file> is damaged: it is not a manifest", "a manifest was changed or cut", "restore the directory from a copy", lambda f: ["verify", str(damaged(f, "manifest.json", b""))]),
        row("<file> is damaged or was changed: its checksum <how>", "a stored file is not as it was written", "restore it from a copy; `rlis verify DIR` names every such file", lambda f: ["verify", str(sealed(f, {"format_version": 1}))], lambda f: ["report", str(damaged(f, "config.yaml", b"a: 1"))], in_store(spoiled_frames), lambda f: ["status", str(damaged(f, "result.json", b"{}"))]),
        row("<file> is damaged or was changed: its checksum is not the one in checksums.json", "config.yaml or a file in inputs/ of both directions, value.pt or result.json is not as it was written", "restore it from a copy; without value.pt or result.json `rlis resume` writes it anew", changed_parent),
        row("<file> is damaged or was changed: it is not text", "a stored file is not as it was written", "restore it from a copy", lambda f: RunDirectory.open(resealed(f, "system.xml", bytes([255]))).system_xml),
        row("<file> is damaged or was changed: <reason>", "arrays.npz is compressed, or asks for more memory than it has bytes", "do not use it; restore it from a copy", lambda f: frames.unpack(b"x", Path("arrays.npz"))),
        row("<directory> is damaged or was changed: it names a file outside of the run, <name>", "a manifest holds an absolute path, or one with `..`", "do not use this directory", lambda f: atomic_files.inside(f, "../x")),
        row("<file> is damaged: it does not hold <n> frames of <n> atoms", "a dcd file does not fit its round", "restore the directory from a copy", in_store(short_frames)),
        row("<file> is damaged: <reason>", "the stored config.yaml is not YAML, or no mapping", "restore it from a copy", lambda f: ["report", str(resealed(f, "config.yaml", b"[1"))]),
        row("<round> follows none of the stored rounds: a round before it is missing, or it is of another run; restore the missing rounds", "rounds were removed, or brought here from another run; nothing is removed then", "restore the directory from a copy", in_store(missing_round)),
        row("<round> and <round> follow the same round: one of them is of another run", "a round was copied", "remove the one that does not belong here", in_store(repeated_round)),
        row("<round> is missing: a later round of its stage is stored", "the same, in a run of an early version", "restore the directory from a copy", missing_early_round),
        row("<folder> is a symbolic link, through which nothing is written: move the run as a whole", "`rounds` or `paths` was linked to another place", "move the run directory itself", in_store(linked_folder)),
        row("<file>: expected the entry <name>, got none; use the release that wrote this run", "config.yaml is of another release, or not of a whole run", "use that release", "report meagre", "export meagre NEW", "resume meagre"),
        row("<directory> is damaged: result.json or log.jsonl is not as it was written", "`rlis status` found something else there", "`rlis resume` writes result.json anew", lambda f: ["status", str(early(f, "result.json", b'{"stopped": "target", "rate": 3}'))]),
        row("<file> is damaged: it is not JSON", "result.json was changed", "`rlis resume` writes it anew", lambda f: RunDirectory.open(early(f, "result.json", b"x")).read_result()),
        row("<file> is not there: the run has not got as far as a result", "result.json comes with the first result", "resume the run", in_store(lambda s: s.read_result())),
        row("cannot <action> <file>: <reason>", "the disk is full, or the path may not be written", "make room or permission, then `rlis resume`", "run double_well --out own.yaml/sub", full_disk),
        row("cannot write <file>: <reason>", "torch could not write value.pt", "make room, then `rlis resume`", in_store(lambda s: s.write_value(raise_runtime))),
        row("<directory> is being written by <process>: wait until it ends, or stop it", "another process writes this run", "wait", in_store(lambda s: RunDirectory.open(s.path, write=True))),
        row("<directory> holds round <n> of stage <name>: it was moved here", "directories of rounds were renamed", "put them back", in_store(moved_round)),
        row("system_xml: expected <what>, got <what>", "`RunDirectory.create` got no System", "pass its XML", lambda f: new_run.n_particles("<"), lambda f: new_run.n_particles("<System/>")),
        row("<where>: expected numbers, strings, booleans, None, lists and dicts of them, got <kind>", "something that YAML and JSON cannot hold", "pass plain values", lambda f: atomic_files.plain(object(), "config")),
        row("directory: expected a run opened for writing, got <directory> opened for reading; use RunDirectory.open(path, write=True)", "the run was opened for reading", "open it for writing", lambda f: RunDirectory.open(f / "fresh").log("x")),
        row("index: expected a stored round of stage <name>, got <n>; there are <list>", "this round is not stored", "take one of the list", lambda f: RunDirectory.open(f / "fresh").read_round("flux", 7)),
        row("<stage, index, tree or arrays>: expected <what>, got <value><fix>", "`write_round` got something that it cannot store", "see its documentation", in_store(lambda s: s.write_round("Flux", 0, {}, {})), in_store(lambda s: s.write_round("flux", -1, {}, {})), in_store(lambda s: s.write_round("flux", 0, {}, {}, [tree(), tree()])), in_store(lambda s: s.write_round("flux", 0, {"tree.x": np.zeros(1)}, {}))),
    ),
    "Arguments of functions": (
        row("seed: expected a whole number, 0 or more, got <value>", "rlis.run in Python", "a whole number", lambda f: sampler.brute(well(), f / "NEW", seed=-1)),
        row("workers: expected a whole number, 1 or more, got <value>", "rlis.run in Python", "1 or more", lambda f: sampler.run(well(), f / "NEW", workers=0), lambda f: sampler.run(well(), f / "NEW", workers="2")),
        row("<argument>: expected <kind>, got <value>", "rlis.run, brute or resume in Python: problem, directory, settings, value or platform is of another kind", "pass what is named", lambda f: sampler.run(well(), f / "NEW", settings={}), lambda f: sampler.run("lj7", f / "NEW"), lambda f: sampler.resume(3)),
        row("progress: expected a function of a Progress, or None, got <value>", "rlis.run, brute or resume in Python", "pass a function", lambda f: sampler.run(well(), f / "NEW", progress="print")),
        row("target_relative_error: expected a number between 0 and 1, got <value>", "rlis.run in Python", "0.1 is 10 %", lambda f: Goal(2.0, None, None)),
        row("<limit>: expected a positive number or None, got <value>", "rlis.run in Python", "a positive number", lambda f: Goal(0.1, -1, None), lambda f: sampler.resume(f / "fresh", max_seconds=0)),
        row("<n_slots or n_copies>: expected 1 or more, got <value>", "Engine or pack in Python", "1 or more", lambda f: engine.Engine(well(), 0), lambda f: packing.pack(system_of(1.0), 0)),
        row("biased: expected an engine made with a bias, got one without", "Engine in Python", "pass bias= to Engine", lambda f: engine.Engine(well(), 4).propagate(np.zeros((1, 1, 3)), biased=True)),
        row("lag_steps, hold_steps: expected 1 or more, got <values>", "brownian in Python", "1 or more", lambda f: integrators.brownian(0.1, 0, 1, False)),
        row("bias_scale: expected a number from 0 to 1, got <value>", "bias_force in Python", "a number from 0 to 1", lambda f: bias.bias_force(learned(well()), 1, 1, 1.0, 2.0)),
        row("coarse_share: expected a number between 0 and 1, got <value>", "ValueFunction in Python", "0.2", lambda f: value.ValueFunction(features.positions(), {}, 2.0)),
        row("loss: expected one of <names>, got <name>", "train in Python", "take one of the names", lambda f: training.loss_function("mse", *[torch.zeros(1)] * 3)),
        row("window: expected 0 <= low < 1 < high, got <values>; the default is low=0.1, high=2.0", "Window in Python", "keep the order", lambda f: branching.Window(2.0, 1.0)),
        row("uniform_share: expected a number between 0 and 1, got <value>; 0.2 is a cautious choice", "draw_roots in Python", "0.2", lambda f: branching.draw_roots([0.0], 1, 2.0, np.random.default_rng(0))),
        row("log_values: expected a pool with a positive V, got <what>; collect exits first; compute V in log space", "draw_roots in Python", "pass ln V of exits", lambda f: branching.draw_roots([-np.inf], 1, 0.2, np.random.default_rng(0))),
        row("<n>: expected a positive whole number, got <value>; ask for at least 1", "draw_roots or resample in Python", "1 or more", lambda f: branching.draw_roots([0.0], 0, 0.2, np.random.default_rng(0))),
        row("log_weights: expected <at least one>, got none; <why>", "no weights were passed", "check for extinction first", lambda f: weights.log_mean([]), lambda f: branching.resample([-np.inf], 1, np.random.default_rng(0))),
        row("<log_weights>: expected an array of shape (n,), got shape <shape>; pass one number per walker", "weights in Python", "one number for each walker", lambda f: weights.log_sum([[0.0]])),
        row("<log_weights>: expected finite numbers or -inf, got <value> at index <n> (<n> such of <n>); find the walker that diverged; weights are never repaired here", "a weight is NaN or infinite", "find the walker that diverged", lambda f: weights.log_sum([np.nan])),
        row("denominators: expected <what>, got <value>; <why>", "ratio in Python", "one pair for each batch, none negative", lambda f: estimators.ratio([1.0], [1.0, 2.0]), lambda f: estimators.ratio([1.0], [-1.0])),
        row("<numbers>: expected an array of shape (n_batches,), got shape <shape>; give one per batch", "estimators in Python", "one number for each batch", lambda f: estimators.ratio([[1.0]], [1.0])),
        row("<numbers>: expected finite numbers, got <value> in batch <n> (<n> such of <n>); look for a diverged walker in that batch", "a batch is NaN or infinite", "look for a diverged walker", lambda f: estimators.ratio([np.nan], [1.0])),
        row("estimate: expected a value that is not negative, got <value>; only rates have waiting times", "reciprocal in Python", "pass a rate", lambda f: estimators.reciprocal(estimators.Estimate(-1.0, 1.0, (-2.0, 0.0), 2))),
        row("<label, batch_index or weights>: expected <what>, got <what>; <fix>", "channel_shares in Python", "arrays of one length, weights and not their logarithms", lambda f: estimators.channel_shares([0], ["a", "b"], [1.0], 1), lambda f: estimators.channel_shares([3], ["a"], [1.0], 1), lambda f: estimators.channel_shares([0], ["a"], [-1.0], 1)),
        row("f: expected a number, or one for each frame, got shape <shape>; return one column of it", "average or histogram of a function of paths", "return one number, or one for each frame", averaged(np.zeros((2, 2)))),
        row("f: expected a number, or one for each of the <n> frames of path <n>, got shape <shape>", "the array has another length than the path", "return one number for each frame", averaged(np.zeros(5))),
        row("f: expected a number for every path or an array for every path, got now one and then the other", "the function is of two kinds", "decide for one", averaged(np.zeros(2), 1.0)),
        row("f: expected finite numbers, got nan or infinity on path <n>", "the function fails on a path", "fix it", averaged(math.nan)),
        row("bins, range: expected those of numpy.histogram, got <values>; <reason>", "histogram of a function of paths", "see numpy.histogram", lambda f: ensemble().histogram(len, bins=-1)),
        row("<part of a tree>: expected <shape or range>, got <value>", "PathTree, TreeBuilder in Python", "see their documentation",
            lambda f: tree(lags=np.zeros(5)), lambda f: tree(positions=np.zeros((1, 1, 3))), lambda f: tree(labels=np.zeros(3)), lambda f: tree(parents=np.array([1, 0])), lambda f: tree(leaves=np.array([9])), lambda f: tree(log_weights=np.array([np.nan])), lambda f: tree().prune(np.zeros(5, bool)), lambda f: paths.TreeBuilder().add(np.zeros((1, 1)), [0], 0), lambda f: paths.TreeBuilder().add(np.zeros((1, 1, 3)), [5], 0)),
    ),
}  # fmt: skip


def raise_runtime(path: Path) -> None:
    raise RuntimeError("enforce fail at inline_container.cc")


def minimized_badly(folder: Path) -> list[str]:
    energy = openmm.CustomExternalForce("1/0")
    energy.addParticle(0, [])
    system = openmm.XmlSerializer.deserialize((folder / "chain.xml").read_text())
    system.addForce(energy)
    (folder / "hopeless.xml").write_text(openmm.XmlSerializer.serialize(system))
    return own(lambda s: s.update(xml="hopeless.xml", minimize=True))(folder)


ALARMS: dict[str, tuple[str, str]] = {
    "no production round was finished": ("a limit was reached first; nothing that is stored is an estimate of the rate", "`rlis resume DIR` with larger limits; a rate that the run prints is a guess without an error bar"),
    "the basin simulation did not equilibrate": ("the exit rate still drifted in windows of 32 768 lags", "a smaller or larger A, or metastable neighbours of A in `others`; run again"),
    "no transition was observed": ("no weight arrived in B", "run longer"),
    "tail index <x> > 0.7": ("a few roots dominate the rate; the error bar is too small", "run longer, or more `settings.learning_rounds`"),
    "one root contributes <x> of the transition weight": ("the rate depends on one root", "run longer"),
    "one batch of <n> contributes <x> of the transition weight": ("the rate depends on one batch", "run longer"),
    "the norm (weight of all ended paths over that of roots) is <x> instead of 1": ("the weights are wrong", "report it as a bug"),
    "the rates from defensive roots (no roulette) and from the others differ by <x> standard errors": ("the value function hides a channel", "`settings.defensive_share=1`, or learn longer"),
    "the rates of odd and even batches differ by <x> standard errors": ("the error bar is too small", "run longer"),
    "the rates of early and late rounds differ by <x> standard errors": ("A was not in equilibrium", "run longer"),
    "the sum of the control variate differs from 0 by <x> standard errors": ("the value function is very uneven", "learn longer, or `settings.control=false`"),
    "the exit rate of one batch deviates from the others by <x> standard deviations": ("A contains parts that do not mix", "a smaller A, or its parts as separate regions"),
    "<x> of the transition weight passed through configurations with G below window_low/3": ("V is far too small in a reactive channel", "learn longer"),
    "the run ended because walkers were lost, and its rate must not be used": ("coordinates or energies of walkers became non-finite", "fix the System or the time step, and start a new run"),
    "the shares of time inside A in early and late rounds differ by <x> standard errors": ("A was not in equilibrium with its surroundings", "run longer"),
    "the times outside the core from walks and from the basin simulation differ by <x> standard errors": ("A was not in equilibrium, or weights are wrong", "run longer; report it if it persists"),
    "<x> of the time in state A is spent in excursions longer than settings.excursion_lags": ("there is a metastable state that is not a region; the rate includes the time there", "look at the longest failure paths; define the state in `others` if its time should not count"),
    "<x> of the roots reached the maximum number of walkers": ("V is far too large in some configurations, which costs time", "learn longer, or define the dead end in `others`"),
}  # fmt: skip

HEAD = """# Messages

Every message of the command line and of the package: when it occurs and what to do. On the command line each is one line on standard error after `error: `, and the exit
status is 2 (bad input, nothing was written over) unless the table says 1. In Python each is an exception of `openmm_rlis.errors`, most of them an `InputError`, which is a `ValueError`. Text
in `<angle brackets>` is replaced by actual values. An unexpected error, which is a bug, is one line as well: it names the file with its traceback.

This page is made by `python tests/support/errors_table.py`; the tests provoke each row, and hold the table against every place in the package that raises.
"""


def page() -> str:
    """Return docs/errors.md."""
    lines = [HEAD]
    for title, rows in SECTIONS.items():
        lines += [f"## {title}", "", "| message | when | what to do |", "|---|---|---|"]
        lines += [
            _line(_code(one.message) + (" (status 1)" if one.status == 1 else ""), one.when, one.do) for one in rows
        ]
        lines.append("")
    lines += [
        "## Alarms",
        "",
        'They are in `result.diagnostics["alarms"]`, in the report and in result.json, and begin as follows:',
        "",
    ]
    lines += ["| alarm | what it means | what to do |", "|---|---|---|"]
    lines += [_line(_code(text), *more) for text, more in ALARMS.items()]
    return "\n".join(lines)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(page())

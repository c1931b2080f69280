"""Files as someone means harm: programs in a System XML, archives larger than they are, run directories sealed anew."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import yaml
from openmm import app, unit

from openmm_rlis.storage import atomic_files
from openmm_rlis.storage.atomic_files import MANIFEST

WELL = {
    "system": {
        "name": "well", "xml": "well.xml", "structure": "L.pdb", "temperature": "120.2724 K", "friction": "1/ps",
        "timestep": "5 fs", "lag_steps": 5, "dimensions": 1, "features": {"x": {"coordinate": [0, "x"]}},
        "regions": {
            "L": {"within": {"x": [None, "-0.8 nm"]}},
            "R": {"within": {"x": ["0.0 nm", None]}, "structure": "R.pdb"},
        },
        "source": "L", "target": "R",
    },
    "target_relative_error": 0.5,
    "seed": 1,
    "settings": {"n_batches": 4, "replicas": 4, "learning_rounds": 1, "learning_roots": 20},
}  # fmt: skip


def well_system(force: Any = None) -> openmm.System:
    """Return one particle in the double well (x^2 - 1)^2 kJ/mol, or with another force."""
    system = openmm.System()
    system.addParticle(1.0)
    if force is None:
        force = openmm.CustomExternalForce("(x^2-1)^2")
        force.addParticle(0, [])
    system.addForce(force)
    return system


def write_well(folder: Path, xml: str | None = None, **changes: Any) -> Path:
    """Write config.yaml and its files for a double well and return the path of the former."""
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    topology.addAtom("Ar", app.Element.getBySymbol("Ar"), residue)
    for name, x in (("L", -1.0), ("R", 0.5)):
        with (folder / f"{name}.pdb").open("w") as file:
            app.PDBFile.writeFile(topology, np.array([[x, 0, 0]]) * unit.nanometer, file)
    (folder / "well.xml").write_text(xml or openmm.XmlSerializer.serialize(well_system()))
    (folder / "config.yaml").write_text(yaml.safe_dump({**WELL, **changes}))
    return folder / "config.yaml"


class _Touch:
    """Unpickles by creating a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def python_force(mark: Path, kind: str = "PythonForce") -> str:
    """Return the XML of a PythonForce whose reading creates the file `mark`."""
    code = pickle.dumps(_Touch(mark)).hex()
    return (
        f'<Force forceGroup="0" function="{code}" name="f" type="{kind}" usesPeriodic="0" version="2">'
        "<GlobalParameters/><Particles/></Force>"
    )


def in_forces(force: str) -> str:
    """Return the XML of a System of one particle with this XML among its forces."""
    text = openmm.XmlSerializer.serialize(well_system())
    return text.replace("<Forces>", f"<Forces>{force}")


def in_cv(force: str) -> str:
    """Return the XML of a CustomCVForce around this of a force."""
    return (
        '<Force energy="0" forceGroup="0" name="c" type="CustomCVForce" version="0"><GlobalParameters/>'
        f'<EnergyParameterDerivatives/><CollectiveVariables><CollectiveVariable name="e">{force}'
        "</CollectiveVariable></CollectiveVariables><Functions/></Force>"
    )


def in_atm(force: str) -> str:
    """Return the XML of an ATMForce around this of a force."""
    particle = '<Particle d0x="0" d0y="0" d0z="0" d1x="0" d1y="0" d1z="0" pi0="-1" pi1="-1" pj0="-1" pj1="-1"'
    return (
        '<Force energy="u0" forceGroup="0" name="a" type="ATMForce" version="0"><GlobalParameters/>'
        f"<EnergyParameterDerivatives/><Forces><Force>{force}</Force></Forces>"
        f'<Particles>{particle} type="fixed"/></Particles></Force>'
    )


def seal_anew(run: Path) -> None:
    """Make every checksum of a run directory fit what is there, as someone can who knows the format."""
    newest = ""
    rounds = [path.parent for path in run.glob(f"rounds/*/*/{MANIFEST}")]
    order = {str(atomic_files.sealed(path / MANIFEST)[0].get("previous")): path for path in rounds}
    old = atomic_files.sealed(run / MANIFEST)[1]
    where: Path | None = run
    while where is not None:
        content, _ = atomic_files.sealed(where / MANIFEST)
        content["files"] = {name: atomic_files.file_sha256(run / name) for name in content["files"]}
        if newest:
            content["previous"] = newest
        (where / MANIFEST).write_bytes(atomic_files.seal(content))
        newest = atomic_files.sealed(where / MANIFEST)[1]
        where = order.get(old)
        old = atomic_files.sealed(where / MANIFEST)[1] if where else ""
    sums = {name: atomic_files.file_sha256(run / name) for name in ("value.pt", "result.json") if (run / name).exists()}
    (run / "checksums.json").write_bytes(atomic_files.seal({"files": sums, "pending": {}}))

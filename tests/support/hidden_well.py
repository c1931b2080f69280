"""A configuration of three wells on a line, the middle one of which is no region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import yaml
from openmm import app

REGIONS = {"A": {"within": {"x": [None, "-0.85 nm"]}}, "B": {"within": {"x": ["0.85 nm", None]}}}


def hidden(folder: Path, depth: float, regions: dict[str, Any] = REGIONS) -> Path:
    """Write a configuration: wells at -1, 0 and 1 nm, the middle one deeper by `depth` kT and not a region in use."""
    topology = app.Topology()
    topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("X", topology.addChain()))
    with open(folder / "A.pdb", "w") as file:
        app.PDBFile.writeFile(topology, np.array([[-10.0, 0.0, 0.0]]) * openmm.unit.angstrom, file)
    system = openmm.System()
    system.addParticle(1.0)
    force = openmm.CustomExternalForce(
        f"3.5*(1-cos(6.283185307179586*x))-{depth}*exp(-(x/0.2)^2)+40*step(abs(x)-1)*(abs(x)-1)^2"
    )
    force.addParticle(0, [])
    system.addForce(force)
    (folder / "trap.xml").write_text(openmm.XmlSerializer.serialize(system))
    described = {
        "name": "trap", "xml": "trap.xml", "structure": "A.pdb", "temperature": "120.2724 K", "friction": "1/ps",
        "timestep": "0.0002 ps", "lag_steps": 10, "dimensions": 1, "features": {"x": {"coordinate": [0, "x"]}},
        "regions": regions, "source": "A", "target": "B",
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump({"system": described}))
    return folder / "config.yaml"

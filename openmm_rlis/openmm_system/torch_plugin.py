"""The openmm-torch plugin: loaded where OpenMM could not, and its forces read without its own reader of XML.

OpenMM loads plugins when it is imported, and openmm-torch fails then unless torch came first; loading it again mends
that. The reader of XML in the 1.5 wheel ends the process (segmentation fault), so a TorchForce is made here from what
stands in the XML. One inside another force cannot be helped: OpenMM copies that through XML on its own when it makes a
Context.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING

import openmm
import torch
from openmm import version

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_PROBE = """
import torch
class Zero(torch.nn.Module):
    def forward(self, x):
        return x.sum()
import openmm
from openmmtorch import TorchForce
script = torch.jit.trace(Zero(), torch.zeros(1, 3))
openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(TorchForce(script)))
"""


def platform_names() -> list[str]:
    """Return the names of the OpenMM platforms of this installation."""
    return [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]


def load_plugin() -> str:
    """Make TorchForce usable and return "", or return why it is not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            disabled = logging.root.manager.disable
            logging.disable(logging.WARNING)  # it logs that the name simtk, which it imports itself, is deprecated
            try:
                import openmmtorch  # noqa: F401
            finally:
                logging.disable(disabled)
    except (ImportError, OSError) as error:
        return str(error).splitlines()[0]
    folder = os.path.join(version.openmm_library_path, "plugins")
    for platform in ("Reference", "CUDA", "OpenCL"):
        path = os.path.join(folder, f"libOpenMMTorch{platform}.so")
        if os.path.exists(path) and (platform == "Reference" or platform in platform_names()):
            try:
                openmm.Platform.loadPluginLibrary(path)
            except openmm.OpenMMException as error:
                if platform == "Reference":
                    return str(error).splitlines()[0]
    return ""


@cache
def survives_xml() -> bool:
    """Return whether the installed openmm-torch can read its own XML, which is tried in another process."""
    tried = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False)
    return tried.returncode == 0


def torch_force(node: Element) -> openmm.Force:
    """Return the TorchForce of an element of a System's XML; this loads its program, so the file must be trusted.

    Raises
    ------
    ValueError
        openmm-torch is not usable here, or the element is not as it writes it.
    """
    reason = load_plugin()
    if reason:
        raise ValueError(f"a TorchForce, but openmm-torch does not load: {reason}")
    import openmmtorch

    try:
        if "encodedFileContents" in node.attrib:
            script = torch.jit.load(io.BytesIO(bytes.fromhex(node.attrib["encodedFileContents"])))
        else:
            script = torch.jit.load(node.attrib["file"])
        force = openmmtorch.TorchForce(script)
        force.setForceGroup(int(node.get("forceGroup", "0")))
        force.setUsesPeriodicBoundaryConditions(node.get("usesPeriodic", "0") == "1")
        force.setOutputsForces(node.get("outputsForces", "0") == "1")
        for entry in node.iterfind("GlobalParameters/*"):
            force.addGlobalParameter(entry.attrib["name"], float(entry.attrib["default"]))
        for entry in node.iterfind("ParameterDerivatives/*"):
            force.addEnergyParameterDerivative(entry.attrib["name"])
        for entry in node.iterfind("Properties/*"):
            force.setProperty(entry.attrib["name"], entry.attrib["value"])
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise ValueError(f"a TorchForce that cannot be read: {(str(error) or 'no reason').splitlines()[0]}") from None
    return force

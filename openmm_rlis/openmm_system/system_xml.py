"""A System from XML and to XML: what carries code is read only from files that are trusted, and copies do not crash.

A force that runs a program (PythonForce, TorchForce) executes it as soon as OpenMM reads the XML. `read` refuses such
files unless told that they are trusted. A System object that Python code made is its author's own: `check` only says
in one line what cannot be copied, and `copied` copies it without openmm-torch's reader of XML, see `torch_plugin`.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import openmm

from ..errors import bad_input
from ..safe_readers.xml_text import PLAIN, kinds_of, objection, parsed
from .torch_plugin import load_plugin, survives_xml, torch_force

TORCH = "TorchForce"
TRUST = "if you trust whoever made the file, give --trust (in Python trusted=True)"


def read(text: str, where: object, trusted: bool = False) -> openmm.System:
    """Return the System in a text as OpenMM writes it.

    Parameters
    ----------
    text
        Content of the file.
    where
        The file, for messages.
    trusted
        Whether forces that run code are allowed.

    Raises
    ------
    InputError
        Not a System, or one with forces that carry code, or may, and the file is not trusted.
    """
    expected = "a System, as openmm.XmlSerializer writes it"
    try:
        root = parsed(text)
    except ValueError as error:
        raise bad_input("system.xml", expected, f"{where}: {error}") from None
    if root.get("type") != "System":
        raise bad_input("system.xml", "a System", f"{where}, which holds a {(root.get('type') or root.tag)[:60]}")
    reason = objection(kinds_of(root))
    if reason and not trusted:
        raise bad_input("system.xml", "forces that carry no code", f"{reason}, in {where}", TRUST)
    _check_nested(root, f"in {where}")
    try:
        return _made(root)
    except (openmm.OpenMMException, ValueError, TypeError) as error:  # for what is not as OpenMM writes it
        raise bad_input("system.xml", expected, f"{where}: {str(error) or type(error).__name__}") from None


def check(system: openmm.System) -> None:
    """Make the plugins of a System's forces usable, or raise `InputError` for forces that cannot be copied."""
    if all(type(force).__name__ in PLAIN for force in system.getForces()):
        return
    root = _written(system)
    if TORCH in kinds_of(root):
        reason = load_plugin()
        if reason:
            raise bad_input("system", "forces that work here", f"a TorchForce; openmm-torch does not load: {reason}")
    _check_nested(root, "in the System")


def check_sendable(system: openmm.System, workers: int) -> None:
    """Raise `InputError` if worker processes are asked for, and a System that they cannot be sent."""
    if workers < 2 or all(type(force).__name__ in PLAIN for force in system.getForces()):
        return
    if TORCH in kinds_of(_written(system)) and not survives_xml():
        got = f"{workers}, with a TorchForce in the System"
        raise bad_input("workers", "1", got, "the installed openmm-torch cannot send one to another process")


def copied(system: openmm.System) -> openmm.System:
    """Return a copy of a System."""
    if all(type(force).__name__ in PLAIN for force in system.getForces()):
        return openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    return _made(_written(system))


def _written(system: openmm.System) -> Element:
    try:
        return parsed(openmm.XmlSerializer.serialize(system))
    except openmm.OpenMMException as error:
        fix = "define the function of a PythonForce at the top level of a module, where it can be pickled"
        raise bad_input(
            "system", "forces that OpenMM can write as XML", f"one it cannot: {str(error).rstrip('.')}", fix
        ) from None


def _check_nested(root: Element, where: str) -> None:
    """Raise `InputError` for a TorchForce inside another force, if OpenMM's copy of that would end the process."""
    top = {id(force) for force in root.iterfind("Forces/*")}
    nested = any(element.get("type") == TORCH and id(element) not in top for element in root.iter())
    if nested and not survives_xml():
        got = f"one inside another force {where}, which the installed openmm-torch crashes on"
        raise bad_input("system", "a TorchForce directly in the System", got, "add it with system.addForce")


def _made(root: Element) -> openmm.System:
    """Return the System of a document from what was parsed; a TorchForce is made here, and comes after the others."""
    forces = root.find("Forces")
    programs = [] if forces is None else [force for force in forces if force.get("type") == TORCH]
    for force in programs:
        assert forces is not None
        forces.remove(force)
    system = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    for force in programs:
        system.addForce(torch_force(force))
    return system

"""XML of a System as text from a file that nobody vouches for: parsed safely, and searched for forces that carry code.

OpenMM makes a force of every element by its `type`, at any depth (a CustomCVForce holds forces, an ATMForce too), and
a PythonForce or TorchForce is a program. So every `type` of the document must be one of `PLAIN`, forces and functions
that are numbers and formulas; what is not known there is refused too. A document type, and with it entities, is
refused before anything is expanded. What was checked is written again, so that OpenMM's own parser sees nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

DEEPEST = 64
"""Levels of elements; a System has some ten, and OpenMM's parser calls itself for each."""
PLAIN = frozenset({
    "AmoebaGeneralizedKirkwoodForce", "AmoebaMultipoleForce", "AmoebaTorsionTorsionForce", "AmoebaVdwForce",
    "AmoebaWcaDispersionForce", "AndersenThermostat", "CMAPTorsionForce", "CMMotionRemover",
    "ConstantPotentialForce", "CustomAngleForce", "CustomBondForce", "CustomCentroidBondForce",
    "CustomCompoundBondForce", "CustomExternalForce", "CustomGBForce", "CustomHbondForce",
    "CustomManyParticleForce", "CustomNonbondedForce", "CustomTorsionForce", "CustomVolumeForce", "DrudeForce",
    "GBSAOBCForce", "GayBerneForce", "HarmonicAngleForce", "HarmonicBondForce", "HippoNonbondedForce", "LCPOForce",
    "MonteCarloAnisotropicBarostat", "MonteCarloBarostat", "MonteCarloFlexibleBarostat",
    "MonteCarloMembraneBarostat", "NonbondedForce", "OrientationRestraintForce", "PeriodicTorsionForce",
    "RBTorsionForce", "RGForce", "RMSDForce", "RPMDMonteCarloBarostat"
})  # fmt: skip
"""Forces of OpenMM that hold neither code nor other forces."""
HOLDERS = frozenset({"CustomCVForce", "ATMForce"})
"""Forces of OpenMM that hold other forces and no code of their own."""
PROGRAMS = {
    "PythonForce": "which runs Python code from the file",
    "TorchForce": "which runs a TorchScript program from the file",
    "PythonTorchForce": "which runs Python code from the file",
}
_FUNCTIONS = frozenset(f"{kind}{n}DFunction" for kind in ("Continuous", "Discrete") for n in (1, 2, 3))
_MARKS = frozenset({"System", "fixed", "particleOffset"})  # the root, and what an ATMForce calls its displacements
_KNOWN = PLAIN | HOLDERS | _FUNCTIONS | _MARKS


def parsed(text: str) -> Element:
    """Return the root of a document without a document type.

    Raises
    ------
    ValueError
        It does not parse, has a document type or entities, or is nested too deeply.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate("utf-8")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"elements nested more than {DEEPEST} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise ValueError("a document type (DOCTYPE), which may define entities")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text.encode(), True)
    except (expat.ExpatError, UnicodeError) as error:
        raise ValueError(str(error)) from None
    return builder.close()


def kinds_of(root: Element) -> set[str]:
    """Return the `type` of every element, but for those that are numbers, as the particles of some forces have them."""
    kinds = (element.get("type") for element in root.iter())
    return {kind for kind in kinds if kind is not None and not re.fullmatch(r"-?[0-9]+", kind)}


def objection(kinds: Iterable[str]) -> str:
    """Return what speaks against forces of these kinds in a file, e.g. `a PythonForce, which ...`, or ""."""
    for kind in sorted(set(kinds) - _KNOWN):
        shown = re.sub(r"[^\w.:-]", "?", kind)[:60]
        return f"a {shown}, {PROGRAMS.get(kind, 'which may carry code: it is none of the known forces of OpenMM')}"
    return ""

"""System differences: where two serialised Systems differ, by content and not by the version of OpenMM that wrote them.

Nothing is made from the text but a tree of its elements: whatever code a force carries is not run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ..errors import StorageError
from ..safe_readers.xml_text import PROGRAMS, parsed

Difference = tuple[str, str, str]
"""What differs, as it is in the first description and as it is in the second."""
NOT_PHYSICS = ("version", "openmmVersion", "name", "forceGroup")
"""Attributes of a force that leave its energy as it is."""
TEXTS = ("function", "encodedFileContents", "file")
"""Attributes that hold a program."""
MOST_TEXT = 40


def system_differences(first: str, second: str, programs: bool = True) -> list[Difference]:
    """Return where two serialised Systems differ: in masses, constraints or forces, one difference for each of them.

    Numbers agree to 1e-6. Default box vectors are left out: they count where forces are periodic only. With `programs`
    false, the texts of programs are too: they are to be compared by what they compute, see `potential`.

    Raises
    ------
    StorageError
        A text is no XML.
    """
    try:
        one, two = (parsed(text) for text in (first, second))
    except ValueError as error:
        raise StorageError(f"the XML of a System does not parse ({error})") from error
    for force in () if programs else [*one.iter(), *two.iter()]:
        for name in TEXTS if force.get("type") in PROGRAMS else ():
            force.attrib.pop(name, None)
    found = []
    for what, path in (("particles", "Particles"), ("constraints", "Constraints"), ("forces", "Forces")):
        a, b = (list(root.find(path) or ()) for root in (one, two))
        if what == "forces":
            found += _forces(a, b, one.get("openmmVersion") == two.get("openmmVersion"))
        elif len(a) != len(b):
            found.append((f"number of {what}", str(len(a)), str(len(b))))
        else:
            found += _first(_rows(what, a, b))
    return found


def _first(found: Iterator[Difference]) -> list[Difference]:
    return [one for one, _ in zip(found, range(1), strict=False)]


def _rows(what: str, first: list[Element], second: list[Element]) -> Iterator[Difference]:
    """Yield the differences of particles or constraints."""
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        for name in sorted({*a.keys(), *b.keys()}):
            if not _same(a.get(name), b.get(name)):
                label = f"mass of atom {i}" if name == "mass" else f"{name} of {what[:-1]} {i}"
                yield label, _short(a.get(name)), _short(b.get(name))
        if len(a) != len(b) or any(x.tag != y.tag for x, y in zip(a, b, strict=False)):
            yield f"{what[:-1]} {i}", _tags(a), _tags(b)


def _forces(first: list[Element], second: list[Element], same_version: bool) -> list[Difference]:
    kinds = [[str(force.get("type")) for force in forces] for forces in (first, second)]
    if kinds[0] != kinds[1]:
        one, two = (", ".join(kind) or "none" for kind in kinds)
        return [("forces", one, two)]
    found = []
    for kind, a, b in zip(kinds[0], first, second, strict=True):
        found += _first(_inside(kind, _bare(a), _bare(b), same_version))
    return found


def _bare(force: Element) -> Element:
    """Return a force without the attributes that leave its energy as it is."""
    bare = Element(force.tag, {name: text for name, text in force.items() if name not in NOT_PHYSICS})
    bare.extend(list(force))
    bare.text = force.text
    return bare


def _inside(path: str, one: Element, two: Element, same_version: bool) -> Iterator[Difference]:
    """Yield the differences of two elements; what only one version of OpenMM writes is passed over."""
    for name in sorted({*one.keys(), *two.keys()} - {"version"}):
        a, b = one.get(name), two.get(name)
        known = same_version or (a is not None and b is not None)
        if known and not _same(a, b):
            label = f"{path} {one.get('name') or ''}".strip()
            yield f"{label} {name}", _short(a), _short(b)
    if not _same((one.text or "").strip(), (two.text or "").strip()):
        yield f"{path} text", _short(one.text), _short(two.text)
    groups: dict[str, tuple[list[Element], list[Element]]] = {}
    for side, parent in enumerate((one, two)):
        for child in parent:
            groups.setdefault(child.tag, ([], []))[side].append(child)
    for tag, (a_children, b_children) in groups.items():
        if not same_version and not (a_children and b_children):
            continue
        if len(a_children) != len(b_children):
            yield f"{path} {tag} entries", str(len(a_children)), str(len(b_children))
            continue
        for i, (a_child, b_child) in enumerate(zip(a_children, b_children, strict=True)):
            inner = f"{path} {tag}" + (f" {i}" if len(a_children) > 1 else "")
            yield from _inside(inner, a_child, b_child, same_version)


def _same(a: str | None, b: str | None) -> bool:
    if a is None or b is None or a == b:
        return a == b
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1e-12)
    except ValueError:
        return a.split() == b.split()


def _short(text: str | None) -> str:
    text = " ".join((text or "none").split())
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 3]}..."


def _tags(parent: Element) -> str:
    return ", ".join(child.tag for child in parent) or "nothing more"

"""What the text of a structure file says before any reader has changed it: its encoding, and the names of its atoms.

    bytes -> text                  UTF-8, UTF-16 with its mark, or Latin-1, as old PDB files have it in their remarks
    text + topology -> names       how the atoms are called in the file, where OpenMM's reader calls them otherwise

Nothing here reads coordinates. Only PDB files are looked into; readers of mmCIF files keep all names.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_PACKED = {b"\x1f\x8b": "a gzip archive", b"BZh": "a bzip2 archive", b"PK\x03\x04": "a zip archive"}


class Record(NamedTuple):
    """One atom as a PDB file has it."""

    name: str
    residue: str
    place: str
    """Chain, number and insertion code of the residue, for example `A 12`."""
    location: str
    """Indicator of an alternate location."""


def decoded(content: bytes, latin: bool = False) -> str:
    """Return bytes as text with plain line ends.

    Parameters
    ----------
    content
        What a file holds.
    latin
        Whether bytes that are not UTF-8 may be Latin-1.

    Raises
    ------
    ValueError
        Not text; the message says what it is.
    """
    packed = next((what for start, what in _PACKED.items() if content.startswith(start)), None)
    if packed is not None:
        raise ValueError(f"{packed}, unpack it first")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if encoding == "utf-16" and not (text and text[0].isascii()):
            raise ValueError("binary data")
    except UnicodeDecodeError:
        if not latin or any(byte < 32 and byte not in b"\t\n\f\r\x1a" for byte in content):
            raise ValueError("binary data") from None
        text = content.decode("latin-1")
    return io.StringIO(text, newline=None).read()


def records(text: str) -> list[Record]:
    """Return the atoms of the first model of a PDB file, in order."""
    found = []
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            break
        if line.startswith(("ATOM  ", "HETATM")):
            place = " ".join(f"{line[21:22]} {line[22:27]}".split())
            found.append(Record(line[12:16].strip(), line[17:21].strip(), place, line[16:17].strip()))
    return found


def names_in_file(text: str, topology: Any) -> list[tuple[str, str]]:
    """Return the names of every atom and its residue in the PDB file of an openmm Topology, or nothing if not clear.

    OpenMM's reader gives standard residues standard names: HN becomes H, 1HB becomes HB1 or HB3, HSD becomes HIS.
    """
    found = [one for one in records(text) if one.location in ("", "A")]
    return [(one.name, one.residue) for one in found] if len(found) == topology.getNumAtoms() else []


def repeated(found: Sequence[Record]) -> str:
    """Return the first name that several atoms of one residue share, as `C in ALA A 1`, or nothing.

    Readers take such atoms for one. Alternate locations do not count.
    """
    counts = Counter(found)
    return next((f"{one.name} in {one.residue} {one.place}" for one, n in counts.items() if n > 1), "")

"""Selections and texts of structures: no atom that nobody named, and every refusal says what is there."""

from __future__ import annotations

import gzip
import io
import re

import pytest
from openmm import app

from openmm_rlis.config.atom_selections import Selector
from openmm_rlis.errors import InputError
from openmm_rlis.safe_readers.structure_text import decoded, names_in_file, records, repeated

ATOMS = (
    ("N", "ALA", "A", 1), ("HN", "ALA", "A", 1), ("CA", "ALA", "A", 1), ("1HB", "ALA", "A", 1),
    ("CB", "VAL", "A", 2), ("HB", "VAL", "A", 2), ("CA", "VAL", "A", 2),
    ("C2", "LIG", "B", 7), ("C2'", "LIG", "B", 7), ("O3*", "LIG", "B", 7), ("C1", "4HB", "B", 8),
    ("NA", "SOD", "C", -3),
)  # fmt: skip


def pdb_text(atoms: tuple[tuple[str, str, str, int], ...] = ATOMS, location: str = " ") -> str:
    lines = []
    for i, (name, residue, chain, number) in enumerate(atoms):
        column = f" {name}" if len(name) < 4 and name[0].isalpha() else name
        place = f"{column:<4}{location}{residue:>3} {chain}{number:4d}"
        lines.append(f"ATOM  {i + 1:5d} {place}    {i:8.3f}{0.0:8.3f}{0.0:8.3f}  1.00  0.00")
    return "\n".join([*lines, "END\n"])


@pytest.fixture(scope="module")
def selector() -> Selector:
    topology = app.PDBFile(io.StringIO(pdb_text())).topology
    return Selector.of(topology, names_in_file(pdb_text(), topology))


@pytest.mark.parametrize(
    ("selection", "index"),
    [
        ("name HB", 5), ('name "C2\'"', 8), ("name C2", 7), ('name "O3*"', 9), ("chainid 1 and resid 3", 10),
        ("resname ALA and name CA", 2), ("resSeq 2 and (name CA)", 6), ("name =~ 'CB'", 4),
        ("index 11", 11), ("resname '4HB'", 10), ("name CA && resid == 1", 6), ('name"CB"', 4),
    ],
)  # fmt: skip
def test_what_mdtraj_reads_is_found(selector: Selector, selection: str, index: int) -> None:
    assert selector.one(selection, "here") == index


@pytest.mark.parametrize(
    ("selection", "texts"),
    [
        # mdtraj would have taken HB of VAL for 1HB of ALA, and C2 for C2': atoms that nobody named
        ("name 1HB", ["1HB is no plain word", "write: name HB1"]),
        ("name C2' or name O3'", ["C2' is no plain word", "write: name \"C2'\" or name \"O3'\""]),
        ("name C2'", ['write: name "C2\'"']),
        ("name O3*", ['write: name "O3*"']),
        ("resname 4HB", ['write: resname "4HB"']),
        ("name CA,CB", ["write: name CA CB"]),
        ("resid 3-4 and name C1", ["write: resid 3 to 4 and name C1"]),
        ("resSeq -3", ["write: resid 4"]),
        (":1@CA", ["no plain word"]),
        ("chain B and name C2", ["write: chainid 1 and name C2"]),
        ("chainid B and name C2", ["chainid there: 1 (chain B)", "write: chainid 1 and name C2"]),
        ("chainid 5", ["chainid there: 0 (chain A), 1 (chain B), 2 (chain C)"]),
        ("segid B", ["segid is called segname"]),
        ("name HN", ["standard name", "write: name H"]),
        ("name ca and resid 1", ["write: name CA and resid 1"]),
        ("name CG and resid 1", ["name there: CB, HB, CA in VAL2"]),
        ("resname GLY and name CA", ["resname there: ALA, VAL"]),
        ("resname ALA and name CB", ["name there: N, H, CA, HB1 in ALA1"]),
        ("name CB and resid 0", ["name there: N, H, CA, HB1 in ALA1"]),
        ("resSeq 2 and chainid 2", ["resSeq there: -3"]),
        ("name N and resSeq 2 and chainid 2", ["no atom is in all of them", "resSeq 2 (index 4 (CB of VAL 2)"]),
        ("name CA", ["2 atoms", "index 2 (CA of ALA 1), index 6 (CA of VAL 2)"]),
        ("resSeq 99", ["resSeq there: 1, 2, 7, 8, -3"]),
        ("5", ["index 5"]),
        ("", ["write for example"]),
        ("name CA or", ["incomplete"]),
    ],
)  # fmt: skip
def test_a_selection_that_does_not_find_one_atom_says_what_is_there(
    selector: Selector, selection: str, texts: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        selector.one(selection, "here")
    message = str(error.value)
    assert all(text in message for text in texts), message
    assert "\n" not in message and len(message) < 500


def test_advice_finds_the_atom_that_was_meant(selector: Selector) -> None:
    meant = {"name 1HB": 3, "name HN": 1, "name C2'": 8, "chain B and name C2": 7, "resSeq -3": 11, "resn 4HB": 10}
    for selection, index in meant.items():
        with pytest.raises(InputError) as error:
            selector.one(selection, "here")
        advice = re.search(r"write: (.*)$", str(error.value))
        assert advice and selector.one(advice[1], "here") == index


def test_groups(selector: Selector) -> None:
    assert selector.group("name CA CB", "here") == [2, 4, 6]
    with pytest.raises(InputError, match=r"two or more atoms, got 1 from 'name N'; found index 0"):
        selector.group("name N", "here")
    with pytest.raises(InputError, match=r"got 0 from 'name Q'; name there: "):
        selector.group("name Q", "here")


def test_many_names_are_cut_to_the_nearest() -> None:
    atoms = tuple((f"C{i}", "LIG", "A", 1) for i in range(40))
    topology = app.PDBFile(io.StringIO(pdb_text(atoms))).topology
    with pytest.raises(InputError) as error:
        Selector.of(topology, []).one("name C7A and resid 0", "here")
    assert "name there: C7," in str(error.value) and "(40 in all)" in str(error.value)
    assert str(error.value).count(", C") < 12
    with pytest.raises(InputError, match=r"index there: 28, .* 39, ... \(40 in all\)"):
        Selector.of(topology, []).one("index 77", "here")


def test_encodings() -> None:
    """Latin-1 in a remark is text; so are a byte order mark, UTF-16 and Windows line ends. Packed files are not."""
    text = "REMARK Müller, 2 Å\nEND\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decoded(text.replace("\n", "\r\n").encode(encoding)) == text
    assert decoded(text.encode("latin-1"), latin=True) == text
    assert decoded("REMARK Fran\xe7ois \x1a".encode("latin-1"), latin=True).startswith("REMARK Fran\xe7ois")
    for content, reason in (
        (gzip.compress(text.encode()), "gzip"), (b"PK\x03\x04...", "zip archive"), (b"\xff\xfe", "binary"),
        (b"\xd0\xcf\x11\xe0\x00\x01", "binary"), (b"\xff\xfe\x00\x01" * 9, "binary"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            decoded(content, latin=True)
    with pytest.raises(ValueError, match="binary"):
        decoded(text.encode("latin-1"))


def test_names_that_a_residue_has_twice() -> None:
    same = pdb_text((("C", "BUT", "A", 1),) * 3)
    assert repeated(records(same)) == "C in BUT A 1"
    assert repeated(records(pdb_text())) == ""
    both = pdb_text(ATOMS[:1], "A") + pdb_text(ATOMS[:1], "B")
    assert repeated(records(both)) == "" and len(records(both)) == 2

"""Atom selections: mdtraj's words for atoms, and what to say when they find none, too many, or others than were meant.

    name "C1'" and resid 3  ->  [57]

mdtraj reads a bare word letter by letter: `1HB` is a 1 and an HB, and the quote in `C1' or name C3'` begins a text that
ends at the next one. Both can find atoms that nobody named, so words that are not plain have to be quoted here. A
selection that finds nothing is answered with what is there and, where one can be found, with a selection that works.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mdtraj

from ..errors import InputError, bad_input

MOST_SHOWN = 12
"""Names or atoms that a message lists at most."""
_FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": lambda atom: atom.name,
    "resname": lambda atom: atom.residue.name,
    "resid": lambda atom: atom.residue.index,
    "resSeq": lambda atom: atom.residue.resSeq,
    "chainid": lambda atom: atom.residue.chain.index,
    "element": lambda atom: atom.element.symbol if atom.element is not None else "",
    "index": lambda atom: atom.index,
}
_SAME = {"resn": "resname", "resi": "resid", "residue": "resSeq", "type": "element", "symbol": "element"}
_ELSEWHERE = {
    "chain": "chainid", "segid": "segname", "resnum": "resSeq", "resseq": "resSeq", "resno": "resSeq",
    "resnr": "resSeq", "atomname": "name", "atom_name": "name", "atomid": "index", "id": "index", "atom": "index",
    "residuename": "resname", "elem": "element",
}  # fmt: skip
"""What other programs call mdtraj's keywords, in small letters."""
_WORDS = (
    "all", "everything", "none", "nothing", "backbone", "is_backbone", "sidechain", "is_sidechain", "protein",
    "is_protein", "code", "rescode", "resc", "nucleic", "is_nucleic", "water", "waters", "is_water", "n_bonds",
    "segment_id", "segname", "mass", "and", "or", "not", "to", "lt", "gt", "le", "ge", "eq", "ne",
)  # fmt: skip
KEYWORDS = (*_FIELDS, *_SAME, *_WORDS)
_OPERATORS = {"and", "or", "not", "(", ")", "&&", "||", "!", "=~", "==", "!=", "<=", ">=", "<", ">"}
_TOKEN = re.compile(
    r"""\s*("[^"]*"|'[^']*'(?=[\s)]|$)|[()]|&&|\|\||=~|==|!=|<=|>=|[<>!]|[a-z_]+(?=["'])|[^\s()<>=!&|]+|.)"""
)
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9]*|[0-9.]+")


@dataclass(frozen=True)
class Selector:
    """Finds atoms of one structure.

    Parameters
    ----------
    topology
        What selections are about.
    chain_ids
        The letter of every chain, by index.
    file_names
        What the file calls every atom and its residue; empty where its reader changes no names.
    """

    topology: mdtraj.Topology
    chain_ids: Sequence[str]
    file_names: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, topology: Any, file_names: Sequence[tuple[str, str]]) -> Selector:
        """Return the selector of an openmm Topology; see `structure_text.names_in_file`."""
        return cls(mdtraj.Topology.from_openmm(topology), [chain.id for chain in topology.chains()], file_names)

    def one(self, selection: str, argument: str) -> int:
        """Return the one atom that a selection finds.

        Raises
        ------
        InputError
            It finds none or several, or is not a selection.
        """
        found = self._find(selection, argument)
        if len(found) != 1:
            expected, got = "a selection of one atom", f"{len(found)} atoms from {selection!r}"
            raise bad_input(argument, expected, got, self._of_many(found) if found else self._of_none(selection))
        return found[0]

    def group(self, selection: str, argument: str) -> list[int]:
        """Return the two or more atoms that a selection finds.

        Raises
        ------
        InputError
            It finds none or one, or is not a selection.
        """
        found = self._find(selection, argument)
        if len(found) < 2:
            fix = self._of_many(found) if found else self._of_none(selection)
            raise bad_input(argument, "two or more atoms", f"{len(found)} from {selection!r}", fix)
        return found

    def _find(self, selection: str, argument: str) -> list[int]:
        tokens = _TOKEN.findall(selection)
        odd = [token for token in tokens if _is_odd(token)]
        if odd:
            raise _not_understood(argument, selection, f"{odd[0]} is no plain word", self._quoted(selection, odd[0]))
        try:
            return [int(i) for i in self.topology.select(selection)]
        except Exception as error:  # mdtraj's parser raises many kinds, some with several lines
            reason = (str(error) or type(error).__name__).partition("  (at char")[0]
            reason = reason.partition("\n")[0] if len(reason) < 200 else "incomplete"  # all that might have come
            raise _not_understood(argument, selection, reason, self._instead(tokens)) from None

    # What to write instead

    def _quoted(self, selection: str, odd: str) -> str:
        listed = re.sub(r"(?<=\d)-(?=\d)", " to ", selection.replace(",", " "))  # as other programs write several
        for text in (selection, listed):
            advice = self._rewritten(_TOKEN.findall(text))
            if advice:
                return advice
        before = [t for t in _TOKEN.findall(selection.partition(odd)[0]) if t in KEYWORDS]
        keyword = _SAME.get(before[-1], before[-1]) if before else ""
        there = f"; {keyword} there: {self._there(keyword, None, odd)}" if keyword in _FIELDS else ""
        return f"put it in quotes if an atom is called that, {_quote(odd)}{there}"

    def _instead(self, tokens: Sequence[str]) -> str:
        rewritten = self._rewritten(tokens)
        if rewritten:
            return rewritten
        if len(tokens) == 1 and tokens[0].isdigit():
            return f"write the index without quotes, or: index {tokens[0]}"
        word = next((t for t in tokens if t.lower() in _ELSEWHERE and t not in KEYWORDS), "")
        if word:
            keyword = _ELSEWHERE[word.lower()]
            there = f", there: {self._there(keyword)}" if keyword in _FIELDS else ""
            return f"{word} is called {keyword}{there}"
        return f"write for example: name CA and resid 3 (keywords: {', '.join(_FIELDS)})"

    def _rewritten(self, tokens: Sequence[str]) -> str:
        """Return the advice to write the selection with words that mdtraj reads and atoms have, if that finds any."""
        better, keyword = [], ""
        for token in tokens:
            word = _ELSEWHERE.get(token.lower(), token) if token not in KEYWORDS else token
            if word in KEYWORDS or word in _OPERATORS:
                keyword = keyword if word == "to" else _SAME.get(word, word)
                better.append(word)
                continue
            number = self._residue_of(token) if keyword == "resSeq" and token.startswith("-") else ""
            if number:  # mdtraj has no negative numbers
                better[-1] = "resid"
            better.append(number or _quote(self._meant(keyword, _unquote(token))))
        text = " ".join(better).replace("( ", "(").replace(" )", ")")
        try:
            found = self.topology.select(text)
        except Exception:  # whatever the parser raises: then there is no advice of this kind
            return ""
        return f"write: {text}" if len(found) else ""

    def _residue_of(self, number: str) -> str:
        """Return the index of the only residue with a number, or nothing."""
        found = [residue.index for residue in self.topology.residues if str(residue.resSeq) == number]
        return str(found[0]) if len(found) == 1 else ""

    def _meant(self, keyword: str, value: str) -> str:
        """Return the value that atoms have in place of one that the file, or a person in a hurry, gave."""
        if keyword not in _FIELDS:
            return value
        known = self._known(keyword)
        if value in known:
            return value
        in_file = self._in_file(keyword)
        if value in in_file:
            return str(_FIELDS[keyword](self.topology.atom(in_file.index(value))))
        if keyword == "chainid" and value in self.chain_ids:
            return str(self.chain_ids.index(value))
        return next((one for one in known if one.lower() == value.lower()), value)

    def _in_file(self, keyword: str) -> list[str]:
        """Return what the file has for every atom where its reader may have something else."""
        return [pair[keyword == "resname"] for pair in self.file_names] if keyword in ("name", "resname") else []

    # What is there

    def _of_many(self, found: Sequence[int]) -> str:
        shown = ", ".join(self._atom(i) for i in found[:MOST_SHOWN])
        return f"found {shown}{', ...' if len(found) > MOST_SHOWN else ''}"

    def _of_none(self, selection: str) -> str:
        """Return which part of a selection finds nothing, and what there is in its place."""
        tokens = _TOKEN.findall(selection)
        advice = self._rewritten(tokens)
        parts = [(part, self.topology.select(part)) for part in _parts(tokens)]
        empty = next((i for i, (_, found) in enumerate(parts) if not len(found)), None)
        names = next((i for i, (part, _) in enumerate(parts) if part.startswith("name ")), 0)
        wrong = names if empty is None else empty
        others = [set(found) for i, (_, found) in enumerate(parts) if i != wrong and len(found)]
        scope = set(range(self.topology.n_atoms)).intersection(*others)
        if empty is None and (not scope or not others):
            listed = ", ".join(f"{part} ({self._atom(int(found[0]))}, {len(found)} in all)" for part, found in parts)
            return f"its parts find atoms, but no atom is in all of them: {listed}" if others else advice
        keyword, _, value = parts[wrong][0].partition(" ")
        named = _SAME.get(keyword, keyword)
        renamed = _unquote(value) in self._in_file(named)
        reader = f"the reader of the file gives {_unquote(value)} its standard name, " if renamed else ""
        if named not in _FIELDS:
            return advice
        there = self._there(named, scope or None, _unquote(value))
        return "; ".join(text for text in (f"{reader}{keyword} there: {there}", advice) if text)

    def _known(self, keyword: str, scope: set[int] | None = None) -> list[str]:
        atoms = self.topology.atoms if scope is None else (self.topology.atom(i) for i in sorted(scope))
        return list(dict.fromkeys(str(_FIELDS[keyword](atom)) for atom in atoms))

    def _there(self, keyword: str, scope: set[int] | None = None, value: str = "") -> str:
        """Return the values of a keyword in some atoms, the nearest first where there are many."""
        known = self._known(keyword, scope)
        shown = known if len(known) <= MOST_SHOWN else _nearest(value, known)
        if keyword == "chainid":
            shown = [f"{i} (chain {self.chain_ids[int(i)]})" for i in shown]
        where = self._residue(scope) if scope is not None and keyword == "name" else ""
        more = f", ... ({len(known)} in all)" if len(known) > MOST_SHOWN else ""
        return ", ".join(shown) + more + (f" in {where}" if where else "")

    def _residue(self, scope: set[int]) -> str:
        """Return the name of the only residue of some atoms, or nothing."""
        residues = {str(self.topology.atom(i).residue) for i in scope}
        return residues.pop() if len(residues) == 1 else ""

    def _atom(self, index: int) -> str:
        atom = self.topology.atom(index)
        return f"index {index} ({atom.name} of {atom.residue.name} {atom.residue.resSeq})"


def _not_understood(argument: str, selection: str, reason: str, fix: str) -> InputError:
    return bad_input(argument, "a selection that mdtraj understands", f"{selection!r}: {reason}", fix)


def _is_odd(token: str) -> bool:
    """Return whether a bare word holds what mdtraj would cut it at."""
    quoted = token[0] in "\"'" and len(token) > 1 and token[-1] == token[0]
    return not (quoted or token in _OPERATORS or token in KEYWORDS or _PLAIN.fullmatch(token))


def _unquote(token: str) -> str:
    return token[1:-1] if len(token) > 1 and token[0] in "\"'" and token[-1] == token[0] else token


def _quote(word: str) -> str:
    plain = _PLAIN.fullmatch(word) and word not in KEYWORDS
    return word if plain else f"'{word}'" if '"' in word else f'"{word}"'


def _nearest(value: str, known: Sequence[str]) -> list[str]:
    """Return `MOST_SHOWN` of many values: numbers near by, names alike."""
    if value.isdigit() and all(one.lstrip("-").isdigit() for one in known):
        return sorted(sorted(known, key=lambda one: abs(int(one) - int(value)))[:MOST_SHOWN], key=int)
    return difflib.get_close_matches(value, known, n=MOST_SHOWN, cutoff=0.0)


def _parts(tokens: Sequence[str]) -> list[str]:
    """Return the parts of a selection joined by `and` alone, or the selection itself as the only one."""
    joined = [i for i, token in enumerate(tokens) if token in ("and", "&&")]
    if any(token in _OPERATORS and token not in ("and", "&&") for token in tokens):
        return [" ".join(tokens)]
    ends = [*joined, len(tokens)]
    return [" ".join(tokens[start:end]) for start, end in zip([0, *(i + 1 for i in joined)], ends, strict=True)]

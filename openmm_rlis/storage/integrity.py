"""Integrity of a run directory: no round is missing, strange or changed, and every stored byte is as it was written.

Each round notes the checksum of the manifest before it, the first that of the run itself. So the rounds of a run are a
chain: one that is taken out, put in from another run, or stored twice breaks it. What no chain shows is that the last
rounds are gone; result.json tells how many there were. Runs of early versions have no chain; theirs are counted.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

from ..errors import RlisError, StorageError
from . import checksums
from .atomic_files import MANIFEST, TMP, file_sha256, inside, sealed, unseal

REPLACED = ("value.pt", "result.json")
"""Files of a run that are written anew."""
_TRIES = 3
_INDEX = re.compile(r"\d{6,}")


def is_chained(run: Path) -> bool:
    """Return whether a run is of a version that chains its rounds and covers value.pt and result.json."""
    return (run / MANIFEST).is_file() and bool(unseal(run / MANIFEST).get("chain"))


def chain_end(run: Path) -> str | None:
    """Return the checksum of the newest manifest, which the next round notes; None for a run without a chain.

    Raises
    ------
    StorageError
        A round is missing, of another run, or damaged; the message names it.
    """
    for left in reversed(range(_TRIES)):
        try:
            return _chain_end(run)
        except StorageError:
            if not left:
                raise
            time.sleep(0.05)  # a writer may have stored one while we looked
    raise AssertionError


def _chain_end(run: Path) -> str | None:
    content, seal = sealed(run / MANIFEST)
    rounds = _rounds(run)
    if not content.get("chain"):
        _check_counts(rounds)
        return None
    after: dict[str, tuple[Path, str]] = {}
    for path in rounds:
        own, own_seal = sealed(path / MANIFEST)
        before = str(own.get("previous", ""))
        if before in after:
            raise StorageError(f"{path} and {after[before][0]} follow the same round: one of them is of another run")
        after[before] = path, own_seal
    linked = set()
    while seal in after:
        path, seal = after[seal]
        linked.add(path)
    if len(linked) < len(rounds):
        known = {own_seal for _, own_seal in after.values()}
        loose = {path: before for before, (path, _) in after.items() if path not in linked}
        first = min(path for path, before in loose.items() if before not in known)
        raise StorageError(
            f"{first} follows none of the stored rounds: a round before it is missing, or it is of another run; "
            "restore the missing rounds"
        )
    return seal


def _check_counts(rounds: list[Path]) -> None:
    """Raise StorageError unless the rounds of each stage are 0, 1, 2 ..."""
    for stage in sorted({path.parent for path in rounds}):
        found = sorted(int(path.name) for path in rounds if path.parent == stage)
        if missing := sorted(set(range(max(found))) - set(found)):
            raise StorageError(f"{stage / f'{missing[0]:06d}'} is missing: a later round of its stage is stored")


def _rounds(run: Path) -> list[Path]:
    paths = (path.parent for path in sorted(run.glob(f"rounds/*/*/{MANIFEST}")))
    return [path for path in paths if _INDEX.fullmatch(path.name)]


def damage(run: Path) -> list[str]:
    """Read every stored byte again and return what is wrong, one line for each problem; empty when all is well."""
    problems = []
    rounds = [path for path in sorted(run.glob("rounds/*/*")) if not path.name.startswith(TMP)]
    for directory in (run, *rounds):
        try:
            files = unseal(directory / MANIFEST)["files"]
        except RlisError as error:
            problems.append(str(error))
            continue
        problems += [line for name, sha256 in files.items() if (line := _damage(run, name, sha256))]
    try:
        problems += checksums.damage(run, REPLACED if is_chained(run) else ())
        chain_end(run)
        problems += _lost(run)
    except RlisError as error:
        problems += [] if str(error) in problems else [str(error)]
    return problems


def _damage(run: Path, name: str, sha256: str) -> str | None:
    try:
        path = inside(run, name)
        return None if file_sha256(path) == sha256 else f"{path} is damaged or was changed"
    except StorageError as error:
        return str(error)
    except OSError as error:
        return f"{run / name} cannot be read: {error.strerror}"


def _lost(run: Path) -> list[str]:
    """Return a line if result.json was made of more rounds of production than there are."""
    if not (run / "result.json").exists():
        return []
    n_stored = sum(path.parent.name == "production" for path in _rounds(run))
    n_known = read_json(run / "result.json").get("rounds", 0)
    if isinstance(n_known, int) and n_known > n_stored:
        return [f"{run / 'rounds' / 'production'} holds {n_stored} rounds, result.json was made of {n_known}"]
    return []


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """Return the content of a JSON file that is covered by `checksums`, or with `required` has to be."""
    data = checksums.checked(path, required)
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: it is not JSON") from error


def refuse_links(run: Path) -> None:
    """Raise StorageError for a folder of a run that is a symbolic link: a writer would remove and add files there."""
    for path in (run / "rounds", run / "paths", *run.glob("rounds/*")):
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link, through which nothing is written: move the run as a whole")

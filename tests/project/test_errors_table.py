"""The table of messages: each row is provoked, each place in the package that raises is in it, the page is current."""

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import errors_table
import pytest
from errors_table import ALARMS, SECTIONS, Row

from openmm_rlis import cli
from openmm_rlis.errors import RlisError
from openmm_rlis.statistics import diagnostics

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("openmm_rlis", "systems") for path in sorted((ROOT / folder).rglob("*.py"))]
MAKERS = ("bad_input", "unknown_name", "InputError", "UnreachableError", "StorageError", "BackendError",
          "DivergedError", "NotFiniteError", "WorkerError", "RlisError")  # fmt: skip
ROWS = [one for rows in SECTIONS.values() for one in rows]
Site = tuple[str, int, int]


def sites() -> Iterator[Site]:
    """Yield file and lines of every call that makes an exception of this package."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS:
                yield str(path), node.lineno, node.end_lineno or node.lineno


def pattern(message: str) -> re.Pattern[str]:
    """Return what a message with <placeholders> matches."""
    return re.compile("(?s:.*?)".join(map(re.escape, re.split(r"<[a-z][^<>=]*>", message))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("errors")
    errors_table.prepare(made)
    return made


@pytest.fixture(scope="module")
def seen() -> set[tuple[str, int]]:
    """Lines of the package that were at work when an exception of it was made."""
    return set()


@pytest.fixture(scope="module")
def tried() -> set[str]:
    """Messages of the rows that were provoked."""
    return set()


@pytest.fixture
def watch(seen: set[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def note(self: RlisError, *arguments: Any) -> None:
        Exception.__init__(self, *arguments)
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(ROOT)):
                seen.add((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]

    monkeypatch.setattr(RlisError, "__init__", note)


def provoked(act: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, int | None]:
    """Return the message of a provocation, and the exit status if it is a command line."""
    if not isinstance(act, str):
        try:
            words = act(folder)
        except RlisError as error:
            return str(error), None
        assert isinstance(words, list), "nothing was raised"
    else:
        words = shlex.split(act)
    before = {path: path.stat().st_mtime_ns for path in (folder / "occupied").iterdir()}
    status = cli.execute(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and "unexpected" not in err, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "occupied").iterdir()}
    assert not (folder / "NEW").exists()
    return err.removeprefix("error: ").rstrip("\n"), status


@pytest.mark.parametrize("one", ROWS, ids=[one.message[:60] for one in ROWS])
def test_each_row_is_what_happens(
    one: Row,
    folder: Path,
    watch: None,
    tried: set[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried.add(one.message)
    monkeypatch.chdir(folder)
    for act in one.acts:
        message, status = provoked(act, folder, capsys)
        assert pattern(one.message).fullmatch(message), message
        assert "\n" not in message and status in (None, one.status)


def test_every_place_that_raises_is_in_the_table(seen: set[tuple[str, int]], tried: set[str]) -> None:
    """It runs after the rows above, and is skipped if not all of them were run in this process."""
    if missing := {one.message for one in ROWS} - tried:
        pytest.skip(f"{len(missing)} of {len(ROWS)} rows were not run")
    unseen = [
        f"{Path(file).relative_to(ROOT)}:{first}"
        for file, first, last in sites()
        if not any((file, line) in seen for line in range(first, last + 1))
    ]
    assert unseen == []


def alarm_makers() -> Iterator[ast.FunctionDef]:
    """Yield every function that makes a `Diagnostic`, the class that alarms come in."""
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                called = (ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call))
                if diagnostics.Diagnostic.__name__ in {name.rpartition(".")[2] for name in called}:
                    yield function


def alarm_texts() -> Iterator[str]:
    """Yield the texts in the functions of the package that make a `Diagnostic`, with 0 in the place of numbers."""
    for function in alarm_makers():
        joined = [node for node in ast.walk(function) if isinstance(node, ast.JoinedStr)]
        parts = {id(part) for node in joined for part in node.values}
        for node in joined:
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
            if len(text) > 40:  # the format of a number is such a node too
                yield text
        for node in ast.walk(function):
            text = node.value if isinstance(node, ast.Constant) else None
            if (
                isinstance(text, str)
                and id(node) not in parts
                and len(text) > 40
                and text != ast.get_docstring(function)
            ):
                yield text.replace("{:.1f}", "0")


def test_every_alarm_is_in_the_table() -> None:
    texts, starts = list(alarm_texts()), [pattern(text) for text in ALARMS]
    assert len(texts) == len(starts) > 10
    assert all(any(start.match(text) for start in starts) for text in texts)
    assert all(any(start.match(text) for text in texts) for start in starts)


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "errors.md").read_text().rstrip() == errors_table.page().rstrip(), (
        "python tests/support/errors_table.py > docs/errors.md"
    )

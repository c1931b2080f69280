"""The command line against a fake sampler and fake systems; the real ones are tested end to end elsewhere."""

import contextlib
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import openmm_rlis
import openmm_rlis.sampling
from openmm_rlis import cli
from openmm_rlis.cli import commands, exit_status
from openmm_rlis.config import run_config, settings
from openmm_rlis.display import terminal
from openmm_rlis.display.progress import Snapshot
from openmm_rlis.display.text import duration, rate_text
from openmm_rlis.errors import DivergedError, InputError, StorageError, bad_input
from openmm_rlis.statistics.estimators import Estimate
from openmm_rlis.storage.run_directory import RunDirectory

RATE = Estimate(0.1, 0.005, (0.09, 0.11), 20)


@dataclass(frozen=True)
class Progress:
    stage: str = "production"
    round: int = 3
    rate: Estimate | None = RATE
    force_evaluations: int = 12345
    seconds: float = 61.0
    fraction: float | None = 0.25
    seconds_left: float | None = 183.0
    message: str = ""


class FakeSampler(types.ModuleType):
    """Writes what a run directory needs for these tests and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__("openmm_rlis.sampling.run")
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.stopped = "target"
        self.error: BaseException | None = None

    def _work(self, name: str, directory: Path, arguments: dict[str, Any]) -> Any:
        self.calls.append((name, {"directory": directory, **arguments}))
        if arguments.get("progress"):
            arguments["progress"](Progress())
        if self.error is not None:
            raise self.error
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text("whatever: 1\n")
        (directory / "result.json").write_text(json.dumps({"stopped": self.stopped, "rate": RATE.to_dict()}))
        return types.SimpleNamespace(stopped=self.stopped)

    def check(self, problem: Any, platform: Any, settings: Any, directory: Path) -> None:
        assert not directory.exists()

    def run(self, problem: Any, directory: Path, **arguments: Any) -> Any:
        return self._work("run", directory, {"problem": problem, **arguments})

    def brute(self, problem: Any, directory: Path, **arguments: Any) -> Any:
        return self._work("brute", directory, {"problem": problem, **arguments})

    def resume(self, directory: Path, **arguments: Any) -> Any:
        return self._work("resume", directory, arguments)


def build(
    source: str = "A", target: str = "B", others: Sequence[str] = ("D",), beta: float = 9.0, lag_steps: int = 20
) -> dict[str, Any]:
    if beta <= 0:
        raise bad_input("beta", "a positive number", beta)
    return dict(locals())


@pytest.fixture
def sampler(monkeypatch: pytest.MonkeyPatch) -> FakeSampler:
    fake, systems, toy = FakeSampler(), types.ModuleType("openmm_rlis.systems"), types.ModuleType("toy")
    toy.build, toy.describe = build, lambda: "a toy; k = 1"  # type: ignore[attr-defined]
    systems.available = lambda: {"toy": toy}  # type: ignore[attr-defined]
    systems.build = lambda name, options: build(**options)  # type: ignore[attr-defined]
    for parent, name, module in ((openmm_rlis.sampling, "run", fake), (openmm_rlis, "systems", systems)):
        monkeypatch.setitem(sys.modules, f"{parent.__name__}.{name}", module)
        monkeypatch.setattr(parent, name, module, raising=False)
    return fake


Rlis = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rlis(capsys: pytest.CaptureFixture[str]) -> Rlis:
    def call(*words: object) -> tuple[int, str, str]:
        status = cli.execute([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_run_passes_everything_on(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    words = "run toy --from X --to Y --others P,Q --beta 5 --set lag_steps=7 --set settings.n_batches=4 --seed 3"
    words += " --target-error 0.2 --max-evals 1e9 --max-time 60 --workers 2 --platform CPU --backend python"
    status, out, err = rlis(*words.split(), "--out", tmp_path / "run")
    assert (status, err) == (0, "")
    name, call = sampler.calls[0]
    assert name == "run" and call["directory"] == tmp_path / "run"
    assert call["problem"] == {"source": "X", "target": "Y", "others": ["P", "Q"], "beta": 5.0, "lag_steps": 7}
    assert call["settings"] == settings.Settings(n_batches=4, backend="python")
    expected = {
        "seed": 3, "target_relative_error": 0.2, "max_force_evaluations": 10**9, "max_seconds": 60.0,
        "workers": 2, "platform": "CPU",
    }  # fmt: skip
    assert {key: call[key] for key in expected} == expected
    assert "production 3 | rate 0.1 [0.09, 0.11] /ps (5.0 %) | 1.23e+04 evaluations, 2.0e+02/s | 1:01, 3:03 left" in out
    assert str(tmp_path / "run" / "result.json") in out


def test_brute_has_the_same_options(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    status, _, err = rlis("brute", "toy", "--beta", 5, "--others", "none", "--workers", 2, "--out", tmp_path / "run")
    assert (status, err) == (0, "")
    name, call = sampler.calls[0]
    assert name == "brute" and call["problem"]["others"] == []
    assert call["target_relative_error"] == 0.05 and call["workers"] == 2


def test_config_file_with_overrides(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "system: toy\nseed: 5\noptions: {beta: 5e0, lag_steps: 3}\nsettings: {n_batches: 6, hold_steps: 2}\n"
    )
    status, _, _ = rlis("run", path, "--beta", 7, "--set", "settings.n_batches=8", "--out", tmp_path / "run")
    call = sampler.calls[0][1]
    assert status == 0 and call["seed"] == 5
    assert call["problem"]["beta"] == 7 and call["problem"]["lag_steps"] == 3
    assert call["settings"] == settings.Settings(n_batches=8, hold_steps=2)


def test_limit_is_status_3(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    sampler.stopped = "max_seconds"
    assert rlis("run", "toy", "--out", tmp_path / "run")[0] == 3


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("run nosuch --out NEW", ["SYSTEM", "nosuch", "toy"]),
        ("run toyy --out NEW", ["did you mean 'toy'"]),
        ("run toy", ["--out"]),
        ("run --out NEW", ["SYSTEM"]),
        ("run toy --out NEW --nosuch 1", ["--nosuch"]),
        ("run toy --out NEW --beta cold", ["--beta", "cold"]),
        ("run toy --out NEW --beta -1", ["beta", "-1"]),
        ("run toy --out NEW --seed -1", ["seed", "-1"]),
        ("run toy --out NEW --seed 1.5", ["--seed", "1.5"]),
        ("run toy --out NEW --target-error 0", ["target_relative_error"]),
        ("run toy --out NEW --max-evals 0.5", ["max_force_evaluations"]),
        ("run toy --out NEW --backend cuda", ["settings.backend", "cuda"]),
        ("run toy --out NEW --set lag_step=3", ["lag_step", "lag_steps", "did you mean"]),
        ("run toy --out NEW --set lag_steps=many", ["lag_steps", "many", "integer"]),
        ("run toy --out NEW --set settings.nosuch=3", ["nosuch", "n_batches"]),
        ("run toy --out NEW --set beta", ["--set", "key=value"]),
        ("run nosuch.yaml --out NEW", ["nosuch.yaml"]),
        ("run toy --both --out NEW --beta -1", ["beta", "-1"]),
        ("frobnicate", ["frobnicate"]),
        ("resume NEW", ["NEW", "run directory"]),
        ("status NEW", ["NEW", "run directory"]),
        ("report NEW", ["NEW", "run directory"]),
        ("verify NEW", ["NEW", "run directory"]),
        ("verify NEW --beta 3", ["NEW", "options of a run"]),
        ("verify toy --beta -1", ["beta", "-1"]),
        ("status", ["DIR"]),
    ],
)
def test_bad_input_is_one_line_status_2_and_writes_nothing(
    rlis: Rlis, sampler: FakeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, named: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = rlis(*words.split())
    assert status == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1 and out == ""
    assert all(name in err for name in named), err
    assert list(tmp_path.iterdir()) == [] and sampler.calls == []


def test_occupied_directory_is_left_alone(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    status, _, err = rlis("run", "toy", "--both", "--out", tmp_path)
    assert status == 2 and "--out" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"] and sampler.calls == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("a\nb"), 2),
        (StorageError("disk full"), 2),
        (DivergedError("nan"), 1),
        (OSError(28, "No space left"), 2),
    ],
)
def test_errors_of_the_sampler(
    rlis: Rlis, sampler: FakeSampler, tmp_path: Path, error: BaseException, expected: int
) -> None:
    sampler.error = error
    status, _, err = rlis("run", "toy", "--out", tmp_path / "run")
    assert status == expected and err.startswith("error: ") and err.count("\n") == 1


def test_unexpected_error_keeps_the_traceback_in_a_file(
    rlis: Rlis, sampler: FakeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("RLIS_TRACEBACK", raising=False)
    sampler.error = ZeroDivisionError("oops")
    status, _, err = rlis("run", "toy", "--out", tmp_path / "run")
    assert status == 1 and err.count("\n") == 1 and "Traceback" not in err and "please report" in err
    (log,) = tmp_path.glob("rlis-*.log")
    assert str(log) in err and "ZeroDivisionError: oops" in log.read_text() and "Traceback" in log.read_text()
    monkeypatch.setenv("RLIS_TRACEBACK", "1")
    assert "Traceback" in rlis("run", "toy", "--out", tmp_path / "run")[2]


@pytest.mark.parametrize("words", [["run", "toy", "--out", "DIR"], ["resume", "DIR"]])
def test_interrupt_says_how_to_carry_on(rlis: Rlis, sampler: FakeSampler, tmp_path: Path, words: list[str]) -> None:
    sampler.error = KeyboardInterrupt()
    directory = tmp_path / "run"
    if words[0] == "resume":
        directory.mkdir()
        (directory / "config.yaml").write_text("whatever: 1\n")
    status, _, err = rlis(*[str(directory) if word == "DIR" else word for word in words])
    assert status == 130 and err.startswith("interrupted") and err.count("\n") == 1
    assert (f"rlis resume {directory}" in err) == directory.exists()


def test_both_in_turn(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    status, out, err = rlis("run", "toy", "--from", "X", "--to", "Y", "--both", "--seed", 4, "--out", directory)
    assert (status, err) == (0, "")
    (_, forward), (_, backward) = sampler.calls
    assert (forward["problem"]["source"], forward["problem"]["target"]) == ("X", "Y")
    assert (backward["problem"]["source"], backward["problem"]["target"]) == ("Y", "X")
    assert (forward["directory"], backward["directory"]) == (directory / "forward", directory / "backward")
    assert forward["seed"] == 4 != backward["seed"]
    assert set(json.loads((directory / "result.json").read_text())) == {"forward", "backward"}
    assert "forward | production 3" in out and "backward | production 3" in out
    assert run_config.RunConfig.from_yaml(directory / "config.yaml").both


def test_resume_of_both_starts_what_had_not_begun(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    rlis("run", "toy", "--both", "--out", directory)
    for path in (directory / "backward").iterdir():
        path.unlink()
    (directory / "backward").rmdir()
    sampler.calls.clear()
    status, _, _ = rlis("resume", directory, "--max-time", 9)
    assert status == 0 and [name for name, _ in sampler.calls] == ["resume", "run"]
    assert all(call["max_seconds"] == 9.0 for _, call in sampler.calls)
    assert sampler.calls[1][1]["problem"]["source"] == "B"


def test_one_failing_direction_does_not_stop_the_other(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    sampler.error = DivergedError("nan")
    status, _, err = rlis("run", "toy", "--both", "--out", tmp_path / "run")
    assert status == 1 and len(sampler.calls) == 2 and "error: forward: nan" in err and "error: backward: nan" in err


@pytest.mark.parametrize(
    ("statuses", "expected"), [((0, 3), 3), ((3, 2), 2), ((2, 1), 1), ((0, 0), 0), ((130, 1), 130), ((0, -9), 1)]
)
def test_worst_status(statuses: tuple[int, int], expected: int) -> None:
    assert exit_status.worst(statuses) == expected


def fake_child(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "child.py"
    path.write_text("import json, os, sys, time\n" + body)
    return [sys.executable, str(path)]


def test_children_run_at_the_same_time(
    rlis: Rlis, sampler: FakeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each child waits for the other one's file, so that in turn they would never end."""
    body = (
        "own, other = sys.argv[1:3]\nopen(own, 'w').close()\n"
        "print(json.dumps({'progress': {'stage': 'production', 'round': 8}}))\n"
        "end = time.time() + 20\nwhile not os.path.exists(other) and time.time() < end: time.sleep(0.01)\n"
        "print('a plain line')\nsys.exit(1 if not os.path.exists(other) else 0 if own.endswith('forward') else 3)\n"
    )
    child = fake_child(tmp_path, body)
    names = {"forward": "backward", "backward": "forward"}
    monkeypatch.setattr(
        commands,
        "_child_command",
        lambda directory, name, limits, trusted: [*child, str(tmp_path / name), str(tmp_path / names[name])],
    )
    status, out, err = rlis("run", "toy", "--both", "--workers", 2, "--out", tmp_path / "run")
    assert status == 3
    assert "forward | production 8" in out and "backward | production 8" in out and "forward: a plain line" in err


def test_a_killed_child_is_named(
    rlis: Rlis, sampler: FakeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = fake_child(tmp_path, "if sys.argv[1] == 'forward': os.kill(os.getpid(), 9)\n")
    monkeypatch.setattr(commands, "_child_command", lambda _, name, limits, trusted: [*child, name])
    status, _, err = rlis("run", "toy", "--both", "--workers", 2, "--out", tmp_path / "run")
    assert status == 1 and err == "error: forward: its process was ended by signal 9\n"


def test_who_watches_both_directions_takes_no_torch(tmp_path: Path) -> None:
    """Both directions are checked in another process: what only waits for them has neither torch nor OpenMM."""
    out = str(tmp_path / "run")
    code = f"""import sys
from openmm_rlis.cli import commands
from openmm_rlis.cli import execute
commands._at_once = lambda *arguments: [0, 0]
print(execute(["run", "lj7", "--to", "C9", "--both", "--workers", "2", "--out", {out!r}]))
print(execute(["run", "lj7", "--both", "--workers", "2", "--out", {out!r}]))
print("torch" in sys.modules, "openmm" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = run.stdout.split("\n")
    assert lines[0] == "2" and "got 'C9'" in run.stderr
    assert lines[1].startswith("results in") and lines[2:4] == ["0", "False False"]
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_child_ends_with_its_parent() -> None:
    code = "import time\nfrom openmm_rlis.cli import commands\ncommands.die_with_parent()\n"
    code += "print('up', flush=True)\ntime.sleep(60)\n"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RLIS_CHILD": "1"},
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"up\n" and child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=10) == 130


def log_line(**values: object) -> str:
    return json.dumps({"time": 1.0, "event": "progress", **values})


def test_status_reads_files_only(rlis: Rlis, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    assert rlis("status", tmp_path)[1] == "no complete round yet\n"
    progress = {
        "stage": "learning",
        "round": 2,
        "rate": None,
        "force_evaluations": 100,
        "seconds": 5,
        "seconds_left": None,
    }
    lines = [
        log_line(**progress),
        log_line(**{**progress, "round": 3}),
        '{"time": 2, "event": "bother"}',
        '{"time": 3, "ev',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    status, out, _ = rlis("status", tmp_path)
    assert status == 0 and out.startswith("learning 3 | rate - | 1.00e+02 evaluations, 2.0e+01/s | 0:05")
    assert "not running, continue with `rlis resume`" in out and "ago" in out
    (tmp_path / "result.json").write_text(json.dumps({"stopped": "max_seconds", "rate": RATE.to_dict()}))
    assert rlis("status", tmp_path)[1].startswith("learning 3")  # resumed after the limit, and not done again yet
    (tmp_path / "log.jsonl").write_text(log_line(**{**progress, "stage": "done"}))
    (tmp_path / "result.json").write_text(json.dumps({"stopped": "target", "rate": RATE.to_dict()}))
    assert "done (stopped by target) | rate 0.1 [0.09, 0.11]" in rlis("status", tmp_path)[1]


def test_status_of_both(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    rlis("run", "toy", "--both", "--out", tmp_path / "run")
    out = rlis("status", tmp_path / "run")[1].splitlines()
    assert [line.split(":")[0] for line in out] == ["forward", "backward"]


def test_help_and_status_are_quick_and_light(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    code = (
        "import sys\nfrom openmm_rlis import cli\n"
        f"assert cli.execute(['--help']) == 0 and cli.execute(['status', {str(tmp_path)!r}]) == 0\n"
        "heavy = {'torch', 'openmm', 'matplotlib', 'scipy', 'numpy', 'mdtraj'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    before = os.times().children_user
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    # Processor time, since the clock measures other people's work too; 0.3 s, and a heavy import takes seconds.
    assert os.times().children_user - before < 2.0


def test_systems_lists_options_and_reference(rlis: Rlis, sampler: FakeSampler) -> None:
    status, out, _ = rlis("systems")
    assert status == 0 and "toy: a toy; k = 1" in out and "source=A, target=B, others=D, beta=9.0, lag_steps=20" in out


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "-"),
        ({"value": None, "standard_error": None, "interval": [0, None]}, "-"),
        ({"value": 0.5, "standard_error": None, "interval": [0, None]}, "0.5 /ps (no error bar yet)"),
        ({"value": 0.5, "standard_error": "Infinity", "interval": [0, "Infinity"]}, "0.5 /ps (no error bar yet)"),
        (RATE.to_dict(), "0.1 [0.09, 0.11] /ps (5.0 %)"),
    ],
)
def test_rate_text(rate: dict[str, Any] | None, text: str) -> None:
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599.6, "1:00:00"), (7322, "2:02:02"), (float("inf"), "?")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_display_is_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.PlainDisplay() as display:
        for i in range(100):
            display.show("a", Snapshot(stage="learning", round=i))
        display.show("a", Snapshot(stage="learning", message="hello"))
        display.show("a", Snapshot(stage="production"))
        display.show("b", Snapshot(stage="production"))
    assert len(capsys.readouterr().out.splitlines()) == 4


SHOW = """
from openmm_rlis.display.progress import Snapshot
from openmm_rlis.display.terminal import make_display
told = {"value": 0.1, "standard_error": 0.005, "interval": [0.09, 0.11]}
with make_display(False) as display:
    display.show("", Snapshot("flux", message="exits"))
    display.show("", Snapshot("production", 3, told, 12345, 61.0, 0.25, 183.0))
"""


def test_a_terminal_gets_a_live_table() -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-c", SHOW], stdout=theirs, env={**os.environ, "TERM": "xterm"}) as child:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error
            while part := os.read(ours, 10_000):
                shown += part
    os.close(ours)
    assert child.returncode == 0 and b"\x1b[" in shown  # moves the cursor to update in place
    text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown).decode()
    for piece in ("flux: exits", "production 3, 1:0", "about 3:0", "25 % done", "0.1 [0.09, 0.11] /ps (5.0 %)"):
        assert piece in text
    assert re.search(r"1.23e\+04 evaluations, 2.0e\+02/s", text)


def test_a_log_has_a_line_for_each_event_and_no_control_characters() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 2
    assert all(character == "\n" or character.isprintable() for character in done.stdout)


def test_status_tells_a_running_run_from_an_interrupted_one(rlis: Rlis, tmp_path: Path) -> None:
    xml = "<System><Particles><Particle/></Particles></System>"
    progress = {"stage": "production", "round": 3, "rate": RATE.to_dict(), "force_evaluations": 100, "seconds": 5.0}
    with RunDirectory.create(tmp_path / "run", {}, xml) as run:
        assert rlis("status", tmp_path / "run")[1] == "no complete round yet, running\n"
        run.log("progress", **progress)
        assert "| running, last update 0:0" in rlis("status", tmp_path / "run")[1]
        running = json.loads(rlis("status", tmp_path / "run", "--json")[1])
    assert "| not running, continue with `rlis resume`" in rlis("status", tmp_path / "run")[1]
    interrupted = json.loads(rlis("status", tmp_path / "run", "--json")[1])
    assert (running["state"], interrupted["state"]) == ("running", "interrupted")
    for told in (running, interrupted):
        assert {key: told[key] for key in progress} == progress
        assert told["evaluations_per_second"] == 20.0 and told["age"] >= 0.0 and told["stopped"] is None


def test_status_of_both_as_json(rlis: Rlis, sampler: FakeSampler, tmp_path: Path) -> None:
    rlis("run", "toy", "--both", "--out", tmp_path / "run")
    told = json.loads(rlis("status", tmp_path / "run", "--json")[1])
    assert set(told) == {"forward", "backward"}
    assert told["forward"]["state"] == "done" and told["forward"]["stopped"] == "target"
    assert told["forward"]["rate"] == RATE.to_dict()

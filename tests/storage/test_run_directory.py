"""The run directory: exact round trips, and what is left after damage, a full disk or a kill."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from openmm_rlis.errors import InputError, StorageError
from openmm_rlis.paths.ensemble import PathTree
from openmm_rlis.storage import atomic_files, run_directory
from openmm_rlis.storage.run_directory import RunDirectory, predicted_bytes

XML = '<System><Particles><Particle mass="1"/><Particle mass="1"/></Particles></System>'
ROOT = Path(__file__).resolve().parents[2]


def make_tree(seed: int, n_frames: int = 50, batch: int = 0, round: int = 0) -> PathTree:
    """Return a random tree of two atoms with ten paths."""
    rng = np.random.default_rng(seed)
    n_paths = 10 if n_frames else 0
    return PathTree(
        rng.normal(size=(n_frames, 2, 3)).astype(np.float32),
        np.array([rng.integers(-1, i) if i else -1 for i in range(n_frames)], dtype=np.int32),
        rng.integers(0, max(n_frames, 1), size=n_paths).astype(np.int32),
        rng.choice([1, 2, 3], size=n_paths).astype(np.int8),
        rng.normal(scale=30.0, size=n_paths),
        rng.integers(0, 9, size=n_paths).astype(np.int32),
        batch,
        round,
    )


def write_some(run: RunDirectory, index: int) -> None:
    trees = [make_tree(7 * index + b, batch=b, round=index, n_frames=0 if b == 1 else 50) for b in range(3)]
    run.write_round("production", index, {"time": np.arange(3) / 7.0 + index}, {"n": index}, trees)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with RunDirectory.create(tmp_path / "run", {"seed": 1}, XML) as directory:
        yield directory


# Round trips


def test_config_system_and_topology_come_back(tmp_path: Path) -> None:
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    atoms = [topology.add_atom(name, mdtraj.element.carbon, residue) for name in ("CA", "CB")]
    topology.add_bond(*atoms)
    config = {"a": 1e-5, "b": [0.1 + 0.2, np.float64(1) / 3], "c": {"d": None, "e": True}, "f": np.inf, "g": ("x", "é")}
    positions = np.array([[0.0, np.nan, 1e9], [0.1, 0.2, 0.3]])
    RunDirectory.create(tmp_path / "run", config, XML, topology, positions).close()
    run = RunDirectory.open(tmp_path / "run")
    assert run.config == {**config, "g": ["x", "é"]}
    assert run.system_xml == XML
    assert run.topology.n_atoms == 2 and run.topology.n_bonds == 1
    assert [atom.name for atom in run.topology.atoms] == ["CA", "CB"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=hnp.arrays(
        st.sampled_from([np.float64, np.int64, np.int8, np.bool_, "<U5"]), hnp.array_shapes(min_dims=0, min_side=0)
    ),
    number=st.floats(),
)
def test_numbers_come_back_to_the_last_bit(tmp_path: Path, array: np.ndarray, number: float) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    with RunDirectory.create(tmp_path / "run", {}, XML) as run:
        run.write_round("flux", 0, {"file": array, "b c": array.T}, {"x": number, "y": [np.float64(number)]})
        back = run.read_round("flux", 0)
    assert back.arrays["file"].dtype == array.dtype and back.arrays["file"].shape == array.shape
    assert back.arrays["file"].tobytes() == array.tobytes()
    assert set(back.arrays) == {"file", "b c"} and back.trees == ()
    for value in (back.info["x"], back.info["y"][0]):
        assert np.float64(value).tobytes() == np.float64(number).tobytes() or (number != number and value != value)


def test_trees_come_back_lazily_and_to_one_rounding(run: RunDirectory) -> None:
    originals = [make_tree(3, batch=4, round=6), make_tree(0, n_frames=0, batch=5, round=6), make_tree(9, 13, 7, 6)]
    run.write_round("production", 6, {}, {}, originals)
    for back, tree in zip(run.read_round("production", 6).trees, originals, strict=True):
        for name in ("parents", "leaves", "labels", "log_weights", "roots"):
            assert getattr(back, name).dtype == getattr(tree, name).dtype
            assert np.array_equal(getattr(back, name), getattr(tree, name))
        assert (back.batch, back.round) == (tree.batch, tree.round)
        assert back.n_frames == 0 or not isinstance(back.positions, np.ndarray)
        assert back.positions.shape == tree.positions.shape
        assert np.allclose(back.positions[:], tree.positions[:], rtol=2.4e-7, atol=0)
        for i in range(tree.n_paths):
            assert np.allclose(back.positions[back.path(i)], tree.positions[tree.path(i)], rtol=2.4e-7, atol=0)
        if tree.n_frames:
            assert np.array_equal(back.positions[5], back.positions[:][5])
            assert np.array_equal(back.prune(tree.roots >= 0).positions[-1], back.positions[tree.leaves.max()])


def test_mdtraj_reads_the_frames_we_write(run: RunDirectory) -> None:
    tree = make_tree(3)
    run.write_round("production", 0, {}, {}, [tree])
    (dcd,) = (run.path / "paths").glob("*.dcd")
    assert dcd.name == "production-000000-000.dcd"
    loaded = mdtraj.load(str(dcd), top=str(run.path / "paths" / "topology.pdb"))
    assert loaded.unitcell_lengths is None
    assert np.allclose(loaded.xyz, tree.positions[:], rtol=5e-7, atol=0)
    one = mdtraj.load_frame(str(dcd), 17, top=str(run.path / "paths" / "topology.pdb"))
    assert np.allclose(one.xyz[0], tree.positions[17], rtol=5e-7, atol=0)


def test_long_dcd_files_are_written_in_pieces(run: RunDirectory) -> None:
    n = (1 << 20) // 3 + 1000
    positions = np.random.default_rng(0).normal(size=(n, 2, 3)).astype(np.float32)
    ends = np.array([n - 1], np.int32)
    tree = PathTree(positions, np.full(n, -1, np.int32), ends, np.array([2], np.int8), np.zeros(1), ends, 0, 0)
    run.write_round("production", 0, {}, {}, [tree])
    (back,) = run.read_round("production", 0).trees
    assert np.allclose(back.positions[:], positions, rtol=2.4e-7, atol=0)
    size = sum(p.stat().st_size for p in run.path.rglob("*") if p.suffix in (".dcd", ".npz"))
    assert size == pytest.approx(predicted_bytes(n, 2), rel=0.01)


def test_the_ensemble_of_a_run_opens_without_reading_frames(run: RunDirectory) -> None:
    for index in (0, 1):
        write_some(run, index)
    run.close()
    moved = run.path.rename(run.path.with_name("moved"))
    ensemble = RunDirectory.open(moved).paths(failure_share=0.01, frame_interval=0.5)
    assert len(ensemble) == 40
    assert set(zip(ensemble.rounds, ensemble.batches, strict=True)) == {(0, 0), (0, 2), (1, 0), (1, 2)}
    trajectory = ensemble.to_mdtraj(39)
    tree = make_tree(9, batch=2, round=1)
    assert np.allclose(trajectory.xyz, tree.positions[tree.path(9)], rtol=5e-7, atol=0)
    assert trajectory.time[1:].sum() == 0.5 * np.arange(len(trajectory)).sum()
    for dcd in (moved / "paths").glob("*.dcd"):
        dcd.unlink()
    assert len(RunDirectory.open(moved).paths()) == 40
    with pytest.raises(StorageError, match=r"cannot read .*\.dcd: No such file"):
        RunDirectory.open(moved).paths().positions(0)


def test_the_same_round_gives_the_same_bytes(tmp_path: Path) -> None:
    snapshots = []
    for name in ("one", "two"):
        with RunDirectory.create(tmp_path / name, {"x": 1}, XML) as run:
            write_some(run, 0)
        snapshots.append({k: v for k, v in snapshot(tmp_path / name).items() if k != ".lock"})
    assert snapshots[0] == snapshots[1]


def test_result_log_and_value(run: RunDirectory) -> None:
    with pytest.raises(StorageError, match="not got as far as a result"):
        run.read_result()
    result = {
        "rate": {"value": 1 / 3, "standard_error": np.inf, "interval": [0.0, np.float64(np.inf)]},
        "n": np.int64(3),
    }
    run.write_result(result)
    run.write_result(result)
    assert run.read_result() == result
    json.loads((run.path / "result.json").read_text(), parse_constant=pytest.fail)  # strict JSON
    run.log("start", seed=1)
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"time": 1, "ev')
    run.log("end", rate=np.nan)
    assert [line["event"] for line in run.read_log()] == ["start", "end"]
    run.write_value(b"one")
    run.write_value(lambda path: path.write_bytes(b"two"))
    assert run.value_path.read_bytes() == b"two"

    def broken(path: Path) -> None:
        path.write_bytes(b"hal")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

    with pytest.raises(StorageError, match=r"file write failed$"):
        run.write_value(broken)
    assert run.value_path.read_bytes() == b"two" and not run.leftovers() and not run.verify()


# Refusals


def test_create_over_anything_is_refused_and_writes_nothing(tmp_path: Path, run: RunDirectory) -> None:
    run.close()
    full = tmp_path / "full"
    full.mkdir()
    (full / "system.xml").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    before = snapshot(tmp_path)
    for path, text in ((run.path, "holds a run"), (full, "not empty"), (file, "the file")):
        with pytest.raises(InputError, match=f"directory: expected a new or empty directory, got .*{text}"):
            RunDirectory.create(path, {}, XML)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("config", "xml"), [({"x": object()}, XML), ({}, "<System/>"), ({}, "not xml")])
def test_create_with_bad_arguments_writes_nothing(tmp_path: Path, config: dict[str, Any], xml: str) -> None:
    with pytest.raises(InputError):
        RunDirectory.create(tmp_path / "run", config, xml)
    assert not (tmp_path / "run").exists()


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, {}, XML).close()
    assert RunDirectory.open(tmp_path).verify() == []


def test_open_refuses_what_is_no_run_or_of_another_format(tmp_path: Path, run: RunDirectory) -> None:
    with pytest.raises(InputError, match=r"no manifest\.json"):
        RunDirectory.open(tmp_path)
    run.close()
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(InputError, match="expected format version 1, got 2"):
        RunDirectory.open(run.path)


def test_rounds_are_never_overwritten_and_arguments_are_checked(run: RunDirectory) -> None:
    write_some(run, 0)
    before = snapshot(run.path)
    bad: list[tuple[str, int, dict[str, Any], list[PathTree]]] = [
        ("production", 0, {}, []),
        ("production", -1, {}, []),
        ("Pro-duction", 1, {}, []),
        ("production", 1, {"a": np.array([object()])}, []),
        ("production", 1, {"tree.parents": np.zeros(1)}, []),
        ("production", 1, {}, [make_tree(1), make_tree(2)]),
    ]
    for stage, index, arrays, trees in bad:
        with pytest.raises(InputError):
            run.write_round(stage, index, arrays, {}, trees)
    with pytest.raises(InputError, match=r"info\.x: expected numbers"):
        run.write_round("production", 1, {}, {"x": {1}})
    with pytest.raises(InputError, match="stored round"):
        run.read_round("production", 5)
    assert snapshot(run.path) == before
    run.close()
    with pytest.raises(InputError, match="opened for reading"):
        write_some(RunDirectory.open(run.path), 1)


def test_one_writer_at_a_time(run: RunDirectory) -> None:
    code = "import sys, openmm_rlis.storage.run_directory as it; it.RunDirectory.open(sys.argv[1], write=True)"
    command = [sys.executable, "-c", code, str(run.path)]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert f"is being written by process {os.getpid()} on " in last and "StorageError" in last
    with pytest.raises(StorageError, match="is being written by"):
        RunDirectory.open(run.path, write=True)
    write_some(run, 0)
    assert RunDirectory.open(run.path).rounds("production") == [0]  # readers need no lock
    run.close()
    subprocess.run(command, cwd=ROOT, check=True)
    RunDirectory.open(run.path, write=True).close()


# Damage


@pytest.mark.parametrize("where", ["start", "middle", "end", "cut", "gone"])
def test_damage_to_any_file_is_found_and_named(run: RunDirectory, where: str) -> None:
    write_some(run, 0)
    run.close()
    assert run.verify() == []
    for path in sorted(p for p in run.path.rglob("*") if p.is_file() and p.name != ".lock"):
        data = path.read_bytes()
        if where == "gone":
            path.unlink()
        elif where == "cut":
            path.write_bytes(data[:-1])
        else:
            at = {"start": 0, "middle": len(data) // 2, "end": len(data) - 2}[where]
            path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        problems = run.verify()
        is_cut_manifest = where == "cut" and path.name == "manifest.json"  # only a trailing newline was lost
        assert is_cut_manifest or any(str(path) in line for line in problems), (path, problems)
        if path.suffix == ".npz":
            with pytest.raises(StorageError, match=str(path)):
                run.paths()
        if path.suffix == ".dcd":
            with pytest.raises(StorageError, match=r"\.dcd"):
                for i in range(20):
                    run.paths().positions(i)
        if path.name in ("config.yaml", "system.xml", "topology.pdb"):
            with pytest.raises(StorageError, match=path.name):
                _ = run.config, run.system_xml, run.topology
        path.write_bytes(data)
    assert run.verify() == []


def test_a_round_in_the_wrong_place_is_not_believed(run: RunDirectory) -> None:
    write_some(run, 0)
    shutil.copytree(run.path / "rounds/production/000000", run.path / "rounds/production/000001")
    with pytest.raises(StorageError, match="holds round 0 of stage production"):
        run.read_round("production", 1)


def test_leftovers_are_removed_by_the_next_writer_only(run: RunDirectory) -> None:
    write_some(run, 0)
    run.close()
    whole = snapshot(run.path)
    (run.path / "rounds/production/.tmp-000001").mkdir()
    (run.path / "rounds/production/.tmp-000001/arrays.npz").write_bytes(b"half")
    (run.path / ".tmp-result.json").write_bytes(b"half")
    shutil.copy(run.path / "paths/production-000000-000.dcd", run.path / "paths/production-000001-000.dcd")
    (run.path / "paths/mine.dcd").write_bytes(b"of the user")
    reader = RunDirectory.open(run.path)
    assert reader.rounds("production") == [0] and reader.verify() == [] and len(reader.leftovers()) == 3
    RunDirectory.open(run.path, write=True).close()
    (run.path / "paths/mine.dcd").unlink()
    after = snapshot(run.path)
    assert {k: v for k, v in after.items() if k != ".lock"} == {k: v for k, v in whole.items() if k != ".lock"}
    assert not RunDirectory.open(run.path).leftovers()


# A full disk


class LimitedWrites:
    """Lets `budget` bytes through, then fails as a full disk does."""

    def __init__(self, budget: int, code: int) -> None:
        self.budget, self.code, self.real = budget, code, atomic_files.write_all

    def __call__(self, file: Any, data: Any) -> None:
        size = memoryview(data).nbytes
        self.real(file, bytes(data)[: max(self.budget, 0)])
        self.budget -= size
        if self.budget < 0:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_earlier_rounds_untouched(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_some(run, 0)
    run.write_value(b"value")
    run.write_result({"a": 1})
    before = snapshot(run.path)
    for budget in range(0, 5200, 97):
        with monkeypatch.context() as patch:
            patch.setattr(atomic_files, "write_all", LimitedWrites(budget, code))
            with pytest.raises(StorageError, match=r"no room left \(.*\); .*free some space, then resume$") as caught:
                write_some(run, 1)
            assert "\n" not in str(caught.value)
        assert snapshot(run.path) == before
    with monkeypatch.context() as patch:
        patch.setattr(atomic_files, "write_all", LimitedWrites(3, code))
        for action in (lambda: run.write_value(b"other"), lambda: run.write_result({"b": 2})):
            with pytest.raises(StorageError, match="no room left"):
                action()
        with pytest.raises(StorageError, match="no room left"):
            RunDirectory.create(run.path.with_name("second"), {}, XML)
    assert snapshot(run.path) == before
    assert not run.path.with_name("second").exists()
    write_some(run, 1)
    assert run.rounds("production") == [0, 1] and run.verify() == []


def test_a_file_size_limit_is_a_storage_error(run: RunDirectory) -> None:
    write_some(run, 0)
    before = snapshot(run.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageError, match="no room left"):
            write_some(run, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert snapshot(run.path) == before


FULL = """
import sys
from pathlib import Path
from openmm_rlis.errors import StorageError
from test_run_directory import RunDirectory, XML, make_tree, snapshot, write_some
run = RunDirectory.create(Path(sys.argv[1]) / "run", {}, XML)
write_some(run, 0)
before = snapshot(run.path)
try:
    run.write_round("production", 1, {}, {}, [make_tree(1, n_frames=20000)])
except StorageError as error:
    print(error)
assert snapshot(run.path) == before
try:
    for i in range(100000):
        run.log("fill", text="x" * 1000)
except StorageError as error:
    print(error)
try:
    run.write_round("production", 1, {}, {})
except StorageError as error:
    print(error)
assert run.verify() == [] and run.rounds("production") == [0]
run.close()
try:
    RunDirectory.create(Path(sys.argv[1]) / "second", {}, XML)
except StorageError as error:
    print(error)
assert not (Path(sys.argv[1]) / "second").exists()
(run.path / "log.jsonl").unlink()
run = RunDirectory.open(run.path, write=True)
write_some(run, 1)
assert run.verify() == [] and run.rounds("production") == [0, 1]
"""


def environment() -> dict[str, str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'storage'}{os.pathsep}{ROOT / 'tests' / 'support'}"
    return {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def test_a_truly_full_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs -o size=200k tmpfs "$0" && exec "$@"']
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, tmp_path / "disk", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets us mount no tmpfs")
    command = [*mount, tmp_path / "disk", sys.executable, "-c", FULL, tmp_path / "disk"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 4 and all("No space left on device" in line for line in lines), lines


# Kills

KILL = """
import os, shutil, sys
from pathlib import Path
import mdtraj
from openmm_rlis.storage import atomic_files, new_run, rounds, run_directory
from test_run_directory import RunDirectory, XML, snapshot, write_some

files = {module.__file__ for module in (atomic_files, new_run, rounds, run_directory)}

def killed_at(line, action):
    "Fork, run action, die before the given executed line of the storage modules; return whether it died there."
    child = os.fork()
    if child == 0:
        left = [line]
        def trace(frame, event, _):
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
            return trace
        os.fsync = lambda handle: None   # a kill loses no written data, and the test shall be quick
        sys.settrace(trace)
        action()
        sys.settrace(None)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 9

os.fsync = lambda handle: None
base, work = Path(sys.argv[1]) / "base", Path(sys.argv[1]) / "work"
run = RunDirectory.create(base, {}, XML)
write_some(run, 0)
run.close()
before = snapshot(base)

def one_more():
    run = RunDirectory.open(work, write=True)
    write_some(run, 1)
    run.write_result({"rounds": 2})
    run.close()

seen, line, going = set(), 0, True
while going:
    shutil.copytree(base, work)
    going = killed_at(line, one_more)
    reader = RunDirectory.open(work)
    rounds = reader.rounds("production")
    assert rounds in ([0], [0, 1]) and reader.verify() == [], (line, rounds, reader.verify())
    assert len(reader.paths()) == 20 * len(rounds)
    with RunDirectory.open(work, write=True) as run:
        assert run.leftovers() == [], line
        kept = {k: v for k, v in snapshot(work).items() if k in before and k != ".lock"}
        assert kept == {k: v for k, v in before.items() if k != ".lock"}, line
        if rounds == [0]:
            write_some(run, 1)
        assert run.rounds("production") == [0, 1] and run.verify() == []
    seen.add(tuple(rounds))
    shutil.rmtree(work)
    line += STEP
assert seen == {(0,), (0, 1)} and line > 100, (seen, line)
print("round", line)

line, going, outcomes = 0, True, set()
while going:
    going = killed_at(line, lambda: RunDirectory.create(work, {}, XML).close())
    whole = (work / "manifest.json").exists()
    outcomes.add(whole)
    run = RunDirectory.open(work, write=True) if whole else RunDirectory.create(work, {}, XML)
    assert run.verify() == [] and run.leftovers() == [], line
    run.close()
    shutil.rmtree(work)
    line += STEP
assert outcomes == {False, True}
print("create", line)
"""


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_before_any_line_leaves_whole_rounds(tmp_path: Path, step: int) -> None:
    """Each executed line of the storage module is taken as the moment of death (each seventh in the quick test)."""
    code = textwrap.dedent(KILL).replace("STEP", str(step))
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "create" in done.stdout


def test_an_exception_in_the_middle_leaves_no_trace(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write_some(run, 0)
    before = snapshot(run.path)
    real, calls = os.rename, []
    for last in range(3):  # two dcd files, then the round itself
        calls.clear()

        def interrupted(*names: Any, last: int = last) -> None:
            calls.append(names)
            if len(calls) > last:
                raise KeyboardInterrupt
            real(*names)

        monkeypatch.setattr(run_directory.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_some(run, 1)
        assert snapshot(run.path) == before and not run.leftovers()

"""A run directory that was changed: whatever is read back is as it was written, or is refused in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from test_run_directory import XML, make_tree, write_some

import openmm_rlis as rlis
from openmm_rlis import cli
from openmm_rlis.errors import InputError, StorageError
from openmm_rlis.safe_readers import tensor_file
from openmm_rlis.storage import atomic_files, checksums, integrity
from openmm_rlis.storage import rounds as frames
from openmm_rlis.storage.run_directory import RunDirectory


@pytest.fixture
def run(finished_well: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_well, tmp_path / "run"))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return a run directory of four rounds of production, closed."""
    with RunDirectory.create(tmp_path / "stored", {"seed": 1}, XML) as directory:
        for index in range(4):
            write_some(directory, index)
    return tmp_path / "stored"


def as_early_version(run: Path) -> None:
    """Take out what early versions did not store."""
    content, _ = atomic_files.sealed(run / atomic_files.MANIFEST)
    del content["chain"]
    (run / atomic_files.MANIFEST).write_bytes(atomic_files.seal(content))
    for path in run.glob(f"rounds/*/*/{atomic_files.MANIFEST}"):
        content, _ = atomic_files.sealed(path)
        del content["previous"]
        path.write_bytes(atomic_files.seal(content))
    (run / checksums.CHECKSUMS).unlink(missing_ok=True)


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(bytes(data))


# value.pt and result.json


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_flipped_byte_in_value_pt_is_refused(
    run: Path, at: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    flip(run / "value.pt", at)
    with pytest.raises(StorageError, match=r"value\.pt is damaged or was changed: its checksum is not the one in"):
        _ = rlis.load(run).value
    assert cli.execute(["verify", str(run)]) == 2
    assert "value.pt is damaged" in " ".join(capsys.readouterr().out.split())
    (run / "value.pt").unlink()
    expected = rlis.resume(run)
    assert rlis.load(run).damaged() == [] and expected.value is not None


def test_value_pt_of_another_run_is_refused(run: Path) -> None:
    other = torch.load(run / "value.pt", weights_only=True)
    other["state"]["fine.4.bias"] += 1.0
    torch.save(other, run / "value.pt")
    with pytest.raises(StorageError, match=r"value\.pt is damaged or was changed"):
        _ = rlis.load(run).value


def test_an_edited_rate_is_not_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "result.json"
    content = json.loads(path.read_text())
    content["rate"]["value"] *= 2.0
    path.write_text(json.dumps(content))
    for command in ("status", "report"):
        assert cli.execute([command, str(run)]) == 2
        assert "result.json is damaged or was changed" in capsys.readouterr().err
    (run / checksums.CHECKSUMS).unlink()
    assert cli.execute(["status", str(run)]) == 2
    assert "its checksum is not in checksums.json" in capsys.readouterr().err
    assert cli.execute(["resume", str(run)]) == 0 and cli.execute(["status", str(run)]) == 0


def test_runs_of_early_versions_stay_readable(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    rate = rlis.load(run).rate
    as_early_version(run)
    result = rlis.load(run)
    assert result.rate == rate and result.value is not None and result.damaged() == []
    assert cli.execute(["verify", str(run)]) in (0, 1)
    assert "nothing covers value.pt: the run is of an early version" in " ".join(capsys.readouterr().out.split())
    assert cli.execute(["status", str(run)]) == 0
    assert cli.execute(["resume", str(run), "--target-error", "0.4"]) == 0
    assert rlis.load(run).damaged() == []
    shutil.rmtree(run / "rounds" / "production" / "000000")
    with pytest.raises(StorageError, match="000000 is missing"):
        rlis.load(run)


def test_a_kill_between_a_file_and_its_checksum_leaves_both_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "value.pt"
    real: Callable[..., None] = os.replace
    for last in range(3):  # the announcement, the file, its checksum
        path.unlink(missing_ok=True)
        (tmp_path / checksums.CHECKSUMS).unlink(missing_ok=True)
        checksums.replace_covered(path, lambda p: p.write_bytes(b"old"))
        calls: list[Any] = []

        def killed(*names: Any, last: int = last, calls: list[Any] = calls) -> None:
            calls.append(names)
            if len(calls) > last:
                raise KeyboardInterrupt
            real(*names)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(atomic_files.os, "replace", killed)
            checksums.replace_covered(path, lambda p: p.write_bytes(b"new"))
        assert checksums.checked(path, required=True) == (b"new" if last == 2 else b"old")
        path.write_bytes(b"else")
        with pytest.raises(StorageError):
            checksums.checked(path)


# Rounds


def remove(stored: Path, other: Path) -> str:
    shutil.rmtree(stored / "rounds/production/000001")
    return "000002 follows none of the stored rounds"


def exchange(stored: Path, other: Path) -> str:
    """Put in the round of another run with the same settings and names, with its frames."""
    shutil.rmtree(stored / "rounds/production/000001")
    shutil.copytree(other / "rounds/production/000001", stored / "rounds/production/000001")
    for path in other.glob("paths/production-000001-*.dcd"):
        shutil.copy(path, stored / "paths")
    return "follows none of the stored rounds"


def append(stored: Path, other: Path) -> str:
    shutil.copytree(other / "rounds/production/000004", stored / "rounds/production/000004")
    return "000004 follows none of the stored rounds"


@pytest.mark.parametrize("change", [remove, exchange, append])
def test_missing_and_foreign_rounds_are_refused_before_anything_is_removed(
    change: Callable[[Path, Path], str], stored: Path, tmp_path: Path
) -> None:
    with RunDirectory.create(tmp_path / "other", {"seed": 1}, XML) as other:
        for index in range(5):
            other.write_round("production", index, {"time": np.ones(3)}, {"n": -index}, [make_tree(index)])
    text = change(stored, tmp_path / "other")
    before = sorted(stored.rglob("*"))
    for write in (False, True):
        with pytest.raises(StorageError, match=text):
            RunDirectory.open(stored, write=write)
    assert any(text in line for line in integrity.damage(stored))
    assert sorted(stored.rglob("*")) == before


def test_lost_last_rounds_are_told_by_the_result(stored: Path) -> None:
    with RunDirectory.open(stored, write=True) as run:
        run.write_result({"rounds": 4})
        assert run.verify() == []
        shutil.rmtree(stored / "rounds/production/000003")
        assert "holds 3 rounds, result.json was made of 4" in run.verify()[0]


def test_a_chain_goes_on_after_reopening(stored: Path) -> None:
    with RunDirectory.open(stored, write=True) as run:
        write_some(run, 4)
        write_some(run, 5)
    assert RunDirectory.open(stored).verify() == []


# Names, links and devices


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "paths/../../secret", ""])
def test_names_outside_of_the_run_are_refused(stored: Path, name: str) -> None:
    content, _ = atomic_files.sealed(stored / atomic_files.MANIFEST)
    content["files"][name] = "0"
    (stored / atomic_files.MANIFEST).write_bytes(atomic_files.seal(content))
    assert any("names a file outside of the run" in line for line in integrity.damage(stored))


@pytest.mark.parametrize("name", ["system.xml", "paths/topology.pdb", "result.json", "log.jsonl"])
@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
def test_devices_and_pipes_do_not_hang(stored: Path, name: str, device: str) -> None:
    (stored / name).unlink(missing_ok=True)
    if device == "pipe":
        os.mkfifo(stored / name)
    else:
        (stored / name).symlink_to(device)
    run = RunDirectory.open(stored)
    if name == "log.jsonl":
        assert run.read_log() == []
        return
    assert any(str(stored / name) in line for line in run.verify())
    with pytest.raises(StorageError, match=r"not an ordinary file|is not there"):
        _ = run.system_xml if name == "system.xml" else run.topology if "pdb" in name else run.read_result()


def test_a_manifest_that_is_a_device_and_a_config_that_is_a_pipe(stored: Path, tmp_path: Path) -> None:
    (stored / "manifest.json").unlink()
    os.mkfifo(stored / "manifest.json")
    with pytest.raises(InputError, match=r"no manifest\.json"):
        RunDirectory.open(stored)
    os.mkfifo(tmp_path / "config.yaml")
    assert cli.execute(["run", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "new")]) == 2


@pytest.mark.parametrize("name", ["log.jsonl", ".lock", ".tmp-result.json", ".tmp-value.pt"])
def test_nothing_is_written_through_symbolic_links(stored: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (stored / name).unlink(missing_ok=True)
    (stored / name).symlink_to(precious)

    def act() -> None:
        with RunDirectory.open(stored, write=True) as run:
            run.write_result({"a": 1})
            run.write_value(lambda path: torch.save({}, path))
            run.log("event")

    if name.startswith(".tmp-"):
        act()
    else:
        with pytest.raises(StorageError, match="a symbolic link, through which nothing is written"):
            act()
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["rounds", "paths", "rounds/production"])
def test_folders_that_are_links_are_not_written(stored: Path, tmp_path: Path, name: str) -> None:
    shutil.move(stored / name, tmp_path / "elsewhere")
    (stored / name).symlink_to(tmp_path / "elsewhere")
    assert RunDirectory.open(stored).verify() == []
    with pytest.raises(StorageError, match="move the run as a whole"):
        RunDirectory.open(stored, write=True)


# Archives that say that they are larger than they are


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(shape: str, descr: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


@pytest.mark.parametrize(
    "data",
    [
        zipped({"a.npy": npy("(10000000,)", "'<f8'", bytes(80_000_000))}, zipfile.ZIP_DEFLATED),
        zipped({"a.npy": npy("(1000000000000,)", "'<f8'", bytes(8))}),
        zipped({"a.npy": npy("(1000000000000,)", "'<U0'")}),
        zipped({"a.npy": npy("(1,)", "'|O'", b"cos\nsystem\n(S'x'\ntR.")}),
        zipped({"a.npy": npy("(-1,)", "'<f8'", bytes(8))}),
        zipped({"a.npy": b"\x93NUMPY\x03\x00"}),
        b"no archive",
    ],
    ids=["compressed", "header", "empty text", "objects", "negative", "version", "none"],
)
def test_arrays_that_ask_for_more_than_their_file_has(data: bytes) -> None:
    with pytest.raises(StorageError, match="is damaged or was changed") as caught:
        frames.unpack(data, Path("arrays.npz"))
    assert "\n" not in str(caught.value)


def test_arrays_come_back_as_numpy_reads_them() -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(1), "c": np.zeros((0, 3)), "d": np.array(["x", "yy"])}
    data = frames.pack(arrays)
    back = frames.unpack(data, Path("x"))
    with np.load(io.BytesIO(data)) as archive:
        for name in archive.files:
            assert back[name].tobytes() == archive[name].tobytes() and back[name].strides == archive[name].strides


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def deflated(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)


def shortened(data: bytes) -> bytes:
    """Return a file whose storage holds fewer bytes than the pickle says."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({n: archive.read(n)[: 8 if "/data/" in n else None] for n in archive.namelist()})


@pytest.mark.parametrize(
    "data",
    [
        saved({"a": torch.zeros(1).expand(10**10)}),
        saved({"a": {"b": torch.zeros(4).as_strided((10**9,), (0,))}}),
        deflated(saved({"a": torch.zeros(1000)})),
        shortened(saved({"a": torch.zeros(1000, dtype=torch.float64)})),
        saved({"a": Path("/")}),
        b"PK",
        b"",
    ],
    ids=["expanded", "strided", "compressed", "beyond the end", "object", "cut", "empty"],
)
def test_tensors_that_ask_for_more_than_their_file_has(data: bytes) -> None:
    with pytest.raises((ValueError, RuntimeError, Exception)) as caught:
        tensor_file.load_tensors(data)
    assert not isinstance(caught.value, MemoryError)


def test_a_value_function_of_absurd_width_is_refused(run: Path) -> None:
    stored = torch.load(run / "value.pt", weights_only=True)
    stored["state"]["hidden"] = torch.tensor(10**6)
    torch.save(stored, run / "value.pt")
    hostile.seal_anew(run)
    with pytest.raises(StorageError, match="cannot read a value function"):
        _ = rlis.load(run).value


# Both directions


def test_files_of_both_directions_are_covered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, both = hostile.write_well(tmp_path), tmp_path / "both"
    assert cli.execute(["run", str(config), "--out", str(both), "--both", "--max-time", "3"]) in (0, 3)
    assert checksums.damage(both) == [] and not checksums.uncovered(both, ("config.yaml", "inputs/system.xml"))
    whole = {path: path.read_bytes() for path in both.rglob("*") if path.is_file()}
    for name in ("config.yaml", "inputs/system.xml", "result.json"):
        if not (both / name).exists():
            continue
        flip(both / name)
        capsys.readouterr()
        assert cli.execute(["resume", str(both)]) == 2
        assert f"{both / name} is damaged or was changed" in capsys.readouterr().err
        (both / name).write_bytes(whole[both / name])

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmm_rlis.config import user_system
from openmm_rlis.config.base import ConfigModel
from openmm_rlis.config.run_config import RunConfig
from openmm_rlis.config.settings import Settings
from openmm_rlis.config.yaml_values import parse_assignment, parse_value, read_yaml
from openmm_rlis.errors import InputError


def one_line(excinfo: pytest.ExceptionInfo[InputError]) -> str:
    text = str(excinfo.value)
    assert "\n" not in text and "expected" in text and "got" in text
    return text


@given(
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0, 1),
    high=st.floats(1, 100, exclude_min=True),
    evaluations=st.none() | st.integers(1, 10**15),
    beta=st.floats(1e-6, 1e6),
    both=st.booleans(),
)
def test_yaml_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    share: float,
    high: float,
    evaluations: int | None,
    beta: float,
    both: bool,
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    config = RunConfig(
        system="lj7", options={"beta": beta, "others": ["C0"]}, seed=seed, both=both, max_force_evaluations=evaluations,
        settings=Settings(bias_scale=share, window_high=high),
    )  # fmt: skip
    config.to_yaml(path)
    assert RunConfig.from_yaml(path) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["system"]),
        ({"system": "lj7", "sede": 1}, ["'sede'", "seed", "did you mean"]),
        ({"system": "lj7", "seed": -1}, ["seed", "-1", "greater than or equal to 0"]),
        ({"system": "lj7", "settings": {"window_low": 2}}, ["settings.window_low", "2", "less than 1"]),
        ({"system": "lj7", "settings": {"window": 2}}, ["'window'", "window_low"]),
        ({"system": "lj7", "settings": {"backend": "cuda"}}, ["settings.backend", "'cuda'", "'torch'"]),
        ({"system": "lj7", "target_relative_error": float("nan")}, ["target_relative_error", "finite"]),
        ({"system": "lj7", "max_force_evaluations": 1.5}, ["max_force_evaluations", "1.5"]),
        ({"system": "lj7", "format_version": 2}, ["format_version", "1", "2"]),
    ],
)
def test_bad_values_give_one_line_that_names_them(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as excinfo:
        RunConfig.from_mapping(values)
    text = one_line(excinfo)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "1: 2", "just words", "a: b: c"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as excinfo:
        RunConfig.from_yaml(path)
    assert str(path) in one_line(excinfo)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.yaml.*No such file"):
        RunConfig.from_yaml(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match=r"binary.yaml"):
        RunConfig.from_yaml(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5), ("1E3", 1e3), ("-.5e1", -5.0), ("20", 20), ("0.1", 0.1), ("true", True), ("none", None),
        ("[C0, C1]", ["C0", "C1"]), ("[1e-3, 2]", [1e-3, 2]), ("C3", "C3"), ("e5", "e5"), ("'12'", "12"),
        ("a=b", "a=b"),
    ],
)  # fmt: skip
def test_values_are_yaml_with_plain_exponents(text: str, value: object) -> None:
    key, found = parse_assignment(f"key={text}")
    assert key == "key" and found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["beta", "=5", " =5", "beta=[1"])
def test_bad_assignments(text: str) -> None:
    with pytest.raises(InputError) as excinfo:
        parse_assignment(text)
    assert "--set" in one_line(excinfo)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_way_python_writes_a_float_is_read_as_that_float(x: float) -> None:
    assert parse_value(repr(x), "x") == x


def test_brute_has_its_own_default_target() -> None:
    assert RunConfig(system="lj7").target_relative_error == 0.1
    assert RunConfig(system="lj7", method="brute").target_relative_error == 0.05
    assert RunConfig(system="lj7", method="brute", target_relative_error=0.2).target_relative_error == 0.2


def test_backward_swaps_the_ends_and_takes_other_noise() -> None:
    config = RunConfig(system="lj7", options={"source": "C3", "beta": 5}, both=True, workers=5, seed=7)
    defaults = {"source": "C0", "target": "C2", "beta": 9}
    forward, backward = config.one_way("forward", defaults), config.one_way("backward", defaults)
    assert forward.options == {"source": "C3", "beta": 5}
    assert backward.options == {"source": "C2", "target": "C3", "beta": 5}
    assert not forward.both and not backward.both and forward.workers == backward.workers == 2
    assert forward.seed == 7 != backward.seed
    with pytest.raises(InputError, match="--both"):
        config.one_way("backward", {})


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().n_batches = 3  # type: ignore[misc]


def test_every_entry_is_documented() -> None:
    models = [RunConfig, Settings, *own_models()]
    assert len(models) == 13
    for model in models:
        assert model.__doc__
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"


def own_models() -> list[type[ConfigModel]]:
    found = (getattr(user_system, name) for name in dir(user_system))
    models = [item for item in found if isinstance(item, type) and issubclass(item, ConfigModel)]
    return [item for item in models if item is not ConfigModel]


def test_neither_torch_nor_openmm_is_needed() -> None:
    code = "import sys, openmm_rlis.config; assert not {'torch', 'openmm'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_read_yaml_keeps_text_that_looks_like_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e5x\nb: 1e5\nc: {d: [2e-3]}\n")
    assert read_yaml(path) == {"a": "1e5x", "b": 1e5, "c": {"d": [2e-3]}}

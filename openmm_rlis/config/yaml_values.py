"""YAML values: a mapping from a file, and one value from the command line, numbers such as 5e-5 included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import bad_input
from ..safe_readers import yaml_text
from ..storage.atomic_files import read

# YAML 1.1 reads 5e-5 as text because it has no dot; people who write it mean a number.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, numbers such as 5e-5 included.

    Raises
    ------
    InputError
        The file is missing, unreadable, not YAML or not a mapping.
    """
    try:
        content = yaml_text.load(read(path).decode())
    except RecursionError:
        raise bad_input(str(path), "YAML without a value inside itself", "one nested without end") from None
    except (OSError, UnicodeDecodeError) as error:
        raise bad_input(str(path), "a readable YAML file", getattr(error, "strerror", None) or "binary data") from None
    except yaml.YAMLError as error:
        raise bad_input(str(path), "valid YAML", " ".join(str(error).split())) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise bad_input(str(path), "a YAML mapping of names to values", type(content).__name__)
    return {key: _numbers(value) for key, value in content.items()}


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return (key, value) of a `key=value` argument; the value is read as YAML: 5e-5, true, none, [C0, C1], text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise bad_input("--set", "key=value", repr(text))
    return key.strip(), parse_value(value, f"--set {key.strip()}")


def parse_value(text: str, argument: str) -> Any:
    """Return one value read as YAML; raises `InputError` naming `argument` when it is not YAML."""
    try:
        value = yaml_text.load(text)
    except (yaml.YAMLError, RecursionError):
        raise bad_input(argument, "a YAML value such as 5e-5, true or [C0, C1]", repr(text)) from None
    return None if value == "none" else _numbers(value)


def _numbers(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return value

"""Provenance: how to make a run again, and how to cite it.

The command is rebuilt from the stored configuration: options of the system, settings that differ from their defaults,
seed, targets, limits and workers. A run from Python, whose regions are Python objects, has no command; its script does.
A run of an own system needs the configuration file that it was started from; a directory of both directions keeps it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..config.run_config import LIMITS, RunConfig
from ..config.settings import Settings
from ..config.user_system import PREFIX
from ..errors import InputError
from ..results.result import versions
from ..storage import checksums

FLAGS = {"source": "--from", "target": "--to", "others": "--others", "beta": "--beta"}
GIVEN = {"seed": "--seed", **LIMITS, "workers": "--workers", "platform": "--platform"}


def is_own(config: Mapping[str, Any]) -> bool:
    """Return whether a stored configuration is that of an own system, from files."""
    system = config.get("system")
    return isinstance(system, Mapping) or str(system).startswith(PREFIX)


def command(config: Mapping[str, Any], name: str, file: str = "") -> str | None:
    """Return the command line that repeats a run into directory `name`, or None if there is none.

    Parameters
    ----------
    config
        Of a run directory, or of one that holds both directions.
    name
        Of the new directory.
    file
        A configuration file that `rlis run` takes; nothing else repeats a run of an own system.
    """
    if is_own(config):
        return shlex.join(["rlis", "run", file, "--out", name]) if file else None
    recipe = config.get("recipe") or ({k: config[k] for k in ("system", "options")} if "options" in config else None)
    if recipe is None:
        return None
    method = str(config.get("method", "run"))
    words = ["rlis", method, str(recipe["system"])]
    for key, value in recipe["options"].items():
        words += [FLAGS[key], _listed(value)] if key in FLAGS else ["--set", f"{key}={_text(value)}"]
    # Brute force has its own numbers of batches and replicas, which no option changes.
    changed = Settings().model_dump(mode="json")
    for key, value in config.get("settings", {}).items() if method == "run" else ():
        if changed.get(key) != value:
            words += ["--set", f"settings.{key}={_text(value)}"]
    for key, flag in GIVEN.items():
        if config.get(key) is not None:
            words += [flag, _text(config[key])]
    words += ["--both"] if config.get("both") else []
    return shlex.join([*words, "--out", name])


def _listed(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list | tuple) else _text(value)


def _text(value: Any) -> str:
    """Return a value as YAML on one line, which is how the command line reads it."""
    if isinstance(value, str):
        return value
    return str(yaml.safe_dump(value, default_flow_style=True, width=math.inf)).split("\n")[0]


def parent_config(directory: Path) -> Mapping[str, Any] | None:
    """Return the configuration of a directory of both directions, or None if it has none."""
    path = directory / "config.yaml"
    if path.is_file():
        checksums.checked(path)
    try:
        return RunConfig.from_yaml(path).to_mapping()
    except InputError:
        return None


def bibtex() -> str:
    """Return BibTeX entries of this software and of the papers whose method it implements."""
    text = (resources.files(__package__) / "templates" / "citation.bib").read_text(encoding="utf-8")
    return text.replace("VERSION", versions()["openmm-rlis"])

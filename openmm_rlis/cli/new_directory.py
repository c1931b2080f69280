"""New directory: where both directions, or the legs of a network, go, with its config.yaml."""

from __future__ import annotations

from pathlib import Path

from ..config.run_config import RunConfig
from ..config.user_system import OwnSystem
from ..errors import bad_input
from ..storage import checksums


def refuse_occupied(directory: Path) -> None:
    """Raise `InputError` unless a directory is absent or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise bad_input("--out", "a new or empty directory", str(directory), "name another or use `rlis resume`")


def write_config(config: RunConfig, directory: Path) -> RunConfig:
    """Write config.yaml, and copies of the files that it names; return the configuration that names the copies."""
    if isinstance(config.system, OwnSystem):
        from ..config.problem_from_files import copied

        own = copied(config.system, directory)
        checksums.cover(directory, [str(path) for path in own.files().values()])
        config = config.with_system(own)
    checksums.replace_covered(directory / "config.yaml", config.to_yaml)
    return config.located(directory)

"""The command line, `rlis`: `main` is its entry point, and `execute` runs one command line from Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .command_line import execute, main

__all__ = ["execute", "main"]


def __getattr__(name: str) -> Any:
    """Import the commands when first used, so that a part of this package costs no more than itself."""
    if name in __all__:
        return getattr(importlib.import_module(".command_line", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

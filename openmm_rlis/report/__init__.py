"""The results of a run for people: tables, figures and one page; `report` writes all of them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .write import report

__all__ = ["report"]


def __getattr__(name: str) -> Any:
    """Import `report` when first used, so that a part of this package costs no more than itself."""
    if name in __all__:
        return getattr(importlib.import_module(".write", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

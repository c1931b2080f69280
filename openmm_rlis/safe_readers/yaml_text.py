"""YAML that cannot fill the memory: values named once and repeated by aliases are counted before they are made.

Ten lines of YAML whose aliases hold each other tenfold stand for ten thousand million values. `load` is
yaml.safe_load, which makes plain values only and executes nothing, with that count and a limit on nesting.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST = 1_000_000
"""Values that a file may stand for."""


def load(text: str) -> Any:
    """Return the content of a YAML document.

    Raises
    ------
    yaml.YAMLError
        Not YAML, or its aliases stand for more than `MOST` values.
    RecursionError
        A value is inside itself, or values are nested too deeply.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    except (ValueError, OverflowError, AttributeError, TypeError) as error:  # a date or a number that is none
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return how many values a node stands for; `counts` are those of nodes seen, 0 while one is being counted."""
    if id(node) in counts:
        if counts[id(node)] == 0:
            raise RecursionError("a value inside itself")
        return counts[id(node)]
    counts[id(node)] = 0
    total = 1
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        for child in part if isinstance(part, tuple) else (part,):
            total += _count(child, counts)
            if total > MOST:
                raise yaml.YAMLError(f"aliases that stand for more than {MOST} values")
    counts[id(node)] = total
    return total

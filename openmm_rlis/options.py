"""Options of a packaged system, checked against the annotations of its `build`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from .errors import bad_input
from .sections import unknown_name


def check_options(function: Callable[..., Any], system: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their types checked against the annotations of a system's `build`."""
    known, hints = inspect.signature(function).parameters, get_type_hints(function)
    checked = dict(options)
    for name, value in options.items():
        if name not in known:
            raise unknown_name(f"option of {system}", name, list(known))
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints.get(name, Any))
        except PydanticSchemaGenerationError:  # an annotation that pydantic does not know; `build` checks it itself
            continue
        if isinstance(value, str) and hints.get(name) == Sequence[str]:
            value = [item.strip() for item in value.split(",") if item.strip()]
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            expected = error.errors()[0]["msg"].replace("Input should be ", "")
            raise bad_input(f"option {name} of {system}", expected[:1].lower() + expected[1:], repr(value)) from None
        if isinstance(checked[name], float) and not math.isfinite(checked[name]):
            raise bad_input(f"option {name} of {system}", "a finite number", checked[name])
    return checked

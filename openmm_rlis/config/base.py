"""What all configuration models share: unknown names and bad values as one line, numbers with units.

A `ConfigModel` is a frozen pydantic model that refuses unknown names and says which known one is nearest. Units come as
text (`300 K`, `0.5 fs`) and leave as floats in OpenMM's units. Neither torch nor openmm is needed here.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from ..errors import InputError, bad_input

Model = TypeVar("Model", bound=BaseModel)

UNITS: dict[str, dict[str, float]] = {
    "temperature": {"K": 1.0, "kelvin": 1.0},
    "rate": {"1/ps": 1.0, "1/fs": 1e3, "1/ns": 1e-3, "1/s": 1e-12},
    "time": {"ps": 1.0, "fs": 1e-3, "ns": 1e3},
    "length": {"nm": 1.0, "angstrom": 0.1, "A": 0.1, "pm": 1e-3},
    "angle": {"deg": math.pi / 180.0, "rad": 1.0},
}
"""Units by kind of quantity, each with its size in the one used inside; a plain number is taken in the first."""

_NUMBERS = (int, float, int | None, float | None)
_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)


class ConfigModel(BaseModel):
    """A frozen model that names the nearest known entry when it meets an unknown one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        for name in values if isinstance(values, Mapping) else ():
            if name not in cls.model_fields:
                context = {"name": str(name), "known": list(cls.model_fields)}
                raise PydanticCustomError("unknown_name", "known names", context)
            if isinstance(values[name], bool) and cls.model_fields[name].annotation in _NUMBERS:
                context = {"name": str(name), "got": str(values[name]).lower()}
                raise PydanticCustomError("truth", "a number", context)  # pydantic would take true for 1
        return values


def validated(model: type[Model], values: Mapping[str, Any], prefix: str = "") -> Model:
    """Return `model(**values)`; raises a one-line `InputError` for the first thing that is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise one_line(error, prefix) from None


def one_line(error: ValidationError, prefix: str) -> InputError:
    """Return the first of pydantic's complaints as an `InputError` in one line."""
    first = error.errors()[0]
    # Tags of unions are in angle brackets: a person never wrote them.
    argument = prefix + ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    context = first.get("ctx", {})
    if first["type"] == "unknown_name":
        return unknown_name(argument.rstrip(".") or "entry", context["name"], context["known"], more)
    if first["type"] == "truth":
        return bad_input(f"{argument}.{context['name']}".lstrip("."), "a number", f"{context['got']}{more}")
    if isinstance(context.get("error"), InputError):
        return cast("InputError", context["error"])
    if first["type"] == "missing":
        return bad_input(argument, "a value", f"nothing{more}")
    expected = first["msg"].replace("Input should be ", "").replace("Value error, ", "")
    return bad_input(argument, expected[:1].lower() + expected[1:], f"{shortened(first['input'])}{more}")


def shortened(value: object) -> str:
    """Return the `repr` of a value, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def unknown_name(argument: str, got: str, known: list[str], more: str = "") -> InputError:
    """Return the one-line error for a name that is not among the known ones, with the nearest of them."""
    near = difflib.get_close_matches(got, known, n=1)
    fix = f"did you mean {near[0]!r}?" if near else ""
    return bad_input(argument, f"one of {', '.join(sorted(known)) or '(nothing)'}", f"{got!r}{more}", fix)


def in_units(kind: str, value: Any, plain: bool = True) -> float:
    """Return a number with a unit as text, or a plain number if that is allowed, as a float in the unit used inside.

    Raises
    ------
    ValueError
        Saying what was expected: not a number, not finite, another unit, or none where one is needed.
    """
    units = UNITS[kind]
    expected = f"a number with one of the units {', '.join(units)}"
    expected += f", or a plain one in {next(iter(units))}" if plain else ""
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match:
        unit = re.sub(r"^(1\s*)?/\s*", "1/", match[2].strip())
        if unit in units:
            return float(match[1]) * units[unit]
        if unit or not plain:
            raise ValueError(expected)
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not plain or not math.isfinite(value):
        raise ValueError(expected)
    return float(value)


def _text_schema(kind: str, example: str) -> WithJsonSchema:
    units = "|".join(re.escape(unit).replace("1/", "1?/") for unit in UNITS[kind])
    text = {"type": "string", "pattern": rf"^[-+]?[0-9.]+([eE][-+]?[0-9]+)? *({units})$", "examples": [example]}
    return WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, text]})


Positive = Field(gt=0.0)
Temperature = Annotated[
    float, BeforeValidator(partial(in_units, "temperature")), Positive, _text_schema("temperature", "300 K")
]
Rate = Annotated[float, BeforeValidator(partial(in_units, "rate")), Positive, _text_schema("rate", "1/ps")]
Time = Annotated[float, BeforeValidator(partial(in_units, "time")), Positive, _text_schema("time", "0.5 fs")]
Length = Annotated[float, BeforeValidator(partial(in_units, "length")), Positive, _text_schema("length", "0.3 nm")]

"""The configuration file for editors and readers: its JSON schema, and tables of its entries, from the models.

    rlis schema > docs/config.schema.json          rlis schema --markdown         the second half of docs/config.md

Descriptions are the docstrings of the fields, so neither can say anything that the program does not do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .run_config import RunConfig


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml; every property has a description."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}
    schema["title"] = "config.yaml of openmm_rlis"
    return schema


def json_text() -> str:
    """Return the schema as the text of docs/config.schema.json."""
    return json.dumps(json_schema(), indent=1)


def markdown() -> str:
    """Return the second half of docs/config.md: a table for each part of the file."""
    schema = json_schema()
    definitions = {"RunConfig": schema, **schema["$defs"]}
    names = ["RunConfig", "OwnSystem", *_kinds(definitions["OwnSystem"], "features")]
    names += [*_kinds(definitions["OwnSystem"], "regions"), "BallShape", "Settings"]
    places = {"RunConfig": "The file", "OwnSystem": "`system`", "BallShape": "`system.regions.NAME.ball`"}
    places |= {name: f"`system.features.NAME`: {name.lower()}" for name in _kinds(definitions["OwnSystem"], "features")}
    places |= {name: f"`system.regions.NAME`: {name.lower()}" for name in _kinds(definitions["OwnSystem"], "regions")}
    places["Settings"] = "`settings`"
    parts = [line for name in names for line in _table(places[name], definitions[name])]
    return "\n".join(parts).strip()


def _kinds(definition: dict[str, Any], entry: str) -> list[str]:
    (options,) = (spec["oneOf"] for spec in definition["properties"][entry]["patternProperties"].values())
    return [str(option["$ref"]).rpartition("/")[2] for option in options]


def _table(title: str, definition: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"## {title}", "", " ".join(definition["description"].split()), "")
    yield from ("| entry | value | default | meaning |", "|---|---|---|---|")
    for name, spec in definition["properties"].items():
        default = json.dumps(spec["default"]) if "default" in spec else ""
        if name in definition.get("required", ()):
            default = "needed"
        meaning = " ".join(spec["description"].split())
        yield (
            "| " + " | ".join(text.replace("|", "\\|") for text in (f"`{name}`", _value(spec), default, meaning)) + " |"
        )


def _value(spec: dict[str, Any]) -> str:
    """Return in words what a property may be."""
    if "$ref" in spec:
        return "entries"
    for choice in ("anyOf", "oneOf"):
        if choice in spec:
            return " or ".join(dict.fromkeys(_value(option) for option in spec[choice]))
    if "const" in spec or "enum" in spec:
        return ", ".join(f"`{json.dumps(item)}`" for item in spec.get("enum", [spec.get("const")]))
    kind = str(spec.get("type", "anything"))
    if kind == "array":
        items = spec.get("prefixItems", [spec.get("items", {})])
        return f"list of {len(items)}" if "prefixItems" in spec else f"list of {_value(items[0])}"
    if kind == "object":
        return "entries by name"
    words = {"integer": "whole number", "string": "path" if spec.get("format") == "path" else "text"}
    words |= {"boolean": "`true`, `false`", "null": "`null`"}
    return words.get(kind, kind) + _range(spec) + (f" such as `{spec['examples'][0]}`" if "examples" in spec else "")


def _range(spec: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {spec[key]:g}" for key, sign in signs.items() if key in spec]
    return f" {', '.join(found)}" if found else ""

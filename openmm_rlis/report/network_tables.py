"""Tables of a network for the terminal, from its result.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ..display.text import rate_text
from ..storage.integrity import read_json


def tables(directory: Path) -> list[Any]:
    """Return what a network says, as tables for the terminal; nothing if there is no result yet."""
    if not (directory / "result.json").is_file():
        return []
    found = read_json(directory / "result.json", required=True)
    shown: list[Any] = []
    if "rate" in found:
        shown.append(Text(f"{found['source']} -> {found['target']}: rate {rate_text(found['rate'])}"))
        for name, region in found["traps"].items():
            shown.append(Text(f"trap found, as a region to paste: {name}: {json.dumps(region)}"))
    one = found.get("network", {})
    for beta, network in one.get("betas", {"": one} if one else {}).items():
        shown += _network_tables(network, f"beta {beta}" if beta else "")
    for pair, line in one.get("arrhenius", {}).items():
        value, error = line["barrier"]["value"], line["barrier"]["standard_error"]
        shown.append(Text(f"{pair}: barrier {value:.4g} +- {error:.2g} kJ/mol (Arrhenius)"))
    cost = found["cost"]
    parts = ", ".join(f"{name} {n:.2e}" for name, n in cost["force_evaluations"].items())
    shown.append(Text(f"force evaluations {parts}; {cost['seconds']:.0f} s; stopped by {found.get('stopped')}"))
    return [*shown, *(Text(f"alarm: {line}", style="bold yellow") for line in found["diagnostics"]["alarms"])]


def _network_tables(network: Mapping[str, Any], title: str) -> list[Any]:
    table = Table(title=Text(title), title_justify="left")
    for column in ("", "direct rate", "rate by any route (memoryless)"):
        table.add_column(column)
    routes = network["rates_by_any_route"]
    for pair, rate in network["rates"].items():
        bounded = pair in network["bounds"]
        direct = f"at most {rate['interval'][1] or float('inf'):.2g} /ps" if bounded else rate_text(rate)
        table.add_row(Text(pair), Text(direct), Text(rate_text(routes[pair]) if pair in routes else "-"))
    shares = [f"{name} {share['value']:.3g}" for name, share in network["stationary"].items() if share["value"]]
    notes = [Text(f"share of time, with each state visited last: {', '.join(shares)}")] if shares else []
    return [table, *notes, *(Text(f"{pair}: {text}") for pair, text in network["bounds"].items())]

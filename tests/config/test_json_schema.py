"""The JSON schema and docs/config.md say what the program does, and are those of this version."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from openmm_rlis import cli
from openmm_rlis.config import json_schema
from openmm_rlis.config.run_config import RunConfig
from openmm_rlis.errors import InputError

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "config.schema.json").read_text())
PAGE = (ROOT / "docs" / "config.md").read_text()
EXAMPLES = [*ROOT.glob("examples/**/*.yaml")]
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
OWN = yaml.safe_load((ROOT / "examples" / "own_system" / "config.yaml").read_text())


def test_the_committed_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA, "rlis schema > docs/config.schema.json"


def test_the_tables_of_the_page_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["schema", "--markdown"]) == 0
    tables = capsys.readouterr().out.strip()
    assert PAGE.rstrip().endswith(tables), "replace what follows the comment by the output of rlis schema --markdown"


def properties(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield from node.get("properties", {}).items()
        for item in node.values():
            yield from properties(item)


def test_every_property_is_described_and_stands_on_the_page() -> None:
    found = list(properties(SCHEMA))
    assert len(found) > 60
    for name, spec in found:
        assert spec.get("description"), name
        assert f"| `{name}` |" in json_schema.markdown()


def test_it_is_a_schema_and_the_examples_fit() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert EXAMPLES and len(BLOCKS) == 2
    for content in [*BLOCKS, *(yaml.safe_load(path.read_text()) for path in EXAMPLES)]:
        jsonschema.validate(content, SCHEMA)
        RunConfig.from_mapping(content)
    for path in EXAMPLES:
        assert path.read_text().startswith("# yaml-language-server: $schema=")
        place = path.read_text().splitlines()[0].partition("$schema=")[2]
        assert (path.parent / place).resolve() == ROOT / "docs" / "config.schema.json"


@pytest.mark.parametrize(
    "edit",
    [
        lambda c: c.update(sede=1),
        lambda c: c.update(seed=-1),
        lambda c: c.update(seed="one"),
        lambda c: c.update(settings={"window_low": 1}),
        lambda c: c.pop("system"),
        lambda c: c["system"].update(temperature="300 F"),
        lambda c: c["system"].update(timestep=0),
        lambda c: c["system"].update(dimensions=0),
        lambda c: c["system"].pop("xml"),
        lambda c: c["system"]["features"].update(psi={"dihedral": [0, 1, 2]}),
        lambda c: c["system"]["features"].update(psi={"torsion": [0, 1, 2, 3]}),
        lambda c: c["system"]["regions"].update(odd={"within": {"phi": ["1 deg"]}}),
        lambda c: c["system"]["regions"].update({"a b": {"within": {"phi": ["1 deg", "2 deg"]}}}),
    ],
)
def test_what_the_schema_refuses_the_program_refuses(edit: Callable[[dict[str, Any]], object]) -> None:
    content = copy.deepcopy(OWN)
    edit(content)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(content)
    with pytest.raises(InputError):
        RunConfig.from_mapping(content)

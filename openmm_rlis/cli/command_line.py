"""The command line, `rlis`: run, network, resume, brute, status, report, verify, export, schema, doctor, systems.

Exit status: 0 done, 1 the run failed, 2 bad input or storage, 3 stopped by a limit with a valid partial result, 130
interrupted. Whatever goes wrong, standard error gets one line and never a traceback; that of an unexpected error goes
to a file, or to the terminal with RLIS_TRACEBACK=1. Heavy modules are imported inside the commands, so that
`rlis --help` and `rlis status` answer at once.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, RlisError, StorageError, bad_input
from .exit_status import BAD_INPUT, DONE, FAILED, INTERRUPTED

if TYPE_CHECKING:
    from ..config.run_config import RunConfig

YAML = (".yaml", ".yml")

app = typer.Typer(
    name="rlis",
    help="Unbiased rates and paths of rare transitions in OpenMM.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

System = Annotated[str, typer.Argument(metavar="SYSTEM", help="A name from `rlis systems`, or a config.yaml.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="New directory for the run.")]
Source = Annotated[str | None, typer.Option("--from", metavar="A", help="Source region.")]
Target = Annotated[str | None, typer.Option("--to", metavar="B", help="Target region.")]
Others = Annotated[str | None, typer.Option(metavar="C,D", help="Other absorbing regions; `none`; or `auto`.")]
Beta = Annotated[float | None, typer.Option(help="Inverse temperature.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="System option or settings.NAME.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random streams; default 1.")]
TargetError = Annotated[float | None, typer.Option(help="Target relative standard error; default 0.1, brute 0.05.")]
MaxEvals = Annotated[float | None, typer.Option(help="Limit on force evaluations, for each direction.")]
MaxTime = Annotated[float | None, typer.Option(metavar="SECONDS", help="Limit on wall time, for each direction.")]
Workers = Annotated[int | None, typer.Option(help="Processes; with --both, 2 run both directions at once.")]
Platform = Annotated[str | None, typer.Option(help="OpenMM platform.")]
Both = Annotated[bool | None, typer.Option("--both", help="A to B and B to A, in DIR/forward and DIR/backward.")]
Backend = Annotated[str | None, typer.Option(help="Bias backend: torch, python-torch or python.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
Trust = Annotated[bool, typer.Option("--trust", help="Execute code in a System XML: PythonForce, TorchForce.")]
OneWay = Annotated[str | None, typer.Option(hidden=True)]


@app.command()
def run(
    system: System, out: Out, source: Source = None, target: Target = None, others: Others = None, beta: Beta = None,
    assignments: Set = None, seed: Seed = None, target_error: TargetError = None, max_evals: MaxEvals = None,
    max_time: MaxTime = None, workers: Workers = None, platform: Platform = None, both: Both = None,
    backend: Backend = None, trust: Trust = False, direction: OneWay = None,
) -> int:  # fmt: skip
    """Compute a rate by branching walks with a learned value function."""
    options = {"source": source, "target": target, "others": others, "beta": beta}
    return _start(system, "run", out, options, assignments, backend, direction, {
        "seed": seed, "target_relative_error": target_error, "max_force_evaluations": max_evals,
        "max_seconds": max_time, "workers": workers, "platform": platform, "both": both,
    }, trust)  # fmt: skip


@app.command()
def brute(
    system: System, out: Out, source: Source = None, target: Target = None, others: Others = None, beta: Beta = None,
    assignments: Set = None, seed: Seed = None, target_error: TargetError = None, max_evals: MaxEvals = None,
    max_time: MaxTime = None, workers: Workers = None, platform: Platform = None, both: Both = None,
    trust: Trust = False, direction: OneWay = None,
) -> int:  # fmt: skip
    """Compute the same rate by brute force: unbiased, without branching."""
    options = {"source": source, "target": target, "others": others, "beta": beta}
    return _start(system, "brute", out, options, assignments, None, direction, {
        "seed": seed, "target_relative_error": target_error, "max_force_evaluations": max_evals,
        "max_seconds": max_time, "workers": workers, "platform": platform, "both": both,
    }, trust)  # fmt: skip


@app.command()
def network(
    system: System, out: Out,
    states: Annotated[str, typer.Option(metavar="A,M,B", help="The states: regions of the system.")],
    beta: Annotated[str | None, typer.Option(metavar="5,7,9", help="Inverse temperatures, one or more.")] = None,
    assignments: Set = None, seed: Seed = None, target_error: TargetError = None, max_evals: MaxEvals = None,
    max_time: MaxTime = None, workers: Workers = None, platform: Platform = None, trust: Trust = False,
) -> int:  # fmt: skip
    """Compute the rates between all pairs of states, and populations and first-passage times from them."""
    from . import network_commands

    names = [name.strip() for name in states.split(",") if name.strip()]
    config = _configured(system, "run", {}, assignments, None, {
        "seed": seed, "target_relative_error": target_error, "max_force_evaluations": max_evals,
        "max_seconds": max_time, "workers": workers, "platform": platform,
    })  # fmt: skip
    return network_commands.start(config, names, _numbers("--beta", beta), out, trust)


@app.command()
def resume(
    directory: Directory, target_error: TargetError = None, max_evals: MaxEvals = None, max_time: MaxTime = None,
    trust: Trust = False,
) -> int:  # fmt: skip
    """Continue a run that was interrupted or stopped by a limit; options replace the stored ones."""
    from . import commands

    values = {"target_relative_error": target_error, "max_force_evaluations": max_evals, "max_seconds": max_time}
    return commands.resume(directory, _checked_limits(values), trust)


@app.command()
def status(
    directory: Directory, as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False
) -> int:
    """Show stage, rate and cost of a run, from its files; also while it runs."""
    from ..storage import status

    try:
        if as_json:
            found = status.status(directory)
            text = json.dumps(found.get("", found), indent=2)
        else:
            text = "\n".join(status.status_lines(directory))
    except RlisError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StorageError(f"{directory} is damaged: result.json or log.jsonl is not as it was written") from None
    print(text)
    return DONE


@app.command()
def report(
    directory: Directory, figures: Annotated[bool, typer.Option(help="Figures and page too.")] = True,
    trust: Trust = False,
) -> int:  # fmt: skip
    """Print the results as a table; draw figures into DIR/figures and write the page DIR/report.html."""
    from .network_report import report as write_report

    for path in write_report(directory, figures, trust):
        print(path)
    return DONE


@app.command()
def verify(
    what: Annotated[str, typer.Argument(metavar="DIR|SYSTEM", help="A run directory, or what `rlis run` takes.")],
    simulate: Annotated[bool, typer.Option("--simulate", help="Also simulate anew, in DIR/verify; minutes.")] = False,
    free_energy: Annotated[float | None, typer.Option(help="F_B - F_A of A and B, kJ/mol; DIR of both runs.")] = None,
    beta: Beta = None, assignments: Set = None, seed: Seed = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="For SYSTEM: its runs; verify-SYSTEM.")] = None,
    trust: Trust = False,
) -> int:  # fmt: skip
    """Test a run: each check passes, fails or could not tell. A SYSTEM is first run in both directions."""
    from ..config.yaml_values import read_yaml
    from ..systems import available
    from . import commands

    if not what.endswith(YAML) and (Path(what).exists() or what not in available()):
        if out or beta or assignments or seed:
            raise bad_input("verify", "no options of a run beside a run directory", what, "name a system")
        return commands.verify(Path(what), simulate, free_energy, trust)
    out = out or Path(f"verify-{Path(what).stem if what.endswith(YAML) else what}")
    status = DONE
    if out.exists():
        if beta or assignments or seed:
            raise bad_input("--out", "a new directory, when options of a run are given", str(out), "name another")
        status = commands.resume(out, {}, trust)
    else:
        if what.endswith(YAML) and read_yaml(Path(what)).get("method") == "brute":
            raise bad_input(what, "method: run, which verify compares with brute force", "brute", "leave `method` out")
        limits = {"seed": seed, "both": True, "workers": 2}
        status = _start(what, "run", out, {"beta": beta}, assignments, None, None, limits, trust)
    return commands.verify(out, True, free_energy, trust) if status == DONE else status


@app.command()
def export(
    directory: Directory,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New directory for the trajectories.")],
    failures: Annotated[bool, typer.Option("--failures", help="Also write the stored failure paths.")] = False,
    form: Annotated[str, typer.Option("--format", help="dcd, xtc or hdf5.")] = "dcd",
    weights: Annotated[str, typer.Option("--weights", help="Table of weights: csv or parquet.")] = "csv",
    trust: Annotated[bool, typer.Option("--trust", hidden=True)] = False,
) -> int:
    """Write each success path as a trajectory for mdtraj.load, with a table of weights and topology.pdb."""
    from ..export import export_paths

    for path, count in export_paths(directory, out, failures, form, weights, print).items():
        print(f"{path}: {count} paths")
    return DONE


@app.command()
def systems() -> int:
    """List the systems, their options and reference numbers."""
    from ..config import build_problem
    from ..systems import available

    for name, module in available().items():
        options = build_problem.default_options(name)
        print(f"{name}: {module.describe()}")
        print("  options: " + ", ".join(f"{key}={_plain(value)}" for key, value in options.items()))
    return DONE


@app.command()
def schema(markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown tables.")] = False) -> int:
    """Print the JSON schema of config.yaml, for editors and other programs."""
    from ..config import json_schema as described

    print(described.markdown() if markdown else described.json_text())
    return DONE


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> int:
    """Show what is installed, which platforms and bias backends work, their speed, and what to install."""
    from . import doctor

    findings = []
    for finding in doctor.examine():
        findings.append(finding)
        if not as_json:
            print(finding.line(), flush=True)
    healthy = doctor.healthy(findings)
    if as_json:
        print(json.dumps(doctor.to_dict(findings), indent=2))
    else:
        print("\n".join(f"to do      {line}" for line in doctor.advice(findings)) or "nothing is missing")
        print("all required components work" if healthy else "a required component does not work")
    return DONE if healthy else FAILED


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _start(
    system: str,
    method: str,
    out: Path,
    options: Mapping[str, Any],
    assignments: Sequence[str] | None,
    backend: str | None,
    direction: str | None,
    values: Mapping[str, Any],
    trusted: bool = False,
) -> int:
    from ..config import build_problem
    from ..config.run_config import DIRECTIONS
    from . import commands

    config = _configured(system, method, options, assignments, backend, values)
    if direction is not None and direction not in DIRECTIONS:
        raise bad_input("--direction", " or ".join(DIRECTIONS), repr(direction))
    for one in DIRECTIONS:
        if direction == one:
            config = config.one_way(one, build_problem.default_options(config.system))
    if config.auto:
        from .network_commands import start_auto

        return start_auto(config, out, trusted)
    return commands.start(config, out, trusted)


def _configured(
    system: str, method: str, options: Mapping[str, Any], assignments: Sequence[str] | None, backend: str | None,
    values: Mapping[str, Any],
) -> RunConfig:  # fmt: skip
    """Return the configuration that a command line means."""
    from ..config.run_config import RunConfig
    from ..config.yaml_values import parse_assignment, read_yaml

    is_file = system.endswith(YAML)
    content: dict[str, Any] = read_yaml(Path(system)) if is_file else {"system": system, "method": method}
    if is_file and (method == "brute" or "method" not in content):
        content["method"] = method
    chosen = {key: value for key, value in options.items() if value is not None}
    if "others" in chosen:
        chosen["others"] = [name.strip() for name in chosen["others"].split(",") if name.strip() not in ("", "none")]
    settings = {"backend": backend} if backend else {}
    for key, value in map(parse_assignment, assignments or ()):
        (settings if key.startswith("settings.") else chosen)[key.removeprefix("settings.")] = value
    for entry, update in (("options", chosen), ("settings", settings)):
        if not isinstance(content.get(entry, {}), dict):
            raise bad_input(entry, "a mapping of names to values", repr(content[entry]))
        content[entry] = {**content.get(entry, {}), **update}
    content.update({key: value for key, value in values.items() if value is not None})
    config = RunConfig.from_mapping(content)
    return config.located(Path(system).parent) if is_file else config


def _numbers(argument: str, text: str | None) -> list[float] | None:
    """Return the numbers in a text with commas."""
    try:
        return None if text is None else [float(item) for item in text.split(",") if item.strip()]
    except ValueError:
        raise bad_input(argument, "numbers with commas, such as 5,7,9", repr(text)) from None


def _checked_limits(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the limits that were given, validated as in a RunConfig."""
    from ..config.run_config import RunConfig

    given = {key: value for key, value in values.items() if value is not None}
    config = RunConfig.from_mapping({"system": "any", **given})
    return {key: getattr(config, key) for key in given}


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _complain(message: object) -> None:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)


def _usage(error: Any, arguments: list[str]) -> str:
    """Return the message of a usage error, with the value that was given where click leaves it out."""
    message = str(error.format_message()) or "no command given; see rlis --help"
    for option in getattr(getattr(error, "param", None), "opts", ()):
        if option in arguments[:-1]:
            value = arguments[arguments.index(option) + 1]
            return message if value in message else f"{message}, got {value!r}"
    return message


def _unexpected(error: BaseException) -> None:
    """Say in one line that this is a bug, and put the traceback into a file."""
    what = f"{type(error).__name__}: {error}"
    if os.environ.get("RLIS_TRACEBACK"):
        traceback.print_exception(error)
        return
    try:
        with tempfile.NamedTemporaryFile("w", prefix="rlis-", suffix=".log", delete=False, encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        _complain(f"unexpected {what}; please report it with {file.name}")
    except OSError:
        _complain(f"unexpected {what}; please report it with the output of RLIS_TRACEBACK=1")


def _interrupted(arguments: Sequence[str]) -> None:
    words = list(arguments)
    out = words[words.index("--out") + 1] if "--out" in words[:-1] else None
    if words[:1] == ["resume"] and len(words) > 1:
        out = words[1]
    advice = f"; continue with: rlis resume {out}" if out and Path(out).exists() else ""
    print(f"interrupted{advice}", file=sys.stderr)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line, without the word `rlis`, and return the exit status; errors become one line on stderr."""
    try:
        value = app(list(arguments), standalone_mode=False, prog_name="rlis")
        if value == INTERRUPTED:  # typer turns an interrupt into this status
            _interrupted(arguments)
        return value if isinstance(value, int) else DONE
    except RlisError as error:
        _complain(error)
        return BAD_INPUT if isinstance(error, InputError | StorageError) else FAILED
    except BrokenPipeError:  # `rlis report DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, ModuleNotFoundError) as error:
        _complain(error)
        return FAILED if isinstance(error, ModuleNotFoundError) else BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        _interrupted(arguments)
        return INTERRUPTED
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors, wherever typer keeps click
            _complain(_usage(error, list(arguments)))
            return BAD_INPUT
        _unexpected(error)
        return FAILED


def main() -> None:
    """Entry point of the `rlis` command."""
    warnings.showwarning = _warn
    if os.environ.get("RLIS_CHILD"):
        from .commands import die_with_parent

        die_with_parent()
    sys.exit(execute(sys.argv[1:]))

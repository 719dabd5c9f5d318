"""`tailrace config`: what holds, whether the file is right, and what can stand in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tailrace.cli.config_file import ConfigFile, find, read, redact, reference
from tailrace.cli.config_keys import Key, Keys, keys, used_by
from tailrace.cli.environment import Configuration
from tailrace.schemas.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="What is set and where it comes from, whether the configuration file is right, and what can stand in it.",
)


class ShowFormat(StrEnum):
    """How settings are shown."""

    table = "table"
    json = "json"


class SchemaFormat(StrEnum):
    """What the description of the file is."""

    json = "json"
    markdown = "markdown"


@app.command("show", context_settings={"ignore_unknown_options": True})
def show_command(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND…]", help="A command, with flags: what would hold for it."),
    ] = None,
    format: Annotated[ShowFormat, typer.Option("--format", help="`json` for programs.")] = ShowFormat.table,
) -> None:
    """Show every setting, and whether it comes from a flag, the environment, a line of the file, or is the default.

    Secrets are not shown.

    Examples:

        tailrace config show

        tailrace --config /etc/tailrace/tailrace.toml config show ship --topic other --format json
    """
    known = _keys()
    path = find(_given(ctx), os.environ)
    file = read(path, known) if path is not None else None
    words, flags = _flags(ctx, command or [])
    wanted = {name: key for name, key in known.items() if not words or used_by(key) & {words, ()}}
    rows = list(_rows(wanted, file, words, flags))
    if format is ShowFormat.json:
        document = {"file": str(path) if path else None, "settings": rows}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"# {path or 'no configuration file'}")
    cells = [(str(row["key"]), _cell(row, known), str(row["where"] or row["source"])) for row in rows]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in range(2)]
    for key, value, where in cells:
        typer.echo(f"{key:{widths[0]}}  {value:{widths[1]}}  {where}")


@app.command("check")
def check_command(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="By default the one that the commands would read."),
    ] = None,
) -> None:
    """Check the configuration file: exit code 0 if everything in it can be used, else 1, and a line for every fault.

    Also looks whether secrets can be read, and whether what belongs together fits together. Connects to nothing.
    """
    path = file or find(_given(ctx), os.environ)
    if path is None:
        raise ConfigError(
            "there is no configuration file: name one, or see `tailrace config schema --format markdown`"
        )
    if not path.exists():
        raise ConfigError(f"there is no {path}")
    known = _keys()
    try:
        found = read(path, known)
        faults = list(_faults(found, known))
    except ConfigError as error:
        faults = [str(error)]
    for fault in faults:
        typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(1)
    typer.echo(f"{path}: {len(found.values)} settings, nothing wrong")


@app.command("schema")
def schema_command(
    format: Annotated[
        SchemaFormat,
        typer.Option("--format", help="`json`: a JSON Schema, for editors. `markdown`: the reference."),
    ] = SchemaFormat.json,
) -> None:
    """Print what can stand in the file."""
    from tailrace.cli.config_reference import json_schema, page

    if format is SchemaFormat.json:
        typer.echo(json.dumps(json_schema(_keys()), indent=2, ensure_ascii=False))
    else:
        typer.echo(page(_keys()), nl=False)


def _keys() -> dict[str, Key]:
    from tailrace.cli.app import whole

    return keys(whole())


def _given(ctx: typer.Context) -> str | None:
    given = ctx.find_root().params.get("config_file")
    return str(given) if given else None


# ---------------------------------------------------------------- show


def _flags(ctx: typer.Context, words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command that a command line is of, and what it gives on it, by parameter."""
    above: Any = ctx.find_root()
    command, path = above.command, list[str]()
    rest = list(words)
    while rest and hasattr(command, "commands"):
        name = rest.pop(0)
        if name not in command.commands:
            raise ConfigError(f"there is no command {' '.join([*path, name])}")
        command = command.commands[name]
        path.append(name)
        # Missing arguments and values that do not convert are no concern here.
        above = command.make_context(name, list(rest), parent=above, resilient_parsing=True)
    sources = {name: above.get_parameter_source(name) for name in above.params}
    given = {
        name: above.params[name]
        for name, source in sources.items()
        if getattr(source, "name", "") == "COMMANDLINE"
    }
    return tuple(path), given if path else {}


def _rows(
    wanted: Keys, file: ConfigFile | None, words: tuple[str, ...], flags: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    for place, key in wanted.items():
        flag = next((use for use in key.uses if use.command == words and use.parameter in flags), None)
        if flag is not None:
            value, source, where = flags[flag.parameter], "flag", flag.flag
        elif os.environ.get(key.variable):
            value, source, where = os.environ[key.variable], "environment", key.variable
        elif file is not None and place in file.values:
            value, source, where = file.values[place], "file", f"{file.path}:{file.lines[place]}"
        else:
            value, source, where = key.default, "default", None
        yield {"key": place, "value": _masked(key, value), "source": source, "where": where}


def _masked(key: Key, value: Any) -> Any:
    if value is None or value == "":
        return None
    if key.secret:
        variable = reference(value)
        return f"*** (from {variable})" if variable else "***"
    if isinstance(value, list | tuple):
        return [redact(str(each)) for each in value]
    return redact(value) if isinstance(value, str) else getattr(value, "value", value)


def _cell(row: Mapping[str, Any], known: Keys) -> str:
    if row["value"] is not None:
        return json.dumps(row["value"], ensure_ascii=False)
    return f"({known[row['key']].default_text or 'none'})"


# ---------------------------------------------------------------- check


def _faults(file: ConfigFile, known: Keys) -> Iterator[str]:
    """What is wrong although every value by itself is right."""
    for place, value in file.values.items():
        if (variable := reference(value)) and not os.environ.get(variable):
            yield f"{file.path}:{file.lines[place]}: [{known[place].table}] {known[place].name}: {variable} is not set"
    variables = {**Configuration(file, known).variables(os.environ), **os.environ}
    for table, build in (
        ("kafka", _kafka),
        ("clickhouse", _clickhouse),
        ("ship", _ship),
        ("metrics", _metrics),
    ):
        if table not in file.lines:
            continue
        values = {
            place.partition(".")[2]: value
            for place, value in file.values.items()
            if place.startswith(f"{table}.")
        }
        try:
            build(values, variables)
        except ConfigError as error:
            # Most name the setting first.
            line = file.lines.get(f"{table}.{str(error).split()[0]}") or file.lines[table]
            yield f"{file.path}:{line}: [{table}] {redact(str(error))}"


def _kafka(values: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    from tailrace.schemas.kafka import KafkaConnection

    # A file may leave the brokers to a flag.
    KafkaConnection.from_environ(values.get("brokers", "broker:9092"), variables).client_arguments()


def _clickhouse(values: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    from tailrace.schemas.clickhouse.connection import Dsn

    Dsn.parse(values.get("dsn", "clickhouse://host"), variables)


def _ship(values: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    from tailrace.schemas.kafka import KafkaConnection
    from tailrace.shipper.settings import ShipperSettings

    ShipperSettings.from_mapping({"paths": ("-",), **values}, KafkaConnection(brokers="broker:9092"))


def _metrics(values: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    from tailrace.cli.metrics_address import parse_address

    if address := values.get("address"):
        parse_address(address)

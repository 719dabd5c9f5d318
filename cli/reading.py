"""What the commands that read have in common: their options, and the way to the explorer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.defaults import database
from tailrace.cli.render import OutputFormat
from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer import Explorer, Period

Project = Annotated[
    str | None,
    typer.Option(envvar="TAILRACE_PROJECT", metavar="PROJECT", help="Only this project; all by default."),
    Setting("read.project"),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Traces that began at or after this: 2026-11-20, 2026-11-20T08:00:00Z, 24h, 7d."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Traces that began before this; as --since.")]
Output = Annotated[
    OutputFormat, typer.Option("--format", help="`table` for people, `json` or `csv` for programs.")
]


class Step(StrEnum):
    """The steps of a time series, in UTC."""

    minute = "minute"
    hour = "hour"
    day = "day"


@contextmanager
def opened(clickhouse: str, *slices: str) -> Iterator[Explorer]:
    """An explorer of the database that a DSN names (the default one for ''), closed afterwards.

    Args:
        clickhouse: The DSN.
        slices: What will be asked; a mistake in them is told before anything is connected to.

    Raises:
        SliceError: The slice cannot be read.
        ConfigError: The DSN is none, or what reading needs is not installed.
        SchemaMismatch: The database was not migrated.
    """
    try:
        from tailrace.explorer import Explorer, parse_slice
        from tailrace.schemas.clickhouse.connection import connect
        from tailrace.schemas.clickhouse.migrate import require_current
    except ModuleNotFoundError as exc:
        raise ConfigError(f"reading needs {exc.name}: pip install 'tailrace[explorer]'") from exc
    for text in slices:
        parse_slice(text)
    client = connect(database(clickhouse))
    try:
        require_current(client)
        yield Explorer(client)
    finally:
        client.close()


def period(since: str | None, until: str | None) -> Period:
    """The period between two options, relative ones counted from now."""
    from tailrace.explorer.period import Period

    return Period.parse(since, until, datetime.now(UTC))

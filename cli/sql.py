"""`tailrace sql`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tailrace.cli.complete import complete_slice
from tailrace.cli.options import ClickHouse, Format, ReportFormat
from tailrace.cli.reading import Project, Since, Until, opened, period
from tailrace.cli.render import print_json, print_line


def sql_command(
    slice_string: Annotated[
        str,
        typer.Argument(metavar="SLICE", help="As for `tailrace slice`.", autocompletion=complete_slice),
    ] = "",
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    format: Format = ReportFormat.table,
) -> None:
    """The query behind a slice with its parameters, to take along: the key of each trace, and when it began.

    The key is `cityHash64(trace_id)`, with one project; over all of them `cityHash64(project_id, cityHash64(trace_id))`.
    Versions are listed as they are stored at this moment.

    Example:

        tailrace sql 'client==acme && latency_ms>=500' --project shop

    `--format json` prints `{"sql", "parameters"}`.
    """
    with opened(clickhouse, slice_string) as explorer:
        statement = explorer.sql(slice_string, project=project, period=period(since, until))
    if format is ReportFormat.json:
        print_json(statement)
        return
    print_line(statement.sql)
    for name, value in statement.parameters.items():
        print_line(f"-- {name} = {json.dumps(value, ensure_ascii=False)}")

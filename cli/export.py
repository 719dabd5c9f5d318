"""`tailrace export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.complete import complete_slice
from tailrace.cli.options import ClickHouse
from tailrace.cli.reading import Project, Since, Until, opened, period


def export_command(
    slice_string: Annotated[
        str,
        typer.Argument(
            metavar="SLICE",
            help="As for `tailrace slice`; '' is everything.",
            autocompletion=complete_slice,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; its suffix says how: .parquet, .csv or .jsonl."
        ),
    ],
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Build a data set from a slice: a row for each trace, its tags as columns.

    The columns are `project_id`, `trace_id`, `name`, `start`, `duration` (seconds), `error`, and one for each tag name, with
    `tag.` before a name that is taken. A tag of which every value is a number is a column of numbers. Of several tags with
    one name the last counts. Rows come in no order. Memory stays bounded, and FILE appears whole or not at all.

    Examples:

        tailrace export 'client==bigshot_client' -o bigshot.parquet --since 7d

        tailrace export 'error && sdk_version>=1.10.0' -o failures.jsonl
    """
    from tailrace.explorer.export import check_suffix

    with opened(clickhouse, slice_string) as explorer:
        check_suffix(output)
        rows = explorer.export(slice_string, output, project=project, period=period(since, until))
    typer.echo(f"wrote {rows:,} traces to {output}", err=True)

"""`tailrace demo`: everything once, with what a person wants to see."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.options import ReportFormat

SLICE = "client==bigshot_client"


def demo(
    ctx: typer.Context,
    requests: Annotated[
        int, typer.Option(min=1, help="How many requests the sample service answers.")
    ] = 30_000,
    directory: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Where the log and the database go; a new temporary one by default."
        ),
    ] = None,
) -> None:
    """A sample service logs through the client library; its file becomes rows; a slice finds what is wrong.

    Needs no server and leaves everything in one directory, so you can go on with the other commands.
    """
    from tailrace.cli.slice import slice_command
    from tailrace.cli.trace import trace_command, traces_command
    from tailrace.cli.up import up

    home = directory or Path(tempfile.mkdtemp(prefix="tailrace-demo-"))
    home.mkdir(parents=True, exist_ok=True)
    log, dsn = home / "logs" / "houses.log", f"chdb://{home.resolve()}/db"

    _title("A service answers requests and logs traces")
    service = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "tailrace.cli.demo_service", str(log), str(requests)],
        check=True,
        capture_output=True,
        text=True,
    )
    lines, seconds = service.stdout.split()
    each = float(seconds) / int(lines) * 1e6
    typer.echo(
        f"{requests:,} requests, {int(lines):,} lines in {log}: {each:.1f} µs a line, the service's own work included"
    )

    _title("Its log file becomes rows")
    _run(f"tailrace up --once --clickhouse {dsn} {log}")
    up(ctx, [str(log)], clickhouse=dsn, once=True, format=ReportFormat.table)

    _title("Which client is slow, and since when?")
    _run(f"tailrace slice '' --by client --metric prediction_time_ms --clickhouse {dsn}")
    slice_command("", clickhouse=dsn, by="client", metric=["prediction_time_ms"])
    typer.echo()
    _run(f"tailrace slice '{SLICE}' --by sdk_version --metric prediction_time_ms --clickhouse {dsn}")
    slice_command(SLICE, clickhouse=dsn, by="sdk_version", metric=["prediction_time_ms"])

    _title("What did one of its failed requests do?")
    failed = f"{SLICE} && sdk_version>=1.10.0 && tagtype(error)"
    _run(f"tailrace traces '{failed}' --limit 3 --clickhouse {dsn}")
    traces_command(failed, clickhouse=dsn, limit=3)
    trace_id = _latest(dsn, failed)
    if trace_id is not None:
        typer.echo()
        _run(f"tailrace trace {trace_id} --clickhouse {dsn}")
        trace_command(trace_id, clickhouse=dsn)

    _title("Go on")
    typer.echo(f"export TAILRACE_CLICKHOUSE={dsn}")
    typer.echo("tailrace slice 'prediction_time_ms>=300' --by client")
    typer.echo(f"tailrace check {log}")
    typer.echo(f"tailrace up {log.parent}      # and, in another terminal, any of these while it runs")


def _latest(dsn: str, slice_string: str) -> str | None:
    from tailrace.cli.reading import opened

    with opened(dsn) as explorer:
        rows = explorer.traces(slice_string, limit=1)
    return rows[0].trace_id if rows else None


def _title(text: str) -> None:
    typer.secho(f"\n{text}", bold=True)


def _run(command: str) -> None:
    typer.secho(f"$ {command}", dim=True)

"""`tailrace check`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from tailrace.cli.options import Format, MaxLineBytes, ReportFormat
from tailrace.cli.progress import rate, size
from tailrace.cli.render import visible


def check(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files, directories or patterns.")],
    errors: Annotated[
        int, typer.Option(min=0, help="How many invalid lines to describe; all are counted.")
    ] = 10,
    strict: Annotated[
        bool, typer.Option("--strict", help="What is only suspicious changes the exit code too.")
    ] = False,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    format: Format = ReportFormat.table,
) -> None:
    """Validate log files offline: what would be stored, and what would become a dead letter, and why.

    Valid lines that look odd are named too: times that are ahead or go back, NaN metrics, unknown fields, huge lines, tags with
    a value of their own in each line. Nothing is written. The exit code is 1 when any line is invalid or any file unreadable.

    Examples:

        tailrace check /var/log/app/

        tailrace check 'logs/**/*.log' --errors 3 --format json
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    from tailrace.explorer.json_position import position_of
    from tailrace.ingestor.check import Checker
    from tailrace.schemas.errors import ConfigError
    from tailrace.shipper.discover import sights

    files = [Path(sight.path) for sight in sights(paths)]
    if not files:
        raise ConfigError(f"no file is named by {' '.join(paths)}")
    began = time.monotonic()
    display = Progress(
        "checking",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with display:
        bar = display.add_task("", total=sum(file.stat().st_size for file in files if file.exists()))
        checker = Checker(
            max_line_bytes, errors, lambda count: display.advance(bar, count), datetime.now(UTC), position_of
        )
        for file in files:
            checker.check(file)
    report, seconds = checker.report, time.monotonic() - began
    if format is ReportFormat.json:
        document = {**msgspec.to_builtins(report), "invalid": report.invalid, "seconds": round(seconds, 3)}
        typer.echo(msgspec.json.encode(document).decode())
    else:
        for finding in report.findings:
            column = "" if finding.column is None else f":{finding.column + 1}"
            typer.echo(
                f"{visible(finding.path)}:{finding.line}{column}: {finding.reason}: {visible(finding.detail)}"
            )
            typer.echo(f"    {finding.excerpt}")
            if finding.caret is not None:
                typer.echo(f"    {' ' * finding.caret}^")
        for path, cause in report.unreadable.items():
            typer.echo(f"{visible(path)}: cannot be read: {cause}")
        typer.echo(
            f"{report.files} files, {size(report.bytes)}, {report.lines:,} lines in {seconds:.1f} s "
            f"({rate(report.lines, seconds)}): {report.valid:,} valid, {report.invalid:,} invalid, {report.blank:,} blank"
        )
        for title, counts in (
            ("dialects", report.dialects),
            ("kinds", report.kinds),
            ("invalid", report.reasons),
        ):
            if counts:
                typer.echo(
                    f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
                )
        if report.suspicions:
            typer.echo(f"suspicious ({report.sampled:,} lines were looked at closely)")
        for suspicion in report.suspicions:
            of = " of these" if suspicion.sampled else ""
            typer.echo(
                f"  {visible(suspicion.first)}: {suspicion.what}, {suspicion.lines:,} lines{of}: {visible(suspicion.detail)}"
            )
    if report.invalid or report.unreadable or (strict and report.suspicions):
        raise typer.Exit(1)

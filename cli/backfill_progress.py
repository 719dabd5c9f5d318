"""What `tailrace backfill` shows while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from tailrace.cli import progress
from tailrace.cli.options import ReportFormat
from tailrace.cli.progress import rate, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tailrace.ingestor.backfill.report import BackfillReport
    from tailrace.ingestor.backfill.run import Backfill

_TERMINAL_SECONDS = 0.25
_FILES_SHOWN = 8
_LISTED = 20


async def shown_while(work: Coroutine[Any, Any, Any], backfill: Backfill) -> None:
    """Runs a backfill and shows how far it is on stderr: bars on a terminal, a plain line now and then elsewhere."""
    from rich.console import Console  # takes longer than to say that there is nothing to do

    console = Console(stderr=True)
    if not console.is_terminal:
        await progress.shown_while(work, lambda seconds: _line(backfill, seconds))
        return
    with _bars(console) as bars:
        shown: dict[str, TaskID] = {}
        total = bars.add_task("all", more="")
        await progress.told_while(
            work, _TERMINAL_SECONDS, lambda seconds: _update(bars, total, shown, backfill, seconds)
        )


def _bars(console: Any) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
        console=console,
        transient=True,
    )


def _update(
    bars: Progress, total: TaskID, shown: dict[str, TaskID], backfill: Backfill, seconds: float
) -> None:
    report = backfill.report
    bars.update(total, total=report.size, completed=report.consumed, more=_counts(backfill, seconds))
    active = [file for file in report.files.values() if not file.is_done and file.consumed]
    for path in [path for path in shown if path not in {file.source.path for file in active}]:
        bars.remove_task(shown.pop(path))
    for file in active[:_FILES_SHOWN]:
        path = file.source.path
        if path not in shown:
            shown[path] = bars.add_task(f"  {path[-48:]}", more="")
        rejected = f"{file.stored.dead_letters:,} rejected" if file.stored.dead_letters else ""
        bars.update(
            shown[path], total=max(file.source.size, 0) or None, completed=file.consumed, more=rejected
        )


def _counts(backfill: Backfill, seconds: float) -> str:
    stored, there = backfill.report.stored, backfill.report.there
    text = f"{stored.lines:,} lines, {rate(stored.lines, seconds)}, {stored.dead_letters:,} rejected"
    if there.lines:
        text += f", {there.lines:,} already there"
    return f"{text}; waiting: {backfill.waiting}" if backfill.waiting else text


def _line(backfill: Backfill, seconds: float) -> str:
    report = backfill.report
    done = sum(file.is_done for file in report.files.values())
    speed = report.consumed / seconds if seconds else 0.0
    left = f", {(report.size - report.consumed) / speed:,.0f} s to go" if speed else ""
    return (
        f"{done} of {len(report.files)} files, {size(report.consumed)} of {size(report.size)}{left}; "
        f"{_counts(backfill, seconds)}"
    )


def print_report(report: BackfillReport, seconds: float, format: ReportFormat, dry_run: bool) -> None:
    """The closing report."""
    if format is ReportFormat.json:
        typer.echo(msgspec.json.encode({"dry_run": dry_run, **report.document(seconds)}).decode())
        return
    stored, there = report.stored, report.there
    if report.is_nothing_new and not report.errors:
        typer.echo(
            f"nothing to do: all {len(report.files)} files were finished before ({there.lines:,} lines, "
            f"{there.rows:,} rows, {there.dead_letters:,} dead letters)"
        )
        return
    verb = "would be stored" if dry_run else "stored"
    typer.echo(
        f"{len(report.files)} files, {size(stored.bytes)} in {seconds:.1f} s: {stored.lines:,} lines {verb} "
        f"({rate(stored.lines, seconds)}): {stored.rows:,} rows, {stored.dead_letters:,} dead letters, {stored.blank:,} blank"
    )
    for reason, count in sorted(report.reasons.items()):
        typer.echo(f"  dead letters, {reason}: {count:,}")
    if stored.filtered:
        typer.echo(f"  left out by the selection: {stored.filtered:,} lines")
    if there.lines:
        typer.echo(f"  already there: {there.lines:,} lines")
    if report.rows_there or report.letters_there:
        typer.echo(
            f"  of these came another way: {report.rows_there:,} rows, {report.letters_there:,} dead letters"
        )
    for path, left in list(report.left.items())[:_LISTED]:
        typer.echo(f"  {path}: the last line is not complete yet, {left:,} bytes are left for another run")
    _print_some("passed over", report.skipped)
    _print_some("not read, or not to the end", report.errors)
    if report.interrupted:
        typer.echo("interrupted; the same command goes on from here")


def _print_some(title: str, paths: dict[str, str]) -> None:
    for path, reason in list(paths.items())[:_LISTED]:
        typer.echo(f"  {title}: {path}: {reason}")
    if len(paths) > _LISTED:
        typer.echo(f"  {title}: {len(paths) - _LISTED:,} more")

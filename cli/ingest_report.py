"""What `up` and `ingest` say of lines that were stored: while they run, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import typer

from tailrace.cli.options import ReportFormat
from tailrace.cli.progress import rate, size

if TYPE_CHECKING:
    from tailrace.ingestor.insert import InsertStats


def progress_line(stats: InsertStats, seconds: float) -> str:
    """One line for a progress display."""
    text = (
        f"{stats.lines:,} lines, {size(stats.bytes)}, {rate(stats.lines, seconds)}; "
        f"{stats.rows:,} rows, {stats.dead_letters:,} dead letters"
    )
    return f"{text}; waiting: {stats.waiting}" if stats.waiting else text


def document(stats: InsertStats, seconds: float) -> dict[str, Any]:
    """The closing report for scripts: the fields of `InsertStats`, and the seconds that the run took."""
    return {**msgspec.to_builtins(stats), "seconds": round(seconds, 3)}


def report(stats: InsertStats, seconds: float, format: ReportFormat, **more: Any) -> None:
    """Prints the closing report.

    Args:
        stats: What was stored.
        seconds: How long it took.
        format: For people or for scripts.
        more: Further fields of the document.
    """
    if format is ReportFormat.json:
        typer.echo(msgspec.json.encode(document(stats, seconds) | more).decode())
        return
    typer.echo(
        f"{stats.lines:,} lines, {size(stats.bytes)} in {seconds:.1f} s ({rate(stats.lines, seconds)}): "
        f"{stats.rows:,} rows, {stats.dead_letters:,} dead letters, {stats.blank:,} blank"
    )
    for reason, count in sorted(stats.reasons.items()):
        typer.echo(f"  dead letters, {reason}: {count:,}")

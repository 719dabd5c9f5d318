"""`tailrace backfill`: the months of log files that lie around."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tailrace.cli.defaults import database
from tailrace.cli.environment import environment
from tailrace.cli.options import ClickHouse, Format, MaxLineBytes, ReportFormat, Topic
from tailrace.cli.progress import size
from tailrace.schemas.clickhouse import connection, migrate
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailrace.ingestor.backfill.claims import History
    from tailrace.ingestor.backfill.report import BackfillReport
    from tailrace.ingestor.backfill.run import Backfill
    from tailrace.ingestor.backfill.settings import BackfillSettings
    from tailrace.ingestor.insert import TableWriter
    from tailrace.schemas.clickhouse.connection import Dsn

INTERRUPTED = 130
_MOST_WRITERS = 4


def backfill(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…",
            help="Files, directories with all below them, patterns, URLs such as s3://bucket/logs/, or `-` for standard input. "
            "gzip, zstd, bzip2, xz and tar archives are unpacked.",
        ),
    ],
    clickhouse: ClickHouse = "",
    kafka: Annotated[
        str,
        typer.Option(metavar="HOST:PORT,…", help="Into Kafka instead; TLS and SASL as for `tailrace ship`."),
    ] = "",
    topic: Topic = "tailrace",
    since: Annotated[
        str | None,
        typer.Option(
            help="Lines from this time on: 2026-11-20, 2026-11-20T08:00:00Z, or 7d for that long ago."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Lines before this time.")] = None,
    project: Annotated[
        list[str] | None, typer.Option(help="Lines of this project only; may be given several times.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Lines of this kind only, for example `tags`; several times too.")
    ] = None,
    set_project: Annotated[str, typer.Option(help="Store everything under this project.")] = "",
    workers: Annotated[
        int | None,
        typer.Option(
            envvar="TAILRACE_WORKERS", min=1, help="Processes that decode.", show_default="as many as cores"
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Lines a second at most; 0 for as fast as it goes.")
    ] = 0.0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be stored, rejected and is there; store nothing."),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how far earlier runs over these paths got; read nothing.")
    ] = False,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    format: Format = ReportFormat.table,
) -> None:
    """Store the lines of log files that lie around, each exactly once, on all cores.

    Whatever interrupts it, the same command goes on where it was; when everything is done it says so at once. Files are
    known by what they hold, so renamed, copied and compressed ones are not stored again, and lines that `up` or `ingest`
    brought already count once. Lines that are no records go to the table dead_letters. Into Kafka with --kafka.

    The exit code is 1 when anything could not be read to its end; the rest is stored.

    Examples:

        tailrace backfill /var/log/archive/ --clickhouse clickhouse://ingestor@ch:8123/tailrace

        tailrace backfill 'logs/2026-*.log.gz' logs.tar.zst --since 2026-06-01 --dry-run

        zcat old.log.gz | tailrace backfill - --set-project imported --format json
    """
    from tailrace.ingestor.backfill.select import Selection
    from tailrace.ingestor.backfill.settings import BackfillSettings

    first, last = _period(since, until)
    settings = BackfillSettings(
        paths=tuple(paths),
        workers=workers or len(os.sched_getaffinity(0)),
        selection=Selection(first, last, tuple(project or ()), tuple(kind or ()), set_project),
        max_line_bytes=max_line_bytes,
        rate=rate,
        dry_run=dry_run,
    )
    if kafka:
        if clickhouse and environment().get("TAILRACE_CLICKHOUSE") != clickhouse:
            raise ConfigError(
                "--kafka and --clickhouse: name one place; `tailrace ingest` brings the topic's lines further"
            )
        _into_kafka(settings, kafka, topic, status, format)
        return
    dsn = database(clickhouse)
    if status:
        _status(dsn, settings, format)
    else:
        _run(dsn, settings, format)


def _period(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    if since is None and until is None:
        return None, None  # a second run has nothing to do but start, and this import takes a third of that
    from tailrace.explorer.period import Period

    period = Period.parse(since, until, datetime.now(UTC))
    return period.since, period.until


def _run(dsn: Dsn, settings: BackfillSettings, format: ReportFormat) -> None:
    from tailrace.cli.backfill_progress import print_report

    began = time.monotonic()
    report = _done(dsn, settings)
    print_report(report, time.monotonic() - began, format, settings.dry_run)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)
    if report.errors:
        raise typer.Exit(1)


def _done(dsn: Dsn, settings: BackfillSettings) -> BackfillReport:
    """Does what is to be done, and says what it was."""
    from tailrace.ingestor.backfill import noted
    from tailrace.ingestor.backfill.claims import NoHistory, StoredHistory
    from tailrace.ingestor.backfill.report import begin
    from tailrace.ingestor.backfill.sources import find

    if settings.dry_run and not _exists(dsn):
        return _store(settings, NoHistory(), [], None)
    # Asked before we hold it ourselves: the engine of another process is reached over HTTP, as any server.
    own = dsn.embedded and not connection.is_locked(dsn.path)
    found = find(settings.paths)
    directory, name = Path(dsn.path), (dsn.database, settings.scope)
    if own and (history := noted.read(directory, *name)) is not None:
        report = begin(settings, history, found)
        if report.is_nothing_new:
            return report
    with ExitStack() as stack:
        if own and not _exists(dsn):
            report = _done_into_new(dsn, settings, stack, begin(settings, NoHistory(), found))
        else:
            client = _migrated(dsn, settings, stack)
            stored = StoredHistory(client, str(dsn))
            report = begin(settings, stored, found)
            if not report.is_nothing_new:
                report = _store(settings, stored, _writers(dsn, own, settings, stack), report)
        if own and not settings.dry_run:
            noted.write(directory, *name, report, time.time())
    return report


def _done_into_new(
    dsn: Dsn, settings: BackfillSettings, stack: ExitStack, report: BackfillReport
) -> BackfillReport:
    """The same into an embedded database that is not there yet. Its engine starts meanwhile."""
    from tailrace.ingestor.backfill.claims import StoredHistory
    from tailrace.ingestor.backfill.opening import NewHistory, Opened, Opening

    def make() -> Opened:
        client = _migrated(dsn, settings, stack)
        return Opened(StoredHistory(client, str(dsn)), _writers(dsn, True, settings, stack))

    with closing(Opening(make)) as opening:
        writers = [opening.writer(number) for number in range(_count_of_writers(settings))]
        report = _store(settings, NewHistory(opening), writers, report)
        opening.wait()  # what went wrong is told also where there was nothing to store
        return report


def _store(
    settings: BackfillSettings,
    history: History,
    writers: Sequence[TableWriter],
    report: BackfillReport | None,
) -> BackfillReport:
    import asyncio

    from tailrace.ingestor.backfill.run import Backfill
    from tailrace.ingestor.memory import keep_little, without_pandas

    keep_little()
    without_pandas()
    backfill = Backfill(settings, history, writers, report)
    asyncio.run(_shown(backfill))
    return backfill.report


def _migrated(dsn: Dsn, settings: BackfillSettings, stack: ExitStack) -> Any:
    """A client of a migrated database. An embedded database is made first."""
    may_create = dsn.embedded and not settings.dry_run
    client = connection.connect(dsn, create_database=may_create)
    stack.callback(client.close)
    if may_create:
        migrate.migrate(client)
    migrate.require_current(client)
    return client


def _writers(dsn: Dsn, own: bool, settings: BackfillSettings, stack: ExitStack) -> list[TableWriter]:
    from tailrace.ingestor.insert import ClickHouseWriter

    writers: list[TableWriter] = []
    for _ in range(_count_of_writers(settings)):
        client = connection.open_another(dsn) if own else connection.connect(dsn)
        stack.callback(client.close)
        writers.append(ClickHouseWriter(client, str(dsn)))
    return writers


def _count_of_writers(settings: BackfillSettings) -> int:
    return min(settings.workers, _MOST_WRITERS)


def _exists(dsn: Dsn) -> bool:
    """Whether there is a database to compare with; a server that does not answer is an error, not an empty one."""
    return not dsn.embedded or (Path(dsn.path) / "store").exists()


async def _shown(backfill: Backfill) -> None:
    from tailrace.cli.backfill_progress import shown_while
    from tailrace.cli.signals import stopped_by_signals

    async with stopped_by_signals(backfill.stop):
        await shown_while(backfill.run(), backfill)


def _status(dsn: Dsn, settings: BackfillSettings, format: ReportFormat) -> None:
    from tailrace.ingestor.backfill.claims import NoHistory, StoredHistory
    from tailrace.ingestor.backfill.status import status

    with ExitStack() as stack:
        history: History = NoHistory()
        if _exists(dsn):
            client = connection.connect(dsn)
            stack.callback(client.close)
            migrate.require_current(client)
            history = StoredHistory(client, str(dsn))
        found = status(settings, history)
    if format is ReportFormat.json:
        typer.echo(msgspec.json.encode([msgspec.to_builtins(file) for file in found]).decode())
        return
    for file in found:
        of = f" of {size(file.size)}" if file.size >= 0 else ""
        stored = (
            f"{size(file.stored_bytes)} stored{of}" if file.stored_bytes else f"{size(max(file.size, 0))}"
        )
        typer.echo(f"{file.state:12} {stored:>28}  {file.path}{': ' + file.reason if file.reason else ''}")
    counts = {state: sum(file.state == state for file in found) for state in {file.state for file in found}}
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no files")


def _into_kafka(
    settings: BackfillSettings, brokers: str, topic: str, status: bool, format: ReportFormat
) -> None:
    from tailrace.ingestor.backfill.select import Selection

    if settings.selection != Selection() or settings.dry_run or settings.rate or status:
        raise ConfigError(
            "into Kafka lines go as they are: --since, --until, --project, --kind, --set-project, --rate, --dry-run and "
            "--status need --clickhouse"
        )
    from tailrace.cli.backfill_kafka import into_kafka

    into_kafka(settings, brokers, topic, format)

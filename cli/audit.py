"""`tailrace audit`: lines in files = lines in Kafka = rows + dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.environment import environment
from tailrace.cli.options import ClickHouse, Format, Group, Kafka, MaxLineBytes, ReportFormat, Topic
from tailrace.cli.render import Column, number, print_json, print_line, print_table
from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer.audit import StoredLines
    from tailrace.explorer.reconcile import Tables
    from tailrace.schemas.audit import (
        AuditReport,
        FileFacts,
        Finding,
        LedgerRange,
        PartitionFacts,
        StageCount,
    )
    from tailrace.shipper.audit import KnownProgress

_HOURS_SHOWN = 24


def audit(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH…]", help="Log files, directories or patterns; none leaves the files out."
        ),
    ] = None,
    kafka: Kafka = "",
    clickhouse: ClickHouse = "",
    topic: Topic = "tailrace",
    group: Group = "tailrace",
    shipper_id: Annotated[
        str | None,
        typer.Option(envvar="TAILRACE_SHIPPER_ID", help="Only this shipper's progress.", show_default="all"),
        Setting("ship.shipper_id"),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            envvar="TAILRACE_CHECKPOINT",
            help="Progress file of `up`, or of `ship --delivery at-least-once`.",
            show_default="where `up` keeps it",
        ),
        Setting("ship.checkpoint"),
    ] = None,
    tables: Annotated[
        bool, typer.Option("--tables/--no-tables", help="Whether to look into ClickHouse.")
    ] = True,
    allow_pending: Annotated[
        bool,
        typer.Option("--allow-pending", help="Lines that are on their way do not change the exit code."),
    ] = False,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    format: Format = ReportFormat.table,
) -> None:
    """Count every line on its way, and name each that is not where it ought to be.

    Compares by content what stands in the files, in the topic and in the tables, whichever of them are given, with the
    shippers' progress and the ledger of stored ranges. The exit code is 0 only when every line is accounted for. It only
    reads, and may run beside the pipeline; what arrives meanwhile counts as on its way.

    Examples:

        tailrace audit /var/log/app --clickhouse chdb:///var/lib/tailrace

        tailrace audit /var/log/shop --kafka broker:9092 --clickhouse clickhouse://reader@ch:8123/tailrace --format json
    """
    report = collect(
        paths or [],
        kafka,
        clickhouse if tables else None,
        topic=topic,
        group=group,
        shipper_id=shipper_id,
        checkpoint=checkpoint,
        max_line_bytes=max_line_bytes,
    )
    if format is ReportFormat.json:
        print_json(report)
    else:
        _print(report)
    if not report.accounted and not (allow_pending and _only_pending(report)):
        raise typer.Exit(1)


def _only_pending(report: AuditReport) -> bool:
    from tailrace.schemas.audit import Severity

    return all(finding.severity is not Severity.WRONG for finding in report.findings)


def collect(
    paths: list[str],
    kafka: str,
    clickhouse: str | None,
    *,
    topic: str = "tailrace",
    group: str = "tailrace",
    shipper_id: str | None = None,
    checkpoint: Path | None = None,
    max_line_bytes: int = 8 * 1024 * 1024,
) -> AuditReport:
    """Looks at every stage that is given, and compares them.

    Args:
        paths: None leaves the files out.
        kafka: Brokers; '' leaves the topic out.
        clickhouse: A DSN, the default one for ''; `None` leaves the tables out.
        topic: Of the lines.
        group: Of the ingestor.
        shipper_id: Only its progress; everyone's for `None`.
        checkpoint: A local progress file; where `up` keeps it for `None`.
        max_line_bytes: As the pipeline has it.

    Raises:
        ConfigError: Nothing to look at, or something that is needed is not installed.
        TailraceError: Kafka or ClickHouse is away or refuses.
    """
    try:
        from tailrace.explorer.audit import StoredLines
        from tailrace.explorer.reconcile import Reconciler, Surveyed
        from tailrace.ingestor.audit import LineJudge, survey_topic
        from tailrace.schemas.kafka import KafkaConnection
        from tailrace.shipper.audit import at_hand, survey
    except ModuleNotFoundError as exc:
        raise ConfigError(f"an audit needs {exc.name}: pip install 'tailrace[all]'") from exc
    if not paths and not kafka and clickhouse is None:
        raise ConfigError("nothing to look at: give PATHs, --kafka, or leave --no-tables out")
    judge = LineJudge(max_line_bytes)
    connection = KafkaConnection.from_environ(kafka, environment()) if kafka else None
    if connection is not None and clickhouse is not None:
        _connect(clickhouse).close()  # before a topic of hours is read, not after
    # What comes later on a line's way is looked at later, so that a line that moves meanwhile is not missed.
    progress = asyncio.run(_progress(connection, clickhouse, topic, shipper_id, checkpoint, bool(paths)))
    surveyed = Surveyed(topic)
    if connection is not None:
        surveyed.partitions = asyncio.run(survey_topic(connection, topic, group, judge))
    client: Any = None
    try:
        if clickhouse is not None:
            client = _connect(clickhouse)
            stored = StoredLines(client)
            surveyed.tables = _tables(stored)
        if paths:
            cuts = _cuts(surveyed.partitions or {}, surveyed.tables, progress)
            found = survey(paths, progress, judge, max_line_bytes, cuts)
            surveyed.files = found[0]
            surveyed.findings += found[1]
            if not surveyed.files:
                raise ConfigError(f"no file is named by {' '.join(paths)}")
            if surveyed.tables is not None:
                surveyed.tables.ledger = _with_copies(surveyed.tables.ledger, surveyed.files, stored)
        elif surveyed.tables is not None and connection is None and _has_copies(surveyed.tables.ledger):
            known = asyncio.run(_progress(None, clickhouse, topic, shipper_id, checkpoint, True))
            surveyed.tables.ledger = _counted_once(surveyed.tables.ledger, at_hand(known), stored)
        surveyed.findings += _losses(progress)
        return Reconciler(surveyed).report()
    finally:
        if client is not None:
            client.close()


async def _progress(
    connection: Any,
    clickhouse: str | None,
    topic: str,
    shipper_id: str | None,
    checkpoint: Path | None,
    wanted: bool,
) -> KnownProgress:
    """The progress of the shippers that may have read the files: in the topic, and in local files."""
    from tailrace.cli.defaults import database
    from tailrace.shipper.audit import KnownProgress, local_progress, topic_progress

    if not wanted:
        return KnownProgress()
    if connection is not None:
        progress = await topic_progress(connection, f"{topic}-checkpoints", shipper_id)
    else:
        progress = KnownProgress()
    if checkpoint is None and clickhouse is not None and connection is None:
        checkpoint = checkpoint_of(database(clickhouse))
    if checkpoint is not None:
        local = local_progress(checkpoint)
        progress.states += local.states
        progress.under_way += local.under_way
        progress.lost.update(local.lost)
    return progress


def checkpoint_of(dsn: Any) -> Path:
    """Where `up` on this host keeps its progress for a database."""
    from tailrace.cli.up import _checkpoint_path
    from tailrace.shipper.settings import ShipperSettings

    return _checkpoint_path(dsn, ShipperSettings(paths=("-",)))


def _connect(clickhouse: str) -> Any:
    from tailrace.cli.defaults import database
    from tailrace.schemas.clickhouse.connection import connect
    from tailrace.schemas.clickhouse.migrate import require_current

    client = connect(database(clickhouse))
    try:
        require_current(client)
    except BaseException:
        client.close()
        raise
    return client


def _tables(stored: StoredLines) -> Tables:
    from tailrace.explorer.reconcile import Tables

    # Rows come before their ledger row: what is older than this has one, or is no part of the pipeline.
    now = stored.now()
    return Tables(
        ledger=stored.ledger(),
        letters=stored.letters(),
        replayed=stored.replayed_hashes(),
        hashes=lambda: stored.hashes(now - _IN_FLIGHT_MS),
        rows=stored.rows(),
        tags=stored.tags(),
        examples=stored.examples,
    )


_IN_FLIGHT_MS = 60_000
"""Rows that are younger than this may lack their ledger row, because their batch is being stored."""


def _cuts(
    partitions: dict[int, PartitionFacts], tables: Tables | None, progress: KnownProgress
) -> dict[str, Iterable[int]]:
    """By file id, where lines are known to begin."""
    cuts: dict[str, set[int]] = {state.id: {state.position} for state in progress.states}
    for name, ranges in (tables.ledger if tables is not None else {}).items():
        if name.startswith("file:"):
            known = cuts.setdefault(name.removeprefix("file:"), set())
            known.update(position for each in ranges for position in (each.start, each.end))
    for facts in partitions.values():
        for number_, byte in zip(facts.file, facts.byte, strict=True):
            if number_ >= 0:
                cuts.setdefault(facts.files[number_], set()).add(byte)
    return dict(cuts)


def _with_copies(
    ledger: Mapping[str, Sequence[LedgerRange]], files: Sequence[FileFacts], stored: StoredLines
) -> Mapping[str, Sequence[LedgerRange]]:
    """The ledger, in which a range that a backfill took from a copy of a file at hand is one of that file: the same bytes stand
    at the same place, so they are the same lines."""
    import msgspec

    from tailrace.ingestor.backfill.copies import Copies

    if not _has_copies(ledger):
        return ledger
    found, copies = dict(ledger), Copies(stored.digests())
    for facts in files:
        for name, places in copies.in_file(Path(facts.path)).items():
            found[name] = [
                msgspec.structs.replace(each, path=facts.path) if (each.start, each.end) in places else each
                for each in found.get(name, ())
            ]
    return {name: ranges for name, ranges in found.items() if ranges}


def _has_copies(ledger: Iterable[str]) -> bool:
    """Whether the ledger has streams that a backfill stored."""
    from tailrace.ingestor.backfill.known import ID_PREFIX

    return any(name.startswith(f"file:{ID_PREFIX}") for name in ledger)


def _counted_once(
    ledger: Mapping[str, Sequence[LedgerRange]], paths: Mapping[str, str], stored: StoredLines
) -> Mapping[str, Sequence[LedgerRange]]:
    """The ledger, in which the rows of a backfilled copy are left out where they are those of a file that was shipped afterwards:
    a shipper does not ask what is there, so the ledger has the same rows of both.

    Args:
        ledger: Ranges by stream.
        paths: By file id, where a shipped file still stands.
        stored: Tells the digests of what was backfilled.
    """
    import msgspec

    from tailrace.ingestor.backfill.copies import Copies

    found, copies = dict(ledger), Copies(stored.digests())
    for file_id, path in paths.items():
        end = 0
        for each in ledger.get(f"file:{file_id}", ()):
            end = max(end, each.end) if each.start <= end else end
        for name, places in copies.in_file(Path(path)).items():
            found[name] = [
                msgspec.structs.replace(each, lines=each.lines - each.rows, rows=0)
                if (each.start, each.end) in places and each.end <= end
                else each
                for each in found.get(name, ())
            ]
    return {name: ranges for name, ranges in found.items() if ranges}


def _losses(progress: KnownProgress) -> list[Finding]:
    """Bytes of which shippers know that they are lost."""
    from tailrace.schemas.audit import Cause, Finding, Severity

    causes = {
        "truncated": (
            Cause.LOST_TRUNCATED,
            "were cut off before they were read, and no copy of them was found",
        ),
        "replaced": (Cause.LOST_REPLACED, "were written over before they were read"),
        "in_doubt": (Cause.IN_DOUBT, "were being stored when the shipper ended, and their file is gone"),
    }
    return [
        Finding(Severity.WRONG, causes[cause][0], "shippers", f"{count:,} bytes {causes[cause][1]}")
        for cause, count in progress.lost.items()
        if count
    ]


def _print(report: AuditReport) -> None:
    for title, counts, with_kafka in (
        ("file", report.files, "kafka" in report.compared),
        ("partition", report.partitions, False),
    ):
        if counts:
            _print_counts(title, counts, with_kafka)
            print_line()
    if len(report.hours) > 1:
        hours = report.hours[-_HOURS_SHOWN:]
        print_table(
            [Column("hour (UTC)"), *(Column(name, right=True) for name in ("lines", "stored", "missing"))],
            [
                [
                    "no time" if x.hour is None else x.hour.strftime("%Y-%m-%d %H:00"),
                    number(x.lines),
                    number(x.stored),
                    number(x.missing),
                ]
                for x in hours
            ],
        )
        if len(report.hours) > len(hours):
            print_line(f"… and {len(report.hours) - len(hours):,} hours before; --format json has all")
        print_line()
    for finding in report.findings:
        here = "" if finding.start is None else f" {finding.unit}s [{finding.start}, {finding.end})"
        lines = f" ({finding.lines:,} lines)" if finding.lines and finding.unit else ""
        print_line(f"{finding.severity}: {finding.cause}: {finding.where}{here}: {finding.detail}{lines}")
    sums = [] if report.rows is None else [f"{report.rows:,} rows", f"{report.dead_letters:,} dead letters"]
    if report.replayed:
        sums.append(f"{report.replayed:,} of these replayed")
    if sums:
        print_line(", ".join(sums))
    compared = ", ".join(report.compared)
    if report.accounted:
        print_line(f"every line is accounted for ({compared})")
    else:
        print_line(
            f"NOT accounted for: {report.missing:,} missing, {report.pending:,} on their way ({compared})"
        )


def _print_counts(title: str, counts: Iterable[StageCount], with_kafka: bool) -> None:
    names = [
        "lines",
        "blank",
        *(["in Kafka"] if with_kafka else []),
        "rows",
        "dead letters",
        "on their way",
        "missing",
    ]
    rows = []
    for count in counts:
        cells = [
            count.lines,
            count.blank,
            *([count.in_kafka] if with_kafka else []),
            count.rows,
            count.dead_letters,
        ]
        rows.append([count.name, *map(number, [*cells, count.pending, count.missing])])
    print_table([Column(title), *(Column(name, right=True) for name in names)], rows)

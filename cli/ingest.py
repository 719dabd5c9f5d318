"""`tailrace ingest`."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.dead_letter_alarm import MaxDeadLetters, exit_if_exceeded, watched
from tailrace.cli.defaults import database
from tailrace.cli.environment import environment
from tailrace.cli.ingest_report import progress_line, report
from tailrace.cli.logs import say
from tailrace.cli.metrics_address import MetricsAddress, serving, worker_address
from tailrace.cli.options import ClickHouse, Format, Group, Kafka, MaxLineBytes, Once, ReportFormat, Topic
from tailrace.cli.progress import shown_while
from tailrace.cli.tracing import Exporter, Traces, traced
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.ingestor.insert import InsertStats
    from tailrace.ingestor.run import Ingestor
    from tailrace.ingestor.settings import IngestSettings
    from tailrace.schemas.clickhouse.connection import Dsn
    from tailrace.schemas.kafka import KafkaConnection
    from tailrace.schemas.spans import Spans


def ingest(
    kafka: Kafka = "",
    clickhouse: ClickHouse = "",
    topic: Topic = "tailrace",
    group: Group = "tailrace",
    workers: Annotated[
        int, typer.Option(envvar="TAILRACE_WORKERS", min=1, help="Processes that share the partitions.")
    ] = 1,
    once: Once = False,
    batch_seconds: Annotated[
        float,
        typer.Option(
            envvar="TAILRACE_BATCH_SECONDS", help="How long a line waits for others before it is inserted."
        ),
    ] = 0.5,
    batch_rows: Annotated[
        int, typer.Option(envvar="TAILRACE_BATCH_ROWS", min=1, help="Lines in one insert at most.")
    ] = 100_000,
    session_timeout: Annotated[
        float,
        typer.Option(
            envvar="TAILRACE_SESSION_TIMEOUT", help="Seconds until the group gives up a silent member."
        ),
    ] = 30.0,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    max_dead_letters: MaxDeadLetters = "",
    metrics_address: MetricsAddress = "",
    traces: Traces = Exporter.off,
    format: Format = ReportFormat.table,
) -> None:
    """Bring lines from Kafka into ClickHouse, each exactly once.

    Runs until it is stopped (Ctrl-C or SIGTERM: the batch under way is finished and committed). Start as many as
    the topic has partitions; they share them. While ClickHouse is away it waits and tries again; nothing is
    committed past what is stored. Lines that are no records go to the table dead_letters. Of several workers, each
    takes the next port of --metrics-address.

    Examples:

        tailrace ingest --kafka broker:9092 --clickhouse clickhouse://ingestor@ch:8123/tailrace --workers 4

        tailrace ingest --kafka broker:9092 --clickhouse chdb:///var/lib/tailrace --once --format json
    """
    dsn = database(clickhouse)
    if workers > 1:
        if dsn.embedded:
            raise ConfigError("chDB allows one process a directory: use --workers 1, or a ClickHouse server")
        raise typer.Exit(_supervise(workers, metrics_address))

    from tailrace.ingestor.settings import BatchLimits, IngestSettings
    from tailrace.schemas.kafka import KafkaConnection

    settings = IngestSettings(
        topic=topic,
        group=group,
        once=once,
        max_line_bytes=max_line_bytes,
        limits=BatchLimits(rows=batch_rows, seconds=batch_seconds),
        session_timeout=session_timeout,
    )
    kafka_connection = KafkaConnection.from_environ(kafka, environment())
    with traced(traces, "ingest") as spans:
        stats, seconds = asyncio.run(
            _ingest(kafka_connection, dsn, settings, max_dead_letters, metrics_address, spans)
        )
    report(stats, seconds, format)
    if once:
        exit_if_exceeded(max_dead_letters, stats)


async def _ingest(
    kafka: KafkaConnection,
    dsn: Dsn,
    settings: IngestSettings,
    max_dead_letters: str,
    metrics_address: str,
    spans: Spans,
) -> tuple[InsertStats, float]:
    """What was stored, and in how many seconds."""
    from tailrace.ingestor.insert import ClickHouseWriter
    from tailrace.ingestor.metrics import IngestorObserved
    from tailrace.ingestor.run import Ingestor
    from tailrace.schemas.clickhouse import connection, migrate

    def open_database() -> Any:
        client = connection.connect(dsn, create_database=dsn.embedded)
        if dsn.embedded:
            migrate.migrate(client)
        migrate.require_current(client)
        return client

    async with serving(metrics_address) as observed:
        client = await _patiently(open_database, settings.once)
        try:
            ingestor = Ingestor(kafka, ClickHouseWriter(client, str(dsn)), settings, spans=spans)
            observed.append(IngestorObserved(ingestor, settings))
            began = time.monotonic()
            await _run(ingestor, max_dead_letters)
            return ingestor.stats, time.monotonic() - began
        finally:
            client.close()


async def _patiently(connect: Callable[[], Any], once: bool) -> Any:
    """A ClickHouse that is not up yet is waited for, unless this run is to end by itself."""
    from tailrace.ingestor.settings import RetryPolicy
    from tailrace.schemas.errors import RetryableError

    failures = 0
    while True:
        try:
            return await asyncio.to_thread(connect)
        except RetryableError as error:
            if once:
                raise
            failures += 1
            delay = RetryPolicy().delay(failures, 0.5)
            say(f"tailrace: {error}; next attempt in {delay:.1f} s", logging.WARNING)
            await asyncio.sleep(delay)


async def _run(ingestor: Ingestor, max_dead_letters: str) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ingestor.stop)
    async with watched(max_dead_letters, ingestor.stats):
        await shown_while(ingestor.run(), lambda seconds: progress_line(ingestor.stats, seconds))


def _supervise(workers: int, metrics_address: str) -> int:
    """Runs this command line in several processes, one worker each, and ends when they have ended.

    A worker that fails takes the others with it: whoever runs us starts all of them again.
    """
    command = [sys.executable, "-m", "tailrace.cli", *sys.argv[1:], "--workers", "1"]
    addresses = [
        worker_address(metrics_address, number) if metrics_address else "" for number in range(workers)
    ]
    processes = [
        subprocess.Popen([*command, "--metrics-address", address])  # noqa: S603 - our own command line
        for address in addresses
    ]

    def stop(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worst = 0
    waiting = list(processes)
    while waiting:
        for process in list(waiting):
            try:
                code = process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            waiting.remove(process)
            worst = max(worst, code if code >= 0 else 128 - code)
            if code:
                stop()
    return worst

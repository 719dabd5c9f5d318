"""`tailrace up`: tail → decode → insert in one process."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.dead_letter_alarm import MaxDeadLetters, exit_if_exceeded, watched
from tailrace.cli.defaults import database
from tailrace.cli.environment import environment
from tailrace.cli.ingest_report import progress_line, report
from tailrace.cli.logs import say
from tailrace.cli.metrics_address import MetricsAddress, serving
from tailrace.cli.options import (
    ClickHouse,
    FollowLinks,
    Format,
    LogRate,
    MaxLineBytes,
    Once,
    Paths,
    PollOnly,
    ReportFormat,
)
from tailrace.cli.progress import shown_while, size
from tailrace.cli.reload import hold_hangup, reloaded_by_hangup
from tailrace.cli.setting import Setting
from tailrace.cli.signals import stopped_by_signals
from tailrace.cli.tracing import Exporter, Traces, traced
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.explorer.front.intake import Intake
    from tailrace.explorer.front.settings import FrontSettings
    from tailrace.schemas.clickhouse.connection import Dsn
    from tailrace.shipper.checkpoint import Checkpoint
    from tailrace.shipper.settings import ShipperSettings

CHECKPOINT = "tailrace-checkpoint.json"
"""In the embedded database's directory: how far every file was read."""


def up(
    ctx: typer.Context,
    paths: Paths,
    clickhouse: ClickHouse = "",
    once: Once = False,
    http: Annotated[
        str,
        typer.Option(
            envvar="TAILRACE_HTTP",
            metavar="HOST:PORT",
            help="Where to serve ClickHouse's HTTP interface of the embedded database; `off` for nowhere. "
            "By default 127.0.0.1:8123, or any free port, unless --once is given. Beyond loopback only with "
            "TAILRACE_HTTP_TOKEN or TAILRACE_HTTP_TOKEN_FILE set, the password of user `default`.",
        ),
        Setting("http.address"),
    ] = "",
    http_tls_cert: Annotated[
        str,
        typer.Option(
            envvar="TAILRACE_HTTP_TLS_CERT",
            metavar="FILE",
            help="Answer HTTPS with this certificate (PEM); its key stands in the same file or in --http-tls-key.",
        ),
        Setting("http.tls_cert"),
    ] = "",
    http_tls_key: Annotated[
        str,
        typer.Option(envvar="TAILRACE_HTTP_TLS_KEY", metavar="FILE", help="The certificate's key (PEM)."),
        Setting("http.tls_key"),
    ] = "",
    poll_only: PollOnly = False,
    follow_links: FollowLinks = False,
    log_rate: LogRate = 0,
    batch_seconds: Annotated[
        float,
        typer.Option(
            envvar="TAILRACE_BATCH_SECONDS", help="How long a line waits for others before it is inserted."
        ),
    ] = 0.25,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    max_dead_letters: MaxDeadLetters = "",
    metrics_address: MetricsAddress = "",
    traces: Traces = Exporter.off,
    format: Format = ReportFormat.table,
) -> None:
    """Follow log files and store their lines in ClickHouse, each exactly once. No Kafka, no server.

    By default the tables live in an embedded database (chDB) in your data directory. While `up` runs it holds that
    directory, and answers ClickHouse's HTTP interface on loopback, so `tailrace slice`, Grafana and DBeaver can ask.
    It resumes where it stopped, whatever stopped it. Paths may stand in the configuration file: SIGHUP reads them anew.
    Lines that are no records go to the table dead_letters.
    Services under development may send lines there too, with `tailrace.APILogger(url, project_id)`.

    Examples:

        tailrace up /var/log/app/

        tailrace up --once --clickhouse chdb:///tmp/try 'logs/*.log' --format json
    """
    from tailrace.shipper.settings import ShipperSettings

    hold_hangup(once=once)
    dsn = database(clickhouse)
    settings = ShipperSettings(
        paths=tuple(paths),
        once=once,
        poll_only=poll_only,
        follow_links=follow_links,
        log_rate=log_rate,
        linger_seconds=batch_seconds,
        max_line_bytes=max_line_bytes,
    )
    serves = dsn.embedded and (http or not once) and http != "off"
    front = _front_settings(http, http_tls_cert, http_tls_key) if serves else None
    asyncio.run(_up(ctx, dsn, settings, front, max_dead_letters, metrics_address, traces, format))


async def _up(
    ctx: typer.Context,
    dsn: Dsn,
    settings: ShipperSettings,
    front_settings: FrontSettings | None,
    max_dead_letters: str,
    metrics_address: str,
    traces: Exporter,
    format: ReportFormat,
) -> None:
    from tailrace.ingestor.embedded import EmbeddedSink
    from tailrace.ingestor.insert import ClickHouseWriter
    from tailrace.ingestor.metrics import InserterObserved
    from tailrace.schemas.clickhouse import connection, migrate
    from tailrace.shipper.checkpoint import Checkpoint
    from tailrace.shipper.deliver import CheckpointedDelivery
    from tailrace.shipper.metrics import ShipperObserved
    from tailrace.shipper.run import Shipper

    began = time.monotonic()
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(traced(traces, "up"))
        observed = await stack.enter_async_context(serving(metrics_address))
        client = connection.open_engine(dsn) if dsn.embedded else connection.connect(dsn)
        stack.callback(client.close)
        if dsn.embedded:
            migrate.migrate(client)
        migrate.require_current(client)
        checkpoint = Checkpoint(_checkpoint_path(dsn, settings))
        own_paths: tuple[str, ...] = ()
        if dsn.embedded:
            intake = _intake(dsn, checkpoint)
            # Also where nothing is served now: an earlier run may have taken lines that it did not store.
            own_paths = (str(intake.folder),)
            settings = replace(settings, paths=settings.paths + own_paths)
            if front_settings is not None:
                from tailrace.explorer.front.server import Front

                front = await stack.enter_async_context(Front(dsn, front_settings, intake))
                say(f"ClickHouse HTTP interface: {front.url}")
        sink = EmbeddedSink(ClickHouseWriter(client, str(dsn)), settings.max_line_bytes, spans=spans)
        shipper = Shipper(settings, CheckpointedDelivery(sink, checkpoint), spans=spans)
        observed += [ShipperObserved(shipper, settings), InserterObserved(sink.inserter)]

        def line(seconds: float) -> str:
            return f"{shipper.stats.files} files, {size(shipper.stats.lag_bytes)} to go; {progress_line(sink.stats, seconds)}"

        async with (
            watched(max_dead_letters, sink.stats),
            reloaded_by_hangup(ctx, lambda paths: shipper.follow(paths + own_paths), once=settings.once),
            stopped_by_signals(shipper.stop),
        ):
            await shown_while(shipper.run(), line)
    lost = {str(cause): count for cause, count in shipper.stats.lost.items() if count}
    report(sink.stats, time.monotonic() - began, format, files=shipper.stats.files, lost_bytes=lost)
    if lost:
        say(f"tailrace: bytes were lost: {lost}", logging.ERROR)
        raise typer.Exit(1)
    if settings.once:
        exit_if_exceeded(max_dead_letters, sink.stats)


def _checkpoint_path(dsn: Dsn, settings: ShipperSettings) -> Path:
    """Beside the embedded database, whose progress it is; for a server, a file a database in the user's state folder."""
    from tailrace.shipper.settings import default_checkpoint

    if dsn.embedded:
        return Path(dsn.path) / CHECKPOINT
    name = hashlib.sha256(str(dsn).encode()).hexdigest()[:12]
    return default_checkpoint(f"up-{settings.shipper_id}-{name}", os.environ)


def _intake(dsn: Dsn, checkpoint: Checkpoint) -> Intake:
    """Where lines that arrive by HTTP are kept until they are stored; what was stored by earlier runs is removed."""
    from tailrace.explorer.front.intake import FOLDER, Intake
    from tailrace.shipper.identity import holds_all

    intake = Intake(Path(dsn.path) / FOLDER)
    intake.folder.mkdir(mode=0o700, exist_ok=True)
    progress = checkpoint.load()

    def is_stored(path: Path) -> bool:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())

            def read(position: int, length: int) -> bytes:
                return os.pread(file.fileno(), length, position)

            return any(
                state.key == (status.st_dev, status.st_ino)
                and state.position == status.st_size
                and holds_all(state, read)
                for state in progress.files.values()
            )

    if progress.intent is None:  # otherwise the ranges that it names are still to be read
        intake.discard(is_stored)
    return intake


def _front_settings(http: str, tls_cert: str, tls_key: str) -> FrontSettings:
    from tailrace.explorer.front.settings import FrontSettings
    from tailrace.schemas.secrets import secret

    token = secret(environment(), "TAILRACE_HTTP_TOKEN")
    if not http:
        return FrontSettings(token=token, tls_cert=tls_cert, tls_key=tls_key)
    host, separator, port = http.rpartition(":")
    if not separator or not port.isdigit():
        raise ConfigError(f"--http {http}: write HOST:PORT, for example 127.0.0.1:8123, or off")
    return FrontSettings(host=host, port=int(port), token=token, tls_cert=tls_cert, tls_key=tls_key)

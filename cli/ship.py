"""`tailrace ship`: files to Kafka."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tailrace.cli.environment import environment
from tailrace.cli.logs import say
from tailrace.cli.metrics_address import MetricsAddress, serving
from tailrace.cli.options import (
    FollowLinks,
    Format,
    Kafka,
    LogRate,
    MaxLineBytes,
    Once,
    Paths,
    PollOnly,
    ReportFormat,
    Topic,
)
from tailrace.cli.progress import rate, shown_while, size
from tailrace.cli.reload import hold_hangup, reloaded_by_hangup
from tailrace.cli.signals import stopped_by_signals
from tailrace.cli.tracing import Exporter, Traces, traced
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.schemas.spans import Spans
    from tailrace.shipper.produce import KafkaWriter
    from tailrace.shipper.settings import ShipperSettings
    from tailrace.shipper.stats import Stats


class DeliveryOption(StrEnum):
    """What a crash may do to a line."""

    EXACTLY_ONCE = "exactly-once"
    AT_LEAST_ONCE = "at-least-once"


def ship(
    ctx: typer.Context,
    paths: Paths,
    kafka: Kafka = "",
    topic: Topic = "tailrace",
    shipper_id: Annotated[
        str | None,
        typer.Option(
            envvar="TAILRACE_SHIPPER_ID",
            help="Names this shipper's progress: keep it over restarts, and share it with no other.",
            show_default="the host's name",
        ),
    ] = None,
    delivery: Annotated[
        DeliveryOption,
        typer.Option(
            envvar="TAILRACE_DELIVERY",
            help="exactly-once keeps progress in Kafka, in the same transaction as the lines; "
            "at-least-once keeps it in a local file, for clusters that allow no transactions.",
        ),
    ] = DeliveryOption.EXACTLY_ONCE,
    once: Once = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            envvar="TAILRACE_CHECKPOINT",
            help="The progress file of at-least-once.",
            show_default="in ~/.local/state/tailrace",
        ),
    ] = None,
    compression: Annotated[
        str, typer.Option(envvar="TAILRACE_COMPRESSION", help="none, gzip, snappy, lz4 or zstd.")
    ] = "zstd",
    compression_level: Annotated[
        int | None,
        typer.Option(
            envvar="TAILRACE_COMPRESSION_LEVEL",
            help="From fast to small: zstd -7 to 22, lz4 1 to 12, gzip 1 to 9. The usual one costs the least CPU.",
            show_default="zstd -2, lz4 1, gzip 6",
        ),
    ] = None,
    partitions: Annotated[
        int, typer.Option(envvar="TAILRACE_PARTITIONS", min=1, help="Of the topic, when it has to be made.")
    ] = 6,
    create_topics: Annotated[
        bool, typer.Option(envvar="TAILRACE_CREATE_TOPICS", help="Make topics that are absent.")
    ] = True,
    message_bytes: Annotated[
        int,
        typer.Option(
            envvar="TAILRACE_MESSAGE_BYTES",
            min=0,
            max=1 << 20,
            help="Lines that follow on one another share a Kafka message up to this size; 0 gives each line its own.",
        ),
    ] = 64 * 1024,
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    idle_seconds: Annotated[
        float,
        typer.Option(
            envvar="TAILRACE_IDLE_SECONDS", help="When a last line without a newline counts as complete."
        ),
    ] = 10.0,
    poll_only: PollOnly = False,
    follow_links: FollowLinks = False,
    log_rate: LogRate = 0,
    metrics_address: MetricsAddress = "",
    traces: Traces = Exporter.off,
    format: Format = ReportFormat.table,
) -> None:
    """Ship the lines of log files to Kafka, each exactly once.

    Follows the files until SIGTERM or Ctrl-C, over rotation and restarts of either side, and holds its place while
    Kafka is away. Paths may stand in the configuration file: SIGHUP reads them anew. With --once it ships what is
    there, and the exit code is 1 when bytes were lost for sure.

    Examples:

        tailrace ship /var/log/shop --kafka kafka:9092 --shipper-id shop-1

        tailrace ship 'logs/**/*.log' --kafka kafka:9092 --once --format json
    """
    hold_hangup(once=once)
    settings = _settings(
        {
            "paths": paths,
            "shipper_id": shipper_id,
            "delivery": delivery.value,
            "once": once,
            "checkpoint": checkpoint,
            "topic": topic,
            "compression": compression,
            "compression_level": compression_level,
            "partitions": partitions,
            "create_topics": create_topics,
            "message_bytes": message_bytes,
            "max_line_bytes": max_line_bytes,
            "idle_seconds": idle_seconds,
            "poll_only": poll_only,
            "follow_links": follow_links,
            "log_rate": log_rate,
        },
        kafka,
    )
    stats = asyncio.run(_ship(ctx, settings, metrics_address, traces))
    if format is ReportFormat.json:
        report = {
            **stats.report(),
            "shipper_id": settings.shipper_id,
            "topic": topic,
            "delivery": delivery.value,
        }
        typer.echo(json.dumps(report))
    else:
        typer.echo(
            f"{stats.lines:,} lines, {size(stats.bytes)} from {stats.files} files to {topic} in {stats.seconds:.1f} s "
            f"({rate(stats.lines, stats.seconds)}); {stats.oversized:,} over the limit, {stats.lost_bytes:,} bytes lost"
        )
    if once and stats.lost_bytes:
        say(f"tailrace: bytes were lost: {dict(stats.lost)}", logging.ERROR)
        raise typer.Exit(1)


def _settings(values: dict[str, Any], brokers: str) -> ShipperSettings:
    from tailrace.schemas.kafka import KafkaConnection
    from tailrace.shipper.settings import ShipperSettings

    return ShipperSettings.from_mapping(values, KafkaConnection.from_environ(brokers, environment()))


async def _ship(
    ctx: typer.Context, settings: ShipperSettings, metrics_address: str, traces: Exporter
) -> Stats:
    from tailrace.shipper.memory import keep_buffers
    from tailrace.shipper.metrics import ShipperObserved
    from tailrace.shipper.run import Shipper

    keep_buffers()
    with traced(traces, "ship") as spans:
        delivery = _delivery(settings, spans)
        shipper: Shipper[Any] = Shipper(settings, delivery.delivery, spans=spans)
        async with (
            serving(metrics_address) as observed,
            reloaded_by_hangup(ctx, shipper.follow, once=settings.once),
            stopped_by_signals(shipper.stop),
        ):
            observed.append(ShipperObserved(shipper, settings, delivery.writer))
            await shown_while(shipper.run(), lambda seconds: _progress_line(shipper.stats, seconds))
    return shipper.stats


def _progress_line(stats: Stats, seconds: float) -> str:
    return (
        f"{stats.files} files, {size(stats.lag_bytes)} to go; {stats.lines:,} lines, {size(stats.bytes)}, "
        f"{rate(stats.lines, seconds)}"
    )


class _Delivery(NamedTuple):
    delivery: Any
    writer: KafkaWriter


def _delivery(settings: ShipperSettings, spans: Spans) -> _Delivery:
    from tailrace.shipper.checkpoint import Checkpoint
    from tailrace.shipper.deliver import CheckpointedDelivery
    from tailrace.shipper.produce import KafkaSink
    from tailrace.shipper.settings import default_checkpoint
    from tailrace.shipper.transact import TransactionalDelivery

    kafka = settings.kafka
    if kafka is None:
        raise ConfigError("no Kafka brokers are given: --kafka HOST:PORT")
    if settings.delivery == "exactly-once":
        transactional = TransactionalDelivery(kafka, settings.shipper_id, settings.max_line_bytes, spans)
        return _Delivery(transactional, transactional.writer)
    path = settings.checkpoint or default_checkpoint(settings.shipper_id, os.environ)
    sink = KafkaSink(kafka, settings.max_line_bytes, spans)
    return _Delivery(CheckpointedDelivery(sink, Checkpoint(path), connect=sink.open), sink.writer)

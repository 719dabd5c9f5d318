"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tailrace.cli.setting import Setting

ClickHouse = Annotated[
    str,
    typer.Option(
        envvar="TAILRACE_CLICKHOUSE",
        metavar="DSN",
        show_default="chdb:///… in your data directory",
        help="`chdb:///DIRECTORY` (embedded) or `clickhouse://user@host:8123/db?secure=true`. A password may also stand in "
        "TAILRACE_CLICKHOUSE_PASSWORD or in the file that TAILRACE_CLICKHOUSE_PASSWORD_FILE names.",
    ),
    Setting("clickhouse.dsn"),
]

Kafka = Annotated[
    str,
    typer.Option(
        envvar="TAILRACE_KAFKA",
        metavar="HOST:PORT,…",
        help="Some brokers. TLS and SASL: TAILRACE_KAFKA_SECURITY_PROTOCOL, …_SASL_MECHANISM, …_USERNAME, …_PASSWORD_FILE, …_CA_FILE.",
    ),
    Setting("kafka.brokers"),
]

Topic = Annotated[str, typer.Option(envvar="TAILRACE_TOPIC", help="Kafka topic."), Setting("kafka.topic")]

Group = Annotated[
    str,
    typer.Option(
        envvar="TAILRACE_GROUP", help="Consumer group of the ingestor; its offsets are the progress."
    ),
    Setting("kafka.group"),
]

MaxLineBytes = Annotated[
    int,
    typer.Option(
        envvar="TAILRACE_MAX_LINE_BYTES",
        min=1024,
        help="A longer line becomes a dead letter, kept by its head.",
    ),
    Setting("limits.max_line_bytes"),
]

Paths = Annotated[
    list[str],
    typer.Argument(
        envvar="TAILRACE_PATHS",
        metavar="PATH…",
        help="Log files, directories or patterns such as '/var/log/app/**/*.log'; files that appear later are found too.",
    ),
]

PollOnly = Annotated[
    bool,
    typer.Option(
        "--poll-only",
        envvar="TAILRACE_POLL_ONLY",
        help="Expect no file system events (NFS, some containers' mounts).",
    ),
]

FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        envvar="TAILRACE_FOLLOW_LINKS",
        help="Follow symbolic links also where they lead out of the directories that are named.",
    ),
]

LogRate = Annotated[
    int,
    typer.Option(
        envvar="TAILRACE_LOG_RATE",
        metavar="BYTES",
        min=0,
        help="Bytes a second at which one log is read at most, so that a noisy one does not keep the others waiting; what is over "
        "it stays in the file meanwhile. 0 for no limit.",
    ),
]

Once = Annotated[bool, typer.Option("--once", help="Process what is there now, then exit.")]


class ReportFormat(StrEnum):
    """How a command's closing report is printed."""

    table = "table"
    json = "json"


Format = Annotated[
    ReportFormat,
    typer.Option("--format", envvar="TAILRACE_FORMAT", help="`json` prints one document for scripts."),
    Setting("report.format"),
]

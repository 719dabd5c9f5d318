"""`tailrace doctor`: is everything as it should be, and what to do where it is not."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.defaults import database
from tailrace.cli.environment import environment
from tailrace.cli.options import ClickHouse, Format, Group, Kafka, MaxLineBytes, ReportFormat, Topic
from tailrace.cli.render import print_json, print_line
from tailrace.schemas.diagnosis import Check, Status, fail, ok, warn
from tailrace.schemas.errors import ConfigError, TailraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXTRAS = {
    "shipper": ("watchdog", "aiokafka", "cramjam"),
    "ingestor": ("aiokafka", "clickhouse_connect", "pyarrow", "xxhash"),
    "explorer": ("clickhouse_connect", "lark"),
    "embedded": ("chdb", "aiohttp", "watchdog"),
}


def doctor(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH…]", help="Log files, directories or patterns that a shipper reads."),
    ] = None,
    kafka: Kafka = "",
    clickhouse: ClickHouse = "",
    topic: Topic = "tailrace",
    group: Group = "tailrace",
    max_line_bytes: MaxLineBytes = 8 * 1024 * 1024,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as failures.")] = False,
    format: Format = ReportFormat.table,
) -> None:
    """Examine what Tailrace stands on, a line a check, with what to do where something is wrong.

    Looks at the installation always, and at Kafka, ClickHouse and log files where they are given. It changes nothing; in Kafka it
    begins and aborts one transaction of a throw-away id. The exit code is 1 when any check fails.

    Examples:

        tailrace doctor /var/log/app --clickhouse chdb:///var/lib/tailrace

        tailrace doctor --kafka broker:9092 --clickhouse clickhouse://ingestor@ch:8123/tailrace --format json
    """
    checks = list(_installation())
    if paths:
        checks += _guarded("files", lambda: _files(paths))
    if kafka:
        checks += _guarded("Kafka", lambda: asyncio.run(_kafka(kafka, topic, group, max_line_bytes)))
    if clickhouse:
        checks += _guarded("ClickHouse", lambda: _clickhouse(clickhouse))
    counts = Counter(check.status for check in checks)
    failed = counts[Status.FAIL] > 0 or (strict and counts[Status.WARN] > 0)
    if format is ReportFormat.json:
        print_json({"healthy": not failed, "checks": checks})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print_line(f"{check.status.upper():4}  {check.name:{width}}  {check.detail}")
            if check.remedy:
                print_line(f"      {'':{width}}  → {check.remedy}")
        print_line(", ".join(f"{counts[status]} {status}" for status in Status))
    if failed:
        raise typer.Exit(1)


def _guarded(name: str, examine: Callable[[], Iterable[Check]]) -> list[Check]:
    """A part that cannot be examined at all is a failed check, and the other parts go on."""
    try:
        return list(examine())
    except ModuleNotFoundError as exc:
        return [fail(name, f"{exc.name} is not installed", "pip install 'tailrace[all]'")]
    except ConfigError:
        raise
    except TailraceError as error:
        return [fail(name, str(error), "mend what the message says, and run this again")]


def _installation() -> Iterable[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield ok("Python", version)
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            remedy = f"where this role runs: pip install 'tailrace[{extra}]'"
            yield warn(f"extra {extra}", f"lacks {', '.join(missing)}", remedy)
        else:
            yield ok(f"extra {extra}", "installed")


def _files(paths: list[str]) -> list[Check]:
    from tailrace.shipper.doctor import examine_files

    return examine_files(paths)


async def _kafka(kafka: str, topic: str, group: str, max_line_bytes: int) -> list[Check]:
    from tailrace.ingestor.doctor import examine_group
    from tailrace.schemas.kafka import KafkaConnection
    from tailrace.shipper.doctor import examine_topics
    from tailrace.shipper.settings import KafkaSettings

    connection = KafkaConnection.from_environ(kafka, environment())
    checks = await examine_topics(KafkaSettings(connection, topic), max_line_bytes)
    if checks[0].status is Status.FAIL:
        return checks
    return checks + await examine_group(connection, topic, group)


def _clickhouse(clickhouse: str) -> list[Check]:
    from tailrace.ingestor.doctor import examine_tables

    return examine_tables(database(clickhouse))

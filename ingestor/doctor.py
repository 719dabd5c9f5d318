"""Is everything as an ingestor needs it? A ClickHouse that takes inserts and remembers tokens, a group that keeps up."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import Any

from tailrace.ingestor import intents
from tailrace.ingestor.group import committed_offsets
from tailrace.schemas.clickhouse import connection, migrate
from tailrace.schemas.clickhouse.connection import Dsn, translated
from tailrace.schemas.diagnosis import Check, fail, ok, space, warn
from tailrace.schemas.errors import EngineLocked, RetryableError, TailraceError
from tailrace.schemas.kafka import KafkaConnection, translate_kafka

CLOCK_SECONDS = 5.0
OLD_INTENT_SECONDS = 600.0
MANY_PARTS = 1_000
_WAIT_SECONDS = 15.0
_OLDEST = (24, 3)
_WINDOW = re.compile(r"\b((?:non_)?replicated_deduplication_window(?:_seconds)?) = (\d+)")


def examine_tables(dsn: Dsn) -> list[Check]:
    """ClickHouse and the tables in it. Changes nothing, and does not create a database that is not there."""
    try:
        client = connection.connect(dsn, timeout=30.0)
    except TailraceError as error:
        return [fail("ClickHouse", str(error), _remedy(error, dsn))]
    checks: list[Check] = []
    try:
        for examine in (_server, _migrations, _windows, _grants, _clock, _disks, _parts):
            checks += examine(client, dsn)
    except TailraceError as error:
        checks.append(fail("ClickHouse", str(error), _remedy(error, dsn)))
    finally:
        client.close()
    return checks


def _remedy(error: TailraceError, dsn: Dsn) -> str:
    if isinstance(error, EngineLocked):
        return "stop the process that holds the directory, or ask while `tailrace up` runs with its HTTP interface"
    if isinstance(error, RetryableError):
        return f"see that ClickHouse runs and that {dsn} is its HTTP port"
    return "see that the database exists (`tailrace migrate` makes it), and that user and password are right"


def _rows(client: Any, sql: str) -> list[Any]:
    with translated("ClickHouse"):
        return list(client.query(sql).result_rows)


def _server(client: Any, dsn: Dsn) -> Iterator[Check]:
    ((version,),) = _rows(client, "SELECT version()")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < _OLDEST:
        remedy = f"upgrade to {_OLDEST[0]}.{_OLDEST[1]} or newer: tokens do not hold through views before it"
        yield fail("ClickHouse", f"{version} at {dsn}", remedy)
    else:
        yield ok("ClickHouse", f"{version} at {dsn}")


def _migrations(client: Any, dsn: Dsn) -> Iterator[Check]:
    have = migrate.applied(client)
    ours = {each.version: each for each in migrate.load()}
    missing = sorted(set(ours) - set(have))
    newer = sorted(set(have) - set(ours))
    changed = sorted(
        version for version, each in ours.items() if have.get(version, each.checksum) != each.checksum
    )
    if missing:
        text = f"{len(missing)} not applied: {', '.join(f'{version:04d}' for version in missing)}"
        yield fail("migrations", text, "tailrace migrate")
    elif newer:
        text = f"the database is at {max(newer):04d}, this program knows up to {max(ours):04d}"
        yield fail("migrations", text, "upgrade Tailrace on this machine")
    elif changed:
        text = (
            f"{', '.join(f'{version:04d}' for version in changed)} were applied from other files than these"
        )
        yield warn("migrations", text, "compare the tables with `tailrace migrate --print`")
    else:
        yield ok("migrations", f"all {len(ours)} applied")


def _windows(client: Any, dsn: Dsn) -> Iterator[Check]:
    """Each table must remember tokens for as long as the protocol relies on them, also one that was altered by hand."""
    short = []
    looked_at = 0
    rows = _rows(
        client,
        "SELECT name, engine, engine_full FROM system.tables WHERE database = currentDatabase() "
        "AND engine LIKE '%MergeTree' AND name != 'schema_migrations' ORDER BY name",
    )
    for name, engine, definition in rows:
        looked_at += 1
        found = {key: int(value) for key, value in _WINDOW.findall(definition)}
        if engine.startswith("Replicated"):
            enough = (
                found.get("replicated_deduplication_window", 0) >= migrate.DEDUPLICATION_BLOCKS
                and found.get("replicated_deduplication_window_seconds", 0) >= migrate.DEDUPLICATION_SECONDS
            )
        else:
            enough = found.get("non_replicated_deduplication_window", 0) >= migrate.DEDUPLICATION_BLOCKS
        if not enough:
            short.append((name, engine))
    if not looked_at:
        return
    if short:
        name, engine = short[0]
        window = f"{'' if engine.startswith('Replicated') else 'non_'}replicated_deduplication_window"
        remedy = f"ALTER TABLE {name} MODIFY SETTING {window} = {migrate.DEDUPLICATION_BLOCKS}"
        if engine.startswith("Replicated"):
            remedy += f", {window}_seconds = {migrate.DEDUPLICATION_SECONDS}"
        text = f"too short in {', '.join(each for each, _ in short)}: a repeated insert may be stored twice"
        yield fail("deduplication windows", text, remedy)
    else:
        yield ok(
            "deduplication windows", f"{migrate.DEDUPLICATION_BLOCKS:,} blocks in all {looked_at} tables"
        )


def _grants(client: Any, dsn: Dsn) -> Iterator[Check]:
    ((database,),) = _rows(client, "SELECT currentDatabase()")
    lacking = []
    for privilege in ("SELECT", "INSERT"):
        ((granted,),) = _rows(client, f"CHECK GRANT {privilege} ON `{database}`.*")
        if not granted:
            lacking.append(privilege)
    if lacking:
        remedy = f"GRANT {', '.join(lacking)} ON {database}.* TO {dsn.user or 'the user'}"
        yield fail("grants", f"no {' and no '.join(lacking)} on {database}", remedy)
    else:
        yield ok("grants", f"SELECT and INSERT on {database}")


def _clock(client: Any, dsn: Dsn) -> Iterator[Check]:
    before = time.time()
    ((milliseconds,),) = _rows(client, "SELECT toUnixTimestamp64Milli(now64(3))")
    after = time.time()
    difference = milliseconds / 1000 - (before + after) / 2
    # The answer took a while too; so much is not known.
    if abs(difference) > CLOCK_SECONDS + (after - before) / 2:
        text = f"ClickHouse's is {abs(difference):.1f} s {'ahead of' if difference > 0 else 'behind'} ours"
        yield warn("clocks", text, "let both follow NTP: ages of batches and --since are told by them")
    else:
        yield ok("clocks", f"{abs(difference) * 1000:.0f} ms apart")


def _disks(client: Any, dsn: Dsn) -> Iterator[Check]:
    for name, free, total in _rows(
        client, "SELECT name, free_space, total_space FROM system.disks ORDER BY name"
    ):
        if 0 < total < 1 << 60:  # object stores say that they have no end
            yield space(f"disk {name}", free, total, "add disk, or shorten how long tables keep their rows")


def _parts(client: Any, dsn: Dsn) -> Iterator[Check]:
    rows = _rows(
        client,
        "SELECT table, partition, count() AS parts FROM system.parts WHERE database = currentDatabase() AND active "
        "GROUP BY table, partition ORDER BY parts DESC LIMIT 1",
    )
    if not rows:
        return
    ((table, partition, parts),) = rows
    if parts > MANY_PARTS:
        text = f"{parts:,} in partition {partition} of {table}: inserts are slowed down, and refused at 3,000"
        yield warn("parts", text, "raise --batch-seconds, and give merges time or more cores")
    else:
        yield ok("parts", f"{parts:,} in one partition at most")


async def examine_group(kafka: KafkaConnection, topic: str, group: str) -> list[Check]:
    """How far behind the ingestor is, and whether a batch hangs."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    name = f"group {group}"
    admin = AIOKafkaAdminClient(**kafka.client_arguments())
    consumer = AIOKafkaConsumer(
        **kafka.client_arguments(), isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        await asyncio.wait_for(admin.start(), _WAIT_SECONDS)
        await asyncio.wait_for(consumer.start(), _WAIT_SECONDS)
        described = (await admin.describe_topics([topic]))[0]
        partitions = [TopicPartition(topic, each["partition"]) for each in described["partitions"]]
        if not partitions:
            return []
        committed = await committed_offsets(admin, group, partitions)
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    except Exception as exc:
        problem = str(translate_kafka(exc, kafka))
        return [fail(name, problem, "allow DESCRIBE and READ on the group and the topic")]
    finally:
        await consumer.stop()
        await admin.close()
    known = {partition: value for partition, value in committed.items() if value.offset >= 0}
    if not known:
        waiting = sum(ends[partition] - begins[partition] for partition in partitions)
        if not waiting:
            return [ok(name, "nothing to ingest yet")]
        text = f"has ingested nothing yet, {waiting:,} messages wait"
        return [warn(name, text, "start `tailrace ingest`, or check --group")]
    found = {partition: intents.decode(value.offset, value.metadata) for partition, value in known.items()}
    checks = []
    lost = [p.partition for p, intent in found.items() if intent.start < begins[p]]
    if lost:
        text = f"retention removed messages of partitions {lost} before they were ingested"
        checks.append(
            fail(name, text, "`tailrace audit` names them; keep messages for longer than an outage lasts")
        )
    late = [
        p.partition
        for p, intent in found.items()
        if intent.end is not None and time.time() - intent.at > OLD_INTENT_SECONDS
    ]
    if late:
        text = f"a batch of partitions {late} was begun over {OLD_INTENT_SECONDS / 60:.0f} minutes ago and is not done"
        checks.append(
            warn(name, text, "see the ingestor's log; if none runs, start one: it finishes the batch")
        )
    lag = sum(max(0, ends[p] - (found[p].start if p in found else begins[p])) for p in partitions)
    checks.append(ok(f"{name}, lag", f"{lag:,} messages, a batch under way included"))
    return checks

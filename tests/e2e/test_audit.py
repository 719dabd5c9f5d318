"""`tailrace audit` on real pipelines: a clean one is accounted for, and damage that was planted is named with its place."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from support import hostile
from support.cli import tailrace
from support.front import FrontProcess
from support.kafka import KafkaBroker
from tailrace.cli.audit import collect
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.ingestor.run import Ingestor
from tailrace.ingestor.settings import BatchLimits, IngestSettings
from tailrace.schemas.audit import AuditReport, Cause, Finding, Severity
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.deliver import CheckpointedDelivery
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import KafkaSettings, ShipperSettings
from tailrace.shipper.transact import TransactionalDelivery

_numbers = itertools.count()
OLD = "'2026-01-01 00:00:00.000'"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("audit") / "db") as front:
        yield front


@dataclass
class Pipeline:
    """Files, a database of its own, and what brings the one into the other."""

    directory: Path
    dsn: str
    client: Any
    rnd: random.Random
    broker: str = ""
    topic: str = ""
    checkpoint: Path = field(init=False)

    def __post_init__(self) -> None:
        self.logs = self.directory / "logs"
        self.logs.mkdir()
        self.checkpoint = self.directory / "progress.json"

    def write(self, name: str = "app.log", count: int = 60) -> list[tuple[int, int, bytes]]:
        """Appends lines of every sort, each tenth garbage, each eleventh blank; returns start, end and bytes of each."""
        path = self.logs / name
        at = path.stat().st_size if path.exists() else 0
        placed = []
        with path.open("ab") as file:
            for _ in range(count):
                number = next(_numbers)
                line = self._line(number)
                file.write(line)
                placed.append((at, at + len(line), line))
                at += len(line)
        return placed

    def _line(self, number: int) -> bytes:
        if number % 10 == 0:
            return b"garbage %d\n" % number
        if number % 11 == 0:
            return b" \n"
        if number % 3 == 0:
            tags = [{"name": "client", "value": f"c{number}", "type": "label"}]
            return hostile.line(hostile.v1("tags", tags=tags, trace_id=f"t{number}"))
        return hostile.line(
            hostile.v1(message=f"line {number} {'x' * self.rnd.randrange(60)}", trace_id=f"t{number}")
        )

    def up(self) -> None:
        """Files into the tables, in small batches."""
        settings = ShipperSettings(
            paths=(str(self.logs),), once=True, poll_only=True, batch_bytes=1500, chunk_bytes=800
        )
        sink = EmbeddedSink(ClickHouseWriter(self.client, "test"), settings.max_line_bytes)
        shipper = Shipper(settings, CheckpointedDelivery(sink, Checkpoint(self.checkpoint)))
        asyncio.run(asyncio.wait_for(shipper.run(), 60))

    def ship(self) -> None:
        """Files into the topic, a message a line."""
        kafka = KafkaSettings(KafkaConnection(brokers=self.broker), self.topic, message_bytes=0, partitions=2)
        settings = ShipperSettings(
            paths=(str(self.logs),),
            once=True,
            poll_only=True,
            shipper_id=self.topic,
            kafka=kafka,
            batch_bytes=2000,
        )
        delivery = TransactionalDelivery(kafka, settings.shipper_id, settings.max_line_bytes)
        asyncio.run(asyncio.wait_for(Shipper(settings, delivery).run(), 60))

    def ingest(self) -> None:
        """The topic into the tables, in small batches."""
        settings = IngestSettings(
            topic=self.topic, group=self.topic, once=True, limits=BatchLimits(rows=7, seconds=0.05)
        )
        ingestor = Ingestor(
            KafkaConnection(brokers=self.broker), ClickHouseWriter(self.client, "test"), settings
        )
        asyncio.run(asyncio.wait_for(ingestor.run(), 60))

    def audit(self, *, kafka: bool = False, files: bool = True, tables: bool = True) -> AuditReport:
        return collect(
            [str(self.logs)] if files else [],
            self.broker if kafka else "",
            self.dsn if tables else None,
            topic=self.topic or "none",
            group=self.topic or "none",
            checkpoint=None if self.topic else self.checkpoint,
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        if statement.startswith("SELECT"):
            return list(self.client.query(statement).result_rows)
        self.client.command(statement)
        return []

    def ranges(self) -> list[tuple[str, int, int]]:
        return [
            tuple(row) for row in self.sql("SELECT stream, start, end FROM ledger ORDER BY stream, start")
        ]


Make = Callable[..., Pipeline]


@pytest.fixture
def make(front: FrontProcess, tmp_path: Path) -> Iterator[Make]:
    made = []

    def pipeline(seed: int = 0, **more: str) -> Pipeline:
        name = f"audit_{next(_numbers)}"
        dsn = f"clickhouse://default@127.0.0.1:{front.port}/{name}"
        client = connect(Dsn.parse(dsn), create_database=True)
        migrate(client)
        directory = tmp_path / name
        directory.mkdir()
        made.append(Pipeline(directory, dsn, client, random.Random(seed), **more))
        return made[-1]

    yield pipeline
    for each in made:
        each.client.command(f"DROP DATABASE {each.client.database} SYNC")
        each.client.close()


def wrong(report: AuditReport) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity is not Severity.NOTE]


def assert_names(report: AuditReport, cause: Cause, **expected: Any) -> Finding:
    """One finding of this cause, with these fields; and the whole is not accounted for."""
    found = [finding for finding in report.findings if finding.cause is cause]
    assert len(found) == 1, report.findings
    assert {name: getattr(found[0], name) for name in expected} == expected, found[0]
    assert report.accounted is (found[0].severity is Severity.NOTE), report.findings
    return found[0]


def test_a_clean_system_is_accounted_for(make: Make) -> None:
    """Rows, dead letters, blank lines, equal lines, several files, a rotated one: all is accounted for, and the sums fit."""
    pipeline = make()
    pipeline.write()
    pipeline.up()
    pipeline.write(count=20)
    (pipeline.logs / "app.log").rename(pipeline.logs / "app.log.1")
    pipeline.write(count=5)
    pipeline.write("other.log", 30)
    with (pipeline.logs / "other.log").open("ab") as file:
        file.write(2 * hostile.neighbour(1) + b"without a line feed")
    pipeline.up()
    report = pipeline.audit()
    assert report.accounted, report.findings
    assert {finding.cause for finding in report.findings} == {Cause.EQUAL_LINES}
    assert (report.missing, report.pending) == (0, 0)
    files = report.files
    assert sum(file.lines for file in files) == 60 + 20 + 5 + 30 + 3
    assert all(file.lines == file.blank + file.rows + file.dead_letters for file in files)
    assert sum(hour.lines for hour in report.hours) == sum(hour.stored for hour in report.hours) > 0
    # The tables alone cannot tell a row that is missing from one that equals another, and say so.
    assert_names(pipeline.audit(files=False), Cause.ROWS_FEWER, lines=1)


def lines_between(placed: list[tuple[int, int, bytes]], rnd: random.Random) -> list[tuple[int, int, bytes]]:
    """A few neighbouring lines that are rows of logs or objects of one kind, blank lines between them allowed."""
    start = rnd.randrange(len(placed) - 12)
    chosen = placed[start : start + 8]
    while not chosen[0][2].startswith(b"{"):
        chosen = chosen[1:]
    end = next((n for n, line in enumerate(chosen) if line[2].startswith(b"garbage")), len(chosen))
    chosen = chosen[:end]
    while chosen[-1][2].isspace():
        chosen = chosen[:-1]
    return chosen


def delete_rows(pipeline: Pipeline, lines: list[tuple[int, int, bytes]]) -> int:
    traces = [json.loads(line)["trace_id"] for _, _, line in lines if line.startswith(b"{")]
    listed = ", ".join(f"'{trace}'" for trace in traces)
    hashes = ", ".join(
        str(row[0]) for row in pipeline.sql(f"SELECT line_hash FROM tag_lines WHERE trace_id IN ({listed})")
    )
    for table in ("logs", "tag_lines"):
        pipeline.sql(f"DELETE FROM {table} WHERE trace_id IN ({listed})")
    if hashes:
        pipeline.sql(f"DELETE FROM tags WHERE line_hash IN ({hashes})")
    return len(traces)


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_are_gone(make: Make, seed: int) -> None:
    """Any few rows that vanish from the tables are named by the bytes of their lines, exactly."""
    pipeline = make(seed)
    placed = pipeline.write()
    pipeline.up()
    lines = lines_between(placed, pipeline.rnd)
    count = delete_rows(pipeline, lines)
    where = {"unit": "byte", "start": lines[0][0], "end": lines[-1][1], "lines": count}
    report = pipeline.audit()
    assert_names(report, Cause.ROW_MISSING, where=str(pipeline.logs / "app.log"), **where)
    assert report.missing == count
    alone = assert_names(pipeline.audit(files=False), Cause.ROWS_FEWER)
    assert alone.lines == count


@pytest.mark.parametrize("seed", range(2))
def test_a_range_that_was_skipped(make: Make, seed: int) -> None:
    """A range without ledger row is a gap of the ledger; without its rows too it was never ingested."""
    pipeline = make(seed)
    pipeline.write(count=100)
    pipeline.up()
    ranges = pipeline.ranges()
    assert len(ranges) > 4
    _, start, end = pipeline.rnd.choice(ranges)
    pipeline.sql(f"DELETE FROM ledger WHERE start = {start}")
    assert_names(pipeline.audit(), Cause.LEDGER_GAP, start=start, end=end, unit="byte")
    inside = (pipeline.logs / "app.log").read_bytes()[start:end].splitlines()
    delete_rows(pipeline, [(0, 0, line) for line in inside])
    pipeline.sql(f"DELETE FROM dead_letters WHERE byte >= {start} AND byte < {end}")
    found = [finding for finding in wrong(pipeline.audit()) if finding.cause is Cause.NOT_INGESTED]
    kept = [line for line in inside if line.strip()]
    assert sum(finding.lines for finding in found) == len(kept)
    assert min(finding.start or 0 for finding in found) >= start
    assert max(finding.end or 0 for finding in found) <= end


Damage = Callable[[Pipeline, list[tuple[int, int, bytes]]], dict[str, Any]]


def _truncate(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    size = placed[30][0]
    with (pipeline.logs / "app.log").open("r+b") as file:
        file.truncate(size)
    return {"start": size, "end": placed[-1][1], "unit": "byte"}


def _replace(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    path = pipeline.logs / "app.log"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(data.replace(b"line", b"LINE"))
    return {"start": 0, "end": placed[-1][1]}


def _extra_row(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql(
        "INSERT INTO logs (project_id, trace_id, trace_ts, ts, line_hash, level, message, ingested_at) "
        f"VALUES ('p', 'forged', now64(6), now64(6), 12345, 'info', 'm', {OLD})"
    )
    return {"lines": 1}


def _letter_gone(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql("DELETE FROM dead_letters WHERE byte IN (SELECT min(byte) FROM dead_letters)")
    return {}


def _letter_added(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql(
        "INSERT INTO dead_letters SELECT * REPLACE (byte + 1 AS byte) FROM dead_letters ORDER BY byte LIMIT 1"
    )
    return {"lines": 1}


def _letter_of_nobody(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql("INSERT INTO dead_letters SELECT * REPLACE ('nobody' AS file_id) FROM dead_letters LIMIT 1")
    return {"where": "file:nobody", "lines": 1}


def _tags_gone(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql(
        "DELETE FROM tags WHERE line_hash IN (SELECT line_hash FROM tags ORDER BY line_hash LIMIT 3)"
    )
    return {"lines": 3, "where": "tags"}


def _tags_added(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    pipeline.sql("INSERT INTO tags SELECT * REPLACE (77 AS line_hash) FROM tags LIMIT 1")
    return {"lines": 1, "where": "tags"}


def _sum_wrong(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    stream, start, end = pipeline.ranges()[2]
    pipeline.sql(
        f"INSERT INTO ledger SELECT * REPLACE (blank + 1000 AS blank) FROM ledger WHERE start = {start} AND stream = '{stream}'"
    )
    return {"start": start, "end": end, "unit": "byte"}


def _count_wrong(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    stream, start, end = pipeline.ranges()[1]
    pipeline.sql(
        "INSERT INTO ledger SELECT * REPLACE (blank + 5 AS blank, lines + 5 AS lines) FROM ledger "
        f"WHERE start = {start} AND stream = '{stream}'"
    )
    return {"start": start, "end": end, "lines": 5}


def _overlap(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    _, start, _ = pipeline.ranges()[1]
    pipeline.sql(
        f"INSERT INTO ledger SELECT * REPLACE (toUInt64({start - 5}) AS start, toUInt64({start}) AS end, toUInt64(0) AS rows, "
        f"toUInt64(1) AS lines, toUInt64(1) AS blank, toUInt64(0) AS dead_letters) FROM (SELECT * FROM ledger WHERE start = {start})"
    )
    return {"start": start - 5, "end": start}


def _appended(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    with (pipeline.logs / "app.log").open("ab") as file:
        file.write(hostile.neighbour(7) + hostile.neighbour(8))
    return {"start": placed[-1][1], "lines": 2, "severity": Severity.PENDING}


def _half_line(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    with (pipeline.logs / "app.log").open("ab") as file:
        file.write(b'{"half')
    return {"start": placed[-1][1], "lines": 1, "severity": Severity.PENDING}


def _new_file(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    (pipeline.logs / "new.log").write_bytes(hostile.neighbour(9))
    return {"where": str(pipeline.logs / "new.log"), "start": 0, "lines": 1}


def _dropped_part(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    ((count,),) = pipeline.sql("SELECT count() FROM logs")
    pipeline.sql("ALTER TABLE logs DROP PARTITION 20261120")
    return {"total": count}


def _gone_file(pipeline: Pipeline, placed: list[tuple[int, int, bytes]]) -> dict[str, Any]:
    (pipeline.logs / "keep.log").write_bytes(b"\n")
    (pipeline.logs / "app.log").unlink()
    return {"start": 0, "end": placed[-1][1], "severity": Severity.NOTE}


DAMAGES: list[tuple[Cause, Damage]] = [
    (Cause.FILE_TRUNCATED, _truncate),
    (Cause.FILE_REPLACED, _replace),
    (Cause.ROW_EXTRA, _extra_row),
    (Cause.LETTER_MISSING, _letter_gone),
    (Cause.LETTER_EXTRA, _letter_added),
    (Cause.LETTER_EXTRA, _letter_of_nobody),
    (Cause.TAGS_MISSING, _tags_gone),
    (Cause.TAGS_EXTRA, _tags_added),
    (Cause.LEDGER_SUM, _sum_wrong),
    (Cause.LEDGER_COUNT, _count_wrong),
    (Cause.LEDGER_OVERLAP, _overlap),
    (Cause.NOT_YET_SHIPPED, _appended),
    (Cause.UNFINISHED_LINE, _half_line),
    (Cause.NOT_YET_SHIPPED, _new_file),
    (Cause.ROW_MISSING, _dropped_part),
    (Cause.FILE_GONE, _gone_file),
]


@pytest.mark.parametrize(("cause", "damage"), DAMAGES, ids=[damage.__name__[1:] for _, damage in DAMAGES])
def test_damage_is_named(make: Make, cause: Cause, damage: Damage) -> None:
    """What was done to files or tables is named, with its place, and only what it explains besides."""
    pipeline = make()
    placed = pipeline.write()
    pipeline.up()
    expected = damage(pipeline, placed)
    report = pipeline.audit()
    found = [finding for finding in report.findings if finding.cause is cause]
    assert found, report.findings
    if "total" in expected:
        assert sum(finding.lines for finding in found) == expected["total"]
    elif expected:
        matching = [x for x in found if all(getattr(x, name) == value for name, value in expected.items())]
        assert matching, found
    noted = expected.get("severity") is Severity.NOTE
    if not noted:
        assert not report.accounted
    else:
        assert not [finding for finding in wrong(report) if finding.cause is not Cause.NOT_YET_SHIPPED]


def test_bytes_that_were_lost_are_told_later(make: Make) -> None:
    """What a shipper knows to be lost is kept with its progress, by cause, and an audit says so."""
    pipeline = make()
    pipeline.write(count=10)
    pipeline.up()
    with (pipeline.logs / "app.log").open("ab") as file:
        file.write(hostile.neighbour(1))
    settings = ShipperSettings(paths=(str(pipeline.logs),), poll_only=True, poll_seconds=0.05)
    sink = EmbeddedSink(ClickHouseWriter(pipeline.client, "test"), settings.max_line_bytes)
    from tailrace.shipper.tail import Loss, Tailer

    checkpoint = Checkpoint(pipeline.checkpoint).open()
    progress = checkpoint.load()
    checkpoint.close()
    tailer = Tailer(settings, progress.files.values(), 100.0)
    tailer.scan(100.0)
    (pipeline.logs / "app.log").write_bytes(b"")
    tailer.poll(101.0)
    tailer.scan(200.0)
    batch = tailer.read(200.0)
    tailer.close()
    assert batch is not None
    assert batch.step.lost == {Loss.TRUNCATED: len(hostile.neighbour(1))}

    async def deliver() -> None:
        delivery = CheckpointedDelivery(sink, Checkpoint(pipeline.checkpoint))
        await delivery.load()
        await delivery.deliver(None, batch.step)
        await delivery.close()

    asyncio.run(deliver())
    assert_names(pipeline.audit(), Cause.LOST_TRUNCATED)


# ---------------------------------------------------------------- through Kafka


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    return f"audit-{next(_numbers)}"


async def _trim(broker: str, topic: str, partition: int, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})
    await admin.close()


async def _positions(broker: str, topic: str) -> dict[int, list[int]]:
    """Offsets of the messages, by partition."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=broker, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    await consumer.start()
    found: dict[int, list[int]] = {}
    ends = await consumer.end_offsets(list(consumer.assignment()))
    while any([await consumer.position(p) < end for p, end in ends.items()]):
        for partition, records in (await consumer.getmany(timeout_ms=100)).items():
            found.setdefault(partition.partition, []).extend(record.offset for record in records)
    await consumer.stop()
    return found


async def _commit(broker: str, topic: str, partition: int, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, group_id=topic, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([TopicPartition(topic, partition)])
    await consumer.commit({TopicPartition(topic, partition): offset})
    await consumer.stop()


@pytest.mark.kafka
def test_three_stages(make: Make, kafka: KafkaBroker, topic: str) -> None:
    """Files, topic and tables agree; what is on its way is named at each stage; trimmed messages that are stored are no loss."""
    pipeline = make(broker=kafka.bootstrap, topic=topic)
    placed = pipeline.write()
    pipeline.write("second.log", 30)
    pipeline.ship()
    between = pipeline.audit(kafka=True)
    assert {finding.cause for finding in wrong(between)} == {Cause.NOT_YET_INGESTED}
    solid = sum(not line.isspace() for _, _, line in placed)
    assert between.pending == sum(file.lines - file.blank for file in between.files) >= solid
    assert pipeline.audit(kafka=True, tables=False).accounted, "the files are in the topic"
    pipeline.ingest()
    clean = pipeline.audit(kafka=True)
    assert clean.accounted, clean.findings
    assert clean.compared == ("files", "kafka", "clickhouse")
    assert pipeline.audit(kafka=True, files=False).accounted
    positions = asyncio.run(_positions(kafka.bootstrap, topic))
    partition, offsets = max(positions.items(), key=lambda item: len(item[1]))
    asyncio.run(_trim(kafka.bootstrap, topic, partition, offsets[10]))
    trimmed = pipeline.audit(kafka=True)
    assert trimmed.accounted, trimmed.findings
    assert_names(trimmed, Cause.REMOVED_AFTER_STORED, lines=10)


@pytest.mark.kafka
def test_removed_before_it_was_ingested(make: Make, kafka: KafkaBroker, topic: str) -> None:
    """Messages that retention took before the ingestor came are named by their offsets, and their lines by their bytes."""
    pipeline = make(broker=kafka.bootstrap, topic=topic)
    placed = pipeline.write()
    pipeline.ship()
    ((partition, offsets),) = asyncio.run(_positions(kafka.bootstrap, topic)).items()
    asyncio.run(_trim(kafka.bootstrap, topic, partition, offsets[12]))
    pipeline.ingest()
    report = pipeline.audit(kafka=True)
    found = {x.unit: x for x in report.findings if x.cause is Cause.REMOVED_BY_RETENTION}
    assert (found["offset"].start, found["offset"].end) == (0, offsets[12])
    solid = [line for line in placed if not line[2].isspace()]
    assert (found["byte"].start, found["byte"].end) == (solid[0][0], solid[11][1])
    assert (found["byte"].lines, report.missing) == (12, 12)
    assert not report.accounted


@pytest.mark.kafka
def test_offsets_that_were_skipped(make: Make, kafka: KafkaBroker, topic: str) -> None:
    """A group that was moved forward has left messages out: they are named by their offsets."""
    pipeline = make(broker=kafka.bootstrap, topic=topic)
    pipeline.write()
    pipeline.ship()
    ((partition, offsets),) = asyncio.run(_positions(kafka.bootstrap, topic)).items()
    asyncio.run(_commit(kafka.bootstrap, topic, partition, offsets[15]))
    pipeline.ingest()
    report = pipeline.audit(kafka=True)
    where = {"start": offsets[0], "end": offsets[14] + 1, "lines": 15, "unit": "offset"}
    assert_names(report, Cause.NOT_INGESTED, where=f"{topic}/{partition}", **where)
    assert report.missing == 15


@pytest.mark.kafka
def test_rows_that_are_gone_behind_kafka(make: Make, kafka: KafkaBroker, topic: str) -> None:
    """Rows that vanish are named by the offsets of their messages."""
    pipeline = make(3, broker=kafka.bootstrap, topic=topic)
    placed = pipeline.write()
    pipeline.ship()
    pipeline.ingest()
    lines = lines_between(placed, pipeline.rnd)
    count = delete_rows(pipeline, lines)
    ((_, offsets),) = asyncio.run(_positions(kafka.bootstrap, topic)).items()
    solid = [line[0] for line in placed if not line[2].isspace()]
    first, last = (offsets[solid.index(line[0])] for line in (lines[0], lines[-1]))
    report = pipeline.audit(kafka=True)
    assert_names(report, Cause.ROW_MISSING, start=first, end=last + 1, lines=count, unit="offset")
    assert report.missing == count == sum(file.missing for file in report.files)


@pytest.mark.kafka
def test_what_the_topic_lost_or_has_twice(make: Make, kafka: KafkaBroker, topic: str) -> None:
    """Lines that progress calls shipped and the topic never had are named by their bytes; lines sent twice are noted."""
    pipeline = make(broker=kafka.bootstrap, topic=topic)
    first = pipeline.write(count=20)
    pipeline.ship()
    messages = [m for m in kafka.read_all(topic) if m.value]

    async def send_again() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        for message in messages[:3]:
            await producer.send_and_wait(topic, message.value, key=message.key, partition=message.partition)
        await producer.stop()

    asyncio.run(send_again())
    pipeline.ingest()
    report = pipeline.audit(kafka=True)
    assert report.accounted, report.findings
    assert_names(report, Cause.SENT_TWICE, lines=3)
    # Another topic that got the progress, and not the lines.
    other = make(broker=kafka.bootstrap, topic=f"{topic}-other")
    other.logs.rmdir()
    other.logs.symlink_to(pipeline.logs)
    kafka.create_topic(other.topic, 2)
    kafka.create_topic(f"{other.topic}-checkpoints", 1, {"cleanup.policy": "compact"})

    async def copy_progress() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        for message in kafka.read_all(f"{topic}-checkpoints"):
            await producer.send_and_wait(
                f"{other.topic}-checkpoints", message.value, key=message.key, partition=0
            )
        await producer.stop()

    asyncio.run(copy_progress())
    report = other.audit(kafka=True)
    solid = [line for line in first if not line[2].isspace()]
    assert_names(report, Cause.NOT_IN_KAFKA, start=solid[0][0], end=solid[-1][1], lines=len(solid))


def test_the_command(make: Make) -> None:
    """Exit code 0 when all is accounted for, 1 when not, also for what is only on its way unless that is allowed; JSON."""
    pipeline = make()
    pipeline.write(count=20)
    pipeline.up()
    arguments = ("audit", pipeline.logs, "--clickhouse", pipeline.dsn, "--checkpoint", pipeline.checkpoint)
    shown = tailrace(*arguments).stdout
    assert "every line is accounted for (files, clickhouse)" in shown
    document = json.loads(tailrace(*arguments, "--format", "json").stdout)
    assert document["accounted"] and document["files"][0]["lines"] == 20
    with (pipeline.logs / "app.log").open("ab") as file:
        file.write(hostile.neighbour(1))
    shown = tailrace(*arguments, check=1).stdout
    assert "pending: not_yet_shipped" in shown and "NOT accounted for: 0 missing, 1 on their way" in shown
    tailrace(*arguments, "--allow-pending")
    tailrace("audit", "--no-tables", check=2)

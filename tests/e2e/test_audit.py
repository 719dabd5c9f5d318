"""`tailrace audit` on real pipelines: a clean one is accounted for, and damage that was planted is named with its place.

Two systems are made once: files → tables, as `up` does it, and files → topic → tables, with messages of several lines. For each
damage files and tables are put back as they were; what is done to a topic is done to one of its own.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from typer.testing import CliRunner

from support import hostile
from support.cli import tailrace
from support.front import FrontProcess
from support.kafka import KafkaBroker
from tailrace.cli.audit import audit
from tailrace.ingestor.backfill.claims import StoredHistory
from tailrace.ingestor.backfill.run import Backfill
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.ingestor.run import Ingestor
from tailrace.ingestor.settings import BatchLimits, IngestSettings
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate
from tailrace.schemas.errors import SchemaMismatch
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.deliver import CheckpointedDelivery
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import KafkaSettings, ShipperSettings
from tailrace.shipper.tail import Loss, Tailer
from tailrace.shipper.transact import TransactionalDelivery

_numbers = itertools.count()
COMMAND = typer.Typer()
COMMAND.command()(audit)
OLD = "'2026-01-01 00:00:00.000'"
TABLES = ("logs", "tag_lines", "tags", "dead_letters", "ledger")


@dataclass(frozen=True)
class Line:
    """A line that was written, and where it stands in its file."""

    start: int
    end: int
    data: bytes

    @property
    def solid(self) -> bool:
        return not self.data.isspace()

    @property
    def row(self) -> bool:
        return self.data.startswith(b"{")

    @property
    def trace_id(self) -> str:
        return str(json.loads(self.data)["trace_id"])


@dataclass(frozen=True)
class Message:
    """A message of the topic, and the bytes of its lines."""

    partition: int
    offset: int
    file_id: str
    start: int
    end: int


@dataclass
class System:
    """Files, a database of its own, and what brings the one into the other."""

    directory: Path
    dsn: str
    client: Any
    broker: str = ""
    topic: str = ""
    group: str = ""
    placed: dict[str, list[Line]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.logs = self.directory / "logs"
        self.logs.mkdir(parents=True)
        self.checkpoint = self.directory / "progress.json"
        self.group = self.group or self.topic

    @property
    def kept(self) -> str:
        """The database of what `keep` remembers."""
        return f"kept_{self.client.database}"

    @property
    def log(self) -> Path:
        return self.logs / "app.log"

    @property
    def lines(self) -> list[Line]:
        """Of `app.log`."""
        return self.placed["app.log"]

    def write(self, name: str = "app.log", count: int = 100) -> None:
        """Appends lines of every sort, each tenth garbage, each eleventh blank."""
        path = self.logs / name
        placed = self.placed.setdefault(name, [])
        with path.open("ab") as file:
            for _ in range(count):
                data = _line(next(_numbers))
                at = placed[-1].end if placed else 0
                placed.append(Line(at, at + len(data), data))
                file.write(data)

    def up(self) -> None:
        """Files into the tables, in small batches."""
        settings = ShipperSettings(
            paths=(str(self.logs),), once=True, poll_only=True, batch_bytes=1500, chunk_bytes=800
        )
        sink = EmbeddedSink(ClickHouseWriter(self.client, "test"), settings.max_line_bytes)
        shipper = Shipper(settings, CheckpointedDelivery(sink, Checkpoint(self.checkpoint)))
        asyncio.run(asyncio.wait_for(shipper.run(), 60))

    def backfill(self, *paths: Path) -> None:
        """Old files into the tables."""
        settings = BackfillSettings(tuple(map(str, paths)), workers=0, range_bytes=2048, section_bytes=8192)
        other = connect(Dsn.parse(self.dsn))
        run = Backfill(settings, StoredHistory(self.client, "test"), [ClickHouseWriter(other, "test")])
        report = asyncio.run(asyncio.wait_for(run.run(), 60))
        other.close()
        assert not report.errors

    def ship(self) -> None:
        """Files into the topic, several lines a message."""
        kafka = KafkaSettings(
            KafkaConnection(brokers=self.broker), self.topic, message_bytes=700, partitions=2
        )
        settings = ShipperSettings(
            paths=(str(self.logs),),
            once=True,
            poll_only=True,
            shipper_id=self.topic,
            kafka=kafka,
            batch_bytes=4000,
        )
        delivery = TransactionalDelivery(kafka, settings.shipper_id, settings.max_line_bytes)
        asyncio.run(asyncio.wait_for(Shipper(settings, delivery).run(), 60))

    def ingest(self) -> None:
        """The topic into the tables, in small batches."""
        settings = IngestSettings(
            topic=self.topic, group=self.group, once=True, limits=BatchLimits(rows=20, seconds=0.05)
        )
        ingestor = Ingestor(
            KafkaConnection(brokers=self.broker), ClickHouseWriter(self.client, "test"), settings
        )
        asyncio.run(asyncio.wait_for(ingestor.run(), 60))

    def audit(self, *more: str, files: bool = True, kafka: bool = True, tables: bool = True) -> Audit:
        """The command's answer."""
        arguments = ["--format", "json", *more]
        arguments += [str(self.logs)] if files else []
        if self.topic and kafka:
            arguments += ["--kafka", self.broker, "--topic", self.topic, "--group", self.group]
        elif not self.topic:
            arguments += ["--checkpoint", str(self.checkpoint)]
        arguments += ["--clickhouse", self.dsn] if tables else ["--no-tables"]
        done = CliRunner().invoke(COMMAND, arguments)
        assert done.exit_code in (0, 1) and done.stdout, done.exception
        return Audit(done.exit_code, json.loads(done.stdout))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        if statement.startswith("SELECT"):
            return list(self.client.query(statement).result_rows)
        self.client.command(statement)
        return []

    def ranges(self) -> list[tuple[str, int, int]]:
        """Of the ledger, in the stream that has most of them."""
        rows = self.sql("SELECT stream, start, end FROM ledger ORDER BY stream, start")
        longest = max({row[0] for row in rows}, key=lambda stream: sum(row[0] == stream for row in rows))
        return [tuple(row) for row in rows if row[0] == longest]

    def keep(self) -> None:
        """Remembers tables and files as they are."""
        self.sql(f"CREATE DATABASE {self.kept}")
        for table in TABLES:
            self.sql(f"CREATE TABLE {self.kept}.{table} AS {table}")
            self.sql(
                f"ALTER TABLE {self.kept}.{table} ATTACH PARTITION ALL FROM {self.client.database}.{table}"
            )
        shutil.copytree(self.logs, self.directory / "kept")
        self.links = self.directory / "links"
        self.links.mkdir()
        for path in self.logs.iterdir():
            os.link(path, self.links / path.name)

    def restore(self) -> None:
        """Tables and files as they were kept; the files are the same inodes."""
        self.sql("SYSTEM START MERGES logs")
        for table in TABLES:
            self.sql(f"TRUNCATE TABLE {table}")
            self.sql(f"ALTER TABLE {table} ATTACH PARTITION ALL FROM {self.kept}.{table}")
        for path in self.logs.iterdir():
            path.unlink()
        for link in self.links.iterdir():
            link.write_bytes((self.directory / "kept" / link.name).read_bytes())
            os.link(link, self.logs / link.name)

    def file_id(self) -> str:
        """Of `app.log`, by its first dead letter."""
        first = next(line for line in self.lines if line.solid and not line.row)
        ((file_id,),) = self.sql(
            f"SELECT DISTINCT file_id FROM dead_letters WHERE raw = '{first.data.decode().strip()}'"
        )
        return str(file_id)

    def messages(self) -> list[Message]:
        """Those of `app.log`, in order."""
        found = []
        for message in KafkaView(self.broker).messages(self.topic):
            file_id, _, byte = (message.key or b"").decode().rpartition("@")
            start = int(byte)
            lines = (message.value or b"") + b"\n"
            found.append(Message(message.partition, message.offset, file_id, start, start + len(lines)))
        return [message for message in found if message.file_id == self.file_id()]

    def place(self, first: Line, last: Line) -> dict[str, Any]:
        """How the place of these lines is told: by bytes, or by the offsets of their messages."""
        if not self.topic:
            return {"where": str(self.log), "unit": "byte", "start": first.start, "end": last.end}
        messages = self.messages()
        (head,) = (m for m in messages if m.start <= first.start < m.end)
        (tail,) = (m for m in messages if m.start <= last.start < m.end)
        where = f"{self.topic}/{head.partition}"
        return {"where": where, "unit": "offset", "start": head.offset, "end": tail.offset + 1}


@dataclass(frozen=True)
class Audit:
    """What an audit printed."""

    code: int
    report: dict[str, Any]

    @property
    def findings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.report["findings"]
        return found

    @property
    def faults(self) -> set[str]:
        """What is more than a note."""
        return {finding["cause"] for finding in self.findings if finding["severity"] != "note"}

    def of(self, cause: str) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["cause"] == cause]


class KafkaView:
    """What a test does to a topic behind everybody's back."""

    def __init__(self, broker: str) -> None:
        self.broker = broker

    def messages(self, topic: str) -> list[Any]:
        async def read() -> list[Any]:
            consumer = AIOKafkaConsumer(
                topic,
                bootstrap_servers=self.broker,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
            )
            await consumer.start()
            found: list[Any] = []
            ends = await consumer.end_offsets(list(consumer.assignment()))
            while any([await consumer.position(p) < end for p, end in ends.items()]):
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    found += records
            await consumer.stop()
            return found

        return asyncio.run(read())

    def trim(self, topic: str, partition: int, offset: int) -> None:
        async def delete() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
            await admin.start()
            await admin.delete_records(
                {TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)}
            )
            await admin.close()

        asyncio.run(delete())

    def commit(self, topic: str, group: str, partition: int, offset: int) -> None:
        async def commit() -> None:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.broker, group_id=group, enable_auto_commit=False
            )
            await consumer.start()
            consumer.assign([TopicPartition(topic, partition)])
            await consumer.commit({TopicPartition(topic, partition): offset})
            await consumer.stop()

        asyncio.run(commit())

    def send(self, topic: str, messages: list[Any], partition: int | None = None) -> None:
        async def send() -> None:
            producer = AIOKafkaProducer(bootstrap_servers=self.broker)
            await producer.start()
            for message in messages:
                to = message.partition if partition is None else partition
                await producer.send_and_wait(topic, message.value, key=message.key, partition=to)
            await producer.stop()

        asyncio.run(send())


def _line(number: int) -> bytes:
    if number % 10 == 0:
        return b"garbage %d\n" % number
    if number % 11 == 0:
        return b" \n"
    if number % 3 == 0:
        tags = [
            {"name": "client", "value": f"c{number}"},
            {"name": "ms", "value": number / 7, "type": "metric"},
        ]
        return hostile.line(hostile.v1("tags", tags=tags, trace_id=f"t{number}"))
    text = f"line {number} é {'x' * (number * 7 % 60)}"
    return hostile.line(hostile.v1(message=text, trace_id=f"t{number}"))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("audit") / "db") as front:
        yield front


Make = Callable[..., System]


@pytest.fixture(scope="module")
def make(front: FrontProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    made = []

    def system(**more: str) -> System:
        name = f"audit_{next(_numbers)}"
        dsn = f"clickhouse://default@127.0.0.1:{front.port}/{name}"
        client = connect(Dsn.parse(dsn), create_database=True)
        migrate(client)
        made.append(System(tmp_path_factory.mktemp(name), dsn, client, **more))
        return made[-1]

    yield system
    for each in made:
        each.client.close()


@pytest.fixture(scope="module")
def embedded(make: Make) -> System:
    """Files → tables."""
    system = make()
    system.write()
    system.write("other.log", 30)
    system.up()
    system.keep()
    return system


@pytest.fixture(scope="module")
def streamed(make: Make, kafka: KafkaBroker) -> System:
    """Files → topic → tables."""
    system = make(broker=kafka.bootstrap, topic=f"audit-{next(_numbers)}")
    system.write()
    system.write("other.log", 30)
    system.ship()
    system.ingest()
    system.keep()
    messages = system.messages()
    assert len(messages) < len(system.lines) / 3, "messages hold several lines"
    assert len(system.ranges()) > 4
    return system


# ---------------------------------------------------------------- damages: what is done, and how it must be named

Expected = dict[str, Any]
Damage = Callable[[System], Expected]


def _few(system: System) -> list[Line]:
    """A few neighbouring lines in the middle of the file that are rows, blank lines between them allowed."""
    lines = system.lines[35:]
    start = next(
        n
        for n in range(len(lines))
        if all(line.row or not line.solid for line in lines[n : n + 6]) and lines[n].row
    )
    chosen = lines[start : start + 6]
    while not chosen[-1].row:
        chosen.pop()
    return chosen


def _delete(system: System, lines: list[Line]) -> int:
    listed = ", ".join(f"'{line.trace_id}'" for line in lines if line.row)
    system.sql(
        f"DELETE FROM tags WHERE line_hash IN (SELECT line_hash FROM tag_lines WHERE trace_id IN ({listed}))"
    )
    for table in ("logs", "tag_lines"):
        system.sql(f"DELETE FROM {table} WHERE trace_id IN ({listed})")
    return sum(line.row for line in lines)


def rows_deleted(system: System) -> Expected:
    chosen = _few(system)
    return {"lines": _delete(system, chosen), **system.place(chosen[0], chosen[-1])}


def partition_dropped(system: System) -> Expected:
    ((count,),) = system.sql("SELECT count() FROM logs")
    system.sql("ALTER TABLE logs DROP PARTITION 20261120")
    return {"total": count}


def row_altered(system: System) -> Expected:
    line = next(line for line in _few(system) if b"message" in line.data)
    system.sql(
        f"INSERT INTO logs SELECT * REPLACE ('something else' AS message) FROM logs WHERE trace_id = '{line.trace_id}'"
    )
    system.sql(f"DELETE FROM logs WHERE trace_id = '{line.trace_id}' AND message != 'something else'")
    return {"lines": 1, **system.place(line, line)}


def tag_altered(system: System) -> Expected:
    line = next(line for line in _few(system) if b"tags" in line.data)
    system.sql(
        "INSERT INTO tag_lines SELECT * REPLACE (arrayMap(x -> 'z', `tags.str`) AS `tags.str`) FROM tag_lines "
        f"WHERE trace_id = '{line.trace_id}'"
    )
    system.sql(f"DELETE FROM tag_lines WHERE trace_id = '{line.trace_id}' AND `tags.str`[1] != 'z'")
    return {"lines": 1, **system.place(line, line)}


def row_extra(system: System) -> Expected:
    system.sql(
        "INSERT INTO logs (project_id, trace_id, trace_ts, ts, line_hash, level, message, ingested_at) "
        f"VALUES ('p', 'forged', now64(6), now64(6), 12345, 'info', 'm', {OLD})"
    )
    return {"lines": 1, "where": "tables", "detail": "trace forged"}


def rows_twice(system: System) -> Expected:
    system.sql("SYSTEM STOP MERGES logs")
    system.sql("INSERT INTO logs SELECT * FROM logs LIMIT 5")
    return {"lines": 5, "severity": "note"}


def letter_gone(system: System) -> Expected:
    line = next(line for line in system.lines[50:] if line.solid and not line.row)
    system.sql(f"DELETE FROM dead_letters WHERE raw = '{line.data.decode().strip()}'")
    return {"lines": 1, **system.place(line, line)}


def letter_added(system: System) -> Expected:
    system.sql(
        "INSERT INTO dead_letters SELECT * REPLACE (byte + 1 AS byte, item + 50 AS item) FROM dead_letters ORDER BY byte LIMIT 1"
    )
    return {"lines": 1}


def letter_of_nobody(system: System) -> Expected:
    system.sql(
        "INSERT INTO dead_letters SELECT * REPLACE ('nobody' AS file_id, 'none' AS topic, 0 AS partition) FROM dead_letters LIMIT 1"
    )
    return {"where": "none/0" if system.topic else "file:nobody", "lines": 1}


def tags_gone(system: System) -> Expected:
    system.sql("DELETE FROM tags WHERE line_hash IN (SELECT line_hash FROM tags ORDER BY line_hash LIMIT 1)")
    return {"lines": 1, "where": "tags"}


def one_tag_of_a_line_gone(system: System) -> Expected:
    system.sql("DELETE FROM tags WHERE name = 'ms' AND line_hash IN (SELECT max(line_hash) FROM tags)")
    return {"lines": 1, "where": "tags"}


def tags_added(system: System) -> Expected:
    system.sql("INSERT INTO tags SELECT * REPLACE (77 AS line_hash) FROM tags LIMIT 1")
    return {"lines": 1, "where": "tags"}


def ledger_row_gone(system: System) -> Expected:
    stream, start, end = system.ranges()[2]
    system.sql(f"DELETE FROM ledger WHERE stream = '{stream}' AND start = {start}")
    return {"start": start, "end": end}


def range_skipped(system: System) -> Expected:
    """As if an ingestor had never seen the range: neither rows nor letters nor ledger."""
    stream, start, end = system.ranges()[2]
    system.sql(f"DELETE FROM ledger WHERE stream = '{stream}' AND start = {start}")
    if system.topic:
        held = [
            m for m in system.messages() if start <= m.offset < end and stream.endswith(f"/{m.partition}")
        ]
        inside = [line for line in system.lines if any(m.start <= line.start < m.end for m in held)]
        system.sql(
            f"DELETE FROM dead_letters WHERE partition = {held[0].partition} AND offset >= {start} AND offset < {end}"
        )
    else:
        inside = [line for line in system.lines if start <= line.start < end]
        system.sql(
            f"DELETE FROM dead_letters WHERE byte >= {start} AND byte < {end} AND file_id = '{stream[5:]}'"
        )
    _delete(system, inside)
    solid = [line for line in inside if line.solid]
    return {"lines": len(solid), **system.place(solid[0], solid[-1])}


def _in_ledger(system: System, replace: str) -> Expected:
    stream, start, end = system.ranges()[1]
    system.sql(
        f"CREATE OR REPLACE TABLE one ENGINE = Memory AS SELECT * FROM ledger WHERE start = {start} AND stream = '{stream}'"
    )
    system.sql(f"INSERT INTO ledger SELECT * REPLACE ({replace.format(start=start)}) FROM one")
    return {"start": start, "end": end}


def ledger_sum(system: System) -> Expected:
    return _in_ledger(system, "blank + 1000 AS blank")


def ledger_count(system: System) -> Expected:
    return {"lines": 5, **_in_ledger(system, "blank + 5 AS blank, lines + 5 AS lines")}


def ledger_overlap(system: System) -> Expected:
    """A range that is a line longer at its beginning than it was, beside the one that was."""
    stream, start, end = system.ranges()[2]
    before = next((line.start for line in system.lines if line.end == start), start - 1)
    system.sql(
        f"CREATE OR REPLACE TABLE one ENGINE = Memory AS SELECT * FROM ledger WHERE start = {start} AND stream = '{stream}'"
    )
    system.sql(f"INSERT INTO ledger SELECT * REPLACE (toUInt64({before}) AS start) FROM one")
    return {"start": start, "end": end}


def file_truncated(system: System) -> Expected:
    os.truncate(system.log, system.lines[30].start)
    return {"start": system.lines[30].start, "end": system.lines[-1].end, "unit": "byte"}


def file_swapped(system: System) -> Expected:
    """Each of two files has the content of the other."""
    other = system.logs / "other.log"
    mine, theirs = system.log.read_bytes(), other.read_bytes()
    system.log.write_bytes(theirs.ljust(len(mine), b" "))
    other.write_bytes(mine[: len(theirs)])
    return {"where": str(system.log), "start": 0, "end": system.lines[-1].end}


def line_changed(system: System) -> Expected:
    """In the middle of the file, afterwards, and of the same length."""
    line = next(line for line in system.lines[40:-20] if b"message" in line.data)
    with system.log.open("r+b") as file:
        file.seek(line.start)
        file.write(line.data.replace(b"line", b"LINE"))
    return {"lines": 1, "where": str(system.log), "unit": "byte", "start": line.start, "end": line.end}


def tail_not_shipped(system: System) -> Expected:
    with system.log.open("ab") as file:
        file.write(hostile.neighbour(7) + hostile.neighbour(8))
    return {"start": system.lines[-1].end, "lines": 2, "severity": "pending"}


def half_a_line(system: System) -> Expected:
    with system.log.open("ab") as file:
        file.write(b'{"half')
    return {"start": system.lines[-1].end, "lines": 1, "severity": "pending"}


def new_file(system: System) -> Expected:
    (system.logs / "new.log").write_bytes(hostile.neighbour(9))
    return {"where": str(system.logs / "new.log"), "start": 0, "lines": 1, "severity": "pending"}


def file_gone(system: System) -> Expected:
    system.log.unlink()
    return {"where": str(system.log), "start": 0, "end": system.lines[-1].end, "severity": "note"}


def rotated(system: System) -> Expected:
    system.log.rename(system.logs / "app.log.1")
    return {}


BOTH: list[tuple[str, Damage]] = [
    ("row_missing", rows_deleted),
    ("row_missing", partition_dropped),
    ("row_altered", row_altered),
    ("row_altered", tag_altered),
    ("row_extra", row_extra),
    ("stored_twice", rows_twice),
    ("letter_missing", letter_gone),
    ("letter_extra", letter_added),
    ("letter_extra", letter_of_nobody),
    ("tags_missing", tags_gone),
    ("tags_missing", one_tag_of_a_line_gone),
    ("tags_extra", tags_added),
    ("ledger_gap", ledger_row_gone),
    ("not_ingested", range_skipped),
    ("ledger_sum", ledger_sum),
    ("ledger_count", ledger_count),
    ("ledger_overlap", ledger_overlap),
    ("file_truncated", file_truncated),
    ("file_replaced", file_swapped),
    ("not_yet_shipped", tail_not_shipped),
    ("unfinished_line", half_a_line),
    ("not_yet_shipped", new_file),
    ("file_gone", file_gone),
    ("", rotated),
]
ONE: list[tuple[str, Damage]] = [("row_missing", line_changed)]
THREE: list[tuple[str, Damage]] = [("file_changed", line_changed)]
# What cannot but come along: tags and sums of the same rows, and what a stage says of the other's lines.
ALONG = {
    "row_missing": {"tags_missing", "rows_fewer", "row_extra"},
    "row_altered": {"tags_missing"},
    "not_ingested": {"ledger_gap"},
    "letter_missing": {"row_missing"},
    "ledger_sum": {"ledger_count"},
    "ledger_overlap": {"ledger_count", "letter_extra"},
    "file_truncated": {"not_in_file", "not_yet_shipped", "rows_fewer", "row_extra"},
    "file_replaced": {
        "file_truncated",
        "not_yet_shipped",
        "row_extra",
        "rows_fewer",
        "not_in_kafka",
        "unfinished_line",
    },
    "file_changed": {"row_extra", "not_in_file"},
}


def assert_named(system: System, cause: str, damage: Damage) -> None:
    system.restore()
    expected = damage(system)
    audit = system.audit()
    found = audit.of(cause)
    noted = not cause or expected.get("severity") == "note"
    assert audit.code == (0 if noted else 1), audit.findings
    assert audit.report["accounted"] is noted
    assert audit.faults <= ({cause} if not noted else set()) | ALONG.get(cause, set()), audit.findings
    if not cause:
        assert audit.findings == []
    elif "total" in expected:
        assert sum(finding["lines"] for finding in found) == expected["total"]
    else:
        says = expected.pop("detail", "")
        matching = [x for x in found if expected.items() <= x.items() and says in x["detail"]]
        assert len(matching) == 1, (expected, audit.findings)


def test_tables_that_cannot_be_read_are_told_before_the_topic_is_read(front: FrontProcess) -> None:
    """A database that lacks migrations is refused at once, whatever there is to read in Kafka."""
    dsn = f"clickhouse://default@127.0.0.1:{front.port}/audit_{next(_numbers)}"
    connect(Dsn.parse(dsn), create_database=True).close()
    found = CliRunner().invoke(COMMAND, ["--kafka", "127.0.0.1:1", "--clickhouse", dsn])
    assert found.exit_code != 0
    assert isinstance(found.exception, SchemaMismatch), found.exception


@pytest.mark.parametrize(("cause", "damage"), BOTH + ONE, ids=[damage.__name__ for _, damage in BOTH + ONE])
def test_damage_is_named(embedded: System, cause: str, damage: Damage) -> None:
    """Files and tables: the kind of a damage, its place, its lines and the exit code; and nothing that it does not explain."""
    assert_named(embedded, cause, damage)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("cause", "damage"), BOTH + THREE, ids=[damage.__name__ for _, damage in BOTH + THREE]
)
def test_damage_behind_kafka_is_named(streamed: System, cause: str, damage: Damage) -> None:
    """The same with a topic between them, whose messages hold several lines each."""
    assert_named(streamed, cause, damage)


# ---------------------------------------------------------------- systems as they are in life


def test_clean_systems_are_silent(embedded: System, streamed: System) -> None:
    """Rows, dead letters, blank lines, several files and messages of several lines: accounted for, and nothing to remark."""
    for system in (embedded, streamed):
        system.restore()
        audit = system.audit()
        assert (audit.code, audit.findings) == (0, [])
        report = audit.report
        assert (report["missing"], report["pending"]) == (0, 0)
        written = sum(map(len, system.placed.values()))
        assert sum(file["lines"] for file in report["files"]) == written
        for count in (*report["files"], *report["partitions"]):
            assert count["lines"] == count["blank"] + count["rows"] + count["dead_letters"]
        assert (
            sum(hour["lines"] for hour in report["hours"])
            == sum(hour["stored"] for hour in report["hours"])
            > 0
        )
    # Messages of nothing but blank lines are not sent; those within a message are.
    solid = sum(line.solid for lines in streamed.placed.values() for line in lines)
    in_kafka = sum(count["lines"] - count["blank"] for count in streamed.audit().report["partitions"])
    assert in_kafka == solid
    for less in ({"files": False}, {"tables": False}, {"kafka": False}):
        assert streamed.audit(**less).code == 0, less
    assert embedded.audit(files=False).code == 0


def test_growing_rotated_and_equal_lines(make: Make) -> None:
    """A file that is rotated while it grows, lines that equal another, a last line without an end: all accounted for."""
    system = make()
    system.write()
    system.up()
    system.write(count=20)
    system.log.rename(system.logs / "app.log.1")
    (system.logs / "other.log").write_bytes(2 * hostile.neighbour(1) + b"without a line feed")
    system.up()
    audit = system.audit()
    # Lines that equal another are two rows until a merge, and readers count them once.
    causes = {finding["cause"] for finding in audit.findings}
    assert (audit.code, causes - {"stored_twice"}) == (0, {"equal_lines"})
    # The tables alone cannot tell a row that is missing from one that equals another, and say so.
    alone = system.audit(files=False)
    assert (alone.code, alone.faults) == (1, {"rows_fewer"})


@pytest.mark.parametrize("first", ["up", "backfill"])
def test_copies_that_were_backfilled(make: Make, first: str) -> None:
    """A compressed copy of a file that was shipped live is backfilled, with more behind it, or the file is shipped after its copy,
    and grows: lines that stand in both are accounted for, and those that one of the two brought alone. A row that is lost afterwards
    is found, with the files at its place, and without them by number. Where the file is gone that was shipped after its copy, the
    tables alone cannot tell, and say so."""
    system = make()
    system.write()
    if first == "up":
        system.up()
    archive = system.directory / "archive"
    archive.mkdir()
    more = b"".join(_line(next(_numbers)) for _ in range(40)) if first == "up" else b""
    (archive / "app.log.gz").write_bytes(gzip.compress(system.log.read_bytes() + more))
    system.backfill(archive)
    system.write(count=20)
    system.up()
    audit = system.audit()
    assert (audit.code, audit.faults) == (0, set()), audit.findings
    alone = system.audit(files=False)
    assert (alone.code, alone.faults) == (0, set()), alone.findings
    chosen = _few(system)
    lost = _delete(system, chosen)
    (found,) = system.audit().of("row_missing")
    expected = {"lines": lost, **system.place(chosen[0], chosen[-1])}
    assert expected.items() <= found.items()
    (fewer,) = system.audit(files=False).of("rows_fewer")
    assert fewer["lines"] == lost
    if first == "backfill":
        system.log.unlink()
        (fewer,) = system.audit(files=False).of("rows_fewer")
        assert fewer["lines"] > lost and "equal another line" in fewer["detail"]


def test_bytes_that_were_lost_are_told_later(make: Make) -> None:
    """What a shipper knows to be lost is kept with its progress, by cause, and an audit says so."""
    system = make()
    system.write(count=10)
    system.up()
    with system.log.open("ab") as file:
        file.write(hostile.neighbour(1))
    settings = ShipperSettings(paths=(str(system.logs),), poll_only=True, poll_seconds=0.05)
    sink = EmbeddedSink(ClickHouseWriter(system.client, "test"), settings.max_line_bytes)
    checkpoint = Checkpoint(system.checkpoint).open()
    progress = checkpoint.load()
    checkpoint.close()
    tailer = Tailer(settings, progress.files.values(), 100.0)
    tailer.scan(100.0)
    system.log.write_bytes(b"")
    tailer.poll(101.0)
    tailer.scan(200.0)
    batch = tailer.read(200.0)
    tailer.close()
    assert batch is not None
    assert batch.step.lost == {Loss.TRUNCATED: len(hostile.neighbour(1))}

    async def deliver() -> None:
        delivery = CheckpointedDelivery(sink, Checkpoint(system.checkpoint))
        await delivery.load()
        await delivery.deliver(None, batch.step)
        await delivery.close()

    asyncio.run(deliver())
    audit = system.audit()
    assert (audit.code, audit.faults) == (1, {"lost_truncated"})


@pytest.fixture
def shipped(make: Make, kafka: KafkaBroker) -> System:
    """A topic of its own, from which nothing was ingested yet."""
    system = make(broker=kafka.bootstrap, topic=f"audit-{next(_numbers)}")
    system.write()
    system.ship()
    return system


def _partition(messages: list[Any]) -> list[Any]:
    (number,) = {message.partition for message in messages}
    assert len(messages) > 8
    return [message for message in messages if message.partition == number]


def _bytes(messages: list[Any], system: System) -> Expected:
    """Where the lines of these messages stand in the file, and how many there are besides the blank ones."""
    start = int(messages[0].key.rpartition(b"@")[2])
    end = int(messages[-1].key.rpartition(b"@")[2]) + len(messages[-1].value) + 1
    inside = [line for line in system.lines if start <= line.start < end and line.solid]
    return {"unit": "byte", "start": inside[0].start, "end": inside[-1].end, "lines": len(inside)}


@pytest.mark.kafka
def test_lag_and_retention(shipped: System) -> None:
    """What waits is on its way; what retention takes before it was ingested is lost, by offsets and bytes; what it takes
    afterwards is no loss."""
    view = KafkaView(shipped.broker)
    messages = _partition(view.messages(shipped.topic))
    solid = sum(line.solid for line in shipped.lines)
    waiting = shipped.audit()
    assert (waiting.code, waiting.faults, waiting.report["pending"]) == (1, {"not_yet_ingested"}, solid)
    assert shipped.audit("--allow-pending").code == 0
    view.trim(shipped.topic, messages[0].partition, messages[3].offset)
    shipped.ingest()
    lost = shipped.audit()
    assert (lost.code, lost.faults) == (1, {"removed_by_retention"})
    found = {finding["unit"]: finding for finding in lost.of("removed_by_retention")}
    assert (found["offset"]["start"], found["offset"]["end"]) == (0, messages[3].offset)
    expected = _bytes(messages[:3], shipped)
    assert expected.items() <= found["byte"].items()
    assert lost.report["missing"] == expected["lines"]
    view.trim(shipped.topic, messages[0].partition, messages[6].offset)
    later = shipped.audit()
    assert later.faults == {"removed_by_retention"}
    (stored,) = later.of("removed_after_stored")
    assert stored["lines"] == _bytes(messages[3:6], shipped)["lines"]


@pytest.mark.kafka
def test_offsets_that_were_skipped(shipped: System) -> None:
    """A group that was moved forward has left messages out: they are named by their offsets, and their lines counted."""
    view = KafkaView(shipped.broker)
    messages = _partition(view.messages(shipped.topic))
    view.commit(shipped.topic, shipped.group, messages[0].partition, messages[4].offset)
    shipped.ingest()
    audit = shipped.audit()
    assert (audit.code, audit.faults) == (1, {"not_ingested"})
    (found,) = audit.of("not_ingested")
    lines = _bytes(messages[:4], shipped)["lines"]
    assert (found["start"], found["end"], found["lines"]) == (
        messages[0].offset,
        messages[3].offset + 1,
        lines,
    )
    assert audit.report["missing"] == lines
    view.commit(shipped.topic, shipped.group, messages[0].partition, messages[-1].offset + 500)
    beyond = shipped.audit()
    assert "topic_shorter" in beyond.faults


@pytest.mark.kafka
def test_a_topic_that_lacks_a_middle_chunk_or_has_it_twice(
    make: Make, shipped: System, kafka: KafkaBroker
) -> None:
    """Messages that progress calls shipped and the topic does not have are named by the bytes of their lines; lines that came
    twice are noted."""
    view = KafkaView(shipped.broker)
    messages = _partition(view.messages(shipped.topic))
    copy = make(broker=kafka.bootstrap, topic=f"{shipped.topic}-copy")
    copy.logs.rmdir()
    copy.logs.symlink_to(shipped.logs)
    kafka.create_topic(copy.topic, 2)
    kafka.create_topic(f"{copy.topic}-checkpoints", 1, {"cleanup.policy": "compact"})
    view.send(copy.topic, messages[:4] + messages[6:] + messages[7:8])
    view.send(f"{copy.topic}-checkpoints", view.messages(f"{shipped.topic}-checkpoints"), 0)
    copy.ingest()
    audit = copy.audit()
    assert (audit.code, audit.faults) == (1, {"not_in_kafka"})
    (found,) = audit.of("not_in_kafka")
    assert _bytes(messages[4:6], shipped).items() <= found.items()
    (twice,) = audit.of("sent_twice")
    assert twice["severity"] == "note"


def test_what_the_command_prints(embedded: System) -> None:
    """In a process of its own: sums, findings and the verdict for people; nothing to look at is a mistake."""
    embedded.restore()
    tail_not_shipped(embedded)
    arguments = ("audit", embedded.logs, "--clickhouse", embedded.dsn, "--checkpoint", embedded.checkpoint)
    shown = tailrace(*arguments, check=1).stdout
    assert "pending: not_yet_shipped" in shown and "NOT accounted for: 0 missing, 2 on their way" in shown
    tailrace("audit", "--no-tables", check=2)

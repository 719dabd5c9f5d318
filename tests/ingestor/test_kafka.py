"""The Kafka ingestor against a real broker and a real engine: each message once, whatever ends or joins meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from support import hostile
from support.engine import Engine
from support.kafka import KafkaBroker
from support.writers import AwayWriter, Crash, CrashingWriter
from tailrace.ingestor.insert import ClickHouseWriter, TableWriter
from tailrace.ingestor.run import Ingestor
from tailrace.ingestor.settings import BatchLimits, IngestSettings, RetryPolicy
from tailrace.schemas.errors import ClickHouseRejected, KafkaRefused
from tailrace.schemas.kafka import KafkaConnection

pytestmark = pytest.mark.kafka
Database = Callable[[], Any]
_topics = itertools.count()
PARTITIONS = 3


@pytest.fixture
def topic(kafka: KafkaBroker) -> str:
    name = f"ingest-{next(_topics)}"
    kafka.create_topic(name, PARTITIONS)
    return name


async def produce(kafka: KafkaBroker, topic: str, numbers: range, partitions: int = PARTITIONS) -> None:
    """Lines of which each tenth is garbage, in transactions, every second of which is aborted first."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    await producer.start()
    for part in (numbers[start : start + 100] for start in range(0, len(numbers), 100)):
        await producer.begin_transaction()
        await producer.send(topic, b"aborted", partition=0)
        await producer.abort_transaction()
        await producer.begin_transaction()
        for number in part:
            line = hostile.line(hostile.v1(message=f"line {number}", trace_id=f"trace-{number}"))
            await producer.send(
                topic, b"garbage" if number % 10 == 0 else line, partition=number % partitions
            )
        await producer.commit_transaction()
    await producer.stop()


def ingestor(kafka: KafkaBroker, topic: str, writer: TableWriter, **settings: Any) -> Ingestor:
    defaults: dict[str, Any] = {
        "topic": topic,
        "group": topic,
        "limits": BatchLimits(rows=40, seconds=0.05),
        "retry": RetryPolicy(first=0.01, longest=0.05),
        "session_timeout": 6.0,
    }
    return Ingestor(KafkaConnection(brokers=kafka.bootstrap), writer, IngestSettings(**(defaults | settings)))


def assert_each_once(client: Any, count: int) -> None:
    """Every line is a row or a dead letter, once; the ledger's ranges follow on each other without overlap."""
    garbage = len(range(0, count, 10))
    rows = client.query("SELECT count(), uniqExact(trace_id) FROM logs").result_rows
    assert rows == [(count - garbage, count - garbage)]
    assert client.query("SELECT count() FROM dead_letters").result_rows == [(garbage,)]
    ledger = client.query("SELECT stream, start, end, lines FROM ledger ORDER BY stream, start").result_rows
    for _, group in itertools.groupby(ledger, key=lambda row: row[0]):
        ranges = list(group)
        assert all(left[2] == right[1] for left, right in itertools.pairwise(ranges)), ranges
    assert sum(row[3] for row in ledger) == count


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_ingestor_that_ends_at_any_insert(
    kafka: KafkaBroker, topic: str, database: Database, after: bool
) -> None:
    """Ended before or after the n-th insert, for every n, the next one goes on: nothing is lost or repeated."""
    client = database()

    async def scenario() -> None:
        await produce(kafka, topic, range(600))
        for at in itertools.count():
            writer = CrashingWriter(ClickHouseWriter(client, "test"), at % 8, after)
            try:
                await asyncio.wait_for(ingestor(kafka, topic, writer, once=True).run(), 60)
            except Crash:
                continue
            assert at > 5, "the scenario must end some ingestors before it lets one finish"
            return

    asyncio.run(scenario())
    assert_each_once(client, 600)


def test_clickhouse_away_for_a_while(kafka: KafkaBroker, topic: str, database: Database) -> None:
    """Failed inserts are repeated, also those that were done; offsets wait for them."""
    client = database()

    async def scenario() -> Ingestor:
        await produce(kafka, topic, range(300))
        away = ingestor(kafka, topic, AwayWriter(ClickHouseWriter(client, "test"), failures=25), once=True)
        await asyncio.wait_for(away.run(), 60)
        return away

    assert asyncio.run(scenario()).stats.retries == 25
    assert_each_once(client, 300)


def test_members_join_and_leave(kafka: KafkaBroker, topic: str, engine: Engine, database: Database) -> None:
    """While lines arrive, members join, stop cleanly and are cut off; each line is stored once."""
    client = database()
    count = 2000

    async def scenario() -> None:
        running: list[tuple[Ingestor, asyncio.Task[None]]] = []

        def join() -> None:
            writer = ClickHouseWriter(engine.connect(client.database), "test")
            member = ingestor(kafka, topic, writer)
            running.append((member, asyncio.create_task(member.run())))

        async def leave(cut_off: bool) -> None:
            member, task = running.pop(0)
            if cut_off:
                task.cancel()
            else:
                member.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 30)

        def stored() -> int:
            total: int = client.query("SELECT sum(lines) FROM ledger").result_rows[0][0]
            return total

        join()
        producing = asyncio.create_task(produce(kafka, topic, range(count)))
        for cut_off in (False, True, False, True):
            join()
            await asyncio.sleep(0.5)
            await leave(cut_off)
        await producing
        async with asyncio.timeout(60):
            while await asyncio.to_thread(stored) < count:
                for _, task in running:
                    assert not task.done() or task.result() is None
                await asyncio.sleep(0.1)
        while running:
            await leave(cut_off=False)

    asyncio.run(scenario())
    assert_each_once(client, count)


def test_a_backlog_does_not_hold_up_other_partitions(
    kafka: KafkaBroker, topic: str, database: Database
) -> None:
    """While two partitions have 25 batches waiting each, the few lines of a third are stored within ten batches, not behind them."""
    client = database()
    behind = 1000

    async def scenario() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
        await producer.start()
        for partition, count in ((0, behind), (2, behind), (1, 20)):
            for number in range(count):
                line = hostile.line(hostile.v1(message=f"{number}", trace_id=f"trace-{partition}-{number}"))
                await producer.send(topic, line, partition=partition)
        await producer.stop()
        await asyncio.wait_for(ingestor(kafka, topic, ClickHouseWriter(client, "test"), once=True).run(), 60)

    asyncio.run(scenario())
    rows = client.query("SELECT stream, lines FROM ledger ORDER BY stored_at, start").result_rows
    assert sum(lines for _, lines in rows) == 2 * behind + 20
    assert len(rows) >= 2 * behind // 40
    assert max(place for place, (stream, _) in enumerate(rows) if stream == f"{topic}/1") < 10, rows


class RefusingWriter:
    """A server that has no such table."""

    is_alone = False

    def insert(self, table: str, rows: Any, token: str) -> None:
        raise ClickHouseRejected("no such table")

    def is_stored(self, token: str) -> bool:
        return False

    def batches_since(self, moment: float) -> int:
        return 0

    def missing(self, table: str, rows: Any) -> list[int]:
        return []

    def complete(self, table: str, rows: Any) -> None:
        pass

    def recount(self, table: str, rows: Any) -> None:
        pass


def test_a_refusal_stops_the_process_and_commits_nothing(
    kafka: KafkaBroker, topic: str, database: Database
) -> None:
    """What is refused for good ends the ingestor with the reason; a later one finds every line."""
    client = database()

    async def scenario() -> None:
        await produce(kafka, topic, range(100))
        with pytest.raises(ClickHouseRejected, match="no such table"):
            await asyncio.wait_for(ingestor(kafka, topic, RefusingWriter(), once=True).run(), 60)
        writer = ClickHouseWriter(client, "test")
        await asyncio.wait_for(ingestor(kafka, topic, writer, once=True).run(), 60)

    asyncio.run(scenario())
    assert_each_once(client, 100)


def test_no_such_topic(kafka: KafkaBroker, database: Database) -> None:
    """Told to run once, an ingestor says that the topic is missing instead of waiting for it."""
    with pytest.raises(KafkaRefused, match="no topic 'nowhere'"):
        asyncio.run(ingestor(kafka, "nowhere", ClickHouseWriter(database(), "test"), once=True).run())

"""Lines that arrive more than once from outside: nobody can recognise them by a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from crash import stores
from crash.actors import Cast
from crash.check import Outcome
from crash.writer import write_files
from crash.written import PROJECT, trace_of
from support.front import FrontProcess
from support.kafka import KafkaBroker
from tailrace.explorer import Explorer
from tailrace.schemas.clickhouse.connection import Dsn, connect

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

SLICES = [
    "",
    "client==client-3",
    "client!=client-3 && latency_ms>=300 && taggroup(who)",
    f"trace({trace_of(0, 40)})",
]


def test_shipped_again_and_delivered_twice(
    cast: Cast,
    kafka: KafkaBroker,
    topic: str,
    front: FrontProcess,
    database: Callable[[], str],
    tmp_path: Path,
    outcome: Outcome,
) -> None:
    """The same files shipped from scratch under another id, and every message produced twice more by somebody who
    knows no transactions: every question has the answer that it has when each line came once, before the parts are
    merged and after, and no more rows are left then."""
    counts = write_files(tmp_path / "logs", [700, 400])
    once, often = (f"clickhouse://127.0.0.1:{front.port}/{database()}" for _ in range(2))
    cast.shipper(tmp_path / "logs", once=True).run()
    cast.ingestor(once, "first-ingestor", "--once", "--group", f"{topic}-once").run()
    outcome.count_topic(kafka.read_lines(topic), counts)
    outcome.assert_exact()

    cast.shipper(tmp_path / "logs", "another", shipper_id=f"{topic}-again", once=True).run()
    outcome.faults["ship again from scratch"] += 1
    values = sorted(set(kafka.values(topic)))
    asyncio.run(_produce(kafka.bootstrap, topic, values * 2))
    outcome.faults["deliver again by another producer"] += 2
    cast.ingestor(often, "second-ingestor", "--once", "--batch-rows", "2000").run()

    model = stores.expected(counts)
    stored = stores.read(often)
    # ClickHouse makes one row of equal ones within an insert, and leaves those of different inserts apart.
    for name, found in stored.tables.items():
        assert found.rows > 2 * found.distinct == 2 * model.tables[name].rows, name
    answers = _answers(once)
    assert answers["slices"][0]["traces"] > 0
    assert _answers(often) == answers
    stores.merge(often)
    assert _answers(often) == answers
    merged = stores.read(often)
    outcome.rows = sum(found.rows for name, found in merged.tables.items() if name != "tags")
    outcome.dead_letters = merged.dead_letters.rows
    assert merged.tables == model.tables
    # A dead letter is known by where it came from, and these came from four places.
    assert merged.dead_letters.rows == 4 * model.dead_letters.rows
    assert merged.dead_letters.distinct == model.dead_letters.distinct
    outcome.notes = f"{4 * sum(counts.values()):,} messages in the end; rows are those after a merge"


async def _produce(brokers: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=brokers, linger_ms=20)
    await producer.start()
    try:
        sent = [await producer.send(topic, value) for value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def _answers(dsn: str) -> dict[str, Any]:
    client = connect(Dsn.parse(dsn))
    try:
        explorer = Explorer(client)
        traces = [trace_of(0, 0), trace_of(1, 320)]
        tags = explorer.tags(project=PROJECT)
        answers = {
            "tags": tags,
            "values": [explorer.tag(tag.name, project=PROJECT) for tag in tags],
            "compared": explorer.compare("client!=client-3", "client==client-3"),
            "deployments": explorer.deployments(project=PROJECT),
            "slices": [explorer.slice(text, by="client", metrics=["latency_ms"]) for text in SLICES],
            "traces": [explorer.traces(text, limit=50) for text in SLICES],
            "trace": [explorer.trace(trace, project=PROJECT) for trace in traces],
            "object": explorer.object(trace_of(0, 8), "ref-8", project=PROJECT),
        }
        return _rounded(msgspec.to_builtins(answers))
    finally:
        client.close()


def _rounded(answer: Any) -> Any:
    """The order of rows decides the last bit of a deviation and of what is computed from it, and of nothing else."""
    match answer:
        case dict():
            return {key: _rounded(value) for key, value in answer.items()}
        case list() | tuple():
            return [_rounded(value) for value in answer]
        case float():
            return pytest.approx(answer, rel=1e-12)
        case _:
            return answer

"""A partition that is taken away while messages of it still arrive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pytest

from support import hostile
from tailrace.ingestor import run
from tailrace.ingestor.consume import Fetched
from tailrace.ingestor.decode import Message
from tailrace.ingestor.intents import PartitionIntent
from tailrace.ingestor.settings import BatchLimits, IngestSettings
from tailrace.schemas.kafka import KafkaConnection
from tailrace.schemas.streams import KafkaOffset

TOPIC = "t"


class LedgerWriter:
    """Keeps the ledger, and lets nobody insert before it is told to."""

    is_alone = False

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()
        self.ledger: list[tuple[int, int, int]] = []

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self.begun.set()
        assert self.released.wait(20)
        if table == "ledger":
            columns = (rows[name].to_pylist() for name in ("start", "end", "lines"))
            self.ledger += zip(*columns, strict=True)

    def is_stored(self, token: str) -> bool:
        return False

    def batches_since(self, moment: float) -> int:
        return 0

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        return []

    def complete(self, table: str, rows: pa.Table) -> None:
        pass

    def recount(self, table: str, rows: pa.Table) -> None:
        pass


class LeavingConsumer:
    """A group that takes the only partition away after the second fetch, and a broker that goes on delivering until
    the member has let go."""

    def __init__(
        self, connection: KafkaConnection, settings: IngestSettings, assigned: Any, revoked: Any
    ) -> None:
        self._assigned, self._revoked = assigned, revoked
        self._fetches = 0
        self.leaving: asyncio.Task[None] | None = None
        self.end_commit = asyncio.Event()

    async def start(self) -> None:
        await self._assigned({0: PartitionIntent(KafkaOffset(0))})

    async def stop(self) -> None: ...

    async def fetch(self, wait: float, paused: Iterable[int]) -> dict[int, Fetched]:
        self._fetches += 1
        if self._fetches == 1:
            return fetched(0, 10)  # a full batch
        if self._fetches == 2:
            return fetched(10, 15)  # the beginning of another
        if self._fetches == 3:
            assert await asyncio.to_thread(WRITER.begun.wait, 20)
            self.leaving = asyncio.create_task(self._revoked())
            return {}
        if self._fetches == 4:
            WRITER.released.set()
            await self.end_commit.wait()
            return fetched(15, 30)
        await asyncio.sleep(0.01)
        return {}

    async def commit(self, offsets: Mapping[int, tuple[KafkaOffset, str]]) -> None:
        if offsets[0] == (10, ""):
            self.end_commit.set()
            await asyncio.sleep(0.2)  # the broker's answer; the loop goes on meanwhile

    async def position(self, partition: int) -> KafkaOffset | None:
        return None

    async def ends(self, partitions: Iterable[int]) -> dict[int, KafkaOffset]:
        return {}


WRITER = LedgerWriter()


def fetched(start: int, end: int) -> dict[int, Fetched]:
    messages = [Message(offset, hostile.neighbour(offset).rstrip(), None) for offset in range(start, end)]
    return {0: Fetched(messages, KafkaOffset(end), timestamp=0.0)}


def test_nothing_is_begun_behind_what_was_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that were gathered and given up are not skipped: what arrives behind them while the group waits for us
    makes no batch, since its range would begin before them."""
    monkeypatch.setattr(run, "PartitionConsumer", LeavingConsumer)
    settings = IngestSettings(topic=TOPIC, limits=BatchLimits(rows=10, seconds=60.0))
    ingestor = run.Ingestor(KafkaConnection(brokers="127.0.0.1:1"), WRITER, settings)

    async def main() -> None:
        running = asyncio.create_task(ingestor.run())
        consumer: Any = ingestor._consumer
        await asyncio.wait_for(consumer.end_commit.wait(), 20)
        await consumer.leaving
        await asyncio.sleep(0.3)
        ingestor.stop()
        await running

    asyncio.run(main())
    assert WRITER.ledger == [(0, 10, 10)]

"""Lines and progress in one Kafka transaction: each line once, with nothing kept on this machine.

A transaction holds the lines of a batch and, in the compacted checkpoint topic, one record for each file in
it and one for the shipper:

| key                        | value                                                    |
|----------------------------|----------------------------------------------------------|
| `<shipper id>`             | `Owner`: which process writes, and its count of batches  |
| `<shipper id>/<file id>`   | `FileState`, or nothing when the file is forgotten       |

Either all of them become visible or none. Why that is enough:

- *A crash before the commit*: the broker drops the transaction, when the next process starts or by timeout.
  The next process reads the old progress, and the same lines again.
- *A crash after the commit*: lines and progress are there. The next process goes on behind them.
- *A lost answer to the commit*: nobody knows. We start a new producer, which makes the broker finish or drop
  the transaction, then read our own record back: its count says which of the two it was.
- *Two processes with one shipper id*: starting the second fences the first. Whatever the first still sends is
  refused, before the second reads the progress that it goes on from.
- *A process that was stopped for longer than the transaction timeout*: it is refused like a fenced one. Its
  own record says that nobody took over, so it goes on as after a lost answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka

from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import CheckpointError, Fenced, KafkaUnavailable, RetryableError, TailraceError
from tailrace.schemas.spans import NO_SPANS, Spans
from tailrace.schemas.streams import FileChunk
from tailrace.shipper.checkpoint import Progress, add_losses
from tailrace.shipper.identity import FileState
from tailrace.shipper.produce import ATTEMPT_SECONDS, KafkaWriter, Messages, backoff, translate
from tailrace.shipper.settings import KafkaSettings
from tailrace.shipper.tail import Step

log = logging.getLogger(__name__)

VERSION = 1
TAKEOVER_SECONDS = 3.0
"""A process that took over writes its record at once. Until then we do not know that there is one."""


class Owner(msgspec.Struct, frozen=True):
    """Which process writes under a shipper id.

    Args:
        version: Of the records in the checkpoint topic.
        instance: Made anew by each process.
        sequence: Counts the transactions over all processes.
        host: Of the process.
        pid: Of the process, there.
        started: When it took over, in seconds since the epoch.
        lost: Bytes that were lost for sure, by cause (`tail.Loss`), over all processes.
    """

    version: int
    instance: str
    sequence: int
    host: str
    pid: int
    started: float
    lost: dict[str, int] = {}


class _FileRecord(msgspec.Struct, frozen=True):
    version: int
    file: FileState


class _Version(msgspec.Struct):
    version: int


class TransactionalDelivery:
    """Exactly-once delivery to Kafka, as this module says.

    Args:
        settings: Where to write.
        shipper_id: The identity; also the transactional id.
        max_line_bytes: The longest line that comes whole.
        spans: Messages name the span that is current while they are made.
    """

    ignore: tuple[Path, ...] = ()

    def __init__(
        self, settings: KafkaSettings, shipper_id: str, max_line_bytes: int, spans: Spans = NO_SPANS
    ) -> None:
        self._settings = settings
        self._id = shipper_id
        self._writer = KafkaWriter(settings, max_line_bytes, shipper_id, spans)
        self._owner = Owner(VERSION, uuid.uuid4().hex, 0, socket.gethostname(), os.getpid(), time.time())

    @property
    def writer(self) -> KafkaWriter:
        """What it writes with."""
        return self._writer

    async def load(self) -> Progress:
        """Fence an earlier process, then read how far it got.

        Waits while Kafka is away.

        Raises:
            Fenced: Yet another process took over meanwhile.
            KafkaRefused: We may not write there.
            CheckpointError: A newer version of the program wrote the progress.
        """
        await self._writer.open_for_ever()
        found, progress = await self._read_for_ever()
        if found is not None:
            self._owner = msgspec.structs.replace(self._owner, sequence=found.sequence, lost=found.lost)
        # Our record goes first, so that whoever was fenced can tell that it was, and by whom.
        await self.deliver(None, Step((), ()))
        return progress

    def prepare(self, chunks: Sequence[FileChunk]) -> Messages:
        """The lines as messages."""
        return self._writer.encode(chunks)

    async def deliver(self, prepared: Messages | None, step: Step) -> None:
        """One transaction, repeated until it is known to be committed, and never committed twice.

        Raises:
            Fenced: Another process took over.
            KafkaRefused: The broker refuses us for good.
        """
        lost = add_losses(self._owner.lost, step.lost)
        mine = msgspec.structs.replace(self._owner, sequence=self._owner.sequence + 1, lost=lost)
        attempt = 0
        while True:
            try:
                await asyncio.wait_for(self._transact(prepared, step, mine), ATTEMPT_SECONDS)
                break
            except (kafka.KafkaError, OSError, TimeoutError, TailraceError) as exc:
                error = translate(exc, self._settings.connection)
                if isinstance(error, Fenced):
                    await self._refuse_takeover(exc)
                    self._writer.fenced += 1
                    log.warning("the broker gave up our transaction, and nobody took over: going on")
                elif isinstance(error, RetryableError):
                    log.warning("%s; the transaction is in doubt, asking Kafka what became of it", error)
                    self._writer.reach.retry(str(error))
                else:
                    raise error from exc
            await asyncio.sleep(backoff(attempt))
            attempt += 1
            if await self._was_committed(mine):
                break
        self._owner = mine
        self._writer.reach.answer(time.monotonic())

    async def settle(self) -> None:
        """Nothing is ever put off."""

    async def close(self) -> None:
        """Disconnect; an open transaction is dropped by the next process, or by timeout."""
        await self._writer.close()

    async def _transact(self, prepared: Messages | None, step: Step, mine: Owner) -> None:
        producer = self._writer.producer
        crash_point("ship.before-transaction")
        await producer.begin_transaction()
        # States are queued before the lines, and only then anything is waited for: so both go in the same requests.
        sent = [
            await producer.send(self._settings.checkpoint_topic, key=key, value=value, partition=0)
            for key, value in self._records(step, mine)
        ]
        # A commit does not look whether its records arrived: they have to be asked one by one.
        noted = asyncio.gather(*sent)
        try:
            if prepared is not None:
                await self._writer.send(prepared)
                crash_point("ship.after-records")
            await noted
        finally:
            noted.cancel()
        crash_point("ship.before-commit")
        await producer.commit_transaction()
        crash_point("ship.after-commit")

    def _records(self, step: Step, mine: Owner) -> Iterable[tuple[bytes, bytes | None]]:
        yield self._id.encode(), msgspec.json.encode(mine)
        for state in step.files:
            if state.id not in step.forgotten:
                yield self._key(state.id), msgspec.json.encode(_FileRecord(VERSION, state))
        for file_id in step.forgotten:
            yield self._key(file_id), None

    def _key(self, file_id: str) -> bytes:
        return f"{self._id}/{file_id}".encode()

    async def _was_committed(self, mine: Owner) -> bool:
        """After doubt: a new producer, and whether our last transaction is in the log.

        Raises:
            Fenced: The log holds another process's record.
        """
        # Ends the transaction in doubt one way or the other, before we look.
        await self._writer.open_for_ever()
        found, _ = await self._read_for_ever()
        if found is None:
            return False  # the topic was made anew under us, or this is our very first transaction
        if self._is_taken_over_by(found):
            raise self._taken_over(found)
        return found.instance == mine.instance and found.sequence == mine.sequence

    async def _refuse_takeover(self, cause: BaseException) -> None:
        """We were fenced: by another process, or by the broker's timeout for silent producers.

        Raises:
            Fenced: By another process.
        """
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while True:
            found, _ = await self._read_for_ever()
            if found is not None and self._is_taken_over_by(found):
                raise self._taken_over(found) from cause
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.2)

    def _is_taken_over_by(self, found: Owner) -> bool:
        """Whether another process wrote after the last record that we know of."""
        return found.instance != self._owner.instance and found.sequence > self._owner.sequence

    def _taken_over(self, by: Owner) -> Fenced:
        return Fenced(
            f"process {by.pid} on {by.host} took over as shipper {self._id!r}; this one has stopped, and every "
            "line is still shipped once. Two shippers that should both run need different --shipper-id"
        )

    async def _read_for_ever(self) -> tuple[Owner | None, Progress]:
        attempt = 0
        while True:
            try:
                return await self._read()
            except (kafka.KafkaError, OSError, TimeoutError, RetryableError) as exc:
                error = translate(exc, self._settings.connection)
                if not isinstance(error, RetryableError):
                    raise error from exc
                log.warning("progress cannot be read yet: %s", error)
                self._writer.reach.retry(str(error))
            await asyncio.sleep(backoff(attempt))
            attempt += 1

    async def _read(self) -> tuple[Owner | None, Progress]:
        """Our records in the checkpoint topic, up to everything that anybody has written by now.

        The end is asked for without regard to transactions: below an open transaction of another shipper
        there may be committed records of ours, which readers of committed records are not shown before that
        transaction ends. So this waits for it, at most as long as its timeout.
        """
        topic = self._settings.checkpoint_topic
        found = await asyncio.wait_for(self._writer.producer.partitions_for(topic), 30)
        if not found:
            # Reading nothing would look like having shipped nothing.
            raise KafkaUnavailable(f"topic {topic} shows no partitions")
        partitions = [TopicPartition(topic, number) for number in sorted(found)]
        # Nothing is assigned to this one: behind a fetch that waits for records, its question would wait too.
        async with self._consumer("read_uncommitted") as all_records:
            ends = await all_records.end_offsets(partitions)
        if not any(ends.values()):
            return None, Progress({})
        owner: Owner | None = None
        files: dict[str, FileState] = {}
        prefix = self._key("")
        said = time.monotonic()
        async with self._consumer("read_committed") as committed:
            committed.assign(partitions)
            await committed.seek_to_beginning(*partitions)
            while any([await committed.position(p) < ends[p] for p in partitions]):
                for records in (await committed.getmany(timeout_ms=100)).values():
                    for record in records:
                        key = record.key or b""
                        if key == self._id.encode() and record.value is not None:
                            owner = _decode(record.value, Owner)
                        elif key.startswith(prefix):
                            file_id = key[len(prefix) :].decode()
                            if record.value is None:
                                files.pop(file_id, None)
                            else:
                                files[file_id] = _decode(record.value, _FileRecord).file
                if time.monotonic() - said > 5:
                    said = time.monotonic()
                    log.info("waiting for a transaction of another shipper to end, to read our progress")
        return owner, Progress(files)

    @asynccontextmanager
    async def _consumer(self, isolation: str) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            **self._settings.connection.client_arguments(),
            isolation_level=isolation,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            retry_backoff_ms=10,  # the first question for an end always comes before the topic is known
        )
        try:
            await asyncio.wait_for(consumer.start(), 30)
            yield consumer
        finally:
            await consumer.stop()


def _decode(raw: bytes, kind: type[Any]) -> Any:
    try:
        version = msgspec.json.decode(raw, type=_Version).version
        if version != VERSION:
            raise CheckpointError(
                f"progress in Kafka has version {version}, and this program reads {VERSION}: use the version that wrote it"
            )
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as exc:
        raise CheckpointError(f"progress in Kafka is damaged: {exc}") from exc

"""Columns → ClickHouse, under deduplication tokens, the ledger row last.

What a crash leaves, step by step, for one batch with token T:

- before the first table: nothing; the range is inserted again under T;
- between two tables: some tables have T; inserting again under T, they drop it and the others take it;
- inside one table, materialized view included: ClickHouse drops or completes it on the next insert under T
  (`deduplicate_blocks_in_dependent_materialized_views`);
- after all tables, before the ledger row: as between two tables;
- after the ledger row: `is_stored(T)` says so and nothing is sent again, however long ago it was;
- while a rejected insert is halved: the halves have tokens too, and are cut in the same places again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from tailrace.ingestor.decode import DecodedBatch, dead_letter_table, ledger_table
from tailrace.ingestor.settings import RetryPolicy
from tailrace.schemas.clickhouse.connection import translated
from tailrace.schemas.clickhouse.migrate import DEDUPLICATION_BLOCKS, DEDUPLICATION_SECONDS
from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import RetryableError, RowsRejected

log = logging.getLogger("tailrace.ingestor")

MAX_REJECTED = 100
"""Rejected rows of one table in one batch after which it is no longer the rows that are wrong."""

INSERT_SETTINGS = {
    # A server-side queue would acknowledge before the rows are stored, and has tokens of its own.
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # One block an insert: a token counts the blocks of its insert, and they must be the same each time.
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
    # Late lines and imports touch many days at once; ClickHouse would refuse more than 100.
    "max_partitions_per_insert_block": 0,
}


class TableWriter(Protocol):
    """Where rows go. Blocking; called from one thread at a time."""

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Store the rows, or nothing new where this token was stored before.

        Raises:
            RetryableError: Perhaps stored, perhaps not; the same call again is safe.
            FatalError: Refused.
        """
        ...

    def is_stored(self, token: str) -> bool:
        """Whether the ledger has this token: then all of its rows are stored."""
        ...

    def batches_since(self, moment: float) -> int:
        """How many batches the ledger has got since `moment`, in seconds since the epoch."""
        ...


class ClickHouseWriter:
    """Writes through clickhouse-connect: over HTTP, or into the engine in this process.

    Args:
        client: A clickhouse-connect client on a migrated database.
        where: Named in error messages.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """See `TableWriter`."""
        with translated(self._where):
            self._client.insert_arrow(
                table, rows, settings={**INSERT_SETTINGS, "insert_deduplication_token": token}
            )

    def is_stored(self, token: str) -> bool:
        """See `TableWriter`."""
        with translated(self._where):
            result = self._client.query(
                "SELECT count() FROM ledger WHERE token = {token:String}", parameters={"token": token}
            )
        return bool(result.result_rows[0][0])

    def batches_since(self, moment: float) -> int:
        """See `TableWriter`."""
        with translated(self._where):
            result = self._client.query(
                "SELECT uniq(token) FROM ledger WHERE stored_at >= fromUnixTimestamp64Milli({moment:Int64})",
                parameters={"moment": int(moment * 1000)},
            )
        return int(result.result_rows[0][0])

    def close(self) -> None:
        """Closes the client."""
        self._client.close()


def tokens_remembered(batches: int, seconds: float) -> bool:
    """Whether ClickHouse surely still has the tokens of a batch.

    Args:
        batches: Inserted since.
        seconds: Passed since.
    """
    # A batch that spans several days is several blocks to ClickHouse; half of the window allows for that.
    return batches < DEDUPLICATION_BLOCKS // 2 and seconds < DEDUPLICATION_SECONDS


@dataclass(slots=True)
class InsertStats:
    """Totals since the start.

    Args:
        lines: Lines of all batches stored, blank ones included.
        rows: Lines that became records.
        dead_letters: Lines that became dead letters.
        blank: Lines with nothing in them.
        bytes: Bytes of all lines.
        batches: Batches stored.
        retries: Attempts that failed for a passing cause.
        waiting: Why the batch under way is not stored yet; empty when nothing is wrong.
        reasons: Dead letters by reason.
        unsafe_replays: Batches that were inserted again although ClickHouse may have forgotten their tokens; rows
            of them may stand twice until a merge, and every reader still counts them once.
    """

    lines: int = 0
    rows: int = 0
    dead_letters: int = 0
    blank: int = 0
    bytes: int = 0
    batches: int = 0
    retries: int = 0
    waiting: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    unsafe_replays: int = 0

    def add(self, batch: DecodedBatch) -> None:
        """Counts a stored batch."""
        self.batches += 1
        for span in batch.spans:
            self.lines += span.lines
            self.rows += span.rows
            self.dead_letters += span.dead_letters
            self.blank += span.blank
            self.bytes += span.bytes
        for letter in batch.dead_letters:
            self.reasons[letter.reason] = self.reasons.get(letter.reason, 0) + 1


class Inserter:
    """Stores batches, each until it is stored.

    Args:
        writer: Where to.
        executor: A thread for the blocking calls; one, so that they stay in order.
        retry: How to wait while the writer's side is away.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        writer: TableWriter,
        executor: Executor,
        retry: RetryPolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._executor = executor
        self._retry = retry
        self._clock = clock
        self.stats = InsertStats()

    async def store(self, batch: DecodedBatch, token: str) -> None:
        """Inserts everything; returns when the ledger row is in.

        Retries for ever what is retryable. Rows that the server rejects become dead letters, the others are
        stored. Cancelling it leaves the batch partly stored, which a repetition under the same token completes.

        Raises:
            FatalError: The server refused for another reason than a row, or refused too many of them.
        """
        received_at = int(self._clock() * 1_000_000)
        rejected: dict[int, str] = {}
        for table, rows in batch.tables:
            crash_point("ingest.before-table")
            rejected |= await self._insert(table, rows, f"{token}/{table}")
            crash_point("ingest.after-table")
        if rejected:
            batch = batch.without(rejected)
        if batch.dead_letters:
            letters = dead_letter_table(batch.dead_letters, received_at)
            await self._attempt(self._writer.insert, "dead_letters", letters, f"{token}/dead_letters")
        crash_point("ingest.before-ledger")
        await self._attempt(
            self._writer.insert, "ledger", ledger_table(batch.spans, token), f"{token}/ledger"
        )
        crash_point("ingest.after-ledger")
        self.stats.add(batch)

    async def restore(self, batch: DecodedBatch, token: str, since: float) -> None:
        """Inserts a batch that an earlier run announced and may have stored, in part or whole.

        Args:
            batch: The same lines in the same order.
            token: As announced.
            since: When it was announced, in seconds since the epoch.
        """
        if await self._attempt(self._writer.is_stored, token):
            self.stats.add(batch)
            return
        between = await self._attempt(self._writer.batches_since, since)
        if not tokens_remembered(between, self._clock() - since):
            self.stats.unsafe_replays += 1
            log.error(
                "inserting %s again, %d batches after it was begun: ClickHouse may have forgotten its tokens, so some of "
                "its rows may stand twice until a merge; readers count them once",
                token,
                between,
            )
        await self.store(batch, token)

    async def _insert(self, table: str, rows: pa.Table, token: str) -> dict[int, str]:
        """Stores the rows of one table; those that cannot be are told by their hash, with the reason.

        A rejected insert is halved until the row is found. The halves have tokens of their own, which are the
        same when the whole is begun again.
        """
        rejected: dict[int, str] = {}
        pending = [(0, rows.num_rows, token)]
        while pending:
            start, end, part_token = pending.pop()
            try:
                await self._attempt(self._writer.insert, table, rows.slice(start, end - start), part_token)
            except RowsRejected as error:
                if end - start > 1:
                    middle = (start + end) // 2
                    pending.append((middle, end, f"{token}/{middle}-{end}"))
                    pending.append((start, middle, f"{token}/{start}-{middle}"))
                    continue
                log.warning("a row of %s was rejected and becomes a dead letter: %s", table, error)
                rejected[rows["line_hash"][start].as_py()] = str(error)
                if len(rejected) > MAX_REJECTED:
                    raise
        return rejected

    async def _attempt(self, call: Callable[..., Any], *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                result = await loop.run_in_executor(self._executor, call, *arguments)
            except RetryableError as error:
                failures += 1
                self.stats.retries += 1
                self.stats.waiting = str(error)
                delay = self._retry.delay(failures, random.random())  # noqa: S311 - jitter, not a secret
                log.warning("%s; attempt %d, next in %.1f s", error, failures, delay)
                await asyncio.sleep(delay)
            else:
                if failures:
                    log.warning("ClickHouse takes inserts again after %d failed attempts", failures)
                    self.stats.waiting = ""
                return result

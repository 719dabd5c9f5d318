"""Columns → ClickHouse, under deduplication tokens, the ledger row last.

What a crash leaves, step by step, for one batch with token T:

- before the first table: nothing; the range is inserted again under T;
- between two tables: some tables have T; inserting again under T, they drop it and the others take it;
- inside one table, materialized view included: ClickHouse drops or completes it on the next insert under T
  (`deduplicate_blocks_in_dependent_materialized_views`); if it was ClickHouse that was killed, it may remember T without
  the rows, so they are looked for afterwards and inserted again if need be. The engine of this process dies with it, and on
  a full disk it may have the rows without remembering T, and have rows that are not on the disk: there the tables are read
  from the disk anew, and the rows are looked for, before anything is inserted again;
- after all tables, before the ledger row: as between two tables;
- after the ledger row: `is_stored(T)` says so and nothing is sent again, however long ago it was;
- while a rejected insert is halved: the halves have tokens too, and are cut in the same places again.
"""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tailrace.ingestor import arrow_file
from tailrace.ingestor.decode import DecodedBatch, Origin, dead_letter_table, ledger_table
from tailrace.ingestor.settings import RetryPolicy
from tailrace.schemas.clickhouse.connection import translated
from tailrace.schemas.clickhouse.migrate import DEDUPLICATION_BLOCKS, DEDUPLICATION_SECONDS
from tailrace.schemas.clickhouse.unread import Unread
from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import ClickHouseUnavailable, RetryableError, RowsRejected, TailraceError
from tailrace.schemas.health import ASK_SECONDS, Reach
from tailrace.schemas.metrics import Latency
from tailrace.schemas.spans import NO_SPANS, Attributes, SpanKind, Spans, during

log = logging.getLogger("tailrace.ingestor")

_HASHES_AT_ONCE = 2_000
"""So many 64-bit numbers fit into the URL of a request."""
_HASHES_AT_ONCE_HERE = 100_000
"""So many are asked for at once where there is no URL: each question reads the columns of all rows of its days."""
_MADE_OF = {"tag_lines": ("tags", "tag_stats"), "tags": ("tag_stats",)}
"""The tables that views fill from what is inserted into another."""
INSERTS_AT_ONCE = 2
"""Tables of a batch that a server stores at the same time; the engine in this process takes one statement after the other. Over HTTP on two
cores 100,000 lines took 0.19, 0.16 and 0.48 seconds for logs, objects and tags, one after the other; a backlog of 5 million lines was worked
off by 107,000 and 111,000 lines a second with two at a time, 115,000 and 111,000 with three, which take 60 to 70 MB more, in turns."""
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
    # Nor several in what views make of it: tags would be as many parts as there are 65,409 of them, all to be merged again at once.
    "max_block_size": 100_000_000,
    # Rows that stand twice in one block are merged like those of two blocks, in the background, and readers count them once
    # anyway: looking for them at each insert took a third of its time.
    "optimize_on_insert": 0,
    # Late lines and imports touch many days at once; ClickHouse would refuse more than 100.
    "max_partitions_per_insert_block": 0,
}


_WHERE = (
    "trace_ts >= fromUnixTimestamp64Micro({low:Int64}, 'UTC') AND "
    "trace_ts <= fromUnixTimestamp64Micro({high:Int64}, 'UTC') AND line_hash IN {hashes:Array(UInt64)} "
    "AND project_id IN {projects:Array(String)}"
)
"""Lines by hash, with `_whereabouts`."""
_UNFOLD = (
    "INSERT INTO tags (project_id, name, kind, str, num, type, group, trace_hash, trace_ts, ts, line_hash) "
    "SELECT project_id, tags.name, tags.kind, tags.str, tags.num, tags.type, tags.group, cityHash64(trace_id), trace_ts, ts, "
    f"line_hash FROM (SELECT * FROM tag_lines WHERE {_WHERE} LIMIT 1 BY project_id, line_hash) ARRAY JOIN tags"
)
"""As the view `tags_from_lines` does."""
_RECOUNT = (
    "INSERT INTO tag_stats SELECT project_id, tags.name, tags.kind, tags.type, tags.group, toYYYYMMDD(trace_ts) AS day, "
    "uniqCombined64State(12)(line_hash), uniqCombined64State(12)(cityHash64(tags.str)), "
    "min(if(isFinite(tags.num), tags.num, inf)), max(if(isFinite(tags.num), tags.num, -inf)) "
    f"FROM tag_lines ARRAY JOIN tags WHERE {_WHERE} GROUP BY project_id, tags.name, tags.kind, tags.type, tags.group, day"
)
"""As the view `tag_stats_from_tags` does, from the lines: of tags an ingestor may not read more than which there are."""
TAGS_ARE_THERE = "tailrace: their tags are stored"
"""In place of a token of an insert into `tag_lines` that asks for no deduplication: the view `tags_from_lines` makes nothing of it."""


class TableWriter(Protocol):
    """Where rows go. Blocking; called from one thread at a time where it is alone, else from `INSERTS_AT_ONCE`."""

    @property
    def is_alone(self) -> bool:
        """Whether no insert outlives the call that began it, nor the process, so that what is not there will not come either."""
        ...

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Store the rows, or nothing new where this token was stored before; without a token all of them.

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

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        """Which of the rows, by index, the table does not have, or has without what its views make of them."""
        ...

    def complete(self, table: str, rows: pa.Table) -> None:
        """Store the other half of those of the rows of which only one half is there: whoever inserts a row is killed, or out of
        space, between the row and what its views make of it, and either may come first."""
        ...

    def recount(self, table: str, rows: pa.Table) -> None:
        """Count the tags of these lines, which are stored, once more among those that there are: whoever inserts lines may end
        between their tags and these counts. What is counted already counts once."""
        ...

    def ping(self) -> None:
        """Returns when the other side answers.

        Raises:
            TailraceError: It does not, or refuses us.
        """
        ...


class PassingWriter:
    """Has everything done by another writer.

    Args:
        writer: Says which; asked at each call.
        is_alone: As of `TableWriter`.
    """

    def __init__(self, writer: Callable[[], TableWriter], *, is_alone: bool) -> None:
        self._other = writer
        self.is_alone = is_alone

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """See `TableWriter`."""
        self._other().insert(table, rows, token)

    def is_stored(self, token: str) -> bool:
        """See `TableWriter`."""
        return self._other().is_stored(token)

    def batches_since(self, moment: float) -> int:
        """See `TableWriter`."""
        return self._other().batches_since(moment)

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        """See `TableWriter`."""
        return self._other().missing(table, rows)

    def complete(self, table: str, rows: pa.Table) -> None:
        """See `TableWriter`."""
        self._other().complete(table, rows)

    def recount(self, table: str, rows: pa.Table) -> None:
        """See `TableWriter`."""
        self._other().recount(table, rows)

    def ping(self) -> None:
        """See `TableWriter`."""
        self._other().ping()


def absent(writer: TableWriter, table: str, rows: pa.Table) -> list[int]:
    """Which of the rows, by index, the table does not have; what it has half of is whole afterwards, as such a row would count as
    absent and stand there twice."""
    writer.complete(table, rows)
    return writer.missing(table, rows)


class ClickHouseWriter:
    """Writes through clickhouse-connect: over HTTP, or into the engine in this process.

    Args:
        client: A clickhouse-connect client on a migrated database.
        where: Named in error messages.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where
        self._is_embedded: bool = client.uri.startswith("chdb:")
        self._at_once = _HASHES_AT_ONCE_HERE if self._is_embedded else _HASHES_AT_ONCE
        self._unread = Unread(client.command)

    @property
    def is_alone(self) -> bool:
        """See `TableWriter`."""
        return self._is_embedded

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """See `TableWriter`."""
        with self._inserting(table):
            self._insert(table, rows, token, deduplicate=bool(token))

    @contextmanager
    def _inserting(self, table: str) -> Iterator[None]:
        """First the tables are read anew into which an earlier insert failed; that this one fails is noted."""
        try:
            with translated(self._where):
                self._read_anew()
                yield
        except RowsRejected:
            raise
        except TailraceError:
            if self._is_embedded:
                self._unread.add(self._client.database, (table, *_MADE_OF.get(table, ())))
            raise

    def _read_anew(self) -> None:
        """Before anybody looks what the embedded engine has, or inserts into it: see `unread.py`."""
        if not self._unread.read():
            raise ClickHouseUnavailable(
                f"{self._where} cannot take this now: there is no space left on its disk"
            )

    def _insert(self, table: str, rows: pa.Table, token: str, *, deduplicate: bool) -> None:
        settings: dict[str, int | str] = {
            **INSERT_SETTINGS,
            "insert_deduplicate": int(deduplicate),
            "insert_deduplication_token": token,
        }
        if self._is_embedded and arrow_file.IS_POSSIBLE:
            arrow_file.insert(self._client, table, rows, settings)
        else:
            self._client.insert_arrow(table, rows, settings=settings)

    def is_stored(self, token: str) -> bool:
        """See `TableWriter`."""
        with translated(self._where):
            self._read_anew()
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

    def missing(self, table: str, rows: pa.Table) -> list[int]:
        """See `TableWriter`."""
        with translated(self._where):
            self._read_anew()
            if table == "ledger":
                # They are one insert and one part, so all of them are there or none.
                return [] if self.is_stored(rows["token"][0].as_py()) else list(range(rows.num_rows))
            if table == "dead_letters":
                return self._missing_letters(rows)
            hashes = rows["line_hash"].to_pylist()
            stored = self._stored(table, rows, hashes)
            absent = [index for index, line_hash in enumerate(hashes) if line_hash not in stored]
            if table == "tag_lines":
                halves = (_tagged(rows, hashes) & stored) - self._stored("tags", rows, hashes)
                absent += [index for index, line_hash in enumerate(hashes) if line_hash in halves]
        return sorted(absent)

    def complete(self, table: str, rows: pa.Table) -> None:
        """See `TableWriter`. Inserting such lines again would store them twice, or their tags, until a merge."""
        if table != "tag_lines":
            return
        with self._inserting(table):
            hashes = rows["line_hash"].to_pylist()
            stored, unfolded = self._stored(table, rows, hashes), self._stored("tags", rows, hashes)
            halves = sorted((_tagged(rows, hashes) & stored) - unfolded)
            if halves:
                log.warning("the tags of %d lines are not there although the lines are", len(halves))
            for where in self._whereabouts(rows, halves):
                self._client.command(_UNFOLD, parameters=where, settings=INSERT_SETTINGS)
            if bare := unfolded - stored:
                log.warning("%d lines are not there although their tags are", len(bare))
                lines = rows.filter(pc.is_in(rows["line_hash"], pa.array(list(bare), pa.uint64())))
                # Not under a token: they were looked for just now.
                self._insert(table, lines.combine_chunks(), TAGS_ARE_THERE, deduplicate=False)

    def recount(self, table: str, rows: pa.Table) -> None:
        """See `TableWriter`."""
        if table != "tag_lines":
            return
        settings = {**INSERT_SETTINGS, "insert_deduplicate": 0}
        with self._inserting("tag_stats"):
            for where in self._whereabouts(rows, sorted(_tagged(rows, rows["line_hash"].to_pylist()))):
                self._client.command(_RECOUNT, parameters=where, settings=settings)

    def _stored(self, table: str, rows: pa.Table, hashes: list[int]) -> set[int]:
        found: set[int] = set()
        for where in self._whereabouts(rows, hashes):
            result = self._client.query(
                f"SELECT DISTINCT line_hash FROM {{table:Identifier}} WHERE {_WHERE}",
                parameters={**where, "table": table},
            )
            found.update(row[0] for row in result.result_rows)
        return found

    def _whereabouts(self, rows: pa.Table, hashes: list[int]) -> Iterator[dict[str, Any]]:
        """The parameters of `_WHERE` for these lines, as many of them at a time as are asked for at once."""
        where = _whereabouts(rows)
        for start in range(0, len(hashes), self._at_once):
            yield {**where, "hashes": hashes[start : start + self._at_once]}

    def _missing_letters(self, rows: pa.Table) -> list[int]:
        names = ("topic", "partition", "offset", "item", "file_id", "byte")
        keys = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
        bounds = {name: pc.min_max(rows[name]).as_py() for name in ("offset", "byte")}
        result = self._client.query(
            "SELECT topic, partition, offset, item, file_id, byte FROM dead_letters WHERE "
            "offset BETWEEN {first:Int64} AND {last:Int64} AND byte BETWEEN {low:Int64} AND {high:Int64} AND "
            "topic IN {topics:Array(String)} AND file_id IN {files:Array(String)}",
            parameters={
                "first": bounds["offset"]["min"],
                "last": bounds["offset"]["max"],
                "low": bounds["byte"]["min"],
                "high": bounds["byte"]["max"],
                "topics": sorted({key[0] for key in keys}),
                "files": sorted({key[4] for key in keys}),
            },
        )
        stored = {tuple(row) for row in result.result_rows}
        return [index for index, key in enumerate(keys) if key not in stored]

    def ping(self) -> None:
        """See `TableWriter`."""
        with translated(self._where):
            self._client.query("SELECT 1")

    def close(self) -> None:
        """Closes the client."""
        self._client.close()


def _tagged(rows: pa.Table, hashes: list[int]) -> set[int]:
    """The lines that have tags."""
    lengths = pc.list_value_length(rows["tags.name"]).to_pylist()
    return {line_hash for line_hash, length in zip(hashes, lengths, strict=True) if length}


def _whereabouts(rows: pa.Table) -> dict[str, Any]:
    """Between which times and in which projects these lines are to be looked for."""
    span = pc.min_max(rows["trace_ts"].cast(pa.int64())).as_py()
    # A backfill may store the same line under another project too.
    projects = [
        name if isinstance(name, str) else name.decode("utf-8", "surrogatepass")
        for name in pc.unique(rows["project_id"]).to_pylist()
    ]
    return {"low": span["min"], "high": span["max"], "projects": projects}


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


@dataclass(slots=True)
class InsertTimes:
    """How long storing takes, and when it was done.

    Args:
        insert: Of single inserts that went well.
        store: Of whole batches, retries included.
        stored_at: When a batch was stored last, in seconds since the epoch; `None` before the first.
        newest_event: Time of the newest event in that batch, or in the last before it that held any.
    """

    insert: Latency = field(default_factory=Latency)
    store: Latency = field(default_factory=Latency)
    stored_at: float | None = None
    newest_event: float | None = None


class Inserter:
    """Stores batches, each until it is stored.

    Args:
        writer: Where to.
        executor: For the blocking calls; see `insert_executor`. With fewer threads they wait for one another.
        retry: How to wait while the writer's side is away.
        clock: Seconds since the epoch.
        monotonic: Seconds for durations.
        spans: Where each insert tells about itself, below the span that is current.
    """

    def __init__(
        self,
        writer: TableWriter,
        executor: Executor,
        retry: RetryPolicy,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._writer = writer
        self._executor = executor
        self._retry = retry
        self._clock = clock
        self._monotonic = monotonic
        self._spans = spans
        self._calls = 0  # under way, or waiting to be made again
        self._asked: Future[None] | None = None
        self.stats = InsertStats()
        self.times = InsertTimes()
        self.reach = Reach("ClickHouse")

    async def store(self, batch: DecodedBatch, token: str, in_doubt: bool = False) -> DecodedBatch:
        """Inserts everything; returns when the ledger row is in.

        Retries for ever what is retryable. Rows that the server rejects become dead letters, the others are
        stored. Cancelling it leaves the batch partly stored, which a repetition under the same token completes.

        Args:
            batch: What to insert.
            token: Names the batch; the same lines must have the same one each time.
            in_doubt: An earlier run may have inserted it: look afterwards whether all of it is there.

        Returns:
            The batch, or the one in which the lines of rejected rows are dead letters.

        Raises:
            FatalError: The server refused for another reason than a row, or refused too many of them.
        """
        began = self._monotonic()
        received_at = int(self._clock() * 1_000_000)
        if rejected := await self._insert_tables(batch, token, in_doubt):
            batch = batch.without(rejected)
        if batch.dead_letters:
            letters = dead_letter_table(batch.dead_letters, received_at)
            await self._insert_all("dead_letters", letters, f"{token}/dead_letters", in_doubt)
        crash_point("ingest.before-ledger")
        await self._insert_all("ledger", ledger_table(batch.spans, token), f"{token}/ledger", in_doubt)
        crash_point("ingest.after-ledger")
        self.times.store.observe(self._monotonic() - began)
        self._stored(batch)
        return batch

    async def restore(self, batch: DecodedBatch, token: str, since: float) -> None:
        """Inserts a batch that an earlier run announced and may have stored, in part or whole.

        Args:
            batch: The same lines in the same order.
            token: As announced.
            since: When it was announced, in seconds since the epoch.
        """
        stored, _ = await self._attempt(self._writer.is_stored, token)
        if stored:
            self._stored(batch)
            return
        if not self._writer.is_alone:
            await self._tell_unless_remembered(token, since)
        await self.store(batch, token, in_doubt=True)

    async def _tell_unless_remembered(self, token: str, since: float) -> None:
        between, _ = await self._attempt(self._writer.batches_since, since)
        if not tokens_remembered(between, self._clock() - since):
            self.stats.unsafe_replays += 1
            log.error(
                "inserting %s again, %d batches after it was begun: ClickHouse may have forgotten its tokens, so some of "
                "its rows may stand twice until a merge; readers count them once",
                token,
                between,
                extra={"token": token},
            )

    def _stored(self, batch: DecodedBatch) -> None:
        self.stats.add(batch)
        self._spans.note(
            {
                "tailrace.lines": batch.lines,
                "tailrace.rows": batch.rows,
                "tailrace.dead_letters": sum(span.dead_letters for span in batch.spans),
                "tailrace.bytes": batch.bytes,
            }
        )
        self.times.stored_at = self._clock()
        newest = newest_event(batch, self.times.stored_at)
        if newest is not None:
            self.times.newest_event = newest

    async def ask(self) -> None:
        """See whether ClickHouse answers, when nothing else is asked of it; `reach` says so afterwards."""
        if self._calls or (self._asked is not None and not self._asked.done()):
            return  # what is under way tells
        try:
            self._asked = self._executor.submit(self._writer.ping)
        except RuntimeError:
            return  # the executor was shut down: this process ends
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._asked), ASK_SECONDS)
        except TimeoutError:
            self.reach.fail(f"no answer within {ASK_SECONDS:.0f} s")
        except TailraceError as error:
            self.reach.fail(str(error))
        else:
            self.reach.answer(self._monotonic())

    async def rest(self) -> None:
        """Wait a moment for a question that is under way, so that the writer can be closed; call it in the end."""
        if self._asked is not None and not self._asked.done():
            await asyncio.wait([asyncio.wrap_future(self._asked)], timeout=1.0)

    async def only_missing(self, batch: DecodedBatch) -> DecodedBatch:
        """The batch without the records and the dead letters that are stored already, under whatever token."""
        tables = []
        for table, rows in batch.tables:
            missing, _ = await self._attempt(absent, self._writer, table, rows)
            if missing:
                tables.append((table, rows.take(missing).combine_chunks()))
        stored: set[Origin] = set()
        if letters := batch.dead_letters:
            rows = dead_letter_table(letters, received_at=0)
            missing, _ = await self._attempt(absent, self._writer, "dead_letters", rows)
            stored = {letter.origin for letter in letters} - {letters[index].origin for index in missing}
        return _without_letters(DecodedBatch(tables, letters, batch.spans, batch.without), stored)

    async def _insert_tables(self, batch: DecodedBatch, token: str, in_doubt: bool) -> dict[int, str]:
        """Stores the rows of all tables, several at once where the writer can; what was rejected is told as by `_insert`."""
        room = asyncio.Semaphore(inserts_at_once(self._writer))
        parts: Counter[str] = Counter()
        tasks: list[asyncio.Task[dict[int, str]]] = []

        async def store(table: str, rows: pa.Table, token: str) -> dict[int, str]:
            async with room:
                crash_point("ingest.before-table")
                rejected = await self._insert(table, rows, token, in_doubt)
                crash_point("ingest.after-table")
            return rejected

        # First what takes longest: what views make other rows of.
        for table, rows in sorted(batch.tables, key=lambda each: each[0] not in _MADE_OF):
            # A table may come in several parts; each needs a token of its own.
            name = f"{table}.{parts[table]}" if parts[table] else table
            parts[table] += 1
            tasks.append(asyncio.create_task(store(table, rows, f"{token}/{name}")))
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return {line_hash: reason for rejected in found for line_hash, reason in rejected.items()}

    async def _insert(self, table: str, rows: pa.Table, token: str, in_doubt: bool) -> dict[int, str]:
        """Stores the rows of one table; those that cannot be are told by their hash, with the reason.

        A rejected insert is halved until the row is found. The halves have tokens of their own, which are the
        same when the whole is begun again.
        """
        rejected: dict[int, str] = {}
        pending = [(0, rows.num_rows, token)]
        while pending:
            start, end, part_token = pending.pop()
            try:
                await self._insert_all(table, rows.slice(start, end - start), part_token, in_doubt)
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

    async def _insert_all(self, table: str, rows: pa.Table, token: str, in_doubt: bool) -> None:
        """Inserts, and makes sure where there is doubt.

        A server that is killed while it stores a block may remember the token without having the rows (a table
        that is not replicated notes the token before it renames the part into place). Then it drops the
        repetition too. So after any insert that may not be the first under its token, the rows are looked for.

        A server that goes on with an insert whose connection broke must get the repetition under the same token first.
        The engine of this process cannot go on, and after a full disk it may have forgotten the token of rows that it
        has; so there the rows are looked for before as well.
        """
        about: Attributes = {
            "db.system.name": "clickhouse",
            "db.operation.name": "INSERT",
            "db.collection.name": table,
            "tailrace.rows": rows.num_rows,
        }
        doubt = in_doubt

        def insert() -> float | None:
            nonlocal doubt
            if doubt and self._writer.is_alone:
                return self._insert_absent(table, rows)
            doubt = True
            return self._timed_insert(table, rows, token)

        with during(self._spans.begin(f"INSERT {table}", SpanKind.CLIENT, about)):
            failures = await self._attempt_insert(insert)
        if not failures and not in_doubt:
            return
        for again in itertools.count(1):
            missing, _ = await self._attempt(absent, self._writer, table, rows)
            if not missing:
                await self._attempt(self._writer.recount, table, rows)
                return
            log.warning(
                "%d of %d rows of %s are not there although their token is",
                len(missing),
                rows.num_rows,
                table,
            )
            rest = rows.take(missing).combine_chunks()
            await self._attempt_insert(self._timed_insert, table, rest, f"{token}/missing-{again}")

    def _insert_absent(self, table: str, rows: pa.Table) -> float | None:
        """Runs in a thread. What was looked for just now needs no token, and none that is known keeps it out. `None`: nothing is absent."""
        if missing := absent(self._writer, table, rows):
            return self._timed_insert(table, rows.take(missing).combine_chunks(), "")
        return None

    def _timed_insert(self, table: str, rows: pa.Table, token: str) -> float:
        """Runs in a thread, so that waiting for it is not counted in these seconds."""
        began = self._monotonic()
        self._writer.insert(table, rows, token)
        return self._monotonic() - began

    async def _attempt_insert(self, call: Callable[..., float | None], *arguments: Any) -> int:
        """`_attempt`, of which the seconds are noted: how often it failed."""
        seconds, failures = await self._attempt(call, *arguments)
        if seconds is not None:
            self.times.insert.observe(seconds)
        return failures

    async def _attempt(self, call: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
        """The result of a blocking call, repeated while the other side is away, and how often it failed."""
        self._calls += 1
        try:
            return await self._until_it_answers(call, *arguments)
        finally:
            self._calls -= 1

    async def _until_it_answers(self, call: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                result = await loop.run_in_executor(self._executor, call, *arguments)
            except RetryableError as error:
                failures += 1
                self.stats.retries += 1
                self.stats.waiting = str(error)
                self.reach.retry(str(error))
                delay = self._retry.delay(failures, random.random())  # noqa: S311 - jitter, not a secret
                log.warning("%s; attempt %d, next in %.1f s", error, failures, delay)
                await asyncio.sleep(delay)
            else:
                self.reach.answer(self._monotonic())
                if failures:
                    log.warning("ClickHouse takes inserts again after %d failed attempts", failures)
                    self.stats.waiting = ""
                return result, failures


def _without_letters(batch: DecodedBatch, stored: Set[Origin]) -> DecodedBatch:
    """The batch without these dead letters, also when it is decoded again because ClickHouse rejected some row."""
    letters = [letter for letter in batch.dead_letters if letter.origin not in stored]
    return DecodedBatch(
        batch.tables, letters, batch.spans, lambda rejected: _without_letters(batch.without(rejected), stored)
    )


def inserts_at_once(writer: TableWriter) -> int:
    """How many inserts this writer can do at the same time."""
    return 1 if writer.is_alone else INSERTS_AT_ONCE


def insert_executor(writer: TableWriter) -> ThreadPoolExecutor:
    """Threads for the blocking calls of an inserter with this writer."""
    return ThreadPoolExecutor(inserts_at_once(writer), "tailrace-insert")


def newest_event(batch: DecodedBatch, now: float) -> float | None:
    """Time of the newest event of a batch; `None` where it holds no records.

    Args:
        batch: The batch.
        now: Seconds since the epoch. No event is newer: a clock that is ahead must not make everything look fresh.
    """
    newest = [pc.max(rows["ts"].cast(pa.int64())).as_py() for _, rows in batch.tables if rows.num_rows]
    return min(now, max(newest) / 1_000_000) if newest else None

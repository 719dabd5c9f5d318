"""Dead letters → rows, once whatever made them dead letters was mended: the schema, a limit, or the data itself.

The protocol of the ingestor, with the intent in ClickHouse. For each batch, in this order:

1. **announce**: a row a letter in `dead_letter_replays`, with the line that is about to be stored and the batch's token;
2. **store**: the records under that token, the ledger row of `replay:<token>` last (`insert.py`);
3. **outcome**: a row a letter, `stored` with its place or `rejected` with the reason of this attempt.

| it ends     | what is left                  | what the next replay does first                                    |
|-------------|-------------------------------|--------------------------------------------------------------------|
| before 1    | nothing                       | nothing                                                            |
| after 1     | an announced batch            | stores exactly these lines under the same token, then step 3       |
| amid 2      | some tables have the token    | the same; those that have it drop the block, the others take it    |
| after 2     | everything but the outcome    | the same: every table drops its block; then step 3                 |
| amid 3, after it | some or all outcomes     | writes them again; a row a letter, batch and state counts once     |

An announced line is never edited again: what a command made of it stands in the announcement, so that a command that
prints something else each time does no harm. Only letters that are open are replayed, and rows are identified by their
content, so a second replay changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import xxhash

from tailrace.ingestor.columns import RecordColumns, strings, table_of
from tailrace.ingestor.decode import DecodedBatch, LineReader, Span
from tailrace.ingestor.insert import Inserter
from tailrace.schemas.clickhouse.connection import translated
from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import Reason, RecordError

BATCH_LETTERS = 10_000
BATCH_BYTES = 16 * 1024 * 1024
_TABLE = "dead_letter_replays"
_ANNOUNCED, _STORED, _REJECTED = 1, 2, 3
_NOTES = {"async_insert": 0, "insert_deduplicate": 0}
"""A note is a row of its own key, which counts once however often it is written; a token could only swallow it."""


@dataclass(frozen=True, slots=True)
class LetterLine:
    """A letter and the line to store in its place.

    Args:
        letter: Its id.
        line: Its raw bytes, or what an edit made of them; without a line feed.
        attempt: How often it was replayed before.
    """

    letter: int
    line: bytes
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter.

    Args:
        letter: Its id.
        fault: Why it is still none; `None` when it was stored.
        table: Where it was stored.
        line_hash: Under which hash.
        project_id: Of the record.
        trace_id: Likewise.
    """

    letter: int
    fault: RecordError | None = None
    table: str = ""
    line_hash: int = 0
    project_id: str = ""
    trace_id: str = ""


@dataclass(slots=True)
class ReplayStats:
    """Totals since the start.

    Args:
        stored: Letters that became rows.
        rejected: Letters that are still none.
        resumed: How many of both an earlier replay had announced and not finished.
        reasons: Rejected letters by reason.
    """

    stored: int = 0
    rejected: int = 0
    resumed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Counts what is known of some letters."""
        for outcome in outcomes:
            if outcome.fault is None:
                self.stored += 1
            else:
                self.rejected += 1
                reason = outcome.fault.reason.value
                self.reasons[reason] = self.reasons.get(reason, 0) + 1


@dataclass(slots=True)
class _Decoded:
    """Some lines decoded, and what is known of their letters so far; `refused` is filled while they are stored."""

    batch: DecodedBatch
    outcomes: list[Outcome]
    refused: dict[int, str]

    def final(self) -> list[Outcome]:
        """The outcomes once the batch is stored."""
        return [
            Outcome(outcome.letter, RecordError(Reason.REJECTED, self.refused[outcome.line_hash]))
            if outcome.fault is None and outcome.line_hash in self.refused
            else outcome
            for outcome in self.outcomes
        ]


class Replayer:
    """Stores dead letters after all.

    Args:
        client: A clickhouse-connect client on a migrated database; nothing else may use it meanwhile.
        inserter: Stores the records, through the same client.
        max_line_bytes: A longer line stays a dead letter.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, client: Any, inserter: Inserter, max_line_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._inserter = inserter
        self._max_line_bytes = max_line_bytes
        self._clock = clock
        self.stats = ReplayStats()

    def try_lines(self, lines: Sequence[LetterLine]) -> list[Outcome]:
        """What would become of them; stores nothing and cannot know what ClickHouse itself would refuse."""
        return self._decode(lines, "").outcomes

    async def resume(self) -> int:
        """Finishes what earlier replays announced; returns how many letters that were.

        Raises:
            FatalError: As `Inserter.store` does.
        """
        finished = 0
        for token in self._unfinished():
            lines = self._announced(token)
            await self._store(lines, token)
            finished += len(lines)
        self.stats.resumed += finished
        return finished

    async def replay(self, lines: Sequence[LetterLine]) -> list[Outcome]:
        """One batch: announces, stores, and notes what became of each letter.

        Args:
            lines: At most `BATCH_LETTERS`, each letter once.

        Raises:
            FatalError: As `Inserter.store` does; the batch stays announced, and the next `resume` finishes it.
        """
        if not lines:
            return []
        token = batch_token(lines)
        self._note(
            token,
            [line.letter for line in lines],
            {
                "state": pa.array([_ANNOUNCED] * len(lines), pa.int8()),
                "number": pa.array(range(len(lines)), pa.uint32()),
                "line": pa.array([line.line for line in lines], pa.binary()),
            },
        )
        crash_point("replay.after-announce")
        return await self._store(lines, token)

    async def _store(self, lines: Sequence[LetterLine], token: str) -> list[Outcome]:
        decoded = self._decode(lines, token)
        # In doubt, and without asking the ledger: another process may be replaying the same letters under this token,
        # or an older program may have made fewer rows of the same lines. What is missing is found and stored.
        await self._inserter.store(decoded.batch, token, in_doubt=True)
        crash_point("replay.after-store")
        outcomes = decoded.final()
        self._note_outcomes(token, outcomes)
        crash_point("replay.after-outcome")
        return outcomes

    def _decode(self, lines: Sequence[LetterLine], token: str) -> _Decoded:
        refused: dict[int, str] = {}

        def without(rejected: Mapping[int, str]) -> DecodedBatch:
            refused.update(rejected)
            return self._decode_without(lines, token, refused, without)[0]

        batch, outcomes = self._decode_without(lines, token, {}, without)
        return _Decoded(batch, outcomes, refused)

    def _decode_without(
        self,
        lines: Sequence[LetterLine],
        token: str,
        refused: Mapping[int, str],
        without: Callable[[Mapping[int, str]], DecodedBatch],
    ) -> tuple[DecodedBatch, list[Outcome]]:
        reader, columns = LineReader(self._max_line_bytes), RecordColumns()
        span = Span(f"replay:{token}", 0, len(lines), lines=len(lines))
        outcomes: list[Outcome] = []
        for line in lines:
            span.bytes += len(line.line)
            try:
                found = reader.read(line.line)
            except RecordError as fault:
                span.dead_letters += 1
                outcomes.append(Outcome(line.letter, fault))
                continue
            line_hash = xxhash.xxh3_64_intdigest(found.content)
            record = found.record
            outcomes.append(
                Outcome(line.letter, None, table_of(record), line_hash, record.project_id, record.trace_id)
            )
            if line_hash in refused:
                span.dead_letters += 1
                continue
            columns.extend([record], [found.ts], [found.trace_ts], [line_hash])
            span.rows += 1
        # The letters are in their table already: none is added, their outcome is noted instead.
        return DecodedBatch(columns.to_arrow(), (), (span,), without), outcomes

    def _unfinished(self) -> list[str]:
        """The tokens of batches with a letter that has no outcome."""
        with translated("ClickHouse"):
            rows = self._client.query(
                f"SELECT token, min(began) FROM (SELECT letter, token, min(at) AS began FROM {_TABLE} "  # noqa: S608
                "GROUP BY letter, token HAVING countIf(state != 'announced') = 0) GROUP BY token ORDER BY 2, 1"
            ).result_rows
        return [str(token) for token, _ in rows]

    def _announced(self, token: str) -> list[LetterLine]:
        with translated("ClickHouse"):
            rows = self._client.query(
                f"SELECT letter, any(line) FROM {_TABLE} WHERE token = {{token:String}} AND state = 'announced' "  # noqa: S608
                "GROUP BY letter, number ORDER BY number",
                parameters={"token": token},
                query_formats={"String": "bytes"},
            ).result_rows
        return [LetterLine(letter, bytes(line)) for letter, line in rows]

    def _note_outcomes(self, token: str, outcomes: Sequence[Outcome]) -> None:
        faults = [outcome.fault for outcome in outcomes]
        columns = [-1 if fault is None or fault.column is None else fault.column for fault in faults]
        self._note(
            token,
            [outcome.letter for outcome in outcomes],
            {
                "state": pa.array([_STORED if fault is None else _REJECTED for fault in faults], pa.int8()),
                "table": strings([outcome.table for outcome in outcomes]),
                "line_hash": pa.array([outcome.line_hash for outcome in outcomes], pa.uint64()),
                "project_id": strings([outcome.project_id for outcome in outcomes]),
                "trace_id": strings([outcome.trace_id for outcome in outcomes]),
                "reason": strings(["" if fault is None else fault.reason.value for fault in faults]),
                "detail": strings(["" if fault is None else fault.detail for fault in faults]),
                "column": pa.array(columns, pa.int64()),
            },
        )
        self.stats.add(outcomes)

    def _note(self, token: str, letters: Sequence[int], columns: Mapping[str, Any]) -> None:
        count, now = len(letters), int(self._clock() * 1_000_000)
        rows = {
            "letter": pa.array(letters, pa.uint64()),
            "token": strings([token] * count),
            "at": pa.array([now] * count, pa.timestamp("us", "UTC")),
            **columns,
        }
        with translated("ClickHouse"):
            self._client.insert_arrow(_TABLE, pa.table(rows), settings=_NOTES)


def batch_token(lines: Sequence[LetterLine]) -> str:
    """Names a batch: the same letters with the same lines have the same name, in each attempt another."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(b"%d:%d:%d:" % (line.letter, line.attempt, len(line.line)))
        digest.update(line.line)
    return f"replay/{digest.hexdigest()}"

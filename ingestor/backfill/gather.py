"""Ranges → batches: large enough to be worth an insert, small enough to be held, and not many days at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tailrace.ingestor.backfill.claims import Claim
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.work import Content, DecodedRange, decode
from tailrace.ingestor.decode import DecodedBatch

MAX_RANGES = 5_000
"""In a batch; of many small files."""
DAYS_AN_INSERT = 100
"""Each day is a partition, and a part on disk: ClickHouse holds a buffer for each column of each of them."""
_DAY = 86_400_000_000  # µs
_DAYS_BEFORE_1970 = 719_162  # from the year 1 on


def claim_of(found: DecodedRange) -> Claim:
    """What is announced of a range."""
    span = found.content.span
    return Claim(span.stream, span.start, span.end, found.digest)


@dataclass(slots=True)
class Gathering:
    """Ranges on their way into a batch. Those that an earlier run may have stored come into batches of their own.

    Args:
        settings: The limits.
        doubtful: Whether it is one of those.
    """

    settings: BackfillSettings
    doubtful: bool = False
    ranges: list[DecodedRange] = field(default_factory=list)
    bytes: int = 0
    since: float = 0.0
    _days: set[int] = field(default_factory=set)

    def add(self, found: DecodedRange, now: float) -> None:
        """One range more.

        Args:
            found: The range.
            now: Monotonic seconds.
        """
        if not self.ranges:
            self.since = now
        self.ranges.append(found)
        self.bytes += found.content.span.bytes
        for _, rows in found.content.tables:
            self._days.update(pc.unique(_days(rows)).to_pylist())

    @property
    def is_full(self) -> bool:
        """Whether it should be inserted now. Lines of many days wait for more, since each day costs a part on disk; where a rate is
        asked for, a batch holds those of a second, or one range."""
        spread = len(self._days) > self.settings.spread_days
        limit = self.settings.spread_bytes if spread else self.settings.batch_bytes
        return self.bytes >= limit or len(self.ranges) >= MAX_RANGES or 0 < self.settings.rate <= self.lines

    @property
    def lines(self) -> int:
        """How many there are."""
        return sum(found.content.span.lines for found in self.ranges)

    def claims(self) -> list[Claim]:
        """What is to be announced."""
        return [claim_of(found) for found in self.ranges]

    def token(self) -> str:
        """Names the batch: the same ranges in the same order always have the same one."""
        digest = hashlib.blake2b(msgspec.json.encode(self.claims()), digest_size=16)
        return f"backfill/{digest.hexdigest()}"

    def batch(self) -> DecodedBatch:
        """Everything in one; a table that touches many days is several inserts of some days each."""
        ranges, settings = tuple(self.ranges), self.settings

        def without(rejected: Mapping[int, str]) -> DecodedBatch:
            hashes = pa.array(list(rejected), pa.uint64())
            return _joined(
                [
                    decode(found.lines.chunks(found.file, settings), settings, rejected)
                    if _has_any(found.content, hashes)
                    else found.content
                    for found in ranges
                ]
            )

        def _joined(contents: Sequence[Content]) -> DecodedBatch:
            return DecodedBatch(
                tables=[(name, part) for name, rows in _tables(contents) for part in by_days(rows)],
                dead_letters=[letter for content in contents for letter in content.letters],
                spans=[content.span for content in contents],
                without=without,
            )

        return _joined([found.content for found in ranges])


def _has_any(content: Content, hashes: pa.Array) -> bool:
    return any(pc.any(pc.is_in(rows["line_hash"], value_set=hashes)).as_py() for _, rows in content.tables)


def _tables(contents: Sequence[Content]) -> Iterator[tuple[str, pa.Table]]:
    """The tables of all ranges by name, each a single record batch."""
    parts: dict[tuple[str, pa.Schema], list[pa.Table]] = {}
    for content in contents:
        for name, rows in content.tables:
            # Text that UTF-8 cannot hold makes its column one of bytes: such a table is an insert of its own.
            kinds = str(rows.schema.types)
            parts.setdefault((name, kinds), []).append(rows)
    for (name, _), tables in sorted(parts.items(), key=lambda item: item[0]):
        yield name, pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def by_days(rows: pa.Table) -> Iterator[pa.Table]:
    """Cuts a table so that no part touches more than `DAYS_AN_INSERT` days; the same table is always cut alike."""
    if len(pc.unique(_days(rows))) <= DAYS_AN_INSERT:
        yield rows
        return
    ordered = rows.take(pc.sort_indices(rows["trace_ts"])).combine_chunks()
    counts = pc.value_counts(_days(ordered)).field("counts").to_pylist()
    start = 0
    for first in range(0, len(counts), DAYS_AN_INSERT):
        length = sum(counts[first : first + DAYS_AN_INSERT])
        yield ordered.slice(start, length)
        start += length


def _days(rows: pa.Table) -> pa.ChunkedArray:
    """The days of the rows, as numbers. `floor_temporal` takes eight times as long, 1 % of a backfill."""
    # Division rounds towards zero, so it has to begin before every time that there is.
    since = pc.add(rows["trace_ts"].cast(pa.int64()), _DAYS_BEFORE_1970 * _DAY)
    return pc.divide(since, _DAY)

"""What earlier runs stored or announced, and how this one announces and finishes: the tables of migration 0006."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import xxhash

from tailrace.ingestor.backfill.known import ID_PREFIX, Counts, Finished, KnownRange
from tailrace.ingestor.backfill.sources import Source
from tailrace.schemas.clickhouse.connection import translated

if TYPE_CHECKING:
    # A run that has nothing to do asks and ends, and Arrow would take a third of its time.
    import pyarrow as pa

    from tailrace.ingestor.decode import DeadLetter

_NOTES = {"async_insert": 0, "insert_deduplicate": 0}
"""A note counts once by its key, however often it is written; deduplication could only swallow it."""
_LETTERS_AT_ONCE = 2_000
_RANGES_HELD = 50_000
"""So many, some 25 MB of them, are asked for at once."""


class Claim(NamedTuple):
    """A range that is about to be stored."""

    stream: str
    start: int
    end: int
    digest: str


class History(Protocol):
    """What runs leave behind for the next. Blocking; called from one thread at a time."""

    def finished(self, scope: str) -> Mapping[str, Finished]:
        """Sources that were read to their end, by path."""
        ...

    def is_empty(self) -> bool:
        """Whether nothing was ever stored, by whomever."""
        ...

    def recall(self) -> None:
        """Look at the past, once a run: `known` is asked afterwards, and tells what was known then."""
        ...

    def known(self, stream: str) -> list[KnownRange]:
        """Ranges of a stream that were stored or announced."""
        ...

    def announce(self, claims: Sequence[Claim], token: str, now: float) -> None:
        """Note durably that these ranges are about to be stored under this token."""
        ...

    def finish(self, scope: str, files: Sequence[tuple[Source, Counts]], now: float) -> None:
        """Note of these sources that everything in them is stored."""
        ...

    def told(self, letters: Sequence[DeadLetter]) -> set[int]:
        """Which of these letters, by index, may be stored already as they came another way: the same bytes stood at the same
        position of a file that somebody shipped. Files that were backfilled are known by what they hold and do not count."""
        ...

    def stored_bytes(self, scope: str, paths: Sequence[str]) -> Mapping[str, int]:
        """How much of these sources is stored, members of archives included, in uncompressed bytes."""
        ...


class NoHistory:
    """Nothing is known, and nothing is kept: for a look before there is a database."""

    def finished(self, scope: str) -> Mapping[str, Finished]:
        """See `History`."""
        return {}

    def is_empty(self) -> bool:
        """See `History`."""
        return True

    def recall(self) -> None:
        """See `History`."""

    def known(self, stream: str) -> list[KnownRange]:
        """See `History`."""
        return []

    def announce(self, claims: Sequence[Claim], token: str, now: float) -> None:
        """See `History`."""

    def finish(self, scope: str, files: Sequence[tuple[Source, Counts]], now: float) -> None:
        """See `History`."""

    def told(self, letters: Sequence[DeadLetter]) -> set[int]:
        """See `History`."""
        return set()

    def stored_bytes(self, scope: str, paths: Sequence[str]) -> Mapping[str, int]:
        """See `History`."""
        return {}


class StoredHistory:
    """History in ClickHouse, beside the rows it is about.

    Args:
        client: A clickhouse-connect client on a migrated database, used by nobody else.
        where: Named in error messages.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where
        self._streams: dict[str, list[KnownRange]] | set[int] = {}

    def finished(self, scope: str) -> Mapping[str, Finished]:
        """See `History`."""
        rows = self._query(
            "SELECT path, size, modified, inode, bytes, lines, rows, dead_letters, blank, filtered, "
            "toUnixTimestamp64Milli(finished_at) / 1000 FROM backfill_files WHERE scope = {scope:String} "
            "ORDER BY finished_at",
            scope=scope,
        )
        return {
            path: Finished(size, modified, inode, Counts(*counts), at)
            for path, size, modified, inode, *counts, at in rows
        }

    def is_empty(self) -> bool:
        """See `History`."""
        return not any(count for (count,) in self._query("SELECT count() FROM ledger"))

    def recall(self) -> None:
        """See `History`. To ask about each of very many small files would take longer than to store them, so all is asked for
        now, or, when that is much, which streams there are."""
        ((count,),) = self._query("SELECT count() FROM backfill_ranges")
        if count <= _RANGES_HELD:
            self._streams = self._ranges_of("startsWith(stream, {stream:String})", f"file:{ID_PREFIX}")
        else:
            hashes = self._query("SELECT DISTINCT xxh3(stream) FROM backfill_ranges")
            self._streams = {name_hash for (name_hash,) in hashes}

    def known(self, stream: str) -> list[KnownRange]:
        """See `History`."""
        if isinstance(self._streams, dict):
            return self._streams.get(stream, [])
        if xxhash.xxh3_64_intdigest(stream.encode()) not in self._streams:
            return []
        return self._ranges_of("stream = {stream:String}", stream).get(stream, [])

    def _ranges_of(self, condition: str, stream: str) -> dict[str, list[KnownRange]]:
        found: dict[str, list[KnownRange]] = {}
        for name, start, end, digest, stored, *counts in self._query(
            "SELECT r.stream, r.start, r.end, r.digest, max(l.token != ''), max(l.bytes), max(l.lines), max(l.rows), "  # noqa: S608
            "max(l.dead_letters), max(l.blank) FROM (SELECT stream, start, end, digest, token FROM backfill_ranges "
            f"WHERE {condition}) AS r LEFT JOIN (SELECT stream, start, end, token, bytes, lines, rows, dead_letters, blank "
            f"FROM ledger WHERE {condition}) AS l "
            "ON r.stream = l.stream AND r.start = l.start AND r.end = l.end AND r.token = l.token "
            "GROUP BY r.stream, r.start, r.end, r.digest",
            stream=stream,
        ):
            known = KnownRange(start, end, digest, bool(stored), Counts(*counts))
            found.setdefault(name, []).append(known)
        return found

    def announce(self, claims: Sequence[Claim], token: str, now: float) -> None:
        """See `History`."""
        import pyarrow as pa

        from tailrace.ingestor.columns import strings

        table = pa.table(
            {
                "stream": strings([claim.stream for claim in claims]),
                "start": pa.array([claim.start for claim in claims], pa.uint64()),
                "end": pa.array([claim.end for claim in claims], pa.uint64()),
                "digest": strings([claim.digest for claim in claims]),
                "token": strings([token] * len(claims)),
                "announced_at": _times(len(claims), now),
            }
        )
        self._insert("backfill_ranges", table)

    def finish(self, scope: str, files: Sequence[tuple[Source, Counts]], now: float) -> None:
        """See `History`."""
        import pyarrow as pa

        from tailrace.ingestor.columns import strings

        sources = [source for source, _ in files]
        table = pa.table(
            {
                "scope": strings([scope] * len(files)),
                "path": strings([source.path for source in sources]),
                "size": pa.array([source.size for source in sources], pa.int64()),
                "modified": pa.array([source.modified for source in sources], pa.int64()),
                "inode": pa.array([source.inode for source in sources], pa.uint64()),
                **{
                    name: pa.array([getattr(counts, name) for _, counts in files], pa.uint64())
                    for name in Counts.__struct_fields__
                },
                "finished_at": _times(len(files), now),
            }
        )
        self._insert("backfill_files", table)

    def told(self, letters: Sequence[DeadLetter]) -> set[int]:
        """See `History`."""
        stored: set[tuple[int, int]] = set()
        for start in range(0, len(letters), _LETTERS_AT_ONCE):
            part = letters[start : start + _LETTERS_AT_ONCE]
            stored.update(
                self._query(
                    "SELECT byte, xxh3(raw) FROM dead_letters WHERE byte IN {bytes:Array(Int64)} AND NOT startsWith(file_id, {ours:String})",
                    bytes=[letter.origin.byte for letter in part],
                    ours=ID_PREFIX,
                )
            )
        return {
            index
            for index, letter in enumerate(letters)
            if (letter.origin.byte, xxhash.xxh3_64_intdigest(letter.raw)) in stored
        }

    def stored_bytes(self, scope: str, paths: Sequence[str]) -> Mapping[str, int]:
        """See `History`."""
        rows = self._query(
            "SELECT splitByString('!/', path)[1] AS source, sum(bytes) FROM "
            "(SELECT DISTINCT stream, start, end, path, bytes FROM ledger WHERE startsWith(stream, {ours:String}) "
            "AND splitByChar('/', stream)[2] = {scope:String}) WHERE source IN {paths:Array(String)} GROUP BY source",
            scope=scope,
            ours=f"file:{ID_PREFIX}",
            paths=list(paths),
        )
        return {str(path): int(size) for path, size in rows}

    def close(self) -> None:
        """Closes the client."""
        self._client.close()

    def _query(self, statement: str, **parameters: Any) -> Iterable[Any]:
        with translated(self._where):
            return [tuple(row) for row in self._client.query(statement, parameters=parameters).result_rows]

    def _insert(self, table: str, rows: pa.Table) -> None:
        with translated(self._where):
            self._client.insert_arrow(table, rows, settings=_NOTES)


def _times(count: int, now: float) -> pa.Array:
    import pyarrow as pa

    return pa.array([int(now * 1000)] * count, pa.int64()).cast(pa.timestamp("ms", "UTC"))

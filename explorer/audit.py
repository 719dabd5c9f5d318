"""The tables' side of an audit: what the ledger says is stored, and what is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.texts import to_text
from tailrace.schemas.audit import CONTENT_COLUMNS, SEPARATOR, LedgerRange
from tailrace.schemas.clickhouse.connection import translated

ROWS_AT_ONCE = 8_000_000
"""So many rows' hashes are held in memory at a time."""
_EXAMPLES = 5
_SEPARATOR = f"char({ord(SEPARATOR)})"


@dataclass(slots=True)
class Letters:
    """The dead letters that are there, each once.

    Args:
        places: By stream of the ledger (`topic/partition`, `file:<id>`), position and item of each.
        raw: Hashes of their bytes.
        files: By file id, positions of those that came through Kafka from a file that our shipper reads.
        replayed: How many became rows later.
    """

    places: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    raw: set[int] = field(default_factory=set)
    files: dict[str, set[int]] = field(default_factory=dict)
    replayed: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.places.values()))


@dataclass(frozen=True, slots=True)
class TagsDifference:
    """Lines of tags that are not the same in `tag_lines` and in `tags`, which is made of it.

    Args:
        missing: Lines of which `tags` has nothing.
        extra: Lines that only `tags` has.
        lines: Distinct tags by `tag_lines`.
        tags: Distinct tags in `tags`.
    """

    missing: int
    extra: int
    lines: int
    tags: int


@dataclass(frozen=True, slots=True)
class RowExample:
    """One row, to find it."""

    table: str
    project_id: str
    trace_id: str
    ts: datetime
    line_hash: int


class StoredLines:
    """Reads what an audit needs of a migrated database.

    Args:
        client: A clickhouse-connect client; not closed here.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._reader = Reader(client)
        self._tables = self._record_tables()

    def now(self) -> int:
        """The server's time, in milliseconds since the epoch."""
        return int(self._rows("SELECT toUnixTimestamp64Milli(now64(3))")[0][0])

    def ledger(self) -> dict[str, list[LedgerRange]]:
        """The ranges of every stream, in order. A range that is there twice counts once."""
        found: dict[str, list[LedgerRange]] = {}
        rows = self._rows(
            "SELECT stream, start, end, max(lines), max(rows), max(dead_letters), max(blank), any(path) FROM ledger "
            "GROUP BY stream, start, end ORDER BY stream, start, end"
        )
        for stream, start, end, lines, stored, dead_letters, blank, path in rows:
            found.setdefault(to_text(stream), []).append(
                LedgerRange(start, end, lines, stored, dead_letters, blank, to_text(path))
            )
        return found

    def digests(self) -> dict[str, dict[tuple[int, int], set[str]]]:
        """By stream, the ranges that a backfill stored or announced, with the digests of their bytes."""
        found: dict[str, dict[tuple[int, int], set[str]]] = {}
        for stream, start, end, digest in self._rows(
            "SELECT DISTINCT stream, start, end, digest FROM backfill_ranges"
        ):
            found.setdefault(to_text(stream), {}).setdefault((start, end), set()).add(to_text(digest))
        return found

    def letters(self) -> Letters:
        """Every dead letter."""
        letters = Letters()
        for source, topic, partition, offset, item, file_id, byte, raw in self._rows(
            "SELECT DISTINCT source, topic, partition, offset, item, file_id, byte, xxh3(raw) FROM dead_letters"
        ):
            name = to_text(file_id)
            if _plain(source) == "kafka":
                letters.places.setdefault(f"{to_text(topic)}/{partition}", set()).add((offset, item))
                if name:
                    letters.files.setdefault(name, set()).add(byte)
            else:
                letters.places.setdefault(f"file:{name}", set()).add((byte, item))
            letters.raw.add(raw)
        replayed = "SELECT uniqExact(letter) FROM dead_letter_replays WHERE state = 'stored'"
        letters.replayed = int(self._rows(replayed)[0][0])
        return letters

    def replayed_hashes(self) -> set[int]:
        """Hashes of the rows that were dead letters once."""
        return {
            row[0]
            for row in self._rows("SELECT DISTINCT line_hash FROM dead_letter_replays WHERE state = 'stored'")
        }

    def rows(self) -> int:
        """Rows of all record tables, counted as they lie: one that is there twice counts twice."""
        return int(self._rows(f"SELECT count() FROM ({self._all('1')})")[0][0])  # noqa: S608

    def hashes(self, before: int) -> Iterator[tuple[Any, Any, Any]]:
        """The hash of every line that is stored, each once, in parts.

        Args:
            before: Milliseconds since the epoch.

        Yields:
            Three Arrow arrays: hashes, whether each was stored before that time, and, in no order, what the rows say
            (`schemas.audit.CONTENT_COLUMNS`).
        """
        parts = max(1, -(-self.rows() // ROWS_AT_ONCE))
        for part in range(parts):
            parameters = Parameters()
            sql = (
                f"SELECT line_hash, min(ingested_at) <= fromUnixTimestamp64Milli({parameters.add(before, 'Int64')}) AS old, "  # noqa: S608
                f"groupUniqArray(content) AS contents FROM ({self._contents(f'line_hash % {parts} = {part}')}) "
                "GROUP BY line_hash"
            )
            with translated("ClickHouse"):
                table = self._client.query_arrow(sql, parameters=dict(parameters.values)).combine_chunks()
            contents = table["contents"].combine_chunks().flatten()
            yield table["line_hash"].combine_chunks(), table["old"].combine_chunks(), contents

    def examples(self, hashes: list[int]) -> list[RowExample]:
        """Some of the rows with these hashes."""
        parameters = Parameters()
        sought = parameters.add(hashes[:1000], "Array(UInt64)")
        columns = "project_id, trace_id, ts, line_hash"
        rows = self._reader.rows(
            f"SELECT * FROM ({self._all(columns, f'line_hash IN {sought}', named=True)}) "  # noqa: S608
            f"ORDER BY ts LIMIT {_EXAMPLES}",
            parameters,
        )
        return [
            RowExample(to_text(table), to_text(project), to_text(trace), ts.replace(tzinfo=UTC), line_hash)
            for table, project, trace, ts, line_hash in rows
        ]

    def tags(self) -> TagsDifference:
        """Compares the table of tags with the lines that it is made of."""
        ((missing,),) = self._rows(
            "SELECT uniqExact(line_hash) FROM tag_lines WHERE notEmpty(tags.name) "
            "AND line_hash NOT IN (SELECT line_hash FROM tags)"
        )
        ((extra,),) = self._rows(
            "SELECT uniqExact(line_hash) FROM tags WHERE line_hash NOT IN (SELECT line_hash FROM tag_lines)"
        )
        ((in_lines,),) = self._rows(
            "SELECT sum(length(arrayDistinct(arrayZip(`tags.name`, `tags.kind`, `tags.str`, `tags.type`, `tags.group`)))) "
            "FROM (SELECT line_hash, tags.name, tags.kind, tags.str, tags.type, tags.group FROM tag_lines "
            "LIMIT 1 BY line_hash)"
        )
        ((in_tags,),) = self._rows(
            "SELECT sum(n) FROM (SELECT uniqExact(name, kind, str, type, group) AS n FROM tags GROUP BY line_hash)"
        )
        return TagsDifference(int(missing), int(extra), int(in_lines or 0), int(in_tags or 0))

    def _contents(self, condition: str) -> str:
        parts = []
        for table in self._tables:
            columns = ["trace_id", "toString(toUnixTimestamp64Micro(ts))"]
            for column in CONTENT_COLUMNS.get(table, ()):
                joined = f"arrayStringConcat(`{column}`, {_SEPARATOR})"
                columns.append(joined if "." in column else f"`{column}`")
            content = f"xxh3(concatWithSeparator({_SEPARATOR}, {', '.join(columns)}))"
            parts.append(
                f"SELECT line_hash, ingested_at, {content} AS content FROM `{table}` WHERE {condition}"  # noqa: S608
            )
        return " UNION ALL ".join(parts)

    def _all(self, columns: str, condition: str = "1", *, named: bool = False) -> str:
        parts = []
        for table in self._tables:
            name = f"'{table}' AS table, " if named else ""
            parts.append(f"SELECT {name}{columns} FROM `{table}` WHERE {condition}")  # noqa: S608
        return " UNION ALL ".join(parts)

    def _record_tables(self) -> list[str]:
        """The tables of records: those with these columns; what is made of them lacks the last."""
        rows = self._rows(
            "SELECT table FROM system.columns WHERE database = currentDatabase() "
            "AND name IN ('line_hash', 'trace_ts', 'ingested_at') AND table IN "
            "(SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree') "
            "GROUP BY table HAVING count() = 3 ORDER BY table"
        )
        return [to_text(row[0]) for row in rows]

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._reader.rows(sql, Parameters())


def _plain(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

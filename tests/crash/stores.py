"""Where rows go: a database without merges, and what it holds in figures that can be compared."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from crash.written import Line, lines
from support.cli import query
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate

_TRACE = "trace_id, toString(toUnixTimestamp64Micro(ts))"
_LIST = "arrayStringConcat(arrayMap(x -> toString(x), `tags.{}`), ',')"
CONTENT = {
    "logs": f"{_TRACE}, level, message",
    "tag_lines": f"{_TRACE}, "
    + ", ".join(_LIST.format(name) for name in ("name", "kind", "str", "num", "type", "group")),
    "tags": "toString(toUnixTimestamp64Micro(ts)), name, kind, str, toString(num), type, group",
    "objects": f"{_TRACE}, ref, type, data",
    "feedback": f"{_TRACE}, feedback_tag, feedback_text, toString(score)",
}
"""By table, the columns of `written.Row.content`."""
_KEY = {"tags": "(line_hash, name)"}
"""What tells the rows of one line apart; elsewhere a line is one row."""

_ALL = ("logs", "tag_lines", "tags", "objects", "traces", "event_lines", "feedback", "dead_letters", "ledger")
UNMERGED = [
    # A merge would make one row of two that ought never to have been stored, and hide them.
    f"ALTER TABLE {table} MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1, "
    "max_bytes_to_merge_at_min_space_in_pool = 1, parts_to_delay_insert = 1000000, parts_to_throw_insert = 1000000"
    for table in _ALL
]
"""Run after the migration: no table merges its parts by itself."""
MERGED = [f"OPTIMIZE TABLE {table} FINAL" for table in _ALL]

_WRAP = 1 << 64


@dataclass
class Sum:
    """Rows of one table.

    Args:
        rows: How many.
        distinct: How many differ by line.
        checksum: The sum of the hashes of their contents.
    """

    rows: int = 0
    distinct: int = 0
    checksum: int = 0

    def add(self, content: bytes) -> None:
        """One row more, of a line of its own."""
        self.rows += 1
        self.distinct += 1
        self.checksum = (self.checksum + xxhash.xxh3_64_intdigest(content)) % _WRAP

    def __iadd__(self, other: Sum) -> Sum:
        """Rows of other lines."""
        self.rows += other.rows
        self.distinct += other.distinct
        self.checksum = (self.checksum + other.checksum) % _WRAP
        return self


@dataclass
class Stored:
    """What is in a database, or ought to be.

    Args:
        tables: By name.
        dead_letters: Their raw bytes.
        ledger: `(stream, start, end, lines)`, in order.
    """

    tables: dict[str, Sum] = field(default_factory=lambda: {name: Sum() for name in CONTENT})
    dead_letters: Sum = field(default_factory=Sum)
    ledger: list[tuple[str, int, int, int]] = field(default_factory=list)

    def __iadd__(self, other: Stored) -> Stored:
        """What is made of other lines; ledgers are left out."""
        self.dead_letters += other.dead_letters
        for table, rows in other.tables.items():
            self.tables[table] += rows
        return self

    def add(self, line: Line) -> None:
        """What is made of a line."""
        if line.is_garbage:
            self.dead_letters.add(line.data)
        for table, content in line.rows:
            self.tables[table].add(content.encode())


def expected(counts: dict[int, int]) -> Stored:
    """What must be stored of what was written; the ledger is left out."""
    model = Stored()
    for line in lines(counts):
        model.add(line)
    return model


def write(path: Path, writer: int, count: int) -> Stored:
    """Writes a file of lines, gzipped where its name says so; what must be stored of them."""
    model = Stored()
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb", 1 << 20) as file:
        for line in lines({writer: count}):
            file.write(line.data + b"\n")
            model.add(line)
    return model


def read(dsn: str) -> Stored:
    """What is stored.

    Args:
        dsn: Of a server, or of an embedded database that no process holds.
    """
    *tables, dead, ledger = query(dsn, *_statements(), timeout=1200)
    return Stored(
        {name: _sum(found) for name, found in zip(CONTENT, tables, strict=True)},
        _sum(dead),
        [(row["stream"], row["start"], row["end"], row["lines"]) for row in ledger],
    )


def create(dsn: str) -> None:
    """Make a database on a server that never merges by itself."""
    client = connect(Dsn.parse(dsn), create_database=True)
    migrate(client)
    for statement in UNMERGED:
        client.command(statement)
    client.close()


_CREATE = """
import sys
from tailrace.schemas.clickhouse.connection import Dsn, open_engine
from tailrace.schemas.clickhouse.migrate import migrate
client = open_engine(Dsn.parse(sys.argv[1]))
migrate(client)
for statement in sys.argv[2:]:
    client.command(statement)
client.close()
"""


def create_embedded(directory: Path) -> str:
    """Make an embedded database that never merges by itself; returns its name.

    In a process of its own: chDB allows a process one directory only.
    """
    dsn = f"chdb://{directory}"
    subprocess.run([sys.executable, "-c", _CREATE, dsn, *UNMERGED], check=True, timeout=120)
    return dsn


def merge(dsn: str) -> None:
    """Merge every table to the end."""
    query(dsn, *MERGED)


def _statements() -> list[str]:
    found = [_figures(name, f"concatWithSeparator('|', {CONTENT[name]})") for name in CONTENT]
    found.append(_figures("dead_letters", "raw"))
    # The same range twice is one row after a merge: here both are seen.
    found.append("SELECT stream, start, end, lines FROM ledger ORDER BY stream, start, end")
    return found


def _figures(table: str, content: str) -> str:
    key = "raw" if table == "dead_letters" else _KEY.get(table, "line_hash")
    return f"SELECT count() AS rows, uniqExact({key}) AS distinct, toString(sum(xxh3({content}))) AS checksum FROM {table}"


def _sum(found: Sequence[dict[str, Any]]) -> Sum:
    (row,) = found
    return Sum(row["rows"], row["distinct"], int(row["checksum"]))

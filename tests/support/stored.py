"""Rows as the ingestor stores them, put in without it: what readers are tested on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TABLES = (
    "logs",
    "tag_lines",
    "tags",
    "objects",
    "traces",
    "event_lines",
    "feedback",
    "predictions",
    "ground_truths",
    "exceptions",
    "tag_stats",
)
_tokens = itertools.count()


@dataclass(frozen=True)
class StoredTag:
    """A tag in the columns of `tag_lines`."""

    name: str
    kind: str
    str: str
    num: float
    type: str = "label"
    group: str = ""


def stored_tag(name: str, value: Any, type: str = "label", group: str = "") -> StoredTag:
    """The columns of a tag that was logged with this value."""
    nan = float("nan")
    if value is None:
        return StoredTag(name, "null", "null", nan, type, group)
    if isinstance(value, bool):
        return StoredTag(name, "bool", "true" if value else "false", float(value), type, group)
    if isinstance(value, int | float):
        return StoredTag(name, "number", json.dumps(value), float(value), type, group)
    if isinstance(value, str):
        return StoredTag(name, "string", value, nan, type, group)
    return StoredTag(name, "json", json.dumps(value), nan, type, group)


@dataclass(frozen=True)
class Line:
    """One line of one table; times in microseconds. `trace_ts` is `ts` unless given."""

    table: str
    trace_id: str
    ts: int
    line_hash: int
    project: str = "p"
    trace_ts: int | None = None
    tags: tuple[StoredTag, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def start(self) -> int:
        return self.ts if self.trace_ts is None else self.trace_ts

    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "project_id": self.project,
            "trace_id": self.trace_id,
            "trace_ts": moment(self.start),
            "ts": moment(self.ts),
            "line_hash": self.line_hash,
            **self.columns,
        }
        if self.table == "tag_lines":
            for column in ("name", "type", "group", "kind", "str", "num"):
                row[f"tags.{column}"] = [getattr(tag, column) for tag in self.tags]
        if self.table == "objects" and isinstance(row["data"], str):
            row["data"] = row["data"].encode()  # the driver takes a column of text or of bytes, not of both
        return row


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def store(client: Any, lines: Iterable[Line]) -> None:
    """Insert, each call under tokens of its own, so that nothing is dropped as a repeated block."""
    token = next(_tokens)
    by_shape: dict[tuple[str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for line in lines:
        row = line.row()
        by_shape.setdefault((line.table, tuple(row)), []).append(row)
    for number, ((table, columns), rows) in enumerate(by_shape.items()):
        client.insert(
            table,
            [list(row.values()) for row in rows],
            column_names=list(columns),
            settings={"insert_deduplication_token": f"{token}/{number}"},
        )


def stop_merges(client: Any) -> None:
    """From here on a row that is stored twice stays two rows."""
    for table in TABLES:
        client.command(f"SYSTEM STOP MERGES {client.database}.{table}")


def merge(client: Any) -> None:
    """Merge every partition to one part."""
    for table in TABLES:
        client.command(f"SYSTEM START MERGES {client.database}.{table}")
        client.command(f"OPTIMIZE TABLE {table} FINAL")


def truncate(client: Any) -> None:
    """Empty every table."""
    for table in TABLES:
        client.command(f"TRUNCATE TABLE {table}")

"""What an audit compares: lines as they stand in files and in Kafka, and the names of what can be wrong with them.

Each room surveys what is its own and fills these; the comparison knows nothing of disks, brokers or databases.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec

ROW, BAD, BLANK = range(3)
"""What a line ought to become: a row, a dead letter, nothing."""
NO_HOUR = -(1 << 40)
SEPARATOR = "\x1f"
CONTENT_COLUMNS: dict[str, tuple[str, ...]] = {
    "logs": ("level", "message"),
    "tag_lines": ("tags.name", "tags.type", "tags.group", "tags.str"),
    "objects": ("ref", "type", "data"),
}
"""By table, what is compared besides a row's hash. Trace and time, in microseconds, come first, and are all of it for other
tables; the project is left out, since an import may have changed it. The parts, and those of arrays, are joined by
`SEPARATOR` and hashed with xxh3."""


class Judged(NamedTuple):
    """What a line ought to become.

    Args:
        kind: `ROW`, `BAD` or `BLANK`.
        key: A row's `line_hash`; of a bad line the hash of the bytes that its dead letter keeps.
        hour: Hours since the epoch at the time that the line tells; `NO_HOUR` where it tells none.
        content: Of a row, a hash of what its columns ought to say (`CONTENT_COLUMNS`); else 0.
    """

    kind: int
    key: int
    hour: int
    content: int = 0


Judge = Callable[[bytes, int], Judged]
"""`judge(line, length)`: the line without its line feed, or its head when it is longer than the limit; its whole length."""


@dataclass(slots=True)
class Lines:
    """Lines of one stream in their order, a few numbers each, so that millions of them fit into memory.

    Args:
        position: Byte of a file or offset of a partition; one message may hold several lines.
        item: Which line of its message, from 0.
        end: The byte after the line, its line feed included; of a message the next offset.
        kind: As in `Judged`.
        key: As in `Judged`.
        hour: As in `Judged`.
        content: As in `Judged`.
    """

    position: array[int] = field(default_factory=lambda: array("q"))
    item: array[int] = field(default_factory=lambda: array("L"))
    end: array[int] = field(default_factory=lambda: array("q"))
    kind: array[int] = field(default_factory=lambda: array("b"))
    key: array[int] = field(default_factory=lambda: array("Q"))
    hour: array[int] = field(default_factory=lambda: array("q"))
    content: array[int] = field(default_factory=lambda: array("Q"))

    def __len__(self) -> int:
        return len(self.position)

    def append(self, position: int, item: int, end: int, judged: Judged) -> None:
        """One line more, behind the others."""
        self.position.append(position)
        self.item.append(item)
        self.end.append(end)
        self.kind.append(judged.kind)
        self.key.append(judged.key)
        self.hour.append(judged.hour)
        self.content.append(judged.content)

    def within(self, start: int, end: int) -> range:
        """Indices of the lines in `[start, end)`."""
        return range(bisect_left(self.position, start), bisect_left(self.position, end))


@dataclass(slots=True)
class FileFacts:
    """A log file on disk.

    Args:
        path: Where it is.
        size: Bytes when it was looked at.
        lines: All of them; the last one may lack its line feed.
        file_id: By which the shipper knows it; '' when no progress of any shipper is about this content.
        shipped: Byte up to which the shipper's progress reaches; `None` when it is not known.
        under_way: Byte ranges that were being delivered when the shipper ended.
        unfinished: Whether the last line has no line feed.
        unreadable: Why it could not be read; '' when it was.
    """

    path: str
    size: int
    lines: Lines = field(default_factory=Lines)
    file_id: str = ""
    shipped: int | None = None
    under_way: tuple[tuple[int, int], ...] = ()
    unfinished: bool = False
    unreadable: str = ""


@dataclass(slots=True)
class PartitionFacts:
    """A partition of the topic.

    Args:
        begin: Its first offset; what came before was removed.
        end: The offset after the last committed record.
        committed: Of the consumer group; `None` when it has committed nothing, or was not asked.
        lines: Those of its messages.
        file: By line, its place in `files`; -1 for a line of which the key tells no file.
        byte: By line, where it stands in its file; -1 likewise.
        files: File ids.
    """

    begin: int = 0
    end: int = 0
    committed: int | None = None
    lines: Lines = field(default_factory=Lines)
    file: array[int] = field(default_factory=lambda: array("l"))
    byte: array[int] = field(default_factory=lambda: array("q"))
    files: list[str] = field(default_factory=list)


class LedgerRange(msgspec.Struct, frozen=True, gc=False):
    """A row of the ledger."""

    start: int
    end: int
    lines: int
    rows: int
    dead_letters: int
    blank: int
    path: str = ""


class Cause(StrEnum):
    """Why lines are not accounted for, or what else is to be known. The values are part of the JSON output."""

    NOT_YET_SHIPPED = "not_yet_shipped"
    UNFINISHED_LINE = "unfinished_line"
    UNDER_WAY = "under_way"
    NOT_YET_INGESTED = "not_yet_ingested"

    LOST_TRUNCATED = "lost_truncated"
    LOST_REPLACED = "lost_replaced"
    IN_DOUBT = "in_doubt"
    FILE_TRUNCATED = "file_truncated"
    FILE_REPLACED = "file_replaced"
    FILE_UNREADABLE = "file_unreadable"
    FILE_CHANGED = "file_changed"
    NOT_IN_KAFKA = "not_in_kafka"
    NOT_IN_FILE = "not_in_file"
    REMOVED_BY_RETENTION = "removed_by_retention"
    NOT_INGESTED = "not_ingested"
    LEDGER_GAP = "ledger_gap"
    LEDGER_OVERLAP = "ledger_overlap"
    LEDGER_COUNT = "ledger_count"
    LEDGER_SUM = "ledger_sum"
    COMMITTED_TOO_FAR = "committed_too_far"
    TOPIC_SHORTER = "topic_shorter"
    ROW_MISSING = "row_missing"
    ROW_ALTERED = "row_altered"
    ROWS_FEWER = "rows_fewer"
    ROW_EXTRA = "row_extra"
    LETTER_MISSING = "letter_missing"
    LETTER_EXTRA = "letter_extra"
    TAGS_MISSING = "tags_missing"
    TAGS_EXTRA = "tags_extra"

    REMOVED_AFTER_STORED = "removed_after_stored"
    FILE_GONE = "file_gone"
    SENT_TWICE = "sent_twice"
    STORED_TWICE = "stored_twice"
    EQUAL_LINES = "equal_lines"
    OTHER_STREAMS = "other_streams"


class Severity(StrEnum):
    """What a finding means for the sum: nothing, lines that are on their way, or lines that are not accounted for."""

    NOTE = "note"
    PENDING = "pending"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One thing that an audit found.

    Args:
        severity: Whether it is a fault.
        cause: Its name.
        where: A path, `topic/partition`, a stream of the ledger, or a table.
        detail: One sentence.
        lines: How many lines it is about; 0 when that is not known.
        unit: `byte` or `offset` where it has a range, else ''.
        start: First byte or offset.
        end: The one after the last.
    """

    severity: Severity
    cause: Cause
    where: str
    detail: str
    lines: int = 0
    unit: str = ""
    start: int | None = None
    end: int | None = None


class StageCount(msgspec.Struct, frozen=True):
    """The lines of one file or partition, and what became of them.

    Args:
        name: A path, or `topic/partition`.
        lines: All of them.
        blank: Those with nothing in them.
        in_kafka: Of a file: those that are in the topic; `None` when it was not looked at.
        rows: Those whose row is there; `None` when the tables were not looked at.
        dead_letters: Those whose dead letter is there; likewise.
        pending: Those that are on their way.
        missing: Those that are nowhere behind this stage.
    """

    name: str
    lines: int
    blank: int
    in_kafka: int | None = None
    rows: int | None = None
    dead_letters: int | None = None
    pending: int = 0
    missing: int = 0


class HourCount(msgspec.Struct, frozen=True):
    """Lines by the hour that they tell.

    Args:
        hour: Its beginning; `None` for lines that tell no time, as dead letters do.
        lines: As read from Kafka, or from files without it.
        stored: Those whose row or dead letter is there.
        missing: Those that are not there and not on their way either.
    """

    hour: datetime | None
    lines: int
    stored: int
    missing: int


class AuditReport(msgspec.Struct, frozen=True):
    """The answer.

    Args:
        accounted: Whether every line is where it ought to be, and none is on its way.
        pending: Lines that are on their way.
        missing: Lines that are not accounted for.
        files: A row a file.
        partitions: A row a partition.
        hours: A row an hour.
        rows: Distinct lines in the tables; `None` when they were not looked at.
        dead_letters: In theirs; likewise.
        replayed: Dead letters that became rows later; they are in both sums.
        findings: What is wrong first.
        compared: Which stages were looked at.
    """

    accounted: bool
    pending: int
    missing: int
    files: tuple[StageCount, ...]
    partitions: tuple[StageCount, ...]
    hours: tuple[HourCount, ...]
    rows: int | None
    dead_letters: int | None
    replayed: int | None
    findings: tuple[Finding, ...]
    compared: tuple[str, ...]

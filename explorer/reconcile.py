"""Compares lines as they stand in files, in Kafka and in tables, and names every difference. No IO of its own.

    lines in files = lines in Kafka = rows + dead letters + blank

What decides is the content: a line is stored when a row has its hash, or when a dead letter has its place or its bytes.
The ledger says which ranges of a stream were stored, so a line that is nowhere is either behind what the ledger has
(on its way), in a hole of it (never ingested), or was stored and is gone.

Lines that are equal to the byte are one row by design; they count as stored, and how many there are is noted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tailrace.explorer.audit import Letters, RowExample, TagsDifference
from tailrace.schemas.audit import (
    BAD,
    BLANK,
    NO_HOUR,
    ROW,
    AuditReport,
    Cause,
    FileFacts,
    Finding,
    HourCount,
    LedgerRange,
    Lines,
    PartitionFacts,
    Severity,
    StageCount,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RANGES = 20
"""So many ranges of one cause in one stream are named one by one; the others in one sum."""
_EXTRA = 1000

STORED, LETTER, NOTHING = 1, 2, 3
"""What became of a line, besides the blank ones (0)."""


@dataclass(slots=True)
class Tables:
    """What the tables say.

    Args:
        ledger: Ranges by stream, in order.
        letters: Dead letters.
        replayed: Hashes of rows that were dead letters once.
        hashes: Gives the hashes of all rows in disjoint parts, whether each row is older than the ledger that was read,
            and what the rows say.
        rows: Rows as they lie.
        tags: The two tables of tags against each other.
        examples: Gives some rows of these hashes.
    """

    ledger: Mapping[str, Sequence[LedgerRange]]
    letters: Letters
    replayed: set[int]
    hashes: Callable[[], Iterator[tuple[Any, Any, Any]]]
    rows: int
    tags: TagsDifference
    examples: Callable[[list[int]], list[RowExample]]


@dataclass(slots=True)
class Surveyed:
    """Everything that an audit looked at; `None` for a stage that was not asked for."""

    topic: str = ""
    files: list[FileFacts] | None = None
    partitions: dict[int, PartitionFacts] | None = None
    tables: Tables | None = None
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    """Lines of one source, and by line what became of them."""

    name: str
    ledger_name: str
    unit: str
    lines: Lines
    fate: bytearray = field(default_factory=bytearray)
    pending: int = 0
    missing: int = 0
    lost: bytearray = field(default_factory=bytearray)
    facts: PartitionFacts | None = None
    altered: list[int] = field(default_factory=list)

    def file_of(self, index: int) -> int:
        """Which file a line of a partition came from, as `PartitionFacts` numbers them; -1 elsewhere."""
        return -1 if self.facts is None else self.facts.file[index]


class Reconciler:
    """One comparison.

    Args:
        surveyed: What was looked at.
    """

    def __init__(self, surveyed: Surveyed) -> None:
        self._given = surveyed
        self._findings = list(surveyed.findings)
        self._streams: list[_Stream] = []
        self._extra: list[int] = []
        self._extra_count = 0
        self._distinct = 0
        self._found = 0
        self._unknown = 0
        self._pending_in_kafka: set[tuple[str, int]] = set()

    def report(self) -> AuditReport:
        """The answer; call it once."""
        given = self._given
        partitions = {
            number: _Stream(
                f"{given.topic}/{number}", f"{given.topic}/{number}", "offset", facts.lines, facts=facts
            )
            for number, facts in sorted((given.partitions or {}).items())
        }
        files = {
            number: _Stream(facts.path, f"file:{facts.file_id}" if facts.file_id else "", "byte", facts.lines)
            for number, facts in enumerate(given.files or ())
        }
        self._streams = [*partitions.values(), *files.values()]
        if given.tables is not None:
            self._decide_fates(given.tables)
            self._check_ledger(given.tables)
            self._name_altered()
        for number, stream in partitions.items():
            self._check_partition(stream, (given.partitions or {})[number])
        counted = [self._check_file(files[number], facts) for number, facts in enumerate(given.files or ())]
        if given.tables is not None:
            self._check_rest(given.tables, partitions, files)
        return self._summed(partitions, files, counted)

    # ------------------------------------------------------------ tables

    def _decide_fates(self, tables: Tables) -> None:
        """By content: which lines have their row or dead letter."""
        keys = pa.concat_arrays(
            [_arrow(stream.lines.key) for stream in self._streams] or [pa.array([], pa.uint64())]
        )
        kinds = pa.concat_arrays(
            [_arrow(stream.lines.kind) for stream in self._streams] or [pa.array([], pa.int8())]
        )
        contents = pa.concat_arrays(
            [_arrow(stream.lines.content) for stream in self._streams] or [pa.array([], pa.uint64())]
        )
        expected = keys.filter(pc.equal(kinds, ROW))
        stored = unaltered = None
        replayed = pa.array(sorted(tables.replayed), pa.uint64())
        for hashes, old, says in tables.hashes():
            self._distinct += len(hashes)
            same = pc.is_in(contents, value_set=says)
            unaltered = same if unaltered is None else pc.or_(unaltered, same)
            found = pc.is_in(keys, value_set=hashes)
            stored = found if stored is None else pc.or_(stored, found)
            known = pc.or_(pc.is_in(hashes, value_set=expected), pc.is_in(hashes, value_set=replayed))
            self._found += pc.sum(pc.is_in(hashes, value_set=expected)).as_py() or 0
            extra = hashes.filter(pc.and_(pc.invert(known), pc.not_equal(old, 0)))
            self._unknown += len(hashes) - (pc.sum(known).as_py() or 0)
            self._extra_count += len(extra)
            self._extra += extra.slice(0, _EXTRA - len(self._extra)).to_pylist()
        at = 0
        for stream in self._streams:
            count = len(stream.lines)
            part = stored.slice(at, count).to_pylist() if stored is not None else [False] * count
            same = unaltered.slice(at, count).to_pylist() if unaltered is not None else part
            at += count
            self._decide_stream(stream, part, same, tables.letters)
        self._equal_lines(expected, tables)

    def _decide_stream(
        self, stream: _Stream, stored: list[bool], unaltered: list[bool], letters: Letters
    ) -> None:
        places = letters.places.get(stream.ledger_name, set())
        by_file = (
            letters.files.get(stream.ledger_name.removeprefix("file:"), set())
            if stream.unit == "byte"
            else set()
        )
        lines = stream.lines
        fate = stream.fate = bytearray(len(lines))
        for index, kind in enumerate(lines.kind):
            if kind == ROW and stored[index]:
                fate[index] = STORED
                if not unaltered[index]:
                    stream.altered.append(index)
            elif kind != BLANK:
                position = lines.position[index]
                letter = (position, lines.item[index]) in places or position in by_file
                if not letter and kind == BAD:
                    letter = lines.key[index] in letters.raw
                fate[index] = LETTER if letter else NOTHING

    def _name_altered(self) -> None:
        """Rows that say something else than their lines; a line that is in the topic and in a file is named once."""
        said: set[int] = set()
        for stream in self._streams:
            keys = stream.lines.key
            text = "their rows are there, and say something else than the lines"
            altered = [index for index in stream.altered if keys[index] not in said]
            self._ranges(stream, altered, Severity.WRONG, Cause.ROW_ALTERED, text, counted=False)
            said.update(keys[index] for index in altered)

    def _equal_lines(self, expected: Any, tables: Tables) -> None:
        # In files and in Kafka the same line is meant, so only one of the two sources is counted.
        source = [
            s for s in self._streams if s.unit == ("offset" if self._given.partitions is not None else "byte")
        ]
        keys: array[int] = array("Q")
        for stream in source:
            keys.extend(k for k, fate in zip(stream.lines.key, stream.fate, strict=True) if fate == STORED)
        distinct = pc.count_distinct(_arrow(keys)).as_py() if len(keys) else 0
        if distinct < len(keys):
            self._note(
                Severity.NOTE,
                Cause.EQUAL_LINES,
                "tables",
                f"{len(keys) - distinct:,} lines equal another to the byte, and share its row",
                len(keys) - distinct,
            )
        if tables.rows > self._distinct:
            self._note(
                Severity.NOTE,
                Cause.STORED_TWICE,
                "tables",
                f"{tables.rows - self._distinct:,} rows stand twice until a merge; readers count them once",
                tables.rows - self._distinct,
            )

    def _check_ledger(self, tables: Tables) -> None:
        """The ledger against itself, against the lines that are at hand, and against the dead letters."""
        by_name = {stream.ledger_name: stream for stream in self._streams if stream.ledger_name}
        for name, ranges in tables.ledger.items():
            unit = "byte" if name.startswith("file:") else "offset"
            stream = by_name.get(name)
            where = stream.name if stream is not None else _shown(name, ranges)
            for before, after in pairwise(ranges):
                if after.start < before.end:
                    text = f"[{before.start}, {before.end}) and [{after.start}, {after.end}) overlap: stored twice"
                    end = min(before.end, after.end)
                    self._note(Severity.WRONG, Cause.LEDGER_OVERLAP, where, text, 0, unit, after.start, end)
                elif after.start > before.end and stream is None and not name.startswith("replay:"):
                    text = "no range of the ledger holds this, and its lines are not at hand"
                    self._note(
                        Severity.WRONG, Cause.LEDGER_GAP, where, text, 0, unit, before.end, after.start
                    )
            if stream is not None:
                self._check_holes(stream, ranges)
            elif unit == "byte" and ranges[0].start > 0:
                text = "the ledger does not begin at the file's beginning"
                self._note(Severity.WRONG, Cause.LEDGER_GAP, where, text, 0, unit, 0, ranges[0].start)
            positions = sorted(place[0] for place in tables.letters.places.get(name, ()))
            for each in ranges:
                self._check_range(each, where, unit, stream, positions, name.startswith("replay:"))
            self._check_letters_outside(where, unit, ranges, positions, stream)
        for name, places in tables.letters.places.items():
            if name not in tables.ledger:
                text = f"{len(places):,} dead letters of a stream that the ledger does not know"
                self._note(Severity.WRONG, Cause.LETTER_EXTRA, name, text, len(places))

    def _check_range(
        self,
        each: LedgerRange,
        where: str,
        unit: str,
        stream: _Stream | None,
        letters: list[int],
        replay: bool,
    ) -> None:
        here = (unit, each.start, each.end)
        if each.lines != each.rows + each.dead_letters + each.blank:
            text = f"{each.lines} lines are not {each.rows} rows + {each.dead_letters} dead letters + {each.blank} blank"
            self._note(Severity.WRONG, Cause.LEDGER_SUM, where, text, 0, *here)
        if replay:
            return
        if stream is not None and _reaches(stream, each):
            found = len(stream.lines.within(each.start, each.end))
            if found != each.lines:
                text = f"the ledger counts {each.lines:,} lines, and there are {found:,}"
                self._note(Severity.WRONG, Cause.LEDGER_COUNT, where, text, abs(found - each.lines), *here)
        count = bisect_left(letters, each.end) - bisect_left(letters, each.start)
        if count < each.dead_letters:
            text = f"the ledger counts {each.dead_letters:,} dead letters, and {count:,} are there"
            self._note(Severity.WRONG, Cause.LETTER_MISSING, where, text, each.dead_letters - count, *here)
        elif count > each.dead_letters:
            text = f"the ledger counts {each.dead_letters:,} dead letters, and {count:,} are there"
            self._note(Severity.WRONG, Cause.LETTER_EXTRA, where, text, count - each.dead_letters, *here)

    def _check_holes(self, stream: _Stream, ranges: Sequence[LedgerRange]) -> None:
        """Holes of the ledger whose lines are all stored; where some are not, they are named line by line."""
        for start, end in _holes(ranges, 0, self._expected_end(stream, ranges)):
            inside = stream.lines.within(start, end)
            if len(inside) and all(stream.fate[index] != NOTHING for index in inside):
                text = "no range of the ledger holds these lines, and yet they are stored"
                found = (len(inside), stream.unit, start, end)
                self._note(Severity.WRONG, Cause.LEDGER_GAP, stream.name, text, *found)

    def _expected_end(self, stream: _Stream, ranges: Sequence[LedgerRange]) -> int:
        """How far the ledger should reach at least, by what is known of progress."""
        known = [ranges[-1].end]
        known += [
            x.shipped or 0 for x in self._given.files or () if stream.ledger_name == f"file:{x.file_id}"
        ]
        return max(known)

    def _check_letters_outside(
        self,
        where: str,
        unit: str,
        ranges: Sequence[LedgerRange],
        positions: list[int],
        stream: _Stream | None,
    ) -> None:
        # What is being stored now has its dead letters before its range: only holes of the ledger are looked at.
        for start, end in _holes(ranges, ranges[0].start, ranges[-1].end):
            count = bisect_left(positions, end) - bisect_left(positions, start)
            if stream is not None:  # those of lines that are at hand belong to the hole
                count -= sum(stream.fate[index] == LETTER for index in stream.lines.within(start, end))
            if count > 0:
                text = f"{count:,} dead letters where the ledger has no range"
                self._note(Severity.WRONG, Cause.LETTER_EXTRA, where, text, count, unit, start, end)

    def _check_rest(
        self, tables: Tables, partitions: Mapping[int, _Stream], files: Mapping[int, _Stream]
    ) -> None:
        """Rows that no line at hand explains, and the tags."""
        at_hand = {stream.ledger_name: stream for stream in (*partitions.values(), *files.values())}
        paths = {facts.path for facts in self._given.files or ()}
        unseen = explained = 0
        elsewhere: Counter[str] = Counter()
        for name, ranges in tables.ledger.items():
            if name.startswith("replay:"):
                continue
            stream = at_hand.get(name)
            for each in ranges:
                if stream is not None and _reaches(stream, each):
                    explained += each.rows
                elif each.rows and each.path not in paths:
                    unseen += each.rows
                    what = "of streams that were not looked at" if stream is None else "whose lines are gone"
                    elsewhere[what] += each.rows
        for what, count in elsewhere.items():
            text = f"{count:,} rows {what}, by the ledger: only their number is compared"
            self._note(Severity.NOTE, Cause.OTHER_STREAMS, "tables", text, count)
        if self._extra_count > unseen:
            count = self._extra_count - unseen
            text = f"{count:,} rows that no line explains"
            if not unseen:
                shown = (
                    f"{x.table}: trace {x.trace_id} at {x.ts.isoformat()}"
                    for x in tables.examples(self._extra)
                )
                text += f", for example {'; '.join(shown)}"
            self._note(Severity.WRONG, Cause.ROW_EXTRA, "tables", text, count)
        # Lines at hand that no stream at hand accounts for may be those of the others: copies, or lines that the topic
        # does not have any more and the file has.
        elif (count := unseen - self._unknown - max(0, self._found - explained)) > 0:
            text = (
                f"{unseen:,} rows whose lines are not at hand were stored by the ledger, and {self._unknown:,} are "
                "there: the others are missing, or equal another line; give PATHs or --kafka to know which"
            )
            self._note(Severity.WRONG, Cause.ROWS_FEWER, "tables", text, count)
        tags = tables.tags
        if tags.missing:
            text = (
                f"{tags.missing:,} lines of tag_lines have none of their tags in tags: slices do not see them"
            )
            self._note(Severity.WRONG, Cause.TAGS_MISSING, "tags", text, tags.missing)
        elif tags.tags < tags.lines:
            text = f"{tags.lines - tags.tags:,} tags of tag_lines are not in tags: slices do not see them"
            self._note(Severity.WRONG, Cause.TAGS_MISSING, "tags", text, tags.lines - tags.tags)
        if tags.extra:
            text = f"tags has tags of {tags.extra:,} lines that tag_lines does not have"
            self._note(Severity.WRONG, Cause.TAGS_EXTRA, "tags", text, tags.extra)

    # ------------------------------------------------------------ Kafka

    def _check_partition(self, stream: _Stream, facts: PartitionFacts) -> None:
        tables, lines = self._given.tables, stream.lines
        stream.lost = bytearray(len(lines))
        self._sent_twice(stream, facts)
        if tables is None:
            return
        ranges = tables.ledger.get(stream.ledger_name, [])
        last = ranges[-1].end if ranges else facts.begin
        done = max(last, facts.committed or 0)
        if facts.committed is not None and facts.committed > last and lines.within(last, facts.committed):
            text = "the consumer group has committed past what the ledger holds"
            count = len(lines.within(last, facts.committed))
            found = (count, "offset", last, facts.committed)
            self._note(Severity.WRONG, Cause.COMMITTED_TOO_FAR, stream.name, text, *found)
        if facts.begin > last or (ranges and ranges[0].start > 0) or (not ranges and facts.begin > 0):
            for start, end in _holes(ranges, 0, facts.begin):
                text = f"up to {end - start:,} messages were removed by the topic's retention before they were ingested"
                found = (0, "offset", start, end)
                self._note(Severity.WRONG, Cause.REMOVED_BY_RETENTION, stream.name, text, *found)
        if facts.committed is not None and facts.committed > facts.end:
            text = "the topic ends before what was ingested of it: it was made anew, or Kafka lost acknowledged messages"
            found = (0, "offset", facts.end, facts.committed)
            self._note(Severity.WRONG, Cause.TOPIC_SHORTER, stream.name, text, *found)
        covered = bytearray(len(lines))
        for each in ranges:
            inside = lines.within(each.start, each.end)
            covered[inside.start : inside.stop] = b"\x01" * len(inside)
        lagging: list[int] = []
        skipped: list[int] = []
        gone: list[int] = []
        for index, fate in enumerate(stream.fate):
            if fate != NOTHING:
                continue
            if covered[index]:
                gone.append(index)
            elif lines.position[index] >= done:
                lagging.append(index)
            else:
                skipped.append(index)
        for index in lagging:
            if facts.file[index] >= 0:
                self._pending_in_kafka.add((facts.files[facts.file[index]], facts.byte[index]))
        pending = "not ingested yet: the ledger ends before"
        self._ranges(stream, lagging, Severity.PENDING, Cause.NOT_YET_INGESTED, pending)
        text = "no range of the ledger holds these messages, although it holds later ones"
        self._ranges(stream, skipped, Severity.WRONG, Cause.NOT_INGESTED, text)
        self._gone(stream, gone)

    def _gone(self, stream: _Stream, gone: Sequence[int]) -> None:
        """Lines that the ledger calls stored and that are not there."""
        rows = [index for index in gone if stream.lines.kind[index] == ROW]
        letters = [index for index in gone if stream.lines.kind[index] == BAD]
        text = "stored by the ledger, and their rows are not there"
        self._ranges(stream, rows, Severity.WRONG, Cause.ROW_MISSING, text)
        text = "stored by the ledger, and their dead letters are not there"
        self._ranges(stream, letters, Severity.WRONG, Cause.LETTER_MISSING, text)

    def _sent_twice(self, stream: _Stream, facts: PartitionFacts) -> None:
        places = Counter(zip(facts.file, facts.byte, strict=True))
        places.pop((-1, -1), None)
        twice = sum(count - 1 for (number, _), count in places.items() if number >= 0 and count > 1)
        if twice:
            text = f"{twice:,} lines came more than once into the topic; they share a row"
            self._note(Severity.NOTE, Cause.SENT_TWICE, stream.name, text, twice)

    # ------------------------------------------------------------ files

    def _check_file(self, stream: _Stream, facts: FileFacts) -> StageCount:
        lines = stream.lines
        stream.lost = bytearray(len(lines))
        in_kafka = self._in_kafka(stream, facts) if self._given.partitions is not None else None
        if self._given.tables is None:
            stream.fate = self._fate_without_tables(facts, in_kafka)
        ranges: Sequence[LedgerRange] = ()
        if self._given.tables is not None and stream.ledger_name:
            ranges = self._given.tables.ledger.get(stream.ledger_name, ())
        stored_to = max((each.end for each in ranges), default=0)
        shipped = max(facts.shipped or 0, stored_to)
        buckets: dict[str, list[int]] = {
            name: [] for name in ("open", "unfinished", "way", "late", "gap", "gone", "kafka", "said")
        }
        for index, fate in enumerate(stream.fate):
            if fate == NOTHING:
                buckets[self._place(facts, stream, index, shipped, ranges, in_kafka)].append(index)
        self._ranges(stream, buckets["open"], Severity.PENDING, Cause.NOT_YET_SHIPPED, "not shipped yet")
        text = "a last line without a line feed, which the shipper waits for"
        self._ranges(stream, buckets["unfinished"], Severity.PENDING, Cause.UNFINISHED_LINE, text)
        text = "under way when the shipper wrote its progress; its next run stores exactly this range again"
        self._ranges(stream, buckets["way"], Severity.PENDING, Cause.UNDER_WAY, text)
        # What became of those that are in the topic was said of their partitions.
        stream.pending += len(buckets["late"])
        stream.missing += len(buckets["said"])
        text = "shipped by the progress, and no range of the ledger holds them"
        self._ranges(stream, buckets["gap"], Severity.WRONG, Cause.NOT_INGESTED, text)
        self._gone(stream, buckets["gone"])
        self._not_in_kafka(stream, facts, buckets["kafka"])
        if in_kafka is not None:
            self._removed_later(stream, facts, in_kafka, shipped)
        fates = Counter(stream.fate)
        with_tables = self._given.tables is not None
        blank = sum(kind == BLANK for kind in lines.kind)
        return StageCount(
            facts.path,
            len(lines),
            blank,
            None if in_kafka is None else sum(in_kafka),
            fates[STORED] if with_tables else None,
            fates[LETTER] if with_tables else None,
            stream.pending,
            stream.missing,
        )

    def _fate_without_tables(self, facts: FileFacts, in_kafka: bytearray | None) -> bytearray:
        """What is known to be delivered counts as stored: by the topic, or, without it, by the shipper's progress."""
        fate = bytearray(len(facts.lines))
        for index, kind in enumerate(facts.lines.kind):
            if kind != BLANK:
                there = (
                    in_kafka[index]
                    if in_kafka is not None
                    else facts.lines.position[index] < (facts.shipped or 0)
                )
                fate[index] = STORED if there else NOTHING
        return fate

    def _place(
        self,
        facts: FileFacts,
        stream: _Stream,
        index: int,
        shipped: int,
        ranges: Sequence[LedgerRange],
        in_kafka: bytearray | None,
    ) -> str:
        """Where a line that is not stored ought to be."""
        lines = stream.lines
        position = lines.position[index]
        if any(start <= position < end for start, end in facts.under_way):
            return "way"
        if in_kafka is not None and in_kafka[index]:
            return "late" if (facts.file_id, position) in self._pending_in_kafka else "said"
        if position >= shipped:
            last = index == len(lines) - 1
            return "unfinished" if last and facts.unfinished else "open"
        if self._given.partitions is not None:
            return "kafka"
        return "gone" if any(each.start <= position < each.end for each in ranges) else "gap"

    def _in_kafka(self, stream: _Stream, facts: FileFacts) -> bytearray:
        """By line, whether the topic has it; a line that differs there is a finding."""
        found = bytearray(len(stream.lines))
        if not facts.file_id:
            return found
        there: dict[int, tuple[int, int]] = {}
        for partition in (self._given.partitions or {}).values():
            if facts.file_id not in partition.files:
                continue
            number = partition.files.index(facts.file_id)
            for index, file in enumerate(partition.file):
                if file == number:
                    there[partition.byte[index]] = (partition.lines.kind[index], partition.lines.key[index])
        changed = []
        for index, position in enumerate(stream.lines.position):
            message = there.pop(position, None)
            if message is None:
                continue
            found[index] = 1
            same = message[1] == stream.lines.key[index] or (
                message[0] == BAD and stream.lines.kind[index] == ROW
            )
            if not same and position < (facts.shipped or 0):
                changed.append(index)
        self._ranges(
            stream,
            changed,
            Severity.WRONG,
            Cause.FILE_CHANGED,
            "other bytes than were shipped stand here now",
            counted=False,
        )
        behind = sorted(byte for byte in there if byte < facts.size)
        if behind:
            text = f"{len(behind):,} lines of the topic begin where no line of the file does"
            where = (len(behind), "byte", behind[0], behind[-1] + 1)
            self._note(Severity.WRONG, Cause.NOT_IN_FILE, facts.path, text, *where)
        return found

    def _not_in_kafka(self, stream: _Stream, facts: FileFacts, missing: Sequence[int]) -> None:
        """Shipped lines that are neither in the topic nor stored."""
        removed, lost = self._split_removed(facts, stream, missing)
        text = "removed from the topic by its retention, and not stored"
        self._ranges(stream, removed, Severity.WRONG, Cause.REMOVED_BY_RETENTION, text)
        text = "shipped by the progress, and the topic does not have them"
        self._ranges(stream, lost, Severity.WRONG, Cause.NOT_IN_KAFKA, text)

    def _removed_later(self, stream: _Stream, facts: FileFacts, in_kafka: bytearray, shipped: int) -> None:
        """Lines that are stored and that the topic does not have any more."""
        absent = [
            index
            for index, fate in enumerate(stream.fate)
            if fate in (STORED, LETTER) and not in_kafka[index] and stream.lines.position[index] < shipped
        ]
        removed, _ = self._split_removed(facts, stream, absent)
        if removed:
            text = (
                f"{len(removed):,} lines were removed from the topic by its retention after they were stored"
            )
            self._note(Severity.NOTE, Cause.REMOVED_AFTER_STORED, facts.path, text, len(removed))

    def _split_removed(
        self, facts: FileFacts, stream: _Stream, missing: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Retention removes the beginning of a partition: the lines of a file before the first that is still there."""
        first: int | None = None
        trimmed = False
        for partition in (self._given.partitions or {}).values():
            here = facts.file_id in partition.files
            if here:
                number = partition.files.index(facts.file_id)
                positions = [b for f, b in zip(partition.file, partition.byte, strict=True) if f == number]
                first = min([*positions, *([first] if first is not None else [])])
            trimmed = trimmed or (partition.begin > 0 and (here or not partition.files or first is None))
        if not trimmed:
            return [], list(missing)
        removed = [i for i in missing if first is None or stream.lines.position[i] < first]
        return removed, [i for i in missing if not (first is None or stream.lines.position[i] < first)]

    # ------------------------------------------------------------ findings and sums

    def _note(self, severity: Severity, cause: Cause, where: str, detail: str, *rest: Any) -> None:
        self._findings.append(Finding(severity, cause, where, detail, *rest))

    def _ranges(
        self,
        stream: _Stream,
        indices: Sequence[int],
        severity: Severity,
        cause: Cause,
        text: str,
        *,
        counted: bool = True,
    ) -> None:
        """One finding for each run of neighbouring lines."""
        if not indices:
            return
        lines = stream.lines
        if counted and severity is Severity.PENDING:
            stream.pending += len(indices)
        elif counted:
            stream.missing += len(indices)
            for index in indices:
                stream.lost[index] = 1
        runs: list[tuple[int, int]] = []
        for index in indices:
            # Blank lines between two that are missing are part of the run.
            if (
                runs
                and stream.file_of(runs[-1][1]) == stream.file_of(index)
                and all(lines.kind[i] == BLANK for i in range(runs[-1][1] + 1, index))
            ):
                runs[-1] = (runs[-1][0], index)
            else:
                runs.append((index, index))
        wanted = set(indices)
        for first, last in runs[:_RANGES]:
            count = sum(index in wanted for index in range(first, last + 1))
            where = (count, stream.unit, lines.position[first], lines.end[last])
            self._note(severity, cause, stream.name, text + self._in_file(stream, first, last), *where)
        if len(runs) > _RANGES:
            rest = runs[_RANGES:]
            count = sum(index in wanted for first, last in rest for index in range(first, last + 1))
            where = (count, stream.unit, lines.position[rest[0][0]], lines.end[rest[-1][1]])
            self._note(severity, cause, stream.name, f"{text}; {len(rest):,} more ranges", *where)

    def _in_file(self, stream: _Stream, first: int, last: int) -> str:
        """Where in a file lines of a partition stand: a message may hold many, and an offset says little."""
        number = stream.file_of(first)
        if stream.facts is None or number < 0:
            return ""
        file_id = stream.facts.files[number]
        paths = (facts.path for facts in self._given.files or () if facts.file_id == file_id)
        start, end = stream.facts.byte[first], stream.facts.byte[last]
        place = f"byte {start}" if start == end else f"bytes {start} to {end}"
        return f"; in {next(paths, f'file {file_id}')}, lines that begin at {place}"

    def _summed(
        self, partitions: Mapping[int, _Stream], files: Mapping[int, _Stream], counted: Sequence[StageCount]
    ) -> AuditReport:
        given = self._given
        with_tables = given.tables is not None
        partition_counts = []
        for stream in partitions.values():
            fates = Counter(stream.fate)
            partition_counts.append(
                StageCount(
                    stream.name,
                    len(stream.lines),
                    sum(kind == BLANK for kind in stream.lines.kind),
                    None,
                    fates[STORED] if with_tables else None,
                    fates[LETTER] if with_tables else None,
                    stream.pending,
                    stream.missing,
                )
            )
        order = [Severity.WRONG, Severity.PENDING, Severity.NOTE]
        findings = sorted(self._findings, key=lambda x: (order.index(x.severity), x.where, x.start or 0))
        # A line that is missing in Kafka is missing in its file too: the file's count is the larger one where both are.
        sources = [*files.values()] if files else [*partitions.values()]
        pending = sum(stream.pending for stream in sources)
        missing = max(
            sum(stream.missing for stream in files.values()),
            sum(stream.missing for stream in partitions.values()),
        )
        compared = [("files", given.files), ("kafka", given.partitions), ("clickhouse", given.tables)]
        return AuditReport(
            accounted=all(finding.severity is Severity.NOTE for finding in findings),
            pending=pending,
            missing=missing,
            files=tuple(counted),
            partitions=tuple(partition_counts),
            hours=_by_hour([*partitions.values()] or [*files.values()]) if with_tables else (),
            rows=self._distinct if with_tables else None,
            dead_letters=given.tables.letters.count if given.tables is not None else None,
            replayed=given.tables.letters.replayed if given.tables is not None else None,
            findings=tuple(findings),
            compared=tuple(name for name, stage in compared if stage is not None),
        )


def _by_hour(streams: Iterable[_Stream]) -> tuple[HourCount, ...]:
    lines: Counter[int] = Counter()
    stored: Counter[int] = Counter()
    missing: Counter[int] = Counter()
    for stream in streams:
        lost = stream.lost or bytes(len(stream.lines))
        for hour, fate, is_lost in zip(stream.lines.hour, stream.fate, lost, strict=True):
            if fate:
                lines[hour] += 1
                stored[hour] += fate in (STORED, LETTER)
                missing[hour] += is_lost
    return tuple(
        HourCount(
            None if hour == NO_HOUR else _EPOCH + timedelta(hours=hour),
            lines[hour],
            stored[hour],
            missing[hour],
        )
        for hour in sorted(lines)
    )


def _holes(ranges: Sequence[LedgerRange], start: int, end: int) -> Iterator[tuple[int, int]]:
    """What of `[start, end)` no range holds. Example: [0, 4) and [6, 8) of [0, 10) give [4, 6) and [8, 10)."""
    at = start
    for each in ranges:
        if each.start >= end:
            break
        if each.start > at:
            yield at, each.start
        at = max(at, each.end)
    if at < end:
        yield at, end


def _reaches(stream: _Stream, each: LedgerRange) -> bool:
    """Whether the lines at hand cover a range of the ledger."""
    if not stream.lines:
        return False
    return stream.lines.position[0] <= each.start and each.end <= stream.lines.end[-1]


def _shown(name: str, ranges: Sequence[LedgerRange]) -> str:
    return next((each.path for each in reversed(ranges) if each.path), name)


def _arrow(values: array[int]) -> Any:
    """As an Arrow array that shares the memory."""
    kind = {"Q": pa.uint64(), "b": pa.int8(), "q": pa.int64()}[values.typecode]
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])

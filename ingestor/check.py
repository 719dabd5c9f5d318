"""Log files → what would become of their lines, and what is odd about those that are fine. Reads, stores nothing.

A file is read in blocks. Where compiled code reads all lines of a block, they are counted (`compiled.survey`); otherwise a block
whose lines are all of one dialect in its usual form is decoded in one call (`schemas.dialects.many`). A block that is not is halved until the lines that differ stand alone; these are read one by one,
as an ingestor would. So counts, kinds and reasons are exact, and so are the looks at times and lengths; what takes a
closer look at a line (`suspect.py`) is done for a sample, whose size the report tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from tailrace.ingestor import compiled
from tailrace.ingestor.decode import LineReader, too_long
from tailrace.ingestor.suspect import HUGE_BYTES, CloseLook, Suspicion, TimeLook
from tailrace.schemas.dialects.many import ManyReader
from tailrace.schemas.errors import RecordError
from tailrace.schemas.records import RECORD_TYPES

_KIND_NAMES = {record: kind for kind, record in RECORD_TYPES.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXCERPT_BYTES = 120
_BLOCK_BYTES = 64 * 1024
"""Larger ones fall out of the processor's cache, and are slower."""
_FEW_LINES = 4
"""A block of so few lines is not halved again."""
_REPORT_BYTES = 4 * 1024 * 1024
_LOOKED_AT_FIRST = 4
_LOOKED_AT_EACH = 128

Locate = Callable[[bytes, str, str], int | None]
"""`locate(line, reason, detail)`: the byte of the value at fault, where the fault itself does not tell one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that would become a dead letter.

    Args:
        path: Its file.
        line: Its number, from 1.
        byte: Position of the line in the file.
        column: Byte in the line where the fault is, from 0, or `None`.
        reason: The class of fault.
        detail: One sentence.
        excerpt: The line around the fault, as printable text.
        caret: Where in the excerpt the fault is, or `None`.
    """

    path: str
    line: int
    byte: int
    column: int | None
    reason: str
    detail: str
    excerpt: str
    caret: int | None


@dataclass(slots=True)
class CheckReport:
    """What is in some files.

    Args:
        files: How many were read.
        lines: All lines.
        valid: Lines that are records.
        blank: Lines with nothing in them.
        bytes: Of all lines.
        dialects: Valid lines by dialect.
        kinds: Valid lines by kind.
        reasons: Invalid lines by reason.
        findings: The first of them.
        unreadable: Files that could not be read, with the cause.
        sampled: Valid lines that were looked at closely.
        suspicions: What is odd about valid lines.
    """

    files: int = 0
    lines: int = 0
    valid: int = 0
    blank: int = 0
    bytes: int = 0
    dialects: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    sampled: int = 0
    suspicions: list[Suspicion] = field(default_factory=list)

    @property
    def invalid(self) -> int:
        """How many lines would become dead letters."""
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class _Part:
    """Some lines of a file.

    Args:
        number: How many lines come before.
        position: Where the first one begins.
        lines: With their line feeds.
        bytes: Of all of them.
        skipped: How many bytes of the last one were not kept.
        close: Whether they belong to the sample.
        block: All of them in one piece, where there is one.
    """

    number: int
    position: int
    lines: list[bytes]
    size: int
    skipped: int
    close: bool
    block: bytes = b""

    def halves(self) -> tuple[_Part, _Part]:
        """Two parts, of about as many lines."""
        middle = len(self.lines) // 2
        first, second = self.lines[:middle], self.lines[middle:]
        size = sum(map(len, first))
        return (
            _Part(self.number, self.position, first, size, 0, self.close),
            _Part(
                self.number + middle,
                self.position + size,
                second,
                self.size - size,
                self.skipped,
                self.close,
            ),
        )


class Checker:
    """Reads files one after the other into one report.

    Args:
        max_line_bytes: A longer line is invalid.
        max_findings: How many invalid lines are described; all are counted.
        on_bytes: Told how many more bytes were read, for a progress display.
        now: What later times are in the future of; `None` when nobody knows.
        locate: Finds the place of a fault that tells none.
    """

    def __init__(
        self,
        max_line_bytes: int,
        max_findings: int,
        on_bytes: Callable[[int], None],
        now: datetime | None = None,
        locate: Locate | None = None,
    ) -> None:
        self._report = CheckReport()
        self._limit = max_line_bytes
        self._max_findings = max_findings
        self._locate = locate
        self._on_bytes = on_bytes
        self._reader = LineReader(max_line_bytes)
        self._many = ManyReader()
        self._times = TimeLook(now)
        self._look = CloseLook()

    def check(self, path: Path) -> None:
        """Adds a file to the report. One that cannot be read is noted there."""
        report = self._report
        number = position = reported = blocks = 0
        self._times.next_file()
        try:
            with path.open("rb") as file:
                report.files += 1
                while block := file.read(_BLOCK_BYTES):
                    if not block.endswith(b"\n"):
                        block += file.readline(self._limit + 2)
                    length = len(block)
                    close = blocks < _LOOKED_AT_FIRST or blocks % _LOOKED_AT_EACH == 0
                    blocks += 1
                    counted = 0 if close else self._survey(block)
                    if not counted:
                        # Splits at line feeds only, and faster than `bytes.split`.
                        lines = BytesIO(block).readlines()
                        if not block.endswith(b"\n") and length > self._limit:
                            length += _skip(file.readline)
                        part = _Part(number, position, lines, length, length - len(block), close, block)
                        self._read(path, part)
                        counted = len(lines)
                    number += counted
                    position += length
                    if position - reported >= _REPORT_BYTES:
                        self._on_bytes(position - reported)
                        reported = position
        except OSError as exc:
            report.unreadable[str(path)] = exc.strerror or str(exc)
        self._on_bytes(position - reported)
        report.bytes += position

    @property
    def report(self) -> CheckReport:
        """What was found so far."""
        self._report.sampled = self._look.lines
        self._report.suspicions = [*self._times.suspicions(), *self._look.suspicions()]
        return self._report

    def _survey(self, block: bytes) -> int:
        """How many lines these are, when compiled code finds nothing to say of them; they are counted then."""
        # What may be too long, or is long enough to be named for it, is looked at by itself.
        if len(block) > min(self._limit, HUGE_BYTES):
            return 0
        survey = compiled.survey(block, self._limit)
        if survey is None or not self._times.is_ordinary(_moment(survey.earliest), _moment(survey.latest)):
            return 0
        report = self._report
        report.lines += survey.lines
        report.valid += survey.lines
        for dialect, count in survey.dialects.items():
            report.dialects[dialect] += count
        for kind, count in survey.kinds.items():
            report.kinds[kind] += count
        return survey.lines

    def _read(self, path: Path, part: _Part) -> None:
        # What may be too long, or is long enough to be named for it, is looked at by itself.
        if not part.skipped and part.size <= min(self._limit, HUGE_BYTES):
            many = self._many.read(part.lines, part.close, part.block)
            if many is not None:
                report, lines = self._report, len(part.lines)
                report.lines += lines
                report.valid += lines
                report.dialects[many.dialect] += lines
                for kind, count in many.kinds.items():
                    report.kinds[kind] += count
                self._times.look(str(path), part.number + 1, many.times, many.earliest, many.latest)
                if part.close:
                    self._look.lines += lines
                    for index, tags in many.tags:
                        self._look.look_at_tags(str(path), part.number + 1 + index, tags)
                return
        if len(part.lines) > _FEW_LINES:
            for half in part.halves():
                self._read(path, half)
            return
        position = part.position
        for number, line in enumerate(part.lines, 1):
            stands, line = len(line), line.removesuffix(b"\n")
            length = len(line) + (part.skipped if number == len(part.lines) else 0)
            self._line(path, part.number + number, position, line, length, part.close)
            position += stands

    def _line(self, path: Path, number: int, position: int, line: bytes, length: int, close: bool) -> None:
        report = self._report
        report.lines += 1
        if length <= self._limit and (not line or line.isspace()):
            report.blank += 1
            return
        try:
            if length > self._limit:
                raise too_long(length, self._limit)
            found = self._reader.read(line)
        except RecordError as error:
            report.reasons[error.reason.value] += 1
            if len(report.findings) < self._max_findings:
                report.findings.append(self._finding(path, number, position, line, error))
            return
        report.valid += 1
        report.dialects[found.dialect] += 1
        report.kinds[_KIND_NAMES[type(found.record)]] += 1
        time = _moment(found.ts)
        self._times.look(str(path), number, [time], time, time)
        self._look.look_at_length(str(path), number, length)
        # What keeps a line from being read with the others is mostly one of these.
        if close or b"NaN" in line or b"Infinity" in line:
            self._look.look(str(path), number, found)

    def _finding(self, path: Path, number: int, position: int, line: bytes, error: RecordError) -> Finding:
        column = error.column
        if column is None and self._locate is not None:
            column = self._locate(line, error.reason.value, error.detail)
        start = max(0, (column or 0) - _EXCERPT_BYTES // 2)
        before = _printable(line[start : column or 0])
        excerpt = before + _printable(line[column or 0 : start + _EXCERPT_BYTES])
        caret = None if column is None else len(before)
        return Finding(str(path), number, position, column, error.reason.value, error.detail, excerpt, caret)


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _skip(readline: Callable[[int], bytes]) -> int:
    skipped = 0
    while more := readline(1024 * 1024):
        skipped += len(more)
        if more.endswith(b"\n"):
            break
    return skipped


def _printable(line: bytes) -> str:
    """Text that is safe on a terminal: control characters and what is no UTF-8 as escapes."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )

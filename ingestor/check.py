"""Log files → what would become of their lines. Reads, stores nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tailrace.ingestor.decode import LineReader, too_long
from tailrace.schemas.errors import RecordError
from tailrace.schemas.records import RECORD_TYPES

_KIND_NAMES = {record: kind for kind, record in RECORD_TYPES.items()}
_EXCERPT_BYTES = 120
_REPORT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that would become a dead letter.

    Args:
        path: Its file.
        line: Its number, from 1.
        byte: Position of the line in the file.
        column: Byte in the line where the fault was noticed, or `None`.
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

    @property
    def invalid(self) -> int:
        """How many lines would become dead letters."""
        return sum(self.reasons.values())


class Checker:
    """Reads files one after the other into one report.

    Args:
        max_line_bytes: A longer line is invalid.
        max_findings: How many invalid lines are described; all are counted.
        on_bytes: Told how many more bytes were read, for a progress display.
    """

    def __init__(self, max_line_bytes: int, max_findings: int, on_bytes: Callable[[int], None]) -> None:
        self.report = CheckReport()
        self._limit = max_line_bytes
        self._max_findings = max_findings
        self._on_bytes = on_bytes
        self._reader = LineReader(max_line_bytes)

    def check(self, path: Path) -> None:
        """Adds a file to the report. One that cannot be read is noted there."""
        report = self.report
        number = position = reported = 0
        try:
            with path.open("rb") as file:
                report.files += 1
                while line := file.readline(self._limit + 2):
                    number += 1
                    length = len(line)
                    if not line.endswith(b"\n") and length > self._limit:
                        length += self._skip(file.readline)
                    self._line(path, number, position, line.rstrip(b"\n"), length)
                    position += length
                    if position - reported >= _REPORT_BYTES:
                        self._on_bytes(position - reported)
                        reported = position
        except OSError as exc:
            report.unreadable[str(path)] = exc.strerror or str(exc)
        self._on_bytes(position - reported)
        report.bytes += position

    def _skip(self, readline: Callable[[int], bytes]) -> int:
        skipped = 0
        while more := readline(1024 * 1024):
            skipped += len(more)
            if more.endswith(b"\n"):
                break
        return skipped

    def _line(self, path: Path, number: int, position: int, line: bytes, length: int) -> None:
        report = self.report
        report.lines += 1
        if not line or line.isspace():
            report.blank += 1
            return
        try:
            if len(line) > self._limit:
                raise too_long(length, self._limit)
            found = self._reader.read(line)
        except RecordError as error:
            report.reasons[error.reason.value] += 1
            if len(report.findings) < self._max_findings:
                report.findings.append(_finding(path, number, position, line, error))
        else:
            report.valid += 1
            report.dialects[found.dialect] += 1
            report.kinds[_KIND_NAMES[type(found.record)]] += 1


def _finding(path: Path, number: int, position: int, line: bytes, error: RecordError) -> Finding:
    column = error.column
    start = max(0, (column or 0) - _EXCERPT_BYTES // 2)
    before = _printable(line[start : column or 0])
    excerpt = before + _printable(line[column or 0 : start + _EXCERPT_BYTES])
    caret = None if column is None else len(before)
    return Finding(str(path), number, position, column, error.reason.value, error.detail, excerpt, caret)


def _printable(line: bytes) -> str:
    """Text that is safe on a terminal: control characters and what is no UTF-8 as escapes."""
    text = line.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )

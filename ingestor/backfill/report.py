"""What a backfill did, file by file and in all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tailrace.ingestor.backfill.claims import History
from tailrace.ingestor.backfill.known import Counts
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import Found, Source, find


@dataclass(slots=True)
class FileReport:
    """One source.

    Args:
        source: Which.
        stored: What this run stored of it; in a dry run, what it would.
        there: What was stored before: by an earlier run, under another name, or as it came another way.
        consumed: Bytes as stored in the source, of what is dealt with.
        left: Bytes of a last line that is not complete yet.
        error: Why it was not read to its end; empty otherwise.
        jobs: Parts that are not read yet.
        ranges: Ranges that were read and are not stored yet.
        finished_before: When an earlier run had finished it, if this one did not have to open it.
        noted: Whether it is noted as finished for the next run.
    """

    source: Source
    stored: Counts = field(default_factory=Counts)
    there: Counts = field(default_factory=Counts)
    consumed: int = 0
    left: int = 0
    error: str = ""
    jobs: int = 0
    ranges: int = 0
    finished_before: float = 0.0
    noted: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is on its way."""
        return not self.jobs and not self.ranges

    @property
    def is_complete(self) -> bool:
        """Whether it was read to its end and all of it is stored."""
        return self.is_done and not self.error and not self.left

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "path": self.source.path,
            "complete": self.is_complete,
            "finished_before": bool(self.finished_before),
            **msgspec.to_builtins(self.stored),
            "there": msgspec.to_builtins(self.there),
            "left_bytes": self.left,
            "error": self.error,
        }


@dataclass(slots=True)
class BackfillReport:
    """Everything. Changed by the run only; may be read while it goes on.

    Args:
        files: By path.
        unreadable: Paths and patterns that are no source, with the reason.
        skipped: Files that were passed over in their directory, with the reason.
        reasons: Dead letters of this run by reason.
        letters_there: Dead letters that came another way before, in `there` too.
        rows_there: Rows that are stored already though nobody knows their range, likewise.
        retries: Attempts that failed for a passing cause.
        interrupted: Whether it was stopped before the end.
    """

    files: dict[str, FileReport] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    letters_there: int = 0
    rows_there: int = 0
    retries: int = 0
    interrupted: bool = False

    @property
    def stored(self) -> Counts:
        """What this run stored."""
        return _sum([file.stored for file in self.files.values()])

    @property
    def there(self) -> Counts:
        """What was stored before."""
        return _sum([file.there for file in self.files.values()])

    @property
    def errors(self) -> dict[str, str]:
        """Everything that could not be read, or not to its end, with the reason."""
        return self.unreadable | {path: file.error for path, file in self.files.items() if file.error}

    @property
    def left(self) -> dict[str, int]:
        """Files whose last line is not complete yet, with its bytes."""
        return {path: file.left for path, file in self.files.items() if file.left}

    @property
    def size(self) -> int:
        """Bytes of all sources as stored; of what nobody knows the size, what was read so far."""
        return sum(max(file.source.size, 0) or file.consumed for file in self.files.values())

    @property
    def consumed(self) -> int:
        """Bytes of all sources as stored that are dealt with."""
        return sum(file.consumed for file in self.files.values())

    @property
    def is_nothing_new(self) -> bool:
        """Whether every source had been finished before."""
        return bool(self.files) and all(file.finished_before for file in self.files.values())

    def document(self, seconds: float) -> dict[str, Any]:
        """For scripts."""
        files = self.files.values()
        return {
            "files": len(files),
            "complete": sum(file.is_complete for file in files),
            "finished_before": sum(bool(file.finished_before) for file in files),
            **msgspec.to_builtins(self.stored),
            "reasons": dict(self.reasons),
            "there": msgspec.to_builtins(self.there),
            "rows_there": self.rows_there,
            "letters_there": self.letters_there,
            "errors": self.errors,
            "left_bytes": self.left,
            "skipped": self.skipped,
            "retries": self.retries,
            "interrupted": self.interrupted,
            "seconds": round(seconds, 3),
            "by_file": [file.document() for file in files],
        }


def begin(settings: BackfillSettings, history: History, found: Found | None = None) -> BackfillReport:
    """The report of a run that has not begun: every source that the paths name now, those that were finished before marked.

    Args:
        settings: The paths and the selection.
        history: What earlier runs did.
        found: What the paths name, where somebody has looked already.

    Raises:
        ConfigError: A path needs a library that is not installed.
    """
    found = find(settings.paths) if found is None else found
    report = BackfillReport(unreadable=found.unreadable, skipped=found.skipped)
    finished = history.finished(settings.scope)
    for source in found.sources:
        file = report.files[source.path] = FileReport(source)
        before = finished.get(source.path)
        if before is not None and before.is_same(source):
            file.there, file.finished_before, file.noted = before.counts, before.at, True
            file.consumed = source.size
    return report


def _sum(counts: list[Counts]) -> Counts:
    total = Counts()
    for each in counts:
        total.add(each)
    return total

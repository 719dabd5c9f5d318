"""The seam between a trace and where its lines go, and the counts that make every loss visible."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from os import getpid
from threading import RLock
from typing import Protocol, runtime_checkable


class Event(StrEnum):
    """What a logger counts besides lines."""

    DROPPED = "dropped"
    """A line was not written."""
    ALTERED = "altered"
    """A value had no faithful JSON form and was written in another one."""
    INVALID_TAG = "invalid_tag"
    """A tag was left out; the other tags of its line were written."""
    OVERSIZED = "oversized"
    """An object was over the size limit and was kept out of its line: spilled, or truncated, which is `ALTERED` too."""
    SHORT_WRITE = "short_write"
    """The operating system took a part of a line; the line was written again as a whole."""
    REOPENED = "reopened"
    """The file had been renamed, deleted or closed by others, and was opened again."""
    SAMPLED_OUT = "sampled_out"
    """A trace was made that is not in the sample: nothing of it is written."""
    ENDED_AGAIN = "ended_again"
    """An LLM event was ended that had ended before; the first end stands."""
    ROTATED = "rotated"
    """This process renamed the full file and went on in a new one."""
    NOT_ROTATED = "not_rotated"
    """The file was due to be rotated and could not be; lines are still appended to it."""


_WARN_ABOUT = {
    Event.DROPPED: "lines are being dropped",
    Event.ALTERED: "a value could not be written faithfully",
    Event.INVALID_TAG: "an invalid tag was left out",
    Event.NOT_ROTATED: "the log file cannot be rotated and grows on",
}


@dataclass(frozen=True)
class LoggerStats:
    """Counts since the logger was made, in this process (a forked child starts from its parent's).

    Args:
        lines: Lines that were handed to the operating system. Exact with the GIL; without it, concurrent
            writers may lose a count, never a line.
        dropped: Lines that were not written.
        drop_reasons: The same by reason: `ENOSPC`, `EACCES`, …, `closed`, `queue full`, `not drained in time`,
            `HTTP 503`, or the name of an exception.
        altered: Lines in which a value had to be written in another form than it was given.
        invalid_tags: Tags that were left out.
        oversized: Objects over the size limit, which were spilled beside the log or truncated.
        short_writes: Lines that were written twice because the first attempt was cut short.
        reopened: How often the file was opened again after it had been renamed, deleted or closed.
        sampled_out: Traces (as objects, in this process) that are not in the sample, of which nothing is written.
        ended_again: Ends of LLM events that had ended before, which were not written.
        rotated: How often this process rotated the file.
        not_rotated: How often it tried to, and could not.
        queued: Lines that were taken and still wait for the writer thread. A forked child starts with none: its
            parent writes them.
        last_problem: The last thing that went wrong, in words; empty if nothing did.
    """

    lines: int = 0
    dropped: int = 0
    drop_reasons: Mapping[str, int] = field(default_factory=dict)
    altered: int = 0
    invalid_tags: int = 0
    oversized: int = 0
    short_writes: int = 0
    reopened: int = 0
    sampled_out: int = 0
    ended_again: int = 0
    rotated: int = 0
    not_rotated: int = 0
    queued: int = 0
    last_problem: str = ""


@runtime_checkable
class Logger(Protocol):
    """Where the lines of a trace go.

    Implementations are shared by threads and survive a fork. None of the methods raises, and `write` does not
    wait for anything slower than a local file (an `APILogger`, for development, does both when it is asked to). A trace
    asks for `project_id` once, when it is made, and for `policy` where a logger has one.
    """

    @property
    def project_id(self) -> str:
        """The project that every line names."""
        ...

    def write(self, line: bytes) -> None:
        """Take one line of JSON in UTF-8 that ends in its only newline; a line that cannot be kept is counted."""
        ...

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count what the caller of `write` had to drop, alter or leave out."""
        ...

    def stats(self) -> LoggerStats:
        """What was written and what was not, so far."""
        ...

    def flush(self) -> None:
        """Return when every line that was accepted is with the operating system (not: on the disk)."""
        ...

    def close(self) -> None:
        """Release what is held; lines that come later are counted as dropped. May be called twice."""
        ...


class Counters:
    """Counts of events, exact among threads, with one warning for each kind of loss.

    The lock is reentrant, so that a signal handler that logs does not wait for the code it interrupted, and
    is replaced in a forked child, where the thread that held it may not exist any more.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._pid = getpid()
        self._counts = dict.fromkeys(Event, 0)
        self._reasons: dict[str, int] = {}
        self._warned: set[Event] = set()
        self._last_problem = ""

    def add(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count, and warn if it is the first loss of its kind. Never raises."""
        if self._pid != getpid():
            self._lock, self._pid = RLock(), getpid()
        with self._lock:
            self._counts[event] += number
            if event is Event.DROPPED:
                self._reasons[reason or "unknown"] = self._reasons.get(reason or "unknown", 0) + number
            if event not in _WARN_ABOUT:
                return
            self._last_problem = f"{_WARN_ABOUT[event]}: {detail or reason}"
            first = event not in self._warned
            self._warned.add(event)
        if first:
            self.warn(self._last_problem)

    def snapshot(self, lines: int, queued: int = 0) -> LoggerStats:
        """The counts as they are now."""
        if self._pid != getpid():
            self._lock, self._pid = RLock(), getpid()
        with self._lock:
            return LoggerStats(
                lines=lines,
                dropped=self._counts[Event.DROPPED],
                drop_reasons=dict(self._reasons),
                altered=self._counts[Event.ALTERED],
                invalid_tags=self._counts[Event.INVALID_TAG],
                oversized=self._counts[Event.OVERSIZED],
                short_writes=self._counts[Event.SHORT_WRITE],
                reopened=self._counts[Event.REOPENED],
                sampled_out=self._counts[Event.SAMPLED_OUT],
                ended_again=self._counts[Event.ENDED_AGAIN],
                rotated=self._counts[Event.ROTATED],
                not_rotated=self._counts[Event.NOT_ROTATED],
                queued=queued,
                last_problem=self._last_problem,
            )

    @staticmethod
    def warn(problem: str) -> None:
        """Say something to whoever runs the service, by the `warnings` module. Never raises."""
        # A filter may turn warnings into errors: not the service's problem.
        with suppress(Exception):
            warnings.warn(
                f"tailrace: {problem}; this is said once, logger.stats() keeps counting",
                RuntimeWarning,
                stacklevel=2,
            )

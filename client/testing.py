"""Fakes for the tests of a service: what it logged, without a file."""

from __future__ import annotations

import json
from typing import Any

from tailrace.logger import Counters, Event, LoggerStats
from tailrace.open_events import mark_open_events
from tailrace.policy import Oversized, Policy, Redact


class MemoryLogger:
    """Keeps lines in memory; keeps the promises of `Logger`.

    >>> from tailrace import Trace
    >>> logger = MemoryLogger()
    >>> Trace(logger=logger).info("received")
    >>> logger.lines[0]["kind"], logger.lines[0]["message"]
    ('text', 'received')

    Args:
        project_id: The project that every line names.
        sample_rate: As for `Policy`.
        redact: As for `Policy`.
        max_object_bytes: As for `Policy`.
        oversized: As for `Policy`; there is no file to spill beside, so larger objects are truncated all the same.

    Raises:
        ConfigError: A number out of its range.
    """

    def __init__(
        self,
        project_id: str = "test",
        *,
        sample_rate: float = 1.0,
        redact: Redact | None = None,
        max_object_bytes: int = 1024 * 1024,
        oversized: Oversized = Oversized.TRUNCATE,
    ) -> None:
        self._project_id = project_id
        self._policy = Policy(sample_rate, redact, max_object_bytes, oversized)
        self._raw: list[bytes] = []
        self._counters = Counters()
        self._closed = False

    @property
    def project_id(self) -> str:
        """The project that every line names."""
        return self._project_id

    @property
    def policy(self) -> Policy:
        """Sampling, redaction and the size of objects."""
        return self._policy

    @property
    def raw(self) -> list[bytes]:
        """The lines as they would stand in a file, each with its newline."""
        return list(self._raw)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines, decoded; NaN and infinities as floats."""
        return [json.loads(line) for line in self.raw]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind: `text`, `tags`, `object`, `event_start`, …"""
        return [line for line in self.lines if line["kind"] == kind]

    def write(self, line: bytes) -> None:
        """Keep one line."""
        if self._closed:
            self._counters.add(Event.DROPPED, 1, "closed", "the logger was closed before the line came")
        else:
            self._raw.append(line)

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count what the caller of `write` had to drop, alter or leave out."""
        self._counters.add(event, number, reason, detail)

    def stats(self) -> LoggerStats:
        """What was kept and what was not."""
        return self._counters.snapshot(len(self._raw))

    def clear(self) -> None:
        """Forget the lines; the counts of problems stay."""
        self._raw.clear()

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Mark the LLM events that are open; drop, and count, what comes later."""
        mark_open_events(self)
        self._closed = True

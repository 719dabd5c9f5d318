"""The questions that can be asked, behind one class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailrace.explorer.answers import SliceReport, TraceReport, TraceRow
from tailrace.explorer.language import parse_slice
from tailrace.explorer.latest import latest
from tailrace.explorer.objects import ObjectPayload, read_object
from tailrace.explorer.period import EVER, Period
from tailrace.explorer.reader import Reader
from tailrace.explorer.selection import Scope
from tailrace.explorer.summary import summarize
from tailrace.explorer.trace import read_trace


class Explorer:
    """Reads a migrated Tailrace database.

    Every method raises `ClickHouseUnavailable` when the database does not answer and `ClickHouseRejected` when it
    refuses; those that take a slice raise `SliceError` when it cannot be read.

    Args:
        client: A clickhouse-connect client (`tailrace.schemas.clickhouse.connection.connect`). The explorer does not
            close it, and is no safer than it is for use by several threads.
    """

    def __init__(self, client: Any) -> None:
        self._reader = Reader(client)

    def slice(
        self,
        text: str,
        *,
        project: str | None = None,
        period: Period = EVER,
        by: str | None = None,
        metrics: Sequence[str] = (),
        limit: int = 20,
    ) -> SliceReport:
        """A slice in figures.

        Args:
            text: A slice string (`language`); '' for every trace.
            project: Only this project.
            period: When the traces began.
            by: Also tell the slice apart by the values of this tag.
            metrics: Names of tags whose numbers are to be described; booleans count as 0 and 1.
            limit: The most values of `by` to give.
        """
        return summarize(self._reader, text, parse_slice(text), Scope(project, period), by, metrics, limit)

    def traces(
        self, text: str, *, project: str | None = None, period: Period = EVER, limit: int = 20
    ) -> tuple[TraceRow, ...]:
        """The latest traces of a slice, latest first.

        The latest are chosen by the start that the lines tell. Where neither trace id nor lines tell one, the
        earliest tag that satisfies a condition stands for it.
        """
        return latest(self._reader, parse_slice(text), Scope(project, period), limit)

    def trace(self, trace_id: str, *, project: str | None = None) -> TraceReport:
        """Everything of one trace.

        A UUIDv7 says where its lines are. Lines that were logged more than a day before it or 400 days after are
        stored by their own time, and are found only when there are no others.

        Raises:
            NotFound: There is no such trace.
            ConfigError: Several projects have a trace with this id, and `project` is not given.
        """
        return read_trace(self._reader, trace_id, project)

    def object(self, trace_id: str, ref: str, *, project: str | None = None) -> ObjectPayload:
        """The payload of one object; the last one, where a trace logged several under the same name.

        Raises:
            NotFound: There is none; the message names those that the trace has.
            ConfigError: Several projects have it, and `project` is not given.
        """
        return read_object(self._reader, trace_id, ref, project)

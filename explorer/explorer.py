"""The questions that can be asked, behind one class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tailrace.explorer.answers import (
    CompareReport,
    SliceReport,
    Statement,
    TagDetail,
    TagSummary,
    TraceReport,
    TraceRow,
)
from tailrace.explorer.compare import compare
from tailrace.explorer.conditions import Matches, Slice, leaves
from tailrace.explorer.deployments import Deployment, DeploymentReport
from tailrace.explorer.export import Columns, Row, columns, dataset, write_dataset
from tailrace.explorer.language import parse_slice
from tailrace.explorer.latest import latest
from tailrace.explorer.objects import ObjectPayload, read_object
from tailrace.explorer.order import prepared
from tailrace.explorer.period import EVER, Period
from tailrace.explorer.reader import MAX_SECONDS, Parameters, Reader
from tailrace.explorer.selection import Scope, selection
from tailrace.explorer.statistics import list_deployments, read_deployment
from tailrace.explorer.summary import summarize
from tailrace.explorer.tags import tag_detail, tag_names, tag_values
from tailrace.explorer.trace import read_trace
from tailrace.schemas.errors import ClickHouseRejected, SliceError

T = TypeVar("T")
_BAD_PATTERN = 427  # CANNOT_COMPILE_REGEXP


class Explorer:
    """Reads a migrated Tailrace database.

    Every method raises `ClickHouseUnavailable` when the database does not answer and `ClickHouseRejected` when it
    refuses, or when an answer takes too long or too much memory; those that take a slice raise `SliceError` when it
    cannot be read.

    Args:
        client: A clickhouse-connect client (`tailrace.schemas.clickhouse.connection.connect`). The explorer does not
            close it, and is no safer than it is for use by several threads.
        max_seconds: ClickHouse stops a query that takes longer; exports have no limit.
    """

    def __init__(self, client: Any, *, max_seconds: float = MAX_SECONDS) -> None:
        self._reader = Reader(client, max_seconds)

    def slice(
        self,
        text: str,
        *,
        project: str | None = None,
        period: Period = EVER,
        by: str | None = None,
        metrics: Sequence[str] = (),
        over: str | None = None,
        limit: int = 20,
    ) -> SliceReport:
        """A slice in figures.

        Args:
            text: A slice string (`language`); '' for every trace.
            project: Only this project.
            period: When the traces began.
            by: Also tell the slice apart by the values of this tag, each compared with the rest of the slice.
            metrics: Names of tags whose numbers are to be described; booleans count as 0 and 1.
            over: Also as a time series by `minute`, `hour` or `day`. A trace counts where it began: as its lines tell, or
                where they tell nothing, as those do that satisfied the slice.
            limit: The most values of `by` to give.

        Raises:
            ConfigError: `over` is no such step, or there are too many of them.
        """
        scope = Scope(project, period)

        return self._asked(
            text, scope, lambda query: summarize(self._reader, text, query, scope, by, metrics, limit, over)
        )

    def traces(
        self, text: str, *, project: str | None = None, period: Period = EVER, limit: int = 20
    ) -> tuple[TraceRow, ...]:
        """The latest traces of a slice, latest first.

        The latest are chosen by the start that the lines tell. Where neither trace id nor lines tell one, the
        earliest line that satisfies a condition stands for it.
        """
        scope = Scope(project, period)
        return self._asked(text, scope, lambda query: latest(self._reader, query, scope, limit))

    def compare(
        self, a: str, b: str, *, project: str | None = None, period: Period = EVER, limit: int = 20
    ) -> CompareReport:
        """What distinguishes the traces of slice `b` from those of `a`: the tags that differ most first."""
        scope = Scope(project, period)
        return self._asked(
            a,
            scope,
            lambda one: self._asked(
                b, scope, lambda other: compare(self._reader, (a, b), (one, other), scope, limit)
            ),
        )

    def trace(self, trace_id: str, *, project: str | None = None) -> TraceReport:
        """Everything of one trace.

        A UUIDv7 says where its lines are. Lines that were logged more than a day before it or 400 days after are
        stored by their own time, and are found only when there are no others.

        Raises:
            NotFound: There is no such trace.
            ConfigError: Several projects have a trace with this id, and `project` is not given.
        """
        return read_trace(self._reader, trace_id, project)

    def deployments(self, *, project: str | None = None, period: Period = EVER) -> tuple[Deployment, ...]:
        """Every deployment that monitoring sessions logged for, by name.

        Args:
            project: Only this project.
            period: When it was logged; a window of statistics counts where it begins.
        """
        return list_deployments(self._reader, project, period)

    def deployment(
        self, name: str, *, project: str | None = None, period: Period = EVER, over: str | None = None
    ) -> DeploymentReport:
        """Features, predictions and performance of one deployment.

        Raw predictions are read line by line, in bounded memory: millions of them take their time.

        Args:
            name: The deployment.
            project: Only this project.
            period: As for `deployments`.
            over: Also by `minute`, `hour` or `day`.

        Raises:
            NotFound: Nothing of it was logged in the period.
            ConfigError: Several projects have it, and `project` is not given; or `over` is none of these.
        """
        return read_deployment(self._reader, name, project, period, over)

    def object(self, trace_id: str, ref: str, *, project: str | None = None) -> ObjectPayload:
        """The payload of one object; the last one, where a trace logged several under the same name.

        Raises:
            NotFound: There is none; the message names those that the trace has.
            ConfigError: Several projects have it, and `project` is not given.
        """
        return read_object(self._reader, trace_id, ref, project)

    def tags(self, *, project: str | None = None, period: Period = EVER) -> tuple[TagSummary, ...]:
        """Every name under which tags were logged, the most frequent first; of the period only the days count."""
        return tag_names(self._reader, Scope(project, period))

    def tag(
        self, name: str, *, project: str | None = None, period: Period = EVER, limit: int = 20
    ) -> TagDetail:
        """One name and its most frequent values.

        Raises:
            NotFound: There is no such tag.
        """
        return tag_detail(self._reader, name, Scope(project, period), limit)

    def values(
        self, name: str, beginning: str = "", *, project: str | None = None, limit: int = 50
    ) -> tuple[str, ...]:
        """Some of the texts that a name has and that begin so, for completion; in alphabetical order."""
        return tag_values(self._reader, name, beginning, Scope(project), limit)

    def dataset(
        self, text: str, *, project: str | None = None, period: Period = EVER
    ) -> tuple[Columns, Iterator[list[Row]]]:
        """A row for each trace, its tags as columns: the columns, and the rows as they come.

        The explorer can be asked nothing else until the rows are read or closed.

        Raises:
            ConfigError: The tags have too many names for columns.
        """
        scope = Scope(project, period)

        def ask(query: Slice) -> tuple[Columns, Iterator[list[Row]]]:
            chosen = columns(self._reader, query, scope)
            return chosen, dataset(self._reader, query, scope, chosen)

        return self._asked(text, scope, ask)

    def export(
        self,
        text: str,
        path: Path,
        *,
        project: str | None = None,
        period: Period = EVER,
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Write `dataset` to a file, in bounded memory; the file appears whole or not at all.

        Args:
            text: A slice string.
            path: Ends in `.parquet`, `.csv` or `.jsonl`.
            project: Only this project.
            period: When the traces began.
            progress: Is told now and then how many rows are written.

        Returns:
            How many traces it holds.

        Raises:
            ConfigError: The file cannot be written, or the tags have too many names for columns.
        """
        chosen, blocks = self.dataset(text, project=project, period=period)

        def told() -> Iterator[list[Row]]:
            rows = 0
            for block in blocks:
                yield block
                rows += len(block)
                progress(rows)

        return write_dataset(path, chosen, told())

    def sql(self, text: str, *, project: str | None = None, period: Period = EVER) -> Statement:
        """The query that selects the traces of a slice: the hash of each one's id, and its start."""
        scope = Scope(project, period)
        parameters = Parameters()
        query = self._asked(text, scope, lambda query: query)
        return Statement(selection(query, scope, parameters), dict(parameters.values))

    def _asked(self, text: str, scope: Scope, ask: Callable[[Slice], T]) -> T:
        """What `ask` answers for a slice; a regular expression that ClickHouse refuses is shown where it stands."""
        query = parse_slice(text)
        try:
            return ask(prepared(self._reader, query, scope))
        except ClickHouseRejected as exc:
            if exc.code != _BAD_PATTERN:
                raise
            for part in query.conditions:
                for condition in leaves(part):
                    if isinstance(condition, Matches):
                        self._check_pattern(text, condition)
            raise

    def _check_pattern(self, text: str, condition: Matches) -> None:
        parameters = Parameters()
        try:
            self._reader.rows(f"SELECT match('', {parameters.add(condition.pattern, 'String')})", parameters)
        except ClickHouseRejected as exc:
            raise SliceError(
                f"this is no regular expression that RE2 knows: {_reason(exc)}", text, condition.column
            ) from exc


def _reason(exc: Exception) -> str:
    """RE2's own words from ClickHouse's message, which quotes the expression before them."""
    said = str(exc.__cause__ or exc).partition(". Look at")[0].rpartition(", error: ")[2]
    return " ".join(said.split())[:200].strip(" ,.")

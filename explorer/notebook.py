"""Slices for notebooks: questions that are put together step by step, and asked when an answer is needed.

import tailrace

db = tailrace.connect("chdb:///var/lib/tailrace")
db.slice("client==acme", since="7d").by("sdk_version").metrics("latency_ms").to_pandas()
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec import structs

from tailrace.explorer.answers import (
    Bucket,
    CompareReport,
    Group,
    Metric,
    SliceReport,
    Statement,
    TagDetail,
    TagSummary,
    TraceReport,
    TraceRow,
)
from tailrace.explorer.explorer import Explorer
from tailrace.explorer.export import Row, arrow_module
from tailrace.explorer.language import parse_slice
from tailrace.explorer.objects import ObjectPayload
from tailrace.explorer.period import EVER, Period
from tailrace.explorer.reader import MAX_SECONDS
from tailrace.schemas.clickhouse.connection import Dsn
from tailrace.schemas.clickhouse.connection import connect as connect_client
from tailrace.schemas.clickhouse.migrate import require_current
from tailrace.schemas.errors import ConfigError

Moment = str | datetime | None
"""An instant (ISO 8601, or a datetime with a zone), a time before now (`24h`, `7d`), or no bound."""


def connect(dsn: str, *, max_seconds: float = MAX_SECONDS) -> Connection:
    """Open a Tailrace database for reading.

    Args:
        dsn: `chdb:///DIRECTORY`, which may be held by a running `tailrace up`, or `clickhouse://user@host:8123/db`.
        max_seconds: ClickHouse stops a question that takes longer.

    Raises:
        ConfigError: The DSN is none, or what reading needs is not installed.
        ClickHouseUnavailable: Nothing answers there.
        SchemaMismatch: The database was not migrated.
    """
    try:
        client = connect_client(Dsn.parse(dsn))
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"reading {dsn.partition(':')[0]} needs {exc.name}: pip install 'tailrace[all]'"
        ) from exc
    try:
        require_current(client)
    except BaseException:
        client.close()
        raise
    return Connection(client, max_seconds)


class Connection:
    """A Tailrace database. Not for use by several threads at once; a context manager, which closes it.

    Args:
        client: A clickhouse-connect client, which is closed with this.
        max_seconds: ClickHouse stops a question that takes longer.
    """

    def __init__(self, client: Any, max_seconds: float = MAX_SECONDS) -> None:
        self._client = client
        self.explorer = Explorer(client, max_seconds=max_seconds)

    def slice(
        self, text: str = "", *, project: str | None = None, since: Moment = None, until: Moment = None
    ) -> SliceQuery:
        """A slice, not asked for yet.

        Args:
            text: A slice string; '' for every trace.
            project: Only this project.
            since: Traces that began at or after this.
            until: Traces that began before this.

        Raises:
            SliceError: The text cannot be read.
            ConfigError: A time cannot be read, or there is none between them.
        """
        parse_slice(text)
        return SliceQuery(self.explorer, text, project, _period(since, until))

    def compare(
        self,
        a: str,
        b: str,
        *,
        project: str | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int = 20,
    ) -> CompareReport:
        """What distinguishes the traces of `b` from those of `a`."""
        return self.explorer.compare(a, b, project=project, period=_period(since, until), limit=limit)

    def tags(self, *, project: str | None = None) -> tuple[TagSummary, ...]:
        """Every name under which tags were logged."""
        return self.explorer.tags(project=project)

    def tag(self, name: str, *, project: str | None = None, limit: int = 20) -> TagDetail:
        """One name and its most frequent values."""
        return self.explorer.tag(name, project=project, limit=limit)

    def trace(self, trace_id: str, *, project: str | None = None) -> TraceReport:
        """Everything of one trace."""
        return self.explorer.trace(trace_id, project=project)

    def object(self, trace_id: str, ref: str, *, project: str | None = None) -> ObjectPayload:
        """One object as it was logged; `tailrace.load` reads its `document()` back."""
        return self.explorer.object(trace_id, ref, project=project)

    def close(self) -> None:
        """Let go of the database."""
        self._client.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class SliceQuery:
    """A question about a slice. Each method gives a new one; nothing is asked before `report`, `to_…`, `traces` or `rows`.

    Args:
        explorer: Who is asked.
        text: The slice string.
        project: `None` for all.
        period: When traces began.
        by_tag: As `by` says.
        metric_names: As `metrics` says.
        every: As `over` says.
        most: As `limit` says.
    """

    explorer: Explorer
    text: str
    project: str | None = None
    period: Period = EVER
    by_tag: str | None = None
    metric_names: tuple[str, ...] = ()
    every: str | None = None
    most: int = 1000

    def by(self, tag: str) -> SliceQuery:
        """Told apart by the values of a tag: one row for each."""
        return replace(self, by_tag=tag, every=None)

    def metrics(self, *names: str) -> SliceQuery:
        """With the distribution of these tags' numbers, besides those that were named before."""
        return replace(self, metric_names=tuple(dict.fromkeys((*self.metric_names, *names))))

    def over(self, every: str) -> SliceQuery:
        """As a time series by `minute`, `hour` or `day`: one row for each step."""
        return replace(self, every=every, by_tag=None)

    def limit(self, values: int) -> SliceQuery:
        """At most this many values of `by`, the most frequent; 1000 otherwise."""
        return replace(self, most=values)

    def report(self) -> SliceReport:
        """Everything in one answer, as `tailrace slice --format json` prints it."""
        return self.explorer.slice(
            self.text,
            project=self.project,
            period=self.period,
            by=self.by_tag,
            metrics=self.metric_names,
            over=self.every,
            limit=self.most,
        )

    def to_list(self) -> list[dict[str, Any]]:
        """A dict for each value of `by` or step of `over`, else one for the whole slice.

        Its keys are the tag or `start`, `traces`, `errors`, `error_rate`, and for each metric `NAME.count`, `NAME.mean`,
        `NAME.p50`, `NAME.p95`, `NAME.p99`, `NAME.std`; with `by` also `NAME.difference`, `NAME.p_value` and
        `error_rate.difference`, `error_rate.p_value`, which compare with the rest of the slice.
        """
        report = self.report()
        if report.by is not None:
            return [
                {report.by.tag: row.value, **_figures(row), **_differences(row)} for row in report.by.rows
            ]
        if report.over is not None:
            return [{"start": row.start, **_figures(row)} for row in report.over.rows]
        return [_figures(report)]

    def to_arrow(self) -> Any:
        """`to_list` as a `pyarrow.Table`.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        rows = self.to_list()
        table = arrow_module().Table
        return table.from_pylist(rows) if rows else table.from_pydict({})

    def to_pandas(self) -> Any:
        """`to_list` as a `pandas.DataFrame`.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as exc:
            raise ConfigError("this needs pandas: pip install 'tailrace[data]'") from exc
        return pandas.DataFrame.from_records(self.to_list())

    def traces(self, limit: int = 20) -> tuple[TraceRow, ...]:
        """The latest traces, latest first."""
        return self.explorer.traces(self.text, project=self.project, period=self.period, limit=limit)

    def rows(self) -> Iterator[Row]:
        """Every trace with its tags, as they come: a dict with the columns that `export` writes.

        Ask nothing else of the connection until they are read, or the iterator is closed.
        """
        _, blocks = self.explorer.dataset(self.text, project=self.project, period=self.period)
        for block in blocks:
            yield from block

    def export(self, path: str | Path) -> int:
        """Write `rows` to a `.parquet`, `.csv` or `.jsonl` file, in bounded memory; how many they are."""
        return self.explorer.export(self.text, Path(path), project=self.project, period=self.period)

    def sql(self) -> Statement:
        """The query that selects the traces."""
        return self.explorer.sql(self.text, project=self.project, period=self.period)


def _period(since: Moment, until: Moment) -> Period:
    return Period.parse(_text(since), _text(until), datetime.now(UTC))


def _text(moment: Moment) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment


def _figures(row: SliceReport | Group | Bucket) -> dict[str, Any]:
    figures: dict[str, Any] = {"traces": row.traces, "errors": row.errors, "error_rate": row.error_rate}
    for name, metric in row.metrics.items():
        figures.update({f"{name}.{figure}": value for figure, value in _metric(metric).items()})
    return figures


def _metric(metric: Metric) -> dict[str, Any]:
    return {name: value for name, value in structs.asdict(metric).items() if name != "not_finite"}


def _differences(row: Group) -> dict[str, Any]:
    differences = {"error_rate": row.error_difference, **row.metric_differences}
    return {
        f"{name}.{field}": getattr(difference, field)
        for name, difference in differences.items()
        for field in ("difference", "p_value")
    }

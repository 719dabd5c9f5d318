"""`tailrace slice`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.options import ClickHouse
from tailrace.cli.reading import Output, Project, Since, Until, opened, period
from tailrace.cli.render import (
    Column,
    OutputFormat,
    number,
    percent,
    print_csv,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:
    from tailrace.explorer.answers import Group, Metric, SliceReport

_FIGURES = ("count", "mean", "p50", "p95", "p99")


def slice_command(
    slice_string: Annotated[
        str, typer.Argument(metavar="SLICE", help="For example `client==acme`; '' is everything.")
    ] = "",
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="TAG", help="Compare the values of this tag with each other and with the whole."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Describe the numbers of this tag; may be given several times."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most values of --by to show.")] = 20,
    format: Output = OutputFormat.table,
) -> None:
    """How many traces a slice has, how many of them have errors, and how its metrics are distributed.

    A slice joins conditions with &&: `name==value`, `!=`, `>`, `>=`, `<`, `<=`, `trace(id)`, `tagname(n)`, `tagtype(t)`,
    `taggroup(g)`. A trace matches when it has *a* tag that matches. 1.10.0 is above 1.9.0. Put names and values with
    other characters than letters, digits and . - _ / : @ + in "double quotes".

    Examples:

        tailrace slice 'client==bigshot_client' --by sdk_version --metric prediction_time_ms

        tailrace slice 'latency_ms>=500 && model_version>=1.10.0' --since 24h

        tailrace slice '' --metric latency_ms --format json

    `--format json` prints `{"slice", "project", "since", "until", "traces", "errors", "error_rate", "metrics": {TAG:
    {"count", "not_finite", "mean", "p50", "p95", "p99"}}, "by": null or {"tag", "values", "rows": [{"value", "traces",
    "errors", "error_rate", "metrics"}]}}`; what does not exist is null, as is the value of traces without the tag.
    """
    with opened(clickhouse, slice_string) as explorer:
        report = explorer.slice(
            slice_string,
            project=project,
            period=period(since, until),
            by=by,
            metrics=metric or (),
            limit=limit,
        )
    if format is OutputFormat.json:
        print_json(report)
    elif format is OutputFormat.csv:
        _print_csv(report)
    else:
        _print_tables(report)


def _print_tables(report: SliceReport) -> None:
    print_line(report.slice or "every trace")
    print_line(
        f"{number(report.traces)} traces, {number(report.errors)} with errors ({percent(report.error_rate)})"
    )
    if report.by is None:
        if report.metrics:
            print_line()
            columns = [Column("metric"), *(Column(figure, right=True) for figure in _FIGURES)]
            print_table(columns, [[name, *_figures(metric)] for name, metric in report.metrics.items()])
        return
    for name in report.metrics or (None,):
        print_line()
        columns = [Column(report.by.tag), Column("traces", right=True), Column("errors", right=True)]
        if name is not None:
            print_line(name)
            columns += [Column(figure, right=True) for figure in _FIGURES]
        rows = [_row(_label(row), row.traces, row.error_rate, row.metrics, name) for row in report.by.rows]
        rows.append(_row("whole slice", report.traces, report.error_rate, report.metrics, name))
        print_table(columns, rows, last_apart=True)
    if report.by.values > len(report.by.rows):
        print_line(f"… and {number(report.by.values - len(report.by.rows))} more values; --limit shows more")


def _label(row: Group) -> str:
    return "(without)" if row.value is None else row.value or '""'


def _row(
    label: str, traces: int, rate: float | None, metrics: dict[str, Metric], name: str | None
) -> list[str]:
    return [label, number(traces), percent(rate), *(_figures(metrics[name]) if name is not None else ())]


def _figures(metric: Metric) -> list[str]:
    return [number(getattr(metric, figure)) for figure in _FIGURES]


def _print_csv(report: SliceReport) -> None:
    """A line for each value, the whole slice last; the first column says which of the two a line is."""
    header = ["row", "value", "traces", "errors", "error_rate"]
    header += [f"{name}.{figure}" for name in report.metrics for figure in _FIGURES]
    rows: list[Sequence[Any]] = []
    if report.by is not None:
        rows += [
            ["value" if row.value is not None else "without", row.value, *_csv(row)] for row in report.by.rows
        ]
    rows.append(["slice", None, *_csv(report)])
    print_csv(header, rows)


def _csv(row: Group | SliceReport) -> list[Any]:
    figures = [getattr(metric, figure) for metric in row.metrics.values() for figure in _FIGURES]
    return [row.traces, row.errors, row.error_rate, *figures]

"""`tailrace slice`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.complete import complete_slice, complete_tag
from tailrace.cli.options import ClickHouse
from tailrace.cli.reading import Output, Project, Since, Step, Until, opened, period
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
from tailrace.schemas.timestamps import iso_text

if TYPE_CHECKING:
    from tailrace.explorer.answers import Bucket, Difference, Group, Metric, Over, SliceReport

_FIGURES = ("count", "mean", "p50", "p95", "p99")


def slice_command(
    slice_string: Annotated[
        str,
        typer.Argument(
            metavar="SLICE",
            help="For example `client==acme`; '' is everything.",
            autocompletion=complete_slice,
        ),
    ] = "",
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="Compare the values of this tag with each other and with the whole.",
            autocompletion=complete_tag,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            help="Describe the numbers of this tag; may be given several times.",
            autocompletion=complete_tag,
        ),
    ] = None,
    over: Annotated[Step | None, typer.Option(help="Also as a time series by this step, in UTC.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw it: the values of --by, or the time series of --over. The suffix says how: .png, .svg, .pdf.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most values of --by to show.")] = 20,
    format: Output = OutputFormat.table,
) -> None:
    """How many traces a slice has, how many of them have errors, and how its metrics are distributed.

    A slice is made of conditions, joined with `&&` (and), `||` (or), `!` (not) and parentheses:

    - `name==value`, `!=`, `>`, `>=`, `<`, `<=`: a tag of the trace compares so. Plain numbers compare as numbers; 1.10.0 and
      v2 as versions, so that 1.10.0 is above 1.9.0; all else as text
    - `name in (a, b)`: a tag equals one of them. `name ~ "regex"`: its text contains a match of the regular expression (RE2)
    - `tagname(n)`, `tagtype(t)`, `taggroup(g)`: it has such a tag
    - `error`: it has a tag of type error, an exception or a failed event. `duration>2s`: how long it took (us, ms, s, m, h, d)
    - `text(timeout)`: a message contains this, in any case. `event(TOOL)`: it has an LLM event of this type
    - `trace(id)`, `conversation(id)`, `session(id)`, `user(id)`, `feedback(tag)`: it belongs to these

    A trace matches when it has *a* tag that matches: `client!=acme` needs a tag client with another value, `!(client==acme)`
    does not. Put names and values with other characters than letters, digits and . - _ / : @ + in "double quotes", also
    tags that are called error or duration.

    With --by, `vs rest` is the difference to all traces of the slice without this value; `*` marks what is significant at
    5 % after Holm's correction for the number of values (error rates: two-proportion z-test; means: Welch's t-test).

    Examples:

        tailrace slice 'client==bigshot_client' --by sdk_version --metric prediction_time_ms

        tailrace slice 'latency_ms>=500 && !(client in (test, demo)) && model_version>=1.10.0' --since 24h

        tailrace slice 'error || text(timeout)' --over hour --plot errors.png

    `--format json` prints `{"slice", "project", "since", "until", "traces", "errors", "error_rate", "metrics": {TAG:
    {"count", "not_finite", "mean", "p50", "p95", "p99", "std"}}, "by": null or {"tag", "values", "rows": [{"value", "traces",
    "errors", "error_rate", "metrics", "error_difference": {"difference", "p_value", "significant"}, "metric_differences":
    {TAG: likewise}}]}, "over": null or {"every", "rows": [{"start", "traces", "errors", "error_rate", "metrics"}]}}`; what
    does not exist is null, as is the value of traces without the tag.
    """
    if plot is not None:
        from tailrace.cli.plot import check_plot

        check_plot(plot, bool(by or over))
    with opened(clickhouse, slice_string) as explorer:
        report = explorer.slice(
            slice_string,
            project=project,
            period=period(since, until),
            by=by,
            metrics=metric or (),
            over=None if over is None else over.value,
            limit=limit,
        )
    if plot is not None:
        from tailrace.cli.plot import draw

        draw(report, plot)
        typer.echo(f"wrote {plot}", err=True)
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
    if report.by is None and report.over is None and report.metrics:
        print_line()
        columns = [Column("metric"), *(Column(figure, right=True) for figure in _FIGURES)]
        print_table(columns, [[name, *_figures(metric)] for name, metric in report.metrics.items()])
    if report.by is not None:
        for name in report.metrics or (None,):
            _print_by(report, name)
        if report.by.values > len(report.by.rows):
            print_line(
                f"… and {number(report.by.values - len(report.by.rows))} more values; --limit shows more"
            )
    if report.over is not None:
        for name in report.metrics or (None,):
            _print_over(report.over, name)


def _print_by(report: SliceReport, name: str | None) -> None:
    by = report.by
    if by is None:
        return
    print_line()
    columns = [
        Column(by.tag),
        Column("traces", right=True),
        Column("errors", right=True),
        Column("vs rest", right=True),
    ]
    if name is not None:
        print_line(name)
        columns += [Column(figure, right=True) for figure in _FIGURES]
        columns.insert(len(columns) - 3, Column("vs rest", right=True))
    rows = []
    for row in by.rows:
        cells = [_label(row), number(row.traces), percent(row.error_rate), _points(row.error_difference)]
        if name is not None:
            figures = _figures(row.metrics[name])
            figures.insert(2, _change(row.metric_differences.get(name), row.metrics[name]))
            cells += figures
        rows.append(cells)
    whole = ["whole slice", number(report.traces), percent(report.error_rate), ""]
    if name is not None:
        figures = _figures(report.metrics[name])
        figures.insert(2, "")
        whole += figures
    print_table(columns, [*rows, whole], last_apart=True)


def _points(difference: Difference) -> str:
    """A difference of shares, in percentage points."""
    if difference.difference is None:
        return "-"
    return f"{difference.difference * 100:+.2f}{'*' if difference.significant else ' '}"


def _change(difference: Difference | None, metric: Metric) -> str:
    """A difference of means, as a share of the mean of the rest."""
    if difference is None or difference.difference is None or metric.mean is None:
        return "-"
    rest = metric.mean - difference.difference
    change = f"{difference.difference / abs(rest) * 100:+.1f} %" if rest else f"{difference.difference:+.4g}"
    return f"{change}{'*' if difference.significant else ' '}"


def _print_over(over: Over, name: str | None) -> None:
    print_line()
    columns = [Column(f"{over.every} (UTC)"), Column("traces", right=True), Column("errors", right=True)]
    if name is not None:
        print_line(name)
        columns += [Column(figure, right=True) for figure in _FIGURES]
    print_table(columns, [_step(row, name) for row in over.rows])


def _step(row: Bucket, name: str | None) -> list[str]:
    cells = [f"{row.start:%Y-%m-%d %H:%M}", number(row.traces), percent(row.error_rate)]
    return cells + (_figures(row.metrics[name]) if name is not None else [])


def _label(row: Group) -> str:
    return "(without)" if row.value is None else row.value or '""'


def _figures(metric: Metric) -> list[str]:
    return [number(getattr(metric, figure)) for figure in _FIGURES]


def _print_csv(report: SliceReport) -> None:
    """A line for each value or step, the whole slice last; the first column says which of them a line is."""
    header = ["row", "value", "traces", "errors", "error_rate"]
    header += [f"{name}.{figure}" for name in report.metrics for figure in _FIGURES]
    rows: list[Sequence[Any]] = []
    if report.by is not None:
        rows += [
            ["value" if row.value is not None else "without", row.value, *_csv(row)] for row in report.by.rows
        ]
    if report.over is not None:
        rows += [[report.over.every, iso_text(row.start), *_csv(row)] for row in report.over.rows]
    rows.append(["slice", None, *_csv(report)])
    print_csv(header, rows)


def _csv(row: Group | Bucket | SliceReport) -> list[Any]:
    figures = [getattr(metric, figure) for metric in row.metrics.values() for figure in _FIGURES]
    return [row.traces, row.errors, row.error_rate, *figures]

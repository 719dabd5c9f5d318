"""`tailrace deployments` and `tailrace deployment`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tailrace.cli.options import ClickHouse
from tailrace.cli.reading import Output, Project, Step, opened, period
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
    from tailrace.explorer.deployments import Bucket, ColumnReport, DeploymentReport, Performance

Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Logged at or after this: 2026-11-20, 2026-11-20T08:00:00Z, 24h, 7d."),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Logged before this; as --since.")]

_FIGURES = ("mean", "std", "min", "p50", "p95", "max")
_SCORES = ("accuracy", "precision", "recall", "f1", "mse", "mae", "bias")


def deployments_command(
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    format: Output = OutputFormat.table,
) -> None:
    """The deployments of models that monitoring sessions logged for: how much, how many exceptions, and when last.

    Examples:

        tailrace deployments --since 24h

    `--format json` prints `{"deployments": [{"project_id", "deployment", "predictions", "ground_truths", "exceptions",
    "last_seen"}]}`.
    """
    with opened(clickhouse) as explorer:
        found = explorer.deployments(project=project, period=period(since, until))
    if format is OutputFormat.json:
        print_json({"deployments": found})
    elif format is OutputFormat.csv:
        header = ["project_id", "deployment", "predictions", "ground_truths", "exceptions", "last_seen"]
        print_csv(
            header,
            ([*msgspec.structs.astuple(each)[:-1], iso_text(each.last_seen)] for each in found),
        )
    elif not found:
        print_line("no deployment was logged for")
    else:
        columns = [Column("deployment"), Column("project"), Column("predictions", True)]
        columns += [Column("ground truths", True), Column("exceptions", True), Column("last seen (UTC)")]
        print_table(
            columns,
            [
                [
                    each.deployment,
                    each.project_id,
                    number(each.predictions),
                    number(each.ground_truths),
                    number(each.exceptions),
                    f"{each.last_seen:%Y-%m-%d %H:%M:%S}",
                ]
                for each in found
            ],
        )


def deployment_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As the session named it.")],
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    over: Annotated[Step | None, typer.Option(help="Also by minute, hour or day.")] = None,
    format: Output = OutputFormat.table,
) -> None:
    """What a model was given, what it answered, and how right it was.

    Of statistics, quantiles and extremes are within one per cent of the value they stand for, and distinct values are an
    estimate.

    Examples:

        tailrace deployment fraud_detection_prod --since 7d

        tailrace deployment fraud_detection_prod --over hour --format csv

    `--format json` prints `{"project_id", "deployment", "since", "until", "metadata", "whole": {"start", "predictions",
    "uncounted", "features": [{"name", "type", "count", "missing", "missing_share", "not_finite", "distinct", "mean",
    "std", "min", "p50", "p95", "max"}], "outputs": likewise, "performance": [{"segment", "type", "count", "missing",
    "accuracy", "precision", "recall", "f1", "mse", "mae", "bias"}], "exceptions": [{"type", "count"}]}, "over": null or a
    list of the same with their "start"}`; what does not exist is null.
    """
    with opened(clickhouse) as explorer:
        report = explorer.deployment(
            name, project=project, period=period(since, until), over=None if over is None else over.value
        )
    if format is OutputFormat.json:
        print_json(report)
    elif format is OutputFormat.csv:
        _print_csv(report)
    else:
        _print_tables(report)


def _print_tables(report: DeploymentReport) -> None:
    print_line(f"{report.deployment} in {report.project_id}")
    for key, value in report.metadata.items():
        print_line(f"{key}: {value}")
    whole = report.whole
    print_line(f"{number(whole.predictions)} predictions")
    if whole.uncounted:
        print_line(f"{number(whole.uncounted)} rows were left out of the statistics")
    if whole.features or whole.outputs:
        print_line()
        columns = [Column("feature"), Column("type"), Column("count", True), Column("missing", True)]
        columns += [Column("distinct", True), *(Column(figure, True) for figure in _FIGURES)]
        rows = [_row(column.name, column) for column in whole.features]
        rows += [_row(_output(column), column) for column in whole.outputs]
        print_table(columns, rows)
    if whole.performance:
        print_line()
        columns = [Column("segment"), Column("type"), Column("count", True), Column("missing", True)]
        print_table(
            [*columns, *(Column(score, True) for score in _SCORES)],
            [_performance(each) for each in whole.performance],
        )
    if whole.exceptions:
        print_line()
        rows = [[each.type, number(each.count)] for each in whole.exceptions]
        print_table([Column("exception"), Column("count", True)], rows)
    if report.over is not None:
        print_line()
        columns = [Column("start (UTC)"), Column("of"), Column("count", True), Column("missing", True)]
        columns += [Column(title, True) for title in ("mean", "p50", "p95", "accuracy", "f1", "mse")]
        print_table(columns, [row for bucket in report.over for row in _over(bucket)])


def _output(column: ColumnReport) -> str:
    return f"→ {column.name}" if column.name else "→ prediction"


def _row(name: str, column: ColumnReport) -> list[str]:
    figures = (number(getattr(column, figure)) for figure in _FIGURES)
    missing = percent(column.missing_share)
    return [name, column.type, number(column.count), missing, number(column.distinct), *figures]


def _performance(each: Performance) -> list[str]:
    scores = (number(getattr(each, score)) for score in _SCORES)
    return [each.segment or "(all)", each.type, number(each.count), number(each.missing), *scores]


def _over(bucket: Bucket) -> Iterator[list[str]]:
    start = "" if bucket.start is None else f"{bucket.start:%Y-%m-%d %H:%M}"
    for name, column in [(each.name, each) for each in bucket.features] + [
        (_output(each), each) for each in bucket.outputs
    ]:
        figures = [number(value) for value in (column.mean, column.p50, column.p95)]
        yield [start, name, number(column.count), percent(column.missing_share), *figures, "-", "-", "-"]
    for each in bucket.performance:
        scores = [number(value) for value in (each.accuracy, each.f1, each.mse)]
        segment = f"ground truths {each.segment or '(all)'}"
        yield [start, segment, number(each.count), number(each.missing), "-", "-", "-", *scores]


def _print_csv(report: DeploymentReport) -> None:
    """A line for each column and each segment, of the whole or of each stretch of time."""
    columns = ("type", "count", "missing", "not_finite", "distinct", *_FIGURES)
    header = ["start", "subject", "name", *columns, *_SCORES]
    rows: list[Sequence[Any]] = []
    for bucket in (report.whole,) if report.over is None else report.over:
        start = None if bucket.start is None else iso_text(bucket.start)
        for subject, found in (("feature", bucket.features), ("prediction", bucket.outputs)):
            rows += [
                [start, subject, each.name, *(getattr(each, column) for column in columns)]
                + [None] * len(_SCORES)
                for each in found
            ]
        for truth in bucket.performance:
            blank = [None] * (len(columns) - 3)
            scores = [getattr(truth, score) for score in _SCORES]
            head = [start, "ground_truth", truth.segment, truth.type, truth.count, truth.missing]
            rows.append([*head, *blank, *scores])
        rows += [
            [start, "exceptions", each.type, None, each.count] + [None] * (len(columns) - 2 + len(_SCORES))
            for each in bucket.exceptions
        ]
    print_csv(header, rows)

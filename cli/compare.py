"""`tailrace compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.complete import complete_slice
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
    from tailrace.explorer.answers import CompareReport, SideNumbers, TagDifference


def compare_command(
    slice_a: Annotated[
        str, typer.Argument(metavar="SLICE_A", help="As for `tailrace slice`.", autocompletion=complete_slice)
    ],
    slice_b: Annotated[
        str,
        typer.Argument(metavar="SLICE_B", help="Compared with the first.", autocompletion=complete_slice),
    ],
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most tags to show.")] = 20,
    format: Output = OutputFormat.table,
) -> None:
    """What distinguishes the traces of SLICE_B from those of SLICE_A: the tags whose distributions differ most.

    `effect` goes from 0, the same, to 1, entirely apart: for numbers it is the size of Cliff's delta, tested as Mann and
    Whitney do; for everything else the Jensen-Shannon distance between the shares of traces, with a G-test. A `*` marks
    what is significant at 5 % after Holm's correction for the number of tags. Values of fewer than 5 traces count as one,
    and names of which nearly every trace has a value of its own are left out.

    Examples:

        tailrace compare 'sdk_version<1.10.0' 'sdk_version>=1.10.0'

        tailrace compare '!error' error --since 24h --format json

    `--format json` prints `{"a", "b", "project", "since", "until", "traces_a", "traces_b", "errors_a", "errors_b", "tags":
    [{"name", "kind", "effect", "delta", "p_value", "significant", "values": [{"value", "a", "b"}], "a", "b"}], "identifiers"}`.
    """
    with opened(clickhouse, slice_a, slice_b) as explorer:
        report = explorer.compare(slice_a, slice_b, project=project, period=period(since, until), limit=limit)
    if format is OutputFormat.json:
        print_json(report)
    elif format is OutputFormat.csv:
        header = ["name", "kind", "effect", "delta", "p_value", "significant", "a", "b"]
        print_csv(
            header,
            (
                [tag.name, tag.kind, tag.effect, tag.delta, tag.p_value, tag.significant, *_sides(tag)]
                for tag in report.tags
            ),
        )
    else:
        _print(report)


def _print(report: CompareReport) -> None:
    for name, text, traces, errors in (
        ("A", report.a, report.traces_a, report.errors_a),
        ("B", report.b, report.traces_b, report.errors_b),
    ):
        rate = percent(errors / traces if traces else None)
        print_line(
            f"{name}: {text or 'every trace'}: {number(traces)} traces, {number(errors)} with errors ({rate})"
        )
    if not report.traces_a or not report.traces_b:
        print_line("one of them is empty: there is nothing to compare")
        return
    print_line()
    columns = [Column("tag"), Column("effect", True), Column(""), Column("A"), Column("B")]
    print_table(
        columns,
        [
            [tag.name, f"{tag.effect:.3f}", "*" if tag.significant else "", *_sides(tag)]
            for tag in report.tags
        ],
    )
    if report.identifiers:
        print_line(f"left out, because every trace has its own value: {', '.join(report.identifiers)}")


def _sides(tag: TagDifference) -> tuple[str, str]:
    if tag.a is not None and tag.b is not None:
        return _numbers(tag.a), _numbers(tag.b)
    labels = ["(other or none)" if share.value is None else share.value for share in tag.values]
    return (
        ", ".join(f"{label} {percent(share.a)}" for label, share in zip(labels, tag.values, strict=True)),
        ", ".join(f"{label} {percent(share.b)}" for label, share in zip(labels, tag.values, strict=True)),
    )


def _numbers(side: SideNumbers) -> str:
    return f"mean {number(side.mean)}, p50 {number(side.p50)}, p95 {number(side.p95)}"

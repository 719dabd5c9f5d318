"""`tailrace tags`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.complete import complete_tag
from tailrace.cli.options import ClickHouse
from tailrace.cli.reading import Output, Project, Since, Until, opened, period
from tailrace.cli.render import Column, OutputFormat, number, print_csv, print_json, print_line, print_table

if TYPE_CHECKING:
    from tailrace.explorer.answers import TagDetail, TagSummary

_HEADER = ("name", "kinds", "types", "groups", "lines", "values", "low", "high")


def tags_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Show the values of this tag.", autocompletion=complete_tag),
    ] = None,
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most values to show.")] = 20,
    format: Output = OutputFormat.table,
) -> None:
    """Which tags there are to slice by; with NAME, its most frequent values.

    How many lines have a name, and how many distinct values it has, is exact while few and within about 2 % when many;
    the traces of a value are counted exactly. Of --since and --until only the days count for names.

    Examples:

        tailrace tags

        tailrace tags client --since 7d

    `--format json` prints `{"tags": [{"name", "kinds", "types", "groups", "lines", "values", "low", "high"}]}`; with NAME,
    `{"tag": {…}, "top": [{"value", "traces"}]}`.
    """
    with opened(clickhouse) as explorer:
        if name is None:
            tags = explorer.tags(project=project, period=period(since, until))
            _print_names(tags, format)
        else:
            detail = explorer.tag(name, project=project, period=period(since, until), limit=limit)
            _print_detail(detail, format)


def _print_names(tags: tuple[TagSummary, ...], format: OutputFormat) -> None:
    if format is OutputFormat.json:
        print_json({"tags": tags})
    elif format is OutputFormat.csv:
        print_csv(_HEADER, ([_joined(getattr(tag, field)) for field in _HEADER] for tag in tags))
    elif not tags:
        print_line("no tags yet")
    else:
        columns = [Column(title, title in ("lines", "values", "low", "high")) for title in _HEADER]
        print_table(columns, [_cells(tag) for tag in tags])


def _joined(value: object) -> object:
    return " ".join(value) if isinstance(value, tuple) else value


def _cells(tag: TagSummary) -> list[str]:
    texts = [tag.name, *(", ".join(values) for values in (tag.kinds, tag.types, tag.groups))]
    return [*texts, number(tag.lines), number(tag.values), number(tag.low), number(tag.high)]


def _print_detail(detail: TagDetail, format: OutputFormat) -> None:
    if format is OutputFormat.json:
        print_json(detail)
    elif format is OutputFormat.csv:
        print_csv(["value", "traces"], ([count.value, count.traces] for count in detail.top))
    else:
        tag = detail.tag
        groups = f" in {', '.join(tag.groups)}" if tag.groups else ""
        print_line(f"{tag.name}: {', '.join(tag.kinds)}; logged as {', '.join(tag.types)}{groups}")
        span = "" if tag.low is None else f", from {number(tag.low)} to {number(tag.high)}"
        print_line(f"{number(tag.lines)} lines, {number(tag.values)} values{span}")
        print_line()
        columns = [Column("value"), Column("traces", True)]
        print_table(columns, [[count.value or '""', number(count.traces)] for count in detail.top])
        if tag.values > len(detail.top):
            print_line("… and more; --limit shows more")

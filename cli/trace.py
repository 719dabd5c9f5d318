"""`tailrace traces`, `tailrace trace` and `tailrace object`."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from tailrace.cli.object_files import SUFFIXES, whole, write_object
from tailrace.cli.options import ClickHouse
from tailrace.cli.progress import size
from tailrace.cli.reading import Output, Project, Since, Until, opened, period
from tailrace.cli.render import (
    Column,
    OutputFormat,
    number,
    print_csv,
    print_json,
    print_line,
    print_table,
    seconds,
)
from tailrace.cli.setting import Setting
from tailrace.schemas.timestamps import iso_text

if TYPE_CHECKING:
    from tailrace.explorer.answers import Event, FeedbackGiven, TagValue, TraceReport


class Moment(msgspec.Struct, frozen=True):
    """One thing that happened in a trace, as its table shows it."""

    ts: datetime
    what: str
    name: str
    detail: str


def traces_command(
    slice_string: Annotated[
        str, typer.Argument(metavar="SLICE", help="As for `tailrace slice`; '' is everything.")
    ] = "",
    clickhouse: ClickHouse = "",
    project: Project = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    format: Output = OutputFormat.table,
) -> None:
    """The latest traces of a slice: when they began, how long they took, and whether they have an error.

    Examples:

        tailrace traces 'client==bigshot_client && tagtype(error)' --since 24h

        tailrace traces '' --limit 5 --format json
    """
    with opened(clickhouse, slice_string) as explorer:
        rows = explorer.traces(slice_string, project=project, period=period(since, until), limit=limit)
    if format is OutputFormat.json:
        print_json({"slice": slice_string, "traces": rows})
    elif format is OutputFormat.csv:
        header = ["project_id", "trace_id", "name", "start", "duration", "tags", "error"]
        print_csv(
            header,
            (
                [iso_text(v) if isinstance(v, datetime) else v for v in msgspec.structs.astuple(row)]
                for row in rows
            ),
        )
    elif not rows:
        print_line("no trace matches")
    else:
        columns = [Column("start (UTC)"), Column("duration", True), Column("tags", True), Column("error")]
        columns += [Column("project"), Column("trace"), Column("name")]
        print_table(
            columns,
            [
                [
                    f"{row.start:%Y-%m-%d %H:%M:%S.%f}"[:-3],
                    seconds(row.duration),
                    number(row.tags),
                    "error" if row.error else "",
                    row.project_id,
                    row.trace_id,
                    row.name,
                ]
                for row in rows
            ],
        )


def trace_command(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace's id.")],
    clickhouse: ClickHouse = "",
    project: Project = None,
    format: Output = OutputFormat.table,
) -> None:
    """Everything of one trace in order of time: texts, tags, objects, LLM events, feedback, predictions, exceptions.

    Example:

        tailrace trace 0193a5c2-7b1e-7cc3-98c4-dc0c0c07398f
    """
    with opened(clickhouse) as explorer:
        report = explorer.trace(trace_id, project=project)
    if format is OutputFormat.json:
        print_json(report)
    elif format is OutputFormat.csv:
        print_csv(
            ["ts", "what", "name", "detail"],
            ([iso_text(moment.ts), moment.what, moment.name, moment.detail] for moment in _moments(report)),
        )
    else:
        _print_trace(report)


def object_command(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="The trace's id.")],
    ref: Annotated[str, typer.Argument(metavar="REF", help="The object's name in the trace.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help=f"Write to a file; its suffix says how: {SUFFIXES}."
        ),
    ] = None,
    objects_dir: Annotated[
        list[Path] | None,
        typer.Option(
            "--objects-dir",
            envvar="TAILRACE_OBJECTS_DIR",
            metavar="DIR",
            help="Where the files of objects lie that were too large for the log: a directory of logs, or a copy of a "
            "folder LOG.objects. The place that the service wrote to is tried as well.",
        ),
        Setting("read.objects_dir"),
    ] = None,
    clickhouse: ClickHouse = "",
    project: Project = None,
) -> None:
    """The payload of a data object, as `{"type": …, "params": …}`, which `tailrace.load` reads.

    An object that was too large for its line is read from its file and checked against its hash. Of one that was
    truncated, what is left is given, and -o is refused.

    Examples:

        tailrace object 0193a5c2-7b1e-7cc3-98c4-dc0c0c07398f features

        tailrace object 0193a5c2-7b1e-7cc3-98c4-dc0c0c07398f photo -o photo.png
    """
    with opened(clickhouse) as explorer:
        payload = whole(explorer.object(trace_id, ref, project=project), objects_dir or ())
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(payload.to_json() + b"\n")
        sys.stdout.buffer.flush()
        return
    write_object(payload, output)
    typer.echo(f"wrote {output}", err=True)


def _print_trace(report: TraceReport) -> None:
    print_line(f"trace {report.trace_id}  project {report.project_id}{'  error' if report.error else ''}")
    print_line(f"began {report.start:%Y-%m-%d %H:%M:%S.%f} UTC, took {seconds(report.duration)}")
    context = {
        key: value for key, value in msgspec.structs.asdict(report.context).items() if value not in ("", None)
    }
    for key, value in context.items():
        print_line(f"{key} {value if isinstance(value, str) else _json(value)}")
    moments = _moments(report)
    if moments:
        print_line()
        rows = [[_offset(report.start, m.ts), m.what, m.name, m.detail] for m in moments]
        print_table([Column("at", right=True), Column("what"), Column("name"), Column("detail")], rows)
    if report.events:
        print_line()
        columns = [
            Column("at", True),
            Column("event"),
            Column("status"),
            Column("took", True),
            Column("output"),
            Column("attributes"),
        ]
        print_table(columns, _event_rows(report))
    if report.truncated:
        print_line(f"cut, because there is more than one answer takes: {', '.join(report.truncated)}")


def _offset(start: datetime, ts: datetime) -> str:
    return f"{(ts - start).total_seconds():+.3f} s"


def _event_rows(report: TraceReport) -> list[list[str]]:
    """Children below their parents, indented; without recursion, because a trace may nest deep."""
    rows = []
    todo: list[tuple[int, Event]] = [(0, event) for event in reversed(report.events)]
    while todo:
        depth, event = todo.pop()
        begin = event.started or event.ended
        rows.append(
            [
                _offset(report.start, begin) if begin else "",
                "  " * depth + f"{event.type or 'event'} {event.name or event.event_id}",
                event.status,
                seconds(event.duration),
                event.error or ("" if event.output is None else _json(event.output)),
                " ".join(filter(None, map(_attributes, (event.attributes, event.usage)))),
            ]
        )
        todo.extend((depth + 1, child) for child in reversed(event.children))
    return rows


def _attributes(values: Any) -> str:
    """`request.model=m usage.input_tokens=7`: what attributes share is left out for a person."""
    if not isinstance(values, dict):
        return "" if values is None else _json(values)
    return " ".join(
        f"{name.removeprefix('gen_ai.')}={value if isinstance(value, str) else _json(value)}"
        for name, value in values.items()
    )


def _moments(report: TraceReport) -> list[Moment]:
    """All but the events, in order of time."""
    found = [Moment(line.ts, line.level, "", line.message) for line in report.texts]
    found += [Moment(tag.ts, _tag_kind(tag), tag.name, tag.text) for tag in report.tags]
    found += [
        Moment(o.ts, "object", o.ref, " ".join(filter(None, (o.type, size(o.size), o.kept, o.preview))))
        for o in report.objects
    ]
    found += [Moment(given.ts, "feedback", given.tag, _feedback(given)) for given in report.feedback]
    found += [
        Moment(made.ts, "prediction", made.deployment, _json(made.prediction)) for made in report.predictions
    ]
    found += [
        Moment(known.ts, "ground truth", known.deployment, _json(known.label))
        for known in report.ground_truths
    ]
    found += [
        Moment(raised.ts, "exception", raised.deployment, raised.message) for raised in report.exceptions
    ]
    return sorted(found, key=lambda moment: moment.ts)


def _tag_kind(tag: TagValue) -> str:
    return f"tag ({tag.type} in {tag.group})" if tag.group else f"tag ({tag.type})"


def _feedback(given: FeedbackGiven) -> str:
    return given.text if given.score is None else f"{given.score:g} {given.text}".strip()


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "…"

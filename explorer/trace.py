"""Everything of one trace."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tailrace.explorer.answers import (
    Context,
    ExceptionRaised,
    FeedbackGiven,
    GroundTruthKnown,
    ObjectInfo,
    PredictionMade,
    TagValue,
    TextLine,
    TraceReport,
)
from tailrace.explorer.events import EventLine, assemble
from tailrace.explorer.lookup import duration_seconds, id_start, with_rows, within
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import LATE
from tailrace.explorer.texts import tag_value, to_json_value, to_preview, to_text
from tailrace.schemas.errors import ConfigError, NotFound
from tailrace.schemas.stand_in import read_head

T = TypeVar("T")
Row = tuple[Any, ...]

MAX_LINES = 10_000
"""Of each table; a trace with more is cut, and says so."""

_ASKED_EACH = 2
"""Up to so many tables are asked for their lines without asking first whether they have any."""

_COLUMNS = {
    "logs": "level, message",
    "tag_lines": "tags.name, tags.type, tags.group, arrayMap(kind -> toString(kind), tags.kind), tags.str, tags.num",
    "objects": "ref, type, size, preview",
    "traces": "name, conversation_id, session_id, user_id, user, metadata",
    "event_lines": "event_id, toString(phase), parent_id, event_type, name, input, output, status, error, usage, attributes",
    "feedback": "feedback_tag, feedback_text, score",
    "predictions": "deployment, prediction_id, features, prediction",
    "ground_truths": "deployment, prediction_id, label, prediction, segments",
    "exceptions": "deployment, message, stack_trace, extra_info",
}
_LISTS = {"logs": "texts", "tag_lines": "tags", "event_lines": "events", "traces": "context"}
"""What a table's lines are called in the report, where that differs from its name."""


def read_trace(reader: Reader, trace_id: str, project: str | None) -> TraceReport:
    """Ask for one trace; see `Explorer.trace`."""
    if not _encodable(trace_id):
        raise NotFound(f"there is no trace {trace_id!r:.200}")
    lines = _lines(reader, trace_id, project, id_start(trace_id))
    if not any(lines.values()):
        # A line counts its trace's id as a time only when the two are near each other; these may lie elsewhere.
        lines = _lines(reader, trace_id, project, None)
    projects = sorted({to_text(row[0]) for rows in lines.values() for row in rows})
    if not projects:
        where = f" in project {project}" if project is not None else ""
        raise NotFound(f"there is no trace {trace_id:.200}{where}")
    one_project(trace_id, projects)
    return _report(trace_id, projects[0], lines)


def one_project(trace_id: str, projects: list[str]) -> None:
    """Refuse to mix the traces of several projects that have the same id.

    Raises:
        ConfigError: There are several.
    """
    if len(projects) > 1:
        raise ConfigError(
            f"trace {trace_id:.200} exists in {len(projects)} projects ({', '.join(projects[:10])}): say which with --project"
        )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return text != ""


def _lines(reader: Reader, trace_id: str, project: str | None, start: int | None) -> dict[str, list[Row]]:
    there = with_rows(reader, _COLUMNS)
    if len(there) > _ASKED_EACH:
        # Most traces are in few of the tables, and a query of its own takes longer than to find nothing.
        parameters = Parameters()
        where = _where(trace_id, project, start, parameters)
        asked = " UNION ALL ".join(
            f"(SELECT '{table}' FROM {table} WHERE {where} LIMIT 1)" for table in there
        )
        there = [name.decode() for (name,) in reader.rows(asked, parameters)]
    return {
        table: _table(reader, table, trace_id, project, start) if table in there else [] for table in _COLUMNS
    }


def _where(trace_id: str, project: str | None, start: int | None, parameters: Parameters) -> str:
    where = f"trace_id = {parameters.add(trace_id, 'String')}"
    if project is not None:
        where += f" AND project_id = {parameters.add(project, 'String')}"
    if start is not None:
        where += f" AND {within(start, start, parameters)}"
    return where


def _table(reader: Reader, table: str, trace_id: str, project: str | None, start: int | None) -> list[Row]:
    """The lines of one table: project, time, hash, start, and the table's own columns; each line once."""
    parameters = Parameters()
    where = _where(trace_id, project, start, parameters)
    sql = (
        "SELECT project_id, toUnixTimestamp64Micro(ts), line_hash, toUnixTimestamp64Micro(trace_ts), "
        f"{_COLUMNS[table]} FROM {table} WHERE {where} "
        f"ORDER BY ts, line_hash LIMIT 1 BY {_sort_key(table)} LIMIT {MAX_LINES + 1}"
    )
    return reader.rows(sql, parameters)


def _sort_key(table: str) -> str:
    own = {"objects": ", ref", "event_lines": ", event_id, phase"}.get(table, "")
    if table in ("predictions", "ground_truths", "exceptions"):
        own = ", deployment"
    return f"project_id, trace_ts, ts, line_hash{own}"


def _report(trace_id: str, project: str, lines: dict[str, list[Row]]) -> TraceReport:
    truncated = tuple(_LISTS.get(table, table) for table, rows in lines.items() if len(rows) > MAX_LINES)

    def each(table: str, make: Callable[..., T]) -> tuple[T, ...]:
        return tuple(make(to_datetime(row[1]), *row[4:]) for row in lines[table][:MAX_LINES])

    start = min(row[3] for rows in lines.values() for row in rows)
    last = max((row[1] for table, rows in lines.items() if table not in LATE for row in rows), default=start)
    events = [
        EventLine(to_datetime(row[1]), row[2], *_event_fields(*row[4:]))
        for row in lines["event_lines"][:MAX_LINES]
    ]
    tags = tuple(tag for line in each("tag_lines", _tags) for tag in line)
    exceptions = each("exceptions", _exception)
    failed = any(line.phase == "end" and line.status == "error" for line in events)
    return TraceReport(
        project_id=project,
        trace_id=trace_id,
        start=to_datetime(start),
        duration=duration_seconds(start, last),
        error=failed or bool(exceptions) or any(tag.type == "error" for tag in tags),
        context=_context(lines["traces"]),
        texts=each("logs", lambda ts, level, message: TextLine(ts, to_text(level), to_text(message))),
        tags=tags,
        objects=each("objects", _object),
        events=assemble(events),
        feedback=each(
            "feedback", lambda ts, tag, text, score: FeedbackGiven(ts, to_text(tag), to_text(text), score)
        ),
        predictions=each("predictions", _prediction),
        ground_truths=each("ground_truths", _ground_truth),
        exceptions=exceptions,
        truncated=truncated,
    )


def _tags(
    ts: Any, names: Any, types: Any, groups: Any, kinds: Any, texts: Any, numbers: Any
) -> list[TagValue]:
    return [
        TagValue(
            ts,
            to_text(name),
            tag_value(kind, text, number),
            to_text(type),
            to_text(group),
            to_text(kind),
            to_text(text),
        )
        for name, type, group, kind, text, number in zip(
            names, types, groups, kinds, texts, numbers, strict=True
        )
    ]


def _object(ts: Any, ref: bytes, type: bytes, size: int, preview: bytes) -> ObjectInfo:
    head = read_head(preview)
    if head is not None:
        return ObjectInfo(ts, to_text(ref), to_text(type), head.size, head.preview, head.kept)
    return ObjectInfo(ts, to_text(ref), to_text(type), size, to_preview(preview))


def _event_fields(
    event_id: bytes,
    phase: bytes,
    parent_id: bytes,
    event_type: bytes,
    name: bytes,
    input: bytes,
    output: bytes,
    status: bytes,
    error: bytes,
    usage: bytes,
    attributes: bytes,
) -> tuple[Any, ...]:
    return (
        to_text(event_id),
        to_text(phase),
        to_text(parent_id),
        to_text(event_type),
        to_text(name),
        to_json_value(input),
        to_json_value(output),
        to_text(status),
        to_text(error),
        to_json_value(usage),
        to_json_value(attributes),
    )


def _prediction(
    ts: Any, deployment: bytes, prediction_id: bytes, features: bytes, prediction: bytes
) -> PredictionMade:
    return PredictionMade(
        ts, to_text(deployment), to_text(prediction_id), to_json_value(features), to_json_value(prediction)
    )


def _ground_truth(
    ts: Any, deployment: bytes, prediction_id: bytes, label: bytes, prediction: bytes, segments: Any
) -> GroundTruthKnown:
    return GroundTruthKnown(
        ts,
        to_text(deployment),
        to_text(prediction_id),
        to_json_value(label),
        to_json_value(prediction),
        tuple(to_text(segment) for segment in segments),
    )


def _exception(
    ts: Any, deployment: bytes, message: bytes, stack_trace: bytes, extra_info: bytes
) -> ExceptionRaised:
    return ExceptionRaised(
        ts, to_text(deployment), to_text(message), to_text(stack_trace), to_json_value(extra_info)
    )


def _context(rows: list[Row]) -> Context:
    last = [b""] * 6
    for row in rows:
        last = [new or old for new, old in zip(row[4:], last, strict=True)]
    name, conversation_id, session_id, user_id, user, metadata = last
    return Context(
        to_text(name),
        to_text(conversation_id),
        to_text(session_id),
        to_text(user_id),
        to_json_value(user),
        to_json_value(metadata),
    )

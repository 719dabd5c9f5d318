"""What questions are answered with: frozen structs that encode to JSON as they stand.

Times are aware datetimes in UTC, durations are seconds. A number that does not exist (the mean of nothing) is `None`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct, field


class Metric(Struct, frozen=True):
    """The distribution of one numeric tag in a set of traces.

    Args:
        count: Finite values, of which the other figures are made. A trace that logged the tag twice has two.
        not_finite: NaN and infinities, counted apart.
        mean: Arithmetic mean.
        p50: Exact median, between two values interpolated linearly, as `numpy.percentile` does.
        p95: Likewise.
        p99: Likewise.
    """

    count: int = 0
    not_finite: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Group(Struct, frozen=True):
    """The traces of a slice that have one value of the tag `--by`.

    Args:
        value: The value's text; `None` for the traces that do not have the tag. A trace with two values is in both groups.
        traces: How many.
        errors: How many of them have an error.
        error_rate: `errors / traces`.
        metrics: By tag name, every one that was asked for.
    """

    value: str | None
    traces: int
    errors: int
    error_rate: float
    metrics: dict[str, Metric]


class By(Struct, frozen=True):
    """A slice, told apart by the values of a tag.

    Args:
        tag: Its name.
        values: How many groups there are, of which `rows` has the largest.
        rows: The most frequent values, most traces first.
    """

    tag: str
    values: int
    rows: tuple[Group, ...]


class SliceReport(Struct, frozen=True):
    """A slice in figures.

    Args:
        slice: As it was asked for.
        project: `None` for all.
        since: `None` for no bound.
        until: Not included.
        traces: How many traces match.
        errors: How many of them have a tag of type `error`, an exception, or an event that ended in status `error`.
        error_rate: `errors / traces`; `None` when there is no trace.
        metrics: By tag name, every one that was asked for.
        by: Present when it was asked for.
    """

    slice: str
    project: str | None
    since: datetime | None
    until: datetime | None
    traces: int
    errors: int
    error_rate: float | None
    metrics: dict[str, Metric]
    by: By | None = None


class TraceRow(Struct, frozen=True):
    """One trace of a slice, in a line.

    Args:
        project_id: Its project.
        trace_id: Its id.
        name: From its context; '' when it gave none.
        start: When it began.
        duration: Seconds from there to its last line; feedback and ground truths, which come later, do not count.
        tags: How many it has.
        error: Whether it counts as one, as in `SliceReport.errors`.
    """

    project_id: str
    trace_id: str
    name: str
    start: datetime
    duration: float
    tags: int
    error: bool


class TextLine(Struct, frozen=True):
    """A line of text."""

    ts: datetime
    level: str
    message: str


class TagValue(Struct, frozen=True):
    """A tag; `text` is what was logged, `value` is that as its kind (text for JSON and for NaN)."""

    ts: datetime
    name: str
    value: str | int | float | bool | None
    type: str
    group: str
    kind: str
    text: str


class ObjectInfo(Struct, frozen=True):
    """A data object without its payload: its size in bytes of JSON, and their beginning."""

    ts: datetime
    ref: str
    type: str
    size: int
    preview: str


class Event(Struct, frozen=True):
    """An LLM event with those that ran inside it.

    Args:
        event_id: Unique in its trace.
        parent_id: As logged; an event whose parent was never logged stands at the top.
        type: MESSAGE, TOOL, GENERATION, …; '' when only its end was logged.
        name: '' when it has none.
        status: `ok`, `error`, whatever else was logged, or `open` for one that never ended.
        started: `None` when only its end was logged.
        ended: `None` while it is open.
        duration: Seconds, when both are known.
        input: The JSON value.
        output: The JSON value.
        error: '' when there is none.
        usage: Attributes such as `gen_ai.usage.input_tokens`.
        children: In order of their start.
    """

    event_id: str
    parent_id: str
    type: str
    name: str
    status: str
    started: datetime | None
    ended: datetime | None
    duration: float | None
    input: Any
    output: Any
    error: str
    usage: Any
    children: tuple[Event, ...] = ()


class FeedbackGiven(Struct, frozen=True):
    """What a user thought of the outcome."""

    ts: datetime
    tag: str
    text: str
    score: float | None


class PredictionMade(Struct, frozen=True):
    """What a model was given and what it answered."""

    ts: datetime
    deployment: str
    prediction_id: str
    features: Any
    prediction: Any


class GroundTruthKnown(Struct, frozen=True):
    """What was true."""

    ts: datetime
    deployment: str
    prediction_id: str
    label: Any
    prediction: Any
    segments: tuple[str, ...]


class ExceptionRaised(Struct, frozen=True):
    """What went wrong in or around the model."""

    ts: datetime
    deployment: str
    message: str
    stack_trace: str
    extra_info: Any


class Context(Struct, frozen=True):
    """What a trace said about itself; where it said so several times, the last that is not empty."""

    name: str = ""
    conversation_id: str = ""
    session_id: str = ""
    user_id: str = ""
    user: Any = None
    metadata: Any = None


class TraceReport(Struct, frozen=True):
    """Everything of one trace, each list in order of time.

    Args:
        project_id: Its project.
        trace_id: Its id.
        start: When it began.
        duration: As in `TraceRow`.
        error: As in `TraceRow`.
        context: What it said about itself.
        texts: Lines of text.
        tags: Tags.
        objects: Objects; `Explorer.object` has the payloads.
        events: The LLM events at the top, others inside them.
        feedback: Feedback.
        predictions: Predictions.
        ground_truths: Ground truths.
        exceptions: Exceptions.
        truncated: Which of these lists are cut, because the trace has more lines than one answer takes.
    """

    project_id: str
    trace_id: str
    start: datetime
    duration: float
    error: bool
    context: Context
    texts: tuple[TextLine, ...] = ()
    tags: tuple[TagValue, ...] = ()
    objects: tuple[ObjectInfo, ...] = ()
    events: tuple[Event, ...] = ()
    feedback: tuple[FeedbackGiven, ...] = ()
    predictions: tuple[PredictionMade, ...] = ()
    ground_truths: tuple[GroundTruthKnown, ...] = ()
    exceptions: tuple[ExceptionRaised, ...] = ()
    truncated: tuple[str, ...] = field(default=())

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
        mean: Arithmetic mean, to twelve digits.
        p50: Exact median, between two values interpolated linearly, as `numpy.percentile` does.
        p95: Likewise.
        p99: Likewise.
        std: Standard deviation of the sample, to twelve digits; `None` for fewer than two values.
    """

    count: int = 0
    not_finite: int = 0
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    std: float | None = None


class Difference(Struct, frozen=True):
    """How a value of `--by` differs from all other traces of the slice.

    Args:
        difference: Of error rates, or of means: this value's minus that of the others.
        p_value: Of there being none, corrected for the number of values (`significance`); `None` when untestable.
        significant: Whether that is below `significance.LEVEL`.
    """

    difference: float | None = None
    p_value: float | None = None
    significant: bool = False


class Group(Struct, frozen=True):
    """The traces of a slice that have one value of the tag `--by`.

    Args:
        value: The value's text; `None` for the traces that do not have the tag. A trace with two values is in both groups.
        traces: How many.
        errors: How many of them have an error.
        error_rate: `errors / traces`.
        metrics: By tag name, every one that was asked for.
        error_difference: Of its error rate and that of the rest of the slice: a two-proportion z-test.
        metric_differences: Of its mean and that of the rest, by tag name: Welch's t-test.
    """

    value: str | None
    traces: int
    errors: int
    error_rate: float
    metrics: dict[str, Metric]
    error_difference: Difference = Difference()
    metric_differences: dict[str, Difference] = field(default_factory=dict)


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


class Bucket(Struct, frozen=True):
    """The traces of a slice that began in one step of time, and the numbers that they logged.

    Args:
        start: Its beginning.
        traces: How many.
        errors: How many of them have an error.
        error_rate: `None` when there is no trace.
        metrics: By tag name, every one that was asked for.
    """

    start: datetime
    traces: int
    errors: int
    error_rate: float | None
    metrics: dict[str, Metric]


class Over(Struct, frozen=True):
    """A slice as a time series.

    Args:
        every: `minute`, `hour` or `day`, in UTC.
        rows: From the first step that has a trace to the last, without gaps.
    """

    every: str
    rows: tuple[Bucket, ...]


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
        over: Likewise.
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
    over: Over | None = None


class SideShare(Struct, frozen=True):
    """One value of a tag in two slices: the share of each one's traces that has it."""

    value: str | None
    a: float
    b: float


class SideNumbers(Struct, frozen=True):
    """The numbers of a tag in one slice."""

    count: int
    mean: float | None
    p50: float | None
    p95: float | None


class TagDifference(Struct, frozen=True):
    """How one tag tells two slices apart.

    Args:
        name: Of the tag.
        kind: `number` or `category`.
        effect: From 0, the same, to 1, entirely apart: the Jensen-Shannon distance of categories, and of numbers the size
            of Cliff's delta.
        delta: Cliff's delta of numbers: the chance that one of B is above one of A, less the chance that it is below;
            `None` for categories.
        p_value: Of there being no difference, corrected for the number of tags: a G-test, or Mann and Whitney's.
        significant: Whether that is below `significance.LEVEL`.
        values: Of categories, those whose shares differ most; the value `None` is not having the tag, or having a number.
        a: Of numbers.
        b: Of numbers.
    """

    name: str
    kind: str
    effect: float
    delta: float | None
    p_value: float | None
    significant: bool
    values: tuple[SideShare, ...] = ()
    a: SideNumbers | None = None
    b: SideNumbers | None = None


class CompareReport(Struct, frozen=True):
    """What distinguishes slice B from slice A.

    Args:
        a: As it was asked for.
        b: Likewise.
        project: `None` for all.
        since: `None` for no bound.
        until: Not included.
        traces_a: How many traces A has.
        traces_b: How many B has; a trace may be in both.
        errors_a: How many of A's have an error.
        errors_b: Likewise.
        tags: The greatest effect first.
        identifiers: Names that were left out, because nearly every trace has a value of its own.
    """

    a: str
    b: str
    project: str | None
    since: datetime | None
    until: datetime | None
    traces_a: int
    traces_b: int
    errors_a: int
    errors_b: int
    tags: tuple[TagDifference, ...]
    identifiers: tuple[str, ...] = ()


class TagSummary(Struct, frozen=True):
    """A name under which tags were logged.

    Args:
        name: It.
        kinds: What the values are: `string`, `number`, `bool`, `null`, `json`.
        types: Every type that it was logged with.
        groups: Every group; those without one do not count.
        lines: How many lines have it; exact while few, within about 2 % when many.
        values: How many distinct texts; likewise.
        low: The lowest finite number; `None` when there is none.
        high: The highest.
    """

    name: str
    kinds: tuple[str, ...]
    types: tuple[str, ...]
    groups: tuple[str, ...]
    lines: int
    values: int
    low: float | None
    high: float | None


class ValueCount(Struct, frozen=True):
    """A value of a tag, as text, and how many traces have it."""

    value: str
    traces: int


class TagDetail(Struct, frozen=True):
    """One name, and its most frequent values, each counted exactly."""

    tag: TagSummary
    top: tuple[ValueCount, ...]


class Statement(Struct, frozen=True):
    """A query as it is sent.

    Args:
        sql: With placeholders such as `{p0:String}`, which ClickHouse fills in by itself.
        parameters: By name, as `clickhouse-client --param_p0=…` takes them.
    """

    sql: str
    parameters: dict[str, Any]


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
    """A data object without its payload.

    Args:
        ts: When it was logged.
        ref: Its name in the trace.
        type: Which wrapper reads it back; '' for plain JSON.
        size: Bytes of its JSON, as the service had it.
        preview: Their beginning.
        kept: '' for one that is stored whole; `spilled` for one in a file beside the log, and `truncated` for one of
            which nothing else is left, because it was over the limit of the service's logger.
    """

    ts: datetime
    ref: str
    type: str
    size: int
    preview: str
    kept: str = ""


class Event(Struct, frozen=True):
    """An LLM event with those that ran inside it.

    Args:
        event_id: Unique in its trace.
        parent_id: As logged; an event whose parent was never logged stands at the top.
        type: MESSAGE, TOOL, GENERATION, …; '' when only its end was logged.
        name: '' when it has none.
        status: `ok`, `error`, whatever else was logged, or `open` for one that never ended.
        started: `None` when only its end was logged.
        ended: `None` when no end was logged; for one in status `open`, when its process exited.
        duration: Seconds, when both are known.
        input: The JSON value.
        output: The JSON value.
        error: '' when there is none.
        usage: What was known at its end, such as `gen_ai.usage.input_tokens`.
        attributes: What was known at its start, such as `gen_ai.request.model`.
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
    attributes: Any = None
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

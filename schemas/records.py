"""The records of tailrace v1: one JSON object a line, told apart by `kind`.

    {"v":1,"kind":"tags","ts":"2026-11-20T08:00:00.000001Z","project_id":"shop","trace_id":"…","tags":[…]}

Every other dialect is mapped onto these types (`dialects`). Fields that hold whatever the service logged
(`data`, `input`, `features`, …) are `msgspec.Raw`: checked to be JSON, kept as the bytes that were written.
Unknown fields are ignored, so that an old ingestor reads what a newer client writes; a new meaning for an
old field takes a new `v`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct, field

from tailrace.schemas.limits import MAX_NAME, MAX_TAGS

Timestamp = str | int | float
"""RFC 3339 text (a space for the T, and a missing zone meaning UTC, are accepted), or a number of seconds,
milli-, micro- or nanoseconds since the epoch, told apart by size (`timestamps.parse`)."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
"""A name or an id: not empty, and bounded."""

EventType = Literal["MESSAGE", "TOOL", "GENERATION", "AGENT", "RETRIEVAL", "SYSTEM", "CUSTOM"]


class Tag(Struct, gc=False):
    """One tag of a trace.

    Args:
        name: For example `client`; with `project_id` it names a column that people slice by.
        value: A string, number, boolean or null; anything else is kept as its JSON text.
        type: Free text; `label`, `metric`, `error`, `profile-…` have a meaning for readers. A `metric` whose
            value is a string that reads as a number is stored as that number and keeps its text.
        group: Tags that belong together, for example all that one model profile produced.
    """

    name: Name
    value: Any
    type: str = "label"
    group: str | None = None


TagList = Annotated[list[Tag], Meta(max_length=MAX_TAGS)]


class Record(Struct, tag_field="kind", kw_only=True):
    """What every kind has.

    Args:
        ts: When it happened.
        project_id: The project: the first key of every table.
        trace_id: The request it belongs to; any string.
        trace_ts: When the trace began, if the id does not say so itself (a UUIDv7 does).
        v: Version of the format.
    """

    ts: Timestamp
    project_id: Name
    trace_id: Name
    trace_ts: Timestamp | None = None
    v: Literal[1] = 1


class Text(Record, tag="text", kw_only=True):
    """A line of text, as from any logger."""

    message: str
    level: str = "info"


class Tags(Record, tag="tags", kw_only=True):
    """Tags of the trace; a trace may get any number of these lines."""

    tags: TagList


class Object(Record, tag="object", kw_only=True):
    """A data object: an array, a frame, an image, or plain JSON.

    Args:
        ref: Its name, unique in the trace.
        type: Which wrapper reads it back, for example `tailrace.Numpy` or `raymon.types.Numpy`.
        data: The wrapper's parameters.
    """

    ref: Name
    type: str = ""
    data: Raw = field(default_factory=Raw)


class TraceContext(Record, tag="trace", kw_only=True):
    """The context of a trace: a conversation, a session, a user."""

    name: str | None = None
    conversation_id: str | None = None
    session_id: str | None = None
    user: str | dict[str, Any] | None = None
    metadata: Raw = field(default_factory=Raw)


class EventStart(Record, tag="event_start", kw_only=True):
    """An LLM event began. Start and end are two lines, so that a crash shows what was running.

    Args:
        attributes: What is known of it from the start, under the OpenTelemetry GenAI names, for example
            `gen_ai.request.model`.
    """

    event_id: Name
    event_type: EventType
    parent_id: str | None = None
    name: str | None = None
    input: Raw = field(default_factory=Raw)
    attributes: Raw = field(default_factory=Raw)


class EventEnd(Record, tag="event_end", kw_only=True):
    """An LLM event ended.

    Args:
        status: `ok`, `error`, or `open` for one that was still running when its process exited.
        usage: Attributes under the OpenTelemetry GenAI names, for example `gen_ai.usage.input_tokens`.
    """

    event_id: Name
    output: Raw = field(default_factory=Raw)
    status: str = "ok"
    error: str | None = None
    usage: Raw = field(default_factory=Raw)


class Feedback(Record, tag="feedback", kw_only=True):
    """What a user thought of the outcome."""

    feedback_tag: Name
    feedback_text: str | None = None
    score: float | None = None


class MonitoringRecord(Record, kw_only=True):
    """What a model monitoring session logs: it belongs to a deployment, and not always to a trace."""

    deployment: Name
    trace_id: str = ""


class Prediction(MonitoringRecord, tag="prediction", kw_only=True):
    """What a model was given and what it answered."""

    prediction_id: str | None = None
    features: Raw = field(default_factory=Raw)
    prediction: Raw = field(default_factory=Raw)


class GroundTruth(MonitoringRecord, tag="ground_truth", kw_only=True):
    """What was true, known later than the prediction and logged independently of it."""

    label: Raw
    prediction_id: str | None = None
    prediction: Raw = field(default_factory=Raw)
    segments: list[str] | None = None


class ExceptionRecord(MonitoringRecord, tag="exception", kw_only=True):
    """Something went wrong in or around the model."""

    message: str
    deployment: str = ""
    stack_trace: str | None = None
    extra_info: Raw = field(default_factory=Raw)


class Metadata(MonitoringRecord, tag="metadata", kw_only=True):
    """Facts about a deployment, for example the model's version."""

    entries: Raw


Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
BinNumber = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Statistics(MonitoringRecord, tag="statistics", kw_only=True):
    """What a session that logs no raw data says of one subject in one window; `ts` is when the window began.

    Records merge by adding up (`histogram`), over windows and over processes. A record is told apart from a repetition of
    it by `instance` and `sequence`.

    Args:
        seconds: How long the window was.
        instance: The process, by a random name of its own.
        sequence: Number of the record in that process.
        subject: What is described. `prediction` with the name `""` counts every prediction.
        name: Of a feature, of a part of a prediction, of a segment (`""`: all of them), of a class of exceptions.
        type: `number`, `integer`, `boolean`, `text`, `other`, `mixed` or `none`; of ground truths `binary`, `text`,
            `number` or `other`.
        count: How many values, missing ones included.
        missing: How many of them were None or NaN, or were no part of the row.
        not_finite: How many were infinite.
        numbers: How many were finite numbers; these have moments and bins. Of ground truths of type `number` the
            numbers are the errors, prediction minus label.
        mean: Of the numbers.
        m2: Sum of the squares of their distances from the mean.
        mean_abs: Mean of the sizes of errors.
        min: The smallest, as its bin says it.
        max: The largest, likewise.
        bins: Numbers of bins (`histogram.bin_of`), ascending.
        bin_counts: How many numbers each of them has.
        distinct: HyperLogLog sketch of the distinct values (Apache DataSketches, compact form), in base64.
        top: Frequent texts, each as its keyed hash, with counts: a JSON object.
        matches: How often the prediction was the label.
        confusion: Of `binary`: `{"tp","fp","tn","fn"}`; of `text`: a list of `[hash of label, hash of prediction, count]`.
        uncounted: Rows of this window that this process had to leave out of all its figures.
    """

    seconds: Annotated[float, Meta(ge=0)]
    instance: Name
    sequence: Count
    subject: Literal["feature", "prediction", "ground_truth", "exceptions"]
    name: str = ""
    type: str = ""
    count: Count = 0
    missing: Count = 0
    not_finite: Count = 0
    numbers: Count = 0
    mean: float | None = None
    m2: float | None = None
    mean_abs: float | None = None
    min: float | None = None
    max: float | None = None
    bins: list[BinNumber] = field(default_factory=list)
    bin_counts: list[Count] = field(default_factory=list)
    distinct: str = ""
    top: Raw = field(default_factory=Raw)
    matches: Count = 0
    confusion: Raw = field(default_factory=Raw)
    uncounted: Count = 0


AnyRecord = (
    Text
    | Tags
    | Object
    | TraceContext
    | EventStart
    | EventEnd
    | Feedback
    | Prediction
    | GroundTruth
    | ExceptionRecord
    | Metadata
    | Statistics
)

RECORD_TYPES: dict[str, type[Record]] = {
    "text": Text,
    "tags": Tags,
    "object": Object,
    "trace": TraceContext,
    "event_start": EventStart,
    "event_end": EventEnd,
    "feedback": Feedback,
    "prediction": Prediction,
    "ground_truth": GroundTruth,
    "exception": ExceptionRecord,
    "metadata": Metadata,
    "statistics": Statistics,
}
"""Every kind of tailrace v1 by its name on the wire."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a tailrace v1 line, generated from the types above."""
    schema = msgspec.json.schema(AnyRecord)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tailrace v1 record",
        **schema,
    }

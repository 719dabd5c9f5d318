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

Timestamp = str | int | float
"""RFC 3339 text (a space for the T, and a missing zone meaning UTC, are accepted), or a number of seconds,
milli-, micro- or nanoseconds since the epoch, told apart by size (`timestamps.parse`)."""

Name = Annotated[str, Meta(min_length=1, max_length=1024)]
"""A name or an id: not empty, and bounded, since tables sort and index by it."""

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

    tags: list[Tag]


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
    """An LLM event began. Start and end are two lines, so that a crash shows what was running."""

    event_id: Name
    event_type: EventType
    parent_id: str | None = None
    name: str | None = None
    input: Raw = field(default_factory=Raw)


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

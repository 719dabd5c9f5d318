"""The lines of tailrace v1, put together from bytes.

Every line begins with `{"v":1,"kind":…`, by which an ingestor recognises the format before it decodes. What is the
same for all lines of a trace is encoded once (`middle`), so a call encodes only what is new.
"""

from __future__ import annotations

from functools import lru_cache
from time import gmtime, strftime
from typing import Any

import orjson

from tailrace.jsonable import encode_text
from tailrace.schemas.limits import MAX_NAME

LEVELS = ("debug", "info", "warning", "error", "critical")

TEXT = {
    level: b'{"v":1,"kind":"text","ts":"%b.%06dZ",%b"message":%b,"level":"' + level.encode() + b'"}\n'
    for level in LEVELS
}
"""By level: whole second, microseconds, middle, message as JSON."""

TAGS = b'{"v":1,"kind":"tags","ts":"%b.%06dZ",%b"tags":%b}\n'
"""Whole second, microseconds, middle, list of tags as JSON."""

OBJECT = b'{"v":1,"kind":"object","ts":"%b.%06dZ",%b"ref":%b,"type":%b,"data":%b}\n'
"""Whole second, microseconds, middle, then reference, type and data as JSON."""

RECORD = b'{"v":1,"kind":"%b","ts":"%b.%06dZ",%b%b}\n'
"""Any kind: its name, whole second, microseconds, middle, then its own fields with commas between them."""


def encode_name(name: Any) -> tuple[bytes, bool]:
    """JSON of a name or an id that a record accepts, and whether it had to be altered.

    An empty one becomes `unnamed`; of one that is too long the beginning is kept, with an ellipsis.

    >>> encode_name("features"), encode_name("")
    ((b'"features"', False), (b'"unnamed"', True))
    """
    encoded, altered = encode_id(name)
    return (encoded, altered) if len(encoded) > 2 else (b'"unnamed"', True)


def encode_id(text: Any) -> tuple[bytes, bool]:
    """As `encode_name`, for what may be empty."""
    encoded, altered = encode_text(text)
    if len(encoded) <= MAX_NAME + 2:
        return encoded, altered
    known = orjson.loads(encoded)
    if len(known) <= MAX_NAME:
        return encoded, altered
    return orjson.dumps(f"{known[: MAX_NAME - 1]}…"), True


@lru_cache(maxsize=4)
def whole_second(seconds: int) -> bytes:
    """`2026-11-20T08:00:00` of seconds since the epoch, in UTC. Remembered: thousands of lines share one."""
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)).encode()


def timestamp(now_ns: int) -> bytes:
    """An instant as the lines carry it: RFC 3339 in UTC with six decimals."""
    seconds, rest = divmod(now_ns, 1_000_000_000)
    return b"%b.%06dZ" % (whole_second(seconds), rest // 1000)


@lru_cache(maxsize=16)
def _project(project_id: str) -> bytes:
    return encode_text(project_id)[0]


def middle(project_id: str, trace_id: str, began_ns: int | None) -> bytes:
    """What every line of a trace has between its `ts` and its own fields.

    Args:
        project_id: The project.
        trace_id: The trace.
        began_ns: When the trace began, for an id that does not say so itself; nanoseconds since the epoch.
    """
    project, trace = _project(project_id), encode_text(trace_id)[0]
    if began_ns is None:
        return b'"project_id":%b,"trace_id":%b,' % (project, trace)
    return b'"project_id":%b,"trace_id":%b,"trace_ts":"%b",' % (project, trace, timestamp(began_ns))

"""A trace: everything that is logged about one request.

>>> from tailrace import Tag, Trace
>>> from tailrace.testing import MemoryLogger
>>> logger = MemoryLogger()
>>> trace = Trace(logger=logger)
>>> trace.info("request received")
>>> trace.tag([{"name": "client", "value": "bigshot_client"}, Tag("prediction_time_ms", 120, "metric")])
>>> trace.log("features", {"age": 41})
>>> [line["kind"] for line in logger.lines]
['text', 'tags', 'object']
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

# Everything that a call needs is imported here, not there: see `tests/client/test_surface.py`.
from tailrace.context import enter, leave
from tailrace.events import EventSource
from tailrace.fields import Fields
from tailrace.ids import is_uuid7, new_trace_id
from tailrace.jsonable import encode, encode_text
from tailrace.logger import Event, Logger
from tailrace.oversized import fitted, fitted_tags, fitted_text
from tailrace.policy import SMALL, is_sampled, redacted
from tailrace.schemas.errors import DeliveryError
from tailrace.schemas.limits import MAX_NAME, MAX_TAGS
from tailrace.tag import Tag, encode_tags, listed
from tailrace.types import object_fields
from tailrace.wire import OBJECT, RECORD, TAGS, TEXT, encode_name, middle, whole_second

if TYPE_CHECKING:
    from tailrace.traceparent import Headers

_DEBUG, _INFO, _WARNING, _ERROR, _CRITICAL = (
    TEXT[level] for level in ("debug", "info", "warning", "error", "critical")
)
_SECOND = 1_000_000_000


class Trace(EventSource):
    """The trace of one request. Cheap to make, safe to share among threads.

    No method raises (unless the logger is an `APILogger` that was asked to): what cannot be written is dropped or
    altered, counted by the logger (`logger.stats()`), and warned about once.

    `with trace:` (or `async with`) makes it the current one: `tailrace.current_trace()`.

    Args:
        logger: Where the lines go: a `FileLogger`, or any `Logger`.
        trace_id: Any non-empty string of up to 1,024 characters; `str()` of any other value. The same id in another service adds to the
            same trace. None makes a new UUIDv7. An id that is not a UUIDv7 does not say when the trace began, so
            every line then carries the time at which this object was made as `trace_ts`.
        sampled: Whether anything of it is written. None leaves that to the logger's policy: the id decides
            (`tailrace.policy.is_sampled`), once and for all lines.
    """

    __slots__ = (
        "_logger",
        "_middle",
        "_parent_id",
        "_plain",
        "_redact",
        "_sampled",
        "_trace_id",
        "_tracestate",
        "_write",
    )

    def __init__(self, logger: Logger, trace_id: str | None = None, *, sampled: bool | None = None) -> None:
        self._logger = logger
        self._write = logger.write
        self._parent_id = self._tracestate = ""
        began: int | None = None
        if trace_id is None:
            self._trace_id = new_trace_id()
        else:
            self._trace_id = _as_id(trace_id)
            if len(self._trace_id) > MAX_NAME:
                self._trace_id = self._trace_id[:MAX_NAME]
                self._count(Event.ALTERED, f"a trace id of over {MAX_NAME} characters was cut")
            if not is_uuid7(self._trace_id):
                began = time_ns()
        policy = getattr(logger, "policy", None)
        if sampled is None:
            sampled = policy is None or is_sampled(self._trace_id, policy.sample_rate)
        self._sampled = sampled
        self._redact = None if policy is None else policy.redact
        # The one question that a call asks before it takes the shortest way.
        self._plain = sampled and self._redact is None
        if sampled:
            self._middle = middle(logger.project_id, self._trace_id, began)
        else:
            self._middle = b""
            self._count(Event.SAMPLED_OUT)

    @classmethod
    def from_headers(cls, headers: Headers, logger: Logger) -> Self:
        """Join the trace that a request belongs to, or begin a new one where its headers say nothing that can be read.

        The caller's decision to sample the trace is kept, whatever the logger's policy is. Events that begin at the top
        of this trace become part of the caller's event.

            trace = Trace.from_headers(request.headers, logger)

        Args:
            headers: Of the request: a mapping or pairs, of str or bytes, names in any case (`request.headers` of the
                usual frameworks, `scope["headers"]` of ASGI). See `tailrace.traceparent`.
            logger: Where the lines go.
        """
        from tailrace.traceparent import read_headers

        incoming = read_headers(headers)
        if incoming is None:
            return cls(logger)
        trace = cls(logger, incoming.trace_id, sampled=incoming.sampled)
        trace._parent_id = incoming.parent_id
        trace._tracestate = incoming.tracestate
        return trace

    def headers(self) -> dict[str, str]:
        """Headers for a request to another service, which then joins this trace; W3C trace context.

        Inside `with event:` that event is the parent of what the other service does.

        >>> from tailrace.testing import MemoryLogger
        >>> logger = MemoryLogger()
        >>> trace = Trace(logger)
        >>> Trace.from_headers(trace.headers(), logger).trace_id == trace.trace_id
        True
        """
        from tailrace.traceparent import headers_of

        return headers_of(self)

    @property
    def trace_id(self) -> str:
        """The id, to be handed to whatever works on the same request."""
        return self._trace_id

    @property
    def sampled(self) -> bool:
        """Whether anything of the trace is written."""
        return self._sampled

    @property
    def logger(self) -> Logger:
        """Where its lines go."""
        return self._logger

    @property
    def tracestate(self) -> str:
        """What other vendors said about the trace that was joined, to be handed on; '' for nothing."""
        return self._tracestate

    def context(
        self,
        *,
        name: str | None = None,
        conversation_id: str | None = None,
        session_id: str | None = None,
        user: Any = None,
        metadata: Any = None,
    ) -> None:
        """Say what the trace is about. May be said several times: of each, the last stands.

        Args:
            name: What kind of request it is.
            conversation_id: The conversation that it is a part of.
            session_id: The session of the user.
            user: An id, a `User`, or a dict with the key `id`.
            metadata: A `Metadata`, or anything JSON can hold.
        """
        if not self._sampled:
            return
        try:
            fields = self._fields()
            fields.text(b"name", name, "name")
            fields.text(b"conversation_id", conversation_id, "conversation_id")
            fields.text(b"session_id", session_id, "session_id")
            if user is not None:
                fields.user(user)
            fields.json(b"metadata", metadata, "metadata")
            if fields.joined():
                self._emit(b"trace", fields)
        except Exception as exc:
            self._dropped(exc)

    def feedback(
        self, feedback_tag: str, feedback_text: str | None = None, *, score: float | None = None
    ) -> None:
        """Log what a user thought of the outcome, or what a judge did.

        Args:
            feedback_tag: In a word, for example `THUMBS_UP`.
            feedback_text: In the user's words.
            score: As a number.
        """
        if not self._sampled:
            return
        try:
            fields = self._fields()
            fields.name(b"feedback_tag", feedback_tag)
            fields.text(b"feedback_text", feedback_text, "feedback_text")
            fields.number(b"score", score)
            self._emit(b"feedback", fields)
        except Exception as exc:
            self._dropped(exc)

    def debug(self, text: str) -> None:
        """Log a text at level `debug`."""
        self._text(_DEBUG, text)

    def info(self, text: str) -> None:
        """Log a text at level `info`."""
        # `_text`, written out: this is the call that services make most.
        if not self._plain:
            self._text(_INFO, text)
            return
        try:
            message = orjson.dumps(str(text))
        except Exception:
            message = b""
        if not 0 < len(message) <= SMALL:
            self._text(_INFO, text)
            return
        try:
            seconds, rest = divmod(time_ns(), _SECOND)
            self._write(_INFO % (whole_second(seconds), rest // 1000, self._middle, message))
        except Exception as exc:
            self._dropped(exc)

    def warning(self, text: str) -> None:
        """Log a text at level `warning`."""
        self._text(_WARNING, text)

    def error(self, text: str) -> None:
        """Log a text at level `error`."""
        self._text(_ERROR, text)

    def critical(self, text: str) -> None:
        """Log a text at level `critical`."""
        self._text(_CRITICAL, text)

    def exception(self, text: str, exc_info: bool | BaseException = True) -> None:
        """Log a text at level `error`, with the traceback of an exception below it.

        Args:
            text: What was being done.
            exc_info: The exception; True for the one that is being handled, False for none.
        """
        if not self._sampled:
            return
        try:
            exc = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
            if exc is not None:
                text = f"{text}\n{''.join(traceback.format_exception(exc)).rstrip()}"
        except Exception as problem:
            self._altered(f"a traceback that cannot be formatted: {type(problem).__name__}")
        self._text(_ERROR, text)

    def tag(self, tags: Iterable[Tag | Mapping[str, Any]]) -> None:
        """Tag the trace. Tags add up over calls; several of the same name are kept.

        Args:
            tags: `Tag` objects or dicts with the keys `name`, `value`, and optionally `type` and `group`. A tag
                that is not valid is left out and counted; the others are written.
        """
        if not self._sampled:
            return
        try:
            several = listed(tags)
            if len(several) > MAX_TAGS:
                for start in range(0, len(several), MAX_TAGS):
                    self.tag(several[start : start + MAX_TAGS])
                return
            encoded, altered, problems = encode_tags(several, self._redact)
            if encoded is not None:
                if len(encoded) > SMALL:
                    encoded = fitted_tags(self._logger, encoded)
                seconds, rest = divmod(time_ns(), _SECOND)
                self._write(TAGS % (whole_second(seconds), rest // 1000, self._middle, encoded))
            if problems:
                self._logger.count(Event.INVALID_TAG, len(problems), detail=problems[0])
            if altered:
                self._logger.count(Event.ALTERED, detail=altered)
        except Exception as exc:
            self._dropped(exc)

    def log(self, ref: str, data: Any) -> None:
        """Log a data object.

        Args:
            ref: Its name, unique in the trace; up to 1,024 characters.
            data: A wrapper of `tailrace.types`, an array, frame, series or image (wrapped for you), anything JSON can
                hold, or an object with `to_dict()`. What no wrapper can take is written as a text that says so, and
                counted as altered. What is over the size limit of the logger's policy is kept out of the line, and
                counted as oversized: see `tailrace.oversized`.
        """
        try:
            if not self._plain:
                if not self._sampled:
                    return
                data = self._redacted(f"object:{ref}", data)
            name, altered_name = encode_name(ref)
            type_, params, altered = object_fields(data)
            encoded, altered_data = encode(params)
            if len(encoded) > SMALL:
                encoded = fitted(self._logger, name, encoded)
            seconds, rest = divmod(time_ns(), _SECOND)
            line = OBJECT % (
                whole_second(seconds),
                rest // 1000,
                self._middle,
                name,
                encode_text(type_)[0],
                encoded,
            )
            self._write(line)
            if altered or altered_name or altered_data:
                self._logger.count(Event.ALTERED, detail=altered or f"the object {name.decode():.100}")
        except Exception as exc:
            self._dropped(exc)

    def _text(self, template: bytes, text: Any) -> None:
        try:
            if not self._plain:
                if not self._sampled:
                    return
                text = self._redacted("message", text)
            message, altered = encode_text(text)
            if len(message) > SMALL:
                message = fitted_text(self._logger, b'"message"', message)
            seconds, rest = divmod(time_ns(), _SECOND)
            self._write(template % (whole_second(seconds), rest // 1000, self._middle, message))
            if altered:
                self._logger.count(Event.ALTERED, detail="a text that is not valid Unicode or has no str()")
        except Exception as exc:
            self._dropped(exc)

    def _redacted(self, what: str, value: Any) -> Any:
        if self._redact is None:
            return value
        value, problem = redacted(self._redact, what, value)
        if problem:
            self._logger.count(Event.ALTERED, detail=problem)
        return value

    def _fields(self) -> Fields:
        """Collects the fields of a line; like what follows, for the other modules of this package."""
        return Fields(self._logger, self._redact)

    def _emit(self, kind: bytes, fields: Fields) -> None:
        """Write a line of any kind. May raise."""
        seconds, rest = divmod(time_ns(), _SECOND)
        self._write(RECORD % (kind, whole_second(seconds), rest // 1000, self._middle, fields.joined()))
        if fields.altered:
            self._logger.count(Event.ALTERED, detail=fields.altered)

    def _altered(self, detail: str) -> None:
        """Count a line that lacks something."""
        self._count(Event.ALTERED, detail)

    def _ended_again(self, detail: str) -> None:
        """Count an end after the end."""
        self._count(Event.ENDED_AGAIN, detail)

    def _dropped(self, exc: Exception) -> None:
        if isinstance(exc, DeliveryError):
            raise exc  # the logger was made to raise, and has counted the line
        # A logger that breaks its promise must not break the service.
        with suppress(Exception):
            self._logger.count(Event.DROPPED, 1, type(exc).__name__, f"{type(exc).__name__}: {exc}")

    def _count(self, event: Event, detail: str = "") -> None:
        with suppress(Exception):
            self._logger.count(event, detail=detail)

    def _place(self) -> tuple[Trace, str]:
        return self, self._parent_id

    def __enter__(self) -> Self:
        enter(self, self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave(self)

    async def __aenter__(self) -> Self:
        enter(self, self)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave(self)

    def __str__(self) -> str:
        return self._trace_id

    def __repr__(self) -> str:
        return f"Trace(trace_id={self._trace_id!r})"


def _as_id(trace_id: Any) -> str:
    """The text of an id; a new id for one that is empty or has no text, so that no line is without a trace."""
    try:
        return str(trace_id) or new_trace_id()
    except Exception:
        return new_trace_id()

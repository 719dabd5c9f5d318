"""A trace: everything that is logged about one request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import time_ns
from typing import Any

import orjson

from tailrace.ids import is_uuid7, new_trace_id
from tailrace.jsonable import encode, encode_text
from tailrace.logger import Event, Logger
from tailrace.tag import Tag, encode_tags
from tailrace.wire import OBJECT, TAGS, TEXT, middle, whole_second

_DEBUG, _INFO, _WARNING, _ERROR, _CRITICAL = (
    TEXT[level] for level in ("debug", "info", "warning", "error", "critical")
)
_SECOND = 1_000_000_000


class Trace:
    """The trace of one request. Cheap to make, safe to share among threads.

    No method raises: what cannot be written is dropped or altered, counted by the logger
    (`logger.stats()`), and warned about once.

    Args:
        logger: Where the lines go: a `FileLogger`, or any `Logger`.
        trace_id: Any non-empty string; `str()` of any other value. The same id in another service adds to the
            same trace. None makes a new UUIDv7. An id that is not a UUIDv7 does not say when the trace began, so
            every line then carries the time at which this object was made as `trace_ts`.
    """

    __slots__ = ("_logger", "_middle", "_trace_id", "_write")

    def __init__(self, logger: Logger, trace_id: str | None = None) -> None:
        self._logger = logger
        self._write = logger.write
        began: int | None = None
        if trace_id is None:
            self._trace_id = new_trace_id()
        else:
            self._trace_id = _as_id(trace_id)
            if not is_uuid7(self._trace_id):
                began = time_ns()
        self._middle = middle(logger.project_id, self._trace_id, began)

    @property
    def trace_id(self) -> str:
        """The id, to be handed to whatever works on the same request."""
        return self._trace_id

    def debug(self, text: str) -> None:
        """Log a text at level `debug`."""
        self._text(_DEBUG, text)

    def info(self, text: str) -> None:
        """Log a text at level `info`."""
        # `_text`, written out: this is the call that services make most.
        try:
            message = orjson.dumps(str(text))
        except Exception:
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

    def tag(self, tags: Iterable[Tag | Mapping[str, Any]]) -> None:
        """Tag the trace. Tags add up over calls; several of the same name are kept.

        Args:
            tags: `Tag` objects or dicts with the keys `name`, `value`, and optionally `type` and `group`. A tag
                that is not valid is left out and counted; the others are written.
        """
        try:
            encoded, altered, problems = encode_tags(tags)
            if encoded is not None:
                seconds, rest = divmod(time_ns(), _SECOND)
                self._write(TAGS % (whole_second(seconds), rest // 1000, self._middle, encoded))
            if problems:
                self._logger.count(Event.INVALID_TAG, len(problems), detail=problems[0])
            if altered:
                self._logger.count(Event.ALTERED, detail="the value of a tag")
        except Exception as exc:
            self._dropped(exc)

    def log(self, ref: str, data: Any) -> None:
        """Log a data object.

        Args:
            ref: Its name, unique in the trace.
            data: A wrapper of `tailrace.types`, an array, DataFrame, Series or PIL image (wrapped for you),
                anything JSON can hold, or an object with `to_dict()`. What no wrapper can take is written as
                a text that says so, and counted as altered.
        """
        try:
            from tailrace.types import object_fields

            name, altered_name = encode_text(ref)
            type_, params, altered = object_fields(data)
            encoded, altered_data = encode(params)
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
            message, altered = encode_text(text)
            seconds, rest = divmod(time_ns(), _SECOND)
            self._write(template % (whole_second(seconds), rest // 1000, self._middle, message))
            if altered:
                self._logger.count(Event.ALTERED, detail="a text that is not valid Unicode or has no str()")
        except Exception as exc:
            self._dropped(exc)

    def _dropped(self, exc: Exception) -> None:
        # A logger that breaks its promise must not break the service.
        with suppress(Exception):
            self._logger.count(Event.DROPPED, 1, type(exc).__name__, f"{type(exc).__name__}: {exc}")

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

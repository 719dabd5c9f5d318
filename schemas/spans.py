"""Traces of this program's own work: what a batch tells about itself, where anybody wants to know.

The rooms know `Spans` only. What makes OpenTelemetry spans of it is in `tailrace.cli.tracing`, which is loaded where traces are
asked for; `NO_SPANS` is for everybody else, and does nothing.

Names of attributes are those of OpenTelemetry's semantic conventions for messaging and databases, and `tailrace.…` for what
those have no name for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import Protocol

Attribute = str | int | float | bool | Sequence[str]
Attributes = Mapping[str, Attribute]
MAX_LINKS = 128
"""So many links a span has at most, as OpenTelemetry's SDK limits them by default."""


class SpanKind(StrEnum):
    """Which side of a call a span tells of."""

    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"
    CLIENT = "CLIENT"
    INTERNAL = "INTERNAL"


class Span(Protocol):
    """One piece of work, from `Spans.begin` to `end`."""

    def current(self) -> AbstractContextManager[object]:
        """While inside, spans that begin are its children, and `Spans.headers` and `Spans.note` are about it."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """It is over, or has failed."""
        ...


class Spans(Protocol):
    """Where spans go. Safe to use from several threads."""

    def begin(self, name: str, kind: SpanKind, attributes: Attributes, links: Iterable[bytes] = ()) -> Span:
        """A span that begins now, below the one that is current.

        Args:
            name: As the conventions form it: `process tailrace`.
            kind: Which side.
            attributes: What is known already.
            links: `traceparent` headers of other traces that it goes on with; what is none is left out.
        """
        ...

    def note(self, attributes: Attributes) -> None:
        """More about the current span, if there is one."""
        ...

    def headers(self) -> list[tuple[str, bytes]]:
        """Headers for a message that name the current span; none where there is none."""
        ...


@contextmanager
def during(span: Span) -> Iterator[None]:
    """The span is current while inside, and ends there, with the exception if one comes out."""
    with span.current():
        try:
            yield
        except BaseException as exc:
            span.end(exc)
            raise
    span.end()


TRACE_HEADER = "traceparent"
"""Of a Kafka message: which span of the shipper it belongs to, as W3C Trace Context writes it."""


class _NoSpan:
    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def end(self, error: BaseException | None = None) -> None:
        pass


class _NoSpans:
    _span = _NoSpan()

    def begin(self, name: str, kind: SpanKind, attributes: Attributes, links: Iterable[bytes] = ()) -> Span:
        return self._span

    def note(self, attributes: Attributes) -> None:
        pass

    def headers(self) -> list[tuple[str, bytes]]:
        return []


NO_SPANS: Spans = _NoSpans()
"""Nobody wants to know."""

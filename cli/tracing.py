"""`--traces` of `ship`, `ingest` and `up`: one OpenTelemetry span a batch, sent by OTLP over HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.setting import Setting
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.spans import MAX_LINKS, NO_SPANS, TRACE_HEADER, Attributes, Span, SpanKind, Spans

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("tailrace.cli")

_LAST_SECONDS = 5.0
"""How long the end of the process waits for a receiver to take the last spans."""


class Exporter(StrEnum):
    """Where spans go."""

    off = "off"
    otlp = "otlp"


Traces = Annotated[
    Exporter,
    typer.Option(
        "--traces",
        envvar="TAILRACE_TRACES",
        help="`otlp` sends an OpenTelemetry span a batch over HTTP, where and as OTEL_EXPORTER_OTLP_ENDPOINT and the other "
        "variables of OpenTelemetry say; needs the extra tailrace[otel].",
    ),
    Setting("traces.exporter"),
]


@contextmanager
def traced(exporter: Exporter, command: str) -> Iterator[Spans]:
    """While inside, batches may tell about themselves.

    Args:
        exporter: Whether, and where to.
        command: `ship`, `ingest` or `up`: the service is `tailrace-<command>` unless OTEL_SERVICE_NAME names it.

    Raises:
        ConfigError: OpenTelemetry is not installed, or its variables say nothing that can be.
    """
    if exporter is Exporter.off:
        yield NO_SPANS
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise ConfigError(f"--traces otlp needs OpenTelemetry ({exc}): pip install 'tailrace[otel]'") from exc
    from importlib import metadata

    name = os.environ.get("OTEL_SERVICE_NAME") or f"tailrace-{command}"
    try:
        resource = Resource.create({"service.name": name, "service.version": metadata.version("tailrace")})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as exc:
        raise ConfigError(f"OpenTelemetry cannot be set up from the OTEL_… variables: {exc}") from exc
    try:
        yield OpenTelemetrySpans(provider)
    finally:
        _shut_down(provider)


def _shut_down(provider: TracerProvider) -> None:
    # A receiver that is away must not keep a process that was told to stop.
    last = Thread(target=provider.shutdown, name="tailrace-traces", daemon=True)
    last.start()
    last.join(_LAST_SECONDS)
    if last.is_alive():
        log.warning(
            "the receiver of traces did not take the last spans in %.0f s: they are dropped", _LAST_SECONDS
        )


class OpenTelemetrySpans:
    """`Spans` through OpenTelemetry's SDK.

    Args:
        provider: Where they go.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._tracer = provider.get_tracer("tailrace")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, kind: SpanKind, attributes: Attributes, links: Iterable[bytes] = ()) -> Span:
        """See `Spans`."""
        span = self._tracer.start_span(
            name,
            kind=self._trace.SpanKind[kind],
            attributes=dict(attributes),
            links=list(self._links(links)),
        )
        return _OpenTelemetrySpan(span)

    def note(self, attributes: Attributes) -> None:
        """See `Spans`."""
        self._trace.get_current_span().set_attributes(dict(attributes))

    def headers(self) -> list[tuple[str, bytes]]:
        """See `Spans`."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return [(header, value.encode()) for header, value in carrier.items()]

    def _links(self, headers: Iterable[bytes]) -> Iterator[trace.Link]:
        for header in list(dict.fromkeys(headers))[:MAX_LINKS]:
            # Anybody may have written the message.
            carrier = {TRACE_HEADER: header.decode("ascii", "replace")}
            context = self._trace.get_current_span(self._propagator.extract(carrier)).get_span_context()
            if context.is_valid:
                yield self._trace.Link(context)


class _OpenTelemetrySpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def current(self) -> AbstractContextManager[object]:
        from opentelemetry import trace

        return trace.use_span(self._span, record_exception=False, set_status_on_exception=False)

    def end(self, error: BaseException | None = None) -> None:
        from opentelemetry.trace import Status, StatusCode

        if error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
            self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()

"""A real receiver of OpenTelemetry traces on loopback: OTLP over HTTP, as a collector has it."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan


@dataclass(frozen=True)
class Received:
    """A span as it arrived."""

    service: str
    name: str
    kind: str
    id: bytes
    parent: bytes
    trace: bytes
    links: frozenset[bytes]
    failed: bool
    attributes: dict[str, Any]


class TraceReceiver:
    """Takes spans at `endpoint` while inside; `spans` are those that came."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = ExportTraceServiceRequest.FromString(body)
                spans.extend(
                    _received(each, resource)
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for each in scope.spans
                )
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {
            "TAILRACE_TRACES": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
        }

    def __enter__(self) -> TraceReceiver:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> list[Received]:
        """Those of this name."""
        return [span for span in self.spans if span.name == name]


def _received(span: Any, resource: Any) -> Received:
    service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
    return Received(
        service=service,
        name=span.name,
        kind=ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        id=span.span_id,
        parent=span.parent_span_id,
        trace=span.trace_id,
        links=frozenset(link.span_id for link in span.links),
        failed=span.status.code == 2,
        attributes={each.key: _value(each.value) for each in span.attributes},
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(each) for each in found.values] if kind == "array_value" else found

"""Traces of the pipeline's own work: a span for each batch, sent to a real OTLP receiver, that says what the audit says."""

from __future__ import annotations

import re
import socket
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from support import hostile
from support.cli import report, tailrace
from support.embedded import up_once
from support.engine import Engine
from support.kafka import KafkaBroker
from support.processes import in_child
from support.traces import Received, TraceReceiver
from tailrace.cli import tracing
from tailrace.cli.tracing import Exporter, OpenTelemetrySpans, traced
from tailrace.schemas.spans import SpanKind, during

BAD = b"garbage\n{}\n"


def good(count: int, name: str) -> bytes:
    return b"".join(hostile.line(hostile.v1(message=name, trace_id=f"{name}-{i}")) for i in range(count))


def total(spans: list[Received], name: str) -> int:
    return sum(span.attributes[name] for span in spans)


def ranges(spans: list[Received]) -> dict[str, list[tuple[int, int]]]:
    """Of each stream, what the spans are about, in order."""
    found: dict[str, list[tuple[int, int]]] = {}
    for span in spans:
        for text in span.attributes["tailrace.streams"]:
            stream, start, end = re.fullmatch(r"(.+)\[(\d+),(\d+)\)", text).groups()  # type: ignore[union-attr]
            found.setdefault(stream, []).append((int(start), int(end)))
    return {stream: sorted(each) for stream, each in found.items()}


@pytest.mark.kafka
def test_ship_and_ingest(kafka: KafkaBroker, tmp_path: Path) -> None:
    """The shipper's spans cover every byte of the files once and the ingestor's every offset; each of those links to the
    shipper's spans that its messages come from, has an insert for each table below it, and counts its lines to the letter."""
    topic = "traces"
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_bytes(BAD + good(3000, "a"))
    (logs / "b.log").write_bytes(good(50, "b"))
    broker = ("--kafka", kafka.bootstrap, "--topic", topic)
    with TraceReceiver() as receiver:
        variables = receiver.environment
        report("ship", logs, *broker, "--shipper-id", topic, "--once", environment=variables)
        ingest = ("ingest", *broker, "--clickhouse", f"chdb://{tmp_path}/db", "--once")
        stored = report(*ingest, environment={**variables, "OTEL_SERVICE_NAME": "stores"})

    sends, stores = receiver.named(f"send {topic}"), receiver.named(f"process {topic}")
    assert {(span.service, span.kind) for span in sends} == {("tailrace-ship", "PRODUCER")}
    assert {(span.service, span.kind) for span in stores} == {("stores", "CONSUMER")}
    assert total(sends, "tailrace.lines") == total(stores, "tailrace.lines") == stored["lines"] == 3052
    assert total(stores, "tailrace.rows") == stored["rows"] and total(stores, "tailrace.dead_letters") == 2
    sizes = sorted(path.stat().st_size for path in logs.iterdir())
    for found in (ranges(sends), ranges(stores)):
        for each in found.values():
            assert each[0][0] == 0
            assert all(before[1] == after[0] for before, after in pairwise(each))
    assert sorted(each[-1][1] for each in ranges(sends).values()) == sizes
    assert total(sends, "messaging.batch.message_count") == total(stores, "messaging.batch.message_count")
    assert frozenset().union(*(span.links for span in stores)) == {span.id for span in sends}
    for span in sends + stores:
        assert span.attributes["messaging.system"] == "kafka"
        assert span.attributes["messaging.destination.name"] == topic
        assert not span.failed and not span.parent and not span.attributes["tailrace.again"]
    for span in stores:
        below = [each for each in receiver.spans if each.parent == span.id]
        assert {each.attributes["db.collection.name"] for each in below} >= {"logs", "ledger"}
        assert {each.trace for each in below} == {span.trace}
        assert {(each.kind, each.attributes["db.system.name"]) for each in below} == {
            ("CLIENT", "clickhouse")
        }


@pytest.fixture
def memory() -> tuple[OpenTelemetrySpans, InMemorySpanExporter]:
    """Spans that stay in this process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetrySpans(provider), exporter


def test_up(engine: Engine, tmp_path: Path, memory: tuple[OpenTelemetrySpans, InMemorySpanExporter]) -> None:
    """One span a batch, with the inserts below it; a line that is no record is counted as such."""
    log = tmp_path / "a.log"
    log.write_bytes(BAD + good(20, "a"))
    spans, exporter = memory
    up_once(engine.database(), log, spans)
    found = exporter.get_finished_spans()
    (batch,) = [span for span in found if span.name == "store"]
    assert batch.attributes is not None
    assert [batch.attributes[f"tailrace.{name}"] for name in ("lines", "rows", "dead_letters", "bytes")] == [
        22,
        20,
        2,
        log.stat().st_size,
    ]
    below = {span.name for span in found if span.parent and span.parent.span_id == batch.context.span_id}
    assert below == {"INSERT logs", "INSERT dead_letters", "INSERT ledger"}
    assert len(found) == 4


def test_failures_and_foreign_headers(memory: tuple[OpenTelemetrySpans, InMemorySpanExporter]) -> None:
    """A span that an exception ends says which; what is in a header of somebody else's message does no harm."""
    spans, exporter = memory
    with spans.begin("a", SpanKind.INTERNAL, {}).current():
        ((_, header),) = spans.headers()
    foreign = [b"", b"\xff", b"00-0-0-00", header[:-3], b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"]
    with pytest.raises(KeyError), during(spans.begin("b", SpanKind.CONSUMER, {}, [*foreign, header, header])):
        raise KeyError("x")
    (failed,) = exporter.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes == {"error.type": "KeyError"}
    assert [f"{link.context.span_id:016x}".encode() for link in failed.links] == [header.split(b"-")[2]]


def test_a_receiver_that_is_away_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of a process waits for it a limited time, and then says that the last spans are gone."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = taken.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nowhere}")
    monkeypatch.setattr(tracing, "_LAST_SECONDS", 0.3)
    began = time.monotonic()
    with traced(Exporter.otlp, "ship") as spans, during(spans.begin("a", SpanKind.INTERNAL, {})):
        pass
    assert time.monotonic() - began < 20
    assert "they are dropped" in caplog.text


def test_nobody_pays_who_does_not_ask(tmp_path: Path) -> None:
    """Without --traces nothing of OpenTelemetry is loaded, and without the extra the option says what to install."""
    code = """
        import tailrace.cli.ship, tailrace.cli.ingest, tailrace.cli.up, tailrace.shipper.run, tailrace.ingestor.run
        from tailrace.cli.tracing import Exporter, traced
        with traced(Exporter.off, "ship") as spans:
            assert spans.headers() == []
        print(json.dumps([name for name in sys.modules if "opentelemetry" in name]))
    """
    assert in_child(code) == []
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('not installed')\n")
    done = tailrace(
        *("ship", tmp_path, "--kafka", "127.0.0.1:9", "--once", "--traces", "otlp"),
        environment={"PYTHONPATH": str(tmp_path)},
        check=2,
    )
    assert "pip install 'tailrace[otel]'" in done.stderr and sys.executable not in done.stderr

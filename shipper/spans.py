"""What a batch of a shipper says of itself in a trace."""

from __future__ import annotations

from tailrace.schemas.spans import NO_SPANS, Attributes, Span, SpanKind, Spans
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Batch

MAX_RANGES = 50
"""So many ranges of files are named; a batch may hold lines of thousands."""


def begin(spans: Spans, settings: ShipperSettings, batch: Batch) -> Span:
    """A span for the batch, which is read and about to be prepared. Of one without lines nothing is told."""
    if not batch.chunks:
        return NO_SPANS.begin("", SpanKind.INTERNAL, {})
    ranges = batch.step.ranges
    attributes: Attributes = {
        "tailrace.bytes": batch.size,
        "tailrace.ranges": len(ranges),
        "tailrace.streams": [f"file:{each.file_id}[{each.start},{each.end})" for each in ranges[:MAX_RANGES]],
        "tailrace.again": batch.step.token is not None,
    }
    if settings.kafka is None:
        return spans.begin("store", SpanKind.INTERNAL, attributes)
    topic = settings.kafka.topic
    return spans.begin(
        f"send {topic}",
        SpanKind.PRODUCER,
        {
            **attributes,
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": topic,
            "messaging.client.id": settings.shipper_id,
        },
    )

"""`tailrace up --once` in this process, into a database of the shared engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter, InsertStats
from tailrace.schemas.spans import NO_SPANS, Spans
from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.deliver import CheckpointedDelivery
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import ShipperSettings


def up_once(client: Any, log: Path, spans: Spans = NO_SPANS) -> InsertStats:
    """Tail, decode and insert everything that a log holds now; the progress is kept beside it.

    Args:
        client: Of a migrated database.
        log: The file, or a directory of files.
        spans: Where batches tell about themselves.
    """
    settings = ShipperSettings(paths=(str(log),), once=True)
    sink = EmbeddedSink(ClickHouseWriter(client, "test"), settings.max_line_bytes, spans=spans)
    checkpoint = Checkpoint(log.with_name(f".{log.name}.checkpoint.json"))
    asyncio.run(Shipper(settings, CheckpointedDelivery(sink, checkpoint), spans=spans).run())
    return sink.stats

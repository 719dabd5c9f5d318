"""The ingestor for a shipper in the same process: file chunks in, rows out, no Kafka between.

The shipper keeps the intents (in its checkpoint) and calls `store` again with the same chunks and the same token
after a crash; the tokens and the ledger make that harmless.
"""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.ingestor.decode import BatchDecoder, DecodedBatch
from tailrace.ingestor.insert import Inserter, InsertStats, TableWriter, insert_executor
from tailrace.ingestor.settings import RetryPolicy
from tailrace.schemas.spans import NO_SPANS, Spans
from tailrace.schemas.streams import FileChunk


class EmbeddedSink:
    """A `tailrace.schemas.streams.Sink` that ends in ClickHouse tables.

    Args:
        writer: Where rows go.
        max_line_bytes: A longer line becomes a dead letter.
        retry: How to wait while ClickHouse is away.
        spans: Where each insert tells about itself.
    """

    idempotent = True

    def __init__(
        self,
        writer: TableWriter,
        max_line_bytes: int,
        retry: RetryPolicy | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        self._executor = insert_executor(writer)
        self._inserter = Inserter(writer, self._executor, retry or RetryPolicy(), spans=spans)
        self._max_line_bytes = max_line_bytes

    @property
    def inserter(self) -> Inserter:
        """What it stores with."""
        return self._inserter

    @property
    def stats(self) -> InsertStats:
        """Totals since the start."""
        return self._inserter.stats

    def prepare(self, chunks: Sequence[FileChunk]) -> DecodedBatch:
        """Decodes; see `Sink.prepare`."""
        decoder = BatchDecoder(self._max_line_bytes)
        for chunk in chunks:
            decoder.add_chunk(chunk)
        return decoder.finish()

    async def store(self, prepared: DecodedBatch, token: str) -> None:
        """Inserts; see `Sink.store`."""
        await self._inserter.store(prepared, token)

    async def restore(self, prepared: DecodedBatch, token: str, since: float) -> None:
        """Inserts what an earlier run may have stored; see `Sink.restore`."""
        await self._inserter.restore(prepared, token, since)

    async def close(self) -> None:
        """Waits for the insert that is under way; the writer stays open, it belongs to the caller."""
        self._executor.shutdown(wait=True)

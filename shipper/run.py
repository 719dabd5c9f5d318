"""The pipeline: look, read, prepare, deliver, acknowledge, over and over.

While batch n is being stored, batch n+1 is prepared in a thread and batch n+2 is read in another, and no further: what the
receiver cannot take yet stays in the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import msgspec

from tailrace.schemas.spans import NO_SPANS, Span, Spans, during
from tailrace.schemas.streams import Prepared
from tailrace.shipper.checkpoint import Progress
from tailrace.shipper.deliver import Delivery
from tailrace.shipper.discover import watched_directories
from tailrace.shipper.reader import Reader
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.spans import begin
from tailrace.shipper.stats import Stats
from tailrace.shipper.tail import Batch, Tailer
from tailrace.shipper.watch import Watch

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Prepared)

SMALL = 16
"""A batch under a sixteenth of the full size means that the files are nearly read to their ends."""
REPORT_SECONDS = 0.1
LOOK_SECONDS = 0.1
"""While a batch is not acknowledged, at most so often."""


class Followed(NamedTuple):
    """How it stands with a file.

    Args:
        file_id: Of the file, whatever its path.
        path: Where it was seen last.
        size: Bytes in it.
        acknowledged: So many of them are delivered.
    """

    file_id: str
    path: str
    size: int
    acknowledged: int

    @property
    def lag(self) -> int:
        """Bytes that are not delivered yet."""
        return max(0, self.size - self.acknowledged)


class Shipper(Generic[P]):
    """Follows files and delivers their lines.

    Args:
        settings: What to read.
        delivery: Where to, and where progress is kept; closed when `run` ends.
        on_progress: Called in the loop with the current counts, ten times a second at most, and at the end.
        spans: Where each batch tells about itself, from its reading to its acknowledgement.
    """

    def __init__(
        self,
        settings: ShipperSettings,
        delivery: Delivery[P],
        on_progress: Callable[[Stats], None] | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        self.stats = Stats()
        self._spans = spans
        self._settings = settings
        self._delivery = delivery
        self._on_progress = on_progress
        self._stopping = asyncio.Event()
        self._flying: asyncio.Task[None] | None = None
        self._taken_bytes = 0  # read, and not acknowledged
        self._following = False
        self._reader: Reader | None = None
        self._acknowledged: dict[str, int] = {}
        self._reported = 0.0

    @property
    def loaded(self) -> bool:
        """Whether it is known how far earlier runs got, which is what comes first."""
        return self._reader is not None

    def followed(self) -> list[Followed]:
        """How it stands with every file that is followed; call it in the loop's thread."""
        if self._reader is None:
            return []
        return [
            Followed(file_id, path, size, self._acknowledged.get(file_id, 0))
            for file_id, path, size in self._reader.tailer.sizes()
        ]

    def stop(self) -> None:
        """Finish the batch in flight and return from `run`; call it in the loop's thread, as often as you like."""
        self._stopping.set()

    def follow(self, paths: tuple[str, ...]) -> None:
        """Other paths than those of the settings from now on; call it in the loop's thread, as often as you like.

        Of files that no path leads to any more, what they held when this was called is still delivered, perhaps with what
        was written right after. Their states are kept, so a path that is given again later goes on where it was.
        """
        self._settings = replace(self._settings, paths=paths)
        if self._reader is not None:
            self._reader.paths = paths

    async def run(self) -> Stats:
        """Ship until `stop`, or with `once` until everything that was there is delivered.

        Raises:
            FatalError: Going on would lose or repeat lines.
        """
        started = time.monotonic()
        stopping = asyncio.create_task(self._stopping.wait())
        pipeline = asyncio.create_task(self._pipeline(started))
        try:
            await asyncio.wait({stopping, pipeline}, return_when=asyncio.FIRST_COMPLETED)
            if not pipeline.done() and self._following:
                # The pipeline sees the request itself; this is for a receiver that does not answer.
                await asyncio.wait({pipeline}, timeout=self._settings.stop_seconds)
            if not pipeline.done() and self._flying is not None:
                log.warning("the batch in flight was not acknowledged in time: the next run delivers it")
            pipeline.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pipeline
        finally:
            stopping.cancel()
            pipeline.cancel()
            await asyncio.gather(pipeline, stopping, return_exceptions=True)
        return self.stats

    async def _pipeline(self, started: float) -> None:
        try:
            progress = await self._delivery.load()
            files = progress.intended.files if progress.intended is not None else ()
            states = {**progress.files, **{state.id: state for state in files}}
            tailer = Tailer(self._settings, states.values(), time.time(), self._delivery.ignore)
            self._acknowledged = {state.id: state.position for state in states.values()}
            self._reader, self.stats.moved = Reader(self._settings, tailer), time.monotonic()
            try:
                await self._redo(progress, self._reader)
                await self._follow(self._reader, started)
            finally:
                self._reader.close()
        finally:
            if self._flying is not None:
                self._flying.cancel()
                await asyncio.gather(self._flying, return_exceptions=True)
            await self._delivery.close()

    async def _redo(self, progress: Progress, reader: Reader) -> None:
        """Store again what was being stored when the last process ended, exactly that, before anything else."""
        step = progress.intended
        if progress.intent is None or step is None:
            return
        chunks = await reader.reread(progress.intent.ranges)
        log.info("storing %d ranges again that were in flight when the last run ended", len(chunks))
        # The token is the one of the whole, also where a file is gone: what the receiver has it drops.
        intent = progress.intent
        again = msgspec.structs.replace(step, token=intent.token, announced=intent.started)
        batch = Batch(chunks, again, sum(c.end - c.start for c in chunks))
        span = begin(self._spans, self._settings, batch)
        with span.current():
            prepared = await asyncio.to_thread(self._delivery.prepare, chunks)
        self._taken_bytes += batch.size
        await self._deliver(prepared, batch, span)

    async def _follow(self, reader: Reader, started: float) -> None:
        watched = reader.paths
        self._following = True
        # What ends by itself ships what is there at its first look: nothing that comes later is waited for.
        poll_only = self._settings.poll_only or self._settings.once
        with Watch(watched_directories(watched), poll_only=poll_only) as watch:
            last_small, last_begun = False, float("-inf")
            while not self._stopping.is_set():
                if last_small:
                    # Little to do: one batch at a time, and time for lines to gather.
                    await self._landed(reader, watch, started)
                    await self._pause(last_begun + self._settings.linger_seconds - time.monotonic())
                batch = await reader.next(watch.take())
                if watched != reader.looked_at:
                    watched = reader.looked_at
                    watch.move(watched_directories(watched))
                if batch is None:
                    await self._landed(reader, watch, started)
                    self._report(reader, started)
                    if reader.tailer.finished or self._stopping.is_set():
                        break
                    await self._delivery.settle()
                    last_small = False
                    await self._idle(watch)
                    continue
                self._taken_bytes += batch.size
                last_small = batch.size * SMALL < self._settings.batch_bytes
                if not last_small:
                    reader.read_ahead(watch.take())
                span = begin(self._spans, self._settings, batch)
                prepared = await asyncio.to_thread(self._prepare, batch, span)
                await self._landed(reader, watch, started)
                last_begun = time.monotonic()
                self._flying = asyncio.create_task(self._deliver(prepared, batch, span))
                self._report(reader, started)
            await self._landed(reader, watch, started)
            await self._delivery.settle()
            if self._settings.once:
                reader.tailer.give_up_orphans()
            self._report(reader, started, final=True)

    def _prepare(self, batch: Batch, span: Span) -> P | None:
        """Runs in a thread."""
        with span.current():
            return self._delivery.prepare(batch.chunks) if batch.chunks else None

    async def _deliver(self, prepared: P | None, batch: Batch, span: Span) -> None:
        began = time.monotonic()
        with during(span):
            await self._delivery.deliver(prepared, batch.step)
        self._count(prepared.lines if prepared is not None else 0, batch, began)

    def _count(self, lines: int, batch: Batch, began: float) -> None:
        self.stats.lines += lines
        self.stats.bytes += batch.size
        self._taken_bytes -= batch.size
        self.stats.batches += bool(batch.chunks)
        self.stats.oversized += sum(chunk.oversized is not None for chunk in batch.chunks)
        self.stats.moved, self.stats.delivered_at = time.monotonic(), time.time()
        self.stats.latency.observe(self.stats.moved - began)
        self._acknowledged.update((state.id, state.position) for state in batch.step.files)
        for file_id in batch.step.forgotten:
            self._acknowledged.pop(file_id, None)

    async def _landed(self, reader: Reader, watch: Watch, started: float) -> None:
        """Wait for the batch in flight; raises what became of it.

        However long the receiver is away, no more is read than one batch ahead. But files are looked for and opened: one that is
        written, rotated and deleted meanwhile is then still there to be read.
        """
        flying, self._flying = self._flying, None
        if flying is None:
            return
        try:
            while not (await asyncio.wait({flying}, timeout=LOOK_SECONDS))[0]:
                await reader.look(watch.take())
                self._report(reader, started)
            await flying
        except asyncio.CancelledError:
            flying.cancel()
            await asyncio.gather(flying, return_exceptions=True)
            raise

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _idle(self, watch: Watch) -> None:
        """Nothing to read: wait for a directory to change, a stop, or the next look at the files' sizes."""
        seconds = min(self._settings.linger_seconds or 0.02, self._settings.poll_seconds)
        stopping = asyncio.create_task(self._stopping.wait())
        changed = asyncio.create_task(watch.wait(seconds))
        await asyncio.wait({stopping, changed}, return_when=asyncio.FIRST_COMPLETED)
        if changed.done() and changed.result():
            watch.wake()  # the next look takes it
        for task in (stopping, changed):
            task.cancel()
        await asyncio.gather(stopping, changed, return_exceptions=True)

    def _report(self, reader: Reader, started: float, final: bool = False) -> None:
        now, tailer = time.monotonic(), reader.tailer
        self.stats.files = tailer.count
        self.stats.lag_bytes = reader.lag + self._taken_bytes
        self.stats.held_back = tailer.held_back(time.time())
        self.stats.lost = tailer.losses
        self.stats.seconds = now - started
        if not self.stats.lag_bytes:
            self.stats.moved = now
        if self._on_progress is not None and (final or now - self._reported >= REPORT_SECONDS):
            self._reported = now
            self._on_progress(self.stats)

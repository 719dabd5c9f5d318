"""The one thread in which files are looked at and read, a batch ahead at most, so that no disk holds up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tailrace.schemas.streams import FileChunk, FileRange
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Batch, Tailer


class Reader:
    """Looks and reads, one thing after the other. All methods are for the loop's thread.

    Args:
        settings: What to read.
        tailer: Follows the files; nobody else may make it look or read. Closed with this.
    """

    def __init__(self, settings: ShipperSettings, tailer: Tailer) -> None:
        self.tailer = tailer
        self.paths = settings.paths
        """Those to follow; others may be assigned, and are followed from the next look on."""
        self.looked_at = settings.paths
        """Those of the last look."""
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "tailrace-read")
        self._ahead: Future[Batch | None] | None = None
        self._unread = 0
        self._last_scan = float("-inf")
        self._scan_cost = 0.0

    @property
    def lag(self) -> int:
        """Bytes that `next` has not given yet, those of a batch that is read ahead included."""
        ahead = self._ahead.result() if self._ahead is not None and self._ahead.done() else None
        return self._unread + (ahead.size if ahead is not None else 0)

    async def look(self, changed: bool) -> None:
        """See which files there are, if it is time, and how long they are.

        Args:
            changed: Whether something said that they have changed.
        """
        await asyncio.wrap_future(self._thread.submit(self._look, changed, time.time()))

    async def next(self, changed: bool) -> Batch | None:
        """The next batch: the one that was read ahead, or what a look and a read give; `None` when there is nothing now."""
        reading, self._ahead = self._ahead or self._thread.submit(self._read, changed), None
        return await asyncio.wrap_future(reading)

    def read_ahead(self, changed: bool) -> None:
        """Look and read already what `next` will be asked for."""
        if self._ahead is None:
            self._ahead = self._thread.submit(self._read, changed)

    async def reread(self, ranges: Sequence[FileRange]) -> tuple[FileChunk, ...]:
        """Look which files there are, and give exactly these ranges of them again; comes before all else. See `Tailer.reread`."""
        return await asyncio.wrap_future(self._thread.submit(self._reread, ranges))

    def close(self) -> None:
        """Wait for the thread, and close the files. What was read ahead is dropped: the files hold it."""
        self._thread.shutdown()
        self.tailer.close()

    # ------------------------------------------------------------ in the thread

    def _reread(self, ranges: Sequence[FileRange]) -> tuple[FileChunk, ...]:
        self.tailer.scan(time.time())
        return self.tailer.reread(ranges)

    def _read(self, changed: bool) -> Batch | None:
        now = time.time()
        self._look(changed, now)
        batch = self.tailer.read(now)
        self._unread = self.tailer.lag
        return batch

    def _look(self, changed: bool, now: float) -> None:
        if (paths := self.paths) != self.looked_at:
            self.tailer.follow(paths, now)
            self.looked_at = paths
        clock = time.monotonic()
        # However many paths there are, looking takes a tenth of the time at most.
        pause = max(self._settings.poll_seconds, 10 * self._scan_cost)
        if clock - self._last_scan >= pause or (changed and clock - self._last_scan >= 10 * self._scan_cost):
            self.tailer.scan(now)
            self._last_scan = time.monotonic()
            self._scan_cost = self._last_scan - clock
        self.tailer.poll(now)
        self._unread = self.tailer.lag

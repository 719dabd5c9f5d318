"""When to look again: at once when a file appears, moves or goes, else at the next tick.

Growth is not watched by events. A busy log is written thousands of times a second, and an event for each
write costs more than reading the line; asking an open file for its size costs a microsecond, ten times a
second. So events tell what changes in directories, and the tailer asks for sizes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

log = logging.getLogger(__name__)


class Watch:
    """Changes in some directories, as a flag that can be waited for. A context manager, inside a running loop.

    Where the system grants no watch (too many, or no such support) this says so in the log and tells of
    nothing: whoever uses it polls as well.

    Args:
        directories: Path and whether its subdirectories count.
        poll_only: Ask for no events at all.
    """

    def __init__(self, directories: Mapping[str, bool], *, poll_only: bool = False) -> None:
        self._directories = dict(directories)
        self._poll_only = poll_only
        self._observer: BaseObserver | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._start()
        return self

    def move(self, directories: Mapping[str, bool]) -> None:
        """Other directories from now on. Whoever waits looks again: what changed meanwhile may not be told."""
        before, self._observer = self._observer, None
        self._directories = dict(directories)
        self._start()
        self.wake()
        _stop(before)

    def _start(self) -> None:
        if self._poll_only or not self._directories:
            return
        from tailrace.shipper.events import observed  # a run that asks for no events starts without it

        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop closed while an event was on its way
                loop.call_soon_threadsafe(self._changed.set)

        try:
            self._observer = observed(self._directories, wake)
        except OSError as exc:
            log.warning("no file events (%s): looking every poll interval instead", exc)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stop(self._observer)
        self._observer = None

    def wake(self) -> None:
        """Make a waiter look now."""
        self._changed.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a change, so long at most; whether there was one. Changes since the last wait count."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
        return self.take()

    def take(self) -> bool:
        """Whether something changed since this was last asked."""
        changed = self._changed.is_set()
        self._changed.clear()
        return changed


def _stop(observer: BaseObserver | None) -> None:
    if observer is not None:
        observer.stop()
        observer.join(timeout=5)

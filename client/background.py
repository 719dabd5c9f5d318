"""A bounded queue and a thread that writes, for disks so slow that a service must not wait for them.

    put ──▶ SimpleQueue ──▶ thread ──▶ AppendFile, some 64 KiB a write

Putting takes no lock that a signal handler could find held: `SimpleQueue.put` may interrupt itself. The thread is
started by the first line, so a server that forks its workers before it logs forks without threads. A forked child
begins with an empty queue and, at its first line, a thread of its own: what was queued is its parent's to write.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event as Signal
from threading import Lock, Thread
from time import monotonic

from tailrace.append import AppendFile
from tailrace.logger import Counters, Event

_BLOCK_BYTES = 64 * 1024
_EXIT_SECONDS = 5.0
"""How long a process that exits waits for a slow disk."""


class _Marker:
    """Stands in the queue behind the lines that somebody waits for."""

    __slots__ = ("last", "passed")

    def __init__(self, last: bool) -> None:
        self.passed = Signal()
        self.last = last


_Queue = SimpleQueue[bytes | _Marker]


class BackgroundWriter:
    """Takes lines at once and writes them soon. Shared by threads; no method raises.

    Args:
        file: Where they go.
        counters: Where dropped lines are counted.
        limit: How many lines may wait. Threads that put at the same moment may exceed it by one each.
    """

    def __init__(self, file: AppendFile, counters: Counters, limit: int) -> None:
        self._file = file
        self._counters = counters
        self._limit = limit
        self._instead: Callable[[bytes], None] | None = None  # when the queue is used no more
        self._renew()
        forget_me_not = weakref.WeakMethod(self._renew)
        os.register_at_fork(after_in_child=lambda: _call(forget_me_not))
        at_exit = weakref.WeakMethod(self._drain_at_exit)
        self._at_exit = lambda: _call(at_exit)
        atexit.register(self._at_exit)

    def _renew(self) -> None:
        # Not emptied but replaced: another thread may have been inside it when the process forked.
        self._queue: _Queue = SimpleQueue()
        self._starting = Lock()
        self._running = False
        self._busy = [0]  # lines that the thread has in its hands

    @property
    def queued(self) -> int:
        """Lines that were taken and are not written yet."""
        return self._queue.qsize() + self._busy[0]

    def put(self, line: bytes) -> None:
        """Take a line; it is dropped, and counted, when the queue is full. Never waits."""
        try:
            if self._instead is not None:
                self._instead(line)
                return
            queue = self._queue
            if queue.qsize() >= self._limit:
                self._counters.add(
                    Event.DROPPED,
                    1,
                    "queue full",
                    f"{self._file.path} takes lines more slowly than they come",
                )
                return
            queue.put(line)
            if not self._running:
                self._start_or_write()
        except Exception as exc:
            self._counters.add(Event.DROPPED, 1, type(exc).__name__, str(exc))

    def flush(self, timeout: float) -> None:
        """Return when every line that was put before is written, or the time is over."""
        with suppress(Exception):
            if not self._running and not self._queue.empty():
                self._start_or_write()
            if self._running:
                self._mark(last=False).passed.wait(timeout)

    def close(self, timeout: float) -> None:
        """Write what is queued, and end the thread. What is not written in time is dropped, and counted."""
        with suppress(Exception):
            atexit.unregister(self._at_exit)
            self._drain(timeout)

    def abandon(self) -> None:
        """Let the thread end when it has written what is queued; lines that come later are written by their callers."""
        atexit.unregister(self._at_exit)
        if self._running:
            self._instead = self._file.append
            self._mark(last=True)

    def _drain_at_exit(self) -> None:
        # Afterwards finalisers and other exit handlers may still log: their lines are written by themselves.
        with suppress(Exception):
            self._drain(_EXIT_SECONDS)

    def _drain(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        self._instead = self._instead or self._file.append
        running, self._running = self._running, False
        if running and not self._mark(last=True).passed.wait(max(0.0, deadline - monotonic())):
            self._instead = self._refuse
        while True:
            # Also the lines of threads that were on their way into the queue when it was left.
            try:
                line = self._queue.get_nowait()
            except Empty:
                return
            if isinstance(line, _Marker):
                line.passed.set()
            else:
                self._instead(line)
                if monotonic() >= deadline:
                    self._instead = self._refuse

    def _refuse(self, line: bytes) -> None:
        self._counters.add(
            Event.DROPPED,
            1,
            "not drained in time",
            f"{self._file.path} took too long to write what was queued",
        )

    def _mark(self, *, last: bool) -> _Marker:
        marker = _Marker(last)
        self._queue.put(marker)
        return marker

    def _start_or_write(self) -> None:
        """There is a queue and no thread: start it, or, where the queue is used no more, write what is in it."""
        if self._instead is None and self._started():
            return
        write = self._instead or self._file.append
        with suppress(Empty):
            while True:
                line = self._queue.get_nowait()
                if isinstance(line, _Marker):
                    line.passed.set()
                else:
                    write(line)

    def _started(self) -> bool:
        """Whether there is a thread, by now or in a moment; the system may refuse one, and does at the very end."""
        if not self._starting.acquire(blocking=False):
            return True  # another thread starts it, or the code that this signal handler has interrupted
        try:
            if not self._running:
                # Said before it is so: who closes while the thread starts has to wait for what it takes.
                self._running = True
                Thread(
                    target=_write_from,
                    args=(self._queue, self._file, self._counters, self._busy),
                    name="tailrace-writer",
                    daemon=True,
                ).start()
                self._also_at_the_end_of_a_child()
            return True
        except RuntimeError:
            self._running = False
            return False
        finally:
            self._starting.release()

    def _also_at_the_end_of_a_child(self) -> None:
        # Children of multiprocessing end without running exit handlers, but run its own finalisers.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, self._at_exit, exitpriority=0)


def _write_from(queue: _Queue, file: AppendFile, counters: Counters, busy: list[int]) -> None:
    """The thread. It holds neither the logger nor the writer, so both can be collected."""
    marker: _Marker | None = None
    while marker is None or not marker.last:
        item = queue.get()
        lines: list[bytes] = []
        size, marker = 0, None
        while True:
            if isinstance(item, _Marker):
                marker = item
                break
            lines.append(item)
            busy[0] = len(lines)
            size += len(item)
            if size >= _BLOCK_BYTES:
                break
            try:
                item = queue.get_nowait()
            except Empty:
                break
        try:
            file.append_block(lines)
        except Exception as exc:
            counters.add(Event.DROPPED, len(lines), type(exc).__name__, str(exc))
        lines.clear()
        del item
        busy[0] = 0
        if marker is not None:
            marker.passed.set()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    found = method()
    if found is not None:
        found()

"""From calls to windows: a bounded buffer in front, a background thread behind.

A call appends to a deque, which is atomic, and returns. Twice a second, or sooner when much has come, the thread counts
what is there into the session's window (`statistics.Window`), and at the window's end it writes the window's records.
When calls come faster than the thread can count, the calling thread counts some rows itself, a few milliseconds of work
at a time, into a small window that the other merges later; no call ever waits for a lock. Rows that find even that
queue full are counted as dropped, and as `uncounted` in the window's records.

A forked child starts with empty windows, under another instance, and with a thread of its own as soon as it logs.
What a process holds is written at exit; `os._exit`, SIGKILL, and SIGTERM where Python has no handler for it, lose it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Event as Signal
from threading import Lock, RLock, Thread
from time import time
from typing import Any

from tailrace.statistics import Hasher, Window

RELIEF_ROWS = 512
"""Rows that a calling thread counts at once when the background thread is behind."""
CROWDED_ROWS = 4096
"""Rows in the buffer from which the background thread counts as behind."""
MAX_PARTS = 256
"""Small windows and batches that wait to be merged, at most."""
_TICK_SECONDS = 0.5

Problem = Callable[[str, int, str], None]
"""Told of what could not be counted or written: the reason, how many, and a detail for people without any of the data."""
Emit = Callable[["Collector", dict[str, Any], float, float], None]
"""Writes one record: of which session, what, when its window began, for how many seconds it was (since the epoch)."""


class Collector:
    """What one session has logged and not yet written.

    Args:
        deployment: The session's.
        hasher: Of the configuration.
        wake: Called when the buffer needs attention.
        problem: Told when rows could not be counted.
    """

    def __init__(self, deployment: str, hasher: Hasher, wake: Callable[[], None], problem: Problem) -> None:
        self.deployment = deployment
        self._hasher = hasher
        self._wake = wake
        self._problem = problem
        self.reset(time())

    def reset(self, now: float) -> None:
        """Forget everything, as a forked child must."""
        # Reentrant, so that a signal handler that flushes does not wait for the code it interrupted.
        self._lock = RLock()
        self._rows: deque[tuple[Any, Any]] = deque()
        self._truths: deque[tuple[Any, Any, tuple[str, ...]]] = deque()
        self._exceptions: deque[str] = deque()
        self._parts: deque[Window] = deque()
        self._window = Window(self._hasher)
        self._began = now
        self._uncounted = 0

    def add_row(self, features: Any, prediction: Any) -> bool:
        """Take one prediction; whoever calls gives up what it hands over. False when it had to be dropped."""
        rows = self._rows
        rows.append((features, prediction))
        return len(rows) < CROWDED_ROWS or self._relieve()

    def add_truth(self, label: Any, prediction: Any, segments: tuple[str, ...]) -> bool:
        """Take one ground truth; False when it had to be dropped."""
        truths = self._truths
        truths.append((label, prediction, segments))
        return len(truths) < CROWDED_ROWS or self._relieve()

    def add_exception(self, name: str) -> bool:
        """Take one exception, by its class; False when it had to be dropped."""
        self._exceptions.append(name)
        return len(self._exceptions) < CROWDED_ROWS or self._relieve()

    def add_batch(
        self, columns: dict[str, list[Any]] | None, records: list[Any] | None, predictions: list[Any]
    ) -> bool:
        """Count a batch at once, in the calling thread; False when it had to be dropped."""
        part = Window(self._hasher)
        if records is not None:
            part.add_rows(list(zip(records, predictions, strict=True)))
        else:
            if columns is not None:
                part.add_columns(columns)
            part.add_predictions(predictions)
        return self._add_part(part)

    def _relieve(self) -> bool:
        self._wake()
        part = Window(self._hasher)
        self._take(part, RELIEF_ROWS)
        return self._add_part(part)

    def _add_part(self, part: Window) -> bool:
        if len(self._parts) >= MAX_PARTS:
            self._uncounted += part.rows
            self._wake()
            return False
        self._parts.append(part)
        if len(self._parts) >= MAX_PARTS // 8:
            self._wake()
        return True

    def _take(self, window: Window, limit: int) -> bool:
        """Count what waits, at most `limit` of each kind; says whether something was there."""
        rows, truths, exceptions = (
            _some(waiting, limit) for waiting in (self._rows, self._truths, self._exceptions)
        )
        add: tuple[tuple[list[Any], Callable[[list[Any]], None]], ...] = (
            (rows, window.add_rows),
            (truths, window.add_truths),
            (exceptions, window.add_exceptions),
        )
        for taken, count in add:
            try:
                if taken:
                    count(taken)
            except Exception as exc:  # a value whose own methods fail
                window.uncounted += len(taken)
                self._problem(type(exc).__name__, len(taken), "rows that statistics could not count")
        return bool(rows or truths or exceptions)

    def count(self) -> None:
        """Count everything that waits into the window."""
        with self._lock:
            self._count()

    def _count(self) -> None:
        while self._take(self._window, CROWDED_ROWS):
            pass
        for part in _some(self._parts, len(self._parts)):
            self._window.merge(part)

    def finish(self, now: float) -> tuple[Window, float]:
        """End the window: what it counted and when it began; the next one begins."""
        with self._lock:
            self._count()
            window, began = self._window, self._began
            window.uncounted += self._uncounted
            self._window, self._began, self._uncounted = Window(self._hasher), now, 0
        return window, min(began, now)

    def due(self, now: float, window_seconds: float) -> bool:
        """Whether the window is over; also when the clock was set back."""
        return not self._began <= now < self._began + window_seconds


def _some(waiting: deque[Any], limit: int) -> list[Any]:
    taken = []
    try:
        for _ in range(min(limit, len(waiting))):
            taken.append(waiting.popleft())  # noqa: PERF401 - another thread may take the last one
    except IndexError:
        pass
    return taken


class Windows:
    """The windows of all sessions of a process, and the thread that counts and writes them.

    Args:
        hasher: For what must not be written in clear.
        window_seconds: Length of a window.
        emit: Writes a record.
        problem: Told of a failure in the background.
    """

    def __init__(
        self,
        hasher: Hasher,
        window_seconds: float,
        emit: Emit,
        problem: Problem,
    ) -> None:
        self._hasher = hasher
        self._window_seconds = window_seconds
        self._emit = emit
        self._problem = problem
        self._collectors: dict[str, Collector] = {}
        self._closed = False
        self._refused = False
        self.restart()

    def restart(self) -> None:
        """Begin anew in a forked child: empty windows, no thread yet."""
        self._signal = Signal()
        self._start_lock = Lock()
        self._thread: Thread | None = None
        for collector in list(self._collectors.values()):
            collector.reset(time())

    def collector(self, deployment: str) -> Collector:
        """The collector of a deployment."""
        return self._collectors.setdefault(
            deployment, Collector(deployment, self._hasher, self._wake, self._problem)
        )

    def _wake(self) -> None:
        self._signal.set()

    @property
    def running(self) -> bool:
        """Whether a thread of this process counts and writes what is handed over."""
        return self._thread is not None

    def start(self) -> None:
        """Start the thread; harmless when it runs. Once closed there is none, and what comes late is written at once.

        Where the system refuses a thread, what is held is written by the next `flush`, at exit at the latest.
        """
        if self._closed:
            self.flush()
            return
        # A lock that somebody holds means that the thread is being started.
        if not self._start_lock.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = Thread(
                    target=self._run, args=(self._signal,), name="tailrace-statistics", daemon=True
                )
                thread.start()
                self._thread = thread
                _finish_in_multiprocessing(self.flush)
        except RuntimeError as exc:
            if not self._refused:
                self._refused = True
                self._problem("no thread", 0, str(exc))
        finally:
            self._start_lock.release()

    def _run(self, signal: Signal) -> None:
        tick = min(_TICK_SECONDS, self._window_seconds / 4)
        while not self._closed and signal is self._signal:
            signal.wait(tick)
            signal.clear()
            for collector in list(self._collectors.values()):
                try:
                    collector.count()
                    if collector.due(time(), self._window_seconds):
                        self._write(collector)
                except Exception as exc:
                    self._problem(type(exc).__name__, 1, f"statistics: {type(exc).__name__}")

    def flush(self) -> None:
        """End and write the window of every session now."""
        for collector in list(self._collectors.values()):
            try:
                self._write(collector)
            except Exception as exc:
                self._problem(type(exc).__name__, 1, f"statistics: {type(exc).__name__}")

    def _write(self, collector: Collector) -> None:
        now = time()
        window, began = collector.finish(now)
        if window.left_out:
            self._problem("too many names", len(window.left_out), "features or segments over the limit")
        for record in window.records():
            self._emit(collector, record, began, now - began)

    def close(self) -> None:
        """Write what is held and stop. May be called twice."""
        self._closed = True
        self._thread = None
        self._signal.set()
        self.flush()


def _finish_in_multiprocessing(flush: Callable[[], None]) -> None:
    """Children of `multiprocessing` leave by `os._exit` and run none of `atexit`; they have a list of their own."""
    import sys

    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, _flush_once, args=(flush, os.getpid()), exitpriority=100)


def _flush_once(flush: Callable[[], None], pid: int) -> None:
    if pid == os.getpid():
        flush()

"""The logging of the standard library, attached to the trace of the request that is being served."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from tailrace.jsonable import encode
from tailrace.logger import Counters, Event, Logger, LoggerStats

if TYPE_CHECKING:
    from tailrace.trace import Trace

_LEVELS = ((logging.CRITICAL, "critical"), (logging.ERROR, "error"), (logging.WARNING, "warning"))
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TailraceHandler(logging.Handler):
    """Writes what a service logs by `logging` as texts of `tailrace.current_trace()`.

    >>> import logging
    >>> from tailrace import TailraceHandler, Trace
    >>> from tailrace.testing import MemoryLogger
    >>> log = logging.getLogger("shop")
    >>> log.addHandler(TailraceHandler())
    >>> with Trace(logger=(memory := MemoryLogger())):
    ...     log.warning("%s is slow", "db")
    >>> memory.lines[-1]["level"], memory.lines[-1]["message"]
    ('warning', 'db is slow')

    Levels between those of Tailrace count as the next lower one, and those below INFO as debug. The text is what the
    formatter makes of the record; by default that is the message, and the traceback of an exception below it
    (`logging.basicConfig` gives its handlers another one, unless it is told `format="%(message)s"`). Nothing
    raises, and nothing is printed to stderr. What Tailrace itself reports while a record is being written, on the same
    thread, is not written again.

    Args:
        level: The lowest level that is written.
        logger: Where records go that come outside of any trace: into one trace a process. None drops them, and counts
            them as dropped with the reason `no trace`.
        extra: Append the fields of `extra={…}` to the text, as JSON.
    """

    def __init__(
        self, level: int | str = logging.NOTSET, *, logger: Logger | None = None, extra: bool = False
    ) -> None:
        super().__init__(level)
        self._logger = logger
        self._extra = extra
        self._counters = Counters()
        self._lines = 0
        self._inside = threading.local()
        self._fallback: tuple[int, Trace] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; called by `logging`."""
        if getattr(self._inside, "busy", False):
            self._counters.add(Event.DROPPED, 1, "logged while logging", record.name)
            return
        self._inside.busy = True
        try:
            trace = self._trace()
            if trace is None:
                self._counters.add(
                    Event.DROPPED,
                    1,
                    "no trace",
                    f"{record.name} logs outside of any trace, and no logger is given for that",
                )
                return
            getattr(trace, _level(record.levelno))(self._text(record))
            self._lines += 1
        except Exception as exc:
            self._counters.add(Event.DROPPED, 1, type(exc).__name__, f"{type(exc).__name__}: {exc}")
        finally:
            self._inside.busy = False

    def stats(self) -> LoggerStats:
        """Records that were handed to a trace (`lines`) and those that were not; what became of the former the
        trace's logger tells."""
        return self._counters.snapshot(self._lines)

    def flush(self) -> None:
        """Flush the logger that was given; those of traces are flushed by whoever made them."""
        if self._logger is not None:
            self._logger.flush()

    def _trace(self) -> Trace | None:
        from tailrace.context import current_trace

        trace = current_trace()
        if trace is not None or self._logger is None:
            return trace
        if self._fallback is None or self._fallback[0] != os.getpid():
            from tailrace.trace import Trace

            self._fallback = os.getpid(), Trace(logger=self._logger)
        return self._fallback[1]

    def _text(self, record: logging.LogRecord) -> str:
        try:
            text = self.format(record)
        except Exception as exc:
            # Arguments that do not fit the message: say what there is.
            text = f"{record.msg} {record.args!r} ({type(exc).__name__}: {exc})"
        if not self._extra:
            return text
        fields = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        return f"{text} {encode(fields, tokens=False)[0].decode()}" if fields else text


def _level(number: int) -> str:
    for least, name in _LEVELS:
        if number >= least:
            return name
    return "info" if number >= logging.INFO else "debug"
